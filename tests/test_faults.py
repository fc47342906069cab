"""Real deaths: SIGKILL of a worker, of the client, of the scheduler, of everything; a full disk; two runs at one path.

Every case ends in a store with the samples of an undisturbed run, or in one clear line and a run that can be taken up again.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

import datagen
from datagen import Manifest
from tests.conftest import DATAGEN, Cli, assert_one_line_error, small_recipe, start_cli

# small samples, many shards: long enough to be hit in the middle, light on the disk
SHARDS = 120
FIELDS = {"train": 256 * SHARDS, "val": 0, "antennas": 16, "crop_taps": 16}
COMMAND = [
    "cdl",
    "--seed",
    "7",
    "--train",
    str(FIELDS["train"]),
    "--val",
    "0",
    "--test",
    "0",
    "--antennas",
    "16",
    "--crop",
    "16",
]
COMMAND += ["--shard-samples", "256", "--out", "s.zarr"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return datagen.generate(
        small_recipe(**FIELDS), tmp_path_factory.mktemp("ref") / "s.zarr", shard_samples=256
    ).manifest


def assert_whole(directory: Path, undisturbed: Manifest) -> None:
    store = datagen.open_store(directory / "s.zarr")
    found = datagen.verify(store, undisturbed)
    assert found.bad == []
    assert found.identical == SHARDS
    assert not (directory / "s.zarr.wip").exists()
    assert {file.name for file in (directory / "s.zarr").rglob("*") if file.is_file()} == {
        "zarr.json",
        "0",
    }  # no torn writes


def wait_for(condition: object, process: subprocess.Popen[str], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.01)


def recorded(directory: Path) -> int:
    return len(list((directory / "s.zarr.wip").glob("*/ledger/*.json")))


def workers_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    children = psutil.Process(process.pid).children(recursive=True)
    return [child for child in children if any("spawn_main" in part for part in child.cmdline())]


def test_kill_a_worker(tmp_path: Path, undisturbed: Manifest) -> None:
    process = start_cli(*COMMAND, "--workers", "2", cwd=tmp_path)
    wait_for(lambda: recorded(tmp_path) >= 3, process)
    victim = workers_of(process)[0]
    victim.kill()
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "Traceback" not in err
    assert_whole(tmp_path, undisturbed)


def test_kill_the_client(tmp_path: Path, cli: Cli, undisturbed: Manifest) -> None:
    process = start_cli(*COMMAND, "--workers", "1", cwd=tmp_path)
    wait_for(lambda: recorded(tmp_path) >= 3, process)
    process.kill()
    process.communicate(timeout=60)
    assert 3 <= recorded(tmp_path) < SHARDS
    assert not (tmp_path / "s.zarr").exists()
    assert_one_line_error(cli("verify", "s.zarr"), 2, "unfinished run lies in")
    result = cli(*COMMAND, "--workers", "0")
    assert result.returncode == 0, result.stderr
    assert_whole(tmp_path, undisturbed)


def test_kill_everything_again_and_again(tmp_path: Path, cli: Cli, undisturbed: Manifest) -> None:
    """In this process alone there is little start-up, so that a random moment falls anywhere, the finish included."""
    moments = random.Random(2)
    alive = 0
    for _ in range(6):
        process = start_cli(*COMMAND, "--workers", "0", cwd=tmp_path)
        wait_for(lambda: (tmp_path / "s.zarr.wip" / "lock").exists() or (tmp_path / "s.zarr").exists(), process)
        time.sleep(moments.uniform(0, 4.0))
        alive += process.poll() is None
        with suppress(ProcessLookupError):  # finished already
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)
    assert alive >= 1
    result = cli(*COMMAND, "--workers", "0")
    assert result.returncode == 0, result.stderr
    assert_whole(tmp_path, undisturbed)


def test_ctrl_c_stops_cleanly_and_says_how_to_go_on(tmp_path: Path, cli: Cli, undisturbed: Manifest) -> None:
    process = start_cli(*COMMAND, "--workers", "2", cwd=tmp_path)
    wait_for(lambda: recorded(tmp_path) >= 2, process)
    os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to the workers too
    out, err = process.communicate(timeout=60)
    assert_one_line_error(
        subprocess.CompletedProcess("", process.returncode, out, err),
        130,
        "shards are in",
        "same command again to go on",
    )
    assert recorded(tmp_path) >= 2
    assert cli(*COMMAND, "--workers", "0").returncode == 0
    assert_whole(tmp_path, undisturbed)


@contextmanager
def dask_cluster(directory: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A scheduler and a worker started by Dask's own commands, as a site would: (address, scheduler process)."""
    address_file = directory / "scheduler.json"
    dask = [str(DATAGEN.with_name("dask"))]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    scheduler = subprocess.Popen(
        [
            *dask,
            "scheduler",
            "--host",
            "127.0.0.1",
            "--port",
            "0",
            "--no-dashboard",
            "--scheduler-file",
            str(address_file),
        ],
        **quiet,
    )  # type: ignore[call-overload]
    worker = subprocess.Popen(
        [*dask, "worker", "--scheduler-file", str(address_file), "--nworkers", "1", "--nthreads", "1", "--no-dashboard"],
        cwd=directory, **quiet,
    )  # type: ignore[call-overload]  # fmt: skip
    try:
        import json

        deadline = time.monotonic() + 30
        while not address_file.exists() or not address_file.read_text().endswith("}"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield json.loads(address_file.read_text())["address"], scheduler
    finally:
        for process in (worker, scheduler):
            process.kill()
            process.wait()


def test_a_given_cluster(tmp_path: Path, cli: Cli, undisturbed: Manifest) -> None:
    """cluster-check, a run on it, and the scheduler's death in the middle of another."""
    out = tmp_path / "out"
    out.mkdir()
    site = tmp_path / "site"
    site.mkdir()
    with dask_cluster(site) as (address, scheduler):
        deadline = time.monotonic() + 30
        while (
            check := cli("cluster-check", address, "--directory", out)
        ).returncode == 2 and "no workers" in check.stderr:
            assert time.monotonic() < deadline
        assert check.returncode == 0, check.stderr
        assert "1 workers can write" in check.stdout
        assert_one_line_error(
            cli("cluster-check", address, "--directory", tmp_path / "unseen"),
            2,
            "cannot write",
            "share that file system",
        )

        command = [part if part != "s.zarr" else str(out / "s.zarr") for part in COMMAND]
        result = cli(*command, "--scheduler", address)
        assert result.returncode == 0, result.stderr
        assert_whole(out, undisturbed)

        process = start_cli(*COMMAND, "--scheduler", address, cwd=tmp_path)
        wait_for(lambda: recorded(tmp_path) >= 2, process)
        scheduler.kill()
        stdout, err = process.communicate(timeout=120)
        assert_one_line_error(
            subprocess.CompletedProcess("", process.returncode, stdout, err), 2, "lost the Dask scheduler"
        )
    assert cli(*COMMAND, "--workers", "0").returncode == 0
    assert_whole(tmp_path, undisturbed)


def test_two_processes_at_one_path(tmp_path: Path, cli: Cli, undisturbed: Manifest) -> None:
    first = start_cli(*COMMAND, "--workers", "0", cwd=tmp_path)
    wait_for(lambda: recorded(tmp_path) >= 1, first)
    assert_one_line_error(cli(*COMMAND, "--workers", "0"), 2, f"is being written by process {first.pid}")
    _, err = first.communicate(timeout=120)
    assert first.returncode == 0, err
    assert_whole(tmp_path, undisturbed)


@contextmanager
def small_disk(directory: Path, megabytes: int) -> Iterator[Path]:
    """A file system of its own size, where this machine lets us mount one."""
    disk = directory / "disk"
    disk.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", disk], capture_output=True, text=True
    )
    if mount.returncode:
        pytest.skip(f"may not mount a small disk here ({mount.stderr.strip()}); test_execute.py injects the same error")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs")
@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_disk_that_fills_up(tmp_path: Path, cli: Cli, undisturbed: Manifest, workers: str) -> None:
    with small_disk(tmp_path, 240) as disk:
        process = start_cli(*COMMAND, "--workers", workers, cwd=disk)
        wait_for(lambda: recorded(disk) >= 3, process)
        filler = disk / "filler"
        subprocess.run(
            ["dd", "if=/dev/zero", f"of={filler}", "bs=64k"], stderr=subprocess.DEVNULL
        )  # until the disk is full
        out, err = process.communicate(timeout=120)
        assert_one_line_error(
            subprocess.CompletedProcess("", process.returncode, out, err), 2, "the disk is full", "same command again"
        )
        assert not (disk / "s.zarr").exists()
        os.unlink(filler)
        result = subprocess.run(
            [DATAGEN, *COMMAND, "--workers", "0"], cwd=disk, capture_output=True, text=True, timeout=120
        )
        assert result.returncode == 0, result.stderr
        assert_whole(disk, undisturbed)
