"""U-Net-based JSCC: ADJSCC's autoencoder with RD-JSCC's network behind it, trained end to end, without diffusion and time (§V-A).

    x --autoencoder over the link--> H^ [2, 32, 32] -- U-Net --> (+) H^ --> x^

Source: RD-JSCC §V-A and Table V. The U-Net has the published 13.7 M parameters (13 715 842), and 1.25 M at width 32 and two scales.
"""

from __future__ import annotations

from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from zoo.models.adjscc import Autoencoder, AutoencoderConfig, AutoencoderJSCC
from zoo.models.base import relative_error
from zoo.nn.unet import Norm, UNet


class UNetConfig(AutoencoderConfig):
    """Sizes for COST 2100 are the defaults."""

    width: int = Field(64, ge=4, description="channels of the U-Net at full size")
    multipliers: tuple[int, ...] = Field((1, 2, 3, 4), min_length=2, description="channels of each scale, times width")
    norm: Norm = Field("element", description="layer normalisation over (C, H, W) or over C")
    kernel: int = Field(7, ge=1, description="first and last convolution of the U-Net")

    @model_validator(mode="after")
    def _scales(self) -> Self:
        shrink = 2 ** (len(self.multipliers) - 1)
        if self.angles % shrink or self.delays % shrink:
            raise ValueError(f"angles and delays must be multiples of {shrink}")
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel {self.kernel} must be odd")
        return self

    def unet(self, fine: int, timed: bool) -> UNet:
        """The network that refines an image.

        :param fine: channels of context
        """
        return UNet(
            2, fine, 0, width=self.width, multipliers=self.multipliers, size=(self.angles, self.delays), norm=self.norm,
            kernel=self.kernel, timed=timed,
        )  # fmt: skip


class UNetJSCC(AutoencoderJSCC[UNetConfig]):
    """Family ``unet-jscc``. Its one step of refinement cannot be left out: the autoencoder is not trained to stand alone."""

    Config = UNetConfig
    steps = (1, 1)
    default_steps = 1

    def __init__(self, config: UNetConfig) -> None:
        super().__init__(config)
        self.autoencoder = Autoencoder(config)
        self.unet = config.unet(fine=0, timed=False)

    def refine(self, coarse: Tensor, steps: int) -> Tensor:
        return coarse + self.unet(coarse * self.gain) / self.gain

    def loss(
        self, x: Tensor, y: Tensor | None, z: Tensor, draws: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        coarse = self.coarse(shared(self.received(x, draws), draws["turn"]), draws["snr_db"])
        error = relative_error(self.refine(coarse, 1), x).mean()
        return error, {"coarse_error": relative_error(coarse, x).mean()}


def shared(arrived: list[Tensor], turn: Tensor) -> Tensor:
    """A batch of which each sample goes at one rate: from [n, ...] of each rate to [n, ...].

    :param turn: which rate, [n]
    """
    return torch.stack(arrived)[turn, torch.arange(len(turn), device=turn.device)]
