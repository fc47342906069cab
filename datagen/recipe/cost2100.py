"""Recipe of the COST 2100 sets: every parameter of the model is a field, its defaults those of the scenario chosen."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from datagen.recipe.base import NotNegative, Positive, Range, Recipe

VARIANTS = ("indoor", "outdoor", "outdoor-nlos")  # the columns of the defaults below


Share = Annotated[float, Field(ge=0, le=1)]
Correlation = Annotated[float, Field(gt=-1, lt=1)]


def _by_scenario(
    indoor: Any, outdoor: Any, outdoor_nlos: Any, description: str, matched: dict[str, Any] | None = None
) -> Any:
    """A parameter whose default depends on the scenario: indoor hall at 5.3 GHz, semi-urban at 300 MHz with and without LOS.

    :param matched: what must stand in place of the published value for published CsiNets, trained on the official files, to reach on
        our samples what they reach on those; found by search, judged by benchmarks/csinet_judge.py
    """
    published = dict(zip(VARIANTS, (indoor, outdoor, outdoor_nlos), strict=True))
    return Field(
        outdoor,
        description=description,
        json_schema_extra={"published": published, "matched": {**published, **(matched or {})}},
    )


class COST2100Recipe(Recipe):
    """CSI from the COST 2100 channel model, one base station at the origin, one user a sample; Z = X.

    The parameters are those of the model's publications: indoor hall at 5.3 GHz, semi-urban at 300 MHz. The defaults of
    ``convention = "official"`` follow the data set of C.-K. Wen, W.-T. Shih and S. Jin, "Deep Learning for Massive MIMO CSI Feedback",
    as far as it could be found out (datagen/FORMAT.md), and change those few parameters that have a ``matched`` value.
    """

    REFERENCES: ClassVar[tuple[str, ...]] = (
        "L. Liu et al., The COST 2100 MIMO Channel Model, IEEE Wireless Communications 19(6), 2012",
        "M. Zhu, G. Eriksson, F. Tufvesson, The COST 2100 Channel Model: Parameterization and Validation Based on Outdoor MIMO "
        "Measurements at 300 MHz, IEEE Transactions on Wireless Communications 12(2), 2013",
        "C.-K. Wen, W.-T. Shih, S. Jin, Deep Learning for Massive MIMO CSI Feedback, IEEE Wireless Communications Letters 7(5), 2018",
    )

    scenario: Literal["cost2100"] = "cost2100"
    environment: Literal["outdoor", "indoor"] = Field(
        "outdoor", description="semi-urban at 300 MHz, or indoor hall at 5.3 GHz"
    )
    line_of_sight: Literal["los", "nlos"] = Field("los", description="parameter set; indoors only los is published")
    convention: Literal["official", "physical"] = Field(
        "official",
        description="what a sample is: as in the CsiNet files (arrival angles, FFT and shift over antennas, peak 0.5), or departure "
        "angles, 2-D inverse DFT, unscaled",
    )
    parameters: Literal["matched", "published"] = Field(
        "matched",
        description="defaults of the model: as published but for what published CsiNets say of the official set, or all as published "
        "(physical convention: published)",
    )
    train: int = Field(100_000, ge=0, description="samples in the train split")
    val: int = Field(30_000, ge=0, description="samples in the val split")
    test: int = Field(20_000, ge=0, description="samples in the test split")

    # array, band, users
    antennas: int = Field(32, ge=1, le=1024, description="BS antennas, half-wavelength uniform linear array along x")
    lowest_frequency_mhz: Positive = _by_scenario(5290.0, 275.0, 275.0, "frequency of the first subcarrier [MHz]")
    subcarriers: int = Field(257, ge=1, le=65_536, description="subcarriers (physical convention: 1024)")
    spacing_khz: Positive = Field(78.125, description="subcarrier spacing [kHz] (physical convention: 19.53125)")
    crop_taps: int = Field(32, ge=1, description="delay taps kept of the angular-delay matrix")
    keep_band: int = Field(0, ge=0, description="first subcarriers kept in an array H, for rho and BLER; 0 keeps none")
    ue_x_m: Range[float] = _by_scenario((0.0, 20.0), (80.0, 200.0), (80.0, 200.0), "x of the users, uniform [m]")
    ue_y_m: Range[float] = _by_scenario((0.0, 20.0), (80.0, 200.0), (80.0, 200.0), "y of the users, uniform [m]")
    mirrored_share: Share = _by_scenario(0.0, 0.5, 0.5, "share of the users mirrored to -x, that is in angle")
    users_per_environment: int = Field(
        1, ge=1, description="consecutive users who share one drawing of visibility regions and far clusters"
    )

    # clusters and their visibility
    cell_radius_m: Positive = _by_scenario(30.0, 500.0, 500.0, "radius of the cell, which visibility regions fill [m]")
    visible_clusters: Positive = _by_scenario(
        3.8, 6.0, 6.0, "far clusters visible on average, n_c", matched={"indoor": 2.0, "outdoor": 1.0}
    )
    vr_radius_m: Positive = _by_scenario(2.72, 32.8, 24.5, "radius of a visibility region [m]")
    vr_transition_m: Positive = _by_scenario(1.0, 16.8, 12.2, "width of its transition [m]")
    single_bounce_share: Share = _by_scenario(0.0, 0.1, 0.2, "share of single-bounce among the far clusters")
    paths_per_cluster: int = _by_scenario(3, 27, 48, "multipath components of a cluster")
    local_cluster_bs: bool = _by_scenario(True, False, False, "a local cluster round the base station")
    local_cluster_ue: bool = _by_scenario(True, True, True, "a local cluster round the user")
    cluster_distance_m: Positive = _by_scenario(30.0, 500.0, 500.0, "largest distance from BS to far cluster [m]")
    cluster_azimuth_mean_deg: float = Field(43.0, description="mean azimuth of a cluster about its region [deg]")
    cluster_azimuth_sigma_deg: NotNegative = Field(39.0, description="standard deviation of that azimuth [deg]")
    link_delay_mean_ns: NotNegative = _by_scenario(107.0, 854.0, 1020.0, "mean of a twin cluster's link delay [ns]")
    link_delay_minimum_ns: NotNegative = _by_scenario(33.6, 47.9, 52.4, "least link delay [ns]")

    # cluster power
    attenuation_per_us: NotNegative = _by_scenario(
        16.0, 2.786128, 1.657861, "attenuation of a cluster with excess delay [1/us]"
    )
    cut_off_us: Positive = _by_scenario(1e5, 2.4, 4.2, "delay at which the attenuation stops growing [us]")
    shadow_sigma_db: NotNegative = _by_scenario(0.0, 2.05, 2.27, "shadow fading of a cluster [dB]")

    # cluster extents: median and sigma of a log-normal
    delay_spread_ns: Positive = _by_scenario(
        2.941742, 139.0, 317.0, "median delay spread of a cluster [ns]", matched={"outdoor": 75.0}
    )
    delay_spread_sigma_db: NotNegative = _by_scenario(0.860086, 3.66, 2.5, "its sigma [dB]")
    azimuth_spread_bs_deg: Positive = _by_scenario(
        2.496151, 14.610424, 18.644047, "median azimuth spread seen from the BS [deg]"
    )
    azimuth_spread_bs_sigma_db: NotNegative = _by_scenario(2.633575, 2.43, 2.02, "its sigma [dB]")
    elevation_spread_bs_deg: NotNegative = _by_scenario(
        1.06066, 90.41274, 90.41274, "median elevation spread seen from the BS [deg]"
    )
    elevation_spread_bs_sigma_db: NotNegative = _by_scenario(3.615739, 0.0, 0.0, "its sigma [dB]")
    azimuth_spread_ue_deg: Positive = _by_scenario(
        3.577709, 14.753663, 19.01074, "median azimuth spread seen from the user [deg]"
    )
    azimuth_spread_ue_sigma_db: NotNegative = _by_scenario(2.051523, 2.68, 2.03, "its sigma [dB]")
    elevation_spread_ue_deg: NotNegative = _by_scenario(
        0.707107, 1.578, 1.578, "median elevation spread seen from the user [deg]"
    )
    elevation_spread_ue_sigma_db: NotNegative = _by_scenario(3.615739, 0.0, 0.0, "its sigma [dB]")
    spread_correlation: Correlation = _by_scenario(
        0.0, 0.9, 0.9, "correlation of delay spread and both azimuth spreads, pairwise"
    )
    shadow_correlation: Correlation = _by_scenario(
        0.0, 0.0, -0.1, "correlation of shadow fading with delay spread and both azimuth spreads"
    )

    # all paths
    path_loss: Literal["none", "free-space"] = Field(
        "none",
        description="attenuation common to all paths, by the user's distance; official samples are scaled, and do not show it",
    )

    # line of sight
    los_factor_db: float = _by_scenario(-10.0, -4.7, -4.7, "median power of the LOS over that of all other paths [dB]")
    los_factor_sigma_db: NotNegative = _by_scenario(7.2, 2.0, 2.0, "its sigma [dB]")
    los_cut_off_m: NotNegative = _by_scenario(30.0, 350.0, 0.0, "distance from which on there is no LOS [m]")
    los_vr_radius_m: NotNegative = _by_scenario(
        0.0, 343.0, 0.0, "radius of the visibility region of the LOS [m]; 0: no such region, cut-off only"
    )
    los_vr_transition_m: NotNegative = _by_scenario(0.0, 93.0, 0.0, "width of its transition [m]")

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_scenario(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        environment, sight = data.get("environment", "outdoor"), data.get("line_of_sight", "los")
        variant = f"{environment}-nlos" if sight == "nlos" else environment
        filled: dict[str, Any] = {"name": f"cost2100-{variant}"}
        if data.get("convention") == "physical":
            side = 20.0 if environment == "indoor" else 400.0
            filled |= {"parameters": "published", "subcarriers": 1024, "spacing_khz": 19.53125, "mirrored_share": 0.0}
            filled |= {"ue_x_m": (-side / 2, side / 2), "ue_y_m": (-side / 2, side / 2)}
        source = data.get("parameters", filled.get("parameters", "matched"))
        for name, field in cls.model_fields.items():
            if isinstance(field.json_schema_extra, dict) and name not in filled:
                defaults: Any = field.json_schema_extra.get(source, {})
                filled |= {name: defaults[variant]} if variant in defaults else {}
        return {**filled, **{key: value for key, value in data.items() if not (key == "name" and not value)}}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.environment == "indoor" and self.line_of_sight == "nlos":
            raise ValueError("no indoor parameter set without line of sight is published; give --line-of-sight los")
        for what, size in (("crop_taps", self.crop_taps), ("keep_band", self.keep_band)):
            if size > self.subcarriers:
                raise ValueError(
                    f"{what} {size} is more than the {self.subcarriers} subcarriers; give at most {self.subcarriers}"
                )
        if self.vr_transition_m >= self.vr_radius_m:
            raise ValueError(
                f"vr_transition_m {self.vr_transition_m:g} is not less than vr_radius_m {self.vr_radius_m:g}; give less"
            )
        if self.vr_radius_m > self.cell_radius_m:
            raise ValueError(
                f"vr_radius_m {self.vr_radius_m:g} is more than cell_radius_m {self.cell_radius_m:g}; give less"
            )
        if min(np.linalg.eigvalsh(self.correlation)) <= 0:
            raise ValueError(
                f"spread_correlation {self.spread_correlation:g} with shadow_correlation {self.shadow_correlation:g} is no correlation "
                "of random numbers; give values nearer 0"
            )
        return self

    def shapes(self, split: str) -> dict[str, tuple[int, int]]:
        band = {"H": (self.antennas, self.keep_band)} if self.keep_band else {}
        return {"X": (self.antennas, self.crop_taps), **band}

    @property
    def correlation(self) -> NDArray[np.float64]:
        """Correlation of a cluster's shadow fading, delay spread, and elevation and azimuth spread at BS and UE, [6, 6]."""
        matrix = np.eye(6)
        spreads = np.array([1, 3, 5])  # delay, azimuth at the BS, azimuth at the UE
        matrix[np.ix_(spreads, spreads)] = self.spread_correlation
        matrix[0, spreads] = matrix[spreads, 0] = self.shadow_correlation
        np.fill_diagonal(matrix, 1)
        return matrix

    @property
    def visibility_regions(self) -> int:
        """Visibility regions in the cell: as many as show n_c clusters to a user whom their full visibility counts."""
        full = self.vr_radius_m - self.vr_transition_m
        return max(1, round(self.visible_clusters * (self.cell_radius_m / full) ** 2))
