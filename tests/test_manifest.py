"""Manifests: they round-trip, refuse edits, tell how far two makings differ, and speak Croissant."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import mlcroissant
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from datagen import Manifest, Store
from datagen.croissant import croissant
from datagen.errors import DatagenError, VerificationError
from datagen.manifest import ShardRecord, fingerprint, relative_error
from datagen.plan import Shard
from datagen.recipe import canonical_digest
from tests.test_recipe import json_values


def noise(seed: int, shape: tuple[int, ...] = (300, 8, 8)) -> NDArray[np.complex64]:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)


def test_fingerprint_by_hand() -> None:
    array = np.zeros((2, 1, 2), np.complex64)
    array[0, 0, 1], array[1, 0, 0] = 3 + 4j, 1
    found = fingerprint(array, 0)
    assert found.sha256 == hashlib.sha256(array.tobytes()).hexdigest()
    assert found.energy == pytest.approx(13)  # (25 + 1) / 2
    assert found.peak == pytest.approx(5)
    signs = np.array(found.sketch).reshape(-1, 2) @ [1, 1j]
    assert {round(abs(value - s * (3 + 4j)), 5) for value, s in zip(signs, np.sign(signs.imag), strict=True)} == {1.0}


@pytest.mark.parametrize("relative", [1e-6, 1e-4, 1e-1])
def test_sketches_estimate_the_relative_error(relative: float) -> None:
    shard = Shard("train", 0, 512, 812)
    estimates = []
    for seed in range(10):
        a = noise(seed)
        b = (a + relative * noise(seed + 100)).astype(np.complex64)
        true = np.linalg.norm(b - a) / np.linalg.norm(a)
        estimates.append(relative_error(ShardRecord.of(shard, {"X": a}), ShardRecord.of(shard, {"X": b})) / true)
    assert np.sqrt(np.mean(np.square(estimates))) == pytest.approx(1, rel=0.35)
    assert min(estimates) > 0.3


def test_one_swapped_pair_of_samples_shows() -> None:
    shard, a = Shard("train", 0, 0, 300), noise(0)
    b = a[np.r_[1, 0, 2:300]]
    assert relative_error(ShardRecord.of(shard, {"X": a}), ShardRecord.of(shard, {"X": b})) > 0.01
    assert relative_error(ShardRecord.of(shard, {"X": a}), ShardRecord.of(shard, {"X": a})) == 0


def test_not_finite_is_refused() -> None:
    array = noise(0)
    array[7, 3, 3] = np.nan
    with pytest.raises(VerificationError, match="NaN"):
        fingerprint(array, 0)


def test_round_trip(small_store: Store, tmp_path: Path) -> None:
    manifest = small_store.manifest
    file = tmp_path / "m.json"
    file.write_text(manifest.to_json())
    assert Manifest.load(file) == manifest
    assert Manifest.load(file).to_json() == manifest.to_json()
    assert manifest.plan.recipe == small_store.recipe
    assert [str(record.shard) for record in manifest.shards][2:] == [
        "train shard 2 (samples 512 to 599)",
        "val shard 0 (samples 0 to 39)",
    ]


def edited(manifest: Manifest, *, sign: bool, **changes: Any) -> dict[str, Any]:
    """The manifest's JSON with some top-level values changed; with ``sign``, its digest made to fit again."""
    data = {**manifest.model_dump(mode="json"), **changes}
    if sign:
        data["digest"] = canonical_digest({key: value for key, value in data.items() if key != "digest"})
    return data


@pytest.mark.parametrize("key", [key for key in Manifest.model_fields if key not in ("format", "format_version")])
def test_any_edit_is_noticed(small_store: Store, key: str) -> None:
    with pytest.raises(VerificationError, match="was edited"):
        Manifest.parse(edited(small_store.manifest, sign=False, **{key: "x"}), "m.json")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"recipe_digest": "sha256:0"}, "its recipe_digest is not that of its recipe"),
        ({"shard_samples": 512}, "its shards are not those of its recipe"),
        ({"shard_samples": 100}, "give a multiple of 256"),
        ({"shards": []}, "its shards are not those of its recipe"),
        ({"surprise": 1}, "unknown key 'surprise'"),
        ({"recipe": {"scenario": "cdl", "slots": 0}}, "slots = 0"),
        ({"format": "zip"}, "is not a datagen manifest"),
        ({"format_version": 9}, "has format version 9"),
    ],
)
def test_wrong_content_is_named_even_when_signed_again(small_store: Store, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(DatagenError, match=words):
        Manifest.parse(edited(small_store.manifest, sign=True, **changes), "m.json")


@given(
    json_values
    | st.dictionaries(st.sampled_from([*Manifest.model_fields]), json_values).map(
        lambda d: {**d, "format": "fdd-csi", "format_version": 1}
    )
)
def test_parsing_anything_gives_one_line(data: object) -> None:
    with pytest.raises(DatagenError) as caught:
        Manifest.parse(data, "m.json")
    assert "\n" not in str(caught.value)


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode) | st.just(b"[" * 100_000))
def test_files_that_are_no_manifest(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "fuzz.json"
    file.write_bytes(content)
    with pytest.raises(DatagenError):
        Manifest.load(file)


def test_absent_file(tmp_path: Path) -> None:
    with pytest.raises(DatagenError, match="cannot read the manifest"):
        Manifest.load(tmp_path / "absent.json")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # in mlcroissant and rdflib themselves
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_croissant_is_valid_and_its_records_are_the_shards(small_store: Store, tmp_path: Path) -> None:
    manifest = small_store.manifest
    (tmp_path / f"{manifest.name}.json").write_text(manifest.to_json())
    description = tmp_path / "croissant.json"
    description.write_text(json.dumps(croissant(manifest)))
    dataset = mlcroissant.Dataset(description)
    assert not dataset.metadata.ctx.issues.errors
    assert not dataset.metadata.ctx.issues.warnings
    assert dataset.metadata.name == "cdl-c-fdd-v1"
    records = list(dataset.records("shards"))
    assert len(records) == len(manifest.shards)
    for record, shard in zip(records, manifest.shards, strict=True):
        assert record["shards/split"].decode() == shard.split
        assert (record["shards/start"], record["shards/stop"]) == (shard.start, shard.stop)
        assert record["shards/sha256_Y"].decode() == shard.arrays["Y"].sha256
