"""The U-Net of GD-CSI and RD-JSCC: residual units and linear attention on four scales, told the diffusion time.

Source: GD-CSI §III-D, which follows R. Yang and S. Mandt, "Lossy image compression with conditional diffusion models" (its [25]).
Shapes below are [n, channel, height, width].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from zoo.nn.start import zeroed

Norm = Literal["element", "channel"]


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of each position, one gain and bias a channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        normalised = nn.functional.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, 1e-5)
        return normalised.permute(0, 3, 1, 2)


def norm_layer(norm: Norm, channels: int, size: tuple[int, int]) -> nn.Module:
    """Layer normalisation over (C, H, W) with a gain and bias for every element, or over C alone.

    The published 15 M parameters are met only by the former; its gains also tell the network where it is, which convolutions do not.
    """
    return nn.LayerNorm((channels, *size)) if norm == "element" else ChannelNorm(channels)


class Unit(nn.Module):
    """Residual unit: twice convolution, normalisation, ReLU; a shift by the time embedding between the two."""

    def __init__(
        self, inputs: int, outputs: int, size: tuple[int, int], norm: Norm, time: int | None = None, kernel: int = 3
    ) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
        self.first_norm = norm_layer(norm, outputs, size)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.second_norm = norm_layer(norm, outputs, size)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.time = nn.Linear(time, outputs) if time is not None else None

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        hidden = self.first_norm(self.first(x)).relu()
        if self.time is not None and time is not None:
            hidden = hidden + self.time(nn.functional.leaky_relu(time, 0.2))[:, :, None, None]
        return self.second_norm(self.second(hidden)).relu() + self.shortcut(x)


class LinearAttention(nn.Module):
    """Residual attention whose cost grows linearly with the positions: softmax over positions of the keys, one head."""

    def __init__(self, channels: int, size: tuple[int, int], norm: Norm) -> None:
        super().__init__()
        self.norm = norm_layer(norm, channels, size)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.out = nn.Conv2d(channels, channels, 1)
        self.gain = channels**-0.5

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(self.norm(x)).flatten(2).chunk(3, dim=1)  # each [n, channel, position]
        context = key.softmax(-1) @ value.transpose(1, 2)  # [n, key channel, value channel]
        return x + self.out((context.transpose(1, 2) @ (query * self.gain)).view_as(x))


class Down(nn.Conv2d):
    """Half the size: 3 x 3 convolution of stride 2."""

    def __init__(self, channels: int, outputs: int | None = None) -> None:
        super().__init__(channels, outputs or channels, 3, stride=2, padding=1)


class Up(nn.ConvTranspose2d):
    """Twice the size: 4 x 4 transposed convolution of stride 2."""

    def __init__(self, channels: int, outputs: int | None = None) -> None:
        super().__init__(channels, outputs or channels, 4, stride=2, padding=1)


class UNet(nn.Module):
    """Estimate a clean image from a noisy one, context at the two finest scales, and the time.

        x, fine ---> [unit unit attention] --------------------------------------------> (cat) [unit unit attention up] --> out
                          | down, coarse                                                   |
                          +-> [unit unit attention] ----------------------> (cat) [unit unit attention up]
                                   | down ... coarsest: unit attention unit

    :param channels: of the noisy image and of the result
    :param fine: context channels at full size, concatenated with the noisy image; 0 for none
    :param coarse: context channels at half size, concatenated before the second scale; 0 for none
    :param width: channels at full size, times ``multipliers`` at each scale; also the length of the time embedding
    :param size: (height, width), divisible by 2 ** (scales - 1)
    :param timed: False leaves the time embedding out
    """

    def __init__(
        self, channels: int, fine: int, coarse: int, *, width: int = 64, multipliers: Sequence[int] = (1, 2, 3, 4),
        size: tuple[int, int] = (32, 32), norm: Norm = "element", kernel: int = 7, timed: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        time = width if timed else None
        widths = [width * m for m in multipliers]
        sizes = [(size[0] >> i, size[1] >> i) for i in range(len(widths))]
        extra = [fine, coarse, *(0 for _ in widths[2:])]
        self.time = nn.Sequential(nn.Linear(1, 4 * width), nn.GELU(), nn.Linear(4 * width, width)) if timed else None
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for i, (before, after) in enumerate(zip([channels, *widths], widths, strict=False)):
            self.down.append(
                nn.ModuleList([
                    Unit(before + extra[i], after, sizes[i], norm, time, kernel if i == 0 else 3),
                    Unit(after, after, sizes[i], norm, time),
                    LinearAttention(after, sizes[i], norm),
                    Down(after) if i < len(widths) - 1 else nn.Identity(),
                ])
            )  # fmt: skip
        deepest = widths[-1]
        self.middle = nn.ModuleList([
            Unit(deepest, deepest, sizes[-1], norm, time),
            LinearAttention(deepest, sizes[-1], norm),
            Unit(deepest, deepest, sizes[-1], norm, time),
        ])  # fmt: skip
        for i in range(len(widths) - 1, 0, -1):
            before, after = widths[i], widths[i - 1]
            self.up.append(
                nn.ModuleList([
                    Unit(2 * before, after, sizes[i], norm, time),
                    Unit(after, after, sizes[i], norm, time),
                    LinearAttention(after, sizes[i], norm),
                    Up(after),
                ])
            )  # fmt: skip
        self.out_norm = norm_layer(norm, width, size)
        self.out = zeroed(nn.Conv2d(width, channels, kernel, padding=kernel // 2))

    def forward(
        self, x: Tensor, fine: Tensor | None = None, coarse: Tensor | None = None, time: Tensor | None = None,
        shift: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """
        :param x: noisy image, [n, channels, height, width]
        :param fine: context, [n, fine, height, width]
        :param coarse: context, [n, coarse, height / 2, width / 2]
        :param time: t / T, [n]
        :param shift: added to the time embedding, [n, width] (the rate's embedding, say)
        """
        embedding = None
        if self.time is not None and time is not None:
            embedding = self.time(time[:, None].to(x.dtype))
            embedding = embedding if shift is None else embedding + shift
        skips: list[Tensor] = []
        for scale, joined in zip(self.down, [fine, coarse, *(None for _ in self.down)], strict=False):
            first, second, attend, down = layers(scale)
            x = x if joined is None else torch.cat((x, joined), 1)
            x = attend(second(first(x, embedding), embedding))
            skips.append(x)
            x = down(x)
        first, attend, second = layers(self.middle)
        x = second(attend(first(x, embedding)), embedding)
        for scale in self.up:
            first, second, attend, up = layers(scale)
            x = up(attend(second(first(torch.cat((x, skips.pop()), 1), embedding), embedding)))
        image: Tensor = self.out(self.out_norm(x))
        return image


def layers(scale: nn.Module) -> list[nn.Module]:
    """The layers of a scale of a U-Net."""
    return list(scale.children())
