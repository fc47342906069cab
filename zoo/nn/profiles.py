"""A codebook of power angular-delay profiles that may be moved in delay.

A profile is stored as levels, whole quarters of an octave of power about a mean of about one. A sample belongs to the profile, and the
shift, under which independent circular normal cells of these powers are likeliest.

Source: A. Buzo, A. H. Gray, R. M. Gray and J. D. Markel, "Speech coding based upon vector quantization", IEEE Trans. ASSP 1980, whose
distance of spectra, Itakura and Saito's, is this likelihood.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

PER_OCTAVE = 4  # levels
FLOOR = 0.02  # least power of a cell in a profile
ROUNDS = 6  # of the fit
RARE = 3  # samples that a profile must have to be kept


def moved(levels: Tensor, shift: Tensor) -> Tensor:
    """Levels [n, angle, delay] moved by some delays each, [n]; what leaves at one end enters at the other."""
    delays = levels.shape[2]
    source = (torch.arange(delays) - shift[:, None]) % delays
    return levels.gather(2, source[:, None].expand_as(levels))


def likeliest(levels: Tensor, prior: Tensor, power: Tensor, count: int = 1) -> tuple[Tensor, Tensor]:
    """The profiles and shifts under which samples are likeliest.

    :param levels: of all profiles, [profile, angle, delay]
    :param prior: probabilities up to a factor, [profile, shift]; the middle shift moves nothing
    :param power: of samples' cells, their mean being 1, [n, angle, delay]
    :param count: how many of each sample, the likeliest first
    :returns: profiles and shifts (0 and up), [n, count] each
    """
    profiles, shifts = prior.shape
    every = levels.long().repeat_interleave(shifts, 0)
    octaves = moved(every, (torch.arange(shifts) - shifts // 2).repeat(profiles)).flatten(1).float() / PER_OCTAVE
    score = prior.float().log().flatten() - octaves.sum(1) * math.log(2)
    inverse = torch.exp2(-octaves).T.contiguous()
    found = torch.cat([(score - part @ inverse).topk(count, 1).indices for part in power.flatten(1).split(512)])
    return found // shifts, found % shifts


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
        which, shift = (found[:, 0] for found in likeliest(levels, prior, power))
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
