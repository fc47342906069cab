"""Matrices in MATLAB files of version 5 (MATLAB's -v6 and -v7) and 7.3 (HDF5), piece by piece: none is ever held whole.

MATLAB stores a matrix column by column. Where its numbers lie raw in the file, rows are read in place; numbers that are compressed
or cut into HDF5 chunks are streamed into a raw file once (:func:`stage`), and rows are read from there. Files are read, not mapped:
one that shrinks meanwhile is an error, not a crash.
"""

from __future__ import annotations

import math
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from datagen.errors import DatagenError, VerificationError

PIECE = 1 << 18  # values read at once
LARGEST_CHUNK = 1 << 24  # values of an HDF5 chunk, which the library holds whole

_HDF5 = b"\x89HDF\r\n\x1a\n"
_MATRIX, _COMPRESSED = 14, 15
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_CLASSES = {
    1: "cell array", 2: "struct", 3: "object", 4: "char array", 5: "sparse matrix", 6: "double", 7: "single", 8: "int8",
    9: "uint8", 10: "int16", 11: "uint16", 12: "int32", 13: "uint32", 14: "int64", 15: "uint64", 16: "function", 17: "object",
}  # fmt: skip


class Tile(NamedTuple):
    """A piece of a matrix: values [columns, rows] of its real (0) or imaginary (1) part, from a column and a row on."""

    part: int
    column: int
    row: int
    values: NDArray[np.floating]


