"""datagen: FDD massive MIMO CSI triples, simulated in parallel into verified, versioned Zarr stores."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datagen.errors import DatagenError, Interrupted, VerificationError
    from datagen.execute import generate
    from datagen.importing import survey
    from datagen.manifest import Manifest
    from datagen.publishing import publish, pull
    from datagen.recipe import CDLRecipe, COST2100Recipe, InHRecipe, MatfileRecipe, Recipe
    from datagen.scenarios.cdl_statistics import ConditionalStatistics, conditional_statistics
    from datagen.scenarios.cost2100 import Multipath, multipath, path_maps, redrawn
    from datagen.simulate import sample, stream
    from datagen.store import Store, open_store
    from datagen.tensorflow_reader import tf_dataset
    from datagen.verification import regenerate, verify

__version__ = "0.1.0"

_HOMES = {  # public name -> module; imported on first use, so that `import datagen` costs neither torch nor zarr
    "DatagenError": "errors", "Interrupted": "errors", "VerificationError": "errors",
    "generate": "execute", "regenerate": "verification", "verify": "verification",
    "publish": "publishing", "pull": "publishing", "Manifest": "manifest", "survey": "importing", "Recipe": "recipe",
    "CDLRecipe": "recipe", "COST2100Recipe": "recipe", "InHRecipe": "recipe", "MatfileRecipe": "recipe",
    "sample": "simulate", "stream": "simulate", "Store": "store", "open_store": "store", "tf_dataset": "tensorflow_reader",
    "ConditionalStatistics": "scenarios.cdl_statistics", "conditional_statistics": "scenarios.cdl_statistics",
    "Multipath": "scenarios.cost2100", "multipath": "scenarios.cost2100", "path_maps": "scenarios.cost2100",
    "redrawn": "scenarios.cost2100",
}  # fmt: skip
__all__ = [
    "CDLRecipe", "COST2100Recipe", "ConditionalStatistics", "DatagenError", "InHRecipe", "Interrupted", "Manifest", "MatfileRecipe",
    "Multipath", "Recipe", "Store", "VerificationError", "conditional_statistics", "generate", "multipath", "open_store", "path_maps", "publish", "pull",
    "redrawn", "regenerate", "sample", "stream", "survey", "tf_dataset", "verify",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'datagen' has no attribute {name!r}")
    return getattr(importlib.import_module(f"datagen.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
