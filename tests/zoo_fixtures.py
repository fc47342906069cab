"""Small codecs without training, samples without a store."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from zoo import registry, results
from zoo.checkpoint import save_model
from zoo.models.base import Network, NetworkCodec
from zoo.registry import family_of, read_config

SIZES: dict[str, dict[str, Any]] = {
    "csinet": {"rate": 66},
    "crnet": {"rate": 66},
    "gd-csi-paper": {"rate": 64, "width": 4, "multipliers": (1, 2), "kernel": 3, "norm": "channel"},
    "gd-csi": {"rate": 64, "backbone": "dense", "width": 16, "hidden": 16, "encoder_blocks": 1, "decoder_blocks": 2},
}
NETWORKS = list(SIZES)
N = TypeVar("N", bound=Network[Any])
torch.set_num_threads(1)  # threads that wait for each other cost these small networks more than they bring


def untrained(family: str, **fields: Any) -> NetworkCodec[Any]:
    """A network of small size with random weights, ready to use; ``fields`` of its config may be changed."""
    torch.manual_seed(1)
    kind = registry.architecture(family.removesuffix("-paper"))
    codec = kind(kind.Config.model_validate({**SIZES[family], **fields}))
    assert isinstance(codec, NetworkCodec)
    return ready(codec)


def samples(n: int, seed: int = 0, shape: tuple[int, int] = (32, 32)) -> Tensor:
    """Complex normal samples that fade with delay, complex64 [n, angle, delay]."""
    values = torch.randn(n, *shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(seed))
    return 0.01 * values * torch.exp(-torch.arange(shape[1]) / 6)


def save(path: Path, codec: NetworkCodec[Any], dtype: str = "float32", architecture: str | None = None) -> Path:
    """Write a codec's directory; name and, if not given, architecture are in the directory's own name."""
    record = {"name": path.name, "architecture": architecture or family_of(path.name).removesuffix("-paper")}
    save_model(path, codec, record, {"x": samples(4, 1), "y": samples(4, 2)}, dtype)
    return path


def flip_a_bit(file: Path) -> None:
    """Damage the end of a file by one bit."""
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)


def measured(path: Path, nmse_db: float = -5.0) -> Path:
    """Write results beside a codec, as an evaluation would of these weights."""
    levels = [{"snr_db": snr, "nmse": 10 ** (nmse_db / 10), "nmse_db": nmse_db} for snr in (None, 30.0)]
    found = {
        "model": path.name, "weights_sha256": read_config(path)["weights_sha256"], "parameters": 1000, "bits": registry.rate_of(path.name),
        "payload_bytes": -(-registry.rate_of(path.name) // 8), "decoder_has_y": True, "side_information": levels,
        "data": {"name": "cdl-c-fdd-v1", "scenario": "cdl", "recipe_digest": "sha256:00", "split": "test", "samples": 10},
    }  # fmt: skip
    results.write(path / results.RESULTS_FILE, found)
    return path


def ready(model: N) -> N:
    """A network with random weights, ready to use: what training starts from zero is drawn too."""
    model.prepare(samples(100))
    for weight in model.parameters():
        if not weight.any():  # so that an untrained network estimates nothing
            nn.init.normal_(weight, std=0.1)
    return model.eval().requires_grad_(False)
