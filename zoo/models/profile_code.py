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

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator
from torch import Tensor

from zoo.config import explain
from zoo.errors import ZooError
from zoo.models.base import Fitted, MultiRate, MultiRateConfig
from zoo.nn import profiles
from zoo.nn.arithmetic import MOST, TOTAL, Alphabets, Decoder, Encoder, Integers, frequencies, number_bits
from zoo.nn.profiles import PER_OCTAVE, Codebook, Windows

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
BEYOND = np.zeros(LARGEST + MOST + 1, np.float32)  # bits that follow the symbol of a magnitude
BEYOND[LARGEST:] = number_bits(np.arange(MOST + 1))
BUSY = 4  # magnitudes of re and im together, from which on neighbours no longer tell them apart
CONTEXT = np.searchsorted(ACTIVITY, np.arange(7 * BUSY + 1), side="right").astype(np.int64)  # by a cell's activity
WIDTHS = np.exp2((np.arange(2 * ENERGIES + STEPS) - ENERGIES - STEPS + COARSEST) / (2 * PER_OCTAVE)).astype(np.float32)
NEVER = -128  # level of what is no cell
TOGETHER = 256  # samples whose steps are sought side by side: their images stay in a core's cache
OF_RATE = ("energy_frequency", "step_frequency", "cell_frequency", "centroid")  # buffers that each rate has for itself
REACH = 4  # steps about that of the first attempt that further ones try


class ProfileCodeConfig(MultiRateConfig):
    """It estimates X, by the payload alone."""

    LEAST: ClassVar[int] = 64  # bits of a payload, which any sample's header fits

    side_information: bool = False
    rate: int = Field(128, ge=64, description="bits of a payload")
    profiles: int = Field(512, ge=2, le=4096, description="power profiles to choose from")
    shifts: int = Field(8, ge=1, description="delays that a profile may be moved by, in either direction")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.side_information:
            raise ValueError("side_information must be false: this code estimates X by the payload alone")
        if min(self.shared) < self.LEAST:
            raise ValueError(f"rates {self.rates} must be {self.LEAST} and up")
        if 2 * self.shifts >= self.delays:
            raise ValueError(f"shifts {self.shifts} must be under half of the {self.delays} delays")
        return self


class Samples:
    """Fields that all have a row for each of n samples."""

    def __len__(self) -> int:
        return len(next(iter(vars(self).values())))

    def rows(self, index: Any) -> Self:
        """Select samples.

        :param index: whatever a field takes for its first dimension: a slice, integers, booleans
        """
        return type(self)(*(value[index] for value in vars(self).values()))

    def put(self, index: Any, other: Self) -> None:
        """Replace samples.

        :param index: as of :meth:`rows`
        :param other: as many as are replaced
        """
        for name, value in vars(self).items():
            value[index] = getattr(other, name)


