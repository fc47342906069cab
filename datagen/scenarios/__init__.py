"""Scenarios: each turns draws into triples. An engine is built from a recipe by name; nothing here is imported before it is needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from datagen.errors import DatagenError
from datagen.recipe import CDLRecipe, Recipe

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

ENGINES = ("closed-form", "sionna")
DEVICES = ("cpu", "cuda")


class Triple(NamedTuple):
    """A batch of samples, each array complex64 [sample, angle, delay]; with one slot, ``Z`` equals ``X``."""

    X: torch.Tensor
    Y: torch.Tensor
    Z: torch.Tensor


class Engine(Protocol):
    """What simulates a recipe on a device: draws by index (on the CPU) or drawn on the device, and draws to triples."""

    @property
    def recipe(self) -> Recipe:
        """What it simulates."""

    def draw(self, split: str, indices: Sequence[int] | NDArray[np.int64]) -> Any:
        """The random numbers of given samples, a function of (recipe, split, index)."""

    def draw_on_device(self, n: int, generator: torch.Generator) -> Any:
        """Random numbers of n samples of the same law, made on the generator's device."""

    def __call__(self, draws: Any) -> Triple:
        """The samples of some draws, each array complex64 [n, angle, delay] on the engine's device."""


def make_engine(recipe: Recipe, engine: str = "closed-form", device: str = "cpu") -> Engine:
    """The engine that simulates a recipe.

    :param recipe: what to simulate
    :param engine: ``closed-form`` (fast) or ``sionna`` (the reference)
    :param device: ``cpu``, ``cuda`` or ``cuda:N``
    :raises DatagenError: unknown engine, or a device this machine does not have
    """
    import torch

    check_engine(engine)
    check_device(device)
    if not isinstance(recipe, CDLRecipe):
        raise DatagenError(f"no engine simulates the scenario {recipe.scenario!r}")
    if engine == "sionna":
        from datagen.scenarios.cdl_sionna import Sionna

        return Sionna(recipe, torch.device(device))
    from datagen.scenarios.cdl import ClosedForm

    return ClosedForm(recipe, torch.device(device))


def check_engine(engine: str) -> None:
    """:raises DatagenError: there is no engine of that name"""
    if engine not in ENGINES:
        raise DatagenError(f"unknown engine {engine!r}; allowed: {', '.join(ENGINES)}")


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
