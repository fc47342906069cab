"""Importing MATLAB files in the form of the CsiNet data sets: every kind of file, every way to get it wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import datagen
import zoo.data
from datagen import DatagenError, Manifest, MatfileRecipe, execute, importing, matlab, sources
from datagen.croissant import croissant
from datagen.importing import survey
from datagen.recipe import parse
from datagen.scenarios.matfile import band
from tests.conftest import Cli, assert_one_line_error, start_cli

Rows = NDArray[np.floating]


def ht(n: int, seed: int = 0, tap: float = 14.0) -> Rows:
    """Rows of HT whose power lies about a delay tap."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, 2, 32, 32)) * np.exp(-np.abs(np.arange(32) - tap) / 3)
    rows: Rows = (0.5 + 0.4 * values / np.abs(values).max()).reshape(n, 2048)
    return rows


def samples(rows: Rows) -> NDArray[np.complex64]:
    planes = rows.astype(np.float64).reshape(-1, 2, 32, 32) - 0.5
    return (planes[:, 0] + 1j * planes[:, 1]).astype(np.complex64)


def hf(rows: Rows) -> NDArray[np.complex128]:
    """What HF_all holds for rows of HT if the crop has cut nothing off."""
    return band(samples(rows)).reshape(len(rows), 4000)


def _element(order: str, kind: int, data: bytes) -> bytes:
    return struct.pack(order + "II", kind, len(data)) + data + bytes(-len(data) % 8)


KINDS = {"i1": 1, "u1": 2, "i2": 3, "u2": 4, "i4": 5, "u4": 6, "f4": 7, "f8": 9}


def v5_bytes(
    name: str, value: NDArray[Any], *, order: str = "<", stored: str = "f8", matlab_class: int = 6, pack: bool = False
) -> bytes:
    """A version 5 file by hand: what scipy does not write, big-endian files and doubles kept as small integers."""
    flags = matlab_class | (0x800 if np.iscomplexobj(value) else 0)
    body = _element(order, 6, struct.pack(order + "II", flags, 0))
    body += _element(order, 5, struct.pack(f"{order}{value.ndim}i", *value.shape))
    body += _element(order, 1, name.encode())
    for plane in (value.real, value.imag) if np.iscomplexobj(value) else (value,):
        body += _element(order, KINDS[stored], plane.astype(np.dtype(order + stored)).tobytes("F"))
    matrix = struct.pack(order + "II", 14, len(body)) + body
    if pack:
        packed = zlib.compress(matrix)
        matrix = struct.pack(order + "II", 15, len(packed)) + packed
    head = b"MATLAB 5.0 MAT-file, by hand".ljust(124)
    return head + (b"\0\1IM" if order == "<" else b"\1\0MI") + matrix


def v73(path: Path, name: str, value: NDArray[Any], matlab_class: str | None = None, **options: Any) -> None:
    """A version 7.3 file: HDF5 behind MATLAB's 512 bytes, dimensions turned round, complex numbers as (real, imag)."""
    single = value.dtype.itemsize == (8 if np.iscomplexobj(value) else 4)
    turned = value.T
    if np.iscomplexobj(value):
        number = "<f4" if single else "<f8"
        turned = np.empty(value.T.shape, [("real", number), ("imag", number)])
        turned["real"], turned["imag"] = value.T.real, value.T.imag
    with h5py.File(path, "w", userblock_size=512) as file:
        data = file.create_dataset(name, data=turned, **options)
        data.attrs["MATLAB_class"] = np.bytes_(matlab_class or ("single" if single else "double"))
    with path.open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file, by h5py".ljust(124) + b"\0\2IM")


def savemat(path: Path, name: str, value: NDArray[Any], **options: Any) -> None:
    scipy.io.savemat(path, {name: value}, **options)


def hand(**options: Any) -> Callable[[Path, str, NDArray[Any]], object]:
    return lambda path, name, value: path.write_bytes(v5_bytes(name, value, **options))


