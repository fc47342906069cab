"""zoo: codecs for CSI feedback, with real bytes or symbols on a radio link: trained, measured and loaded by name."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo import uplink
    from zoo.checkpoint import load
    from zoo.errors import CheckError, ZooError
    from zoo.metrics import nmse, nmse_db, rho
    from zoo.models.base import Codec
    from zoo.models.jscc import JSCC
    from zoo.registry import list_models

_HOMES = {  # public name -> module; imported on first use, so that `import zoo` does not cost torch
    "CheckError": "errors", "ZooError": "errors", "nmse": "metrics", "nmse_db": "metrics", "rho": "metrics",
    "Codec": "models.base", "JSCC": "models.jscc", "list_models": "registry", "load": "checkpoint",
}  # fmt: skip
_MODULES = ("uplink",)
__all__ = ["JSCC", "CheckError", "Codec", "ZooError", "list_models", "load", "nmse", "nmse_db", "rho", "uplink"]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"zoo.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'zoo' has no attribute {name!r}")
    return getattr(importlib.import_module(f"zoo.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOMES, *_MODULES]
