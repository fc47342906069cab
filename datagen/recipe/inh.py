"""Recipe of the indoor office: CSI of users in a room, or unit-power feedback channels."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from datagen.recipe.base import NotNegative, Positive, Recipe

FEEDBACK_DEFAULTS = {"subcarriers": 16, "line_of_sight": "los"}  # that differ where the uplink is simulated


class InHRecipe(Recipe):
    """Indoor hotspot of TR 38.901 §7.5: one BS and users placed uniformly in a room; the defaults are RD-JSCC's geometry.

    X is the downlink CSI of a sample's user, which does not move: there is no side information, and X itself is the target.
    With ``uplink`` the samples are feedback channels H instead, each scaled to unit power an entry.
    """

    REFERENCES: ClassVar[tuple[str, ...]] = (
        "3GPP TR 38.901, Study on channel model for frequencies from 0.5 to 100 GHz, V19.2",
        "S. K. Ankireddy, H. Kim, H. Kim, Residual Diffusion Models for Variable-Rate Joint Source Channel Coding of MIMO CSI",
        "J. Hoydis et al., Sionna: An Open-Source Library for Next-Generation Physical Layer Research, 2022",
    )

    scenario: Literal["inh"] = "inh"
    uplink: bool = Field(
        False, description="unit-power feedback channels H [antenna, subcarrier] in place of downlink CSI X"
    )
    office: Literal["open", "mixed"] = Field("open", description="law of the line of sight: open or mixed office")
    line_of_sight: Literal["los", "nlos", "drawn"] = Field(
        "drawn",
        description="line of sight for all users, for none, or drawn by the office's law; with --uplink by default los",
    )
    carrier_ghz: float = Field(5.4, ge=0.5, le=100, description="carrier [GHz]")
    room_length_m: float = Field(20.0, ge=1, le=10_000, description="length of the room, along x [m]")
    room_width_m: float = Field(20.0, ge=1, le=10_000, description="width of the room, along y [m]")
    bs_x_m: float = Field(0.0, description="BS from the room's centre, along its broadside x [m]")
    bs_y_m: float = Field(0.0, description="BS from the room's centre, along its array y [m]")
    bs_height_m: Positive = Field(3.0, le=1000, description="height of the BS [m]")
    ue_height_m: Positive = Field(1.5, le=1000, description="height of the users [m]")
    minimum_distance_m: NotNegative = Field(0.0, description="least horizontal distance of a user from the BS [m]")
    users_per_drop: int = Field(
        1, ge=1, le=64, description="UEs that are in the room together: consecutive samples with correlated fields"
    )
    antennas: int = Field(
        32,
        ge=1,
        le=1024,
        description="BS antennas, half-wavelength uniform linear array along y, vertical polarisation",
    )
    antenna_pattern: Literal["38.901", "omni"] = Field(
        "omni", description="BS element pattern, towards x; the UE is omnidirectional"
    )
    subcarriers: int = Field(667, ge=1, le=65_536, description="OFDM subcarriers; with --uplink by default 16")
    spacing_khz: Positive = Field(30.0, description="subcarrier spacing [kHz]")
    crop_taps: int = Field(32, ge=1, description="delay taps kept of the angular-delay matrix X")
    keep_band: int = Field(0, ge=0, description="first subcarriers kept as frequency response H beside X; 0 keeps none")
    path_loss: bool = Field(False, description="apply the path loss, so that values are channel gains")
    shadow_fading: bool = Field(False, description="apply the shadow fading")

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        uplink = data.get("uplink") is True
        data = {**(FEEDBACK_DEFAULTS if uplink else {}), **data}
        if not data.get("name") and isinstance(data.get("office", "open"), str):
            data["name"] = f"inh-{data.get('office', 'open')}" + ("-uplink" if uplink else "")
        return data

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.uplink and self.crop_taps > self.subcarriers:
            raise ValueError(
                f"crop_taps {self.crop_taps} is more than the {self.subcarriers} subcarriers; give at most {self.subcarriers}"
            )
        if self.keep_band > self.subcarriers:
            raise ValueError(
                f"keep_band {self.keep_band} is more than the {self.subcarriers} subcarriers; give at most {self.subcarriers}"
            )
        if self.uplink and (self.keep_band or self.path_loss or self.shadow_fading):
            raise ValueError(
                "keep_band, path_loss and shadow_fading have no effect on unit-power feedback channels; leave them out"
            )
        if abs(self.bs_x_m) > self.room_length_m / 2 or abs(self.bs_y_m) > self.room_width_m / 2:
            raise ValueError(
                f"the BS at {self.bs_x_m:g}, {self.bs_y_m:g} m from the centre is outside the room; "
                f"give bs_x_m up to {self.room_length_m / 2:g} and bs_y_m up to {self.room_width_m / 2:g}"
            )
        shorter = min(self.room_length_m, self.room_width_m)
        if self.minimum_distance_m > shorter / 4:
            raise ValueError(
                f"minimum_distance_m {self.minimum_distance_m:g} leaves too little room; give at most {shorter / 4:g}"
            )
        return self

    def shapes(self, split: str) -> dict[str, tuple[int, int]]:
        if self.uplink:
            return {"H": (self.antennas, self.subcarriers)}
        kept = {"H": (self.antennas, self.keep_band)} if self.keep_band else {}
        return {"X": (self.antennas, self.crop_taps), **kept}
