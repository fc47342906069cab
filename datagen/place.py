"""Where a store lies: a directory of a file system, which is a ``pathlib.Path``, or a prefix in a bucket, a :class:`BucketPath`.

What lies in a data set on the Hub is a :class:`datagen.hub.HubPath`, a :class:`BucketPath` that can only be read. What directories and
buckets do in different ways are the functions here.
"""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from datagen.bucket import REQUESTS, BucketError, BucketPath, bucket_path, one_line
from datagen.hub import hub_path

Place = Path | BucketPath


def place(where: str | os.PathLike[str] | BucketPath) -> Place:
    """The place of a path or a URL; nothing is looked up.

    :raises DatagenError: a URL that is not of a bucket, or names nothing in it
    """
    if isinstance(where, BucketPath):
        return where
    text = os.fspath(where)
    if not isinstance(where, str) or not re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
        return Path(where)
    if text.startswith("hf://"):
        return hub_path(text)
    return bucket_path(text)


def check(where: Place) -> None:
    """:raises BucketError: a bucket cannot be reached"""
    if isinstance(where, BucketPath):
        where.check()


def exists(where: Place) -> bool:
    """Whether anything is there, a dangling link too.

    :raises BucketError: a bucket cannot be reached
    """
    check(where)
    return os.path.lexists(where) if isinstance(where, Path) else where.exists()


def sizes(where: Place) -> dict[str, int]:
    """Bytes of every file beneath, by its name relative to the place, ``/`` between the parts."""
    if isinstance(where, Path):
        return {file.relative_to(where).as_posix(): file.stat().st_size for file in where.rglob("*") if file.is_file()}
    return where.files()


def pinned(where: Place) -> Place:
    """The same place as it is now: a branch or tag on the Hub is held to the commit that it points to.

    :raises BucketError: a bucket cannot be reached
    """
    return where if isinstance(where, Path) else where.pinned()


def remove(where: Place, keep: Collection[str] = ()) -> None:
    """Remove a directory and all beneath it; what cannot be removed is left.

    :param keep: names beneath that stay, in a bucket
    """
    if isinstance(where, Path):
        shutil.rmtree(where, ignore_errors=True)
        return
    keys = [(where / name).key for name in sizes(where) if name not in keep]
    with suppress(FileNotFoundError), one_line(where):
        if keys:
            where.client.delete(keys)


def move(old: Place, new: Place, before_root: Callable[[], None] = lambda: None) -> None:
    """Give a directory another name.

    In a bucket the server copies it over what is there, the root ``zarr.json`` away first and back last: nobody ever sees root
    metadata without all that they promise.

    :param before_root: called before these are put
    :raises ConditionError: another's root metadata are there by then
    """
    if isinstance(old, Path) and isinstance(new, Path):
        old.rename(new)
    elif isinstance(old, BucketPath) and isinstance(new, BucketPath):
        root, names = (new / "zarr.json"), set(sizes(old)) - {"zarr.json"}
        root.unlink()
        remove(new, keep=names)
        with ThreadPoolExecutor(REQUESTS) as pool:
            list(pool.map(lambda name: (old / name).copy_to(new / name), names))
        before_root()
        root.put((old / "zarr.json").read()[0], new=True)
        remove(old)


def put_atomically(where: Place, text: str) -> None:
    """Write a small file so that readers see the old text or the new one, never a part."""
    if isinstance(where, BucketPath):
        where.put(text.encode())
        return
    part = where.with_name(f"{where.name}.{uuid.uuid4().hex}.partial")
    try:
        with part.open("w", encoding="utf-8") as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        part.replace(where)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def writable(where: Place) -> bool:
    """Whether this process may write there; in a bucket a small object is written and deleted."""
    if isinstance(where, Path):
        return os.access(where, os.W_OK) and where.is_dir()
    probe = where / f"{uuid.uuid4().hex}.probe"
    try:
        probe.put(b"")
        probe.unlink()
    except (BucketError, FileNotFoundError):
        return False
    return True
