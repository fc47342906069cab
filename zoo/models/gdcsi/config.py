"""Sizes of GD-CSI: the paper's are the defaults."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from zoo.models.base import MultiRateConfig
from zoo.nn.frame import frame_widths
from zoo.nn.unet import Norm

HOMES = {
    "unet": 'backbone = "unet"', "dense": 'backbone = "dense"', "codebook": 'backbone = "dense", encoder = "codebook"',
    "profile": 'backbone = "dense", encoder = "profile"', "law": 'backbone = "dense", encoder = "codebook", prior = "law"',
}  # fmt: skip
APPLICABLE = {  # fields, by what they are of; those that are not here are of all
    "multipliers": {"unet"}, "norm": {"unet"}, "kernel": {"unet"}, "encoder": {"dense"}, "align": {"dense"}, "effort": {"dense"},
    "hidden": {"dense"}, "decoder_blocks": {"dense"}, "encoder_blocks": {"codebook"}, "code_bits": {"codebook"}, "code_size": {"codebook"},
    "energy_bits": {"codebook"}, "taps": {"codebook"}, "profiles": {"profile"}, "shifts": {"profile"},
    "prior": {"codebook"}, "velocities": {"law"}, "clusters": {"law"}, "latents": {"law"}, "side_information_components": {"law"},
    "side_information_snr_db": {"law"},
}  # fmt: skip


class GDCSIConfig(MultiRateConfig):
    """Which networks, which payload, how it is decoded."""

    backbone: Literal["unet", "dense"] = Field(
        "unet", description="networks: the paper's convolutions, or dense layers, which a CPU core trains in minutes"
    )
    encoder: Literal["codebook", "profile"] = Field(
        "codebook",
        description="payload: words of trained codebooks, or that of profile-code with the denoiser behind it",
    )
    prior: Literal["none", "law"] = Field(
        "none",
        description="what the denoiser starts from: nothing, or the conditional mean by the data set's law in closed form",
    )
    target: Literal["x", "z"] = Field("z", description="what is estimated: the UE's own sample, or a later one")
    align: bool = Field(
        False, description="move each sample's strongest delay to one place: coded, or known from the payload"
    )
    energy_bits: int = Field(0, ge=0, le=8, description="of a sample's energy in the payload; 0 leaves it to the codes")
    effort: int = Field(0, ge=0, le=2, description="of the UE in search of its payload, unless it is told another")

    width: int = Field(64, ge=4, description="channels of the U-Net at full size; numbers between dense blocks")
    multipliers: tuple[int, ...] = Field(
        (1, 2, 3, 4), min_length=2, description="U-Net: channels of each scale, times width"
    )
    norm: Norm = Field("element", description="U-Net: layer normalisation over (C, H, W) or over C")
    kernel: int = Field(7, ge=1, description="U-Net: first and last convolution")
    hidden: int = Field(640, ge=1, description="dense: numbers within a block")
    encoder_blocks: int = Field(3, ge=0, description="dense: of the encoder")
    decoder_blocks: int = Field(6, ge=1, description="dense: of the denoiser")
    code_bits: int = Field(8, ge=1, le=12, description="dense: of a code; the last one has what is left")
    code_size: int = Field(8, ge=1, description="dense: length of a word")
    taps: int | None = Field(
        None, ge=1, description="dense: delays that the networks see, from the first; all if not given"
    )
    profiles: int = Field(512, ge=2, le=4096, description="profile: power profiles to choose from")
    shifts: int = Field(8, ge=1, description="profile: delays that one may be moved by, in either direction")

    velocities: int = Field(300, ge=1, description="law: velocities that the decoder considers; as the data set has it")
    clusters: int = Field(24, ge=1, description="law: of the channel model; as the data set has it")
    latents: int = Field(101, ge=1, description="law: of all clusters; as the data set has it")
    side_information_components: int = Field(
        80, ge=1, description="law: principal components of Y that the decoder looks at"
    )
    side_information_snr_db: float = Field(30.0, description="law: SNR of Y that the decoder assumes, as in training")

    steps: int = Field(4, ge=1, le=1000, description="T of the cosine schedule")
    decoding_steps: int = Field(4, ge=1, description="calls of the denoiser, T or fewer")
    objective: Literal["diffusion", "sampler"] = Field(
        "diffusion", description="what training minimises: eq. (7), or the error at the decoder's output"
    )
    codebook_weight: float = Field(
        1e-4, ge=0,
        description="eta of eq. (7) over a sample's energy; the paper's 4.5e-4 goes with samples of energy 3.8. Dense: over the latents' number",
    )  # fmt: skip

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.decoding_steps > self.steps:
            raise ValueError(f"decoding_steps {self.decoding_steps} exceed the {self.steps} of the schedule")
        if self.objective == "diffusion" and self.backbone == "dense" and self.steps == 1:
            raise ValueError('objective = "diffusion" takes at least 2 steps: with one, z_t is noise alone')
        kinds = {"unet"} if self.backbone == "unet" else {"dense", self.encoder}
        if self.prior == "law":
            kinds.add("law")
        for name, homes in APPLICABLE.items():
            if not homes & kinds and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(
                    f"{name} does not apply: it goes with {' or '.join(sorted(HOMES[home] for home in homes))}"
                )
        if self.backbone == "unet":
            self._fits_unet()
        elif self.encoder == "profile":
            self._fits_profile()
        else:
            self._fits_dense()
        if self.effort and not self.searchable:
            raise ValueError(f"effort {self.effort} must be 0: the UE cannot foresee what is made of its payload")
        return self

    def _fits_unet(self) -> None:
        shrink = 2 ** max(len(self.multipliers) - 1, 2)
        if self.angles % shrink or self.delays % shrink:
            raise ValueError(f"angles and delays must be multiples of {shrink}")
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel {self.kernel} must be odd")
        for rate in (self.rate, *self.rates):
            if rate < self.positions or rate % self.positions or rate > 16 * self.positions:
                raise ValueError(f"rate {rate} must be a multiple of {self.positions}, at most {16 * self.positions}")

    def _fits_profile(self) -> None:
        if self.side_information or self.target != "x":
            raise ValueError(
                'encoder = "profile" estimates X by the payload alone: for target = "x" without side information'
            )
        if min(self.shared) < 64:
            raise ValueError(f"rates {self.shared} must be 64 and up")
        if 2 * self.shifts >= self.delays:
            raise ValueError(f"shifts {self.shifts} must be under half of the {self.delays} delays")

    def _fits_dense(self) -> None:
        if self.prior == "law" and (not self.side_information or self.target != "z" or self.frame_bits):
            raise ValueError(
                'prior = "law" estimates Z with side information: for target = "z", without align and energy_bits'
            )
        if self.taps is not None and (self.taps > self.delays or self.align):
            raise ValueError(f"taps {self.taps} must be at most the {self.delays} delays, and all of them with align")
        least = self.frame_bits + self.code_bits
        if min(self.shared) < least:
            raise ValueError(f"rate {min(self.shared)} must be at least {least}: a code beside place and energy")

    @property
    def positions(self) -> int:
        """Count the codes of the U-Net's payload."""
        return self.angles // 4 * (self.delays // 4)

    @property
    def frame_bits(self) -> int:
        """Count the bits of a dense codebook's payload for place and energy."""
        return sum(frame_widths(self.delays, self.align, self.energy_bits))

    @property
    def searchable(self) -> bool:
        """Tell whether the UE has all that its payload's worth depends on."""
        return self.backbone == "dense" and self.target == "x" and not self.side_information
