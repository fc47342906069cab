"""The work in progress beside a store, ``STORE.wip/``: a lock, what is being made, and one atomic record for each finished shard.

STORE.wip/lock            held (flock) by the run at work; the kernel frees it when the process dies
STORE.wip/job.json        recipe, shard size, engine and device of the run
STORE.wip/data.zarr/      the store itself, renamed to STORE when complete
STORE.wip/ledger/*.json   a ShardRecord for each shard that is on disk
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from datagen.errors import DatagenError
from datagen.manifest import ShardRecord
from datagen.plan import Shard


class Ledger:
    """The directory ``STORE.wip`` of one store."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.wip = out.with_name(out.name + ".wip")
        self.data = self.wip / "data.zarr"
        self._job = self.wip / "job.json"
        self._records = self.wip / "ledger"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the directory for this process, made if need be; removed again if nothing was recorded in it.

        :raises DatagenError: another run holds it, or it cannot be made
        """
        try:
            handle = self._lock()
        except OSError as error:
            raise DatagenError(
                f"cannot write {self.wip}: {error.strerror}; give --out a path you may write to"
            ) from None
        replaced = self.wip / "replaced"
        if replaced.exists() and not self.out.exists():  # an earlier run died between the two renames of publish()
            replaced.rename(self.out)
        try:
            yield
        except BaseException:
            if not any(self._records.glob("*.json")):
                self.remove()
            raise
        finally:
            os.close(handle)

    def _lock(self) -> int:
        while True:
            self.wip.mkdir(exist_ok=True)
            handle = os.open(self.wip / "lock", os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                holder = os.read(handle, 100).decode(errors="replace") or "another process"
                os.close(handle)
                raise DatagenError(
                    f"{self.out} is being written by {holder}; wait for it, or give another --out"
                ) from None
            try:  # the run before may have removed the directory between our open and our lock
                current = os.stat(self.wip / "lock").st_ino == os.fstat(handle).st_ino
            except FileNotFoundError:
                current = False
            if current:
                os.ftruncate(handle, 0)
                os.write(handle, f"process {os.getpid()} on {os.uname().nodename}".encode())
                return handle
            os.close(handle)

    def start(self, job: dict[str, Any], force: bool) -> None:
        """Note what is being made, or check that it is what an earlier run was making.

        :param force: drop an earlier run that was making something else
        :raises DatagenError: an earlier run was making something else
        """
        try:
            found = json.loads(self._job.read_text())
        except (OSError, ValueError):  # absent, or lost with a power cut: records are checked against the disk anyway
            found = {}
        if found and found != job and not force and any(self._records.glob("*.json")):
            differing = ", ".join(sorted(key for key in {**found, **job} if found.get(key) != job.get(key)))
            raise DatagenError(
                f"{self.wip} holds an unfinished run with another {differing}; repeat that command, give another --out, or --force to drop it"
            )
        if found != job:
            shutil.rmtree(self.data, ignore_errors=True)
            shutil.rmtree(self._records, ignore_errors=True)
            put_atomically(self._job, json.dumps(job))
        self._records.mkdir(exist_ok=True)

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

    def publish(self) -> None:
        """Put the finished store in place of whatever is at its path, and remove the rest."""
        replaced = self.wip / "replaced"
        shutil.rmtree(replaced, ignore_errors=True)
        if self.out.exists():
            self.out.rename(replaced)
        self.data.rename(self.out)
        self.remove()

    def remove(self) -> None:
        """Drop the unfinished run."""
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
