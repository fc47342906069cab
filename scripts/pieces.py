"""Files cut into pieces of bounded size, each byte accounted for, and put together again.

Models of one network that differ in a few weights have the others in common: what several files share is taken along once. A
safetensors file is its head and its tensors, any other file is one part; parts lie one behind the other in the pieces, in any order.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from zoo.errors import CheckError, ZooError
from zoo.files import put, replacing

INDEX = "pieces.json"
PIECE_BYTES = 15 << 20
DIGEST = r"^[0-9a-f]{64}$"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Piece(_Record):
    """One file of the pieces."""

    name: str = Field(pattern=r"^piece-[0-9]{3}$")
    sha256: str = Field(pattern=DIGEST)


class File(_Record):
    """One file that was taken apart."""

    path: str
    sha256: str = Field(pattern=DIGEST)
    parts: list[tuple[int, int]]  # (first byte, bytes) of each, in all pieces one behind the other


class Index(_Record):
    """What the pieces hold."""

    pieces: list[Piece]
    files: list[File]


def pack(root: Path, files: Iterable[Path], out: Path, piece_bytes: int = PIECE_BYTES) -> Index:
    """Cut files into pieces, in a directory that is replaced.

    :param files: under ``root``
    :param piece_bytes: of a piece, at most
    :raises ZooError: a file cannot be read or a piece not be written
    """
    places: dict[bytes, tuple[int, int]] = {}
    pieces: list[Piece] = []
    entries: list[File] = []
    waiting, length = bytearray(), 0
    with replacing(out) as draft:

        def flush(least: int) -> None:
            while len(waiting) >= least:
                chunk, name = bytes(waiting[:piece_bytes]), f"piece-{len(pieces):03d}"
                del waiting[:piece_bytes]
                (draft / name).write_bytes(chunk)
                pieces.append(Piece(name=name, sha256=hashlib.sha256(chunk).hexdigest()))

        for path in sorted(files):
            content, parts = path.read_bytes(), []
            for part in _parts(path, content):
                digest = hashlib.sha256(part).digest()
                if digest not in places:
                    places[digest] = (length, len(part))
                    waiting += part
                    length += len(part)
                    flush(piece_bytes)
                parts.append(places[digest])
            sha256 = hashlib.sha256(content).hexdigest()
            entries.append(File(path=path.relative_to(root).as_posix(), sha256=sha256, parts=parts))
        flush(1)
        index = Index(pieces=pieces, files=entries)
        put(draft / INDEX, index.model_dump_json() + "\n")
    return index


def _parts(path: Path, content: bytes) -> Sequence[bytes]:
    """What a file is made of, in order."""
    if path.suffix != ".safetensors":
        return [content]
    (size,) = struct.unpack_from("<Q", content)
    header, body = json.loads(content[8 : 8 + size]), memoryview(content)[8 + size :]
    offsets = sorted(facts["data_offsets"] for name, facts in header.items() if name != "__metadata__")
    return [content[: 8 + size], *(bytes(body[start:stop]) for start, stop in offsets)]


def join(sources: Sequence[Path], out: Path) -> Index:
    """Put files together again from pieces.

    :param sources: directories that the pieces and their index lie in, all in one or some in each
    :param out: directory; must not exist
    :raises ZooError: no index, a piece that is missing, or something at ``out``
    :raises CheckError: a piece, or a file made of them, is not the one that was packed
    """
    if out.exists():
        raise ZooError(f"{out} exists; give another --into")
    index = read_index(_find(sources, INDEX))
    paths = [_find(sources, piece.name) for piece in index.pieces]
    content = bytearray()
    for piece, path in zip(index.pieces, paths, strict=True):
        found = path.read_bytes()
        if hashlib.sha256(found).hexdigest() != piece.sha256:
            raise CheckError(f"{path} was changed on its way: its SHA-256 is not the one in {INDEX}; get it again")
        content += found
    with replacing(out) as draft:
        for file in index.files:
            made = b"".join(content[start : start + size] for start, size in file.parts)
            if hashlib.sha256(made).hexdigest() != file.sha256:
                raise CheckError(f"{file.path} cannot be made of the pieces: {INDEX} was changed; get it again")
            target = draft / _inside(file.path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(made)
    return index


def read_index(path: Path) -> Index:
    """The index of some pieces.

    :raises ZooError: it is none
    """
    try:
        return Index.model_validate_json(path.read_text())
    except (OSError, ValueError) as error:
        detail = "it is of another form" if isinstance(error, ValidationError) else error
        raise ZooError(f"{path} is no index of pieces: {detail}") from None


def _find(sources: Sequence[Path], name: str) -> Path:
    for source in sources:
        if (source / name).is_file():
            return source / name
    raise ZooError(f"there is no {name} in {', '.join(map(str, sources))}; get it, or name its directory too")


def _inside(path: str) -> PurePosixPath:
    """A relative path that stays where it is put.

    :raises CheckError: it does not
    """
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or not parts.parts:
        raise CheckError(f"{INDEX} names {path!r}, which is outside of what is put together")
    return parts
