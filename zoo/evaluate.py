"""What a model is worth: bits counted from bytes, error, time. :mod:`zoo.results` keeps what comes of it.

Two copies of the model are loaded, a sender and a receiver, and nothing but payload bytes goes from one to the other.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from zoo import metrics
from zoo.checkpoint import load_codec
from zoo.data import Store, noisy
from zoo.errors import CheckError, ZooError
from zoo.locate import locate
from zoo.models.base import Codec, Model
from zoo.registry import read_config

SNRS = (None, 30.0)  # qualities of the side information: as simulated, and as a receiver measures it
NOISE_SEED = 0
RHO_SAMPLES = 2000  # rho costs two Fourier transforms over all subcarriers a sample; so many fix its third digit


def evaluate(
    model: str | Path, store: Store, split: str = "test", samples: int | None = None, *, snr_db: Sequence[float | None] = SNRS,
    rho_samples: int = RHO_SAMPLES, domain: str = "angular-delay", effort: int | None = None,
    device: str = "cpu", progress: bool = False, command: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Measure a model by what its receiver makes of its sender's payloads.

    :param model: name, directory or address, as :func:`zoo.load` takes it
    :param split: of the store
    :param samples: the first so many; all if not given
    :param snr_db: SNRs of the side information, each with noise of its own that is the same for every model; None for Y as simulated
    :param rho_samples: rho is measured on the first so many; 0 leaves it out
    :param domain: of the NMSE: ``angular-delay``, over the crop alone, or ``spatial-frequency``, over the whole band that the store
        keeps as H (:func:`zoo.metrics.crop_and_tail`); rho is of the crop in either
    :param effort: of the sender in search of its payloads (:meth:`zoo.models.base.Codec.compress`); the model's own if not given
    :param progress: show a bar on stderr if it takes longer than a few seconds
    :param command: that asked for it, for the record
    :returns: what ``results.json`` holds, JSON-ready
    :raises ZooError: the model cannot be loaded, lacks the effort, or the store does not hold what it takes
    :raises CheckError: payloads of another length than the model states, or an estimate that is not finite
    """
    path, digests = locate(model)
    config = read_config(path)
    sender, receiver = (load_codec(path, digests, device=device) for _ in range(2))
    level_of_effort = sender.effort_of(effort)
    require_fit(sender, store, config["name"])
    count = sample_count(store, split, samples)
    require_domain(domain, store, split, store.target)
    link = _Link(config["name"], sender, receiver, level_of_effort)
    levels = [_Level(snr) for snr in (snr_db if receiver.config.side_information else [None])]
    done = 0
    with tqdm(total=count, unit="sample", disable=not progress, delay=3, smoothing=0.05) as bar:
        for batch in store.batches(split, count):
            sides = [level.side_information(batch.y if receiver.config.side_information else None) for level in levels]
            for start in range(0, len(batch.x), sender.at_once):
                rows = slice(start, start + sender.at_once)
                z, tail = reference(batch.z[rows].numpy(), domain, store, split, done)
                payloads = link.send(batch.x[rows].numpy())
                for level, y in zip(levels, sides, strict=True):
                    estimate = link.receive(payloads, None if y is None else y[rows])
                    level.errors.append(metrics.relative_errors(z, estimate, tail))
                    level.correlate(z, estimate, rho_samples, store.dataset.subcarriers)
                done += len(z)
                bar.update(len(z))
    return {
        **origin(config, store, split, count, receiver, command), "domain": domain,
        "bits": receiver.bits, "payload_bytes": receiver.payload_bytes, "decoder_has_y": receiver.config.side_information,
        "effort": level_of_effort,
        "side_information": [level.result(config["name"]) for level in levels],
        "throughput": {
            "compress_samples_per_second": count / link.compress_seconds,
            "decompress_samples_per_second": count * len(levels) / link.decompress_seconds,
            "batch": sender.at_once, **environment(receiver),
        },
    }  # fmt: skip


def origin(
    config: dict[str, Any], store: Store, split: str, count: int, codec: Model[Any], command: str | None
) -> dict[str, Any]:
    """What results say of the model and the samples that they are of, JSON-ready."""
    return {
        "model": config["name"], "weights_sha256": config["weights_sha256"], "parameters": parameter_count(codec),
        "data": {
            "name": store.dataset.name, "scenario": store.dataset.scenario, "recipe_digest": store.dataset.recipe_digest,
            "split": split, "samples": count,
        },
        "version": _version(), "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": command,
    }  # fmt: skip


def _version() -> str:
    """Of this package; ``source`` where it runs without being installed."""
    try:
        return version("csi-feedback-zoo")
    except PackageNotFoundError:
        return "source"


def sample_count(store: Store, split: str, samples: int | None) -> int:
    """How many samples are measured.

    :raises ZooError: the split does not hold them, or there are none
    """
    count = store.sizes.get(split, 0) if samples is None else samples
    store.read(split, count, count)  # refuses what the split does not hold, before any work is done
    if count < 1:
        raise ZooError(f"an evaluation needs samples; {split} of {store.path} holds {store.sizes[split]}")
    return count


