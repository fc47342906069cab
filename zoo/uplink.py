"""The feedback link [RD-JSCC, sections II and V-A]: k symbols on k subcarriers of the uplink, a base station that combines its antennas.

    UE                                                                  base station
    s, E|s|^2 = 1 --x h--> 32 antennas, + n --h^H / ||h||--> ||h|| s + n' --1 / ||h||--> s + n' / ||h||

The entries of h have unit power and those of n the variance 10^(-SNR / 10): SNR is that of one antenna, and maximum-ratio combining adds
10 log10 ||h||^2 to it, 15 dB on average with 32 antennas. Nothing but :class:`Received` reaches a decoder.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.data import Arrays
from zoo.errors import ZooError, unknown

ANTENNAS = 32  # of the base station
SPLITS = ("test", "val", "train")  # where :func:`named` looks for channels


class Channel(Protocol):
    """Where feedback channels come from."""

    def sample(self, n: int, k: int, generator: torch.Generator) -> Tensor:
        """Independent channels.

        :param k: subcarriers
        :param generator: all that is random, and the device; the same generator gives the same channels
        :returns: entries of unit power, complex64 [n, antenna, k]
        :raises ZooError: more subcarriers than there are
        """


@dataclass(frozen=True)
class AWGN:
    """Every entry is 1: ||h||^2 is the number of antennas."""

    antennas: int = ANTENNAS

    def sample(self, n: int, k: int, generator: torch.Generator) -> Tensor:
        return torch.ones(n, self.antennas, k, dtype=torch.complex64, device=generator.device)


@dataclass(frozen=True)
class Rician:
    """Block fading: a plane wave of random direction and phase on a half-wavelength array, and independent normal entries.

    :param k_factor_db: power of the wave over that of the rest [dB]; 7 is the mean of TR 38.901 InH with line of sight
    :param flat: one channel on all subcarriers of a sample; if not, the normal entries of each are independent
    :raises ZooError: a K-factor that is no number
    """

    k_factor_db: float = 7.0
    antennas: int = ANTENNAS
    flat: bool = True

    def __post_init__(self) -> None:
        if math.isnan(self.k_factor_db):
            raise ZooError("k_factor_db is not a number")

    def sample(self, n: int, k: int, generator: torch.Generator) -> Tensor:
        device, wave = generator.device, 1 / (1 + 10 ** (-self.k_factor_db / 10))  # wave: its share of the power
        shape = (n, self.antennas, 1 if self.flat else k)
        rest = torch.randn(shape, dtype=torch.complex64, device=device, generator=generator)
        azimuth, start = 2 * math.pi * torch.rand(2, n, 1, 1, device=device, generator=generator)
        phase = start + math.pi * torch.sin(azimuth) * torch.arange(self.antennas, device=device)[:, None]
        h = math.sqrt(wave) * torch.polar(torch.ones_like(phase), phase) + math.sqrt(1 - wave) * rest
        return h.expand(n, self.antennas, k)


@dataclass(frozen=True)
class Rayleigh:
    """Block fading with independent normal entries: ||h||^2 follows a Gamma law, with the number of antennas as its mean and variance.

    :param flat: one channel on all subcarriers of a sample; if not, those of each are independent
    """

    antennas: int = ANTENNAS
    flat: bool = True

    def sample(self, n: int, k: int, generator: torch.Generator) -> Tensor:
        return Rician(-math.inf, self.antennas, self.flat).sample(n, k, generator)


class Stored:
    """Rows, drawn at random, of the array ``H`` of a finished store, such as ``datagen inh --uplink`` makes. They stay in memory.

    Each sample is divided by the root of its mean power, which a store of feedback channels has done already.

    :param path: of the store, or its URL
    :param samples: the first so many; all if not given
    :raises ZooError: no such store, split, array or samples, or a channel without power
    """

    def __init__(self, path: str | Path, split: str = "train", samples: int | None = None) -> None:
        store = Arrays(path)
        count, self.antennas, self.subcarriers = store.array(split, "H").shape
        if not 1 <= (samples or count) <= count:
            raise ZooError(f"{path} has {count} channels in {split}; {samples or 'some'} are asked for")
        h = store.read_array(split, "H", 0, samples or count)
        power = h.abs().square().mean((1, 2), keepdim=True)
        if not bool(power.all()):
            raise ZooError(f"{path} has channels without power in {split}")
        self.path, self.split = path, split
        self._h = h / power.sqrt()

    def sample(self, n: int, k: int, generator: torch.Generator) -> Tensor:
        if k > self.subcarriers:
            raise ZooError(f"{self.path} has channels of {self.subcarriers} subcarriers; {k} are asked for")
        if self._h.device != generator.device:
            self._h = self._h.to(generator.device)
        rows = torch.randint(len(self._h), (n,), device=generator.device, generator=generator)
        return self._h[rows, :, :k]


NAMED = {"awgn": AWGN, "rayleigh": Rayleigh, "rician": Rician}


def named(name: str | Path) -> Channel:
    """Channels by name, as the command line takes them.

    :param name: ``awgn``, ``rayleigh``, ``rician``, or the path or URL of a store with feedback channels: its test split, where it has
        one, or val, or train
    :raises ZooError: it is none of these
    """
    if name in NAMED:
        return NAMED[str(name)]()
    if "://" not in str(name) and not Path(name).exists():
        raise ZooError(
            f"{unknown('channel', str(name), NAMED)}; or give the path of a store made by: datagen inh --uplink"
        )
    arrays = Arrays(name).names
    return Stored(name, next((split for split in SPLITS if "H" in arrays.get(split, ())), "train"))


class Received(NamedTuple):
    """All that a decoder is given.

    ``symbols`` are the combiner's output over ||h||, so that they estimate s without bias, whatever the channel's strength: a network
    finds them at one scale, without noise they are s itself, and nothing is lost, for ``gain`` tells the strength.
    """

    symbols: Tensor  # s + n' / ||h||, complex [n, k]
    gain: Tensor  # ||h|| of each subcarrier, real [n, k]
    snr_db: Tensor  # of one antenna, real [n, 1]

    @property
    def combined_snr_db(self) -> Tensor:
        """SNR of each symbol [dB], [n, k]: the error of symbol j has the variance 10^(-combined_snr_db[:, j] / 10)."""
        return self.snr_db + 20 * torch.log10(self.gain)


def unit_power(symbols: Tensor) -> Tensor:
    """Scale the symbols of each sample to (1/k) sum |s_j|^2 = 1: the paper's constraint, met by every sample and not only on average.

    :param symbols: complex [n, k] or real pairs [n, k, 2]; a sample of zeros stays so
    """
    pairs = torch.view_as_real(symbols) if symbols.is_complex() else symbols
    power = pairs.square().sum((1, 2), keepdim=True) / symbols.shape[1]
    scale = power.clamp(min=torch.finfo(power.dtype).tiny).rsqrt()
    return symbols * (scale[..., 0] if symbols.is_complex() else scale)


def transmit(
    symbols: Tensor | NDArray[np.complexfloating], snr_db: float | Tensor, *, channel: Channel, generator: torch.Generator
) -> Received:  # fmt: skip
    """Send symbols, each sample through a channel of its own. Differentiable with respect to the symbols.

    The noise is drawn behind the combiner: h^H n / ||h|| is as normal and as white as n is, with the same variance.

    :param symbols: one of each subcarrier, complex [n, k], numpy or torch; those of unit power make ``snr_db`` what it says, see :func:`unit_power`
    :param snr_db: SNR of one antenna [dB], for all samples or for each, [n]; ``math.inf`` for no noise
    :param channel: where h comes from
    :param generator: on the device of ``symbols``; it decides channels first, then noise, whatever the SNR
    :raises ZooError: symbols that are not complex [n, k], an SNR of another shape or that is no number, a generator on another device
    """
    symbols = torch.as_tensor(symbols)
    if symbols.ndim != 2 or not symbols.is_complex():
        kind = f"{str(symbols.dtype).removeprefix('torch.')} {list(symbols.shape)}"
        raise ZooError(f"the symbols are {kind}; the link takes complex [n, k]")
    n, k = symbols.shape
    if generator.device.type != symbols.device.type:
        raise ZooError(f"the generator is on {generator.device}, the symbols are on {symbols.device}")
    snr = torch.as_tensor(snr_db, dtype=symbols.real.dtype, device=symbols.device)
    if snr.shape not in ((), (n,)):
        raise ZooError(f"snr_db has the shape {list(snr.shape)}; give a number, or one for each of the {n} samples")
    if not isinstance(snr_db, Tensor) and math.isnan(snr_db):
        raise ZooError("snr_db is not a number")
    snr = snr.expand(n)[:, None]
    gain = torch.linalg.vector_norm(channel.sample(n, k, generator), dim=1).to(snr.dtype)
    noise = torch.randn(symbols.shape, dtype=symbols.dtype, device=symbols.device, generator=generator)
    return Received(symbols + noise * (10 ** (-snr / 20) / gain), gain, snr)


def capacity_bits(h: Tensor, snr_db: float) -> NDArray[np.float64]:
    """What a channel carries at equal power on its subcarriers: sum over them of log2(1 + snr ||h||^2), bits [n].

    Their mean is the ergodic capacity; their quantile of order e is the rate that e of the channels do not carry, the outage capacity.

    :param h: of :meth:`Channel.sample`, complex [n, antenna, k]
    :param snr_db: SNR of one antenna [dB]
    """
    power = h.abs().double().square().sum(1)  # ||h||^2
    return (torch.log1p(10 ** (snr_db / 10) * power).sum(1) / math.log(2)).cpu().numpy()
