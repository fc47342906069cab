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
from zoo.models.gdcsi.backbone import Backbone
from zoo.models.gdcsi.config import GDCSIConfig
from zoo.nn.dense import Codebooks, Stack
from zoo.nn.frame import Frame, Framing
from zoo.nn.start import zeroed

FLOOR = 0.05  # added to a cell's standard deviation, over the mean one
NEAREST = 6  # words of a code that a search tries
TIME = 64  # numbers of the time's embedding


class Context(NamedTuple):
    """What the denoiser is told."""

    told: Tensor  # [n, width]
    framing: Framing


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

    spread: Tensor  # standard deviation of each cell of samples without their frame, and some more, [angle, tap]

    def __init__(self, config: GDCSIConfig) -> None:
        super().__init__()
        self.config, self.taps = config, config.taps or config.delays
        numbers = 2 * config.angles * self.taps
        self.enter = nn.Linear(numbers, config.width)
        self.encoder = Stack(config.width, config.hidden, config.encoder_blocks)
        self.rates = nn.ModuleDict({str(rate): Rate(config, rate) for rate in config.shared})
        self.side = nn.Linear(numbers, config.width, bias=False) if config.side_information else None
        self.denoiser = Denoiser(config, numbers)
        self.frame = Frame(config.delays, config.align, config.energy_bits)
        self.register_buffer("spread", torch.ones(config.angles, self.taps))

    def prepare(self, x: Tensor) -> None:
        self.frame.prepare(x)
        still = self.frame.strip(x, self.frame.read(self.frame.codes(x)))
        power = still[..., : self.taps].square().sum(1).mean(0)
        self.spread.copy_(power.sqrt() + FLOOR * power.sqrt().mean())

    def _numbers(self, image: Tensor) -> Tensor:
        """Images as rows of numbers, each over its cell's standard deviation."""
        return (image[..., : self.taps] / self.spread).flatten(1)

    # UE ------------------------------------------------------------------------------------------------------------------

    def widths(self, rate: int) -> tuple[int, ...]:
        return (*self.frame.widths, *self._rate(rate).codebooks.widths)

    def codes(self, x: Tensor, rate: int) -> Tensor:
        frame = self.frame.codes(x)
        return torch.cat((frame, self._rate(rate).codebooks.codes(self._latents(x, frame, rate))), 1)

    def _latents(self, x: Tensor, frame: Tensor, rate: int) -> Tensor:
        still = self.frame.strip(x, self.frame.read(frame))
        part = self._rate(rate)
        hidden: Tensor = self.encoder(self.enter(self._numbers(still)) + part.told)
        return part.latents(hidden).unflatten(1, (-1, self.config.code_size))

    def search(self, x: Tensor, rate: int, effort: int, decode: Callable[[Any, int], Tensor]) -> Tensor:
        """Try the nearest words of one code after the other; ``effort`` times for all codes."""
        frame, part = self.frame.codes(x), self._rate(rate)
        far = part.codebooks.distances(self._latents(x, frame, rate))
        distance, nearest = far.topk(min(NEAREST, far.shape[2]), dim=2, largest=False)
        nearest = torch.where(distance.isinf(), nearest[:, :, :1], nearest)  # a narrow code has fewer words
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
        fields, part = len(self.frame.widths), self._rate(rate)
        framing = self.frame.read(codes[:, :fields])
        return Context(self._with_side(part.words(part.codebooks(codes[:, fields:]).flatten(1)), y, framing), framing)

    def _with_side(self, told: Tensor, y: Tensor | None, framing: Framing) -> Tensor:
        if self.side is None or y is None:
            return told
        return told + self.side(self._numbers(self.frame.strip(y, framing)))

    def denoise(self, z: Tensor, context: Context, time: Tensor) -> Tensor:
        clean = self.denoiser(self._numbers(z), context.told, time)
        seen = clean.unflatten(1, (2, self.config.angles, self.taps)) * self.spread
        return nn.functional.pad(seen, (0, self.config.delays - self.taps))

    def hidden(self, image: Tensor, context: Context) -> Tensor:
        return self.frame.strip(image, context.framing)

    def image(self, z: Tensor, context: Context) -> Tensor:
        return self.frame.put_back(z, context.framing)

    # training ------------------------------------------------------------------------------------------------------------

    def quantise(self, x: Tensor, y: Tensor | None, seen: Mapping[str, Tensor]) -> tuple[Context, Tensor, Tensor]:
        framing = self.frame.read(self.frame.codes(x))
        still = self.frame.strip(x, framing)
        shares = [len(share) for share in torch.arange(len(x)).tensor_split(len(self.rates))]
        parts = [self._rate(rate) for rate in self.config.shared]
        starts = torch.cat([part.told.expand(share, -1) for part, share in zip(parts, shares, strict=True)])
        trunk = self.encoder(self.enter(self._numbers(still)) + starts).split(shares)
        told, losses = [], []
        for part, hidden in zip(parts, trunk, strict=True):
            words, cost = part.codebooks.quantise(part.latents(hidden).unflatten(1, (-1, self.config.code_size)))
            told.append(part.words(words.flatten(1)))
            losses.append(cost)
        number = torch.arange(len(parts)).repeat_interleave(torch.tensor(shares)).to(x.device)
        return Context(self._with_side(torch.cat(told), y, framing), framing), torch.stack(losses).mean(), number

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
