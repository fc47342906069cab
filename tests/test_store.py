"""The store format: what FORMAT.md promises to readers of any kind."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import xarray
import zarr

import datagen
from datagen import Store
from datagen.errors import DatagenError
from tests.conftest import small_recipe


def read_by_the_book(store: Path, split: str, name: str) -> np.ndarray:
    """Read an array with FORMAT.md alone: JSON, the shard index, raw chunks. No Zarr library."""
    meta = json.loads((store / split / name / "zarr.json").read_text())
    assert meta["zarr_format"] == 3
    assert meta["data_type"] == "complex64"
    assert meta["dimension_names"] == ["sample", "angle", "delay"]
    assert meta["fill_value"] == ["NaN", "NaN"]
    (sharding,) = meta["codecs"]
    assert sharding["name"] == "sharding_indexed"
    assert [codec["name"] for codec in sharding["configuration"]["codecs"]] == ["bytes", "crc32c"]
    assert sharding["configuration"]["codecs"][0]["configuration"]["endian"] == "little"
    size, *sample = meta["shape"]
    shard, chunk = meta["chunk_grid"]["configuration"]["chunk_shape"][0], sharding["configuration"]["chunk_shape"][0]
    assert chunk == 256
    chunks = shard // chunk
    out = np.full((math.ceil(size / shard) * shard, *sample), np.nan, "<c8")
    for index in range(math.ceil(size / shard)):
        data = (store / split / name / "c" / str(index) / "0" / "0").read_bytes()
        footer = data[-(16 * chunks + 4) :]
        assert int.from_bytes(footer[-4:], "little") == google_crc32c.value(footer[:-4])
        for position, (offset, length) in enumerate(np.frombuffer(footer[:-4], "<u8").reshape(chunks, 2).tolist()):
            if offset == 2**64 - 1:
                continue
            payload = data[offset : offset + length]
            assert int.from_bytes(payload[-4:], "little") == google_crc32c.value(payload[:-4])
            first = index * shard + position * chunk
            out[first : first + chunk] = np.frombuffer(payload[:-4], "<c8").reshape(chunk, *sample)
    return out[:size]


def test_a_reader_written_from_the_format_alone(small_store: Store) -> None:
    path = Path(small_store.path)
    root = json.loads((path / "zarr.json").read_text())["attributes"]
    assert root["format"] == "fdd-csi"
    assert root["format_version"] == 1
    assert root["complete"] is True
    assert root["version"] == 1
    assert root["recipe_digest"] == small_recipe().digest
    for split in ("train", "val"):
        for name in "XYZ":
            np.testing.assert_array_equal(read_by_the_book(path, split, name), getattr(small_store[split], name)[:])


def test_plain_zarr_and_xarray_open_it_without_a_warning(small_store: Store) -> None:
    """Warnings are errors in this suite."""
    group = zarr.open_group(small_store.path, mode="r")
    expected = np.asarray(small_store["train"].X[:])
    np.testing.assert_array_equal(group["train/X"][:], expected)  # type: ignore[index]
    assert isinstance(zarr.open(small_store.path, mode="r"), zarr.Group)
    with xarray.open_zarr(small_store.path, group="train") as dataset:
        assert dict(dataset.sizes) == {"sample": 600, "angle": 32, "delay": 32}
        assert set(dataset) == {"X", "Y", "Z"}
        assert dataset.Y.attrs == {"long_name": "uplink CSI at the last symbol", "units": "1"}
        np.testing.assert_array_equal(dataset.X.values, expected)
    with xarray.open_datatree(small_store.path, engine="zarr") as tree:
        assert set(tree.children) == {"train", "val"}


def test_nothing_foreign_lies_in_the_store(small_store: Store) -> None:
    names = {file.name for file in Path(small_store.path).rglob("*") if file.is_file()}
    assert names == {"zarr.json", "0"}
    assert not Path(f"{small_store.path}.wip").exists()


def test_mapping_interface(small_store: Store) -> None:
    assert list(small_store) == ["train", "val"]
    assert len(small_store) == 2
    assert len(small_store["train"]) == 600
    ten = small_store["val"].Z[:10]
    assert isinstance(ten, np.ndarray)
    assert ten.shape == (10, 32, 32)
    assert ten.dtype == np.complex64
    assert "cdl-c-fdd-v1, 600 train, 40 val" in repr(small_store)
    assert "600 samples: X (32, 32), Y (32, 32), Z (32, 32)" in repr(small_store["train"])
    with pytest.raises(KeyError, match="it has train, val"):
        small_store["test"]


def test_one_slot_stores_no_target(tmp_path: Path) -> None:
    store = datagen.generate(small_recipe(train=20, val=0, slots=1), tmp_path / "s.zarr")
    assert zarr.open_group(store.path, mode="r").attrs["target"] == "X"
    assert sorted(child.name for child in (tmp_path / "s.zarr" / "train").iterdir()) == ["X", "Y", "zarr.json"]
    np.testing.assert_array_equal(store["train"].Z[:], store["train"].X[:])


def edit_root(path: Path, **attributes: object) -> None:
    file = path / "zarr.json"
    meta = json.loads(file.read_text())
    meta["attributes"].update(attributes)
    file.write_text(json.dumps(meta))


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"format": "other"}, "is a Zarr group but no fdd-csi store"),
        ({"format_version": 2}, "has format version 2; this datagen reads version 1"),
        ({"complete": False}, "is not complete"),
        ({"recipe": {"scenario": "cdl", "train": 5, "antennas": 4}}, "is not the complex64 array"),
        ({"recipe": {"scenario": "moon"}}, "unknown scenario 'moon'"),
    ],
)
def test_stores_that_are_not_what_they_should_be(
    small_store: Store, tmp_path: Path, attributes: dict[str, object], words: str
) -> None:
    path = tmp_path / "copy.zarr"
    shutil.copytree(small_store.path, path)
    edit_root(path, **attributes)
    with pytest.raises(DatagenError, match=words):
        datagen.open_store(path)


def test_no_store_at_all(tmp_path: Path) -> None:
    with pytest.raises(DatagenError, match="is not a datagen store"):
        datagen.open_store(tmp_path / "absent.zarr")
    (tmp_path / "absent.zarr.wip").mkdir()
    with pytest.raises(DatagenError, match="give the same command again to go on"):
        datagen.open_store(tmp_path / "absent.zarr")
    (tmp_path / "bad.zarr").mkdir()
    (tmp_path / "bad.zarr" / "zarr.json").write_text("{")
    with pytest.raises(DatagenError, match="is not a datagen store"):
        datagen.open_store(tmp_path / "bad.zarr")


def test_the_digest_that_the_format_states() -> None:
    text = (Path(datagen.__file__).parent / "FORMAT.md").read_text()
    assert datagen.CDLRecipe().digest in text
