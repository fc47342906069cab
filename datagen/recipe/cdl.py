"""Recipe of the clustered delay line triples."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from datagen.recipe.base import Positive, Range, Recipe

Speed = Annotated[float, Field(ge=0, le=10_000)]


class CDLRecipe(Recipe):
    """Triples from the clustered delay line models of TR 38.901 §7.7.1; the defaults are GD-CSI §IV-B.

    X is the downlink at the first of ``slots`` OFDM symbols, Z the downlink and Y the uplink at the last one.
    """

    REFERENCES: ClassVar[tuple[str, ...]] = (
        "H. Kim, T. Lee, H. Kim, G. De Veciana, M. A. Arfaoui, A. Koc, P. Pietraski, G. Zhang, J. Kaewell, "
        "Generative Diffusion Model-based Compression of MIMO CSI",
        "3GPP TR 38.901, Study on channel model for frequencies from 0.5 to 100 GHz, V19.2",
        "J. Hoydis et al., Sionna: An Open-Source Library for Next-Generation Physical Layer Research, 2022",
    )

    scenario: Literal["cdl"] = "cdl"
    model: Literal["A", "B", "C", "D", "E"] = Field("C", description="CDL profile; D and E have a line of sight")
    delay_spread_ns: Positive = Field(300.0, description="RMS delay spread [ns]")
    speed_mps: Range[Speed] = Field(
        (5.0, 5.0), description="UE speed [m/s]: one number, or a range MIN:MAX drawn uniformly per sample"
    )
    velocity: Literal["sionna", "sphere", "horizontal"] = Field(
        "sionna",
        description="law of the UE's direction: azimuth and zenith both uniform (Sionna's), uniform on the sphere, or horizontal",
    )
    downlink_carrier_ghz: Positive = Field(2.11, description="downlink carrier [GHz]")
    uplink_carrier_ghz: Positive = Field(1.91, description="uplink carrier [GHz]")
    antennas: int = Field(
        32, ge=1, le=1024, description="BS antennas, half-wavelength uniform linear array, vertical polarisation"
    )
    antenna_pattern: Literal["38.901", "omni"] = Field(
        "38.901", description="BS element pattern; the UE is omnidirectional"
    )
    subcarriers: int = Field(667, ge=1, le=65_536, description="OFDM subcarriers")
    spacing_khz: Positive = Field(15.0, description="subcarrier spacing [kHz]")
    crop_taps: int = Field(32, ge=1, description="delay taps kept of the angular-delay matrix")
    slots: int = Field(
        71,
        ge=1,
        le=1_000_000,
        description="consecutive OFDM symbols; X is at the first, Y and Z at the last (71 = 5 ms at 15 kHz)",
    )
    uplink: Literal["comb", "independent-phases", "same-coefficients"] = Field(
        "comb", description="how the uplink Y relates to the downlink: see datagen/FORMAT.md"
    )

    @model_validator(mode="before")
    @classmethod
    def _default_name(cls, data: Any) -> Any:
        if isinstance(data, dict) and not data.get("name") and isinstance(data.get("model", "C"), str):
            return {**data, "name": f"cdl-{data.get('model', 'C').lower()}-fdd"}
        return data

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.crop_taps > self.subcarriers:
            raise ValueError(
                f"crop_taps {self.crop_taps} is more than the {self.subcarriers} subcarriers; give at most {self.subcarriers}"
            )
        return self

    def shapes(self, split: str) -> dict[str, tuple[int, int]]:
        names = ("X", "Y") if self.slots == 1 else ("X", "Y", "Z")
        return dict.fromkeys(names, (self.antennas, self.crop_taps))

    @property
    def horizon_s(self) -> float:
        """Time from X to Y and Z [s]: ``slots - 1`` OFDM symbols, 14 to a slot of 1 ms at 15 kHz spacing."""
        return (self.slots - 1) * (1e-3 / 14) * (15.0 / self.spacing_khz)
