"""Distortion measures, one definition each."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Complex = NDArray[np.complexfloating]
AT_ONCE = 32  # samples whose subcarriers :func:`rho` holds at a time


def relative_errors(z: Complex, estimate: Complex) -> NDArray[np.float64]:
    """||Z - estimate||_F^2 / ||Z||_F^2 of each sample, shape [sample].

    :param z: complex [sample, angle, delay]
    :param estimate: same shape
    :raises ValueError: the shapes differ
    """
    if z.shape != estimate.shape:
        raise ValueError(f"shapes {z.shape} and {estimate.shape} differ")
    error: NDArray[np.float64] = np.square(np.abs(z - estimate), dtype=np.float64).sum(axis=(1, 2))
    return error / np.square(np.abs(z), dtype=np.float64).sum(axis=(1, 2))


def nmse(z: Complex, estimate: Complex) -> float:
    """Mean over samples of :func:`relative_errors`."""
    return float(relative_errors(z, estimate).mean())


def nmse_db(z: Complex, estimate: Complex) -> float:
    """:func:`nmse` in dB: 10 log10 of the mean ratio, not the mean of decibels."""
    return float(10 * np.log10(nmse(z, estimate)))


def rho(z: Complex, estimate: Complex, subcarriers: int) -> float:
    """Mean over samples and subcarriers of |<h^, h>| / (||h^|| ||h||), h the antenna vector of a subcarrier.

    :param z: complex angular-delay crop [sample, angle, delay]; both are padded to ``subcarriers`` delays and transformed back
    :raises ValueError: the shapes differ
    """
    if z.shape != estimate.shape:
        raise ValueError(f"shapes {z.shape} and {estimate.shape} differ")
    total = 0.0
    for start in range(0, len(z), AT_ONCE):
        # From angles to antennas is unitary up to a factor, which cancels: the transform over delays is enough.
        h, g = (np.fft.fft(array[start : start + AT_ONCE], subcarriers, axis=2) for array in (z, estimate))
        inner = np.abs((g.conj() * h).sum(axis=1))
        scale = np.linalg.norm(g, axis=1) * np.linalg.norm(h, axis=1)
        total += (inner / np.maximum(scale, np.finfo(np.float32).tiny)).sum()  # zero correlates with nothing
    return float(total / (len(z) * subcarriers))
