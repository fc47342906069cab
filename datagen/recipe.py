"""Typed recipes: what to simulate, nothing about where or how fast. Units stand in the field names.

A recipe fixes every sample: (recipe, split, index) determines X, Y and Z. Where the data lie, how many workers made them and
which engine computed them are not part of it.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from datagen.errors import DatagenError

SPLITS = ("train", "val", "test")


class Recipe(BaseModel):
    """What every scenario's recipe has: a name, a version, sizes and a seed."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    scenario: str
    name: str = Field("", pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", description="name of the data set, <source>-<scenario>")
    dataset_version: int = Field(1, ge=1, description="version of the data set, 1 up: raise it when any sample changes")
    seed: int = Field(0, ge=0, lt=2**64, description="seed of all random draws")
    train: int = Field(100_000, ge=0, description="samples in the train split")
    val: int = Field(10_000, ge=0, description="samples in the val split")
    test: int = Field(20_000, ge=0, description="samples in the test split")

    @model_validator(mode="after")
    def _has_samples(self) -> Self:
        if not any(self.splits.values()):
            raise ValueError("train, val and test are all 0; give at least one of them samples")
        return self

    @property
    def splits(self) -> dict[str, int]:
        """Samples of each split, the empty ones left out."""
        return {split: n for split in SPLITS if (n := getattr(self, split)) > 0}

    @property
    def sample_shape(self) -> tuple[int, int]:
        """Shape of one sample, (angle, delay)."""
        raise NotImplementedError(f"{type(self).__name__} has no sample shape")

    @property
    def arrays(self) -> tuple[str, ...]:
        """Arrays of a triple that a store holds: Y only with side information, Z only where it differs from X."""
        raise NotImplementedError(f"{type(self).__name__} names no arrays")

    @property
    def digest(self) -> str:
        """``sha256:`` and the SHA-256 of the recipe as canonical JSON (sorted keys, no spaces)."""
        return canonical_digest(self.model_dump(mode="json"))

    @property
    def label(self) -> str:
        """Name and version as the released manifests are called, e.g. ``cdl-c-fdd-v1``."""
        return f"{self.name}-v{self.dataset_version}"


def _speed_range(value: object) -> object:
    if isinstance(value, int | float) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):  # an integer of hundreds of digits
            return (float(value), float(value))
    if isinstance(value, list):
        return tuple(value)
    return value


Positive = Annotated[float, Field(gt=0)]
Speed = Annotated[float, Field(ge=0, le=10_000)]


class CDLRecipe(Recipe):
    """Triples from the clustered delay line models of TR 38.901 §7.7.1; the defaults are GD-CSI §IV-B.

    X is the downlink at the first of ``slots`` OFDM symbols, Z the downlink and Y the uplink at the last one.
    """

    SPEED_OF_LIGHT_MPS: ClassVar[float] = 299_792_458.0

    scenario: Literal["cdl"] = "cdl"
    model: Literal["A", "B", "C", "D", "E"] = Field("C", description="CDL profile; D and E have a line of sight")
    delay_spread_ns: Positive = Field(300.0, description="RMS delay spread [ns]")
    speed_mps: Annotated[tuple[Speed, Speed], BeforeValidator(_speed_range)] = Field(
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
        low, high = self.speed_mps
        if low > high:
            raise ValueError(f"speed_mps {low:g}:{high:g} runs backwards; give MIN:MAX with MIN <= MAX")
        return self

    @property
    def sample_shape(self) -> tuple[int, int]:
        return (self.antennas, self.crop_taps)

    @property
    def arrays(self) -> tuple[str, ...]:
        return ("X", "Y") if self.slots == 1 else ("X", "Y", "Z")

    @property
    def horizon_s(self) -> float:
        """Time from X to Y and Z [s]: ``slots - 1`` OFDM symbols, 14 to a slot of 1 ms at 15 kHz spacing."""
        return (self.slots - 1) * (1e-3 / 14) * (15.0 / self.spacing_khz)


RECIPES: dict[str, type[Recipe]] = {"cdl": CDLRecipe}


def canonical_digest(value: object) -> str:
    """``sha256:`` and the SHA-256 of a JSON value written with sorted keys and no spaces."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def parse(data: object, source: str = "recipe") -> Recipe:
    """A recipe from a mapping, as read from TOML, JSON or the command line.

    :param data: field names and values; ``scenario`` chooses the kind
    :param source: where the mapping came from, for messages
    :raises DatagenError: unknown scenario or key, or a value out of range
    """
    if not isinstance(data, dict):
        raise DatagenError(f"{source}: a recipe is a table of fields, not {type(data).__name__}")
    scenario = data.get("scenario", "cdl")
    if not isinstance(scenario, str) or scenario not in RECIPES:
        raise DatagenError(f"{source}: unknown scenario {scenario!r}; allowed: {', '.join(RECIPES)}")
    try:
        return RECIPES[scenario].model_validate(data)
    except ValidationError as error:
        raise DatagenError(f"{source}: {explain(error, RECIPES[scenario])}") from None
    except RecursionError:
        raise DatagenError(f"{source}: its values are nested too deep") from None


def load(path: str | Path) -> dict[str, Any]:
    """The table in a recipe file (TOML), not yet validated.

    :raises DatagenError: the file cannot be read or is not TOML
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise DatagenError(f"cannot read the recipe {path}: {error.strerror}; give the path of a TOML file") from None
    except (ValueError, RecursionError) as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        raise DatagenError(f"{path} is not TOML: {error}") from None


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """One line for the first thing pydantic found wrong."""
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(place, model.model_fields, n=1)
        return f"unknown key {place!r}; " + (
            f"did you mean {near[0]!r}?" if near else f"allowed: {', '.join(model.model_fields)}"
        )
    message = first["msg"].removeprefix("Value error, ").replace("Input should", "it should")
    return f"{place} = {first['input']!r}: {message}" if place else message
