"""A codebook of power angular-delay profiles that may be moved in delay.

A profile is stored as levels, whole quarters of an octave of power about a mean of about one. A sample belongs to the profile, and the
shift, under which independent circular normal cells of these powers are likeliest.

Source: A. Buzo, A. H. Gray, R. M. Gray and J. D. Markel, "Speech coding based upon vector quantization", IEEE Trans. ASSP 1980, whose
distance of spectra, Itakura and Saito's, is this likelihood.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Integers = NDArray[np.int64]

PER_OCTAVE = 4  # levels
FLOOR = 0.02  # least power of a cell in a profile
ROUNDS = 6  # of the fit
SPARE = 7  # candidates beside those asked for that are compared exactly
AT_ONCE = 128  # samples whose likelihoods are held
RARE = 3  # samples that a profile must have to be kept


class Windows:
    """A table of delay-major rows that is read at any shift in delay: what leaves at one end enters at the other.

    :param table: of all profiles, [profile, delay, ...]
    """

    def __init__(self, table: NDArray[Any]) -> None:
        self.delays, self.column = table.shape[1], math.prod(table.shape[2:])
        twice = np.concatenate((table, table), 1).reshape(len(table), -1)
        self._views = np.lib.stride_tricks.sliding_window_view(twice, self.delays * self.column, axis=1)

    def __call__(self, profile: Integers, move: Integers) -> NDArray[Any]:
        """Rows of profiles, moved by some delays.

        :param profile: [...]
        :param move: delays, under their number in either direction, [...]
        :returns: [..., delay * ...]
        """
        return self._views[profile, -move % self.delays * self.column]


class Codebook:
    """Profiles among which, and among whose shifts, the likeliest of a sample are looked for.

    Correlations by way of the delays' spectra find some in single precision; sums in double precision, in an order that depends on
    nothing else, rank them. A sample finds the same whatever the samples beside it and however many threads work.

    :param levels: of all profiles, integers, [profile, angle, delay]
    :param prior: probabilities up to a factor, [profile, shift]; the middle shift moves nothing
    """

    def __init__(self, levels: Tensor, prior: Tensor) -> None:
        self.shifts, delays = prior.shape[1], levels.shape[2]
        octaves = levels.mT.numpy().astype(np.float64) / PER_OCTAVE  # delay-major
        self._score = np.log(prior.numpy().astype(np.float64)) - octaves.sum((1, 2))[:, None] * math.log(2)
        self._offset = torch.from_numpy(self._score.T.copy()).float()[:, None]
        inverse = np.exp2(-octaves).astype(np.float32)
        self._inverse = Windows(inverse)
        spectrum = torch.fft.rfft(torch.from_numpy(inverse), dim=1).movedim(1, 0).mT  # [frequency, angle, profile]
        self._real = torch.cat((spectrum.real, spectrum.imag), 1)
        self._imaginary = torch.cat((-spectrum.imag, spectrum.real), 1)
        frequency, self._move = np.arange(delays // 2 + 1), np.arange(self.shifts) - self.shifts // 2
        turn = np.exp(2j * np.pi * (np.outer(self._move, frequency) % delays) / delays) / delays
        turn *= np.where((frequency == 0) | (2 * frequency == delays), 1, 2)  # for the frequencies below zero
        self._cosine, self._sine = (torch.from_numpy(part).float() for part in (turn.real, -turn.imag))

    def likeliest(self, power: Tensor, count: int = 1) -> tuple[Integers, Integers]:
        """Find the profiles and shifts under which samples are likeliest.

        :param power: of samples' cells, their mean being 1, [n, angle, delay]
        :param count: how many of each sample, the likeliest first
        :returns: profiles and shifts (0 and up), [n, count] each
        """
        parts = [self._some(part, count) for part in power.mT.split(AT_ONCE)] if len(power) else []
        pair = np.concatenate([np.zeros((0, count), np.int64), *parts])
        return pair // self.shifts, pair % self.shifts

    def _some(self, power: Tensor, count: int) -> Integers:
        """Profiles times shifts, and the shift."""
        (size, shifts), n = self._score.shape, len(power)
        wave = torch.fft.rfft(power.float(), dim=1).movedim(1, 0)
        wave = torch.cat((wave.real, wave.imag), 2)
        match = (self._sine @ (wave @ self._imaginary).flatten(1)).addmm_(self._cosine, (wave @ self._real).flatten(1))
        score = torch.sub(self._offset, match.view(shifts, n, size))
        profiles = score.amax(0).topk(min(count + SPARE, size), 1).indices
        some = score.gather(2, profiles.expand(shifts, -1, -1)).permute(1, 2, 0).flatten(1)
        best = some.topk(min(count + SPARE, some.shape[1]), 1).indices
        pair = (profiles.gather(1, best // shifts) * shifts + best % shifts).sort(1).values.numpy()
        terms = self._inverse(pair // shifts, self._move[pair % shifts]) * power.double().flatten(1).numpy()[:, None]
        exact = terms.sum(-1) - self._score.flatten()[pair]
        return np.take_along_axis(pair, exact.argsort(1, kind="stable")[:, :count], 1)


def fit(power: Tensor, profiles: int, reach: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Choose and average in turns, from random samples on.

    :param power: of samples' cells, their mean being 1, [n, angle, delay]
    :param profiles: size of the codebook
    :param reach: delays that a profile may be moved by, in either direction
    :returns: levels, int8 [profile, angle, delay]; samples of each profile, [profile], and at each shift, [shift]
    """
    shifts, mean = 2 * reach + 1, power.mean(0)
    prior = torch.ones(profiles, shifts)

    def some(count: int) -> Tensor:
        rows = torch.randperm(len(power), generator=generator)[:count]
        return 0.8 * _smooth(power[rows], 2) + 0.15 * mean + 0.05

    profile = some(profiles)
    for _ in range(ROUNDS):
        levels = (PER_OCTAVE * profile.clamp(min=FLOOR).log2()).round().clamp(-128, 127).to(torch.int8)
        which, shift = (torch.from_numpy(found[:, 0]) for found in Codebook(levels, prior).likeliest(power))
        total = torch.zeros(profiles, *power.shape[1:])
        for move in range(shifts):
            chosen = shift == move
            total.index_add_(0, which[chosen], power[chosen].roll(reach - move, 2))
        members, moves = (torch.bincount(v, minlength=n) for v, n in ((which, profiles), (shift, shifts)))
        profile = (0.85 * total + 0.15 * _smooth(total, 1) + 2 * (0.3 * mean + 0.05)) / (members[:, None, None] + 2)
        rare = members < RARE
        profile[rare] = some(int(rare.sum()))
        prior = (members + 1.0)[:, None] * (moves + 1.0)
    return levels, members, moves


def _smooth(power: Tensor, reach: int) -> Tensor:
    """Mean over neighbouring cells, the margins wrapped: [n, angle, delay]."""
    wrapped = torch.nn.functional.pad(power[:, None], (reach,) * 4, mode="circular")
    return torch.nn.functional.avg_pool2d(wrapped, 2 * reach + 1, 1)[:, 0]
