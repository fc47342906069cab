"""What a codec costs: parameters, multiply-accumulates, bytes of weights, samples a second."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from zoo.errors import ZooError
from zoo.evaluate import environment, parameter_count
from zoo.models.base import BATCH, Codec

SECONDS = 2.0  # that each side is timed for, after one call that is not


def bench(codec: Codec[Any], batch: int = BATCH, seconds: float = SECONDS) -> dict[str, Any]:
    """Cost of a codec where it is.

    :param batch: samples a call
    :param seconds: least time each side is measured for
    :returns: JSON-ready; MACs are real multiply-accumulates a sample in convolutions and matrix products
    :raises ZooError: the device has not enough memory for the batch
    """
    shape = (batch, codec.config.angles, codec.config.delays)
    noise = np.random.default_rng(0).standard_normal((2, *shape), dtype=np.float32) * float(codec.scale) / 4
    x = noise[0] + 1j * noise[1]
    y = x if codec.config.side_information else None
    try:
        payloads = codec.compress(x)
        return {
            "bits": codec.bits, "payload_bytes": codec.payload_bytes, "parameters": parameter_count(codec),
            "weights_bytes": sum(value.numel() * value.element_size() for value in codec.state_dict().values()),
            "compress_macs": macs(lambda: codec.compress(x[:1])),
            "decompress_macs": macs(lambda: codec.decompress(payloads[:1], None if y is None else y[:1])),
            "compress_samples_per_second": batch * _rate(lambda: codec.compress(x), seconds),
            "decompress_samples_per_second": batch * _rate(lambda: codec.decompress(payloads, y), seconds),
            "batch": batch, **environment(codec),
        }  # fmt: skip
    except torch.OutOfMemoryError:
        raise ZooError(
            f"a batch of {batch} does not fit the memory of {codec.device}; give a smaller --batch"
        ) from None


def macs(call: Callable[[], object]) -> int:
    """Real multiply-accumulates of a call: half the floating point operations that torch counts."""
    aten = torch.ops.aten
    products = {op: _real(flop_registry[op]) for op in (aten.mm, aten.addmm, aten.bmm, aten.baddbmm)}
    with FlopCounterMode(display=False, custom_mapping=products) as counter:
        call()
    return counter.get_total_flops() // 2


def _real(count: Callable[..., int]) -> Callable[..., int]:
    """A complex multiplication, which torch counts as one, is four."""

    def formula(*args: Any, out_val: Tensor, **kwargs: Any) -> int:
        return count(*args, out_val=out_val, **kwargs) * (4 if out_val.is_complex() else 1)

    formula._get_raw = True  # type: ignore[attr-defined]  # torch: hand over tensors, not their shapes
    return formula


def _rate(call: Callable[[], object], seconds: float) -> float:
    """Calls a second. Codecs hand over numpy arrays, so a call has ended, on a GPU too, when it returns."""
    call()
    calls, start = 0, time.perf_counter()
    while calls == 0 or time.perf_counter() - start < seconds:
        call()
        calls += 1
    return calls / (time.perf_counter() - start)
