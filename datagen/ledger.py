"""The work in progress beside a store, ``STORE.wip/``: a lock, and for each job its data and one atomic record a finished shard.

    STORE.wip/lock                    held (flock) by the run at work; the kernel frees it when the process dies
    STORE.wip/JOB/job.json            recipe, shard size, engine, device and datagen version of the job
    STORE.wip/JOB/data.zarr/          the store itself, renamed to STORE when complete
    STORE.wip/JOB/ledger/*.json       a ShardRecord for each shard that is on disk
    STORE.wip/JOB/scratch/            files to import, unpacked, while the job runs
    STORE.wip/replaced/               what was at STORE, for the moment between two renames

JOB is a digest of job.json: a worker that outlives its client can only ever write what its own job asked for.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from datagen.errors import DatagenError
from datagen.manifest import ShardRecord
from datagen.plan import Shard
from datagen.recipe import canonical_digest


class Ledger:
    """The directory ``STORE.wip`` of one store and the part of one job in it.

    :param out: absolute path of the store
    :param job: what is being made, JSON-ready
    """

    def __init__(self, out: Path, job: dict[str, Any]) -> None:
        self.out, self.job = out, job
        self.wip = out.with_name(out.name + ".wip")
        self.home = self.wip / canonical_digest(job).removeprefix("sha256:")[:16]
        self.data = self.home / "data.zarr"
        self._records = self.home / "ledger"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the directory for this process, made if need be; removed again if nothing was recorded in it.

        :raises DatagenError: another run holds it, or it cannot be made
        """
        try:
            handle = self._lock()
        except OSError as error:
            with suppress(OSError):  # what this call has made, if there is nothing else in it
                (self.wip / "lock").unlink(missing_ok=True)
                self.wip.rmdir()
            raise DatagenError(
                f"cannot write {self.wip}: {error.strerror}; give --out a path you may write to"
            ) from None
        try:
            replaced = self.wip / "replaced"
            if replaced.exists() and not self.out.exists():  # an earlier run died between the two renames of publish()
                replaced.rename(self.out)
            yield
        finally:
            if not any(self.wip.glob("*/ledger/*.json")):
                self.remove()
            os.close(handle)

    def _lock(self) -> int:
        while True:
            self.wip.mkdir(exist_ok=True)
            handle = os.open(self.wip / "lock", os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # the run before may have removed the directory between our open and our lock
                current = os.stat(self.wip / "lock").st_ino == os.fstat(handle).st_ino
            except BlockingIOError:
                holder = os.read(handle, 100).decode(errors="replace") or "another process"
                os.close(handle)
                raise DatagenError(
                    f"{self.out} is being written by {holder}; wait for it, or give another --out"
                ) from None
            except FileNotFoundError:
                current = False
            except OSError:
                os.close(handle)
                raise
            if current:
                os.ftruncate(handle, 0)
                os.write(handle, f"process {os.getpid()} on {os.uname().nodename}".encode())
                return handle
            os.close(handle)

    def start(self, force: bool) -> None:
        """Begin this job, or take it up again.

        :param force: drop what earlier runs with other jobs have left
        :raises DatagenError: an earlier run was making something else
        """
        for home in self.wip.glob("*/ledger"):
            if home.parent != self.home and any(home.glob("*.json")) and not force:
                raise DatagenError(
                    f"{self.wip} holds an unfinished run with another {self._differing(home.parent)}; "
                    "repeat that command, give another --out, or --force to drop it"
                )
        for other in self.wip.iterdir():
            if other.is_dir() and other not in (self.home, self.wip / "replaced"):
                shutil.rmtree(other, ignore_errors=True)
        self._records.mkdir(parents=True, exist_ok=True)
        put_atomically(self.home / "job.json", json.dumps(self.job))

    def _differing(self, home: Path) -> str:
        try:
            found = json.loads((home / "job.json").read_text())
            return ", ".join(sorted(key for key in {**found, **self.job} if found.get(key) != self.job.get(key)))
        except (OSError, ValueError, AttributeError):  # lost with a power cut
            return "job"

    def record(self, record: ShardRecord) -> None:
        """Note that a shard is on disk."""
        put_atomically(self._records / f"{record.shard.key}.json", record.model_dump_json())

    def records(self) -> dict[Shard, ShardRecord]:
        """The shards noted so far. What cannot be read counts as not done."""
        found = {}
        for file in self._records.glob("*.json"):
            try:
                record = ShardRecord.model_validate_json(file.read_text())
            except (OSError, ValidationError, UnicodeDecodeError):
                continue
            found[record.shard] = record
        return found

    def publish(self, replace: bool) -> None:
        """Put the finished store at its path and remove the rest.

        :param replace: take the place of what is there
        :raises DatagenError: something is there that may not be replaced
        """
        if os.path.lexists(self.out):
            if not replace:
                raise DatagenError(f"{self.out} has appeared meanwhile; move it away and give the same command again")
            shutil.rmtree(self.wip / "replaced", ignore_errors=True)
            self.out.rename(self.wip / "replaced")
        self.data.rename(self.out)
        self.remove()

    def tidy(self) -> None:
        """Drop what a run of this job left when it died after its store was in place; other jobs' shards are kept."""
        shutil.rmtree(self.home, ignore_errors=True)
        shutil.rmtree(self.wip / "replaced", ignore_errors=True)

    def remove(self) -> None:
        """Drop everything unfinished."""
        shutil.rmtree(self.wip, ignore_errors=True)


def put_atomically(path: Path, text: str) -> None:
    """Write a small file so that readers see the old text or the new one, never a part."""
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with part.open("w", encoding="utf-8") as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
