"""Typed recipes: what to simulate, nothing about where or how fast. Units stand in the field names.

A recipe fixes every sample: (recipe, split, index) determines all arrays. Where the data lie, how many workers made them and
which engine computed them are not part of it. A scenario is one module here and its engines in ``datagen.scenarios``.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from datagen.errors import DatagenError
from datagen.recipe.base import ARRAYS, SPLITS, Recipe, SourceFile, canonical_digest, describe_arrays, explain
from datagen.recipe.cdl import CDLRecipe
from datagen.recipe.cost2100 import COST2100Recipe
from datagen.recipe.matfile import MatfileRecipe

__all__ = [
    "ARRAYS", "RECIPES", "SPLITS", "CDLRecipe", "COST2100Recipe", "MatfileRecipe", "Recipe", "SourceFile", "canonical_digest",
    "describe_arrays", "explain", "load", "parse",
]  # fmt: skip

RECIPES: dict[str, type[Recipe]] = {"cdl": CDLRecipe, "cost2100": COST2100Recipe, "matfile": MatfileRecipe}


def parse(data: object, source: str = "recipe") -> Recipe:
    """A recipe from a mapping, as read from TOML, JSON or the command line.

    :param data: field names and values; ``scenario`` chooses the kind
    :param source: where the mapping came from, for messages
    :raises DatagenError: unknown scenario or key, or a value out of range
    """
    if not isinstance(data, dict):
        raise DatagenError(f"{source}: a recipe is a table of fields, not {type(data).__name__}")
    scenario = data.get("scenario", "cdl")
    if not isinstance(scenario, str) or scenario not in RECIPES:
        raise DatagenError(f"{source}: unknown scenario {scenario!r}; allowed: {', '.join(RECIPES)}")
    try:
        return RECIPES[scenario].model_validate(data)
    except ValidationError as error:
        raise DatagenError(f"{source}: {explain(error, RECIPES[scenario])}") from None
    except RecursionError:
        raise DatagenError(f"{source}: its values are nested too deep") from None


def load(path: str | Path) -> dict[str, Any]:
    """The table in a recipe file (TOML), not yet validated.

    :raises DatagenError: the file cannot be read or is not TOML
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise DatagenError(f"cannot read the recipe {path}: {error.strerror}; give the path of a TOML file") from None
    except (ValueError, RecursionError) as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        raise DatagenError(f"{path} is not TOML: {error}") from None