WRITERS: dict[str, Callable[[Path, str, NDArray[Any]], object]] = {
    "v6": savemat,
    "v7": lambda path, name, value: savemat(path, name, value, do_compression=True),
    "v6 beside others": lambda path, name, value: scipy.io.savemat(path, {"a": np.eye(3), "s": "x", name: value, "z": {"b": 1}}),
    "big-endian": hand(order=">"),
    "big-endian packed": hand(order=">", pack=True),
    "single kept in double": hand(matlab_class=7),
    "v7.3": v73,
    "v7.3 chunked": lambda path, name, value: v73(path, name, value, chunks=(30, 2), compression=4, shuffle=True),
    "v7.3 by rows": lambda path, name, value: v73(path, name, value, chunks=(value.shape[1], 3)),
    "v7.3 by columns": lambda path, name, value: v73(path, name, value, chunks=(1, len(value)), compression=1),
}  # fmt: skip


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """A small set named as the official outdoor one: each file of another kind."""
    home = tmp_path / "files"
    home.mkdir()
    test = ht(40, 2)
    paths = {
        part: home / f"DATA_H{middle}.mat"
        for part, middle in {"train": "trainout", "val": "valout", "test": "testout", "full": "testFout_all"}.items()
    }
    savemat(paths["train"], "HT", ht(600), do_compression=True)
    savemat(paths["val"], "HT", ht(30, 1).astype(np.float32))
    v73(paths["test"], "HT", test, chunks=(100, 16), compression=3)
    v73(paths["full"], "HF_all", hf(test))
    return paths


def generate(found: importing.Survey, out: Path, **options: Any) -> datagen.Store:
    return datagen.generate(found.recipe, out, sources=found.sources, **options)


def three(files: dict[str, Path]) -> list[Path]:
    return [files["train"], files["val"], files["test"]]


# reading ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("dtype", ["f8", "f4"])
@pytest.mark.parametrize("is_complex", [False, True], ids=["real", "complex"])
def test_every_kind_of_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, dtype: str, is_complex: bool
) -> None:
    monkeypatch.setattr(matlab, "PIECE", 500)  # many pieces, and rows cut within columns
    value: NDArray[Any] = np.random.default_rng(0).normal(size=(37, 60)).astype(dtype)
    if is_complex:
        value = value + 1j * value[::-1].astype(dtype)
    file = tmp_path / "x.mat"
    WRITERS[kind](file, "V", value)
    found = matlab.find(file, "V", 60, is_complex=is_complex)
    raw = found.matrix or matlab.stage(found, tmp_path / "raw")
    for rows in (slice(0, 37), slice(5, 6), slice(30, 37)):
        np.testing.assert_array_equal(raw.read(rows.start, rows.stop), value[rows])
    whole = np.full((2, 60, 37), np.nan)
    for part, column, row, values in found.tiles():
        whole[part, column : column + len(values), row : row + values.shape[1]] = values
    np.testing.assert_array_equal(whole[0].T, value.real)
    if is_complex:
        np.testing.assert_array_equal(whole[1].T, value.imag)
    assert (found.rows, found.version) == (37, "7.3" if kind.startswith("v7.3") else "5")
    assert (found.matrix is None) == (kind in ("v7", "big-endian packed") or (kind.startswith("v7.3") and (kind != "v7.3" or is_complex)))  # fmt: skip


@pytest.mark.parametrize("stored", ["u1", "i2", "u4", "f4"])
@pytest.mark.parametrize("pack", [False, True])
def test_doubles_that_matlab_keeps_as_smaller_numbers(tmp_path: Path, stored: str, pack: bool) -> None:
    value = np.random.default_rng(0).integers(0, 2, (9, 2048)).astype(float)
    (tmp_path / "x.mat").write_bytes(v5_bytes("HT", value, stored=stored, pack=pack))
    found = matlab.find(tmp_path / "x.mat", "HT", 2048)
    raw = found.matrix or matlab.stage(found, tmp_path / "raw")
    np.testing.assert_array_equal(raw.read(2, 9), value[2:])


