"""Stores in a bucket, against a server that speaks S3 on loopback: make, resume, refuse, replace, verify, read, all by URL."""

from __future__ import annotations

import json
import logging
import os
import pickle
import socket
import time
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from moto.server import ThreadedMotoServer

import datagen
from datagen import DatagenError, Interrupted, Store, VerificationError, execute, lease, ledger
from datagen import place as places
from datagen import store as stores
from datagen.bucket import BucketError, BucketPath
from datagen.ledger import Ledger
from datagen.place import place, sizes
from datagen.plan import Plan, Shard
from tests.conftest import Cli, assert_one_line_error, small_recipe, start_cli
from tests.test_execute import assert_same_samples, fail_writes
from tests.test_faults import dask_cluster, wait_for
from tests.test_matfile import ht, savemat

SMALL = ("cdl", "--seed", "7", "--train", "600", "--val", "40", "--test", "0", "--shard-samples", "256")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Address of an S3 server of this module's own."""
    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    yield f"http://{host}:{port}"
    moto.stop()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of an empty bucket, reached by the environment of this process and of its children."""
    settings = {
        "AWS_ENDPOINT_URL": server, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1", "SOURCE_DATE_EPOCH": "1700000000", "NO_PROXY": "127.0.0.1",
    }  # fmt: skip
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    name = f"test-{uuid.uuid4().hex}"
    request(f"{server}/{name}")
    return f"s3://{name}"


def request(url: str, data: bytes = b"", method: str = "PUT") -> None:
    plain = {"Content-Type": "application/octet-stream"}
    with urllib.request.urlopen(urllib.request.Request(url, data=data, headers=plain, method=method)) as answer:
        answer.read()


@pytest.fixture
def local(tmp_path: Path, bucket: str) -> Store:
    """The same small data set in a directory, made at the same date."""
    return datagen.generate(small_recipe(), tmp_path / "local.zarr", shard_samples=256)


@pytest.fixture
def out(bucket: str) -> BucketPath:
    """Where a store shall be."""
    return at(f"{bucket}/data/s.zarr")


def at(url: str) -> BucketPath:
    found = place(url)
    assert isinstance(found, BucketPath)
    return found


def objects(out: BucketPath) -> set[str]:
    """Every name in the bucket's directory where the store is."""
    return set(sizes(out.parent))


def make(out: BucketPath, **options: Any) -> Store:
    return datagen.generate(small_recipe(), out, shard_samples=256, **options)


def test_the_same_objects_as_the_files_of_a_local_store(cli: Cli, local: Store, out: BucketPath) -> None:
    result = cli(*SMALL, "--out", str(out), "--workers", "2", "--json")
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    facts = json.loads(result.stdout)
    assert facts["path"] == str(out)
    assert facts["digest"] == local.manifest.digest
    directory = Path(str(local.path))
    assert objects(out) == {f"s.zarr/{name}" for name in sizes(directory)}
    for name in sizes(directory):
        assert (out / name).read()[0] == (directory / name).read_bytes(), name
    again = cli(*SMALL, "--out", f"{out}/")
    assert "already there, nothing done" in again.stdout


def test_in_this_process_by_url(local: Store, out: BucketPath) -> None:
    made = datagen.generate(small_recipe(), str(out), shard_samples=256)
    assert made.path == str(out)
    assert_same_samples(made, local)
    assert made.manifest == local.manifest
    opened = datagen.open_store(str(out))
    assert_same_samples(opened, local)
    found = datagen.verify(opened, local.manifest)
    assert (found.bad, found.identical) == ([], 4)
    with pytest.raises(DatagenError, match=r"no array H.*it has X, Y, Z"):
        opened["val"]["H"]


