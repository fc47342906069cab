"""Gaussian rate-distortion limits from covariances: what no code of a Gaussian source with these statistics can beat.

Sources: T. M. Cover, J. A. Thomas, Elements of Information Theory, ch. 10 (reverse water-filling); H. S. Witsenhausen, "Indirect
rate distortion problems", IEEE Trans. IT 1980 (prediction: code the estimate, add its error); A. D. Wyner, "The rate-distortion
function for source coding with side information at the decoder II", 1978 (side information that only the decoder has costs a
Gaussian source no rate).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.complexfloating]


def water_level(variances: NDArray[np.floating], bits: float) -> float:
    """Level theta of reverse water-filling over circular complex components: sum of max(0, log2(variance / theta)) = bits.

    :param variances: of the principal components, shape [component]
    :param bits: rate, 0 and up
    """
    ordered = np.sort(np.asarray(variances, dtype=np.float64))[::-1]
    ordered = ordered[ordered > 0]
    logs = np.cumsum(np.log2(ordered))
    for k in range(len(ordered), 0, -1):
        level = 2 ** ((logs[k - 1] - bits) / k)
        if level <= ordered[k - 1]:
            return float(level)
    return 0.0


def gaussian_distortion(variances: NDArray[np.floating], bits: float) -> float:
    """Least mean squared error of a circular Gaussian vector at a rate [bits], summed over its principal components."""
    if np.isinf(bits):
        return 0.0
    return float(np.minimum(np.maximum(variances, 0), water_level(variances, bits)).sum())


def prediction_distortion(
    x: Matrix,
    zx: Matrix,
    z: Matrix,
    bits: Sequence[float],
    y: Matrix | None = None,
    yx: Matrix | None = None,
    yz: Matrix | None = None,
) -> list[float]:
    """Least error of Z, relative to its energy, when X is coded at a rate and the decoder also has Y. Jointly Gaussian.

    :param x: E[X X^H], shape [a, a]
    :param zx: E[Z X^H], shape [c, a]
    :param z: E[Z Z^H], shape [c, c]
    :param bits: rates; ``math.inf`` for X itself
    :param y: E[Y Y^H], shape [b, b]; without it there is no side information
    :param yx: E[Y X^H], shape [b, a]
    :param yz: E[Y Z^H], shape [b, c]
    :returns: E||Z - Z^||^2 / E||Z||^2 at each rate
    """
    energy = float(np.trace(z).real)
    if y is not None and yx is not None and yz is not None:  # everything given Y
        inverse = np.linalg.pinv(y, hermitian=True)
        x, zx, z = x - yx.conj().T @ inverse @ yx, zx - yz.conj().T @ inverse @ yx, z - yz.conj().T @ inverse @ yz
    estimate = zx @ np.linalg.pinv(x, rcond=1e-9, hermitian=True) @ zx.conj().T
    floor = float(np.trace(z - estimate).real)
    variances = np.linalg.eigvalsh(estimate)
    return [(floor + gaussian_distortion(variances, rate)) / energy for rate in bits]


def covariance(a: Matrix, b: Matrix) -> Matrix:
    """E[A B^H] of zero-mean samples, [sample, i] and [sample, j] to [i, j]."""
    result: Matrix = a.T @ b.conj() / len(a)
    return result


def principal(samples: Matrix, components: int) -> Matrix:
    """Orthonormal basis of the leading principal components of samples [sample, cell]: [cell, components]."""
    _, vectors = np.linalg.eigh(covariance(samples, samples))
    basis: Matrix = vectors[:, ::-1][:, :components]
    return basis
