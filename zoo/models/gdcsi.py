"""GD-CSI: vector quantisation at the UE, a diffusion decoder with side information at the base station.

    x [2, 32, 32] -- unit, down -- unit -- down(rate) --> [2w, 8, 8] -- nearest of 2^(B/64) words --> 64 codes
    codes -- words(rate) -- unit(rate) -- up --> coarse [w, 16, 16] -- unit -- up --> [8, 32, 32] (+) y --> fine
    z_T = 0;  for t = T ... 1:  z_{t-1} = DDIM(z_t, U-Net(z_t, fine, coarse, t / T));  z^ = z_0

Source: H. Kim et al., "Generative Diffusion Model-based Compression of MIMO CSI" (GD-CSI); equation numbers are its.

Beyond the paper: several rates may share everything but the parts marked (rate), each with its own embedding beside the time's.
"""

from __future__ import annotations

from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from zoo.models.base import MultiRate, MultiRateConfig, NetworkCodec, energy, relative_error
from zoo.nn.diffusion import add_noise, cosine_alpha_bar, sample
from zoo.nn.quantise import Codebook
from zoo.nn.unet import Down, Norm, UNet, Unit, Up

FINE = 8  # channels of the context at full size
MAX_WEIGHT = 5.0  # of a time in the loss
CLIP = 1.0  # estimates inside the sampler, in units of `scale`


