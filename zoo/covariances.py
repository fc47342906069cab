"""Second moments: of samples of X, Y and Z, and of the latents behind them where a data set's law is known in closed form."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from zoo.errors import ZooError

Array = NDArray[np.complexfloating]
Batch = tuple[Array, Array | None, Array]  # X, Y (None: no side information) and Z, each [n, angle, delay]


@dataclass(frozen=True)
class Covariances:
    """Covariances E[A B^H] of zero-mean samples, each complex128 [angle * delay, angle * delay]."""

    shape: tuple[int, int]  # angles, delays
    x: Array
    z: Array
    zx: Array
    y: Array | None = None
    yx: Array | None = None
    zy: Array | None = None

    @classmethod
    def of(cls, batches: Iterable[Batch]) -> Covariances:
        """Accumulate samples; memory does not grow with their number. Where Z is the very object X, nothing is computed twice.

        :param batches: triples, each array complex [n, angle, delay]
        :raises ZooError: there are none
        """
        sums: dict[str, Array] = {}
        samples, shape = 0, (0, 0)
        for x, y, z in batches:
            pairs = {"x": (x, x)}
            if z is not x:
                pairs |= {"z": (z, z), "zx": (z, x)}
            if y is not None:
                pairs |= {"y": (y, y), "yx": (y, x), "zy": (z, y)}
            for name, (a, b) in pairs.items():
                sums[name] = sums.get(name, 0) + (a.reshape(len(a), -1).T @ b.reshape(len(b), -1).conj()).astype(
                    complex
                )
            samples, shape = samples + len(x), (x.shape[1], x.shape[2])
        if not samples:
            raise ZooError("there are no samples to take covariances of")
        means = {name: total / samples for name, total in sums.items()}
        return cls(shape, **{"z": means["x"], "zx": means["x"], **means})


def as_arrays(batch: tuple[Tensor, Tensor | None, Tensor]) -> Batch:
    """Tensors of X, Y and Z as arrays; a target that is X itself stays so."""
    x, y, z = batch
    first = x.cpu().numpy()
    return first, None if y is None else y.cpu().numpy(), first if z is x else z.cpu().numpy()


def principal(covariance: Array) -> tuple[NDArray[np.floating], Array]:
    """Variances [component], descending, and orthonormal directions [cell, component] of the principal components."""
    variances, directions = np.linalg.eigh(covariance)
    return variances[::-1], directions[:, ::-1]


def noise_variance(energy: float, cells: int, snr_db: float) -> float:
    """Variance of complex white noise on each cell of Y.

    :param energy: E||Y||^2
    :param cells: angles * delays
    :param snr_db: energy of Y over energy of the noise, both of all cells
    """
    return energy / cells * 10 ** (-snr_db / 10)


class Statistics(Protocol):
    """What X, Y and Z have in common at known velocities, in closed form: ``datagen.ConditionalStatistics``.

    X = downlink @ w, Z = downlink @ w', Y = uplink @ w', where w and w' are complex unit Gaussians with E[w'_l w_l*] given by the velocity,
    one of V equally likely ones. The column of a latent l is the outer product of roots_l and the taps of its cluster.
    """

    @property
    def roots(self) -> Array:
        """[L, angle]"""

    @property
    def cluster(self) -> NDArray[np.integer]:
        """[L], 0 ... C - 1"""

    @property
    def downlink_taps(self) -> Array:
        """[C, delay]"""

    @property
    def uplink_taps(self) -> Array:
        """[C, delay]"""

    @property
    def correlation(self) -> Array:
        """[V, C]"""

    @property
    def downlink(self) -> Array:
        """[angle * delay, L]"""

    @property
    def uplink(self) -> Array:
        """[angle * delay, L]"""

    @property
    def latent_correlation(self) -> Array:
        """[V, L]"""
