"""CsiNet with a quantised codeword and side information, as GD-CSI §IV-B2(a) adapts it.

    x [2, 32, 32] -- conv 3x3 -- dense --> N_cl -- tanh, uniform 6 bits --> N_cl codes
    codes -- dense --> [2, 32, 32] -- twice: (+) y, conv 3x3 8, 16, 2, shortcut -- conv 3x3, tanh --> z^

Source: C.-K. Wen, W.-T. Shih and S. Jin, "Deep learning for massive MIMO CSI feedback", IEEE WCL 2018.
"""

from __future__ import annotations

from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from zoo.models.base import CodecConfig, NetworkCodec, relative_error
from zoo.nn.frame import Frame, frame_widths
from zoo.nn.quantise import straight_through, uniform_codes, uniform_values
from zoo.nn.start import zeroed

SLOPE = 0.3  # of the leaky ReLU


class ScalarConfig(CodecConfig):
    """A latent vector, every element quantised by itself. Rates of the paper: 66, 132, 192 and 258 bits."""

    rate: int = Field(132, ge=1, description="bits of a payload, a multiple of element_bits")
    element_bits: int = Field(6, ge=1, le=16, description="bits of a latent element")
    align: bool = Field(False, description="code each sample's strongest delay and move it to one place")

    @model_validator(mode="after")
    def _whole_elements(self) -> Self:
        own, step = sum(frame_widths(self.delays, self.align, 0)), self.element_bits
        if self.rate - own < step or (self.rate - own) % step:
            below = own + max((self.rate - own) // step, 1) * step
            beside = f", beside the {own} bits of the place" if own else ""
            raise ValueError(
                f"rate {self.rate} is no multiple of element_bits {step}{beside}; nearest: {below}, {below + step}"
            )
        return self

    @property
    def elements(self) -> int:
        """N_cl, length of the latent vector."""
        return (self.rate - sum(frame_widths(self.delays, self.align, 0))) // self.element_bits


def conv(inputs: int, outputs: int, kernel: tuple[int, int] | int) -> nn.Sequential:
    """Convolution that keeps the size, then batch normalisation."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, padding="same", bias=False), nn.BatchNorm2d(outputs))


class ScalarCodec(NetworkCodec[ScalarConfig]):
    """An encoder to a latent in [-1, 1], uniform quantisation of its elements, a decoder with side information."""

    Config = ScalarConfig
    encoder: nn.Module  # image [n, 2, angle, delay] to [n, N_cl]

    def __init__(self, config: ScalarConfig) -> None:
        super().__init__(config)
        self.frame = Frame(config.delays, config.align, 0)

    def decode(self, latent: Tensor, y: Tensor | None) -> Tensor:
        """Image of the target.

        :param latent: [n, N_cl]
        :param y: image of the side information
        """
        raise TypeError(f"{type(self).__name__} defines no decoder")

    @property
    def widths(self) -> tuple[int, ...]:
        return (*self.frame.widths, *(self.config.element_bits,) * self.config.elements)

    def codes(self, x: Tensor) -> Tensor:
        image = self.to_image(x)
        place = self.frame.codes(image)
        latent = self.encoder(self.frame.strip(image, self.frame.read(place))).tanh()
        return torch.cat((place, uniform_codes(latent, self.config.element_bits)), 1)

    def reconstruct(self, codes: Tensor, y: Tensor | None) -> Tensor:
        fields = len(self.frame.widths)
        framing = self.frame.read(codes[:, :fields])
        latent = uniform_values(codes[:, fields:], self.config.element_bits, self.scale.dtype)
        image = self.decode(latent, None if y is None else self.frame.aligned(self.to_image(y), framing))
        return self.from_image(self.frame.put_back(image, framing))

    def loss(
        self, x: Tensor, y: Tensor | None, z: Tensor, draws: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        framing = self.frame.read(self.frame.codes(x))
        x, z = (self.frame.aligned(image, framing) for image in (x, z))
        y = None if y is None else self.frame.aligned(y, framing)
        latent = self.encoder(x).tanh()
        bits = self.config.element_bits
        sent = straight_through(latent, uniform_values(uniform_codes(latent, bits), bits, latent.dtype))
        return relative_error(self.decode(sent, y), z).mean(), {}


class RefineBlock(nn.Module):
    """CsiNet's RefineNet unit; the side information joins what is refined."""

    def __init__(self, side: int) -> None:
        super().__init__()
        leaky = nn.LeakyReLU(SLOPE)
        self.layers = nn.Sequential(conv(2 + side, 8, 3), leaky, conv(8, 16, 3), leaky, conv(16, 2, 3))

    def forward(self, image: Tensor, y: Tensor | None) -> Tensor:
        joined = image if y is None else torch.cat((image, y), 1)
        return nn.functional.leaky_relu(self.layers(joined) + image, SLOPE)


class CsiNet(ScalarCodec):
    """Family ``csinet``: 95 820 parameters at 132 bits with side information."""

    def __init__(self, config: ScalarConfig) -> None:
        super().__init__(config)
        cells = 2 * config.angles * config.delays
        self.encoder = nn.Sequential(
            conv(2, 2, 3), nn.LeakyReLU(SLOPE), nn.Flatten(), nn.Linear(cells, config.elements)
        )
        self.expand = nn.Sequential(
            nn.Linear(config.elements, cells), nn.Unflatten(1, (2, config.angles, config.delays))
        )
        self.refine = nn.ModuleList(RefineBlock(2 * config.side_information) for _ in range(2))
        self.out = zeroed(nn.Conv2d(2, 2, 3, padding=1))

    def decode(self, latent: Tensor, y: Tensor | None) -> Tensor:
        image = self.expand(latent)
        for block in self.refine:
            image = block(image, y)
        return self.out(image).tanh()
