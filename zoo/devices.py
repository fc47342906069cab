"""Which device a process computes on."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Iterator

import torch

from zoo.errors import ZooError


def local_device(device: str) -> str:
    """The device that this process uses: of several under torchrun, each takes the GPU of its local rank.

    :param device: ``cpu``, ``cuda`` or ``cuda:N``
    :raises ZooError: it cannot be used
    """
    local = f"cuda:{os.environ['LOCAL_RANK']}" if device == "cuda" and "LOCAL_RANK" in os.environ else device
    try:
        torch.empty(0, device=local)
    except (RuntimeError, AssertionError) as error:
        raise ZooError(f"device {local!r} cannot be used ({str(error).splitlines()[0]}); use cpu") from None
    return local


@functools.cache
def half_is_faster(gain: float = 1.3) -> bool:
    """Try for a moment whether this CPU multiplies matrices that much faster in bfloat16 than in single precision.

    What a processor says of itself does not tell: some have the instructions and are slower by them.
    """
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        rows, matrix = torch.ones(256, 512, dtype=dtype), torch.ones(1024, 512, dtype=dtype)
        times = []
        for _ in range(12):
            start = time.perf_counter()
            torch.nn.functional.linear(rows, matrix)
            times.append(time.perf_counter() - start)
        seconds[dtype] = min(times)
    return seconds[torch.float32] > gain * seconds[torch.bfloat16]


def fast_products(device: str) -> contextlib.AbstractContextManager[None]:
    """Let a GPU round the factors of matrix products in single precision (TF32), for as long as this lasts."""
    return _products("high") if device.startswith("cuda") else contextlib.nullcontext()


def exact_products() -> contextlib.AbstractContextManager[None]:
    """Matrix products in single precision proper, for as long as this lasts: phases of many turns do not bear rounding."""
    return _products("highest")


@contextlib.contextmanager
def _products(precision: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
