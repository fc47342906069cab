"""Second-order statistics of CDL triples in closed form: what X, Y and Z have in common once the UE's velocity is known.

Given the velocity v, the rays' phases alone are random, and the coefficients of a cluster are zero-mean, nearly Gaussian (20 rays),
independent from cluster to cluster. With R_c the angular covariance of cluster c, d_c and u_c its downlink and uplink delay taps,

    X = sum_c A_c d_c^T,   Z = sum_c A'_c d_c^T,   Y = sum_c A'_c u_c^T,   E[A_c A_c^H] = E[A'_c A'_c^H] = R_c,
    E[A'_c A_c^H] = chi_c(v) R_c,   chi_c(v) = mean over the cluster's ray pairs of exp(j 2 pi (v . u(zoa, aoa)) t / lambda),

so that the velocity enters through one complex number a cluster. Writing A_c = B_c w_c with B_c B_c^H = R_c turns all three arrays into
linear maps of unit-variance latents: a column b_l of B_c is the *root* of latent l, which belongs to cluster c.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datagen.angular_delay import delay_kernel
from datagen.errors import DatagenError
from datagen.recipe import CDLRecipe
from datagen.recipe.base import SPEED_OF_LIGHT_MPS
from datagen.scenarios import cdl

KEPT = 1e-4  # eigenvalues of R_c kept, relative to its largest
GOLDEN = 1.2207440846057596  # root of x^4 = x + 1: multiples of its inverse powers fill the unit cube evenly


@dataclass(frozen=True)
class ConditionalStatistics:
    """Samples as maps of latents, and the latents' correlation over time at V velocities. L latents in C clusters."""

    roots: NDArray[np.complex128]  # [L, angle]
    cluster: NDArray[np.int64]  # [L], the cluster of each latent
    downlink_taps: NDArray[np.complex128]  # [C, delay]
    uplink_taps: NDArray[np.complex128]  # [C, delay]
    velocities: NDArray[np.float64]  # [V, 3] m/s, equally likely under the recipe's law
    correlation: NDArray[np.complex128]  # [V, C]: E[w' w*] of a cluster's latents at each velocity

    @property
    def downlink(self) -> NDArray[np.complex128]:
        """[angle * delay, L]: X = downlink @ w, Z = downlink @ w'."""
        return self._dense(self.downlink_taps)

    @property
    def uplink(self) -> NDArray[np.complex128]:
        """[angle * delay, L]: Y = uplink @ w'."""
        return self._dense(self.uplink_taps)

    @property
    def latent_correlation(self) -> NDArray[np.complex128]:
        """[V, L]: E[w' w*] of each latent at each velocity."""
        return self.correlation[:, self.cluster]

    def _dense(self, taps: NDArray[np.complex128]) -> NDArray[np.complex128]:
        cells: NDArray[np.complex128] = np.einsum("la,ld->adl", self.roots, taps[self.cluster])
        return cells.reshape(-1, len(self.roots))


def conditional_statistics(recipe: CDLRecipe, velocities: int = 300) -> ConditionalStatistics:
    """Closed-form statistics of a CDL recipe at velocities that fill its law evenly.

    :param recipe: NLOS profile (A, B, C), comb uplink
    :param velocities: number of velocities V
    :raises DatagenError: a profile with line of sight (X has a mean then), another uplink relation, or no velocities
    """
    rays = cdl.profile(recipe.model)
    if rays.los is not None:
        raise DatagenError(f"model {recipe.model} has a line of sight: its samples are not zero-mean; use A, B or C")
    if recipe.uplink != "comb":
        raise DatagenError(f"uplink {recipe.uplink!r} has no closed-form statistics here; use 'comb'")
    if velocities < 1:
        raise DatagenError(f"velocities {velocities} is not allowed; give 1 or more")
    amplitude = np.sqrt(rays.powers / rays.aod.shape[1])
    pairs = cdl.unit_vector(rays.zod[:, None, :], rays.aod[:, :, None])
    response = amplitude[:, None, None, None] * cdl.angle_response(pairs, recipe)  # [C, aod, zod, angle]
    power, vectors = np.linalg.eigh(np.einsum("cija,cijb->cab", response, response.conj()) / rays.zod.shape[1])
    cluster, column = np.nonzero(power > KEPT * power[:, -1:])

    looks = cdl.looks(recipe)
    delays_s = rays.delays * recipe.delay_spread_ns * 1e-9
    downlink_taps, uplink_taps = (
        delay_kernel(delays_s, recipe.subcarriers, recipe.spacing_khz * 1e3, look.offset_hz, recipe.crop_taps)
        for look in (looks["X"], looks["Y"])
    )
    points = (0.5 + np.arange(1, velocities + 1)[:, None] * GOLDEN ** -np.arange(1.0, 4.0)) % 1
    velocity = cdl.velocity_from_uniform(recipe, points, np)
    arrivals = cdl.unit_vector(rays.zoa[:, None, :], rays.aoa[:, :, None]).reshape(len(rays.zoa), -1, 3)
    turns = looks["Z"].carrier_hz * looks["Z"].time_s / SPEED_OF_LIGHT_MPS  # of the carrier's phase, for each m/s
    return ConditionalStatistics(
        roots=vectors[cluster, :, column] * np.sqrt(power[cluster, column])[:, None],
        cluster=cluster,
        downlink_taps=downlink_taps,
        uplink_taps=uplink_taps,
        velocities=velocity,
        correlation=np.exp(2j * np.pi * turns * np.einsum("cpk,vk->vcp", arrivals, velocity)).mean(-1),
    )