class GDCSIConfig(MultiRateConfig):
    """Sizes of the paper are the defaults."""

    width: int = Field(64, ge=4, description="channels of the U-Net at full size and of the encoder's first unit")
    multipliers: tuple[int, ...] = Field((1, 2, 3, 4), min_length=2, description="channels of each scale, times width")
    norm: Norm = Field("element", description="layer normalisation over (C, H, W) or over C")
    kernel: int = Field(7, ge=1, description="first and last convolution of the U-Net")
    steps: int = Field(4, ge=1, le=1000, description="T of the cosine schedule")
    decoding_steps: int = Field(4, ge=1, description="U-Net calls of the decoder, T or fewer")
    objective: Literal["diffusion", "sampler"] = Field(
        "diffusion", description="what training minimises: eq. (7), or the error at the decoder's output"
    )
    codebook_weight: float = Field(
        1e-4,
        ge=0,
        description="eta of eq. (7) over a sample's energy; the paper's 4.5e-4 goes with samples of energy 3.8",
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        shrink = 2 ** max(len(self.multipliers) - 1, 2)
        if self.angles % shrink or self.delays % shrink:
            raise ValueError(f"angles and delays must be multiples of {shrink}")
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel {self.kernel} must be odd")
        if self.decoding_steps > self.steps:
            raise ValueError(f"decoding_steps {self.decoding_steps} exceed the {self.steps} of the schedule")
        for rate in (self.rate, *self.rates):
            if rate < self.positions or rate % self.positions or rate > 16 * self.positions:
                raise ValueError(f"rate {rate} must be a multiple of {self.positions}, at most {16 * self.positions}")
        return self

    @property
    def positions(self) -> int:
        """Codes of a payload."""
        return self.angles // 4 * (self.delays // 4)


class Rate(nn.Module):
    """What a rate has for itself: the encoder's last layer, its codebook, the context decoder's first unit."""

    def __init__(self, rate: int, config: GDCSIConfig) -> None:
        super().__init__()
        wide, size = 2 * config.width, (config.angles // 4, config.delays // 4)
        self.down = Down(wide)
        self.codebook = Codebook(2 ** (rate // config.positions), wide)
        self.unit = Unit(wide, config.width, size, config.norm)


class GDCSI(MultiRate[GDCSIConfig], NetworkCodec[GDCSIConfig]):
    """Families ``gd-csi`` (one rate) and ``gd-csi-multirate``. 15.19 M parameters at the default sizes without side information."""

    Config = GDCSIConfig
    gain: Tensor  # what makes X and Y of unit power a cell where they enter; z keeps the scale that the noise is measured on

    def __init__(self, config: GDCSIConfig) -> None:
        super().__init__(config)
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
        self.alpha_bar = cosine_alpha_bar(config.steps)

    def prepare(self, x: Tensor) -> None:
        super().prepare(x)
        self.gain.copy_(self.to_image(x).square().mean().rsqrt())

    def to_input(self, x: Tensor) -> Tensor:
        """CSI as the encoder and the context take it: unit power a cell, or convolutions would see little but their biases."""
        return self.to_image(x) * self.gain

    # UE ------------------------------------------------------------------------------------------------------------------

    @property
    def widths(self) -> tuple[int, ...]:
        return (self.config.rate // self.config.positions,) * self.config.positions

    def codes(self, x: Tensor) -> Tensor:
        part = self._part(self.config.rate)
        latent = part.down(self.encoder(self.to_input(x)))
        return part.codebook.codes(latent.permute(0, 2, 3, 1)).flatten(1)

    # base station --------------------------------------------------------------------------------------------------------

    def reconstruct(self, codes: Tensor, y: Tensor | None) -> Tensor:
        size = (self.config.angles // 4, self.config.delays // 4)
        part = self._part(self.config.rate)
        words = part.codebook(codes.view(-1, *size)).permute(0, 3, 1, 2)
        fine, coarse = self.context(part.unit(words), None if y is None else self.to_input(y))
        return self.from_image(self.decode(fine, coarse, self._shift(self.config.rate, len(codes))))

    def context(self, hidden: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        """Context maps from a rate's first unit [n, w, 8, 8]: fine [n, 8 (+ 2), 32, 32], coarse [n, w, 16, 16]."""
        coarse = self.coarse(hidden)
        fine = self.fine(coarse)
        return (fine if y is None else torch.cat((fine, y), 1)), coarse

    def decode(self, fine: Tensor, coarse: Tensor, shift: Tensor | None) -> Tensor:
        """The backward process, eq. (6), from z_T = 0."""

        def denoise(z: Tensor, t: int) -> Tensor:
            time = z.new_full((len(z),), t / self.config.steps)
            return self.unet(z, fine, coarse, time, shift).clamp(-CLIP, CLIP)

        start = torch.zeros(len(fine), 2, *fine.shape[2:], dtype=fine.dtype, device=fine.device)
        return sample(denoise, start, self.alpha_bar, self.config.decoding_steps)

    def _part(self, rate: int) -> Rate:
        part = self.rates[str(rate)]
        assert isinstance(part, Rate)
        return part

    def _shift(self, rate: int, n: int) -> Tensor | None:
        return None if self.embedding is None else self.embedding.weight[self.config.shared.index(rate)].expand(n, -1)

    # training ------------------------------------------------------------------------------------------------------------

    def draws(self, n: int, generator: torch.Generator) -> dict[str, Tensor]:
        if self.config.objective == "sampler":
            return {}
        device, config = generator.device, self.config
        return {
            "time": torch.randint(1, config.steps + 1, (n,), generator=generator, device=device),
            "noise": torch.randn(n, 2, config.angles, config.delays, generator=generator, device=device),
        }

    def loss(
        self, x: Tensor, y: Tensor | None, z: Tensor, draws: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        trunk = self.encoder(x * self.gain)
        # Each rate gets an equal share of the batch, and the shares go through the shared parts together.
        hidden, shifts, losses = [], [], []
        for rate, share in zip(self.config.shared, trunk.tensor_split(len(self.config.shared)), strict=True):
            part = self._part(rate)
            words, cost = part.codebook.quantise(part.down(share).permute(0, 2, 3, 1))
            hidden.append(part.unit(words.permute(0, 3, 1, 2)))
            shifts.append(self._shift(rate, len(share)))
            losses.append(cost)
        fine, coarse = self.context(torch.cat(hidden), None if y is None else y * self.gain)
        shift = None if self.embedding is None else torch.cat([row for row in shifts if row is not None])
        codebook = torch.cat(losses) / energy(z)
        if self.config.objective == "sampler":
            error = relative_error(self.decode(fine, coarse, shift), z)
        else:
            level = torch.tensor(self.alpha_bar, device=z.device)[draws["time"]]
            noisy = add_noise(z, draws["noise"].to(z.dtype), level)
            clean = self.unet(noisy, fine, coarse, draws["time"] / self.config.steps, shift)
            error = (level / (1 - level)).clamp(max=MAX_WEIGHT) * relative_error(clean, z)
        loss = (error + self.config.codebook_weight * codebook).mean()  # eq. (7), every sample over its energy
        return loss, {"error": error.mean(), "codebook": codebook.mean()}

    def _weights_of(self, rate: int) -> dict[str, Tensor]:
        weights = {
            name: value
            for name, value in self.state_dict().items()
            if name != "embedding.weight" and not (name.startswith("rates.") and not name.startswith(f"rates.{rate}."))
        }
        if self.embedding is not None:  # the rate's embedding is a constant beside the time's: part of its last bias
            weights["unet.time.2.bias"] = weights["unet.time.2.bias"] + self._shift(rate, 1)[0]  # type: ignore[index]
        return weights
