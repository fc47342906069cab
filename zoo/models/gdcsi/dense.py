"""GD-CSI of dense layers round trained codebooks, for CPU cores.

    x -- place, energy --> frame;  aligned, of unit energy: linear -- blocks -- linear --> codes' latents -- nearest words --> codes
    words -- linear --> [w] (+) linear(y) (+) linear(z_t), time -- blocks -- linear --> z_0, moved and scaled back by the frame

Every cell is divided by its own standard deviation where it enters and multiplied by it where it leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from zoo.models.base import energy
from zoo.models.gdcsi.backbone import Backbone, rolled, strongest
from zoo.models.gdcsi.config import GDCSIConfig
from zoo.nn.dense import Codebooks, Stack
from zoo.nn.start import zeroed

HOME = 4  # the strongest delay of an aligned sample is at this part of the delays: 1/4, so that what follows it stays behind it
FLOOR = 0.05  # added to a cell's standard deviation, over the mean one
NEAREST = 6  # words of a code that a search tries
TIME = 64  # numbers of the time's embedding


class Context(NamedTuple):
    """What the denoiser is told."""

    told: Tensor  # [n, width]
    place: Tensor | None  # the strongest delay, [n]
    level: Tensor | None  # norm of the sample over that of one of unit power a cell, [n]


class Rate(nn.Module):
    """What a rate has for itself: latents, codebooks, and the words' way into the denoiser."""

    def __init__(self, config: GDCSIConfig, rate: int) -> None:
        super().__init__()
        codes, rest = divmod(rate - config.frame_bits, config.code_bits)
        widths = (config.code_bits,) * codes + ((rest,) if rest else ())
        self.told = nn.Parameter(torch.zeros(config.width))  # which rate it is, where the encoder starts
        self.latents = nn.Linear(config.width, len(widths) * config.code_size)
        self.codebooks = Codebooks(widths, config.code_size)
        self.words = nn.Linear(len(widths) * config.code_size, config.width)


class Denoiser(nn.Module):
    """What is behind the context: z_t [n, numbers] and context [n, width] to z_0 [n, numbers].

    With a schedule of one step there is no z_t to be told, and no time.
    """

    def __init__(self, config: GDCSIConfig, numbers: int) -> None:
        super().__init__()
        self.noisy = nn.Linear(numbers, config.width, bias=False) if config.steps > 1 else None
        self.time = (
            nn.Sequential(nn.Linear(1, TIME), nn.GELU(), nn.Linear(TIME, config.width)) if config.steps > 1 else None
        )
        self.blocks = Stack(config.width, config.hidden, config.decoder_blocks)
        self.leave = zeroed(nn.Linear(config.width, numbers))

    def forward(self, z: Tensor, told: Tensor, time: Tensor) -> Tensor:
        if self.noisy is not None and self.time is not None:
            told = told + self.noisy(z) + self.time(time[:, None].to(z.dtype))
        clean: Tensor = self.leave(self.blocks(told))
        return clean


