"""What a model that sends symbols is worth: error over the SNR of the link, rates, steps of refinement, quantisation, the UE's own CNR.

Two copies of the model are loaded, a sender and a receiver, and nothing but symbols goes from one to the other, over the link. The block
error rate of a downlink that is precoded by the estimate may be had with the error.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from zoo import metrics
from zoo.checkpoint import load_model
from zoo.data import Store, channel_estimate
from zoo.errors import ZooError
from zoo.evaluate import NOISE_SEED, error_facts, origin, reference, require_domain, require_fit, sample_count
from zoo.locate import locate
from zoo.models.base import BATCH
from zoo.models.jscc import JSCC, TRIAL_SNR_DB, levels, quantised
from zoo.registry import read_config
from zoo.uplink import Channel, capacity_bits, named, transmit, unit_power

SNRS_DB = (-10.0, -5.0, 0.0, 5.0, 10.0)
LEAK_BITS = (1, 2, 3, 4, 6, 8)  # a real dimension, that what arrives is rounded to by :func:`leak_check`
DOWNLINK_SNR_DB = 5.0  # where block error rates are asked for


def evaluate_jscc(
    model: str | Path, store: Store, split: str = "test", samples: int | None = None, *, snr_db: Sequence[float] = SNRS_DB,
    symbols: Sequence[int] = (), steps: Sequence[int | Literal["auto"]] = (), bits: Sequence[int | None] = (None,),
    cnr_db: Sequence[float | None] = (None,), channel: str | Path = "rayleigh",
    downlink_snr_db: float | None = None, domain: str = "angular-delay", effort: int | None = None, device: str = "cpu",
    progress: bool = False, command: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Measure a model at every combination of the following.

    Noise is drawn anew for each, but the same for every model.

    :param model: name, directory or address, as :func:`zoo.load` takes it
    :param split: of the store
    :param samples: the first so many; all if not given
    :param snr_db: of the link, at each antenna
    :param symbols: channel uses k; all that the model serves if not given
    :param steps: of refinement, ``auto`` among them; see :func:`usual_steps` if not given
    :param bits: of quantised symbols, a real dimension; None for analog ones
    :param cnr_db: of the CSI that the UE encodes; None for perfect CSI
    :param channel: of the link: ``awgn``, ``rayleigh``, ``rician``, or a store of ``datagen inh --uplink`` (:func:`zoo.uplink.named`)
    :param downlink_snr_db: of the block error rate of each point (:func:`zoo.metrics.bler`), over all subcarriers of the store; None: no rate
    :param domain: of the NMSE, see :func:`zoo.evaluate.evaluate`; block error rates are of the crop in either
    :param effort: of the sender in search of its symbols (:meth:`zoo.models.jscc.JSCC.encode`); the model's own if not given
    :param progress: show a bar on stderr if it takes longer than a few seconds
    :param command: that asked for it, for the record
    :returns: what ``results.json`` holds, JSON-ready; its ``points`` are one a combination
    :raises ZooError: the model cannot be loaded, sends payloads, or does not serve what is asked for; the store does not say the
        subcarriers that a block error rate takes
    :raises CheckError: an estimate that is not finite
    """
    config, sender, receiver = _ends(model, store, device)
    channels = named(channel)
    if downlink_snr_db is not None and store.dataset.subcarriers is None:
        raise ZooError(
            f"{store.path} does not say how many subcarriers its samples are of; a block error rate takes them"
        )
    level_of_effort, count = sender.effort_of(effort), sample_count(store, split, samples)
    require_domain(domain, store, split, "X")
    chosen = (symbols or sender.config.symbols, snr_db, steps or usual_steps(sender), bits, cnr_db)
    links: dict[tuple[Any, ...], _Link] = {}
    points = []
    for k, snr, refinement, width, cnr in itertools.product(*chosen):
        link = links.setdefault((k, snr, width, cnr), _Link(k, snr, width, cnr, level_of_effort, device))
        points.append(_Point(link, refinement))
    blank = torch.ones(1, sender.config.angles, sender.config.delays, dtype=torch.complex64)
    for link in links.values():  # refuses what the model does not serve, before any work is done
        link.send(sender, channels, blank)
    for point in points:
        point.decode(receiver)
        point.refined = point.lost = 0
    for link in links.values():
        link.rewind()
    done = 0
    with tqdm(total=count * len(points), unit="sample", disable=not progress, delay=3, smoothing=0.05) as bar:
        for x in itertools.chain.from_iterable(batch.x.split(BATCH) for batch in store.batches(split, count)):
            for link in links.values():
                link.send(sender, channels, x)
            z, tail = reference(x.numpy(), domain, store, split, done)
            done += len(x)
            for point in points:
                estimate = point.decode(receiver).cpu().numpy()
                point.errors.append(metrics.relative_errors(z, estimate, tail))
                if downlink_snr_db is not None and store.dataset.subcarriers is not None:
                    blocks = metrics.bler(z, estimate, downlink_snr_db, store.dataset.subcarriers)
                    point.failed_blocks += len(x) * blocks
                bar.update(len(x))
    return {
        **origin(config, store, split, count, receiver, command), "domain": domain, "effort": level_of_effort,
        "symbols": list(receiver.config.symbols), "channel": str(channel), "points": [
            point.result(config["name"], downlink_snr_db, receiver.in_blocks) for point in points
        ],
    }  # fmt: skip