@dataclass(frozen=True)
class Matrix:
    """A matrix [rows, columns] that lies raw in a file, column by column.

    ``parts`` gives the dtype and the position of its real and, where there is one, its imaginary part.
    """

    path: Path
    rows: int
    columns: int
    parts: tuple[tuple[str, int], ...]

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Some rows, float64 or complex128 [stop - start, columns].

        :raises VerificationError: the file has become shorter
        :raises OSError: it cannot be read
        """
        planes = [np.empty((self.columns, stop - start)) for _ in self.parts]
        with self.path.open("rb", buffering=0) as file:
            for plane, (dtype, offset) in zip(planes, self.parts, strict=True):
                size = np.dtype(dtype).itemsize
                for column in range(self.columns):
                    at = offset + (column * self.rows + start) * size
                    plane[column] = self._values(file.fileno(), dtype, at, stop - start)
        real = planes[0].T
        return real if len(planes) == 1 else real + 1j * planes[1].T

    def tiles(self) -> Iterator[Tile]:
        """All of it, in the order of the file."""
        with self.path.open("rb", buffering=0) as file:
            for part, (dtype, offset) in enumerate(self.parts):
                for columns, rows in _grid(self.columns, self.rows):
                    at = offset + (columns.start * self.rows + rows.start) * np.dtype(dtype).itemsize
                    values = self._values(file.fileno(), dtype, at, len(columns) * len(rows))
                    yield Tile(part, columns.start, rows.start, values.reshape(len(columns), len(rows)))

    def _values(self, descriptor: int, dtype: str, at: int, count: int) -> NDArray[np.floating]:
        size = count * np.dtype(dtype).itemsize
        data = os.pread(descriptor, size, at)
        if len(data) != size:
            raise VerificationError(f"{self.path} has become shorter while it was read")
        return np.frombuffer(data, dtype)


def _grid(columns: int, rows: int, tile: tuple[int, int] | None = None) -> Iterator[tuple[range, range]]:
    """Pieces of about :data:`PIECE` values in the order of storage, in whole chunks of ``tile`` (columns, rows)."""
    wide, high = tile or (1, 1)
    high = min(rows, high * max(1, PIECE // (wide * high)))
    wide = min(columns, wide * max(1, PIECE // (wide * high)))
    for column in range(0, columns, wide):
        for row in range(0, rows, high):
            yield range(column, min(column + wide, columns)), range(row, min(row + high, rows))


@dataclass(frozen=True)
class Variable:
    """A real or complex, double or single matrix in a MATLAB file."""

    path: Path
    version: Literal["5", "7.3"]  # of the file's format
    name: str
    rows: int
    columns: int
    dtype: Literal["double", "single"]
    complex: bool
    matrix: Matrix | None  # where it lies raw in the file, if it does

    def tiles(self) -> Iterator[Tile]:
        """All values, memory bounded.

        :raises DatagenError: the file is damaged or cannot be read
        """
        with _reading(self.path):
            yield from self._tiles()

    def _tiles(self) -> Iterator[Tile]:
        assert self.matrix is not None
        return self.matrix.tiles()

    @property
    def values(self) -> int:
        """Real numbers in it."""
        return self.rows * self.columns * (2 if self.complex else 1)


def find(path: Path, name: str, columns: int, *, is_complex: bool = False) -> Variable:
    """The matrix [any number of rows, columns] of a name in a MATLAB file; its values are not yet looked at.

    :raises DatagenError: no MATLAB file, truncated or damaged; no such variable; another kind or shape of variable
    """
    with _reading(path), path.open("rb") as file:
        head = file.read(520)
        if _HDF5 in (head[:8], head[512:520]):
            return _find_hdf5(path, name, columns, is_complex)
        order = {b"IM": "<", b"MI": ">"}.get(head[126:128])
        if order is None or head[124:126] != (b"\0\1" if order == "<" else b"\1\0"):
            raise DatagenError(f"{path} is no MATLAB file of version 5 or 7.3; save it with -v7 or -v7.3")
        return _find_v5(path, file.fileno(), order, name, columns, is_complex)


def staged_bytes(variable: Variable) -> int:
    """Size of the file that :func:`stage` writes."""
    return variable.values * (8 if variable.dtype == "double" else 4)


def stage(variable: Variable, file: Path, advance: Callable[[int], object] = int) -> Matrix:
    """Write a variable raw into a new file, as MATLAB's class: double or single.

    :param advance: told of bytes as they are written

    :raises DatagenError: the MATLAB file is damaged or cannot be read
    :raises OSError: the new file cannot be written
    """
    dtype = np.dtype("<f8" if variable.dtype == "double" else "<f4")
    plane = variable.rows * variable.columns * dtype.itemsize
    with file.open("wb", buffering=0) as out:
        os.truncate(out.fileno(), staged_bytes(variable))
        for part, column, row, values in variable.tiles():
            whole = values.shape[1] == variable.rows
            for number, line in enumerate([values] if whole else values):
                at = part * plane + ((column + number) * variable.rows + row) * dtype.itemsize
                data = memoryview(np.ascontiguousarray(line, dtype).tobytes())
                advance(len(data))
                while data:
                    written = os.pwrite(out.fileno(), data, at)
                    data, at = data[written:], at + written
    parts = ((dtype.str, 0), (dtype.str, plane))[: 2 if variable.complex else 1]
    return Matrix(file, variable.rows, variable.columns, parts)


class _Damaged(Exception):  # noqa: N818 - becomes a DatagenError with the file's name
    pass


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except _Damaged as error:
        raise DatagenError(f"{path} is truncated or damaged: {error}; get it again") from None
    except (zlib.error, struct.error) as error:
        raise DatagenError(f"{path} is truncated or damaged ({error}); get it again") from None
    except OSError as error:
        raise DatagenError(f"cannot read {path}: {error.strerror or error}") from None


def _check(path: Path, name: str, kind: str, shape: tuple[int, ...], found: bool, columns: int, wanted: bool) -> None:
    """Hold a variable to what is asked for: class, complex or real, shape."""
    should = f"it must be a {'complex' if wanted else 'real'} double or single matrix [N, {columns}]"
    if kind not in ("double", "single"):
        raise DatagenError(f"{path}: {name} is a {kind}; {should}")
    if found != wanted or len(shape) != 2 or shape[1] != columns or shape[0] < 1:
        raise DatagenError(f"{path}: {name} is {'complex' if found else 'real'} {kind} {list(shape)}; {should}")


def _missing(path: Path, name: str, others: list[str]) -> DatagenError:
    shown = ", ".join(repr(other)[1:-1][:40] for other in others[:5]) + (", ..." if len(others) > 5 else "")
    return DatagenError(
        f"{path} holds no variable {name}; it holds {shown or 'none'}: give another file or rename the variable"
    )


# version 5 -------------------------------------------------------------------------------------------------------------------


class _Element:
    """The bytes of one data element in order; those of a compressed one are inflated as they are asked for."""

    def __init__(self, descriptor: int, start: int, length: int, order: str, compressed: bool) -> None:
        self._descriptor, self._at, self._left, self._order = descriptor, start, length, order
        self._inflater = zlib.decompressobj() if compressed else None
        self.position = start if not compressed else 0  # of the next byte, in the file or in what is inflated

    def _raw(self, size: int) -> bytes:
        data = os.pread(self._descriptor, min(size, self._left), self._at)
        self._at, self._left = self._at + len(data), self._left - len(data)
        return data

    def _some(self, size: int) -> bytes:
        if self._inflater is None:
            return self._raw(size)
        while not self._inflater.eof:
            source = self._inflater.unconsumed_tail or self._raw(1 << 16)
            data = self._inflater.decompress(source, size)
            if data:
                return data
            if not source:
                raise _Damaged("its compressed data end early")
        return b""

    def take(self, size: int) -> bytes:
        pieces = []
        while size:
            piece = self._some(size)
            if not piece:
                raise _Damaged("a variable ends early")
            pieces.append(piece)
            self.position, size = self.position + len(piece), size - len(piece)
        return b"".join(pieces)

    def skip(self, size: int) -> None:
        if self._inflater is None:
            size = min(size, self._left)
            self._at, self._left, self.position = self._at + size, self._left - size, self.position + size
            return
        while size:
            size -= len(self.take(min(size, 1 << 20)))

    def finish(self) -> None:
        """The end of compressed data, where their checksum is."""
        if self._inflater is not None and self._some(8) and self._some(8):
            raise _Damaged("a variable is longer than it says")

    def tag(self) -> tuple[int, int, bytes | None]:
        """Type, size and, of a small element, the content."""
        head = self.take(8)
        kind, size = struct.unpack(self._order + "II", head)
        if kind >> 16:
            kind, size = kind & 0xFFFF, kind >> 16
            if size > 4:
                raise _Damaged("a small element is too large")
            return kind, size, head[4 : 4 + size]
        return kind, size, None

    def content(self, largest: int) -> bytes:
        """A whole element of at most so many bytes."""
        _, size, data = self.tag()
        if data is not None:
            return data
        if size > largest:
            raise _Damaged("the head of a variable makes no sense")
        data = self.take(size)
        self.skip(-size % 8)
        return data

    def integers(self, largest: int) -> tuple[int, ...]:
        data = self.content(largest)
        return struct.unpack(f"{self._order}{len(data) // 4}i", data[: len(data) // 4 * 4])

    def numbers(self, count: int) -> str:
        """The dtype of the array of numbers that begins here."""
        kind, size, small = self.tag()
        dtype = np.dtype(self._order + _STORED[kind]) if kind in _STORED and small is None else None
        if dtype is None or size != count * dtype.itemsize:
            raise _Damaged("the size of a variable's data does not match its shape")
        return dtype.str


@dataclass(frozen=True)
class _Head:
    name: str
    kind: str
    complex: bool
    shape: tuple[int, ...]


def _head(element: _Element, compressed: bool) -> _Head:
    if compressed and element.tag()[0] != _MATRIX:
        raise _Damaged("something else than a variable is compressed in it")
    flags = element.integers(8)
    if len(flags) != 2:
        raise _Damaged("the head of a variable makes no sense")
    if flags[0] & 0xFF == 17:  # opaque objects have another head
        return _Head("an object", "object", False, ())
    shape = element.integers(256)
    name = element.content(256).decode("latin-1")
    return _Head(name, _CLASSES.get(flags[0] & 0xFF, "unknown kind"), bool(flags[0] & 0x800), shape)


@dataclass(frozen=True)
class _Compressed(Variable):
    start: int
    length: int
    order: str

    def _tiles(self) -> Iterator[Tile]:
        count = self.rows * self.columns
        with self.path.open("rb") as file:
            element = _Element(file.fileno(), self.start, self.length, self.order, compressed=True)
            _head(element, compressed=True)
            for part in range(2 if self.complex else 1):
                dtype = np.dtype(element.numbers(count))
                for columns, rows in _grid(self.columns, self.rows):
                    data = element.take(len(columns) * len(rows) * dtype.itemsize)
                    yield Tile(
                        part, columns.start, rows.start, np.frombuffer(data, dtype).reshape(len(columns), len(rows))
                    )
                if part == 0 and self.complex:
                    element.skip(-count * dtype.itemsize % 8)
            element.finish()


def _find_v5(path: Path, descriptor: int, order: str, name: str, columns: int, is_complex: bool) -> Variable:
    end, at, others = os.fstat(descriptor).st_size, 128, []
    while at < end:
        kind, size = struct.unpack(order + "II", os.pread(descriptor, 8, at).ljust(8, b"\0"))
        if kind not in (_MATRIX, _COMPRESSED):
            raise _Damaged(f"no variable begins at byte {at}")
        if at + 8 + size > end:
            raise _Damaged(f"it has {end} bytes and should have at least {at + 8 + size}")
        compressed = kind == _COMPRESSED
        element = _Element(descriptor, at + 8, size, order, compressed)
        head = _head(element, compressed)
        if head.name == name:
            _check(path, name, head.kind, head.shape, head.complex, columns, is_complex)
            rows = head.shape[0]
            about: dict[str, Any] = {"path": path, "version": "5", "name": name, "rows": rows, "columns": columns}
            about |= {"dtype": head.kind, "complex": is_complex}
            if compressed:
                element.numbers(rows * columns)
                return _Compressed(**about, matrix=None, start=at + 8, length=size, order=order)
            parts = []
            for _ in range(2 if is_complex else 1):
                dtype = element.numbers(rows * columns)
                parts.append((dtype, element.position))
                length = rows * columns * np.dtype(dtype).itemsize
                element.skip(length + -length % 8)
                if parts[-1][1] + length > at + 8 + size:
                    raise _Damaged(f"{name} ends early")
            return Variable(**about, matrix=Matrix(path, rows, columns, tuple(parts)))
        others.append(head.name)
        at += 8 + size
    raise _missing(path, name, others)


# version 7.3 -----------------------------------------------------------------------------------------------------------------


@contextmanager
def _hdf5(path: Path) -> Iterator[Any]:
    """The open file; whatever the library makes of a damaged one is one error."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            yield file
    except (DatagenError, _Damaged, GeneratorExit, KeyboardInterrupt):
        raise
    except Exception as error:
        raise _Damaged(f"HDF5 says {' '.join(str(error).split())[:200]!r}") from None