class DenseBackbone(Backbone):
    """Dense layers round codebooks."""

    spread: Tensor  # standard deviation of each cell, of aligned samples of unit power where the frame codes energy, [angle, tap]
    levels: Tensor  # least and largest coded log2 of a sample's level, [2]

    def __init__(self, config: GDCSIConfig) -> None:
        super().__init__()
        self.config, self.taps = config, config.taps or config.delays
        numbers = 2 * config.angles * self.taps
        self.enter = nn.Linear(numbers, config.width)
        self.encoder = Stack(config.width, config.hidden, config.encoder_blocks)
        self.rates = nn.ModuleDict({str(rate): Rate(config, rate) for rate in config.shared})
        self.side = nn.Linear(numbers, config.width, bias=False) if config.side_information else None
        self.denoiser = Denoiser(config, numbers)
        self.register_buffer("spread", torch.ones(config.angles, self.taps))
        self.register_buffer("levels", torch.tensor([-1.0, 1.0]))

    def prepare(self, x: Tensor) -> None:
        if self.config.energy_bits:
            level = self._level(x).log2()
            ends = torch.quantile(level[level.isfinite()].double(), torch.tensor([0.001, 0.999]).double())
            self.levels.copy_(ends)
        still, _ = self._framed(x, self._frame(x))
        power = still[..., : self.taps].square().sum(1).mean(0)
        self.spread.copy_(power.sqrt() + FLOOR * power.sqrt().mean())

    # frame: a sample's place and energy ----------------------------------------------------------------------------------

    def _level(self, x: Tensor) -> Tensor:
        return (energy(x) / (self.config.angles * self.config.delays)).sqrt()

    def _frame(self, x: Tensor) -> Tensor:
        """Codes of place and energy, int64 [n, 0 ... 2]."""
        columns = [strongest(x)] if self.config.align else []
        if self.config.energy_bits:
            low, high = self.levels.float()
            steps = 2**self.config.energy_bits
            share = (self._level(x).log2() - low) / (high - low).clamp(min=1e-6)
            columns.append((share * steps).floor().clamp(0, steps - 1).long())
        return torch.stack(columns, 1) if columns else torch.zeros(len(x), 0, dtype=torch.int64, device=x.device)

    def _unframe(self, frame: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Place and level that a frame's codes stand for, [n] each."""
        place = frame[:, 0] if self.config.align else None
        if not self.config.energy_bits:
            return place, None
        low, high = self.levels.float()
        share = (frame[:, -1] + 0.5) / 2**self.config.energy_bits
        return place, torch.exp2(low + share * (high - low))

    def _framed(self, x: Tensor, frame: Tensor) -> tuple[Tensor, Tensor | None]:
        """Images aligned and of about unit power, and their places."""
        place, level = self._unframe(frame)
        if level is not None:
            x = x / level[:, None, None, None]
        return (x if place is None else self._aligned(x, place)), place

    def _aligned(self, x: Tensor, place: Tensor) -> Tensor:
        return rolled(x, self.config.delays // HOME - place)

    def _numbers(self, image: Tensor) -> Tensor:
        """Images as rows of numbers, each over its cell's standard deviation."""
        return (image[..., : self.taps] / self.spread).flatten(1)

    # UE ------------------------------------------------------------------------------------------------------------------

    def widths(self, rate: int) -> tuple[int, ...]:
        place = ((self.config.delays - 1).bit_length(),) if self.config.align else ()
        level = (self.config.energy_bits,) if self.config.energy_bits else ()
        return (*place, *level, *self._rate(rate).codebooks.widths)

    def codes(self, x: Tensor, rate: int) -> Tensor:
        frame = self._frame(x)
        return torch.cat((frame, self._rate(rate).codebooks.codes(self._latents(x, frame, rate))), 1)

    def _latents(self, x: Tensor, frame: Tensor, rate: int) -> Tensor:
        still, _ = self._framed(x, frame)
        part = self._rate(rate)
        hidden: Tensor = self.encoder(self.enter(self._numbers(still)) + part.told)
        return part.latents(hidden).unflatten(1, (-1, self.config.code_size))

    def search(self, x: Tensor, rate: int, effort: int, decode: Callable[[Any, int], Tensor]) -> Tensor:
        """Try the nearest words of one code after the other; ``effort`` times for all codes."""
        frame, part = self._frame(x), self._rate(rate)
        far = part.codebooks.distances(self._latents(x, frame, rate))
        nearest = far.topk(min(NEAREST, far.shape[2]), dim=2, largest=False).indices
        codes = nearest[:, :, 0].clone()

        def error(tried: Tensor) -> Tensor:
            image = decode(self.context(torch.cat((frame, tried), 1), None, rate), len(x))
            return energy(image - x)

        least = error(codes)
        for _ in range(effort):
            for number in range(codes.shape[1]):
                for rank in range(nearest.shape[2]):
                    tried = codes.clone()
                    tried[:, number] = nearest[:, number, rank]
                    found = error(tried)
                    better = found < least
                    codes[better, number] = tried[better, number]
                    least = torch.where(better, found, least)
        return torch.cat((frame, codes), 1)

    # base station --------------------------------------------------------------------------------------------------------

    def context(self, codes: Tensor, y: Tensor | None, rate: int) -> Context:
        columns = self.config.align + (self.config.energy_bits > 0)
        place, level = self._unframe(codes[:, :columns])
        words = self._rate(rate).codebooks(codes[:, columns:])
        return Context(self._told(words, y, place, rate), place, level)

    def _told(self, words: Tensor, y: Tensor | None, place: Tensor | None, rate: int) -> Tensor:
        told: Tensor = self._rate(rate).words(words.flatten(1))
        if self.side is None or y is None:
            return told
        return told + self.side(self._numbers(y if place is None else self._aligned(y, place)))

    def denoise(self, z: Tensor, context: Context, time: Tensor) -> Tensor:
        clean = self.denoiser(self._numbers(z), context.told, time)
        seen = clean.unflatten(1, (2, self.config.angles, self.taps)) * self.spread
        return nn.functional.pad(seen, (0, self.config.delays - self.taps))

    def hidden(self, image: Tensor, context: Context) -> Tensor:
        if context.level is not None:
            image = image / context.level[:, None, None, None]
        return image if context.place is None else self._aligned(image, context.place)

    def image(self, z: Tensor, context: Context) -> Tensor:
        if context.level is not None:
            z = z * context.level[:, None, None, None]
        return z if context.place is None else rolled(z, context.place - self.config.delays // HOME)

    # training ------------------------------------------------------------------------------------------------------------

    def quantise(self, x: Tensor, y: Tensor | None, seen: Mapping[str, Tensor]) -> tuple[Context, Tensor, Tensor]:
        frame = self._frame(x)
        still, place = self._framed(x, frame)
        shares = [len(share) for share in torch.arange(len(x)).tensor_split(len(self.rates))]
        parts = [self._rate(rate) for rate in self.config.shared]
        starts = torch.cat([part.told.expand(share, -1) for part, share in zip(parts, shares, strict=True)])
        trunk = self.encoder(self.enter(self._numbers(still)) + starts).split(shares)
        told, losses = [], []
        for part, hidden in zip(parts, trunk, strict=True):
            words, cost = part.codebooks.quantise(part.latents(hidden).unflatten(1, (-1, self.config.code_size)))
            told.append(part.words(words.flatten(1)))
            losses.append(cost)
        joined = torch.cat(told)
        if self.side is not None and y is not None:
            joined = joined + self.side(self._numbers(y if place is None else self._aligned(y, place)))
        number = torch.arange(len(parts)).repeat_interleave(torch.tensor(shares)).to(x.device)
        return Context(joined, *self._unframe(frame)), torch.stack(losses).mean(), number

    def tend(self, generator: torch.Generator) -> None:
        for rate in self.config.shared:
            self._rate(rate).codebooks.revive(generator)

    # of a rate -----------------------------------------------------------------------------------------------------------

    def _rate(self, rate: int) -> Rate:
        part = self.rates[str(rate)]
        assert isinstance(part, Rate)
        return part

    def weights_of(self, rate: int) -> dict[str, Tensor]:
        return {
            name: value
            for name, value in self.state_dict().items()
            if not name.startswith("rates.") or name.startswith(f"rates.{rate}.")
        }
