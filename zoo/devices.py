"""Which device a process computes on."""

from __future__ import annotations

import contextlib
import os
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
