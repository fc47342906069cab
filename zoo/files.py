"""Files and directories that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from zoo.errors import ZooError


def require_place(path: Path) -> None:
    """See that a file can be written, before the work that fills it.

    :raises ZooError: there is no such directory, it may not be written, or ``path`` is no plain file
    """
    if path.exists() and not path.is_file():
        raise ZooError(f"cannot write {path}: it is no plain file; give another path")
    if not path.parent.is_dir():
        raise ZooError(f"cannot write {path}: there is no directory {path.parent}; make it first")
    if not os.access(path.parent, os.W_OK):
        raise ZooError(f"cannot write {path}: {path.parent} may not be written to")


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A draft beside ``path`` to write to: it takes the place of ``path`` when the block ends well, and vanishes when it does not.

    :raises ZooError: it cannot be written
    """
    require_place(path)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield draft
        with draft.open("rb") as handle:
            os.fsync(handle.fileno())
        draft.replace(path)
    except OSError as error:
        raise ZooError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()


def put(path: Path, text: str) -> None:
    """Write a text file.

    :raises ZooError: it cannot be written
    """
    with whole(path) as draft:
        draft.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A fresh directory that takes the place of ``path`` when the block ends well, and vanishes when it does not.

    :raises ZooError: it cannot be written
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        draft.mkdir(parents=True)
        yield draft
        for file in filter(Path.is_file, draft.rglob("*")):
            file.chmod(0o644)  # safetensors makes files that only their owner may read
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
        swap(draft, path)
    except OSError as error:
        raise ZooError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def swap(draft: Path, path: Path) -> None:
    """Put a directory in the place of another, or where there is none yet."""
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    if path.exists():
        path.rename(old)
    draft.rename(path)
    shutil.rmtree(old, ignore_errors=True)
