"""What came out of a recipe: digests, statistics and sketches of every shard, versions, licence. Regenerates and proves a data set.

A digest proves the same bits; another processor or library build rounds differently, so each shard also carries a *sketch*:
:data:`SKETCH` random +-1 projections of its samples, from which the relative error between two makings of a shard is estimated
without either (Alon, Matias, Szegedy, "The space complexity of approximating the frequency moments", 1999).
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from datagen.draws import words
from datagen.errors import DatagenError, VerificationError
from datagen.plan import Plan, Shard
from datagen.recipe import canonical_digest, explain, parse

FORMAT = "fdd-csi"
FORMAT_VERSION = 1
SKETCH = 8
TOLERANCE = 1e-5  # relative error up to which two makings of a data set count as the same samples


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Fingerprint(_Model):
    """One array of one shard."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")  # of the decoded little-endian complex64 bytes, C order
    energy: float = Field(ge=0)  # mean over samples of the squared Frobenius norm
    peak: float = Field(ge=0)  # largest magnitude of an entry
    sketch: list[float] = Field(min_length=2 * SKETCH, max_length=2 * SKETCH)  # re, im of each projection


class ShardRecord(_Model):
    """One shard: which samples, and the fingerprint of each array."""

    split: str
    index: int = Field(ge=0)
    start: int = Field(ge=0)
    stop: int = Field(ge=1)
    arrays: dict[str, Fingerprint]

    @classmethod
    def of(cls, shard: Shard, arrays: Mapping[str, NDArray[np.complex64]]) -> Self:
        """The record of a shard's samples, each array complex64 [stop - start, angle, delay].

        :raises VerificationError: an entry is not finite
        """
        prints = {name: fingerprint(array, shard.start) for name, array in arrays.items()}
        return cls(split=shard.split, index=shard.index, start=shard.start, stop=shard.stop, arrays=prints)

    @property
    def shard(self) -> Shard:
        return Shard(self.split, self.index, self.start, self.stop)

    @property
    def digests(self) -> tuple[str, ...]:
        """SHA-256 of each array's samples."""
        return tuple(fingerprint.sha256 for fingerprint in self.arrays.values())


def sample_digest(array: NDArray[np.complex64]) -> str:
    """SHA-256 of samples as little-endian complex64 bytes in C order, hexadecimal."""
    return hashlib.sha256(np.ascontiguousarray(array, dtype="<c8").data).hexdigest()


def fingerprint(array: NDArray[np.complex64], start: int) -> Fingerprint:
    """Digest, statistics and sketch of consecutive samples.

    :param array: complex64 [sample, angle, delay]
    :param start: index of the first sample within its split
    :raises VerificationError: an entry is not finite
    """
    flat = np.ascontiguousarray(array, dtype="<c8").reshape(len(array), -1)
    energy = np.einsum("ij,ij->", flat.view(np.float32), flat.view(np.float32), dtype=np.float64)
    if not np.isfinite(energy):
        raise VerificationError("holds NaN or infinite entries")
    rows = _signs("sketch/rows", start, len(flat))
    projected = np.einsum("ik,ik->k", flat @ _signs("sketch/cells", 0, flat.shape[1]), rows, dtype=np.complex128)
    return Fingerprint(
        sha256=sample_digest(flat),
        energy=float(energy) / len(flat),
        peak=float(np.abs(flat).max()),
        sketch=[float(f"{value:.9g}") for value in projected.view(np.float64)],
    )


def _signs(stream: str, start: int, n: int) -> NDArray[np.complex64]:
    """+-1 signs, complex64 [n, SKETCH]: bit k of the first Philox word of item i."""
    raw = words(0, stream, np.arange(start, start + n), 1)
    bits = (raw >> np.arange(SKETCH, dtype=np.uint64)) & np.uint64(1)
    return (1 - 2 * bits.astype(np.float32)).astype(np.complex64)


def relative_error(expected: ShardRecord, found: ShardRecord) -> float:
    """Relative error ||A - B|| / ||A|| between two makings of a shard, all arrays together, estimated from their sketches."""
    difference = norms = 0.0
    for name, a in expected.arrays.items():
        b, samples = found.arrays[name], expected.stop - expected.start
        estimate = float(np.sum((np.array(a.sketch) - np.array(b.sketch)) ** 2)) / SKETCH
        # neither norm nor peak can differ by more than the norm of the difference does
        bound = max(abs(np.sqrt(a.energy) - np.sqrt(b.energy)) * np.sqrt(samples), abs(a.peak - b.peak))
        difference += max(estimate, float(bound) ** 2)
        norms += min(a.energy, b.energy) * samples
    return float(np.sqrt(difference / norms)) if norms else float(difference > 0)


def creation_time() -> str:
    """Now in UTC, ISO 8601; the variable ``SOURCE_DATE_EPOCH`` [s] takes precedence, as in reproducible builds.

    :raises DatagenError: the variable is no number of seconds
    """
    seconds = os.environ.get("SOURCE_DATE_EPOCH")
    try:
        moment = datetime.fromtimestamp(int(seconds), UTC) if seconds else datetime.now(UTC)
    except (ValueError, OverflowError, OSError):
        raise DatagenError(f"SOURCE_DATE_EPOCH={seconds!r} is no number of seconds; unset it or give one") from None
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