def leak_check(
    model: str | Path, store: Store, split: str = "test", samples: int | None = None, *, k: int | None = None,
    snr_db: float = TRIAL_SNR_DB, device: str = "cpu",
) -> dict[str, Any]:  # fmt: skip
    """See that nothing but symbols reaches a decoder: spoil them, and the estimate must go with them.

    What arrives is decoded as it is (``received``), given to the decoder of another sample (``shuffled``), replaced by noise of the same
    power (``noise``), and rounded to a few bits a real dimension (``rounded``, with the ``payload_bits`` that then reach the decoder). An
    NMSE near 0 dB or above after shuffling and with noise says that the estimate was made of the symbols. A decoder can have no more of
    a sample than ``capacity_bits``, what the link carries on average.

    :param samples: the first so many of the split; all if not given
    :param k: symbols; the most if not given
    :param snr_db: of the link
    :returns: JSON-ready: ``nmse_db`` of each
    :raises ZooError: the model cannot be loaded, sends payloads or does not serve k; fewer than two samples
    """
    config, sender, receiver = _ends(model, store, device)
    count, k = sample_count(store, split, samples), sender.config.longest if k is None else k
    if count < 2:
        raise ZooError("a leak check takes two samples or more: one cannot be given the symbols of another")
    generator = torch.Generator(device).manual_seed(NOISE_SEED)
    channel = named("rayleigh")
    errors: dict[Any, list[NDArray[Any]]] = {}
    for batch in store.batches(split, count):
        sent = sender.encode(batch.x.to(device), snr_db, k)
        received = transmit(sent, snr_db, channel=channel, generator=generator).symbols
        for what, symbols in _spoilt(received, generator).items():
            found = errors.setdefault(what, [])
            found.append(metrics.relative_errors(batch.x.numpy(), receiver.decode(symbols, snr_db).cpu().numpy()))
    nmse_db = {what: error_facts(found, config["name"])["nmse_db"] for what, found in errors.items()}
    carried = capacity_bits(channel.sample(count, k, generator), snr_db).mean()
    return {
        **origin(config, store, split, count, receiver, None),
        "k": k, "snr_db": snr_db, "capacity_bits": float(carried), "rounded": [
            {"bits": bits, "payload_bits": 2 * k * bits, "nmse_db": nmse_db[bits]} for bits in LEAK_BITS
        ],
        "nmse_db": {what: value for what, value in nmse_db.items() if isinstance(what, str)},
    }  # fmt: skip


def _spoilt(received: Tensor, generator: torch.Generator) -> dict[Any, Tensor]:
    """What arrived, as it is and in every way that :func:`leak_check` spoils it; rounded ones by their bits."""
    power = received.abs().square().mean(1, keepdim=True)
    noise = torch.randn(received.shape, dtype=received.dtype, device=received.device, generator=generator)
    pairs = torch.view_as_real(unit_power(received)).contiguous()
    rounded = {bits: torch.view_as_complex(levels(quantised(pairs, bits), bits)) for bits in LEAK_BITS}
    return {
        "received": received, "shuffled": received.roll(1, 0), "noise": noise * power.sqrt(),
        **{bits: symbols * power.sqrt() for bits, symbols in rounded.items()},
    }  # fmt: skip


