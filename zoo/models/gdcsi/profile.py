"""GD-CSI's denoiser behind the payload of profile-code: never worse than the classical code that it starts from.

    x -- profile-code --> payload --> estimate x_c, step width, power that the profile gives each cell, all over the width, aligned
    -- linear -- [w] (+) linear(z_t), time -- blocks -- linear --> z_0 = (x^ - x_c) / width

The last layer starts at zero, so that training starts at the classical code. Step and powers tell the rate: one denoiser serves all.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from zoo.models.base import energy
from zoo.models.gdcsi.backbone import Backbone, rolled, strongest, turned
from zoo.models.gdcsi.config import GDCSIConfig
from zoo.models.gdcsi.dense import HOME, Denoiser
from zoo.models.profile_code import BELOW, Picture, ProfileCode, ProfileCodeConfig, Sent
from zoo.nn.profiles import PER_OCTAVE

LARGEST = 8.0  # standard deviation over step width that the denoiser is told of a cell, at most
QUARTER = math.pi / 2  # a payload turned by it is what the turned sample would have had
SEARCHED = (  # what the UE tries, as in profile_code.ATTEMPTS, by effort: ranks of the profile, roundings
    tuple((rank, rounding) for rank in range(4) for rounding in ((0.35, 0.12), (0.35, 0.2), (0.2, 0.12))),
    tuple((rank, rounding) for rank in range(8) for rounding in ((0.35, 0.12), (0.35, 0.2), (0.2, 0.12), (0.45, 0.08))),
)


class Context(NamedTuple):
    """What the denoiser is told, and where its answer belongs."""

    told: Tensor  # [n, numbers]: estimate and powers over the width, aligned
    estimate: Tensor  # of the classical code, image [n, 2, angle, delay]
    width: Tensor  # quantiser step in units of the image, [n]
    move: Tensor  # delays that aligning has moved it by, [n]


class ProfileBackbone(Backbone):
    """A dense denoiser behind a classical payload."""

    def __init__(self, config: GDCSIConfig) -> None:
        super().__init__()
        self.config = config
        cells = config.angles * config.delays
        self.code = ProfileCode(
            ProfileCodeConfig(
                angles=config.angles, delays=config.delays, rate=config.rate, rates=config.rates, profiles=config.profiles,
                shifts=config.shifts,
            )
        )  # fmt: skip
        self.enter = nn.Linear(3 * cells, config.width)
        self.denoiser = Denoiser(config, 2 * cells)

    def widths(self, rate: int) -> tuple[int, ...]:
        return (1,) * rate

    def codes(self, x: Tensor, rate: int) -> Tensor:
        return self._at(rate).codes(_complex(x)).to(x.device)

    def context(self, codes: Tensor, y: Tensor | None, rate: int) -> Context:
        code = self._at(rate)
        return self._told(code.picture(code.parse(codes)), codes.device)

    def _told(self, picture: Picture, device: torch.device) -> Context:
        unit = self.code.scale
        estimate, width = picture.image.to(device, unit.dtype) * unit, picture.width.to(device, unit.dtype) * unit
        spread = torch.exp2((picture.ratio.to(device, unit.dtype) - BELOW) / (2 * PER_OCTAVE)).clamp(max=LARGEST)
        move = (
            self.config.delays // HOME - strongest(estimate)
            if self.config.align
            else torch.zeros(len(width), dtype=torch.int64, device=device)
        )
        over = torch.cat((estimate / width[:, None, None, None], spread[:, None]), 1)
        return Context(rolled(over, move).flatten(1), estimate, width, move)

    def denoise(self, z: Tensor, context: Context, time: Tensor) -> Tensor:
        clean = self.denoiser(z.flatten(1), self.enter(context.told), time)
        return clean.view_as(z)

    def hidden(self, image: Tensor, context: Context) -> Tensor:
        return rolled((image - context.estimate) / context.width[:, None, None, None], context.move)

    def image(self, z: Tensor, context: Context) -> Tensor:
        return context.estimate + rolled(z, -context.move) * context.width[:, None, None, None]

    # the UE's search -----------------------------------------------------------------------------------------------------

    def search(self, x: Tensor, rate: int, effort: int, decode: Callable[[Any, int], Tensor]) -> Tensor:
        """Take of several profiles and roundings the payload that is best behind the denoiser, not before it."""
        code = self._at(rate)
        codes = code.codes(_complex(x)).to(x.device)
        least = self._error(code.parse(codes), x, code, decode)
        there = [attempt for attempt in SEARCHED[effort - 1] if attempt[0] < code.config.profiles]
        for tried in code.candidates(_complex(x), there):
            error = self._error(tried, x, code, decode)
            better = error < least
            if better.any():
                codes[better] = code.write(tried.rows(better.cpu())).to(x.device)
                least = torch.where(better, error, least)
        return codes

    def _error(self, sent: Sent, x: Tensor, code: ProfileCode, decode: Callable[[Any, int], Tensor]) -> Tensor:
        return energy(decode(self._told(code.picture(sent), x.device), len(x)) - x)

    # training ------------------------------------------------------------------------------------------------------------

    def observe(self, x: Tensor, start: int) -> dict[str, Tensor]:
        """Payloads of samples, each of one of the rates in turn, by the encoder's first attempt."""
        shared = self.config.shared
        number = (torch.arange(len(x)) + start) % len(shared)
        seen: dict[str, Tensor] = {"number": number.to(torch.int8)}
        for place, rate in enumerate(shared):
            rows = number == place
            for name, value in vars(self._at(rate).decide(_complex(x[rows]), attempts=1)).items():
                whole = seen.setdefault(name, torch.zeros(len(x), *value.shape[1:], dtype=torch.int16))
                whole[rows] = value.to(torch.int16)
        return seen

    def quantise(self, x: Tensor, y: Tensor | None, seen: Mapping[str, Tensor]) -> tuple[Context, Tensor, Tensor]:
        number = seen["number"].long()
        image = torch.zeros_like(x)
        ratio = torch.zeros(len(x), *x.shape[2:], dtype=torch.int64)
        width = torch.ones(len(x))
        for place, rate in enumerate(self.config.shared):
            rows = number == place
            if rows.any():
                picture = self._at(rate).picture(Sent(*(seen[field.name][rows].long() for field in dataclasses.fields(Sent))))
                image[rows], ratio[rows], width[rows] = picture.image, picture.ratio, picture.width
        image = turned(image, seen["phase"])
        return self._told(Picture(image, ratio, width), x.device), torch.zeros((), device=x.device), number.to(x.device)

    def allowed(self, phase: Tensor) -> Tensor:
        return (phase / QUARTER).floor() * QUARTER

    # of a rate -----------------------------------------------------------------------------------------------------------

    def _at(self, rate: int) -> ProfileCode:
        return self.code if rate == self.code.config.rate else self.code.at(rate)

    def weights_of(self, rate: int) -> dict[str, Tensor]:
        own = {name: value for name, value in self.state_dict().items() if not name.startswith("code.")}
        return own | {f"code.{name}": value for name, value in self.code.at(rate).state_dict().items()}


def _complex(image: Tensor) -> Tensor:
    wide = image.to(torch.promote_types(image.dtype, torch.float32))
    return torch.complex(wide[:, 0], wide[:, 1])
