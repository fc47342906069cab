"""How fast training goes, beside the loop that anybody would write first, and which share of a GPU's peak that is."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from zoo.bench import finished, macs
from zoo.config import Recipe
from zoo.data import Source
from zoo.devices import fast_products
from zoo.errors import ZooError
from zoo.models.base import Network
from zoo.train import Place, Trainer, build, draws_and_notes, side_information

WARM_UP = 3  # steps that are not timed: they compile, and choose kernels
PEAK_FLOPS = {  # dense bfloat16, by a part of the device's name; the first that fits counts
    "H100 PCIe": 756e12, "H100 NVL": 835e12, "H100": 989e12, "H200": 989e12, "A100": 312e12,
}  # fmt: skip


def training_speed(recipe: Recipe, source: Source, device: str, seconds: float = 5.0) -> dict[str, Any]:
    """Steps a second of a recipe's training, and of a plain loop over the same model, batches and loss.

    The plain loop has neither compilation nor mixed precision nor a memory layout of its own, and keeps no average of the weights;
    ``plain`` takes torch's own settings, with which a GPU may round the factors of convolutions (TF32), ``plain_exact`` does not let it.

    :param seconds: least time that each is measured for, after a warm-up
    :returns: JSON-ready: steps a second of ``trained``, ``plain`` and ``plain_exact``, the operations of a step, ``share_of_peak`` (None
        where the device's peak is not known), and ``compile_error`` where compilation failed and ``trained`` goes without
    :raises ZooError: the recipe is of a family that is not trained
    """
    codec = build(recipe, source)
    if not isinstance(codec, Network):
        raise ZooError(f"{recipe.family} is fitted in closed form, not trained")
    compiles, problem = recipe.training.compile, None
    try:
        trained = _trained(recipe, source, device, seconds)
    except Exception as error:  # whatever the compiler and what it calls make of this machine
        if not (device.startswith("cuda") if compiles is None else compiles) or isinstance(
            error, torch.OutOfMemoryError
        ):
            raise
        problem = f"{type(error).__name__}: {error}".splitlines()[0]
        training = recipe.training.model_copy(update={"compile": False})
        trained = _trained(recipe.model_copy(update={"training": training}), source, device, seconds)
    plain, flops = _plain(recipe, source, device, seconds)
    with _exact():
        exact, _ = _plain(recipe, source, device, seconds)
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu"
    peak = next((value for part, value in PEAK_FLOPS.items() if part in name), None)
    return {
        "family": recipe.family, "batch": recipe.training.batch, "device": name, "torch": torch.__version__,
        "steps_per_second": {"trained": trained, "plain": plain, "plain_exact": exact}, "times_plain": trained / plain,
        "times_plain_exact": trained / exact, "flops_per_step": flops, "peak_flops": peak,
        "share_of_peak": None if peak is None else trained * flops / peak, "compile_error": problem,
    }  # fmt: skip


def _trained(recipe: Recipe, source: Source, device: str, seconds: float) -> float:
    """Steps a second of the training loop's own step."""
    codec = build(recipe, source).to(device)
    assert isinstance(codec, Network)
    trainer = Trainer(codec, recipe.training, source, Path(), Place(0, 1, device, False, False), None)
    objective, generator = trainer.objective(), torch.Generator(device)
    trainer.codec.train()
    source.observe(trainer.average.observe)
    with _batches(recipe, source) as batches, fast_products(device):
        return _per_second(lambda: trainer.update(objective, next(batches), generator, 0.0), seconds)


def _plain(recipe: Recipe, source: Source, device: str, seconds: float) -> tuple[float, int]:
    """Steps a second of a loop in single precision, and operations of a step."""
    training, codec = recipe.training, build(recipe, source).to(device).train()
    assert isinstance(codec, Network)
    weights = [weight for weight in codec.parameters() if weight.requires_grad]
    optimizer = torch.optim.Adam(weights, lr=training.learning_rate)
    generator, steps = torch.Generator(device).manual_seed(0), itertools.count()

    def step() -> None:
        batch = next(batches)
        y = side_information(codec, batch, training, generator)
        x, z, y = (None if array is None else codec.to_image(array) for array in (batch.x, batch.z, y))
        assert x is not None
        assert z is not None
        loss, _ = codec.loss(x, y, z, draws_and_notes(codec, source, batch, next(steps), generator))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, training.clip)
        optimizer.step()

    with _batches(recipe, source) as batches:
        flops = 2 * macs(step)
        return _per_second(step, seconds), flops


@contextlib.contextmanager
def _batches(recipe: Recipe, source: Source) -> Iterator[Iterator[Any]]:
    batches = source.batches(0, recipe.training.batch)
    try:
        yield batches
    finally:
        if hasattr(batches, "close"):
            batches.close()


@contextlib.contextmanager
def _exact() -> Iterator[None]:
    """Convolutions in single precision proper."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def _per_second(step: Callable[[], object], seconds: float) -> float:
    """Calls a second, with the work that they leave to a GPU."""
    for _ in range(WARM_UP):
        step()
    finished()
    calls, start = 0, time.perf_counter()
    while calls == 0 or time.perf_counter() - start < seconds:
        for _ in range(WARM_UP):
            step()
        calls += WARM_UP
        finished()
    return calls / (time.perf_counter() - start)
