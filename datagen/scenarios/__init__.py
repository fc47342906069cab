"""Scenarios: each turns draws into samples. An engine is built from a recipe by name; nothing here is imported before it is needed."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from datagen.errors import DatagenError
from datagen.recipe import Recipe

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from datagen.matlab import Matrix


Inputs = tuple[tuple[str, "Matrix"], ...]  # where the matrices of a recipe's sources lie, by the part they play
Batch = Mapping[str, "torch.Tensor"]  # samples: the arrays by name, each complex64 [sample, ...]
ENGINES: dict[str, dict[str, str]] = {  # scenario -> engine -> where its class is; the first is the default
    "cdl": {"closed-form": "cdl:ClosedForm", "sionna": "cdl_sionna:Sionna"},
    "cost2100": {"closed-form": "cost2100:ClosedForm"},
    "matfile": {"matlab": "matfile:Matlab"},
}
DEVICES = ("cpu", "cuda")


class Engine(Protocol):
    """What simulates a recipe on a device: draws by index (on the CPU) or drawn on the device, and draws to samples."""

    @property
    def recipe(self) -> Recipe:
        """What it simulates."""

    def draw(self, split: str, indices: Sequence[int] | NDArray[np.int64]) -> Any:
        """The random numbers of given samples, a function of (recipe, split, index)."""

    def draw_on_device(self, n: int, generator: torch.Generator) -> Any:
        """Random numbers of n samples of the same law, made on the generator's device."""

    def __call__(self, draws: Any) -> Batch:
        """The samples of some draws: at least the arrays of their split, on the engine's device."""


def make_engine(recipe: Recipe, engine: str | None = None, device: str = "cpu", inputs: Inputs = ()) -> Engine:
    """The engine that simulates a recipe.

    :param recipe: what to simulate
    :param engine: one of the scenario's :data:`ENGINES`, by default the first, the fastest
    :param device: ``cpu``, ``cuda`` or ``cuda:N``
    :param inputs: what the recipe's sources hold, where it has any
    :raises DatagenError: unknown engine, a device this machine does not have, or sources and no inputs
    """
    import torch

    name = check_engine(recipe, engine)
    check_device(device)
    module, _, cls = ENGINES[recipe.scenario][name].partition(":")
    if recipe.sources.keys() != dict(inputs).keys():
        raise DatagenError(f"{recipe.label} was imported from files, not simulated; read it from its store")
    given = (dict(inputs),) if inputs else ()
    kind = getattr(importlib.import_module(f"datagen.scenarios.{module}"), cls)
    made: Engine = kind(recipe, torch.device(device), *given)
    return made


def check_engine(recipe: Recipe, engine: str | None) -> str:
    """The name of an engine of a recipe's scenario, the default one for None.

    :raises DatagenError: there is no engine of that name
    """
    engines = ENGINES[recipe.scenario]
    if engine is None:
        return next(iter(engines))
    if engine not in engines:
        raise DatagenError(f"unknown engine {engine!r} for {recipe.scenario}; allowed: {', '.join(engines)}")
    return engine


def check_device(device: str) -> None:
    """:raises DatagenError: the device is unknown or this machine does not have it"""
    import torch

    kind, _, number = device.partition(":")
    if kind not in DEVICES or (number and not (kind == "cuda" and number.isdecimal())):
        raise DatagenError(f"unknown device {device!r}; allowed: {', '.join(DEVICES)}")
    if kind == "cuda" and (not torch.cuda.is_available() or int(number or 0) >= torch.cuda.device_count()):
        raise DatagenError(
            f"device {device!r} is not there: torch {torch.__version__} finds {torch.cuda.device_count()} GPUs; use --device cpu"
        )