@pytest.mark.parametrize("kind", ["v6", "v7", "v7.3", "v7.3 chunked"])
def test_memory_is_bounded(tmp_path: Path, kind: str) -> None:
    """Looking through and unpacking a variable of 64 MB, in a process of its own."""
    value = np.full((4096, 2048), 0.5)
    value[:, :64] = ht(4096)[:, :64]
    WRITERS["v7.3 by rows" if kind == "v7.3 chunked" else kind](tmp_path / "x.mat", "HT", value)
    code = """
import sys
from pathlib import Path
import h5py, torch, tqdm
from datagen import matlab, scenarios
from datagen.importing import survey
import datagen.scenarios.matfile
def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) / 1024
before = peak()
found = survey(parts={"train": sys.argv[1]}).sources[0].variable
raw = found.matrix or matlab.stage(found, Path(sys.argv[1]).with_name("raw"))
raw.read(100, 356)
print(peak() - before)
"""
    result = subprocess.run([sys.executable, "-c", code, tmp_path / "x.mat"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert float(result.stdout) < 32


# the data set ----------------------------------------------------------------------------------------------------------------


def test_import_is_what_the_files_hold(files: dict[str, Path], tmp_path: Path) -> None:
    found = survey(three(files), parts={"full": files["full"]})
    assert found.warnings == []
    store = generate(found, tmp_path / "s.zarr", shard_samples=256)
    assert datagen.verify(store).bad == []
    assert sorted(os.listdir(tmp_path)) == ["files", "s.zarr"]
    np.testing.assert_array_equal(store["train"].X[:], samples(ht(600)))
    np.testing.assert_array_equal(store["val"].X[:], samples(ht(30, 1).astype(np.float32)))
    np.testing.assert_array_equal(store["test"].X[:], samples(ht(40, 2)))
    recipe = store.recipe
    assert isinstance(recipe, MatfileRecipe)
    assert (recipe.convention, recipe.environment, recipe.name) == ("official", "outdoor", "imported")
    assert [list(recipe.shapes(split)) for split in store] == [["X"], ["X"], ["X", "H"]]
    assert parse(json.loads(recipe.model_dump_json())) == recipe

    # H goes back to the files' angles by the forward DFT of the antennas with the zero angle in the middle
    angles = np.fft.fftshift(np.fft.fft(np.asarray(store["test"].H[:]).astype(complex), axis=1), axes=1)
    np.testing.assert_allclose(angles.reshape(40, 4000), hf(ht(40, 2)), atol=1e-5)

    read = zoo.data.Store(tmp_path / "s.zarr")
    assert read.sizes == {"train": 600, "val": 30, "test": 40}
    x, y, z = read.read("test")
    assert y is None
    assert z is x
    np.testing.assert_array_equal(x.numpy(), samples(ht(40, 2)))


@pytest.mark.parametrize(("workers", "shard_samples"), [(0, 4096), (2, 256)])
def test_workers_shards_and_kinds_of_file_do_not_matter(
    files: dict[str, Path], tmp_path: Path, workers: int, shard_samples: int
) -> None:
    one = generate(survey([], parts={"train": files["train"]}), tmp_path / "a.zarr", shard_samples=256)
    other = generate(
        survey([], parts={"train": files["train"]}), tmp_path / "b.zarr", workers=workers, shard_samples=shard_samples
    )
    np.testing.assert_array_equal(one["train"].X[:], other["train"].X[:])
    v73(tmp_path / "same.mat", "HT", ht(600), chunks=(7, 600))
    third = generate(survey([], parts={"train": tmp_path / "same.mat"}), tmp_path / "c.zarr")
    np.testing.assert_array_equal(one["train"].X[:], third["train"].X[:])
    assert one.recipe.digest != third.recipe.digest


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # in mlcroissant and rdflib themselves
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_croissant_is_valid(files: dict[str, Path], tmp_path: Path) -> None:
    import mlcroissant

    manifest = generate(survey(three(files)), tmp_path / "s.zarr").manifest
    assert manifest.licence == "LicenseRef-unknown"
    assert "Wen" in manifest.references[0]
    (tmp_path / "imported-v1.json").write_text(manifest.to_json())
    (tmp_path / "c.json").write_text(json.dumps(croissant(manifest)))
    dataset = mlcroissant.Dataset(tmp_path / "c.json")
    assert len(list(dataset.records("shards"))) == 3


def test_tensorflow_reads_it(files: dict[str, Path], tmp_path: Path) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        store = generate(survey([], parts={"test": files["test"], "full": files["full"]}), tmp_path / "s.zarr")
        ((x, h),) = list(datagen.tf_dataset(store, "test", 40))
    np.testing.assert_array_equal(x.numpy(), samples(ht(40, 2)))
    assert h.shape == (40, 32, 125)


def test_no_samples_without_the_files(files: dict[str, Path], tmp_path: Path) -> None:
    found = survey(three(files))
    with pytest.raises(DatagenError, match="was imported from files, not simulated; read it from its store"):
        datagen.sample(found.recipe, range(3))
    with pytest.raises(DatagenError, match="was imported from files, not simulated"):
        datagen.stream(found.recipe)
    with pytest.raises(DatagenError, match=r"imported from DATA_Htrainout.mat, .* with --source"):
        datagen.generate(found.recipe, tmp_path / "s.zarr")
    with pytest.raises(DatagenError, match="is simulated and needs no files"):
        datagen.generate(datagen.CDLRecipe(), tmp_path / "s.zarr", sources=found.sources)
    with sources.laid_out(found.sources, tmp_path / "scratch") as inputs:
        from datagen.scenarios import make_engine

        engine = make_engine(found.recipe, inputs=inputs)
        (x,) = engine(engine.draw("train", np.array([599, 3, 3, 4]))).values()
        np.testing.assert_array_equal(x.numpy(), samples(ht(600))[[599, 3, 3, 4]])
        with pytest.raises(DatagenError, match="has 600 samples in train; sample 600 is asked for"):
            engine.draw("train", np.array([600]))
        with pytest.raises(DatagenError, match="no endless stream"):
            engine.draw_on_device(1, None)  # type: ignore[arg-type]
    assert not (tmp_path / "scratch").exists()


# which file is which -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def official(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Official sizes, made small."""
    monkeypatch.setattr(importing, "OFFICIAL_ROWS", {"train": 50, "val": 15, "test": 10, "full": 10})
    paths = {}
    for seed, (part, rows) in enumerate({"train": 50, "val": 15, "test": 10}.items()):
        paths[part] = tmp_path / f"DATA_H{part}in.mat"
        savemat(paths[part], "HT", ht(rows, seed, tap=0))
    return paths


def test_official_files_are_recognised_in_any_order(official: dict[str, Path], tmp_path: Path) -> None:
    found = survey([official["test"], official["train"], official["val"]])
    assert found.recipe.label == "csinet-indoor-v1"
    assert found.recipe.splits == {"train": 50, "val": 15, "test": 10}
    assert "the official test file by its shape" in found.findings[2]
    assert "indoor or outdoor: indoor by the names of the files; imported as csinet-indoor-v1" in found.findings[-1]
    assert survey([official["test"]]).recipe.name == "csinet-indoor-test"
    assert survey([official["test"]], name="mine").recipe.label == "mine-v1"

    for part in official:
        shutil.copy(official[part], tmp_path / f"{part[0]}.mat")
    unnamed = survey([tmp_path / "v.mat", tmp_path / "t.mat"][:1])
    assert unnamed.recipe.splits == {"val": 15}
    assert (unnamed.recipe.name, unnamed.recipe.environment) == ("imported", None)
    assert survey([tmp_path / "v.mat"], environment="indoor").recipe.name == "csinet-indoor-val"


def test_real_official_sizes() -> None:
    assert importing.OFFICIAL_ROWS == {"train": 100_000, "val": 30_000, "test": 20_000, "full": 20_000}


def test_three_unknown_files_are_taken_in_order(tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.mat" for name in "abc"]
    for seed, path in enumerate(paths):
        savemat(path, "HT", ht(5 + seed, seed))
    found = survey(paths)
    assert found.recipe.splits == {"train": 5, "val": 6, "test": 7}
    assert "no official size, taken as train" in found.findings[0]
    assert "neither names nor options say" in found.findings[-1]
    with pytest.raises(DatagenError, match=r"b.mat \[6, 2048\] is no official file; say its split with --train"):
        survey([paths[1]])


def test_contradictions(official: dict[str, Path], tmp_path: Path) -> None:
    outdoor = tmp_path / "DATA_Hvalout.mat"
    savemat(outdoor, "HT", ht(15, 5))
    with pytest.raises(DatagenError, match="give files of one set"):
        survey([official["train"], outdoor])
    with pytest.raises(DatagenError, match="is outdoor by its name; leave --environment indoor out"):
        survey([outdoor], environment="indoor")
    with pytest.raises(DatagenError, match="given as train and named as val; give it as --val"):
        survey([], parts={"train": outdoor})
    with pytest.raises(DatagenError, match=r"are both val; give one file a split"):
        survey([official["val"], outdoor])
    shutil.copy(official["test"], tmp_path / "other.mat")
    with pytest.raises(DatagenError, match="hold the same bytes"):
        survey([], parts={"val": tmp_path / "other.mat", "test": official["test"]})
    (tmp_path / "d").mkdir()
    savemat(tmp_path / "d" / "same.mat", "HT", ht(4, 9))
    savemat(tmp_path / "same.mat", "HT", ht(3, 8))
    with pytest.raises(DatagenError, match="have the same name; rename one"):
        survey([], parts={"train": tmp_path / "d" / "same.mat", "val": tmp_path / "same.mat"})
    savemat(tmp_path / "DATA_Htrainin.mat", "HT", ht(10, 7))
    with pytest.raises(DatagenError, match="named as train and has the 10 rows of the official test file"):
        survey([tmp_path / "DATA_Htrainin.mat"])
    with pytest.raises(DatagenError, match="nothing to import"):
        survey([])


def test_what_the_data_say_against_the_name(tmp_path: Path) -> None:
    file = tmp_path / "DATA_Htrainin.mat"
    value = ht(20)
    value[3] = 0.5
    savemat(file, "HT", value)
    empty, looks = survey([file]).warnings
    assert "1 of its rows are 0.5 throughout" in empty
    assert "should be indoor, but its mean delay of 14.0 taps looks outdoor" in looks


def test_the_full_band_belongs_to_its_test_split(files: dict[str, Path], tmp_path: Path) -> None:
    found = survey([files["test"]], parts={"full": files["full"]})
    assert found.facts["sources"][1]["relative_error"] < 1e-6
    assert found.facts["sources"][1]["scale"] == pytest.approx(1)
    v73(tmp_path / "f.mat", "HF_all", hf(ht(40, 2))[::-1])
    assert (
        "f.mat does not belong to DATA_Htestout.mat"
        in survey([files["test"]], parts={"full": tmp_path / "f.mat"}).warnings[0]
    )
    v73(tmp_path / "f.mat", "HF_all", hf(ht(39, 2)))
    with pytest.raises(DatagenError, match=r"f.mat has 39 rows and DATA_Htestout.mat 40"):
        survey([files["test"]], parts={"full": tmp_path / "f.mat"})
    with pytest.raises(DatagenError, match="belongs to a test split"):
        survey([files["train"]], parts={"full": files["full"]})
    with pytest.raises(DatagenError, match="is a full-band file by its name; give it with --full"):
        survey([files["test"], files["full"]])


# what is wrong with files ------------------------------------------------------------------------------------------------------


def with_value(value: float, row: int = 17) -> Rows:
    rows = ht(40)
    rows[row, 5] = value
    return rows


def sparse(path: Path) -> None:
    scipy.io.savemat(path, {"HT": scipy.sparse.eye(20, 2048)})


def cell(path: Path) -> None:
    scipy.io.savemat(path, {"HT": np.array([np.eye(2), "x"], dtype=object)})


def linked(path: Path) -> None:
    with h5py.File(path, "w", userblock_size=512) as file:
        file["HT"] = h5py.ExternalLink("other.h5", "/HT")
    with path.open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM")


def unwritten(path: Path, **options: Any) -> None:
    with h5py.File(path, "w", userblock_size=512) as file:
        data = file.create_dataset("HT", (2048, 40), "f8", **options)
        if options:
            data[:, :10] = 0.25
    with path.open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM")


def group(path: Path) -> None:
    with h5py.File(path, "w", userblock_size=512) as file:
        file.create_group("HT")


def cut(kind: str, share: float) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        WRITERS[kind](path, "HT", ht(40))
        os.truncate(path, int(path.stat().st_size * share))

    return write


def flipped(path: Path) -> None:
    savemat(path, "HT", ht(40), do_compression=True)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "no file": (lambda path: None, "is not there"),
    "directory": (lambda path: path.mkdir(), "is no file"),
    "empty": (lambda path: path.write_bytes(b""), "is no MATLAB file of version 5 or 7.3"),
    "text": (lambda path: path.write_text("HT = zeros(3)\n" * 100), "is no MATLAB file"),
    "no variables": (lambda path: scipy.io.savemat(path, {}), "holds no variable HT; it holds none"),
    "version 4": (lambda path: savemat(path, "HT", ht(3), format="4"), "is no MATLAB file"),
    "other name": (lambda path: savemat(path, "H", ht(3)), "holds no variable HT; it holds H: "),
    "other name, 7.3": (lambda path: v73(path, "H", ht(3)), "holds no variable HT; it holds H: "),
    "turned": (lambda path: savemat(path, "HT", ht(3).T), "is real double [2048, 3]; it must be"),
    "turned, 7.3": (lambda path: v73(path, "HT", ht(3).T), "is real double [2048, 3]; it must be"),
    "four axes": (lambda path: savemat(path, "HT", ht(3).reshape(3, 2, 32, 32)), "[3, 2, 32, 32]"),
    "no rows": (lambda path: savemat(path, "HT", ht(3)[:0]), "[0, 2048]"),
    "complex": (lambda path: savemat(path, "HT", ht(3) + 1j), "is complex double [3, 2048]"),
    "complex, 7.3": (lambda path: v73(path, "HT", ht(3) + 1j), "is complex double [3, 2048]"),
    "integers": (lambda path: savemat(path, "HT", ht(3).astype(np.uint8)), "is a uint8"),
    "integers, 7.3": (lambda path: v73(path, "HT", ht(3).astype(np.int64)), "kept as int64"),
    "logical, 7.3": (lambda path: v73(path, "HT", ht(3).astype(np.uint8), "logical"), "is a logical"),
    "text variable": (lambda path: scipy.io.savemat(path, {"HT": "hello"}), "is a char array"),
    "struct": (lambda path: scipy.io.savemat(path, {"HT": {"a": 1}}), "is a struct"),
    "cell": (cell, "is a cell array"),
    "sparse": (sparse, "is a sparse matrix"),
    "group, 7.3": (group, "is a group"),
    "never written, 7.3": (unwritten, "some of HT was never written"),
    "partly written, 7.3": (lambda path: unwritten(path, chunks=(2048, 10)), "some of HT was never written"),
    "huge chunks, 7.3": (lambda path: v73(path, "HT", np.zeros((8193, 2048), "f4"), chunks=(2048, 8193)), "in chunks of at most"),
    "link, 7.3": (linked, "holds no variable HT"),
    "NaN": (lambda path: savemat(path, "HT", with_value(np.nan)), "row 18: HT(18, 6) is nan; every value must be in 0...1"),
    "infinite": (lambda path: v73(path, "HT", with_value(-np.inf)), "row 18: HT(18, 6) is -inf"),
    "too large": (lambda path: savemat(path, "HT", with_value(1.001, 39), do_compression=True), "HT(40, 6) is 1.001"),
    "too small": (lambda path: v73(path, "HT", with_value(-1e-3), chunks=(9, 40)), "HT(18, 6) is -0.001"),
    "not centred": (lambda path: savemat(path, "HT", ht(9) - 0.5), "every value must be in 0...1, centred at 0.5"),
    "constant": (lambda path: savemat(path, "HT", np.full((9, 2048), 0.5)), "an empty channel"),
    "cut": (cut("v6", 0.5), "is truncated or damaged"),
    "cut at the end": (cut("v6", 0.9999), "is truncated or damaged"),
    "cut, packed": (cut("v7", 0.9), "is truncated or damaged"),
    "cut, 7.3": (cut("v7.3", 0.9), "is truncated or damaged"),
    "cut, chunked": (cut("v7.3 chunked", 0.9), "is truncated or damaged"),
    "flipped bit, packed": (flipped, "is truncated or damaged"),
    "shape and size differ": (
        lambda path: path.write_bytes(v5_bytes("HT", ht(8)).replace(struct.pack("<ii", 8, 2048), struct.pack("<ii", 9, 2048))),
        "does not match its shape",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_one_line(tmp_path: Path, case: str) -> None:
    write, words = BAD[case]
    file = tmp_path / "x.mat"
    write(file)
    before = os.listdir(tmp_path)
    with pytest.raises(DatagenError) as caught:
        survey([], parts={"train": file})
    message = str(caught.value)
    assert words in message
    assert str(file) in message
    assert "\n" not in message
    assert len(message) < 400
    assert os.listdir(tmp_path) == before


def test_bad_values_of_the_full_band(files: dict[str, Path], tmp_path: Path) -> None:
    for value in (np.nan, 1j * np.inf, 1e30):
        bad = hf(ht(40, 2))
        bad[3, 7] = value
        savemat(tmp_path / "f.mat", "HF_all", bad)
        with pytest.raises(DatagenError, match=r"f.mat: row 4: .*HF_all\(4, 8\) is"):
            survey([files["test"]], parts={"full": tmp_path / "f.mat"})
    savemat(tmp_path / "f.mat", "HF_all", hf(ht(40, 2)).real)
    with pytest.raises(DatagenError, match=r"is real double \[40, 4000\]; it must be a complex"):
        survey([files["test"]], parts={"full": tmp_path / "f.mat"})


def test_a_file_that_changes_meanwhile(files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = survey(three(files))
    write = execute.write_shard

    def meddle(task: Any) -> Any:
        result = write(task)
        os.utime(files["val"], ns=(0, 0))
        return result

    monkeypatch.setattr(execute, "write_shard", meddle)
    with pytest.raises(DatagenError, match="has changed while it was read"):
        generate(found, tmp_path / "s.zarr")
    assert os.listdir(tmp_path) == ["files"]
    monkeypatch.undo()
    with pytest.raises(DatagenError, match="has changed while it was read"):
        generate(found, tmp_path / "s.zarr")
    found = survey(three(files))
    read = matlab.Matrix.read

    def shrink(self: matlab.Matrix, start: int, stop: int) -> NDArray[Any]:
        os.truncate(self.path, 1000)
        return read(self, start, stop)

    monkeypatch.setattr(matlab.Matrix, "read", shrink)
    with pytest.raises(DatagenError, match=r"train shard 0.*: .*train.raw has become shorter while it was read"):
        generate(found, tmp_path / "s.zarr")
    assert os.listdir(tmp_path) == ["files"]


# fuzzing ---------------------------------------------------------------------------------------------------------------------


def _valid(kind: str) -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "x.mat"
        WRITERS[kind](file, "HT", ht(3))
        return file.read_bytes()


VALID = {
    kind: _valid(kind) for kind in ("v6 beside others", "v7", "big-endian", "big-endian packed", "v7.3", "v7.3 chunked")
}
FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


def feed(data: bytes) -> None:
    """Bytes are a data set or one line, never anything else, and nothing is left behind."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "x.mat"
        file.write_bytes(data)
        message = ""
        try:
            found = survey([], parts={"train": file})
            for source in found.sources:
                if source.variable.matrix is None:
                    matlab.stage(source.variable, Path(directory) / "raw")
                    os.unlink(Path(directory) / "raw")
        except DatagenError as refused:
            message = str(refused)
        assert "\n" not in message
        assert os.listdir(directory) == ["x.mat"]


@FUZZ
@given(st.binary(max_size=300), st.sampled_from(["", "<", ">", "h5"]))
def test_random_bytes(data: bytes, head: str) -> None:
    heads = {"": b"", "<": bytes(124) + b"\0\1IM", ">": bytes(124) + b"\1\0MI", "h5": b"\x89HDF\r\n\x1a\n"}
    feed(heads[head] + data)


@pytest.mark.parametrize(
    ("kinds", "head"),
    [([kind for kind in VALID if "7.3" not in kind], (0, 400)), (["v7.3", "v7.3 chunked"], (512, 3000))],
    ids=["v5", "v7.3"],
)
@FUZZ
@given(st.data())
def test_mutated_and_truncated_files(kinds: list[str], head: tuple[int, int], data: st.DataObject) -> None:
    whole = bytearray(VALID[data.draw(st.sampled_from(kinds))])
    for place in data.draw(st.lists(st.integers(*head) | st.integers(0, len(whole) - 1), max_size=4)):
        whole[place] = data.draw(st.integers(0, 255))
    feed(bytes(whole[: data.draw(st.just(len(whole)) | st.integers(0, len(whole)))]))


# on the command line -----------------------------------------------------------------------------------------------------------


def test_command_line(cli: Cli, files: dict[str, Path], tmp_path: Path) -> None:
    given_files = (*three(files), "--full", files["full"])
    dry = cli("import", *given_files, "--out", "s.zarr", "--dry-run", "--json")
    assert dry.returncode == 0, dry.stderr
    assert json.loads(dry.stdout)["samples"] == {"train": 600, "val": 30, "test": 40}
    assert os.listdir(tmp_path) == ["files"]

    made = cli("import", *given_files, "--out", "s.zarr", "--workers", "2", "--shard-samples", "256", "--json")
    assert made.returncode == 0, made.stderr
    facts = json.loads(made.stdout)
    assert facts["name"] == "imported-v1"
    assert [source["part"] for source in facts["sources"]] == ["train", "val", "test", "full"]
    assert "DATA_Htrainout.mat: HT double [600, 2048], MATLAB 5, no official size, taken as train" in made.stderr
    again = cli("import", *given_files, "--out", "s.zarr", "--shard-samples", "256", "--quiet")
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")

    seen = json.loads(cli("inspect", "s.zarr", "--json", "--plot", "p.png").stdout)
    assert seen["arrays"] == {"X": [32, 32], "H": [32, 125]}
    assert seen["measured"]["X"]["mean_delay_taps"] == pytest.approx(14, abs=0.5)
    table = cli("inspect", "s.zarr")
    assert "train_source DATA_Htrainout.mat" in " ".join(table.stdout.split())
    assert cli("verify", "s.zarr").returncode == 0

    assert cli("manifest", "s.zarr", "--out", "m.json").returncode == 0
    assert_one_line_error(
        cli("regenerate", "m.json", "--out", "r.zarr"), 2, "give the directory where they lie with --source"
    )
    assert_one_line_error(
        cli("regenerate", "m.json", "--out", "r.zarr", "--source", "."), 2, "DATA_Htrainout.mat is not there"
    )
    same = cli("regenerate", "m.json", "--out", "r.zarr", "--source", "files", "--json", "--workers", "0")
    assert json.loads(same.stdout)["identical_shards"] == facts["shards"]
    with files["val"].open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x01")
    other = cli("regenerate", "m.json", "--out", "q.zarr", "--source", "files")
    assert_one_line_error(other, 2, "DATA_Hvalout.mat is not the file that was imported (digest")
    assert sorted(os.listdir(tmp_path)) == ["files", "m.json", "p.png", "r.zarr", "s.zarr"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "nothing to import"),
        (("absent.mat",), "absent.mat is not there"),
        (("--train", "bad.mat"), "HT(2, 3) is 7"),
        (("--train", "good.mat", "--name", "../evil"), "name"),
        (("--train", "good.mat", "--dataset-version", "0"), "dataset_version"),
        (("--train", "good.mat", "--shard-samples", "100"), "give a multiple of 256"),
        (("--train", "good.mat", "--environment", "urban"), "'indoor', 'outdoor'"),
        (("--train", "good.mat", "--scheduler", "tcp://127.0.0.1:9"), "no Dask scheduler answers"),
        (("--train", "good.mat", "--out", "no/such/dir/s.zarr"), "make it first"),
        (("good.mat",), "say its split with --train, --val or --test"),
    ],
)
def test_bad_command_lines_leave_nothing(cli: Cli, tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    savemat(tmp_path / "good.mat", "HT", ht(5))
    bad = ht(5)
    bad[1, 2] = 7
    savemat(tmp_path / "bad.mat", "HT", bad)
    assert_one_line_error(cli("import", "--out", "s.zarr", *arguments), 2, words)
    assert sorted(os.listdir(tmp_path)) == ["bad.mat", "good.mat"]


def test_a_killed_import_goes_on(files: dict[str, Path], tmp_path: Path) -> None:
    command = ("import", files["train"], "--out", "s.zarr", "--workers", "0", "--shard-samples", "256")
    savemat(files["train"], "HT", ht(3000), do_compression=True)
    process = start_cli(*command, cwd=tmp_path)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("s.zarr.wip/*/ledger/*.json")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    if not (tmp_path / "s.zarr").exists():  # as it should be; a fast machine may have finished
        assert list(tmp_path.glob("s.zarr.wip/*/scratch/train.raw"))
    process = start_cli(*command, cwd=tmp_path)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert sorted(os.listdir(tmp_path)) == ["files", "s.zarr"]
    store = datagen.open_store(tmp_path / "s.zarr")
    np.testing.assert_array_equal(store["train"].X[:], samples(ht(3000)))
    assert datagen.verify(store).bad == []


def test_regenerate_in_python(files: dict[str, Path], tmp_path: Path) -> None:
    manifest = generate(survey(three(files)), tmp_path / "s.zarr").manifest
    (tmp_path / "m.json").write_text(manifest.to_json())
    store, same = datagen.regenerate(Manifest.load(tmp_path / "m.json"), tmp_path / "r.zarr", source=tmp_path / "files")
    assert (same.identical, same.shards) == (3, 3)
    assert store.manifest.recipe_digest == manifest.recipe_digest


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": 1}, "seed"),
        ({"train": 3}, "train has 3 samples and its source 600"),
        ({"val_source": None}, "val has 30 samples and its source is not given"),
        ({"convention": "physical"}, "convention"),
    ],
)
def test_recipes_hold_together(files: dict[str, Path], change: dict[str, Any], words: str) -> None:
    recipe = survey(three(files)).recipe.model_dump(mode="json")
    with pytest.raises(DatagenError, match=words):
        parse({**recipe, **change})
