"""Profile code: each sample's power angular-delay profile from a codebook, and cells coded by the power that it gives them.

    UE           x --> profile, its shift in delay, power, step  --+--> arithmetic code --> exactly `rate` bits
                   --> x / step, rounded [angle, delay] -----------+
    base station       the same probabilities --> integers --> centroids x step --> x^

Outdoors a sample's energy lies in a few delays that wander from sample to sample, which no fixed transform and no network with a dense
latent follows. Here the support costs bits and is paid for: a profile out of a codebook says how much power each cell is likely to have.
A cell's probabilities go by that power over the squared step and by the neighbours that were coded before it. A sample takes the
finest step at which its code fits the payload. Everything the decoder's probabilities rest on is integer, so that every machine decodes alike.

Sources: W. H. Chen and C. H. Smith, "Adaptive coding of monochrome and color images", IEEE Trans. Communications 1977 (classes, each with its
allocation of bits); D. Marpe, H. Schwarz and T. Wiegand, "Context-based adaptive binary arithmetic coding in the H.264/AVC video compression
standard", IEEE Trans. CSVT 2003 (probabilities by neighbours).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator
from torch import Tensor

from zoo.config import explain
from zoo.errors import ZooError
from zoo.models.base import Fitted, MultiRate, MultiRateConfig
from zoo.nn import profiles
from zoo.nn.arithmetic import MOST, TOTAL, Decoder, Encoder, Integers, cumulative, frequencies, number_bits
from zoo.nn.profiles import PER_OCTAVE

if TYPE_CHECKING:
    from zoo.config import Training
    from zoo.data import Source

SAMPLES = 24_000  # that it is fitted on, unless the recipe says otherwise
CODED_SAMPLES = 4096  # of them, that probabilities are counted in
PASSES = 5  # of the probabilities' fit

ENERGIES = 64  # half octaves of a sample's power about the data set's, the mean at half of it
STEPS = 128  # quarter octaves of the squared step, coarse to fine
COARSEST = 65  # quarter octaves, squared, of the coarsest step over a sample's power: no cell is coded
RATIOS = 40  # levels of a cell's power over the squared step that are told apart
BELOW = 24  # of them under zero; cells under these are not coded
ACTIVITY = (1, 2, 3, 5, 8)  # weighted magnitudes of a cell's neighbours that bound its contexts
CONTEXTS = len(ACTIVITY) + 1
LARGEST = 7  # magnitude that has a symbol of its own; what exceeds it follows as a number
SIDE = 2 * LARGEST + 1
EMPTY = LARGEST * SIDE + LARGEST  # the symbol of a cell that is zero
ATTEMPTS = (  # of the encoder: rank of the profile by likelihood; what is added in rounding, squared steps that a bit is worth
    (0, (0.35, 0.12)), (1, (0.35, 0.12)), (2, (0.35, 0.12)), (0, (0.35, 0.2)), (0, (0.2, 0.12)),
)  # fmt: skip
NUMBER_BITS = torch.from_numpy(number_bits(np.arange(MOST + 1)))  # of what exceeds LARGEST
OF_RATE = ("energy_frequency", "step_frequency", "cell_frequency", "centroid")  # buffers that each rate has for itself
REACH = 4  # steps about that of the first attempt that further ones try


class ProfileCodeConfig(MultiRateConfig):
    """It estimates X, by the payload alone."""

    side_information: bool = False
    rate: int = Field(128, ge=64, description="bits of a payload")
    profiles: int = Field(512, ge=2, le=4096, description="power profiles to choose from")
    shifts: int = Field(8, ge=1, description="delays that a profile may be moved by, in either direction")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.side_information:
            raise ValueError("side_information must be false: this code estimates X by the payload alone")
        if min(self.shared) < 64:
            raise ValueError(f"rates {self.rates} must be 64 and up")
        if 2 * self.shifts >= self.delays:
            raise ValueError(f"shifts {self.shifts} must be under half of the {self.delays} delays")
        return self


@dataclass
class Sent:
    """What is coded of n samples."""

    profile: Tensor  # [n]
    shift: Tensor  # [n], 0 ... 2 * shifts
    energy: Tensor  # [n]
    step: Tensor  # [n]
    cells: Tensor  # integers, [n, 2 (re, im), angle, delay]

    def take(self, rows: Tensor, other: Sent) -> None:
        """Some samples of another, rows [n] bool."""
        for name, value in vars(self).items():
            value[rows] = getattr(other, name)[rows]

    @property
    def header(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.profile, self.shift, self.energy, self.step


class ProfileCode(MultiRate[ProfileCodeConfig], Fitted[ProfileCodeConfig]):
    """Family ``profile-code``."""

    Config = ProfileCodeConfig
    levels: Tensor  # of each profile's cells, quarter octaves, int8 [profile, angle, delay]
    profile_frequency: Tensor  # likewise of the others: integer probabilities, out of TOTAL
    shift_frequency: Tensor
    energy_frequency: Tensor  # [rate, energy]
    step_frequency: Tensor  # [rate, step]
    cell_frequency: Tensor  # of (re, im) in a context, [rate, ratio, activity, SIDE * SIDE]
    centroid: Tensor  # mean magnitude, in steps, of what became an integer, [rate, ratio, integer]

    def __init__(self, config: ProfileCodeConfig) -> None:
        super().__init__(config)
        rates = len(config.shared)
        self.register_buffer("levels", torch.zeros(config.profiles, config.angles, config.delays, dtype=torch.int8))
        sizes = {
            "profile": (config.profiles,), "shift": (2 * config.shifts + 1,), "energy": (rates, ENERGIES), "step": (rates, STEPS),
            "cell": (rates, RATIOS, CONTEXTS, SIDE * SIDE),
        }  # fmt: skip
        for name, size in sizes.items():
            even = frequencies(np.ones(size)).astype(np.int16)
            self.register_buffer(f"{name}_frequency", torch.from_numpy(even))
        self.register_buffer("centroid", torch.arange(LARGEST + 1.0).expand(rates, RATIOS, -1).clone())

    @property
    def widths(self) -> tuple[int, ...]:
        return (1,) * self.config.rate

    @property
    def at_once(self) -> int:
        return 2048  # a step of the arithmetic code costs the same for one sample and for many

    # UE ------------------------------------------------------------------------------------------------------------------

    def codes(self, x: Tensor) -> Tensor:
        tables = self._tables()
        sent = self.decide(x)
        bits, fits = self._encode(sent, tables)
        while not fits.all():  # by a bit that rounding of the estimated length has cost
            again = torch.from_numpy(np.flatnonzero(~fits))
            coarser = self.decide(x[again], finest=sent.step[again] - 1)
            sent.step[again] = coarser.step
            bits[again], fits[again.numpy()] = self._encode(coarser, tables)
        return torch.from_numpy(bits)

    def decide(self, x: Tensor, finest: Tensor | None = None, attempts: int | None = None) -> Sent:
        """What to code of samples: of :data:`ATTEMPTS` the one of least error, each at the finest step whose code fits.

        :param x: complex [n, angle, delay]
        :param finest: allowed step of each, [n]
        :param attempts: the first so many; all if not given
        """
        x = x.cpu() / self.scale
        power = x.abs().square().double()
        mean = power.mean((1, 2)).clamp(min=1e-30)
        energy = (2 * mean.log2()).round().long().add(ENERGIES // 2).clamp(0, ENERGIES - 1)
        prior = self.profile_frequency.cpu()[:, None].float() * self.shift_frequency.cpu().float()
        ranks = 1 + max(rank for rank, _ in ATTEMPTS[:attempts])
        ranked = profiles.likeliest(self.levels.cpu(), prior, (power / mean[:, None, None]).float(), ranks)
        image = torch.stack((x.real, x.imag), 1).float()
        low, high = torch.zeros_like(energy), torch.full_like(energy, STEPS - 1) if finest is None else finest
        best, least = None, power.sum((1, 2)).float()
        for rank, (rounding, worth) in ATTEMPTS[:attempts]:
            sent = Sent(
                ranked[0][:, rank], ranked[1][:, rank], energy, low.clone(), torch.zeros_like(image, dtype=torch.int16)
            )
            error = self._refine(sent, image, high, rounding, worth, least if best is None else None)
            if best is None:  # further attempts look about the step of the first
                best, least = sent, error
                low, high = (sent.step - REACH).clamp(min=0), torch.minimum(sent.step + REACH, high)
                continue
            better = error < least
            best.take(better, sent)
            least = torch.where(better, error, least)
        assert best is not None
        return best

    def _refine(
        self, sent: Sent, image: Tensor, finest: Tensor, rounding: float, worth: float, error: Tensor | None
    ) -> Tensor:
        """Move samples from steps that are too coarse or unknown towards the finest that their payload can take, where that leaves less error:
        the errors, [n].

        :param error: at the steps that they have, or None if those may not fit
        """
        level, header = self._levels(sent.profile, sent.shift), self._header()
        cost = [-(table[value] / TOTAL).log2() for table, value in zip(header, sent.header, strict=True)]
        room = self.config.rate - 1 - torch.stack(cost[:3]).sum(0)
        error = torch.full_like(room, torch.inf) if error is None else error.clone()
        low, high = sent.step.clone(), finest.clone()
        while (between := low < high).any():
            step = (low + high + 1) // 2
            cells, bits, lost = self._quantise(image, level, sent.energy, step, rounding, worth)
            fits = between & (bits - (header[3][step] / TOTAL).log2() <= room)
            better = fits & (lost < error)
            sent.cells[better], sent.step[better] = cells[better], step[better]
            error, low = torch.where(better, lost, error), torch.where(fits, step, low)
            high = torch.where(between & ~fits, step - 1, high)
        return error

    def _quantise(
        self, image: Tensor, level: Tensor, energy: Tensor, step: Tensor, rounding: float, worth: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Integers [n, 2, angle, delay] at given steps, the bits that they take and the error that they leave, [n] each.

        :param rounding: what is added before a magnitude is cut to an integer
        :param worth: squared steps of error that a bit is worth; cells not worth their bits become zero
        """
        number, width = self._number, self._width(energy, step)
        u = image / width[:, None, None, None]
        ratio = _ratio(level, step)
        coded = ratio >= 0
        ratio = ratio.clamp(min=0)
        cells = (u.sign() * (u.abs() + rounding).floor()).clamp(-LARGEST - MOST, LARGEST + MOST) * coded[:, None]
        price = -(self.cell_frequency[number].cpu().float() / TOTAL).log2().flatten()
        place = (ratio * CONTEXTS + _activity(cells)) * SIDE * SIDE
        bits, empty = price[place + _symbol(cells)] + _beyond(cells), price[place + EMPTY]
        value = self._values(cells, ratio)
        error, lost = (u - value).square().sum(1), u.square().sum(1)
        kept = (error + worth * bits < lost + worth * empty) & coded
        cells = cells * kept[:, None]
        bits = (price[(ratio * CONTEXTS + _activity(cells)) * SIDE * SIDE + _symbol(cells)] + _beyond(cells)) * coded
        error = torch.where(kept, error, lost).sum((1, 2)) * width.square()
        return cells.to(torch.int16), bits.sum((1, 2)), error

    # both ----------------------------------------------------------------------------------------------------------------

    @property
    def _number(self) -> int:
        return self.config.shared.index(self.config.rate)

    def _levels(self, profile: Tensor, shift: Tensor) -> Tensor:
        """Of each sample's cells, [n, angle, delay], integer."""
        return profiles.moved(self.levels.cpu()[profile].long(), shift - self.config.shifts)

    def _values(self, cells: Tensor, ratio: Tensor) -> Tensor:
        """What integers stand for, in steps: of either sign the centroid of its magnitude, [n, 2, angle, delay]."""
        magnitude = cells.abs().long()
        centroid = self.centroid[self._number].cpu()[ratio.clamp(min=0)[:, None], magnitude.clamp(max=LARGEST)]
        return (centroid + _excess(magnitude)) * cells.sign()

    def _width(self, energy: Tensor, step: Tensor) -> Tensor:
        """Quantiser steps in units of the scale, [n]."""
        quarters = 2 * (energy - ENERGIES // 2) + COARSEST - step
        return torch.exp2(quarters.float() / (2 * PER_OCTAVE))

    def _header(self) -> tuple[Tensor, ...]:
        """Frequencies of what precedes the cells, in order."""
        rows = (
            self.profile_frequency,
            self.shift_frequency,
            self.energy_frequency[self._number],
            self.step_frequency[self._number],
        )
        return tuple(row.cpu().long() for row in rows)

    def _tables(self) -> tuple[list[Integers], Integers]:
        """Cumulative frequencies: of the header's symbols, and of the cells [context, symbol + 1]."""
        header = [cumulative(row.numpy()) for row in self._header()]
        cells = self.cell_frequency[self._number].cpu().numpy().astype(np.int64).reshape(-1, SIDE * SIDE)
        return header, cumulative(cells)

    def _encode(self, sent: Sent, tables: tuple[list[Integers], Integers]) -> tuple[Integers, NDArray[np.bool_]]:
        """Bits [n, rate], and which samples they suffice for."""
        header, table = tables
        encoder, everyone = Encoder(len(sent.profile), self.config.rate), np.arange(len(sent.profile))
        for starts, value in zip(header, (part.numpy() for part in sent.header), strict=True):
            encoder.put(everyone, starts[value], starts[value + 1])
        ratio = _ratio(self._levels(sent.profile, sent.shift), sent.step)
        context = (ratio.clamp(min=0) * CONTEXTS + _activity(sent.cells)).numpy()
        symbol, coded = _symbol(sent.cells).numpy(), (ratio >= 0).numpy()
        magnitude = sent.cells.abs().long().numpy()
        for delay in range(self.config.delays):
            for angle in range(self.config.angles):
                rows = np.flatnonzero(coded[:, angle, delay])
                if len(rows):
                    which, value = context[rows, angle, delay], symbol[rows, angle, delay]
                    encoder.put(rows, table[which, value], table[which, value + 1])
                    for part in magnitude[rows, 0, angle, delay], magnitude[rows, 1, angle, delay]:
                        large = part >= LARGEST
                        if large.any():
                            encoder.put_number(rows[large], part[large] - LARGEST)
        return encoder.finish()

    # base station --------------------------------------------------------------------------------------------------------

    def reconstruct(self, codes: Tensor, y: Tensor | None) -> Tensor:
        header, table = self._tables()
        decoder, everyone = Decoder(codes.cpu().numpy()), np.arange(len(codes))
        profile, shift, energy, step = (
            torch.from_numpy(decoder.get(everyone, np.broadcast_to(starts, (len(codes), len(starts)))))
            for starts in header
        )
        ratio = _ratio(self._levels(profile, shift), step)
        level, coded = ratio.clamp(min=0).numpy() * CONTEXTS, (ratio >= 0).numpy()
        pair = np.zeros((len(codes), 2, self.config.angles, self.config.delays), np.int64)
        magnitude = np.zeros(
            (len(codes), self.config.angles + 3, self.config.delays + 1), np.int64
        )  # with a border of zeros
        for delay in range(self.config.delays):
            for angle in range(self.config.angles):
                rows = np.flatnonzero(coded[:, angle, delay])
                if not len(rows):
                    continue
                context = level[rows, angle, delay] + _context(_neighbours(magnitude[rows], angle, delay))
                symbol = decoder.get(rows, table[context])
                parts = symbol // SIDE - LARGEST, symbol % SIDE - LARGEST
                magnitude[rows, angle + 2, delay + 1] = np.minimum(np.abs(parts[0]) + np.abs(parts[1]), 4)
                for axis, part in enumerate(parts):
                    large = np.abs(part) == LARGEST
                    if large.any():
                        part[large] += np.sign(part[large]) * decoder.get_number(rows[large])
                    pair[rows, axis, angle, delay] = part
        cells = torch.from_numpy(pair)
        image = self._values(cells, ratio) * self._width(energy, step)[:, None, None, None]
        return (torch.complex(image[:, 0], image[:, 1]).to(self.device) * self.scale).to(self.complex_dtype)

    def _weights_of(self, rate: int) -> dict[str, Tensor]:
        number = self.config.shared.index(rate)
        return {
            name: value[number : number + 1] if name in OF_RATE else value for name, value in self.state_dict().items()
        }

    # the fit -------------------------------------------------------------------------------------------------------------

    @classmethod
    def from_source(cls, source: Source, training: Training, fields: dict[str, Any]) -> Self:
        try:
            config = cls.Config.model_validate({**fields, "rates": tuple(fields.get("rates", ()))})
        except ValidationError as error:
            raise ZooError(f"recipe of profile-code: codec: {explain(error, cls.Config)}") from None
        batches = list(source.once(training.samples or SAMPLES))
        if not all(batch.z is batch.x or torch.equal(batch.x, batch.z) for batch in batches):
            raise ZooError(
                f"profile-code estimates X; the target of {source.dataset.name} is Z: use klt-grid or a network"
            )
        return cls.fit(torch.cat([batch.x.cpu() for batch in batches]), config)

    @classmethod
    def fit(cls, x: Tensor, config: ProfileCodeConfig, seed: int = 0) -> Self:
        """Fit to samples; some 20 000 are plenty, fewer than profiles are refused.

        :param x: physical values, complex [n, angle, delay]
        :raises ZooError: too few samples
        """
        if len(x) < 4 * config.profiles:
            raise ZooError(
                f"{config.profiles} profiles take at least {4 * config.profiles} samples; there are {len(x)}"
            )
        code = cls(config)
        power = x.abs().square()
        code.scale.copy_(power.mean().sqrt())
        unit = power / power.mean((1, 2), keepdim=True)
        found = profiles.fit(unit, config.profiles, config.shifts, torch.Generator().manual_seed(seed))
        code.levels.copy_(found[0])
        for table, members in zip((code.profile_frequency, code.shift_frequency), found[1:], strict=True):
            table.copy_(torch.from_numpy(frequencies(members.numpy() + 1.0)))
        for number, rate in enumerate(config.shared):
            code._fit_probabilities(number, rate, x[:CODED_SAMPLES])
        return code

    def _fit_probabilities(self, number: int, rate: int, x: Tensor) -> None:
        """Of one rate: from a Laplacian guess on, code samples and count."""
        at = self.at(rate)
        guess = _laplacian()
        at.cell_frequency.copy_(torch.from_numpy(frequencies(np.repeat(guess[:, None], CONTEXTS, 1)))[None])
        for attempts in (*[1] * (PASSES - 1), None):  # the last as it will code
            sent = at.decide(x, attempts=attempts)
            energies, steps = (
                torch.bincount(v, minlength=size).double().numpy()
                for v, size in ((sent.energy, ENERGIES), (sent.step, STEPS))
            )
            at.energy_frequency.copy_(torch.from_numpy(frequencies(energies + 0.1))[None])
            at.step_frequency.copy_(torch.from_numpy(frequencies(_spread(steps) + 0.1))[None])
            at._count(sent, x, guess)
        for name in OF_RATE:
            self.get_buffer(name)[number] = at.get_buffer(name)[0]

    def _count(self, sent: Sent, x: Tensor, guess: NDArray[np.float64]) -> None:
        """Probabilities and centroids from what was coded of samples."""
        ratio = _ratio(self._levels(sent.profile, sent.shift), sent.step)
        coded = ratio >= 0
        near = sent.cells.abs().long().clamp(max=LARGEST)
        real, imaginary = near[:, 0][coded], near[:, 1][coded]
        context = (ratio * CONTEXTS + _activity(sent.cells))[coded]
        side = LARGEST + 1
        count = torch.bincount((context * side + real) * side + imaginary, minlength=RATIOS * CONTEXTS * side * side)
        joint = count.view(RATIOS, CONTEXTS, side, side).double()
        joint = (joint + joint.mT) / 2  # re and im are alike
        weights = _signed(joint).numpy()
        level = weights.sum(1) + 4 * guess  # of a ratio, whatever the activity
        self.cell_frequency.copy_(
            torch.from_numpy(frequencies(weights + 16 * (level / level.sum(-1, keepdims=True))[:, None]))[None]
        )
        u = (
            torch.view_as_real(x / self.scale).permute(0, 3, 1, 2)
            / self._width(sent.energy, sent.step)[:, None, None, None]
        )
        magnitude, of_coded = (
            (u * sent.cells.sign()).float() - _excess(sent.cells.abs().long()),
            coded[:, None].expand_as(near),
        )
        place = (ratio.clamp(min=0)[:, None] * side + near)[of_coded]
        total = torch.zeros(RATIOS * side).index_add_(0, place, magnitude[of_coded])
        times = torch.bincount(place, minlength=RATIOS * side).float()
        usual = torch.arange(side).float().repeat(RATIOS)
        centroid = ((total + 5 * usual) / (times + 5)).view(RATIOS, side)
        centroid[:, 0] = 0
        self.centroid.copy_(centroid[None])


def _ratio(level: Tensor, step: Tensor) -> Tensor:
    """Level of a cell's power over the squared step, above -BELOW, [n, angle, delay]; negative for cells that are not coded."""
    return (level + (step - COARSEST)[:, None, None] + BELOW).clamp(max=RATIOS - 1)


def _symbol(cells: Tensor) -> Tensor:
    """(re, im) as one number, as far as there are symbols, [n, angle, delay]."""
    near = cells.long().clamp(-LARGEST, LARGEST) + LARGEST
    return near[:, 0] * SIDE + near[:, 1]


def _excess(magnitude: Tensor) -> Tensor:
    """Of magnitudes, over the largest that has a symbol."""
    return (magnitude - LARGEST).clamp(min=0)


def _beyond(cells: Tensor) -> Tensor:
    """Bits of what follows the symbols of large magnitudes, [n, angle, delay]."""
    magnitude = cells.abs().long()
    taken: Tensor = NUMBER_BITS[_excess(magnitude)] * (magnitude >= LARGEST)
    return taken.sum(1)


def _neighbours(magnitude: Any, angle: Any, delay: Any) -> Any:
    """Weighted magnitudes of what was coded before a cell, from magnitudes with a border of zeros."""
    before = 2 * magnitude[:, angle + 1, delay + 1] + magnitude[:, angle, delay + 1]
    return before + magnitude[:, angle + 1, delay] + 2 * magnitude[:, angle + 2, delay] + magnitude[:, angle + 3, delay]


def _context(neighbours: Any) -> Any:
    """Number of the context, 0 ... CONTEXTS - 1."""
    return sum((neighbours >= bound) * 1 for bound in ACTIVITY)


def _activity(cells: Tensor) -> Tensor:
    """Context of every cell by its neighbours, [n, angle, delay]."""
    magnitude = torch.nn.functional.pad(cells.abs().sum(1).clamp(max=4).long(), (1, 0, 2, 1))
    angles, delays = torch.arange(cells.shape[2])[:, None], torch.arange(cells.shape[3])
    found: Tensor = _context(_neighbours(magnitude, angles, delays))
    return found


def _spread(count: NDArray[np.float64]) -> NDArray[np.float64]:
    """Counts with some of each given to its neighbours."""
    return 0.8 * count + 0.1 * np.roll(count, 1) + 0.1 * np.roll(count, -1)


def _signed(joint: Tensor) -> Tensor:
    """Weights of magnitudes [..., |re|, |im|] as weights of (re, im) [..., SIDE * SIDE], signs being alike."""
    index = torch.arange(-LARGEST, LARGEST + 1)
    signs = torch.where(index == 0, 1.0, 0.5).double()
    wide = joint[..., index.abs()[:, None], index.abs()] * signs[:, None] * signs
    return wide.flatten(-2)


def _laplacian() -> NDArray[np.float64]:
    """Probabilities of (re, im) of Laplacian cells at each ratio, [ratio, SIDE * SIDE]."""
    variance = torch.exp2((torch.arange(RATIOS) - BELOW).double() / PER_OCTAVE) / 2
    bounds = torch.arange(1, LARGEST + 1) - ATTEMPTS[0][1][0]
    above = torch.exp(-((2 / variance).sqrt()[:, None]) * bounds)  # that a magnitude reaches each bound
    magnitude = torch.cat((1 - above[:, :1], above[:, :-1] - above[:, 1:], above[:, -1:]), 1)
    return _signed(magnitude[:, :, None] * magnitude[:, None, :]).numpy() + 1e-9


Picture = None  # until the faster encoder lands
