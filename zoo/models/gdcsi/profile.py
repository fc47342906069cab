"""GD-CSI's denoiser behind the payload of profile-code: training starts as the classical code.

    x -- profile-code --> payload --> estimate x_c, step width, power that the profile gives each cell, all over the width, aligned
    -- linear -- [w] (+) linear(z_t), time -- blocks -- linear --> z_0 = (x^ - x_c) / width

The last layer starts at zero: what is decoded is the classical estimate then. Step and powers tell the rate: one denoiser serves all.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from zoo.models.base import energy
from zoo.models.gdcsi.backbone import Backbone, turned
from zoo.models.gdcsi.config import GDCSIConfig
from zoo.models.gdcsi.dense import Denoiser
from zoo.models.profile_code import BELOW, Picture, ProfileCode, ProfileCodeConfig, Sent
from zoo.nn.frame import HOME, rolled, strongest
from zoo.nn.profiles import PER_OCTAVE

LARGEST = 8.0  # standard deviation over step width that the denoiser is told of a cell, at most
QUARTER = math.pi / 2  # a payload turned by it is what the turned sample would have had


class Effort(NamedTuple):
    """How long the UE looks for a better payload."""

    attempts: tuple[tuple[int, tuple[float, float]], ...]  # as in profile_code.ATTEMPTS: rank of the profile, rounding
    rounds: int  # of moving single integers
    moves: int  # that a round tries


ROUNDINGS = ((0.35, 0.12), (0.35, 0.2), (0.2, 0.12), (0.45, 0.08))
EFFORTS = (
    Effort(tuple((rank, rounding) for rank in range(2) for rounding in ROUNDINGS[:3]), 2, 6),
    Effort(tuple((rank, rounding) for rank in range(8) for rounding in ROUNDINGS), 6, 8),
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

    @property
    def at_once(self) -> int:
        return self.code.at_once

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
        """Take of several profiles and roundings the payload that is best behind the denoiser, not before it; then move single integers of it.

        Which integers, the gradient of the error behind the denoiser tells: those whose step towards less error promises most.
        """
        code, csi = self._at(rate), _complex(x)
        plain = code.parse(code.codes(csi))

        def error(sent: Sent) -> Tensor:
            return energy(decode(self._told(code.picture(sent), x.device), len(x)) - x)

        best, least = Sent.joined([plain]), error(plain)
        for how in EFFORTS[:effort]:  # each from the start, so that more effort is never worse
            found = Sent.joined([plain])
            lowest = error(found)
            for tried in code.candidates(csi, [one for one in how.attempts if one[0] < code.config.profiles]):
                lowest = _better(found, lowest, tried, error(tried))
            for _ in range(how.rounds):
                cells, signs = self._promising(found, x, code, decode, how.moves)
                for cell, sign in zip(cells.T, signs.T, strict=True):
                    tried = found.rows(slice(None))
                    tried.cells = (
                        found.cells.flatten(1).scatter_add(1, cell[:, None], sign[:, None]).view_as(found.cells)
                    )
                    lowest = _better(found, lowest, tried, error(tried).where(code.fits(tried).to(x.device), torch.inf))
            least = _better(best, least, found, lowest)
        return code.write(best).to(x.device)

    def _promising(
        self, sent: Sent, x: Tensor, code: ProfileCode, decode: Callable[[Any, int], Tensor], count: int
    ) -> tuple[Tensor, Tensor]:
        """Find integers, and the direction of their steps, that promise to lower the error most: [n, count] each, the best first."""
        picture = code.picture(sent)
        with torch.inference_mode(False), torch.enable_grad():
            image = picture.image.clone().requires_grad_()
            told = self._told(Picture(image, picture.ratio.clone(), picture.width.clone()), x.device)
            (slope,) = torch.autograd.grad(energy(decode(told, len(x)) - x.clone()).sum(), image)
        slope, step = slope.cpu(), picture.width[:, None, None, None]
        promise = slope.abs() * step - (self.code.scale.cpu() * step).square()
        best = promise.masked_fill((picture.ratio < 0)[:, None], -torch.inf).flatten(1).topk(count, 1)
        signs = -slope.sign().flatten(1).gather(1, best.indices) * (best.values > 0)  # what is not coded stays as it is
        return best.indices, signs.to(sent.cells.dtype)

    # training ------------------------------------------------------------------------------------------------------------

    def observe(self, x: Tensor, start: int) -> dict[str, Tensor]:
        """Code samples, each at one of the rates in turn, by the encoder's first attempt."""
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
        number = seen["number"].long().cpu()
        image = torch.zeros(x.shape)
        ratio = torch.zeros(len(x), *x.shape[2:], dtype=torch.int64)
        width = torch.ones(len(x))
        for place, rate in enumerate(self.config.shared):
            rows = number == place
            if rows.any():
                picture = self._at(rate).picture(
                    Sent(*(seen[field.name].cpu()[rows].long() for field in dataclasses.fields(Sent)))
                )
                image[rows], ratio[rows], width[rows] = picture.image, picture.ratio, picture.width
        image = turned(image.to(x.device), seen["phase"])
        return self._told(Picture(image, ratio, width), x.device), torch.zeros((), device=x.device), number.to(x.device)

    def allowed(self, phase: Tensor) -> Tensor:
        return (phase / QUARTER).floor() * QUARTER

    # of a rate -----------------------------------------------------------------------------------------------------------

    def _at(self, rate: int) -> ProfileCode:
        return self.code if rate == self.code.config.rate else self.code.at(rate)

    def weights_of(self, rate: int) -> dict[str, Tensor]:
        own = {name: value for name, value in self.state_dict().items() if not name.startswith("code.")}
        return own | {f"code.{name}": value for name, value in self.code.at(rate).state_dict().items()}


def _better(best: Sent, least: Tensor, tried: Sent, error: Tensor) -> Tensor:
    """Put what errs less in the place of what was best so far: the least errors, [n]."""
    better = error < least
    best.put(better.cpu(), tried.rows(better.cpu()))
    return torch.where(better, error, least)


def _complex(image: Tensor) -> Tensor:
    wide = image.to(torch.promote_types(image.dtype, torch.float32))
    return torch.complex(wide[:, 0], wide[:, 1])
