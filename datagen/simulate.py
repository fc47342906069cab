"""Samples without a store: by index, or as an endless stream drawn on the device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from datagen.errors import DatagenError
from datagen.plan import CHUNK, Shard
from datagen.recipe import SPLITS, Recipe
from datagen.scenarios import Batch, Engine, make_engine


def block(engine: Engine, split: str, indices: NDArray[np.int64]) -> Batch:
    """At most :data:`CHUNK` samples, always computed as a full block.

    Fixed shapes keep a sample's bits the same whichever samples are computed beside it: library kernels may round
    differently in the remainder of a batch.
    """
    full = np.resize(indices, CHUNK)
    return {name: array[: len(indices)] for name, array in engine(engine.draw(split, full)).items()}


def sample(
    recipe: Recipe,
    indices: Sequence[int] | NDArray[np.int64] | range,
    split: str = "train",
    *,
    batch_size: int = CHUNK,
    engine: str | None = None,
    device: str = "cpu",
) -> Iterator[Batch]:
    """Iterate over samples by index, without any store: the very samples that a store of this recipe holds.

    :param recipe: what to simulate
    :param indices: sample indices, any order, not bounded by the split's size, shape [n]
    :param split: ``train``, ``val`` or ``test``
    :param batch_size: samples in each batch yielded; the last may have fewer
    :param engine: one of the scenario's engines (:data:`datagen.scenarios.ENGINES`), by default the fastest
    :param device: torch device of the results, ``cpu`` or ``cuda``
    :returns: iterator of batches: the arrays that a store would hold by name, each complex64 [batch, ...] on the device
    :raises DatagenError: unknown split, engine or device; a negative index; a batch size below 1
    """
    import torch

    order = indices if isinstance(indices, range) else np.asarray(indices)
    if split not in SPLITS:
        raise DatagenError(f"unknown split {split!r}; allowed: {', '.join(SPLITS)}")
    if len(order):
        ends = np.asarray([order[0], order[-1]]) if isinstance(order, range) else order
        if ends.ndim != 1 or ends.dtype.kind not in "iu" or ends.min() < 0 or ends.max() >= 2**63:
            raise DatagenError("indices must be a list of sample numbers, 0 and up")
    if batch_size < 1:
        raise DatagenError(f"batch_size {batch_size} is not allowed; give 1 or more")
    simulator = make_engine(recipe, engine, device)

    def batches() -> Iterator[Batch]:
        shapes = recipe.shapes(split)
        ready = {name: torch.empty(0, *shape, dtype=torch.complex64, device=device) for name, shape in shapes.items()}
        waiting = 0
        for start in range(0, len(order), CHUNK):  # batches are cut out of full blocks, whatever their size
            fresh = block(simulator, split, np.asarray(order[start : start + CHUNK], dtype=np.int64))
            ready = {name: torch.cat([array, fresh[name]]) for name, array in ready.items()}
            waiting += min(CHUNK, len(order) - start)
            while waiting >= batch_size:
                yield {name: array[:batch_size] for name, array in ready.items()}
                ready = {name: array[batch_size:] for name, array in ready.items()}
                waiting -= batch_size
        if waiting:
            yield ready

    return batches()


def stream(recipe: Recipe, batch_size: int = CHUNK, *, seed: int | None = None, device: str = "cpu") -> Iterator[Batch]:
    """Endless stream of fresh samples drawn on the device itself: the law of :func:`sample` at the device's own speed.

    Samples are not tied to an index and differ between devices; use it to train, never to evaluate.

    :param recipe: what to simulate; its sizes and seed are not used
    :param batch_size: samples in each batch
    :param seed: seed of the device's generator; None takes a random one
    :param device: torch device, ``cpu`` or ``cuda``
    :returns: iterator of batches: the arrays by name, each complex64 [batch_size, ...] on the device
    :raises DatagenError: unknown device, or a batch size below 1
    """
    import torch

    if batch_size < 1:
        raise DatagenError(f"batch_size {batch_size} is not allowed; give 1 or more")
    if seed is not None and not 0 <= seed < 2**63:
        raise DatagenError(f"seed {seed} is not allowed; give 0 to 2^63 - 1")
    simulator = make_engine(recipe, None, device)
    generator = torch.Generator(device)
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)

    def batches() -> Iterator[Batch]:
        while True:
            yield simulator(simulator.draw_on_device(batch_size, generator))

    return batches()


def simulate_shard(engine: Engine, shard: Shard) -> dict[str, NDArray[np.complex64]]:
    """All arrays of a shard, each complex64 [stop - start, ...], in blocks aligned to :data:`CHUNK`."""
    shapes = engine.recipe.shapes(shard.split)
    out = {name: np.empty((shard.stop - shard.start, *shape), np.complex64) for name, shape in shapes.items()}
    for start in range(shard.start, shard.stop, CHUNK):
        indices = np.arange(start, min(start + CHUNK, shard.stop))
        batch = block(engine, shard.split, indices)
        for name, array in out.items():
            array[indices - shard.start] = batch[name].cpu().numpy()
    return out