def test_the_other_commands_take_urls(cli: Cli, tmp_path: Path, local: Store, out: BucketPath) -> None:
    manifest = tmp_path / "m.json"
    manifest.write_text(local.manifest.to_json())
    result = cli("regenerate", str(manifest), "--out", str(out), "--workers", "0", "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["identical_shards"] == 4
    assert cli("verify", str(out)).stdout.startswith(f"{out}: all 4 shards hold the samples")
    assert cli("verify", str(out), "--manifest", str(manifest), "--quiet").returncode == 0
    facts = json.loads(cli("inspect", str(out), "--json").stdout)
    assert facts["bytes"] == sum(sizes(Path(str(local.path))).values())
    assert cli("inspect", str(out), "--plot", "p.png").returncode == 0
    assert cli("manifest", str(out)).stdout == manifest.read_text()
    assert "sc:Dataset" in cli("manifest", str(out), "--croissant").stdout
    dry = cli(*SMALL, "--out", f"{out}2", "--dry-run", "--json")
    assert json.loads(dry.stdout)["free_bytes"] is None
    assert "nothing written" in cli(*SMALL, "--out", f"{out}2", "--dry-run").stdout
    assert {name.partition("/")[0] for name in objects(out)} == {"s.zarr"}
    assert sorted(os.listdir(tmp_path)) == ["local.zarr", "m.json", "p.png"]


def test_every_scenario_goes_to_a_bucket(cli: Cli, tmp_path: Path, bucket: str) -> None:
    sizes_ = ("--train", "300", "--val", "0", "--test", "0")
    commands = {
        "cost": ("cost2100", "--scenario", "indoor", "--keep-band", "4", *sizes_),
        "uplink": ("inh", "--uplink", *sizes_),
        "mat": ("import", "--train", "a.mat"),
    }
    savemat(tmp_path / "a.mat", "HT", ht(300), do_compression=True)
    for name, command in commands.items():
        made = [
            cli(*command, "--out", out, "--json", "--workers", "2") for out in (f"{bucket}/{name}.zarr", f"{name}.zarr")
        ]
        assert [result.returncode for result in made] == [0, 0], made[0].stderr
        assert len({json.loads(result.stdout)["digest"] for result in made}) == 1
        assert cli("verify", f"{bucket}/{name}.zarr").returncode == 0
    assert "official indoor set" in cli("inspect", f"{bucket}/cost.zarr", "--fidelity").stdout


def test_regenerate(local: Store, out: BucketPath) -> None:
    assert datagen.regenerate(local.manifest, str(out))[1].identical == 4
    (out / "val/X/c/0/0/0").unlink()
    with pytest.raises(VerificationError, match=r"was there already and is not cdl-c-fdd-v1: val shard 0.* is missing"):
        datagen.regenerate(local.manifest, str(out))
    assert datagen.regenerate(local.manifest, str(out), force=True)[1].identical == 4
    assert datagen.verify(datagen.open_store(str(out))).bad == []


def test_other_readers(local: Store, out: BucketPath) -> None:
    from zoo.data import Store as ZooStore
    from zoo.errors import ZooError

    make(out)
    theirs, ours = ZooStore(str(out)), ZooStore(str(local.path))
    assert theirs.sizes == ours.sizes
    for a, b in zip(theirs.read("train", 200, 600), ours.read("train", 200, 600), strict=True):
        assert a is not None
        assert b is not None
        assert a.equal(b)
    with pytest.raises(ZooError, match=r"is not a CSI store .*if its bucket, endpoint and credentials"):
        ZooStore(f"{out}.absent")


def test_zoo_commands_take_urls(zoo_cli: Cli, tmp_path: Path, local: Store, out: BucketPath) -> None:
    make(out)
    for source, payloads in ((str(out), "theirs"), (str(local.path), "ours")):
        result = zoo_cli("compress", "klt-cdl-128b", source, payloads, "--split", "val", "--quiet")
        assert result.returncode == 0, result.stderr
    assert (tmp_path / "theirs").read_bytes() == (tmp_path / "ours").read_bytes()
    assert_one_line_error(zoo_cli("limits", f"{out}.absent"), 2, f"{out}.absent is not a CSI store")


def test_tensorflow_reads_it(local: Store, out: BucketPath) -> None:
    pytest.importorskip("tensorflow")
    make(out)
    ((x, _, _),) = list(datagen.tf_dataset(str(out), "val", 64))
    np.testing.assert_array_equal(x.numpy(), local["val"].X[:])


# resume ----------------------------------------------------------------------------------------------------------------------


def wip(out: BucketPath) -> BucketPath:
    return out.with_name("s.zarr.wip")


def assert_whole(out: BucketPath, like: Store) -> None:
    """The store is complete, equal to another, and alone in its directory."""
    store = datagen.open_store(str(out))
    found = datagen.verify(store, like.manifest)
    assert (found.bad, found.identical) == ([], found.shards)
    assert_same_samples(store, like)
    assert {name.partition("/")[0] for name in objects(out)} == {"s.zarr"}


def count_writes(monkeypatch: pytest.MonkeyPatch) -> list[Shard]:
    """The shards written from now on."""
    write = stores.write
    written: list[Shard] = []

    def counting(path: places.Place, shard: Shard, arrays: Any) -> None:
        written.append(shard)
        write(path, shard, arrays)

    monkeypatch.setattr(stores, "write", counting)
    return written


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (OSError(5, "Input/output error"), DatagenError, "2 of 4 shards are left"),
        (KeyboardInterrupt(), Interrupted, "2 of 4 shards are in s3://"),
    ],
)
def test_a_stopped_run_goes_on(
    local: Store, out: BucketPath, monkeypatch: pytest.MonkeyPatch, error: BaseException, kind: type[DatagenError], words: str
) -> None:  # fmt: skip
    with monkeypatch.context() as patch:
        fail_writes(patch, after=2, error=error)
        with pytest.raises(kind, match=words):
            make(out)
    with pytest.raises(DatagenError, match="unfinished run lies in"):
        datagen.open_store(str(out))
    with pytest.raises(DatagenError, match="unfinished run with another recipe"):
        datagen.generate(small_recipe(seed=8), str(out), shard_samples=256)
    assert not any(name.endswith("/lock") for name in objects(out))
    written = count_writes(monkeypatch)
    make(out)
    assert [shard.key for shard in written] == ["train-000002", "val-000000"]  # the others were kept
    assert_whole(out, local)


