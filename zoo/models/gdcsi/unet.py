"""GD-CSI's own networks: convolutions round a codebook by position, and the U-Net.

    x [2, 32, 32] -- unit, down -- unit -- down(rate) --> [2w, 8, 8] -- nearest of 2^(B/64) words --> 64 codes
    codes -- words(rate) -- unit(rate) -- up --> coarse [w, 16, 16] -- unit -- up --> [8, 32, 32] (+) y --> fine
    z_t, fine, coarse, t / T -- U-Net --> z_0

Beyond the paper: several rates may share everything but the parts marked (rate), each with its own embedding beside the time's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from zoo.models.base import energy
from zoo.models.gdcsi.backbone import Backbone
from zoo.models.gdcsi.config import GDCSIConfig
from zoo.nn.quantise import Codebook
from zoo.nn.unet import Down, UNet, Unit, Up

FINE = 8  # channels of the context at full size
CLIP = 1.0  # of estimates, in units of the model's scale


class Context(NamedTuple):
    """What the U-Net is told."""

    fine: Tensor  # [n, 8 (+ 2), 32, 32]
    coarse: Tensor  # [n, w, 16, 16]
    shift: Tensor | None  # of the time's embedding, by rate, [n, w]


class Rate(nn.Module):
    """What a rate has for itself: the encoder's last layer, its codebook, the context decoder's first unit."""

    def __init__(self, rate: int, config: GDCSIConfig) -> None:
        super().__init__()
        wide, size = 2 * config.width, (config.angles // 4, config.delays // 4)
        self.down = Down(wide)
        self.codebook = Codebook(2 ** (rate // config.positions), wide)
        self.unit = Unit(wide, config.width, size, config.norm)


class UNetBackbone(Backbone):
    """The paper's networks."""

    gain: Tensor  # what makes X and Y of unit power a cell where they enter; z keeps the scale that the noise is measured on

    def __init__(self, config: GDCSIConfig) -> None:
        super().__init__()
        self.config = config
        width, norm, size = config.width, config.norm, (config.angles, config.delays)
        half = (size[0] // 2, size[1] // 2)
        self.encoder = nn.Sequential(
            Unit(2, width, size, norm, kernel=config.kernel), Down(width), Unit(width, 2 * width, half, norm)
        )
        self.rates = nn.ModuleDict({str(rate): Rate(rate, config) for rate in config.shared})
        self.coarse = Up(width)
        self.fine = nn.Sequential(Unit(width, width, half, norm), Up(width, FINE))
        self.unet = UNet(
            2, FINE + 2 * config.side_information, width, width=width, multipliers=config.multipliers, size=size, norm=norm,
            kernel=config.kernel,
        )  # fmt: skip
        self.embedding = nn.Embedding(len(config.shared), width) if len(config.shared) > 1 else None
        if self.embedding is not None:
            nn.init.zeros_(self.embedding.weight)
        self.register_buffer("gain", torch.ones(()))

    def prepare(self, x: Tensor) -> None:
        self.gain.copy_(x.square().mean().rsqrt())

    def widths(self, rate: int) -> tuple[int, ...]:
        return (rate // self.config.positions,) * self.config.positions

    def codes(self, x: Tensor, rate: int) -> Tensor:
        part = self._rate(rate)
        # Of unit power a cell, or convolutions would see little but their biases.
        latent = part.down(self.encoder(x * self.gain))
        return part.codebook.codes(latent.permute(0, 2, 3, 1)).flatten(1)

    def context(self, codes: Tensor, y: Tensor | None, rate: int) -> Context:
        part = self._rate(rate)
        words = part.codebook(codes.view(-1, self.config.angles // 4, self.config.delays // 4)).permute(0, 3, 1, 2)
        return self._context(part.unit(words), y, self._shift(rate, len(codes)))

    def denoise(self, z: Tensor, context: Context, time: Tensor) -> Tensor:
        clean: Tensor = self.unet(z, context.fine, context.coarse, time, context.shift)
        return clean.clamp(-CLIP, CLIP)

    def quantise(self, x: Tensor, y: Tensor | None, seen: Mapping[str, Tensor]) -> tuple[Context, Tensor, Tensor]:
        trunk = self.encoder(x * self.gain)
        shares = trunk.tensor_split(len(self.config.shared))
        hidden, shifts, losses = [], [], []
        for rate, share in zip(self.config.shared, shares, strict=True):
            part = self._rate(rate)
            words, cost = part.codebook.quantise(part.down(share).permute(0, 2, 3, 1))
            hidden.append(part.unit(words.permute(0, 3, 1, 2)))
            shifts.append(self._shift(rate, len(share)))
            losses.append(cost)
        shift = None if self.embedding is None else torch.cat([row for row in shifts if row is not None])
        number = torch.arange(len(shares)).repeat_interleave(torch.tensor([len(share) for share in shares]))
        return self._context(torch.cat(hidden), y, shift), torch.cat(losses) / energy(x), number.to(x.device)

    def _context(self, hidden: Tensor, y: Tensor | None, shift: Tensor | None) -> Context:
        """From a rate's first unit, [n, w, 8, 8]."""
        coarse = self.coarse(hidden)
        fine = self.fine(coarse)
        return Context(fine if y is None else torch.cat((fine, y * self.gain), 1), coarse, shift)

    def _rate(self, rate: int) -> Rate:
        part = self.rates[str(rate)]
        assert isinstance(part, Rate)
        return part

    def _shift(self, rate: int, n: int) -> Tensor | None:
        return None if self.embedding is None else self.embedding.weight[self.config.shared.index(rate)].expand(n, -1)

    def weights_of(self, rate: int) -> dict[str, Tensor]:
        weights = {
            name: value
            for name, value in self.state_dict().items()
            if name != "embedding.weight" and not (name.startswith("rates.") and not name.startswith(f"rates.{rate}."))
        }
        if self.embedding is not None:  # the rate's embedding is a constant beside the time's: part of its last bias
            weights["unet.time.2.bias"] = weights["unet.time.2.bias"] + self._shift(rate, 1)[0]  # type: ignore[index]
        return weights
