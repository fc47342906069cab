"""The work in progress beside a store, ``STORE.wip/``: a lock, and for each job its data and one atomic record a finished shard.

    STORE.wip/lock                    held (flock) by the run at work; the kernel frees it when the process dies
    STORE.wip/JOB/job.json            recipe, shard size, engine, device and datagen version of the job
    STORE.wip/JOB/data.zarr/          the store itself, renamed to STORE when complete
    STORE.wip/JOB/ledger/*.json       a ShardRecord for each shard that is on disk
    STORE.wip/JOB/scratch/            files to import, unpacked, while the job runs
    STORE.wip/replaced/               what was at STORE, for the moment between two renames

A bucket has neither renames nor flock. There the lock is an object that its holder renews (lease.py), the store is copied to STORE
by the server, its root zarr.json last, and one more object tells that this has begun:

    STORE.wip/publishing              what is at STORE without a root zarr.json is a part of the finished store

JOB is a digest of job.json: a worker that outlives its client can only ever write what its own job asked for.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from datagen.bucket import REQUESTS, BucketPath, ConditionError
from datagen.errors import DatagenError
from datagen.lease import lease
from datagen.manifest import ShardRecord
from datagen.place import Place, check, exists, move, put_atomically, remove
from datagen.plan import Shard
from datagen.recipe import canonical_digest


class Ledger:
    """The directory ``STORE.wip`` of one store and the part of one job in it.

    :param out: absolute path of the store, or where it is in a bucket
    :param job: what is being made, JSON-ready
    """

    def __init__(self, out: Place, job: dict[str, Any]) -> None:
        self.out, self.job = out, job
        self.wip = out.with_name(out.name + ".wip")
        self.home = self.wip / canonical_digest(job).removeprefix("sha256:")[:16]
        self.data = self.home / "data.zarr"
        self._records = self.home / "ledger"

    @contextmanager
    def locked(self) -> Iterator[Callable[[], None]]:
        """Hold the directory for this process, made if need be; removed again if nothing was recorded in it.

        :returns: a function that raises if the hold was lost, as a lock in a bucket can be
        :raises DatagenError: another run holds it, or it cannot be made
        """
        with self._held() as assure:
            try:
                replaced = self.wip / "replaced"
                if replaced.exists() and not self.out.exists():  # a run died between the two renames of publish()
                    move(replaced, self.out)
                yield assure
            finally:
                check(self.wip)
                assure()
                if not any(self.wip.glob("*/ledger/*.json")):
                    self.remove()

    @contextmanager
    def _held(self) -> Iterator[Callable[[], None]]:
        if isinstance(self.wip, BucketPath):
            with lease(self.wip / "lock", self.out) as held:
                yield held.renew
            return
        try:
            handle = self._lock(self.wip)
        except OSError as error:
            with suppress(OSError):  # what this call has made, if there is nothing else in it
                (self.wip / "lock").unlink(missing_ok=True)
                self.wip.rmdir()
            raise DatagenError(
                f"cannot write {self.wip}: {error.strerror}; give --out a path you may write to"
            ) from None
        try:
            yield lambda: None
        finally:
            os.close(handle)

    def _lock(self, wip: Path) -> int:
        while True:
            wip.mkdir(exist_ok=True)
            handle = os.open(wip / "lock", os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # the run before may have removed the directory between our open and our lock
                current = os.stat(wip / "lock").st_ino == os.fstat(handle).st_ino
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
        for record in self.wip.glob("*/ledger/*.json"):
            home = record.parent.parent
            if home != self.home and not force:
                raise DatagenError(
                    f"{self.wip} holds an unfinished run with another {self._differing(home)}; "
                    "repeat that command, give another --out, or --force to drop it"
                )
        for other in self.wip.iterdir():
            if other.is_dir() and other not in (self.home, self.wip / "replaced"):
                remove(other)
        self._records.mkdir(parents=True, exist_ok=True)
        put_atomically(self.home / "job.json", json.dumps(self.job))

    def _differing(self, home: Place) -> str:
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
        with ThreadPoolExecutor(REQUESTS) as pool:
            for record in pool.map(_record, self._records.glob("*.json")):
                if record is not None:
                    found[record.shard] = record
        return found

    def publish(self, replace: bool, assure: Callable[[], None]) -> None:
        """Put the finished store at its path and remove the rest.

        :param replace: take the place of what is there
        :param assure: what :meth:`locked` gave
        :raises DatagenError: something is there that may not be replaced
        """
        appeared = f"{self.out} has appeared meanwhile; move it away and give the same command again"
        there = exists(self.out) and not self.half_published()
        if there and not replace:
            raise DatagenError(appeared)
        if isinstance(self.wip, BucketPath):
            assure()  # a run that was thought dead meanwhile must not touch what is there
            put_atomically(self.wip / "publishing", "")
        elif there:
            remove(self.wip / "replaced")
            move(self.out, self.wip / "replaced")
        try:
            move(self.data, self.out, before_root=assure)
        except ConditionError:
            raise DatagenError(appeared) from None
        self.remove()

    def half_published(self) -> bool:
        """Whether what is at the store's place is what a run left that died copying; it never is a whole store."""
        return (self.wip / "publishing").exists() and not (self.out / "zarr.json").exists()

    def tidy(self) -> None:
        """Drop what a run of this job left when it died after its store was in place; other jobs' shards are kept."""
        remove(self.home)
        remove(self.wip / "replaced")
        (self.wip / "publishing").unlink(missing_ok=True)

    def remove(self) -> None:
        """Drop everything unfinished; in a bucket the lock goes last, when it is released."""
        remove(self.wip, keep={"lock"})


def _record(file: Place) -> ShardRecord | None:
    try:
        return ShardRecord.model_validate_json(file.read_text())
    except (OSError, ValidationError, UnicodeDecodeError):
        return None
