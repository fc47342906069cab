"""Typed training recipes: which codec, trained how. Units stand in the field names."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from zoo.errors import ZooError, unknown
from zoo.names import find

RECIPES = Path(__file__).parent / "recipes"
NAME = r"^[a-z0-9]+(-[a-z0-9]+)*$"


class Training(BaseModel):
    """How a codec is trained. Ignored by the families that are fitted in closed form, but for the noise on Y and the samples."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    steps: int = Field(300_000, ge=1, description="optimiser steps; with --max-minutes, at most")
    batch: int = Field(100, ge=1, description="samples a step, over all processes")
    learning_rate: float = Field(1e-3, gt=0, description="of Adam, at its height")
    second_moment_decay: float = Field(0.999, gt=0, lt=1, description="of Adam: beta_2")
    weight_decay: float = Field(0.0, ge=0, description="of weights, apart from the gradient (AdamW)")
    final_learning_rate: float = Field(1e-5, ge=0, description="at the end of the cosine")
    warmup_steps: int = Field(200, ge=0, description="linear rise at the start")
    clip: float = Field(1.0, gt=0, description="largest norm of the gradient")
    ema: float = Field(0.999, ge=0, lt=1, description="decay of the averaged weights, which are the ones kept")
    seed: int = Field(0, ge=0, lt=2**32, description="of initial weights, order of samples and noise")
    side_information_snr_db: float | None = Field(
        30.0, description="SNR of Y a cell, noise drawn anew each step; 'none' takes Y as simulated"
    )
    samples: int | None = Field(
        None, ge=1,
        description="first samples of the train split to use, all if not given; of a network with --simulate: to simulate once and keep, fresh ones each step if not given",
    )  # fmt: skip
    init: str | None = Field(None, description="model (name or directory) or run directory to start from")
    validation_samples: int = Field(512, ge=1, description="of the val split, for the NMSE in the log")
    precision: Literal["auto", "fastest", "float32", "bfloat16"] = Field(
        "auto",
        description="auto: bfloat16 autocast on CUDA only; fastest: also on a CPU that multiplies faster so, which is tried",
    )
    compile: bool | None = Field(None, description="torch.compile; on CUDA only if not given")


class Recipe(BaseModel):
    """A training recipe: everything but the data."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    family: str = Field(pattern=NAME, description="name that models of this recipe are released under")
    architecture: str = Field(pattern=NAME, description="codec class, see zoo.registry.ARCHITECTURES")
    codec: dict[str, Any] = Field(default_factory=dict, description="fields of the codec's config")
    training: Training = Training()
    first: Training | None = Field(
        None, description="of the first stage, for families of two; nothing of it is used where training.init is given"
    )

    def record(self) -> dict[str, Any]:
        """The recipe, JSON-ready."""
        return self.model_dump(mode="json", exclude={"first"} if self.first is None else set())


def names() -> list[str]:
    """Recipes that come with the package."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def load(recipe: str | Path, changes: dict[str, Any] | None = None) -> Recipe:
    """A recipe by name or file.

    A file may say ``extends = "NAME"`` and give only what differs.

    :param recipe: name of a recipe of this package, in any spelling of :mod:`zoo.names`, or path of a TOML file
    :param changes: values by dotted key, e.g. ``{"training.steps": 100}``
    :raises ZooError: unknown recipe or key, or a value out of range
    """
    table = _table(recipe)
    table.setdefault("family", _file(recipe).stem)
    for key, value in (changes or {}).items():
        head, _, rest = key.partition(".")
        inner = table.setdefault(head, {}) if rest else table
        if not isinstance(inner, dict):
            raise ZooError(f"{key!r} is no key of a recipe; {head!r} is a single value")
        inner[rest or head] = value
    try:
        return Recipe.model_validate(_tuples(table))
    except ValidationError as error:
        raise ZooError(f"recipe {recipe}: {explain(error, Recipe)}") from None


def _file(recipe: str | Path) -> Path:
    return Path(recipe) if str(recipe).endswith(".toml") else RECIPES / f"{find(str(recipe), names())}.toml"


def _table(recipe: str | Path, within: tuple[str, ...] = ()) -> dict[str, Any]:
    path = _file(recipe)
    if str(path) in within:
        raise ZooError(f"recipe {recipe} extends itself")
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        near = difflib.get_close_matches(str(recipe).lower(), names(), n=3) or names()
        raise ZooError(
            f"unknown recipe {str(recipe)!r}; nearest: {', '.join(near)}; or give the path of a .toml file"
        ) from None
    except OSError as error:
        raise ZooError(f"cannot read the recipe {recipe}: {error.strerror}") from None
    except ValueError as error:
        raise ZooError(f"{recipe} is not TOML: {error}") from None
    base = table.pop("extends", None)
    if base is None:
        return table
    below = _table(str(base), (*within, str(path)))
    merged = {**below, **table}
    for key in ("codec", "training", "first"):
        if key in merged:
            merged[key] = {**below.get(key, {}), **table.get(key, {})}
    return merged


def _tuples(value: Any) -> Any:
    """Lists as tuples, and the word none as None, which TOML has no sign for."""
    if isinstance(value, dict):
        return {key: _tuples(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return tuple(map(_tuples, value))
    return None if value == "none" else value


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """One line for the first thing pydantic found wrong."""
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        fields: dict[str, Any] = dict(model.model_fields)
        for part in first["loc"][:-1]:
            if isinstance(part, int):  # an item of a list, whose type was looked up with it
                continue
            kind = fields[str(part)].annotation
            fields = dict(
                next(inner for inner in (*get_args(kind), kind) if hasattr(inner, "model_fields")).model_fields
            )
        return unknown("key", place, fields)
    message = first["msg"].removeprefix("Value error, ").replace("Input should", "it should")
    if first["type"] in ("missing", "value_error"):
        return f"{place}: {message}" if place else message
    return f"{place} = {first['input']!r}: {message}"