def test_nothing_is_left_of_a_run_that_finished_no_shard(out: BucketPath, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        fail_writes(patch, after=0, error=KeyboardInterrupt())
        with pytest.raises(Interrupted, match="no shard was finished"):
            make(out)
    assert objects(out) == set()


@pytest.mark.parametrize("damage", ["flip", "remove", "record"])
def test_a_resumed_run_does_not_trust_the_ledger(
    local: Store, out: BucketPath, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    with monkeypatch.context() as patch:
        fail_writes(patch, after=2, error=KeyboardInterrupt())
        with pytest.raises(Interrupted):
            make(out)
    (shard,) = wip(out).glob("*/data.zarr/train/Y/c/1/0/0")
    if damage == "flip":
        flip_byte(shard, 1000)
    elif damage == "remove":
        shard.unlink()
    else:
        (record,) = wip(out).glob("*/ledger/train-000001.json")
        record.put(b"{torn")
    make(out)
    assert_whole(out, local)


def flip_byte(file: BucketPath, position: int) -> None:
    data = bytearray(file.read()[0])
    data[position] ^= 0x10
    file.put(bytes(data))


def test_kill_everything(tmp_path: Path, out: BucketPath, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL to the client and its workers: the lock that they leave is a dead process's, what is recorded is kept."""
    shards = 16
    fields = {"train": 256 * shards, "val": 0, "antennas": 16, "crop_taps": 16}
    command = ["cdl", "--seed", "7", "--train", str(256 * shards), "--val", "0", "--test", "0", "--antennas", "16", "--crop", "16"]  # fmt: skip
    process = start_cli(*command, "--shard-samples", "256", "--out", str(out), "--workers", "2", cwd=tmp_path)
    wait_for(lambda: len(list(wip(out).glob("*/ledger/*.json"))) >= 3, process)
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for member in family:
        member.kill()
    process.communicate(timeout=60)
    psutil.wait_procs(family, timeout=10)
    recorded = len(list(wip(out).glob("*/ledger/*.json")))
    assert 3 <= recorded < shards
    assert (wip(out) / "lock").exists()
    assert not out.exists()
    written = count_writes(monkeypatch)
    recipe = small_recipe(**fields)
    datagen.generate(recipe, str(out), shard_samples=256)
    assert len(written) == shards - recorded
    assert_whole(out, datagen.generate(recipe, tmp_path / "local.zarr", shard_samples=256))


# publish ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("force", [False, True])
def test_death_while_publishing(local: Store, out: BucketPath, monkeypatch: pytest.MonkeyPatch, force: bool) -> None:
    """Some objects are copied, the root metadata are not: no reader takes that for a store, and the same command goes on."""
    if force:
        datagen.generate(small_recipe(train=10, model="A"), str(out))
    copy_to = BucketPath.copy_to
    copied: list[BucketPath] = []

    def die_at_fifth(self: BucketPath, target: BucketPath) -> None:
        if len(copied) >= 5:
            raise SystemExit
        copied.append(target)
        copy_to(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(BucketPath, "copy_to", die_at_fifth)
        with pytest.raises(SystemExit):
            make(out, force=force)
    assert out.exists()
    with pytest.raises(DatagenError, match=r"is not a datagen store .*an unfinished run lies in"):
        datagen.open_store(str(out))
    with pytest.raises(DatagenError, match="unfinished run with another recipe"):
        datagen.generate(small_recipe(seed=8), str(out), shard_samples=256)
    written = count_writes(monkeypatch)
    make(out)
    assert written == []
    assert_whole(out, local)


def test_death_while_tidying_up(local: Store, out: BucketPath, monkeypatch: pytest.MonkeyPatch) -> None:
    remove = places.remove

    def die(where: places.Place, **options: Any) -> None:
        if str(where).endswith("data.zarr"):
            raise SystemExit
        remove(where, **options)

    with monkeypatch.context() as patch:
        patch.setattr(places, "remove", die)
        with pytest.raises(SystemExit):
            make(out)
    assert datagen.verify(datagen.open_store(str(out))).bad == []
    written = count_writes(monkeypatch)
    make(out)
    assert written == []
    assert_whole(out, local)


def test_another_recipe_is_refused_and_force_replaces(local: Store, out: BucketPath) -> None:
    old = datagen.generate(small_recipe(train=2000, model="A"), str(out), shard_samples=256).manifest
    with pytest.raises(DatagenError, match=r"another recipe \(differing in model, name, train\).*--force"):
        make(out)
    assert datagen.open_store(str(out)).manifest == old
    make(out, force=True)
    assert_whole(out, local)  # with none of the old store's shards


def test_force_keeps_the_old_store_until_the_new_one_is_complete(
    local: Store, out: BucketPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = make(out).manifest
    with monkeypatch.context() as patch:
        fail_writes(patch, after=1, error=OSError(5, "Input/output error"))
        with pytest.raises(DatagenError, match="Input/output error"):
            datagen.generate(small_recipe(model="A"), str(out), force=True, shard_samples=256)
    store = datagen.open_store(str(out))
    assert store.manifest == old
    assert datagen.verify(store).bad == []


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("content", ["s.zarr", "s.zarr/thesis.tex", "s.zarr/zarr.json"])
def test_what_is_no_store_is_never_replaced(out: BucketPath, content: str, force: bool) -> None:
    (out.parent / content).put(b"precious")
    with pytest.raises(DatagenError, match="exists and is no datagen store; give another --out"):
        make(out, force=force)
    assert (out.parent / content).read_text() == "precious"
    assert objects(out) == {content}


@pytest.mark.parametrize("moment", ["before", "during"])
def test_a_store_that_appears_meanwhile_is_not_replaced(
    out: BucketPath, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    function = "finish" if moment == "before" else "move"
    home = stores if moment == "before" else ledger
    original = getattr(home, function)

    def late(*args: Any, **options: Any) -> None:
        if moment == "during":
            options["before_root"] = lambda: (out / "zarr.json").put(b"precious")
        else:
            (out / "zarr.json").put(b"precious")
        original(*args, **options)

    monkeypatch.setattr(home, function, late)
    with pytest.raises(DatagenError, match="has appeared meanwhile"):
        make(out)
    assert (out / "zarr.json").read_text() == "precious"


def test_what_is_not_accepted_is_dropped(out: BucketPath) -> None:
    def accept(_: object) -> None:
        raise VerificationError("no")

    with pytest.raises(VerificationError, match="no"):
        make(out, accept=accept)
    assert objects(out) == set()


# the lock --------------------------------------------------------------------------------------------------------------------


def hold(out: BucketPath, **holder: object) -> None:
    (wip(out) / "lock").put(
        json.dumps({"host": "elsewhere", "pid": 1, "started": 0, "token": "theirs", **holder}).encode()
    )


def test_only_one_run_at_a_place(out: BucketPath) -> None:
    me = f"is being written by process {os.getpid()} on {os.uname().nodename}; wait for it, or give another --out"
    with Ledger(out, {}).locked(), pytest.raises(DatagenError, match=me):
        make(out)
    assert objects(out) == set()


def test_a_lock_of_another_machine_is_heeded_until_it_is_abandoned(
    local: Store, out: BucketPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold(out)
    with pytest.raises(DatagenError, match="is being written by process 1 on elsewhere"):
        make(out)
    assert objects(out) == {"s.zarr.wip/lock"}
    (wip(out) / "lock").put(b"who knows")
    with pytest.raises(DatagenError, match="is being written by another process"):
        make(out)
    monkeypatch.setattr(lease, "ABANDONED_S", -1)
    make(out)
    assert_whole(out, local)


@pytest.mark.parametrize(
    "pid", [os.getpid(), 2**22 + 1, "nonsense"], ids=["another process's now", "ended", "nonsense"]
)
def test_a_lock_of_a_process_that_ended_here_is_taken_over(local: Store, out: BucketPath, pid: object) -> None:
    hold(out, host=os.uname().nodename, pid=pid)
    make(out)
    assert_whole(out, local)


def test_a_lock_is_renewed_and_released(out: BucketPath, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT_S", 0.02)
    lock = wip(out) / "lock"
    with lease.lease(lock, out) as held:
        deadline = time.monotonic() + 20
        while json.loads(lock.read_text())["beat"] < 4:
            assert time.monotonic() < deadline
        held._tag = {"e_tag": '"lost"'}  # as if the answer to a renewal had not arrived
        held.renew()
    assert not lock.exists()


def test_a_run_that_lost_its_lock_publishes_nothing(out: BucketPath, monkeypatch: pytest.MonkeyPatch) -> None:
    finish = stores.finish

    def slow(*args: Any) -> None:
        finish(*args)
        hold(out)

    monkeypatch.setattr(stores, "finish", slow)
    with pytest.raises(DatagenError, match=r"was taken over by process 1 on elsewhere, as this run was not heard of"):
        make(out)
    assert not out.exists()
    assert json.loads((wip(out) / "lock").read_text())["token"] == "theirs"


def test_a_run_that_lost_its_lock_removes_nothing(out: BucketPath, monkeypatch: pytest.MonkeyPatch) -> None:
    def lose(*_: object) -> None:
        (wip(out) / "theirs").put(b"precious")
        hold(out)
        raise KeyboardInterrupt

    monkeypatch.setattr(stores, "write", lose)
    with pytest.raises(DatagenError, match="was taken over by process 1 on elsewhere"):
        make(out)
    assert {"s.zarr.wip/theirs", "s.zarr.wip/lock"} < objects(out)


def test_two_processes_at_one_place(cli: Cli, tmp_path: Path, out: BucketPath) -> None:
    first = start_cli("cdl", "--train", "40000", "--val", "0", "--test", "0", "--shard-samples", "256", "--antennas", "8",
                      "--workers", "0", "--out", str(out), cwd=tmp_path)  # fmt: skip
    wait_for(lambda: (wip(out) / "lock").exists(), first)
    assert_one_line_error(cli(*SMALL, "--out", str(out)), 2, f"is being written by process {first.pid}")
    first.kill()
    first.communicate(timeout=60)


# verify ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        ("train/X/c/1/0/0", "flip", "bad: train shard 1 (samples 256 to 511): train/X/c/1/0/0 cannot be read"),
        ("val/Z/c/0/0/0", "truncate", "bad: val shard 0 (samples 0 to 39): val/Z/c/0/0/0 cannot be read"),
        ("val/Z/c/0/0/0", "empty", "bad: val shard 0 (samples 0 to 39): val/Z/c/0/0/0"),
        ("train/Y/c/2/0/0", "remove", "bad: train shard 2 (samples 512 to 599): train/Y/c/2/0/0 is missing"),
        ("train/X/c/0/0/0", "swap", "bad: train shard 0 (samples 0 to 255): train/X/c/0/0/0 has other samples"),
        ("train/X/zarr.json", "remove", "bad: train/X/zarr.json cannot be read"),
        ("notes.txt", "add", "bad: notes.txt does not belong in a store"),
    ],
)
def test_verify_names_what_is_bad(cli: Cli, out: BucketPath, name: str, damage: str, words: str) -> None:
    make(out)
    file = out / name
    if damage == "flip":
        flip_byte(file, 12_345)
    elif damage == "truncate":
        file.put(file.read()[0][:-1])
    elif damage == "empty":
        file.put(b"")
    elif damage == "remove":
        file.unlink()
    elif damage == "swap":
        (out / "train/X/c/1/0/0").copy_to(file)
    else:
        file.put(b"hello")
    result = cli("verify", str(out), "--quiet")
    if name.endswith("X/zarr.json"):
        assert_one_line_error(result, 2, "train/X is not the complex64 array")
        return
    assert result.returncode == 1, result.stderr
    (line,) = result.stdout.splitlines()
    assert line.startswith(words)


def test_a_network_that_fails_is_no_damage(out: BucketPath, monkeypatch: pytest.MonkeyPatch) -> None:
    record = make(out).manifest.shards[0]

    def fail(*_: object) -> None:
        raise BucketError(f"{out}: the server cannot be reached")

    monkeypatch.setattr(stores, "read", fail)
    monkeypatch.setattr(BucketPath, "check", fail)
    with pytest.raises(DatagenError, match="cannot be reached"):
        stores.bad_arrays(out, record)


# a cluster -------------------------------------------------------------------------------------------------------------------


def test_a_given_cluster(cli: Cli, tmp_path: Path, local: Store, out: BucketPath) -> None:
    with dask_cluster(tmp_path) as (address, _):
        deadline = time.monotonic() + 60
        while (check := cli("cluster-check", address, "--directory", str(out.parent))).returncode == 2:
            assert "no workers" in check.stderr
            assert time.monotonic() < deadline
        assert f"1 workers can write {out.parent}" in check.stdout
        assert objects(out) == set()
        absent = "s3://no-such-bucket/data"
        assert_one_line_error(
            cli("cluster-check", address, "--directory", absent), 2, f"cannot write {absent}", "AWS_ACCESS_KEY_ID"
        )
        result = cli(*SMALL, "--out", str(out), "--scheduler", address)
        assert result.returncode == 0, result.stderr
    assert_whole(out, local)


def test_workers_get_an_address_and_no_secrets(out: BucketPath, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    job = execute.Job(at(str(out)), Plan(small_recipe()), "closed-form", "cpu")
    sent = pickle.dumps((job, job.ledger))
    assert b"hush" not in sent
    assert pickle.loads(sent)[1].data == job.ledger.data


# what cannot work ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("s3://", "is no place for a store; allowed: a path, s3://BUCKET/NAME"),
        ("foo://bucket/s.zarr", "is no place for a store"),
        ("http://host/s.zarr", "is no place for a store"),
        ("file:///tmp/s.zarr", "is no place for a store"),
        ("s3://bucket", "names no directory to make"),
        ("s3://bucket/", "names no directory to make"),
        ("s3://bucket/a?b", "may hold no"),
        ("s3://bucket/a#1.zarr", "may hold no"),
        ("s3://bucket/a//b", "may hold no"),
        ("s3://bucket/../b", "may hold no"),
    ],
)
def test_urls_that_name_no_place(bucket: str, cli: Cli, url: str, words: str) -> None:
    with pytest.raises(DatagenError, match=words):
        datagen.generate(small_recipe(), url)
    if url in ("s3://bucket", "foo://bucket/s.zarr"):
        assert_one_line_error(cli(*SMALL, "--out", url), 2, words)
        assert_one_line_error(cli("verify", url), 2, words)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    ("fault", "command"),
    [
        *(("unreachable", command) for command in ("make", "dry-run", "regenerate", "verify")),
        *(("missing", command) for command in ("make", "inspect", "manifest")),
        ("no TLS", "make"),
    ],
)
def test_buckets_out_of_reach_are_one_line_within_seconds(
    cli: Cli, tmp_path: Path, small_store: Store, bucket: str, monkeypatch: pytest.MonkeyPatch, fault: str, command: str
) -> None:
    out, words = f"{bucket}/s.zarr", "the server cannot be reached; check the network and AWS_ENDPOINT_URL"
    if fault == "missing":
        out, words = "s3://no-such-bucket/s.zarr", "there is no such bucket"
    elif fault == "unreachable":
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    else:
        monkeypatch.setenv("AWS_ALLOW_HTTP", "false")
        words = "set AWS_ALLOW_HTTP=true"
    manifest = tmp_path / "m.json"
    manifest.write_text(small_store.manifest.to_json())
    arguments = {
        "make": (*SMALL, "--out", out),
        "dry-run": (*SMALL, "--out", out, "--dry-run"),
        "regenerate": ("regenerate", str(manifest), "--out", out),
    }.get(command, (command, out))
    start = time.monotonic()
    assert_one_line_error(cli(*arguments), 2, out, words)
    assert time.monotonic() - start < 10
    assert os.listdir(tmp_path) == ["m.json"]


def test_wrong_credentials(server: str, cli: Cli, out: BucketPath) -> None:
    request(f"{server}/moto-api/reset-auth", b"0", "POST")  # from now on the server minds them
    try:
        for arguments in ((*SMALL, "--out", str(out)), ("verify", str(out))):
            assert_one_line_error(cli(*arguments), 2, "access is denied; check the credentials", "AWS_ACCESS_KEY_ID")
    finally:
        request(f"{server}/moto-api/reset-auth", b"inf", "POST")
    assert objects(out) == set()


def test_shards_too_large_to_copy(out: BucketPath) -> None:
    with pytest.raises(DatagenError, match=r"shards of 8\.6 GB are too large for a bucket.*--shard-samples"):
        datagen.generate(small_recipe(), str(out), shard_samples=1 << 20)
    assert objects(out) == set()
