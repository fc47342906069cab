"""CRNet with a quantised codeword and side information, as GD-CSI §IV-B2(b) adapts it.

    x [2, 32, 32] -- two paths, conv 1x1 -- dense --> N_cl -- tanh, uniform 6 bits --> N_cl codes
    codes -- dense --> [2, 32, 32] (+) y -- conv 5x5 -- two CR blocks -- conv 3x3, tanh --> z^

Source: Z. Lu, J. Wang and J. Song, "Multi-resolution CSI feedback with deep learning in massive MIMO system", IEEE ICC 2020.
The paper leaves open how four channels become two; here the blocks keep all four, and a last convolution chooses.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.models.csinet import SLOPE, ScalarCodec, ScalarConfig, conv
from zoo.nn.start import zeroed


def leaky(*layers: nn.Module) -> nn.Sequential:
    """Layers with a leaky ReLU between each two."""
    between = [layer for pair in zip(layers, [nn.LeakyReLU(SLOPE)] * len(layers), strict=True) for layer in pair]
    return nn.Sequential(*between[:-1])


class Encoder(nn.Module):
    """A narrow and a wide receptive field side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = leaky(conv(2, 2, 3), conv(2, 2, (1, 9)), conv(2, 2, (9, 1)))
        self.narrow = conv(2, 2, 3)
        self.join = conv(4, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        both = torch.cat((self.wide(image), self.narrow(image)), 1)
        return nn.functional.leaky_relu(self.join(nn.functional.leaky_relu(both, SLOPE)), SLOPE)


class CRBlock(nn.Module):
    """Two resolutions side by side, joined and added to the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.wide = leaky(conv(channels, 7, 3), conv(7, 7, (1, 9)), conv(7, 7, (9, 1)))
        self.narrow = leaky(conv(channels, 7, (1, 5)), conv(7, 7, (5, 1)))
        self.join = conv(14, channels, 1)

    def forward(self, image: Tensor) -> Tensor:
        both = torch.cat((self.wide(image), self.narrow(image)), 1)
        return nn.functional.leaky_relu(self.join(nn.functional.leaky_relu(both, SLOPE)) + image, SLOPE)


class CRNet(ScalarCodec):
    """Family ``crnet``."""

    def __init__(self, config: ScalarConfig) -> None:
        super().__init__(config)
        cells, channels = 2 * config.angles * config.delays, 2 + 2 * config.side_information
        self.encoder = nn.Sequential(Encoder(), nn.Flatten(), nn.Linear(cells, config.elements))
        self.expand = nn.Sequential(
            nn.Linear(config.elements, cells), nn.Unflatten(1, (2, config.angles, config.delays))
        )
        self.blocks = nn.Sequential(
            leaky(conv(channels, channels, 5)), nn.LeakyReLU(SLOPE), CRBlock(channels), CRBlock(channels)
        )
        self.out = zeroed(nn.Conv2d(channels, 2, 3, padding=1))

    def decode(self, latent: Tensor, y: Tensor | None) -> Tensor:
        image = self.expand(latent)
        return self.out(self.blocks(image if y is None else torch.cat((image, y), 1))).tanh()
