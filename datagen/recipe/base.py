"""What every recipe has: a name, a version, sizes, a seed, a digest, and the arrays that come out of it."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import json
from abc import ABC, abstractmethod
from typing import Annotated, ClassVar, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

SPLITS = ("train", "val", "test")
SPEED_OF_LIGHT_MPS = 299_792_458.0


def as_range(value: object) -> object:
    """One number as a range of that number alone, and a list, as TOML and JSON have it, as a pair."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):  # an integer of hundreds of digits
            return (float(value), float(value))
    return tuple(value) if isinstance(value, list) else value


def _forwards(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise ValueError(f"{value[0]:g}:{value[1]:g} runs backwards; give MIN:MAX with MIN <= MAX")
    return value


Number = TypeVar("Number", bound=float)
Range = Annotated[tuple[Number, Number], BeforeValidator(as_range), AfterValidator(_forwards)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


ARRAYS = {  # arrays that a data set may hold: dimensions of a sample, and what it is
    "X": ("angle", "delay", "downlink CSI at the first symbol"),
    "Y": ("angle", "delay", "uplink CSI at the last symbol"),
    "Z": ("angle", "delay", "downlink CSI at the last symbol"),
    "H": ("antenna", "subcarrier", "frequency response of the subcarriers kept"),
}


def describe_arrays(recipe: Recipe) -> str:
    """The arrays of a recipe in words: ``X, Y, Z [sample, 32 angles, 32 delays]``."""
    by_form: dict[str, list[str]] = {}
    for name, (rows, columns) in recipe.arrays.items():
        row, column, _ = ARRAYS[name]
        by_form.setdefault(f"[sample, {rows} {row}s, {columns} {column}s]", []).append(name)
    return "; ".join(f"{', '.join(names)} {form}" for form, names in by_form.items())


class SourceFile(BaseModel):
    """A file that samples were taken from: what it is, not where it lies."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    file: str = Field(min_length=1, max_length=255, pattern=r"^[^/\x00-\x1f]+$", description="its name, no directory")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="of the whole file")
    bytes: int = Field(ge=1, description="its size")
    version: Literal["5", "7.3"] = Field(description="of the MATLAB file format")
    variable: str = Field(description="the matrix that was read")
    rows: int = Field(ge=1, description="of the matrix, one a sample")
    columns: int = Field(ge=1, description="of the matrix")
    dtype: Literal["double", "single"] = Field(description="MATLAB class of the matrix")


class Recipe(BaseModel, ABC):
    """What every scenario's recipe has: a name, a version, sizes and a seed."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    LICENCE: ClassVar[str] = "CC-BY-4.0"  # SPDX identifier of the data
    REFERENCES: ClassVar[tuple[str, ...]] = ()  # what to cite

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

    @abstractmethod
    def shapes(self, split: str) -> dict[str, tuple[int, int]]:
        """Arrays that a split of the data set holds, each with the shape of one sample: see :data:`ARRAYS`.

        ``Y`` is there only with side information, ``Z`` only where the target differs from ``X``.
        """

    @property
    def arrays(self) -> dict[str, tuple[int, int]]:
        """All arrays of the data set with the shape of one sample, whatever splits hold them."""
        return {name: shape for split in self.splits for name, shape in self.shapes(split).items()}

    @property
    def sources(self) -> dict[str, SourceFile]:
        """Files that the samples come from by the part they play; none where samples are simulated."""
        return {}

    @property
    def digest(self) -> str:
        """``sha256:`` and the SHA-256 of the recipe as canonical JSON (sorted keys, no spaces)."""
        return canonical_digest(self.model_dump(mode="json"))

    @property
    def label(self) -> str:
        """Name and version as the released manifests are called, e.g. ``cdl-c-fdd-v1``."""
        return f"{self.name}-v{self.dataset_version}"


def canonical_digest(value: object) -> str:
    """``sha256:`` and the SHA-256 of a JSON value written with sorted keys and no spaces."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


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
