"""What a model costs: parameters, multiply-accumulates, bytes of weights, samples a second."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from zoo.errors import ZooError
from zoo.evaluate import environment, parameter_count
from zoo.metrics import Complex
from zoo.models.base import BATCH, Codec
from zoo.models.jscc import JSCC, TRIAL_SNR_DB

SECONDS = 2.0  # that each side is timed for, after one call that is not
STEPS = (1, 2, 20)  # of refinement, besides none and the model's own choice; 2 and 20 are those of the paper's tables


def bench(model: Codec[Any] | JSCC[Any], batch: int = BATCH, seconds: float = SECONDS) -> dict[str, Any]:
    """Cost of a model where it is.

    :param batch: samples a call
    :param seconds: least time each side is measured for
    :returns: JSON-ready; MACs are real multiply-accumulates a sample in convolutions and matrix products. Of a codec: ``compress_macs``,
        ``compress_samples_per_second`` and the same for ``decompress``; of one that may search its payloads, these are of no effort, and the
        others are among its ``efforts``. Of a model that sends symbols: ``parameters``, ``macs`` and
        ``samples_per_second`` of its ``encoder`` at no effort, its ``efforts`` likewise, and of its ``decoders``, one for each number of ``steps``
        of refinement
    :raises ZooError: the device has not enough memory for the batch
    """
    shape = (batch, model.config.angles, model.config.delays)
    noise = np.random.default_rng(0).standard_normal((2, *shape), dtype=np.float32) * float(model.scale) / 4
    x = noise[0] + 1j * noise[1]
    try:
        costs = _of_symbols(model, x, seconds) if isinstance(model, JSCC) else _of_payloads(model, x, seconds)
    except torch.OutOfMemoryError:
        raise ZooError(
            f"a batch of {batch} does not fit the memory of {model.device}; give a smaller --batch"
        ) from None
    return {
        "parameters": parameter_count(model),
        "weights_bytes": sum(value.numel() * value.element_size() for value in model.state_dict().values()),
        **costs, "batch": batch, **environment(model),
    }  # fmt: skip


def _of_payloads(codec: Codec[Any], x: Complex, seconds: float) -> dict[str, Any]:
    y = x if codec.config.side_information else None
    payloads = codec.compress(x, 0)

    def speed(effort: int) -> float:
        return len(x) * _rate(lambda: codec.compress(x, effort), seconds)

    least = speed(0)
    searched = [{"effort": effort, "samples_per_second": speed(effort)} for effort in range(1, codec.efforts)]
    return {
        "bits": codec.bits, "payload_bytes": codec.payload_bytes,
        "compress_macs": macs(lambda: codec.compress(x[:1], 0)),
        "decompress_macs": macs(lambda: codec.decompress(payloads[:1], None if y is None else y[:1])),
        "compress_samples_per_second": least,
        "decompress_samples_per_second": len(x) * _rate(lambda: codec.decompress(payloads, y), seconds),
        **({"efforts": [{"effort": 0, "samples_per_second": least}, *searched]} if searched else {}),
    }  # fmt: skip


def _of_symbols(model: JSCC[Any], x: Complex, seconds: float) -> dict[str, Any]:
    """The rows of RD-JSCC's Tables III and IV. The link costs nothing here, and each k the same: the others are prefixes of the longest."""
    seen = torch.from_numpy(x).to(model.device)  # on the device: getting there would cost more than the encoder
    sent = model.encode(seen, TRIAL_SNR_DB, effort=0)
    fewest, most = model.steps

    def cost(call: Callable[[Tensor, Tensor], object]) -> dict[str, Any]:
        return {
            "parameters": parameters_used(lambda: call(seen[:1], sent[:1])),
            "macs": macs(lambda: call(seen[:1], sent[:1])),
            "samples_per_second": len(seen) * _rate(lambda: call(seen, sent), seconds),
        }

    def decoder(steps: int) -> dict[str, Any]:
        return {"steps": steps, **cost(lambda _, symbols: model.decode(symbols, TRIAL_SNR_DB, steps))}

    def speed(effort: int) -> float:
        return len(seen) * _rate(lambda: model.encode(seen, TRIAL_SNR_DB, effort=effort), seconds)

    encoder = cost(lambda csi, _: model.encode(csi, TRIAL_SNR_DB, effort=0))
    searched = [{"effort": effort, "samples_per_second": speed(effort)} for effort in range(1, model.efforts)]
    least = {"effort": 0, "samples_per_second": encoder["samples_per_second"]}
    return {
        "symbols": list(model.config.symbols),
        "encoder": encoder,
        **({"efforts": [least, *searched]} if searched else {}),
        "decoders": [
            decoder(steps) for steps in sorted({0, *STEPS, model.default_steps}) if fewest <= steps <= most
        ],
    }  # fmt: skip


def parameters_used(call: Callable[[], object]) -> int:
    """Parameters of all the modules that a call goes through."""
    used: dict[nn.Parameter, None] = {}

    def note(module: nn.Module, _: object) -> None:
        used.update(dict.fromkeys(module.parameters(recurse=False)))

    hook = register_module_forward_pre_hook(note)
    try:
        call()
    finally:
        hook.remove()
    return sum(weight.numel() for weight in used)


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


def finished() -> None:
    """Wait for the GPU, where there is one."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def _rate(call: Callable[[], object], seconds: float) -> float:
    """Calls a second, with the work that they leave to a GPU."""
    call()
    finished()
    calls, start = 0, time.perf_counter()
    while calls == 0 or time.perf_counter() - start < seconds:
        call()
        finished()
        calls += 1
    return calls / (time.perf_counter() - start)
