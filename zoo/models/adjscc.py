"""ADJSCC and its kin: a convolutional autoencoder over the link, told the SNR. It is also RD-JSCC's first stage (§III-A).

    x [2, 32, 32] -- conv 11x11 2 -- conv 9x9 32 -- conv 7x7 48 -- conv 5x5 2 -- dense --> 2 k
    s^ [2 k] -- dense --> [2, 32, 32] -- conv 7x7 2 -- five times: conv 11x11 8, 7x7 16, 5x5 2, shortcut -- gate --> x^

Every convolution has batch normalisation, a leaky ReLU (but for the last of a block) and an SNR gate behind it.

With ``linear``, beyond the papers, the convolutions of both ends are added to their input instead of taking its place, symbols pass gates that
see their energies, and training starts from the linear code of :mod:`zoo.models.klt_jscc`: from its error, not from nothing. With ``rows``
the encoder weighs each sample's delay rows, and so chooses those that its symbols are spent on; the decoder is told nothing of it.

Sources: J. Xu et al., "Deep joint source-channel coding for CSI feedback: an end-to-end approach", IEEE JSAC 2023; sizes: RD-JSCC, Tables
I, II, V and VII. The tables leave activations, normalisation and gates open. With a gate and four numbers of normalisation a channel
(gain, bias and the two running moments) behind every convolution, and one gate more at the decoder's end, Table I's encoder has
152 220 numbers at k = 16, Table VII's small one 66 176, and Table II's decoder 134 446; the 118 K that Table V prints take the kernels
11, 7, 5 and channels 8, 16, 2: 118 446. So these are the layers here.

Family ``csinetplus-jscc`` is the same without gates, which knows nothing of the SNR; the layers that meet its published 152 K and 118 K
without them (3, 32, 48, 2 and 8, 18, 2 channels), and those of the large decoders (12 M: ten blocks of 112, 208, 2), are our choice.
"""

from __future__ import annotations

from typing import Self, TypeVar

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from zoo.models.base import energy, relative_error
from zoo.models.csinet import SLOPE
from zoo.models.jscc import TRIAL_SEED, JSCCConfig, NetworkJSCC
from zoo.models.klt_jscc import principal_directions
from zoo.nn.snr_gate import SnrGate
from zoo.uplink import unit_power

LOADING = 0.25  # of a linear code's symbols, see zoo.models.klt_jscc
LINK_SAMPLES = 2048  # that a linear code's receiver is fitted on
LINEAR_PACE = 0.1  # of its learning rate
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
    linear: bool = Field(
        False,
        description="beyond the papers: a linear code beside the convolutions, which training starts from, and gates on symbols",
    )
    rows: bool = Field(
        False, description="beyond the papers: the encoder weighs delay rows by their energies before it makes symbols"
    )

    @model_validator(mode="after")
    def _convolutions(self) -> Self:
        if any(channels < 1 or kernel < 1 or kernel % 2 == 0 for channels, kernel in (*self.encoder, *self.decoder)):
            raise ValueError("channels must be positive and kernels odd")
        if self.decoder[-1][0] != 2:
            raise ValueError("the last convolution of a refine block must have 2 channels")
        if self.linear and self.encoder[-1][0] != 2:
            raise ValueError("beside a linear code the encoder's last convolution must have 2 channels")
        return self

    @property
    def pace(self) -> float:
        """Of the dense layers, which start near their end where they are a linear code."""
        return LINEAR_PACE if self.linear else 1.0


A = TypeVar("A", bound=AutoencoderConfig)


class Dense(nn.Linear):
    """A dense layer that is trained at a pace of its own.

    :param pace: factor of the learning rate
    """

    def __init__(self, inputs: int, outputs: int, pace: float) -> None:
        super().__init__(inputs, outputs)
        self.pace = pace


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


class Stack(nn.Module):
    """Layers one behind the other.

    :param shortcut: they are added to their input, which is all that there is to start with
    """

    def __init__(
        self, layers: Layers, gated: bool, *, last_activated: bool = False, shortcut: bool = False
    ) -> None:  # fmt: skip
        super().__init__()
        widths = [2, *(channels for channels, _ in layers)]
        self.layers = nn.ModuleList(
            Layer(before, after, kernel, gated, last_activated or number < len(layers))
            for number, (before, (after, kernel)) in enumerate(zip(widths, layers, strict=False), 1)
        )
        self.shortcut = shortcut
        if shortcut:
            last = self.layers[-1]
            assert isinstance(last, Layer)
            nn.init.zeros_(last.norm.weight)

    def forward(self, image: Tensor, snr_db: Tensor) -> Tensor:
        features = image
        for layer in self.layers:
            features = layer(features, snr_db)
        return image + features if self.shortcut else features


