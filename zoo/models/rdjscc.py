"""RD-JSCC: an autoencoder over the link, and residual diffusion that refines its estimate where that pays.

    x --autoencoder (ADJSCC) over the link--> H^                                              steps = 0 ends here
    z_N = sqrt(alpha-bar_N) H^ + sqrt(1 - alpha-bar_N) eps                                    (5)
    for t = N ... 1:  z = k_t z^_0 + m_t z,  z^_0 = H^ + U-Net(z, H^, t / T);   x^ = z_0       (7)

Source: S. K. Ankireddy, H. Kim and H. Kim, "Residual Diffusion Models for Variable-Rate Joint Source Channel Coding of MIMO CSI";
equation numbers are its. Trained in two stages (Algorithms 1 and 2): the autoencoder first, family ``rd-jscc-ae``; then the U-Net on the
estimates of the autoencoder, which stays as it is.

The paper leaves open, and here: N = 10 of T = 20 (lambda = 0.99; N = T would leave no residual); the U-Net is told z_t and H^ and gives
z_0 - H^ (its last layer starts from zero, so refinement starts from the autoencoder's quality); eps is one image, drawn once and
shipped with the weights, so that decoding is a function; the loss weight is clipped as in GD-CSI. More steps than N, such as the
paper's 20, visit times between the whole ones.

Whether refinement is worth its cost (``steps="auto"``), each sample's receiver tells from k, the SNR and the energies of its symbols, by a
rule that is fitted on validation samples after training.

Family ``gd-jscc`` (``begin = "noise"``, N = T) starts from noise alone, as the paper's Fig. 10 compares.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from zoo.models.adjscc import Autoencoder, AutoencoderJSCC
from zoo.models.base import relative_error
from zoo.models.gdcsi import CLIP, MAX_WEIGHT
from zoo.models.refining import RefiningJSCC
from zoo.models.unetjscc import UNetConfig, shared
from zoo.nn.residual_diffusion import add_residual_noise, alpha_bar_at, refine, residual_weight, visited

STEPS = (0, 100)  # of refinement that a decoder may be asked for


class RDJSCCConfig(UNetConfig):
    """Sizes for COST 2100 are the defaults."""

    steps: int = Field(20, ge=1, le=1000, description="T of the cosine schedule")
    start: int = Field(10, ge=1, description="N, the time at which refinement starts")
    begin: Literal["estimate", "noise"] = Field(
        "estimate", description="z_N of eq. (5), or noise alone, for which N = T is meant"
    )
    decoding_steps: int = Field(2, ge=STEPS[0], le=STEPS[1], description="of the decoder where none are asked for")
    objective: Literal["diffusion", "sampler"] = Field(
        "diffusion", description="what training minimises: eq. (11), or the error after decoding_steps"
    )

    @model_validator(mode="after")
    def _times(self) -> Self:
        if self.start > self.steps:
            raise ValueError(f"start {self.start} exceeds the {self.steps} steps of the schedule")
        if self.objective == "sampler" and self.decoding_steps == 0:
            raise ValueError("objective sampler trains the decoding_steps, of which there are none")
        return self


class RDJSCC(RefiningJSCC[RDJSCCConfig], AutoencoderJSCC[RDJSCCConfig]):
    """Families ``rd-jscc`` and ``gd-jscc``: 152 220 + 118 446 numbers of the autoencoder, 13 905 602 of the U-Net."""

    Config = RDJSCCConfig
    steps = STEPS
    noise: Tensor  # eps of eq. (5), [2, angle, delay]

    def __init__(self, config: RDJSCCConfig) -> None:
        super().__init__(config)
        self.autoencoder = Autoencoder(config).requires_grad_(False)
        self.unet = config.unet(fine=2, timed=True)
        self.register_buffer("noise", torch.randn(2, config.angles, config.delays))
        self.alpha_bar = [self.level(t) for t in range(config.start + 1)]
        self.weight = residual_weight(self.alpha_bar[-1]) if config.begin == "estimate" else 0.0  # lambda
        self.default_steps = config.decoding_steps

    @classmethod
    def first_of(cls, fields: Mapping[str, Any]) -> str:
        return "adjscc"

    def train(self, mode: bool = True) -> Self:
        """The autoencoder stays as it is, its normalisation too."""
        super().train(mode)
        self.autoencoder.eval()
        return self

    def start_from(self, weights: dict[str, Tensor]) -> None:
        if not any(name.startswith("unet.") for name in weights):  # of the first stage
            own = {name: value for name, value in self.state_dict().items() if not name.startswith("autoencoder.")}
            weights = {**own, **weights}
        super().start_from(weights)

    def level(self, time: float) -> float:
        """alpha-bar of a time."""
        return alpha_bar_at(time, self.config.steps)

    def denoise(self, z: Tensor, coarse: Tensor, time: Tensor) -> Tensor:
        """Estimate of z_0.

        :param z: z_t, image
        :param coarse: H^, image
        :param time: t, [n]
        """
        change = self.unet(z, coarse * self.gain, None, time / self.config.steps)
        return coarse + change / self.gain

    def refine(self, coarse: Tensor, steps: int) -> Tensor:
        if steps == 0:
            return coarse
        level = self.alpha_bar[-1]
        start = (1 - level) ** 0.5 * self.noise.to(coarse.dtype).expand_as(coarse)
        if self.config.begin == "estimate":
            start = level**0.5 * coarse + start  # eq. (5)

        def estimate(z: Tensor, t: float) -> Tensor:
            return self.denoise(z, coarse, z.new_full((len(z),), t)).clamp(-CLIP, CLIP)

        return refine(estimate, start, visited(self.config.start, steps), self.level)

    # training ------------------------------------------------------------------------------------------------------------

    def draws(self, n: int, generator: torch.Generator) -> dict[str, Tensor]:
        drawn, config, device = super().draws(n, generator), self.config, generator.device
        if config.objective == "diffusion":
            drawn["time"] = torch.randint(1, config.start + 1, (n,), generator=generator, device=device)
            drawn["noise"] = torch.randn(n, 2, config.angles, config.delays, generator=generator, device=device)
        return drawn

    def loss(
        self, x: Tensor, y: Tensor | None, z: Tensor, draws: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.no_grad():
            coarse = self.coarse(shared(self.received(x, draws), draws["turn"]), draws["snr_db"]).to(x.dtype)
        logs = {"coarse_error": relative_error(coarse, x).mean()}
        if self.config.objective == "sampler":
            return relative_error(self.refine(coarse, self.config.decoding_steps), x).mean(), logs
        levels = torch.tensor(self.alpha_bar, device=x.device)[draws["time"]]
        noisy = add_residual_noise(x, coarse, draws["noise"].to(x.dtype), levels, self.weight)  # eq. (10)
        error = relative_error(self.denoise(noisy, coarse, draws["time"]), x)
        weighted = (levels / (1 - levels)).clamp(max=MAX_WEIGHT) * error  # eq. (11), every sample over its energy
        return weighted.mean(), {**logs, "error": error.mean()}
