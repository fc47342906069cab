"""ADJSCC and its kin: a convolutional autoencoder over the link, told the SNR. It is also RD-JSCC's first stage (§III-A).

    x [2, 32, 32] -- conv 11x11 2 -- conv 9x9 32 -- conv 7x7 48 -- conv 5x5 2 -- dense --> 2 k
    s^ [2 k] -- dense --> [2, 32, 32] -- conv 7x7 2 -- five times: conv 11x11 8, 7x7 16, 5x5 2, shortcut -- gate --> x^

Every convolution has batch normalisation, a leaky ReLU (but for the last of a block) and an SNR gate behind it.

Sources: J. Xu et al., "Deep joint source-channel coding for CSI feedback: an end-to-end approach", IEEE JSAC 2023; sizes: RD-JSCC, Tables
I, II, V and VII. The tables leave activations, normalisation and gates open. With a gate and four numbers of normalisation a channel
(gain, bias and the two running moments) behind every convolution, and one gate more at the decoder's end, Table I's encoder has
152 220 numbers at k = 16, Table VII's small one 66 176, and Table II's decoder 134 446; the 118 K that Table V prints take the kernels
11, 7, 5 and channels 8, 16, 2: 118 446. So these are the layers here.

Family ``csinetplus-jscc`` is the same without gates, which knows nothing of the SNR; the layers that meet its published 152 K and 118 K
without them (3, 32, 48, 2 and 8, 18, 2 channels), and those of the large decoders (12 M: ten blocks of 112, 208, 2), are our choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from zoo.models.base import relative_error
from zoo.models.csinet import SLOPE
from zoo.models.jscc import JSCC, J, JSCCConfig
from zoo.nn.snr_gate import SnrGate

Layers = tuple[tuple[int, int], ...]  # (channels, kernel) of each convolution


class AutoencoderConfig(JSCCConfig):
    """Sizes of the paper are the defaults."""

    encoder: Layers = Field(
        ((2, 11), (32, 9), (48, 7), (2, 5)), min_length=1, description="(channels, kernel) of each convolution"
    )
    decoder: Layers = Field(
        ((8, 11), (16, 7), (2, 5)), min_length=1, description="of each refine block; the last has 2 channels"
    )
    decoder_kernel: int = Field(7, ge=1, description="of the decoder's first convolution")
    blocks: int = Field(5, ge=0, description="refine blocks of the decoder")
    gated: bool = Field(True, description="SNR gates")

    @model_validator(mode="after")
    def _convolutions(self) -> Self:
        if any(channels < 1 or kernel < 1 or kernel % 2 == 0 for channels, kernel in (*self.encoder, *self.decoder)):
            raise ValueError("channels must be positive and kernels odd")
        if self.decoder[-1][0] != 2:
            raise ValueError("the last convolution of a refine block must have 2 channels")
        return self


class Layer(nn.Module):
    """Convolution that keeps the size, batch normalisation, leaky ReLU, SNR gate."""

    def __init__(self, inputs: int, outputs: int, kernel: int, gated: bool, activated: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
        self.norm = nn.BatchNorm2d(outputs)
        self.activation = nn.LeakyReLU(SLOPE) if activated else nn.Identity()
        self.gate = SnrGate(outputs) if gated else None

    def forward(self, features: Tensor, snr_db: Tensor) -> Tensor:
        features = self.activation(self.norm(self.conv(features)))
        return features if self.gate is None else self.gate(features, snr_db)


class RefineBlock(nn.Module):
    """Layers added to their input."""

    def __init__(self, layers: Layers, gated: bool) -> None:
        super().__init__()
        self.layers = stack(2, layers, gated, last_activated=False)
        last = self.layers[-1]
        assert isinstance(last, Layer)
        nn.init.zeros_(last.norm.weight)  # a block starts as nothing but its shortcut

    def forward(self, image: Tensor, snr_db: Tensor) -> Tensor:
        return image + through(self.layers, image, snr_db)


def stack(inputs: int, layers: Layers, gated: bool, last_activated: bool = True) -> nn.ModuleList:
    """Layers one behind the other."""
    widths = [inputs, *(channels for channels, _ in layers)]
    return nn.ModuleList(
        Layer(before, after, kernel, gated, last_activated or number < len(layers))
        for number, (before, (after, kernel)) in enumerate(zip(widths, layers, strict=False), 1)
    )


def through(layers: Sequence[nn.Module] | nn.ModuleList, features: Tensor, snr_db: Tensor) -> Tensor:
    """Features through layers that are told the SNR."""
    for layer in layers:
        features = layer(features, snr_db)
    return features


class Encoder(nn.Module):
    """Image [n, 2, angle, delay] and SNR to the latent, [n, k, 2]."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.layers = stack(2, config.encoder, config.gated)
        cells = config.encoder[-1][0] * config.angles * config.delays
        self.dense = nn.Linear(cells, 2 * config.longest)

    def forward(self, image: Tensor, snr_db: Tensor) -> Tensor:
        latent = self.dense(through(self.layers, image, snr_db).flatten(1))
        return latent.unflatten(1, (-1, 2))


class Decoder(nn.Module):
    """Received symbols [n, k, 2] and SNR to an image [n, 2, angle, delay]."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.size = (2, config.angles, config.delays)
        self.dense = nn.Linear(2 * config.longest, 2 * config.angles * config.delays)
        self.first = Layer(2, 2, config.decoder_kernel, config.gated, activated=False)
        self.blocks = nn.ModuleList(RefineBlock(config.decoder, config.gated) for _ in range(config.blocks))
        self.gate = SnrGate(2) if config.gated else None

    def forward(self, received: Tensor, snr_db: Tensor) -> Tensor:
        image = through(
            self.blocks, self.first(self.dense(received.flatten(1)).unflatten(1, self.size), snr_db), snr_db
        )
        return image if self.gate is None else self.gate(image, snr_db)


class Autoencoder(nn.Module):
    """Encoder and decoder, images of unit power a cell."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.encoder, self.decoder = Encoder(config), Decoder(config)


class AutoencoderJSCC(JSCC[J]):
    """A joint source-channel code with an autoencoder at its two ends."""

    autoencoder: Autoencoder

    def latent(self, image: Tensor, snr_db: Tensor) -> Tensor:
        return self.autoencoder.encoder(image * self.gain, snr_db)

    def coarse(self, received: Tensor, snr_db: Tensor) -> Tensor:
        return self.autoencoder.decoder(received, snr_db) / self.gain


class ADJSCC(AutoencoderJSCC[AutoencoderConfig]):
    """Families ``adjscc``, ``csinetplus-jscc`` and ``rd-jscc-ae``: the autoencoder alone."""

    Config = AutoencoderConfig

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__(config)
        self.autoencoder = Autoencoder(config)

    def loss(
        self, x: Tensor, y: Tensor | None, z: Tensor, draws: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        arrived = self.received(
            x, draws
        )  # all rates go through the decoder together: its normalisation sees their mixture
        rates = len(arrived)
        estimates = self.coarse(torch.cat(arrived), draws["snr_db"].repeat(rates))
        errors = relative_error(estimates, x.repeat(rates, 1, 1, 1)).view(rates, -1).mean(1)
        logs = {f"error_k{k}": error for k, error in zip(self.config.symbols, errors.unbind(), strict=True)}
        return errors.sum(), logs  # eq. (12), every sample over its energy
