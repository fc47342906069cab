"""Code indices to the very bytes that a phone would send, and back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from zoo.errors import ZooError


def pack(codes: NDArray[np.int64], widths: Sequence[int]) -> list[bytes]:
    """Write each row of codes as one payload: codes in order, most significant bit first, zero bits to fill the last byte.

    :param codes: shape [n, s], code j in 0 ... 2^widths[j] - 1
    :param widths: bits of each code, shape [s]
    :returns: n payloads of ceil(sum(widths) / 8) bytes
    :raises ZooError: a code does not fit its width
    """
    width = np.asarray(widths, dtype=np.int64)
    if codes.ndim != 2 or codes.shape[1] != len(width) or (codes < 0).any() or (codes >> width).any():
        raise ZooError(f"codes of shape {codes.shape} do not fit {len(width)} fields of {int(width.sum())} bits")
    source, shift = _layout(width)
    bits = ((codes[:, source] >> shift) & 1).astype(np.uint8)
    return [row.tobytes() for row in np.packbits(bits, axis=1)]


def unpack(payloads: Sequence[bytes], widths: Sequence[int]) -> NDArray[np.int64]:
    """Undo :func:`pack`.

    :returns: codes, shape [n, s]
    :raises ZooError: a payload has another length, or its fill bits are not zero
    """
    width = np.asarray(widths, dtype=np.int64)
    total = int(width.sum())
    size = -(-total // 8)
    for number, payload in enumerate(payloads):
        if len(payload) != size:
            raise ZooError(f"payload {number} has {len(payload)} bytes; this code of {total} bits has {size}")
    raw = np.frombuffer(b"".join(payloads), np.uint8).reshape(len(payloads), size)
    bits = np.unpackbits(raw, axis=1)
    if bits[:, total:].any():
        raise ZooError(f"a payload has bits set beyond its {total}: it is of another model, or damaged")
    source, shift = _layout(width)
    place_values = np.zeros((total, len(width)), np.int64)
    place_values[np.arange(total), source] = np.left_shift(1, shift)
    codes: NDArray[np.int64] = bits[:, :total].astype(np.int64) @ place_values
    return codes


def _layout(width: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each bit of a payload: which code it belongs to, and its place in that code."""
    source = np.repeat(np.arange(len(width)), width)
    first = np.repeat(np.cumsum(width) - width, width)
    return source, np.repeat(width, width) - 1 - (np.arange(len(source)) - first)