class Encoder(nn.Module):
    """Image [n, 2, angle, delay] and SNR to the latent, [n, k, 2]."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.layers = Stack(config.encoder, config.gated, last_activated=True, shortcut=config.linear)
        cells = config.encoder[-1][0] * config.angles * config.delays
        self.dense = Dense(cells, 2 * config.longest, config.pace)
        self.gate = SnrGate(config.longest) if config.linear and config.gated else None
        self.row_gate = SnrGate(config.delays) if config.rows else None

    def forward(self, image: Tensor, snr_db: Tensor) -> Tensor:
        features = self.layers(image, snr_db)
        if self.row_gate is not None:
            energies = image.square().mean((1, 2))
            shares = energies / energies.mean(1, keepdim=True).clamp(min=torch.finfo(energies.dtype).tiny)
            features = features * self.row_gate.factors(shares, snr_db)[:, None, None]
        latent = self.dense(features.flatten(1)).unflatten(1, (-1, 2))
        return latent if self.gate is None else weighted(unit_power(latent), self.gate, snr_db)


class Decoder(nn.Module):
    """Received symbols [n, k, 2] and SNR to an image [n, 2, angle, delay]."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.size = (2, config.angles, config.delays)
        self.dense = Dense(2 * config.longest, 2 * config.angles * config.delays, config.pace)
        self.first = Stack(((2, config.decoder_kernel),), config.gated, shortcut=config.linear)
        self.blocks = nn.ModuleList(Stack(config.decoder, config.gated, shortcut=True) for _ in range(config.blocks))
        self.gate = SnrGate(2) if config.gated else None
        self.symbol_gate = SnrGate(config.longest) if config.linear and config.gated else None

    def forward(self, received: Tensor, snr_db: Tensor) -> Tensor:
        image = self.first(self.dense(self.symbols(received, snr_db).flatten(1)).unflatten(1, self.size), snr_db)
        for block in self.blocks:
            image = block(image, snr_db)
        return image if self.gate is None else self.gate(image, snr_db)

    def symbols(self, received: Tensor, snr_db: Tensor) -> Tensor:
        """Received symbols as the dense layer takes them."""
        return received if self.symbol_gate is None else weighted(received, self.symbol_gate, snr_db)


def weighted(symbols: Tensor, gate: SnrGate, snr_db: Tensor) -> Tensor:
    """Symbols [n, k, 2] through a gate that sees their energies: it knows which were sent, and how the sample's power is spread."""
    return symbols * gate.factors(symbols.square().sum(2), snr_db)[:, :, None]


class Autoencoder(nn.Module):
    """Encoder and decoder, images of unit power a cell."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.encoder, self.decoder = Encoder(config), Decoder(config)


class AutoencoderJSCC(NetworkJSCC[A]):
    """A joint source-channel code with an autoencoder at its two ends."""

    autoencoder: Autoencoder

    def prepare(self, x: Tensor) -> None:
        super().prepare(x)
        if self.config.linear:
            self._start_linear(x)

    @torch.no_grad()
    def _start_linear(self, x: Tensor) -> None:
        """Make the code that of principal components, with the estimate of least error over all rates and SNRs of training at once."""
        encoder, decoder, config = self.autoencoder.encoder, self.autoencoder.decoder, self.config
        variances, directions = principal_directions(x, config.longest)
        rows = (directions.conj() * (variances**-LOADING)[:, None]) / (variances ** (1 - 2 * LOADING)).mean().sqrt()
        rows = torch.stack((torch.cat((rows.real, -rows.imag), 1), torch.cat((rows.imag, rows.real), 1)), 1)
        encoder.dense.weight.copy_(rows.flatten(0, 1))
        images = self.to_image(x[:LINK_SAMPLES])
        draws = self.draws(len(images), torch.Generator().manual_seed(TRIAL_SEED))
        cells = (images * self.gain).flatten(1)
        weights = energy(cells).rsqrt()[:, None]
        self.eval()
        symbols = torch.stack([decoder.symbols(part, draws["snr_db"]) for part in self.received(images, draws)])
        self.train()
        known = (symbols.flatten(2) * weights).flatten(0, 1)
        wanted = (cells * weights).repeat(len(config.symbols), 1)
        estimate = torch.linalg.lstsq(known, wanted).solution.T
        decoder.dense.weight.copy_(estimate / (SnrGate.START if config.gated else 1))
        for dense in (encoder.dense, decoder.dense):
            dense.bias.zero_()

    def latent(self, image: Tensor, snr_db: Tensor) -> Tensor:
        return self.autoencoder.encoder(image * self.gain, snr_db)

    def coarse(self, received: Tensor, snr_db: Tensor) -> Tensor:
        """The autoencoder's estimate, as an image; parameters as of :meth:`estimate`."""
        return self.autoencoder.decoder(self.padded(received), snr_db) / self.gain

    def estimate(self, received: Tensor, snr_db: Tensor, steps: int) -> Tensor:
        return self.refine(self.coarse(received, snr_db), steps)

    def refine(self, coarse: Tensor, steps: int) -> Tensor:
        """Refine images of :meth:`coarse`: an autoencoder alone leaves them as they are.

        :param steps: in the range of :attr:`steps`
        """
        return coarse


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