@dataclass
class Sent(Samples):
    """What is coded of n samples."""

    profile: Tensor  # [n]
    shift: Tensor  # [n], 0 ... 2 * shifts
    energy: Tensor  # [n]
    step: Tensor  # [n]
    cells: Tensor  # integers, int16 [n, 2 (re, im), angle, delay]

    @property
    def header(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What precedes the cells, in order."""
        return self.profile, self.shift, self.energy, self.step

    @classmethod
    def joined(cls, parts: Sequence[Sent]) -> Sent:
        """Put the samples of several, of at least one, behind each other."""
        return cls(*map(torch.cat, zip(*(vars(part).values() for part in parts), strict=True)))


@dataclass
class Picture(Samples):
    """The classical reconstruction of n samples, and what a decoder knows of its cells."""

    image: Tensor  # units of the scale, real [n, 2 (re, im), angle, delay]
    ratio: Tensor  # level of each cell's power over the squared step, int64 [n, angle, delay]; below 0: not coded
    width: Tensor  # quantiser step in units of the scale, [n]


class Grid:
    """Samples' cells in the order in which they are coded, delay by delay, with a border that is never coded.

    A sample is a row of places: a delay of border, then each delay with two places of border in front of its angles. All samples being
    one long row, what precedes a cell lies at the same distance from every cell.
    """

    def __init__(self, angles: int, delays: int) -> None:
        self.angles, self.delays = angles, delays
        self.column = angles + 2
        self.size = (delays + 1) * self.column
        self.ahead = ((1, 2), (2, 1), (self.column + 1, 1), (self.column, 2), (self.column - 1, 1))  # places, weights

    def laid(self, cells: NDArray[Any]) -> NDArray[Any]:
        """Values [..., angle, delay] at their places, zeros in the border: [..., place]."""
        out = np.zeros((*cells.shape[:-2], self.delays + 1, self.column), cells.dtype)
        out[..., 1:, 2:] = cells.swapaxes(-1, -2)
        return out.reshape(*cells.shape[:-2], self.size)

    def cells(self, laid: NDArray[Any]) -> NDArray[Any]:
        """Undo :meth:`laid`."""
        wide = laid.reshape(*laid.shape[:-1], self.delays + 1, self.column)
        return np.ascontiguousarray(wide[..., 1:, 2:].swapaxes(-1, -2))

    def before(self, busy: NDArray[np.uint8], at: Integers) -> Any:
        """The same as :meth:`activity`, at some cells."""
        return sum(weight * busy[at - distance] for distance, weight in self.ahead)

    def activity(self, busy: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Weighted magnitudes of what is coded before each place, :data:`BUSY` at most each.

        :param busy: magnitudes of all samples, [n * place]; zero in the border
        :returns: [n * place]
        """
        out = np.zeros_like(busy)
        for distance, weight in self.ahead:
            out[distance:] += busy[:-distance]
            if weight == 2:
                out[distance:] += busy[:-distance]
        return out


class Lines:
    """Coded cells of samples in line, turn by turn: the first of each sample, the second of each that has one, ...

    The samples stand in the order of their numbers of cells, so that a turn is always one of the first so many.

    :param coded: whether a place is, [n, place]
    """

    def __init__(self, coded: NDArray[np.bool_]) -> None:
        count = coded.sum(1)
        self.order = np.argsort(-count, kind="stable")  # sample at each position, [n]
        self.back = np.argsort(self.order)  # position of each sample, [n]
        count = count[self.order]
        at = np.flatnonzero(coded[self.order])
        turn = np.arange(len(at)) - np.repeat(count.cumsum() - count, count)
        self.place = at[np.argsort(turn.astype(np.uint16), kind="stable")]  # position times places, and the place
        ends = np.bincount(turn).cumsum()
        self.turns = [slice(start, end) for start, end in zip((0, *ends), ends, strict=False)]


class Prices:
    """What one rate's probabilities make of symbols, in tables; they are derived anew from the buffers whenever samples are coded."""

    def __init__(self, code: ProfileCode) -> None:
        frequency = code.cell_frequency[code._number].cpu().numpy().astype(np.float64)
        self.cell = -np.log2(frequency / TOTAL).astype(np.float32)  # bits, [ratio, context, symbol]
        self.empty = self.cell[..., EMPTY].copy()
        # What follows is summed in double precision, which single-precision bits do not exhaust: any order gives the same sum.
        self.more = self.empty.astype(np.float64) - self.empty[:, :1]  # that a zero costs beside others
        self.header = [-np.log2(row.numpy() / TOTAL) for row in code._header()]
        self.centroid = code.centroid[code._number].float().cpu().numpy().copy()  # [ratio, magnitude]
        self.centroid[:, 0] = 0
        prior = code.profile_frequency.cpu()[:, None].float() * code.shift_frequency.cpu().float()
        self.book, self.levels, levels = Codebook(code.levels.cpu(), prior), code._windows(), code.levels.cpu().numpy()
        values = np.arange(-128, 128)
        place = 256 * np.arange(len(levels))[:, None] + levels.reshape(len(levels), -1) + 128
        count = np.bincount(place.ravel(), minlength=256 * len(levels)).reshape(-1, 256).astype(np.float64)
        ratio = _ratio(values[:, None], np.arange(STEPS))
        self.nothing = count @ np.where(ratio < 0, 0, self.empty[ratio.clip(0), 0])  # [profile, step]


@dataclass
class Search(Samples):
    """What the steps of some samples are sought with, all [n, ...]."""

    image: NDArray[np.float32]  # units of the scale, [n, 2 (re, im), place]
    largest: NDArray[np.float32]  # magnitude of re and im, [n, place]
    power: NDArray[np.float64]  # [n]
    energy: Integers  # [n]


@dataclass
class Found(Samples):
    """What is to be sent of samples that steps are sought for."""

    profile: Integers  # [n]
    shift: Integers  # [n]
    energy: Integers  # [n]
    step: Integers  # [n]
    cells: NDArray[np.int16]  # [n, 2, place]


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
        self.grid = Grid(config.angles, config.delays)
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
        sent = self.decide(x)
        bits, fits = self._encode(sent)
        while len(again := np.flatnonzero(~fits)):  # by a bit that rounding of the estimated length has cost
            coarser = self.decide(x[again], finest=sent.step[again] - 1)
            sent.put(again, coarser)
            bits[again], fits[again] = self._encode(coarser)
        return torch.from_numpy(bits)

    def decide(self, x: Tensor, finest: Tensor | None = None, attempts: int | None = None) -> Sent:
        """Choose what to code of samples: of :data:`ATTEMPTS` the one of least error, each at the finest step whose code should fit.

        A call derives tables that take some 30 ms; it takes any number of samples.

        :param x: physical values, complex [n, angle, delay]
        :param finest: allowed step of each, [n]
        :param attempts: the first so many; all if not given
        """
        tries, prices, parts = ATTEMPTS[:attempts], Prices(self), list[Found]()
        bound = np.full(len(x), STEPS - 1) if finest is None else finest.cpu().numpy()
        for some, ranked, rows in self._searches(prices, x, 1 + max(rank for rank, _ in tries)):
            best, least = self._seek(prices, some, ranked[0], tries[0][1], bound[rows])
            about, high = best.step.copy(), bound[rows]
            for rank, how in tries[1:]:
                which = ranked[rank] if rank else np.stack((best.profile, best.shift))  # 0: the best until now
                other, error = self._seek(prices, some, which, how, high, about)
                better = np.flatnonzero(error < least)
                best.put(better, other.rows(better))
                least[better] = error[better]
            parts.append(best)
        return self._sent(parts)

    def candidates(self, x: Tensor, attempts: Sequence[tuple[int, tuple[float, float]]]) -> list[Sent]:
        """Find what each of some attempts would send, at the finest step at which its code fits the payload.

        Attempts behind the first look about its step, and everywhere where nothing fits there.

        :param x: physical values, complex [n, angle, delay]
        :param attempts: rank of the profile by likelihood, from 0; what is added before a magnitude is cut to an integer, and the squared
            steps of error that a bit is worth
        :returns: of each attempt, n samples
        """
        prices, parts = Prices(self), [list[Found]() for _ in attempts]
        for some, ranked, _ in self._searches(prices, x, 1 + max(rank for rank, _ in attempts)):
            about, high = None, np.full(len(some), STEPS - 1)
            for (rank, how), part in zip(attempts, parts, strict=True):
                found, error = self._seek(prices, some, ranked[rank], how, high, about)
                lost = np.flatnonzero(np.isinf(error))
                found.put(lost, self._seek(prices, some.rows(lost), ranked[rank][:, lost], how, high[lost])[0])
                about = found.step.copy() if about is None else about
                part.append(found)
        sents = [self._sent(part) for part in parts]
        open_rows, tried = [np.arange(len(x)) for _ in sents], sents
        while any(map(len, open_rows)):  # all attempts side by side in one arithmetic code
            fits = np.split(self._encode(Sent.joined(tried))[1], np.cumsum([len(rows) for rows in open_rows[:-1]]))
            open_rows = [rows[~fit] for rows, fit in zip(open_rows, fits, strict=True)]
            tried = [
                self._coarser(prices, x[rows], attempt, sent.step[rows].numpy() - 1)
                for rows, attempt, sent in zip(open_rows, attempts, sents, strict=True)
            ]
            for rows, sent, coarser in zip(open_rows, sents, tried, strict=True):
                sent.put(rows, coarser)
        return sents

    def _coarser(self, prices: Prices, x: Tensor, attempt: tuple[int, tuple[float, float]], finest: Integers) -> Sent:
        """What an attempt finds for samples at allowed steps, [n]."""
        rank, how = attempt
        searches = self._searches(prices, x, 1 + rank)
        return self._sent(
            [self._seek(prices, some, ranked[rank], how, finest[rows])[0] for some, ranked, rows in searches]
        )

    def write(self, sent: Sent) -> Tensor:
        """Code what is sent.

        :returns: bits, int64 [n, rate]
        :raises ValueError: a code that does not fit the payload; see :meth:`fits`
        """
        bits, fits = self._encode(sent)
        if not fits.all():
            raise ValueError(f"{int((~fits).sum())} of {len(fits)} codes exceed {self.config.rate} bits")
        return torch.from_numpy(bits)

    def fits(self, sent: Sent) -> Tensor:
        """Tell which samples' codes fit the payload, bool [n]."""
        return torch.from_numpy(self._encode(sent)[1])

    def _searches(self, prices: Prices, x: Tensor, ranks: int) -> Iterator[tuple[Search, Integers, slice]]:
        """Samples by :data:`TOGETHER`, their likeliest profiles and shifts [rank, 2, n], and which samples they are."""
        for start in range(0, max(len(x), 1), TOGETHER):
            rows = slice(start, start + TOGETHER)
            pair = torch.stack((x[rows].real, x[rows].imag), 1).cpu().float() / self.scale.cpu().float()
            power = pair.double().square().sum(1)
            whole = power.flatten(1).numpy().sum(1)
            mean = (whole / (self.config.angles * self.config.delays)).clip(1e-30)
            energy = (np.round(2 * np.log2(mean)).astype(np.int64) + ENERGIES // 2).clip(0, ENERGIES - 1)
            unit = (power / torch.from_numpy(mean)[:, None, None]).float()
            ranked = np.stack(prices.book.likeliest(unit, ranks)).transpose(2, 0, 1)
            image = self.grid.laid(pair.numpy())
            yield Search(image, np.abs(image).max(1), whole, energy), ranked, rows

    def _seek(
        self, prices: Prices, some: Search, which: Integers, how: tuple[float, float], finest: Integers, about: Integers | None = None
    ) -> tuple[Found, NDArray[np.float64]]:  # fmt: skip
        """Halve the range of samples' steps down to the finest that their payload can take, and keep the step of least error on the way.

        :param which: profiles and shifts, [2, n]
        :param how: what is added before a magnitude is cut to an integer; and the squared steps of error that a bit is worth
        :param finest: allowed steps, [n]
        :param about: steps that are not gone far from, [n]; all are tried if not given
        :returns: what was found and its error in units of the squared scale, [n]; it is infinite where nothing about a step fits
        """
        (profile, shift), n = which, len(some)
        if about is None:  # nothing is coded at the coarsest step, which always fits
            low, high, error = 0 * finest, finest.copy(), some.power.copy()
        else:
            low, high = (about - REACH).clip(0), np.minimum(about + REACH, finest)
            error = np.full(n, np.inf)
        level = self._laid(prices.levels, profile, shift)
        parts = zip(prices.header, (profile, shift, some.energy), strict=False)
        room = self.config.rate - 1 - sum(cost[value] for cost, value in parts)
        found = Found(profile.copy(), shift.copy(), some.energy.copy(), low.copy(), np.zeros_like(some.image, np.int16))
        while len(rows := np.flatnonzero(low < high)):
            step = (low[rows] + high[rows] + 1) // 2
            row, place, integers, bits, left = self._quantise(prices, some, level, profile, rows, step, how)
            fits = bits + prices.header[3][step] <= room[rows]
            better = fits & (left < error[rows])
            taken, kept = rows[better], better[row]
            found.step[taken], error[taken], found.cells[taken] = step[better], left[better], 0
            found.cells[rows[row[kept]], :, place[kept]] = integers[:, kept].T
            low[rows[fits]], high[rows[~fits]] = step[fits], step[~fits] - 1
        return found, error

    def _quantise(
        self, prices: Prices, some: Search, level: NDArray[np.int8], profile: Integers, rows: Integers, step: Integers,
        how: tuple[float, float],
    ) -> tuple[Integers, Integers, Integers, NDArray[np.float64], NDArray[np.float64]]:  # fmt: skip
        """Integers of m samples at given steps. Only cells that may be none zero are looked at, and then their neighbours.

        :param level: of the profiles that the samples take, [n, place]
        :param rows: the samples, [m]
        :param step: of each, [m]
        :param how: as in :meth:`_seek`
        :returns: of what is not zero samples (0 ... m - 1) and places, [k] each, and integers, [2, k]; the bits that all takes and the
            error that it leaves, [m] each
        """
        (rounding, worth), m, size = how, len(rows), self.grid.size
        all_of_them = slice(None) if m == len(level) else rows  # a view, where it can be one
        level, largest, width = level[all_of_them].ravel(), some.largest[all_of_them], _width(some.energy[rows], step)
        at = np.flatnonzero(largest >= (width * (0.9999 * (1 - rounding)))[:, None])
        row = at // size
        ratio = _ratio(level[at], step[row])
        at, row, ratio = (part[ratio >= 0] for part in (at, row, ratio))
        given = some.image[rows[row], :, at - row * size].T
        u = np.abs(given) / width[row]
        magnitude = np.floor(u + np.float32(rounding)).clip(max=LARGEST + MOST).astype(np.int64)
        near = magnitude.clip(max=LARGEST)
        value = prices.centroid[ratio, near] + (magnitude - near).astype(np.float32)
        symbol, beyond = _symbol(near, given), BEYOND[magnitude].sum(0)
        busy = np.zeros(m * size, np.uint8)
        busy[at] = magnitude.sum(0).clip(max=BUSY)
        context = CONTEXT[self.grid.before(busy, at)]
        cost = prices.cell[ratio, context, symbol] + beyond
        lost, left = (np.square(part).sum(0) for part in (u, u - value))
        kept = left + np.float32(worth) * cost < lost + np.float32(worth) * prices.empty[ratio, context]
        busy[at[~kept]] = 0
        at, row, ratio, symbol, beyond = (part[kept] for part in (at, row, ratio, symbol, beyond))
        given, magnitude, value = given[:, kept], magnitude[:, kept], value[:, kept]
        activity = self.grid.activity(busy)
        context = CONTEXT[activity[at]]
        more = prices.cell[ratio, context, symbol].astype(np.float64) + beyond - prices.empty[ratio, context]
        bits = prices.nothing[profile[rows], step] + np.bincount(row, more, m)
        beside = np.flatnonzero(activity != 0)
        of = beside // size
        ratio = _ratio(level[beside], step[of])
        coded = ratio >= 0
        beside, of, ratio = (part[coded] for part in (beside, of, ratio))
        bits += np.bincount(of, prices.more[ratio, CONTEXT[activity[beside]]], m)
        sized = value.astype(np.float64) * width[row]
        gain = (sized * (2 * np.abs(given) - sized)).sum(0)
        integers = np.where(given < 0, -magnitude, magnitude)
        return row, at - row * size, integers, bits, some.power[rows] - np.bincount(row, gain, m)

    def _sent(self, parts: Sequence[Found]) -> Sent:
        """What was found, as it is sent."""
        header = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("profile", "shift", "energy", "step")
        )
        cells = np.concatenate([self.grid.cells(part.cells) for part in parts])
        return Sent(*map(torch.from_numpy, (*header, cells)))

    # both ----------------------------------------------------------------------------------------------------------------

    @property
    def _number(self) -> int:
        return self.config.shared.index(self.config.rate)

    def _header(self) -> tuple[Tensor, ...]:
        """Frequencies of what precedes the cells, in order."""
        rows = (
            self.profile_frequency,
            self.shift_frequency,
            self.energy_frequency[self._number],
            self.step_frequency[self._number],
        )
        return tuple(row.cpu().long() for row in rows)

    def _alphabets(self) -> tuple[list[Alphabets], Alphabets]:
        """Of the header's symbols; and of the cells, one for each ratio and context."""
        header = [Alphabets(row.numpy()[None]) for row in self._header()]
        cells = self.cell_frequency[self._number].cpu().numpy().astype(np.int64).reshape(-1, SIDE * SIDE)
        return header, Alphabets(cells)

    def _windows(self) -> Windows:
        """Profiles' levels, a delay's border and angles behind each other."""
        levels = np.full((self.config.profiles, self.config.delays, self.grid.column), NEVER, np.int8)
        levels[..., 2:] = self.levels.cpu().numpy().swapaxes(1, 2)
        return Windows(levels)

    def _laid(self, windows: Windows, profile: Integers, shift: Integers) -> NDArray[np.int8]:
        """Samples' levels, :data:`NEVER` in the border, [n, place]."""
        level = np.full((len(profile), self.grid.size), NEVER, np.int8)
        level[:, self.grid.column :] = windows(profile, shift - self.config.shifts)
        return level

    def _ratios(self, profile: Integers, shift: Integers, step: Integers) -> NDArray[np.int16]:
        """Levels of cells' power over the squared step, [n, place]; below 0 for what is not coded."""
        return _ratio(self._laid(self._windows(), profile, shift), step[:, None].astype(np.int16))

    def _encode(self, sent: Sent) -> tuple[Integers, NDArray[np.bool_]]:
        """Bits [n, rate], and which samples they suffice for."""
        alphabets, rate = self._alphabets(), self.config.rate
        parts = [
            self._encode_some(sent.rows(slice(k, k + self.at_once)), alphabets)
            for k in range(0, len(sent), self.at_once)
        ]
        if not parts:
            return np.zeros((0, rate), np.int64), np.zeros(0, bool)
        bits, fits = zip(*parts, strict=True)
        return np.concatenate(bits), np.concatenate(fits)

    def _encode_some(
        self, sent: Sent, alphabets: tuple[list[Alphabets], Alphabets]
    ) -> tuple[Integers, NDArray[np.bool_]]:
        header = [part.cpu().numpy() for part in sent.header]
        ratio = self._ratios(header[0], header[1], header[3])
        line = Lines(ratio >= 0)
        cells = self.grid.laid(sent.cells.cpu().numpy()[line.order])
        magnitude = np.abs(cells)
        busy = magnitude.sum(1).clip(max=BUSY).astype(np.uint8).ravel()
        near = magnitude.clip(max=LARGEST)
        symbol = _symbol(near.swapaxes(0, 1), cells.swapaxes(0, 1)).ravel()
        which = _which(ratio[line.order].ravel()[line.place], self.grid.activity(busy)[line.place])
        start, end = alphabets[1].bounds(which, symbol[line.place])
        large = magnitude.swapaxes(0, 1).reshape(2, magnitude[:, 0].size)[:, line.place]
        encoder = Encoder(len(sent), self.config.rate)
        for alphabet, value in zip(alphabets[0], header, strict=True):
            encoder.put(slice(0, len(sent)), *alphabet.bounds(0 * value, value[line.order]))
        for here in line.turns:
            encoder.put(slice(0, here.stop - here.start), start[here], end[here])
            for part in large[:, here]:
                rows = np.flatnonzero(part >= LARGEST)
                if len(rows):
                    encoder.put_number(rows, part[rows].astype(np.int64) - LARGEST)
        bits, fits = encoder.finish()
        return bits[line.back], fits[line.back]

    # base station --------------------------------------------------------------------------------------------------------

    def reconstruct(self, codes: Tensor, y: Tensor | None) -> Tensor:
        image = self.picture(self.parse(codes)).image
        return (torch.complex(image[:, 0], image[:, 1]).to(self.device) * self.scale).to(self.complex_dtype)

    def parse(self, codes: Tensor) -> Sent:
        """Read what was sent: the decoder's first half.

        :param codes: bits, int64 [n, rate]
        """
        alphabets, bits = self._alphabets(), codes.cpu().numpy()
        starts = range(0, max(len(bits), 1), self.at_once)
        return Sent.joined([self._parse_some(bits[k : k + self.at_once], alphabets) for k in starts])

    def picture(self, sent: Sent) -> Picture:
        """Draw what was sent: the decoder's second half, on the CPU."""
        profile, shift, energy, step = (part.cpu().numpy() for part in sent.header)
        cells = sent.cells.cpu().numpy()
        ratio, width = self.grid.cells(self._ratios(profile, shift, step)), _width(energy, step)
        centroid = self.centroid[self._number].float().cpu().numpy()
        sample, _, angle, delay = some = np.nonzero(cells)
        integer = cells[some].astype(np.int64)
        near = np.abs(integer).clip(max=LARGEST)
        value = centroid[ratio[sample, angle, delay].clip(0), near] + (np.abs(integer) - near).astype(np.float32)
        image = np.zeros(cells.shape, np.float32)
        image[some] = np.sign(integer) * value * width[sample]
        return Picture(torch.from_numpy(image), torch.from_numpy(ratio).long(), torch.from_numpy(width))

    def _parse_some(self, bits: Integers, alphabets: tuple[list[Alphabets], Alphabets]) -> Sent:
        decoder, n, column = Decoder(bits), len(bits), self.grid.column
        unconditional = np.zeros(n, np.int64)
        profile, shift, energy, step = (decoder.get(slice(0, n), header, unconditional) for header in alphabets[0])
        ratio = self._ratios(profile, shift, step)
        line = Lines(ratio >= 0)
        decoder.arrange(line.order)
        first = ratio[line.order].ravel()[line.place].astype(np.int64) * CONTEXTS
        activity = np.zeros(n * self.grid.size + 2 * column, np.uint8)
        cells = np.zeros((2, n * self.grid.size), np.int16)
        for here in line.turns:
            at = line.place[here]
            symbol = decoder.get(slice(0, len(at)), alphabets[1], first[here] + CONTEXT.take(activity.take(at)))
            rows = np.flatnonzero(symbol != EMPTY)
            if not len(rows):
                continue
            at, symbol = at[rows], symbol[rows]
            pair = np.stack((symbol // SIDE, symbol % SIDE)) - LARGEST
            busy = np.abs(pair).sum(0).clip(max=BUSY).astype(np.uint8)
            for distance, weight in self.grid.ahead:
                activity[at + distance] += weight * busy
            for part in pair:
                large = np.flatnonzero(np.abs(part) == LARGEST)
                if len(large):
                    part[large] += np.sign(part[large]) * decoder.get_number(rows[large])
            cells[:, at] = pair
        laid = cells.reshape(2, n, self.grid.size).swapaxes(0, 1)[line.back]
        return Sent(*map(torch.from_numpy, (profile, shift, energy, step, self.grid.cells(laid))))

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
        :raises ZooError: too few samples with energy
        """
        x = x[x.abs().flatten(1).amax(1) > 0]
        if len(x) < 4 * config.profiles:
            raise ZooError(
                f"{config.profiles} profiles take at least {4 * config.profiles} samples with energy; there are {len(x)}"
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
        picture = self.picture(sent)
        ratio, coded = picture.ratio, picture.ratio >= 0
        magnitude = sent.cells.long().abs()
        near = magnitude.clamp(max=LARGEST)
        real, imaginary = near[:, 0][coded], near[:, 1][coded]
        busy = self.grid.laid(magnitude.sum(1).clamp(max=BUSY).to(torch.uint8).numpy())
        activity = self.grid.cells(self.grid.activity(busy.ravel()).reshape(busy.shape))
        context = (ratio * CONTEXTS + torch.from_numpy(CONTEXT[activity]))[coded]
        side = LARGEST + 1
        count = torch.bincount((context * side + real) * side + imaginary, minlength=RATIOS * CONTEXTS * side * side)
        joint = count.view(RATIOS, CONTEXTS, side, side).double()
        joint = (joint + joint.mT) / 2  # re and im are alike
        weights = _signed(joint).numpy()
        level = weights.sum(1) + 4 * guess  # of a ratio, whatever the activity
        self.cell_frequency.copy_(
            torch.from_numpy(frequencies(weights + 16 * (level / level.sum(-1, keepdims=True))[:, None]))[None]
        )
        u = self.to_image(x) / picture.width[:, None, None, None]
        over, of_coded = (u * sent.cells.sign()).float() - (magnitude - near), coded[:, None].expand_as(near)
        place = (ratio.clamp(min=0)[:, None] * side + near)[of_coded]
        total = torch.zeros(RATIOS * side).index_add_(0, place, over[of_coded])
        times = torch.bincount(place, minlength=RATIOS * side).float()
        usual = torch.arange(side).float().repeat(RATIOS)
        centroid = ((total + 5 * usual) / (times + 5)).view(RATIOS, side)
        centroid[:, 0] = 0
        self.centroid.copy_(centroid[None])


def _ratio(level: NDArray[Any], step: NDArray[Any]) -> NDArray[Any]:
    """Level of a cell's power over the squared step, above -BELOW; negative for cells that are not coded."""
    return np.minimum(level + step - COARSEST + BELOW, RATIOS - 1)


def _width(energy: Integers, step: Integers) -> NDArray[np.float32]:
    """Quantiser steps in units of the scale, [n]."""
    return WIDTHS[2 * energy + STEPS - step]


def _which(ratio: NDArray[Any], activity: NDArray[Any]) -> Integers:
    """Numbers of cells' alphabets."""
    return ratio.astype(np.int64) * CONTEXTS + CONTEXT[activity]


def _symbol(near: Integers, sign: NDArray[Any]) -> Integers:
    """(re, im) as one number, as far as there are symbols.

    :param near: magnitudes up to LARGEST, [2, ...]
    :param sign: numbers of their signs, [2, ...]
    """
    real, imaginary = np.where(sign < 0, -near, near).astype(np.int64) + LARGEST
    return real * SIDE + imaginary


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