def _ends(model: str | Path, store: Store, device: str) -> tuple[dict[str, Any], JSCC[Any], JSCC[Any]]:
    """A model's config, and two copies of it: the sender and the receiver.

    :raises ZooError: it cannot be loaded, sends payloads, or does not fit the store
    """
    path, digests = locate(model)
    config = read_config(path)
    sender, receiver = (load_model(path, digests, device=device) for _ in range(2))
    if not isinstance(sender, JSCC):
        raise ZooError(f"{config['name']} sends payloads, not symbols")
    require_fit(sender, store, config["name"])
    return config, sender, receiver


def usual_steps(model: JSCC[Any]) -> list[int | Literal["auto"]]:
    """Steps that a model is measured at: its fewest and its default, and ``auto`` where there is something to choose."""
    chosen = sorted({model.steps[0], model.default_steps})
    return [*chosen, "auto"] if len(chosen) > 1 else [*chosen]


class _Link:
    """A sender and what it sends over."""

    def __init__(
        self, k: int, snr_db: float, bits: int | None, cnr_db: float | None, effort: int, device: str
    ) -> None:  # fmt: skip
        self.k, self.snr_db, self.bits, self.cnr_db, self.effort = k, snr_db, bits, cnr_db, effort
        self.received = torch.zeros(0, k, dtype=torch.complex64)
        self.generator = torch.Generator(device)
        self.rewind()

    def rewind(self) -> None:
        """Start the noise anew."""
        self.generator.manual_seed(NOISE_SEED)

    def send(self, sender: JSCC[Any], channel: Channel, x: Tensor) -> None:
        """Let samples [n, angle, delay] arrive."""
        device = self.generator.device
        x = x.to(device)
        if self.cnr_db is not None:
            noise = torch.randn(x.shape, dtype=x.dtype, device=device, generator=self.generator)
            x = channel_estimate(x, self.cnr_db, noise)
        sent = sender.encode(x, self.snr_db, self.k, self.bits, self.effort)
        if self.bits is not None:
            sent = torch.from_numpy(sender.symbols(sent, self.bits, self.k)).to(device)
        self.received = transmit(sent, self.snr_db, channel=channel, generator=self.generator).symbols


class _Point:
    """Errors of what arrives over a link, decoded in some number of steps."""

    def __init__(self, link: _Link, steps: int | Literal["auto"]) -> None:
        self.link, self.steps = link, steps
        self.errors: list[NDArray[Any]] = []
        self.failed_blocks = 0.0  # expected number, a block a sample
        self.refined = 0  # samples that the receiver refined of its own accord
        self.lost = 0  # samples whose block the receiver found broken

    def decode(self, receiver: JSCC[Any]) -> Tensor:
        """What the receiver makes of what has arrived, [n, angle, delay]."""
        received, snr_db = self.link.received, self.link.snr_db
        if self.steps == "auto":
            self.refined += int(receiver.worth_refining(received, snr_db).sum())
        if receiver.in_blocks:
            self.lost += int(receiver.lost(received, snr_db).sum())
        return receiver.decode(received, snr_db, self.steps)

    def result(self, name: str, downlink_snr_db: float | None, in_blocks: bool) -> dict[str, Any]:
        link = self.link
        chosen = {"k": link.k, "snr_db": link.snr_db, "steps": self.steps, "bits": link.bits, "cnr_db": link.cnr_db}
        found = {**chosen, **error_facts(self.errors, name)}
        if self.steps == "auto":
            found["refined_share"] = self.refined / sum(map(len, self.errors))
        if in_blocks:
            found["lost_share"] = self.lost / sum(map(len, self.errors))
        if downlink_snr_db is not None:
            found |= {"bler": self.failed_blocks / sum(map(len, self.errors)), "downlink_snr_db": downlink_snr_db}
        return found
