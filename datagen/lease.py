"""A lock in a bucket: an object that says who holds it, made by a conditional put and renewed while its holder lives."""

from __future__ import annotations

import json
import os
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import psutil

from datagen.bucket import BucketError, BucketPath, ConditionError
from datagen.errors import DatagenError
from datagen.place import Place, check

if TYPE_CHECKING:
    from obstore import UpdateVersion

BEAT_S = 20  # from one renewal to the next
ABANDONED_S = 120  # a lock that was not renewed for so long is anyone's


class Lease:
    """This process's hold on a lock."""

    def __init__(self, lock: BucketPath, out: Place) -> None:
        self._lock, self._out = lock, out
        self._token, self._beats = uuid.uuid4().hex, 0
        self._tag: UpdateVersion = {}
        self._mutex, self._ended = threading.Lock(), threading.Event()

    def _text(self) -> bytes:
        """Different at each renewal, so that a tag tells one from the next."""
        self._beats += 1
        return json.dumps({**_here(), "token": self._token, "beat": self._beats}).encode()

    def acquire(self) -> None:
        """:raises DatagenError: another run holds the lock"""
        while True:
            try:
                self._tag = self._lock.put(self._text(), new=True)
                return
            except ConditionError:
                pass
            try:
                holder, tag = self._holder()
                mine = holder.get("token") == self._token  # the answer to the put was lost
                if not (mine or _is_dead(holder) or self._age() > ABANDONED_S):
                    raise DatagenError(
                        f"{self._out} is being written by {_name(holder)}; wait for it, or give another --out"
                    )
                self._tag = self._lock.put(self._text(), tag=tag)
                return
            except (ConditionError, FileNotFoundError):  # renewed, released or taken over just now
                continue

    def renew(self) -> None:
        """:raises DatagenError: another run has taken the lock over"""
        with self._mutex:
            try:
                self._tag = self._lock.put(self._text(), tag=self._tag)
            except (ConditionError, FileNotFoundError):
                try:
                    holder, tag = self._holder()
                except FileNotFoundError:
                    holder, tag = {}, self._tag
                if holder.get("token") != self._token:  # it is ours if the answer to an earlier renewal was lost
                    raise DatagenError(
                        f"{self._out} was taken over by {_name(holder)}, as this run was not heard of for {ABANDONED_S} s; "
                        "wait for it, or give another --out"
                    ) from None
                self._tag = self._lock.put(self._text(), tag=tag)

    def keep(self) -> None:
        """Renew again and again, until the end or until the lock is lost, which the next :meth:`renew` will tell."""
        while not self._ended.wait(BEAT_S):
            try:
                self.renew()
            except BucketError:
                continue
            except DatagenError:
                return

    def release(self) -> None:
        """Give the lock up, if it is still ours and the bucket in reach."""
        self._ended.set()
        with suppress(DatagenError):
            check(self._lock)
            self.renew()
            self._lock.unlink()

    def _holder(self) -> tuple[dict[str, Any], UpdateVersion]:
        """Who holds the lock, and the tag of what says so."""
        data, tag = self._lock.read()
        try:
            holder = json.loads(data)
        except ValueError:
            holder = None
        return holder if isinstance(holder, dict) else {}, tag

    def _age(self) -> float:
        """Seconds since the last renewal by the clock of the bucket, which dates a second object."""
        now = self._lock.with_name(f"{self._token}.clock")
        now.put(b"")
        try:
            return (now.modified() - self._lock.modified()).total_seconds()
        finally:
            now.unlink()


@contextmanager
def lease(lock: BucketPath, out: Place) -> Iterator[Lease]:
    """Hold a lock, renewed by a thread of its own.

    :param out: what is being written, for messages
    :raises DatagenError: another run holds it
    """
    held = Lease(lock, out)
    held.acquire()
    threading.Thread(target=held.keep, daemon=True).start()
    try:
        yield held
    finally:
        held.release()


def _here() -> dict[str, Any]:
    return {"host": os.uname().nodename, "pid": os.getpid(), "started": psutil.Process().create_time()}


def _is_dead(holder: dict[str, Any]) -> bool:
    """Whether the holder was a process of this very machine that has ended."""
    if holder.get("host") != os.uname().nodename:
        return False
    try:
        return psutil.Process(holder.get("pid")).create_time() != holder.get("started")
    except (psutil.Error, ValueError, TypeError):
        return True


def _name(holder: dict[str, Any]) -> str:
    return f"process {holder['pid']} on {holder['host']}" if {"pid", "host"} <= holder.keys() else "another process"