class Producer(_Model):
    """Which software made a data set, for the record; the samples depend on the recipe alone."""

    datagen: str
    engine: str
    device: str
    python: str
    numpy: str
    torch: str
    sionna: str | None
    zarr: str
    machine: str

    @classmethod
    def here(cls, engine: str, device: str) -> Producer:
        """This process."""
        return cls(
            datagen=_installed("csi-feedback-zoo") or "source", engine=engine, device=device, python=platform.python_version(),
            numpy=np.__version__, torch=_installed("torch") or "", sionna=_installed("sionna-no-rt") or _installed("sionna"),
            zarr=_installed("zarr") or "", machine=platform.machine(),
        )  # fmt: skip


def _installed(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


class Manifest(_Model):
    """The released description of a data set: recipe, layout, provenance, and every shard's fingerprint."""

    format: Literal["fdd-csi"] = "fdd-csi"
    format_version: Literal[1] = 1
    name: str
    recipe: dict[str, Any]
    recipe_digest: str
    shard_samples: int
    producer: Producer
    created: str
    licence: str
    references: list[str]
    shards: list[ShardRecord]
    digest: str

    @classmethod
    def build(cls, plan: Plan, producer: Producer, records: Iterable[ShardRecord]) -> Manifest:
        """The manifest of a finished store."""
        position = {shard: number for number, shard in enumerate(plan.shards)}
        content: dict[str, Any] = {
            "format": FORMAT, "format_version": FORMAT_VERSION,
            "name": plan.recipe.label, "recipe": plan.recipe.model_dump(mode="json"), "recipe_digest": plan.recipe.digest,
            "shard_samples": plan.shard_samples, "producer": producer.model_dump(),
            "created": creation_time(), "licence": plan.recipe.LICENCE, "references": list(plan.recipe.REFERENCES),
            "shards": [record.model_dump() for record in sorted(records, key=lambda record: position[record.shard])],
        }  # fmt: skip
        return cls.model_validate({**content, "digest": canonical_digest(content)})

    @model_validator(mode="after")
    def _covers_its_recipe(self) -> Self:
        # counted first: a recipe of any size may be claimed
        if self.plan.shard_count != len(self.shards) or self.plan.shards != [record.shard for record in self.shards]:
            raise ValueError("its shards are not those of its recipe")
        if any(record.arrays.keys() != self.plan.recipe.shapes(record.split).keys() for record in self.shards):
            raise ValueError("its arrays are not those of its recipe")
        return self

    @functools.cached_property
    def plan(self) -> Plan:
        return Plan(parse(self.recipe, "manifest"), self.shard_samples)

    @classmethod
    def parse(cls, data: object, source: str) -> Manifest:
        """Check and take a manifest read from JSON.

        :param source: where it came from, for messages
        :raises DatagenError: it is not a manifest
        :raises VerificationError: it was edited: a digest in it does not match its content
        """
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise DatagenError(f"{source} is not a datagen manifest; make one with: datagen manifest STORE")
        if data.get("format_version") != FORMAT_VERSION:
            raise DatagenError(
                f"{source} has format version {data.get('format_version')!r}; this datagen reads version {FORMAT_VERSION}"
            )
        content = {key: value for key, value in data.items() if key != "digest"}
        try:
            digest = canonical_digest(content)
        except ValueError as error:  # NaN and infinity are no JSON
            raise DatagenError(f"{source}: {error}") from None
        if data.get("digest") != digest:
            raise VerificationError(
                f"{source} was edited: its digest is {data.get('digest')}, its content has {digest}"
            )
        try:
            manifest = cls.model_validate(data)
        except ValidationError as error:
            raise DatagenError(f"{source}: {explain(error, cls)}") from None
        if manifest.recipe_digest != manifest.plan.recipe.digest:
            raise VerificationError(f"{source} was edited: its recipe_digest is not that of its recipe")
        return manifest

    @classmethod
    def load(cls, path: str | Path, name: str | None = None) -> Manifest:
        """Read a manifest file.

        :param name: what to call it in messages, its path unless given
        :raises DatagenError: it cannot be read, is no JSON or no manifest
        :raises VerificationError: it was edited
        """
        name = name or str(path)
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise DatagenError(f"cannot read the manifest {name}: {error.strerror}") from None
        except (ValueError, RecursionError) as error:
            raise DatagenError(f"{name} is not a JSON manifest: {error}") from None
        return cls.parse(data, name)

    def to_json(self) -> str:
        """The manifest as a JSON file's text, one shard a line."""
        head = self.model_dump(exclude={"shards", "digest"})
        lines = ",\n".join("  " + json.dumps(record.model_dump()) for record in self.shards)
        return json.dumps(head, indent=1)[:-2] + f',\n "shards": [\n{lines}\n ],\n "digest": "{self.digest}"\n}}\n'
