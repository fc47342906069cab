"""GD-CSI: vector quantisation at the UE, a diffusion decoder with side information at the base station.

    x -- encoder --> payload of exactly `rate` bits
    payload, y --> context;  z_T = 0;  for t = T ... 1:  z_{t-1} = DDIM(z_t, denoiser(z_t, context, t / T));  z^ = z_0

Source: H. Kim et al., "Generative Diffusion Model-based Compression of MIMO CSI" (GD-CSI); equation numbers are its.

The networks are one of four backbones: the paper's convolutions (:mod:`zoo.models.gdcsi.unet`), dense layers round trained codebooks
(:mod:`zoo.models.gdcsi.dense`), the same round the data set's law (:mod:`zoo.models.gdcsi.law`), or a dense denoiser behind the payload of
profile-code (:mod:`zoo.models.gdcsi.profile`). Beyond the paper, several rates may share what they have in common, and a UE whose own sample is estimated may improve its payload through the decoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo.models.base import MultiRate, NetworkCodec, relative_error
from zoo.models.gdcsi.backbone import Backbone, turned
from zoo.models.gdcsi.config import GDCSIConfig
from zoo.models.gdcsi.dense import DenseBackbone
from zoo.models.gdcsi.law import LawBackbone, sizes
from zoo.models.gdcsi.profile import ProfileBackbone
from zoo.models.gdcsi.unet import UNetBackbone
from zoo.nn.diffusion import add_noise, cosine_alpha_bar, sample

if TYPE_CHECKING:
    from zoo.config import Training
    from zoo.data import Source

MAX_WEIGHT = 5.0  # of a time in the loss
EFFORTS = 3  # of a UE that may search: none, some, more


def backbone(config: GDCSIConfig) -> Backbone:
    """Build the networks that a config asks for."""
    if config.backbone == "unet":
        return UNetBackbone(config)
    if config.encoder == "profile":
        return ProfileBackbone(config)
    return LawBackbone(config) if config.prior == "law" else DenseBackbone(config)


class GDCSI(MultiRate[GDCSIConfig], NetworkCodec[GDCSIConfig]):
    """Families ``gd-csi`` (dense) and ``gd-csi-paper`` (15.19 M parameters at the default sizes without side information)."""

    Config = GDCSIConfig

    def __init__(self, config: GDCSIConfig) -> None:
        super().__init__(config)
        self.net = backbone(config)
        self.alpha_bar = cosine_alpha_bar(config.steps)

    @classmethod
    def about(cls, fields: Mapping[str, Any]) -> str:
        paper = "GD-CSI: a payload of fixed length at the phone, conditional denoising at the base station (H. Kim et al.). "
        if fields.get("backbone", "unet") == "unet":
            return paper + "The paper's own networks: a codebook by position, a U-Net as the denoiser."
        kept = "The paper's algorithm and sampler, but not its networks: dense layers over the whole sample, which a CPU core trains. "
        if fields.get("encoder") == "profile":
            return (
                paper
                + kept
                + "The payload is that of the classical profile-code; the denoiser starts from its estimate."
            )
        codes = paper + kept + "Codes are words of trained codebooks, one a code."
        if fields.get("prior") == "law":
            return (
                codes + " The denoiser starts from the conditional mean by the data set's own law, which is built in."
            )
        return codes

    def prepare(self, x: Tensor) -> None:
        super().prepare(x)
        self.scale.copy_(torch.exp2(self.scale.log2().ceil()))  # a power of two: dividing by it is exact
        self.net.prepare(self.to_image(x))

    @classmethod
    def settled(cls, fields: Mapping[str, Any], source: Source, training: Training) -> dict[str, Any]:
        if fields.get("prior") != "law":
            return {}
        if training.side_information_snr_db is None:
            raise ZooError(
                "an estimate by a law from Y without noise means nothing; give training.side_information_snr_db in dB"
            )
        return {"side_information_snr_db": training.side_information_snr_db, **sizes(source.statistics())}

    def know(self, source: Source) -> None:
        if isinstance(self.net, LawBackbone):
            self.net.know(source.statistics(), float(self.scale))

    @classmethod
    def first_of(cls, fields: Mapping[str, Any]) -> str | None:
        return "profile-code" if fields.get("encoder") == "profile" else None

    def start_from(self, weights: dict[str, Tensor]) -> None:
        if isinstance(self.net, ProfileBackbone) and not any(name.startswith("net.") for name in weights):
            self.net.code.load_state_dict(weights)  # of the first stage
            self.net.code.scale.div_(
                self.scale
            )  # it is given images from here on; a power of two leaves payloads as they are
        else:
            super().start_from(weights)

    # UE ------------------------------------------------------------------------------------------------------------------

    @property
    def at_once(self) -> int:
        return self.net.at_once or super().at_once

    @property
    def widths(self) -> tuple[int, ...]:
        return self.net.widths(self.config.rate)

    @property
    def efforts(self) -> int:
        return EFFORTS if self.config.searchable else 1

    @property
    def default_effort(self) -> int:
        return self.config.effort

    def codes(self, x: Tensor) -> Tensor:
        return self.net.codes(self.to_image(x), self.config.rate)

    def searched_codes(self, x: Tensor, effort: int) -> Tensor:
        return self.net.search(self.to_image(x), self.config.rate, effort, self.decode)

    # base station --------------------------------------------------------------------------------------------------------

    def reconstruct(self, codes: Tensor, y: Tensor | None) -> Tensor:
        context = self.net.context(codes, None if y is None else self.to_image(y), self.config.rate)
        return self.from_image(self.decode(context, len(codes)))

    def decode(self, context: Any, n: int) -> Tensor:
        """Run the backward process, eq. (6), from z_T = 0: images [n, 2, angle, delay]."""

        def denoise(z: Tensor, t: int) -> Tensor:
            return self.net.denoise(z, context, z.new_full((n,), t / self.config.steps))

        start = torch.zeros(n, 2, self.config.angles, self.config.delays, dtype=self.scale.dtype, device=self.device)
        return self.net.image(sample(denoise, start, self.alpha_bar, self.config.decoding_steps), context)

    # training ------------------------------------------------------------------------------------------------------------

    def draws(self, n: int, generator: torch.Generator) -> dict[str, Tensor]:
        device, config = generator.device, self.config
        drawn = {}
        if config.backbone == "dense":
            drawn["phase"] = 2 * torch.pi * torch.rand(n, generator=generator, device=device)
        if config.objective == "diffusion":
            drawn["time"] = torch.randint(1, config.steps + 1, (n,), generator=generator, device=device)
            drawn["noise"] = torch.randn(n, 2, config.angles, config.delays, generator=generator, device=device)
        return drawn

    def observe(self, x: Tensor, start: int) -> dict[str, Tensor]:
        return self.net.observe(self.to_image(x), start)

    def tend(self, generator: torch.Generator) -> None:
        self.net.tend(generator)

    def loss(
        self, x: Tensor, y: Tensor | None, z: Tensor, draws: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        if "phase" in draws:
            draws = {**draws, "phase": self.net.allowed(draws["phase"])}
            x, z = turned(x, draws["phase"]), turned(z, draws["phase"])
            y = None if y is None else turned(y, draws["phase"])
        context, codebook, number = self.net.quantise(x, y, draws)
        if self.config.objective == "sampler":
            error = relative_error(self.decode(context, len(z)), z)
        else:
            level = torch.tensor(self.alpha_bar, device=z.device)[draws["time"]]
            noisy = add_noise(self.net.hidden(z, context), draws["noise"].to(z.dtype), level)
            clean = self.net.image(self.net.denoise(noisy, context, draws["time"] / self.config.steps), context)
            error = (level / (1 - level)).clamp(max=MAX_WEIGHT) * relative_error(clean, z)
        fit = _mean_of_rates(error, number, len(self.config.shared)) if self.config.backbone == "dense" else error
        loss = (fit + self.config.codebook_weight * codebook).mean()  # eq. (7), every sample over its energy
        return loss, {"error": error.mean(), "codebook": codebook.mean()}

    def _weights_of(self, rate: int) -> dict[str, Tensor]:
        net = {f"net.{name}": value for name, value in self.net.weights_of(rate).items()}
        return {"scale": self.scale, **net}


def _mean_of_rates(error: Tensor, number: Tensor, rates: int) -> Tensor:
    """Average errors over the rates, each over its own size, so that the finest counts like the coarsest; the value is the mean error.

    :param error: [n]
    :param number: which of the rates each sample has, [n]
    """
    total = torch.zeros(rates, device=error.device).index_add_(0, number, error)
    members = torch.bincount(number, minlength=rates)
    mean, present = total / members.clamp(min=1), members > 0
    weight = mean.detach().clamp(min=1e-6)
    return (mean / weight)[present].mean() * weight[present].mean()
