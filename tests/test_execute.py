"""Making stores: the same samples however they are made; resume, refuse, replace, verify, regenerate."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import datagen
from datagen import DatagenError, Interrupted, Manifest, Store, VerificationError, cluster, execute
from datagen import store as stores
from datagen.ledger import Ledger
from datagen.plan import Plan, Shard
from tests.conftest import small_recipe
from tests.test_manifest import edited


def assert_same_samples(a: Store, b: Store) -> None:
    assert a.recipe == b.recipe
    for split in a:
        for name in a.recipe.arrays:
            np.testing.assert_array_equal(getattr(a[split], name)[:], getattr(b[split], name)[:])


@pytest.mark.parametrize(("workers", "shard_samples"), [(0, 512), (1, 256), (2, 256), (2, 4096)])
def test_workers_and_shards_do_not_matter(small_store: Store, tmp_path: Path, workers: int, shard_samples: int) -> None:
    made = datagen.generate(small_recipe(), tmp_path / "s.zarr", workers=workers, shard_samples=shard_samples)
    assert_same_samples(made, small_store)
    assert datagen.verify(made).bad == []
    assert os.listdir(tmp_path) == ["s.zarr"]
    if shard_samples == 256:
        assert [r.arrays for r in made.manifest.shards] == [r.arrays for r in small_store.manifest.shards]


def test_engines_make_the_same_store(tmp_path: Path) -> None:
    manifest = datagen.generate(small_recipe(train=300, antennas=8), tmp_path / "closed.zarr").manifest
    store, same = datagen.regenerate(manifest, tmp_path / "s.zarr", engine="sionna")
    assert store.manifest.producer.engine == "sionna"
    assert same.shards == 2
    assert same.identical == 0
    assert 0 < same.error < 1e-6
    verification = datagen.verify(store, manifest)
    assert verification.bad == []
    assert verification.identical == 0
    assert verification.error == same.error


def test_regenerate_bit_for_bit(small_store: Store, tmp_path: Path) -> None:
    file = tmp_path / "m.json"
    file.write_text(small_store.manifest.to_json())
    store, same = datagen.regenerate(Manifest.load(file), tmp_path / "s.zarr")
    assert (same.identical, same.shards, same.error) == (4, 4, 0)
    assert_same_samples(store, small_store)
    assert datagen.verify(store, Manifest.load(file)).identical == 4


@pytest.mark.parametrize("forgery", [{"sketch": 1.0}, {"energy": 1e18}, {"energy": 1e-3}, {"peak": 0.5}])
def test_regenerate_exposes_a_forged_manifest(small_store: Store, tmp_path: Path, forgery: dict[str, float]) -> None:
    """The forger changed a figure of one array and signed again."""
    shards = small_store.manifest.model_dump(mode="json")["shards"]
    array = shards[1]["arrays"]["Z"]
    for key, change in forgery.items():
        array[key] = [change, *array[key][1:]] if key == "sketch" else array[key] + change
    forged = Manifest.parse(edited(small_store.manifest, sign=True, shards=shards), "m.json")
    with pytest.raises(VerificationError, match="differ from those of cdl-c-fdd-v1"):
        datagen.regenerate(forged, tmp_path / "s.zarr")
    assert os.listdir(tmp_path) == []


def test_verify_exposes_another_seed(small_store: Store, tmp_path: Path) -> None:
    other = datagen.generate(small_recipe(seed=8), tmp_path / "s.zarr", shard_samples=256)
    with pytest.raises(VerificationError, match="was made from recipe"):
        datagen.verify(other, small_store.manifest)
    shards = other.manifest.model_dump(mode="json")["shards"]  # another data set's digests under this recipe
    forged = Manifest.parse(edited(small_store.manifest, sign=True, shards=shards), "m.json")
    found = datagen.verify(small_store, forged)
    assert len(found.bad) == 4
    assert "its samples differ from those of cdl-c-fdd-v1" in found.bad[0]


def test_a_finished_store_is_left_alone(tmp_path: Path) -> None:
    first = datagen.generate(small_recipe(train=10), tmp_path / "s.zarr")
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "s.zarr").rglob("*")}
    again = datagen.generate(small_recipe(train=10), tmp_path / "s.zarr", workers=2)
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "s.zarr").rglob("*")} == before
    assert again.manifest == first.manifest


def test_another_recipe_is_refused_and_force_replaces(tmp_path: Path) -> None:
    old = datagen.generate(small_recipe(train=10), tmp_path / "s.zarr").manifest
    with pytest.raises(DatagenError, match=r"another recipe \(differing in model, name\).*--force"):
        datagen.generate(small_recipe(train=10, model="A"), tmp_path / "s.zarr")
    assert datagen.open_store(tmp_path / "s.zarr").manifest == old
    new = datagen.generate(small_recipe(train=10, model="A"), tmp_path / "s.zarr", force=True)
    assert new.recipe.model == "A"  # type: ignore[attr-defined]
    assert datagen.verify(new).bad == []
    assert os.listdir(tmp_path) == ["s.zarr"]


def test_force_keeps_the_old_store_until_the_new_one_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = datagen.generate(small_recipe(train=10), tmp_path / "s.zarr").manifest
    fail_writes(monkeypatch, after=1, error=OSError(errno.EIO, "Input/output error"))
    with pytest.raises(DatagenError, match="Input/output error"):
        datagen.generate(small_recipe(train=600, model="A"), tmp_path / "s.zarr", force=True, shard_samples=256)
    assert datagen.verify(datagen.open_store(tmp_path / "s.zarr")).bad == []
    assert datagen.open_store(tmp_path / "s.zarr").manifest == old


def test_death_between_the_two_renames_loses_neither_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = datagen.generate(small_recipe(train=10), tmp_path / "s.zarr").manifest
    rename = Path.rename

    def die_at_second(self: Path, target: Path) -> Path:
        if self.name == "data.zarr":
            raise SystemExit
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", die_at_second)
    with pytest.raises(SystemExit):
        datagen.generate(small_recipe(train=10, model="A"), tmp_path / "s.zarr", force=True)
    monkeypatch.undo()
    assert not (tmp_path / "s.zarr").exists()
    with pytest.raises(DatagenError, match="holds another recipe"):
        datagen.generate(small_recipe(train=10, model="B"), tmp_path / "s.zarr")
    assert datagen.open_store(tmp_path / "s.zarr").manifest == old  # put back
    new = datagen.generate(small_recipe(train=10, model="A"), tmp_path / "s.zarr", force=True)
    assert new.recipe.model == "A"  # type: ignore[attr-defined]
    assert os.listdir(tmp_path) == ["s.zarr"]


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("content", ["file", "directory", "empty", "other zarr", "dangling link"])
def test_what_is_no_store_is_never_replaced(tmp_path: Path, content: str, force: bool) -> None:
    out = tmp_path / "s.zarr"
    if content == "file":
        out.write_text("precious")
    elif content == "dangling link":
        out.symlink_to(tmp_path / "nowhere")
    else:
        out.mkdir()
        if content != "empty":
            (out / "zarr.json").write_text('{"node_type": "group"}' if content == "other zarr" else "precious")
    with pytest.raises(DatagenError, match="exists and is no datagen store; give another --out"):
        datagen.generate(small_recipe(), out, force=force)
    assert os.listdir(tmp_path) == ["s.zarr"]


def test_force_spares_links_and_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datagen.generate(small_recipe(train=10), tmp_path / "s.zarr")
    (tmp_path / "link.zarr").symlink_to(tmp_path / "s.zarr")
    monkeypatch.chdir(tmp_path / "s.zarr")
    for out in (tmp_path / "link.zarr", tmp_path / "s.zarr"):
        with pytest.raises(DatagenError, match="--force does not replace"):
            datagen.generate(small_recipe(train=11), out, force=True)
    assert datagen.open_store(tmp_path / "link.zarr").recipe.splits["train"] == 10


def test_a_store_that_appears_meanwhile_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, finish = tmp_path / "s.zarr", stores.finish

    def finish_late(path: Path, manifest: Manifest) -> None:
        finish(path, manifest)
        out.mkdir()
        (out / "thesis.tex").write_text("precious")

    monkeypatch.setattr(stores, "finish", finish_late)
    with pytest.raises(DatagenError, match="has appeared meanwhile"):
        datagen.generate(small_recipe(), out)
    assert (out / "thesis.tex").read_text() == "precious"
    monkeypatch.undo()
    shutil.rmtree(out)
    assert datagen.verify(datagen.generate(small_recipe(), out)).bad == []


def test_a_task_of_an_earlier_job_cannot_reach_this_one(tmp_path: Path) -> None:
    """A worker that outlives its client ends its task late, in the directory of its own job or nowhere."""
    out = tmp_path / "s.zarr"
    old = execute.Job(out, Plan(small_recipe(seed=1)), "closed-form", "cpu")
    with old.ledger.locked():
        old.ledger.start(force=False)
        stores.create(old.ledger.data, old.plan)
        assert not isinstance(execute.write_shard((old, old.plan.shards[0], None)), execute.Failure)
    new = execute.Job(out, Plan(small_recipe(seed=2)), "closed-form", "cpu")
    with new.ledger.locked():
        new.ledger.start(force=True)
        stores.create(new.ledger.data, new.plan)
        late = execute.write_shard((old, old.plan.shards[0], None))
        assert isinstance(late, execute.Failure)
        assert new.ledger.records() == {}
    assert datagen.verify(datagen.generate(small_recipe(seed=2), out)).bad == []


@pytest.mark.parametrize("function", ["create", "finish"])
def test_a_disk_that_is_full_outside_the_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(stores, function, full)
    with pytest.raises(
        DatagenError, match=r"cannot write .*: No space left on device; mend it and give the same command"
    ):
        datagen.generate(small_recipe(), tmp_path / "s.zarr")
    monkeypatch.undo()
    assert datagen.verify(datagen.generate(small_recipe(), tmp_path / "s.zarr")).bad == []


def test_what_a_death_while_tidying_up_left_is_removed(tmp_path: Path) -> None:
    datagen.generate(small_recipe(train=10), tmp_path / "s.zarr")
    (tmp_path / "s.zarr.wip" / "replaced").mkdir(parents=True)
    datagen.generate(small_recipe(train=10), tmp_path / "s.zarr")
    assert os.listdir(tmp_path) == ["s.zarr"]


def test_a_finished_store_spares_the_unfinished_run_that_will_replace_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datagen.generate(small_recipe(train=10), tmp_path / "s.zarr")
    fail_writes(monkeypatch, after=1, error=KeyboardInterrupt())
    with pytest.raises(Interrupted, match="1 of 4 shards"):
        datagen.generate(small_recipe(model="A"), tmp_path / "s.zarr", force=True, shard_samples=256)
    monkeypatch.undo()
    datagen.generate(small_recipe(train=10), tmp_path / "s.zarr")
    assert len(list(tmp_path.glob("s.zarr.wip/*/ledger/*.json"))) == 1
    assert (
        datagen.generate(small_recipe(model="A"), tmp_path / "s.zarr", force=True, shard_samples=256).recipe.name
        == "cdl-a-fdd"
    )
    assert os.listdir(tmp_path) == ["s.zarr"]


def test_odd_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "far" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "deep")
    made = datagen.generate(small_recipe(train=5), f"{tmp_path}/link/../s.zarr/")
    assert made.path == tmp_path / "far" / "s.zarr"  # where the system's own path resolution leads
    for out in ("/", ".", "..", tmp_path / "file" / "s.zarr"):
        with pytest.raises(DatagenError, match=r"names no directory to make|make it first"):
            datagen.generate(small_recipe(), out)
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(DatagenError, match="make it first"):
        datagen.generate(small_recipe(), "s.zarr")


def fail_writes(monkeypatch: pytest.MonkeyPatch, after: int, error: BaseException) -> None:
    """Let some shards be written, then fail."""
    write, count = stores.write, [0]

    def failing(path: Path, shard: Shard, arrays: Any) -> None:
        count[0] += 1
        if count[0] > after:
            raise error
        write(path, shard, arrays)

    monkeypatch.setattr(stores, "write", failing)


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), DatagenError, "the disk is full; 3 of 4 shards are left"),
        (KeyboardInterrupt(), Interrupted, "stopped: 1 of 4 shards are in.*same command again to go on"),
    ],
)
def test_a_stopped_run_goes_on(
    small_store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    kind: type[DatagenError],
    words: str,
) -> None:
    out = tmp_path / "s.zarr"
    fail_writes(monkeypatch, after=1, error=error)
    with pytest.raises(kind, match=words):
        datagen.generate(small_recipe(), out, shard_samples=256)
    monkeypatch.undo()
    with pytest.raises(DatagenError, match="unfinished run lies in"):
        datagen.open_store(out)
    with pytest.raises(DatagenError, match="unfinished run with another recipe"):
        datagen.generate(small_recipe(seed=8), out, shard_samples=256)
    with pytest.raises(DatagenError, match="unfinished run with another shard size"):
        datagen.generate(small_recipe(), out, shard_samples=512)
    with pytest.raises(DatagenError, match="unfinished run with another engine"):
        datagen.generate(small_recipe(), out, shard_samples=256, engine="sionna")
    (kept,) = out.with_name("s.zarr.wip").glob("*/data.zarr/train/X/c/0/0/0")
    before = kept.stat().st_mtime_ns
    finished = datagen.generate(small_recipe(), out, shard_samples=256)
    assert_same_samples(finished, small_store)
    assert (out / "train" / "X" / "c" / "0" / "0" / "0").stat().st_mtime_ns == before  # kept, not made again
    assert os.listdir(tmp_path) == ["s.zarr"]


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "ledger"])
def test_a_resumed_run_does_not_trust_the_ledger(
    small_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    out = tmp_path / "s.zarr"
    fail_writes(monkeypatch, after=2, error=KeyboardInterrupt())
    with pytest.raises(Interrupted):
        datagen.generate(small_recipe(), out, shard_samples=256)
    monkeypatch.undo()
    (shard,) = (tmp_path / "s.zarr.wip").glob("*/data.zarr/train/Y/c/1/0/0")
    home = shard.parents[6]
    if damage == "flip":
        flip_byte(shard, 1000)
    elif damage == "truncate":
        os.truncate(shard, 1000)
    elif damage == "remove":
        shard.unlink()
    else:
        (home / "ledger" / "train-000000.json").write_text("{torn")
        (home / "job.json").unlink()
    assert_same_samples(datagen.generate(small_recipe(), out, shard_samples=256), small_store)


def flip_byte(file: Path, position: int) -> None:
    data = bytearray(file.read_bytes())
    data[position] ^= 0x10
    file.write_bytes(data)


@pytest.fixture
def copy(small_store: Store, tmp_path: Path) -> Path:
    """A store that a test may damage."""
    return Path(shutil.copytree(small_store.path, tmp_path / "copy.zarr"))


@pytest.mark.parametrize(
    ("shard", "damage", "words"),
    [
        ("train/X/c/1/0/0", "flip", "train shard 1 (samples 256 to 511): train/X/c/1/0/0 cannot be read"),
        ("val/Z/c/0/0/0", "truncate", "val shard 0 (samples 0 to 39): val/Z/c/0/0/0 cannot be read"),
        ("val/Z/c/0/0/0", "empty", "val shard 0 (samples 0 to 39): val/Z/c/0/0/0 has other samples"),
        ("train/Y/c/2/0/0", "remove", "train shard 2 (samples 512 to 599): train/Y/c/2/0/0 is missing"),
        ("train/X/c/0/0/0", "swap", "train shard 0 (samples 0 to 255): train/X/c/0/0/0 has other samples"),
    ],
)
def test_verify_names_each_bad_shard(copy: Path, shard: str, damage: str, words: str) -> None:
    file = copy / shard
    if damage == "flip":
        flip_byte(file, 12_345)
    elif damage == "truncate":
        os.truncate(file, file.stat().st_size - 1)
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "remove":
        file.unlink()
    else:
        shutil.copy(copy / "train/X/c/1/0/0", file)
    found = datagen.verify(datagen.open_store(copy))
    assert len(found.bad) == 1
    assert found.bad[0].startswith(words)
    assert "\n" not in found.bad[0]
    assert found.identical == 3


def test_any_flipped_byte_of_a_shard_is_noticed(copy: Path) -> None:
    file = copy / "val/X/c/0/0/0"
    whole = file.read_bytes()
    used = [*range(0, 40 * 32 * 32 * 8, 30_011), *range(len(whole) - 20, len(whole))]  # samples, and the shard's index
    for position in used:
        flip_byte(file, position)
        assert datagen.verify(datagen.open_store(copy)).bad, position
        file.write_bytes(whole)


def test_regenerate_over_a_damaged_store(small_store: Store, copy: Path) -> None:
    (copy / "val/X/c/0/0/0").unlink()
    with pytest.raises(VerificationError, match=r"was there already and is not cdl-c-fdd-v1: val shard 0.* is missing"):
        datagen.regenerate(small_store.manifest, copy)
    assert datagen.regenerate(small_store.manifest, copy, force=True)[1].identical == 4


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("train/X/zarr.json", '"delay"', '"dealy"'),
        ("zarr.json", '"version": 1', '"version": 2'),
        ("zarr.json", '"endian": "little"', '"endian": "big"'),  # in the consolidated copy that xarray reads
        ("val/zarr.json", '"units": "1"', '"units": "V"'),
        ("zarr.json", '"complete": true', '"target": "X", "complete": true'),
    ],
)
def test_verify_reads_the_metadata_too(copy: Path, file: str, old: str, new: str) -> None:
    text = (copy / file).read_text()
    assert old in text
    (copy / file).write_text(text.replace(old, new))
    found = datagen.verify(datagen.open_store(copy))
    assert found.bad == [f"{file} is not the metadata that belongs to this data set"]


def test_verify_names_foreign_files(copy: Path) -> None:
    (copy / "train" / "notes.txt").write_text("hello")
    assert datagen.verify(datagen.open_store(copy)).bad == ["train/notes.txt does not belong in a store"]


@pytest.mark.parametrize("file", ["zarr.json", "train/zarr.json", "train/X/zarr.json"])
def test_any_damage_to_metadata_is_one_clear_line(copy: Path, file: str) -> None:
    whole = (copy / file).read_bytes()
    content = json.loads(whole)
    rng = np.random.default_rng(0)
    for position in rng.choice(len(whole), 60, replace=False).tolist():
        damaged = bytearray(whole)
        damaged[position] ^= 1 << int(rng.integers(7))
        if (same := _json_or_none(bytes(damaged))) is not None and same == content:
            continue  # white space
        (copy / file).write_bytes(damaged)
        try:
            found = datagen.verify(datagen.open_store(copy)).bad
        except DatagenError as refused:
            found = [str(refused)]
        assert found, (position, bytes(damaged[position - 20 : position + 20]))
        assert "\n" not in found[0]


def _json_or_none(text: bytes) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return None


@pytest.mark.parametrize("text", ["5", '"x"', "null", "[" * 5000, '{"attributes": 3}'])
def test_roots_that_are_no_group(copy: Path, text: str) -> None:
    (copy / "zarr.json").write_text(text)
    with pytest.raises(DatagenError, match="is not a datagen store"):
        datagen.open_store(copy)


def test_other_shard_sizes_can_be_the_same_bits(small_store: Store, tmp_path: Path) -> None:
    other = datagen.generate(small_recipe(), tmp_path / "s.zarr", shard_samples=1024)
    found = datagen.verify(other, small_store.manifest)
    assert (found.bad, found.identical, found.shards, found.error) == ([], 4, 4, 0)


def test_more_memory_than_there_is(tmp_path: Path) -> None:
    with pytest.raises(DatagenError, match=r"2 workers need about \d+\.\d GB of memory.*--shard-samples"):
        datagen.generate(small_recipe(antennas=1024, subcarriers=4096, crop_taps=4096), tmp_path / "s.zarr", workers=2)
    assert os.listdir(tmp_path) == []


def test_a_bad_date_is_known_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(DatagenError, match="SOURCE_DATE_EPOCH"):
        datagen.generate(small_recipe(), tmp_path / "s.zarr")
    assert os.listdir(tmp_path) == []
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    assert datagen.generate(small_recipe(train=5), tmp_path / "s.zarr").manifest.created == "1970-01-01T00:00:00Z"


def test_an_edited_embedded_manifest_is_noticed(copy: Path) -> None:
    meta = json.loads((copy / "zarr.json").read_text())
    meta["attributes"]["manifest"]["shards"][0]["arrays"]["X"]["energy"] *= 2
    (copy / "zarr.json").write_text(json.dumps(meta))
    with pytest.raises(VerificationError, match="was edited"):
        datagen.verify(datagen.open_store(copy))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"workers": -1}, "give 0"),
        ({"shard_samples": 100}, "give a multiple of 256"),
        ({"engine": "magic"}, "allowed: closed-form, sionna"),
        ({"device": "cuda:99"}, "use --device cpu"),
        ({"device": "cuda:x"}, "unknown device"),
        ({"scheduler": "tcp://127.0.0.1:9"}, "no Dask scheduler answers at tcp://127.0.0.1:9"),
        ({"scheduler": "nonsense://x"}, "no Dask scheduler answers"),
    ],
)
def test_bad_options_leave_nothing_behind(
    tmp_path: Path, options: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "SCHEDULER_TIMEOUT_S", 1)
    with pytest.raises(DatagenError, match=words):
        datagen.generate(small_recipe(), tmp_path / "s.zarr", **options)
    assert os.listdir(tmp_path) == []


def test_paths_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(DatagenError, match="does not exist; make it first"):
        datagen.generate(small_recipe(), tmp_path / "no" / "s.zarr")
    with pytest.raises(DatagenError, match="cannot write"):
        datagen.generate(small_recipe(), "/proc/s.zarr")


def test_a_disk_too_small_is_known_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(DatagenError, match=r"needs 24\d{5}\.\d GB more and the disk has"):
        datagen.generate(small_recipe(train=100_000_000_000), tmp_path / "s.zarr")
    assert os.listdir(tmp_path) == []


def test_a_shard_that_reads_back_wrong_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that loses writes: nothing is noted for such a shard, and the store is not finished."""
    monkeypatch.setattr(stores, "write", lambda *_: None)
    with pytest.raises(DatagenError, match=r"train shard 0.*reads back wrong: .* is missing"):
        datagen.generate(small_recipe(), tmp_path / "s.zarr")
    assert os.listdir(tmp_path) == []


def test_only_one_run_at_a_path(tmp_path: Path) -> None:
    with (
        Ledger(tmp_path / "s.zarr", {}).locked(),
        pytest.raises(DatagenError, match=f"is being written by process {os.getpid()}"),
    ):
        datagen.generate(small_recipe(), tmp_path / "s.zarr")


def test_plan_covers_every_sample_once() -> None:
    plan = Plan(small_recipe(train=10_000, val=1, test=4096), 4096)
    for split, size in plan.recipe.splits.items():
        covered = [i for shard in plan.shards if shard.split == split for i in range(shard.start, shard.stop)]
        assert covered == list(range(size))
    assert plan.store_bytes == (40 + 1 + 16) * 256 * 3 * 8192


def test_memory_estimate_does_not_depend_on_the_number_of_samples() -> None:
    assert Plan(small_recipe(train=10**9)).worker_bytes == Plan(small_recipe()).worker_bytes < 1.5e9