@dataclass(frozen=True)
class _Chunked(Variable):
    def _tiles(self) -> Iterator[Tile]:
        with _hdf5(self.path) as file:
            data = file[self.name]
            for columns, rows in _grid(self.columns, self.rows, data.chunks):
                values = data[columns.start : columns.stop, rows.start : rows.stop]
                for part, plane in enumerate(_planes(values)):
                    yield Tile(part, columns.start, rows.start, plane)


def _planes(values: NDArray[Any]) -> list[NDArray[np.floating]]:
    if values.dtype.names:
        return [values["real"], values["imag"]]
    return [values.real, values.imag] if values.dtype.kind == "c" else [values]


def _find_hdf5(path: Path, name: str, columns: int, is_complex: bool) -> Variable:
    import h5py

    with _hdf5(path) as file:
        if not isinstance(file.get(name, getlink=True), h5py.HardLink):
            raise _missing(path, name, [key for key in file if not key.startswith("#")])
        data = file[name]
        kind = data.attrs.get("MATLAB_class", b"")
        kind = kind.decode("latin-1") if isinstance(kind, bytes) else str(kind)
        if not isinstance(data, h5py.Dataset):
            names = {"": "group", "cell": "cell array", "double": "sparse matrix"}
            _check(path, name, names.get(kind, kind), (), False, columns, is_complex)
        numbers = data.dtype
        if numbers.names == ("real", "imag"):
            numbers = numbers["real"] if numbers["real"] == numbers["imag"] else numbers
        found = {("f", 8): "double", ("c", 16): "double", ("f", 4): "single", ("c", 8): "single"}.get(
            (numbers.kind, numbers.itemsize)
        )
        wrong = {"cell": "cell array", "char": "char array", "": str(numbers)}.get(kind, kind)
        wrong = f"{wrong} kept as {numbers}" if wrong in ("double", "single") else wrong
        whole = bool(data.dtype.names) or numbers.kind == "c"
        shape = tuple(map(int, reversed(data.shape or ())))
        _check(path, name, found if found and kind in ("", found) else wrong, shape, whole, columns, is_complex)
        if data.external or data.is_virtual:
            raise DatagenError(f"{path}: the numbers of {name} lie in other files; save it whole, with -v7.3")
        if data.chunks and math.prod(data.chunks) > LARGEST_CHUNK:
            raise DatagenError(
                f"{path}: {name} is stored in chunks of {math.prod(data.chunks)} numbers; save it with -v7, or in chunks of at most {LARGEST_CHUNK}"
            )
        tiles = [-(-length // chunk) for length, chunk in zip(data.shape, data.chunks or data.shape, strict=True)]
        if (data.id.get_num_chunks() < math.prod(tiles)) if data.chunks else not data.id.get_storage_size():
            raise _Damaged(f"some of {name} was never written")  # HDF5 would read zeros
        assert found is not None
        about: dict[str, Any] = {"path": path, "version": "7.3", "name": name, "rows": shape[0], "columns": columns}
        about |= {"dtype": found, "complex": is_complex}
        offset = data.id.get_offset()
        if data.chunks or is_complex or offset is None:
            return _Chunked(**about, matrix=None)
        if offset + data.id.get_storage_size() > path.stat().st_size:
            raise _Damaged(f"{name} ends early")
        return Variable(**about, matrix=Matrix(path, shape[0], columns, ((numbers.str, offset),)))
