"""Counter-based random streams: sample i of a split owns a fixed range of one Philox counter.

Because a sample's numbers depend on (seed, stream, index) alone, neither worker count nor shard size, order or restarts can
change them, and a run of consecutive samples is one call into numpy's generator.

Source: J. K. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011 (Philox4x64-10).
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

WORDS_PER_BLOCK = 4  # one Philox4x64 counter value yields four 64-bit words


def stream_key(seed: int, stream: str) -> NDArray[np.uint64]:
    """Philox key of a named stream: (seed, first 8 bytes of SHA-256 of the name). Shape [2]."""
    name = int.from_bytes(hashlib.sha256(stream.encode()).digest()[:8], "little")
    return np.array([seed, name], dtype=np.uint64)


def words(
    seed: int, stream: str, indices: Sequence[int] | NDArray[np.int64], words_per_sample: int
) -> NDArray[np.uint64]:
    """Random 64-bit words of the given samples.

    :param seed: dataset seed, 0 to 2^64 - 1
    :param stream: name of the stream, e.g. ``"cdl/train"``; streams are independent of each other
    :param indices: sample indices, any order, repeats allowed, shape [n]
    :param words_per_sample: words that one sample may use; rounded up to whole Philox blocks
    :returns: shape [n, words_per_sample], uint64
    """
    blocks = -(-words_per_sample // WORDS_PER_BLOCK)
    stride = blocks * WORDS_PER_BLOCK
    key = stream_key(seed, stream)
    out = np.empty((len(indices), stride), dtype=np.uint64)
    for position, first, count in _runs(np.asarray(indices, dtype=np.int64)):
        generator = np.random.Philox(key=key, counter=first * blocks)
        out[position : position + count] = generator.random_raw(count * stride).reshape(count, stride)
    return out[:, :words_per_sample]


def _runs(indices: NDArray[np.int64]) -> Iterator[tuple[int, int, int]]:
    """(position, first index, count) of each run of consecutive indices."""
    edges = [0, *(np.flatnonzero(np.diff(indices) != 1) + 1).tolist(), len(indices)]
    for start, end in itertools.pairwise(edges):
        if end > start:
            yield start, int(indices[start]), end - start


def halves(raw: NDArray[np.uint64]) -> NDArray[np.uint32]:
    """Two 32-bit words from each 64-bit word, low half first. Shape [n, w] -> [n, 2 w]."""
    return np.ascontiguousarray(raw).astype("<u8", copy=False).view("<u4")


def uniform(raw: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1) from 64-bit words (53 bits used). Shape kept."""
    return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53


def phases(raw: NDArray[np.uint32]) -> NDArray[np.float32]:
    """Uniform phases in [-pi, pi) [rad] from 32-bit words. Shape kept."""
    return raw.view("<i4").astype(np.float32) * np.float32(np.pi * 2.0**-31)


def permutations(raw: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Uniform random permutations of the last axis (at most 32 long): the order of random keys.

    The position rides in the low 5 bits of each key, so that one in-place sort gives the permutation; ties in the upper
    27 bits (probability 1.4e-6 for 20 keys) are broken by position.

    :param raw: shape [..., m], uint32, m <= 32
    :returns: shape [..., m], uint32, a permutation of 0 ... m - 1 in every row
    :raises ValueError: if the last axis is longer than 32
    """
    if raw.shape[-1] > 32:
        raise ValueError(f"cannot permute {raw.shape[-1]} items: at most 32")
    keys = (raw & np.uint32(0xFFFFFFE0)) | np.arange(raw.shape[-1], dtype=np.uint32)
    keys.sort(axis=-1)
    return keys & np.uint32(31)


def normal(raw: NDArray[np.uint32]) -> NDArray[np.float64]:
    """Standard normal numbers from 32-bit words, each pair of words making two (Box and Muller). Shape [..., 2 m], kept."""
    u = raw.reshape(*raw.shape[:-1], -1, 2)
    radius = np.sqrt(-2 * np.log((u[..., 0] + 0.5) * 2.0**-32))
    angle = u[..., 1] * (2 * np.pi * 2.0**-32)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], -1).reshape(raw.shape)
