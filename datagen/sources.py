"""Files that a data set is imported from: known by name and digest, watched while they are read, and laid out for the engine."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from datagen import matlab
from datagen.errors import DatagenError
from datagen.progress import progress_bar
from datagen.recipe import Recipe, SourceFile
from datagen.recipe.matfile import ANGLES, DELAYS, SUBCARRIERS
from datagen.scenarios import Inputs

_BLOCK = 1 << 20

Advance = Callable[[int], object]  # told of bytes as they are read


def find_variable(path: Path, part: str) -> matlab.Variable:
    """The matrix of a file that plays a part: ``HT`` of a split, or ``HF_all`` of the part ``full``.

    :raises DatagenError: it is not there, or not what it should be
    """
    if part == "full":
        return matlab.find(path, "HF_all", ANGLES * SUBCARRIERS, is_complex=True)
    return matlab.find(path, "HT", 2 * ANGLES * DELAYS)


@dataclass(frozen=True)
class Source:
    """A file whose digest is known, and what plays a part in it."""

    part: str
    variable: matlab.Variable
    record: SourceFile
    stamp: tuple[int, ...]

    @classmethod
    def read(cls, part: str, variable: matlab.Variable, advance: Advance = int) -> Source:
        """Read a whole file for its digest.

        :raises DatagenError: it cannot be read
        """
        path, digest, before = variable.path, hashlib.sha256(), _stamp(variable.path)
        try:
            with path.open("rb", buffering=0) as file:
                while block := file.read(_BLOCK):
                    digest.update(block)
                    advance(len(block))
        except OSError as error:
            raise DatagenError(f"cannot read {path}: {error.strerror or error}") from None
        try:
            record = SourceFile(
                file=path.name, sha256=digest.hexdigest(), bytes=before[0], version=variable.version, variable=variable.name,
                rows=variable.rows, columns=variable.columns, dtype=variable.dtype,
            )  # fmt: skip
        except ValueError:
            raise DatagenError(f"{str(path)!r} has no proper file name; rename it") from None
        source = cls(part, variable, record, before)
        source.check_unchanged()
        return source

    def check_unchanged(self) -> None:
        """:raises DatagenError: the file is not the one whose digest was taken"""
        if _stamp(self.variable.path) != self.stamp:
            raise DatagenError(f"{self.variable.path} has changed while it was read; give the same command again")


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError as error:
        raise DatagenError(f"cannot read {path}: {error.strerror}") from None
    return found.st_size, found.st_mtime_ns, found.st_ino


def find_sources(recipe: Recipe, directory: Path, progress: bool = False) -> tuple[Source, ...]:
    """A recipe's sources in a directory, by name, each held to its digest.

    :raises DatagenError: one is missing, or another file than the one that was imported
    """
    paths = {part: (directory / record.file).absolute() for part, record in recipe.sources.items()}
    for part, path in paths.items():
        if not path.is_file():
            raise DatagenError(f"{path} is not there; give the directory of the imported files with --source")
        _same(path, "bytes", path.stat().st_size, recipe.sources[part].bytes)
    found = []
    with progress_bar(sum(record.bytes for record in recipe.sources.values()), "sources", "B", progress) as advance:
        for part, path in paths.items():
            found.append(Source.read(part, find_variable(path, part), advance))
            _same(path, "digest", found[-1].record.sha256, recipe.sources[part].sha256)
    return tuple(found)


def _same(path: Path, what: str, found: object, expected: object) -> None:
    if found != expected:
        raise DatagenError(
            f"{path} is not the file that was imported ({what} {found}, expected {expected}); give its directory with --source"
        )


@contextmanager
def laid_out(sources: Sequence[Source], scratch: Path, progress: bool = False) -> Iterator[Inputs]:
    """Where each source's matrix lies raw: in its file, or streamed to a directory that is removed at the end.

    :raises DatagenError: a file has changed since its digest was taken, or the disk has no room
    """
    packed = [source.variable for source in sources if source.variable.matrix is None]
    try:
        if packed:
            scratch.mkdir(parents=True, exist_ok=True)
        needed, free = sum(map(matlab.staged_bytes, packed)), shutil.disk_usage(scratch.parent).free
        if needed > free:
            raise DatagenError(
                f"{scratch.parent} needs {needed / 1e9:.1f} GB to unpack the sources and the disk has {free / 1e9:.1f} GB free; "
                "free some or give another --out"
            )
        inputs = []
        with progress_bar(needed, "unpack", "B", progress and bool(packed)) as advance:
            for source in sources:
                source.check_unchanged()
                raw = source.variable.matrix
                raw = raw or matlab.stage(source.variable, scratch / f"{source.part}.raw", advance)
                inputs.append((source.part, raw))
        yield tuple(inputs)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