def require_domain(domain: str, store: Store, split: str, of: str) -> None:
    """See that an NMSE can be measured in a domain.

    :param of: X or Z, which is estimated
    :raises ZooError: there is no such domain, or the store lacks the band that it takes
    """
    if domain not in metrics.DOMAINS:
        raise ZooError(f"there is no domain {domain!r}; give {' or '.join(metrics.DOMAINS)}")
    if domain == "spatial-frequency":
        store.require_band(split, of)


def reference(
    z: metrics.Complex, domain: str, store: Store, split: str, start: int
) -> tuple[metrics.Complex, metrics.Energies | None]:
    """What estimates of samples are compared with in a domain: their crop, and the energy outside of it where that counts.

    :param z: the samples from ``start`` on, complex [n, angle, delay]
    """
    if domain == "angular-delay":
        return z, None
    h = store.read_array(split, "H", start, start + len(z)).numpy()
    return metrics.crop_and_tail(h, z.shape[2], official=store.recipe.get("convention") == "official")


def error_facts(errors: Sequence[NDArray[np.float64]], name: str) -> dict[str, Any]:
    """NMSE of relative errors, and how sure it is.

    :param errors: of some batches, [n] each
    :raises CheckError: they are not finite
    """
    found = np.concatenate(errors)
    nmse = float(found.mean())
    if not np.isfinite(nmse):
        raise CheckError(f"{name} reconstructs values that are not finite")
    return {
        "nmse": nmse, "nmse_db": float(10 * np.log10(nmse)),
        "nmse_standard_error": float(found.std(ddof=1) / len(found) ** 0.5) if len(found) > 1 else None,
    }  # fmt: skip


def require_fit(codec: Model[Any], store: Store, name: str) -> None:
    """See that a store holds what a codec takes.

    :raises ZooError: samples of another shape, or no side information
    """
    shape = (codec.config.angles, codec.config.delays)
    if tuple(store.dataset.shape) != shape:
        held = " x ".join(map(str, store.dataset.shape))
        raise ZooError(f"{store.path} holds samples of {held} (angle x delay); {name} takes {shape[0]} x {shape[1]}")
    if codec.takes_y and not store.dataset.side_information:
        raise ZooError(f"{store.path} has no side information Y; {name} decodes with it")


def parameter_count(codec: nn.Module) -> int:
    """Numbers that training has set; a codec that is fitted in closed form has them in buffers, integers among them."""
    weights: list[Tensor] = [*codec.parameters()] or [*codec.buffers()]
    return sum(weight.numel() for weight in weights)


def environment(codec: Model[Any]) -> dict[str, Any]:
    """What a time was measured on."""
    device = torch.cuda.get_device_name(codec.device) if codec.device.type == "cuda" else str(codec.device)
    return {"device": device, "threads": torch.get_num_threads(), "torch": torch.__version__}


class _Link:
    """From a sender to a receiver, with a clock at both ends; the first, untimed sample makes them ready."""

    def __init__(self, name: str, sender: Codec[Any], receiver: Codec[Any], effort: int) -> None:
        self.name, self.sender, self.receiver, self.effort = name, sender, receiver, effort
        self.compress_seconds = self.decompress_seconds = 0.0
        one = np.ones((1, sender.config.angles, sender.config.delays), np.complex64)
        receiver.decompress(sender.compress(one, effort), one if receiver.config.side_information else None)

    def send(self, x: metrics.Complex) -> list[bytes]:
        began = time.perf_counter()
        payloads = self.sender.compress(x, self.effort)
        self.compress_seconds += time.perf_counter() - began
        if any(len(payload) != self.receiver.payload_bytes for payload in payloads):
            raise CheckError(f"{self.name} sends payloads of another length than its {self.receiver.bits} bits take")
        return payloads

    def receive(self, payloads: list[bytes], y: metrics.Complex | None) -> metrics.Complex:
        began = time.perf_counter()
        estimate: metrics.Complex = self.receiver.decompress(payloads, y)
        self.decompress_seconds += time.perf_counter() - began
        return estimate


class _Level:
    """Errors at one quality of the side information."""

    def __init__(self, snr_db: float | None) -> None:
        self.snr_db = snr_db
        self.generator = torch.Generator().manual_seed(NOISE_SEED)
        self.errors: list[NDArray[np.float64]] = []
        self.rho_sum, self.rho_samples = 0.0, 0

    def side_information(self, y: Tensor | None) -> metrics.Complex | None:
        return None if y is None else noisy(y, self.snr_db, self.generator).numpy()

    def correlate(
        self, z: metrics.Complex, estimate: metrics.Complex, rho_samples: int, subcarriers: int | None
    ) -> None:
        n = min(len(z), rho_samples - self.rho_samples)
        if n > 0 and subcarriers is not None:
            self.rho_sum += n * metrics.rho(z[:n], estimate[:n], subcarriers)
            self.rho_samples += n

    def result(self, name: str) -> dict[str, Any]:
        return {
            "snr_db": self.snr_db, **error_facts(self.errors, name),
            "rho": self.rho_sum / self.rho_samples if self.rho_samples else None, "rho_samples": self.rho_samples,
        }  # fmt: skip
