"""CDL triples (TR 38.901 §7.7.1) by the closed-form kernel: rays -> clusters -> 32 angles x 32 delays, nothing larger.

With vertically polarised BS elements and one vertically polarised omnidirectional UE element, only the theta-theta entry of the
polarisation matrix is seen, so that TR 38.901 eq. (7.5-22) to (7.5-30) reduce, per cluster c with rays r, to

    a_c[n](t) = sqrt(P_c / 20) sum_r F(zod, aod) e^{j phi_r}
                e^{j pi (n - (N-1)/2) sin(zod) sin(aod)}  e^{j 2 pi (v . u(zoa, aoa)) t / lambda},   n = 0 ... N-1 antennas,

plus, in profiles D and E, the specular path without random phase on the zero-delay cluster. Everything that does not change
from sample to sample stands in tables: the response of each of the 20 x 20 possible (aod, zod) ray pairs of a cluster, already
in the angle domain, and the delay taps of each cluster (:func:`datagen.angular_delay.delay_kernel`). A sample is then
a weighted sum of 480 table rows and one [angle, cluster] x [cluster, delay] product per array.
"""

from __future__ import annotations

import dataclasses
import functools
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from datagen import draws as streams
from datagen.angular_delay import delay_kernel
from datagen.recipe import CDLRecipe
from datagen.recipe.base import SPEED_OF_LIGHT_MPS
from datagen.scenarios import Batch

DOWNLINK, UPLINK = 0, 1  # rows of Draws.phases
ZOD, AOA, ZOA = 0, 1, 2  # rows of Draws.coupling


@dataclass(frozen=True)
class Profile:
    """One CDL table with its rays spread out. C clusters, R = 20 rays.

    Angles are [C, R] in radians, not yet coupled; ``los`` holds the specular path's (aod, aoa, zod, zoa) [rad] or None.
    """

    delays: NDArray[np.float64]  # [C], in units of the RMS delay spread
    powers: NDArray[np.float64]  # [C], diffuse power, summing to 1
    k_factor: float  # specular over diffuse power, 0 without line of sight
    aod: NDArray[np.float64]
    aoa: NDArray[np.float64]
    zod: NDArray[np.float64]
    zoa: NDArray[np.float64]
    los: tuple[float, float, float, float] | None


@functools.cache
def profile(model: str) -> Profile:
    """CDL profile "A" to "E": TR 38.901 Tables 7.7.1-1 to 7.7.1-5, rays by eq. (7.7-0a) and Table 7.5-3."""
    tables = tomllib.loads(files(__package__).joinpath("cdl.toml").read_text())
    table: dict[str, Any] = tables[model]
    rows = np.array(table["clusters"])
    powers = 10 ** (rows[:, 1] / 10)
    first = int(table["los"])
    offsets = np.array([sign * offset for offset in tables["ray_offsets"] for sign in (1, -1)])
    aod, aoa, zod, zoa = (np.deg2rad(rows[first:, 2 + i, None] + table["spreads"][i] * offsets) for i in range(4))
    return Profile(
        delays=rows[first:, 0],
        powers=powers[first:] / powers[first:].sum(),
        k_factor=float(powers[0] / powers[1:].sum()) if first else 0.0,
        aod=aod, aoa=aoa, zod=zod, zoa=zoa,
        los=tuple(np.deg2rad(rows[0, 2:])) if first else None,
    )  # fmt: skip


@dataclass(frozen=True)
class Draws:
    """The random numbers of n samples: numpy when drawn by index, torch when drawn on a device."""

    velocity: Any  # [n, 3] float32, UE velocity [m/s]
    phases: Any  # [n, 2, C, R] float32, initial phases [rad] of the downlink and of an independent uplink
    coupling: Any  # [n, 3, C, R] integers, the zod, aoa and zoa ray that goes with each aod ray (step 8)


def velocity_from_uniform(recipe: CDLRecipe, u: Any, xp: Any) -> Any:
    """Velocity [n, 3] in m/s from uniforms u [n, 3]; xp is numpy or torch."""
    low, high = recipe.speed_mps
    speed, azimuth = low + (high - low) * u[:, 0], 2 * np.pi * u[:, 1]
    if recipe.velocity == "horizontal":
        cos_zenith = xp.zeros_like(azimuth)
    elif recipe.velocity == "sphere":
        cos_zenith = 1 - 2 * u[:, 2]
    else:
        cos_zenith = xp.cos(np.pi * u[:, 2])
    horizontal = speed * xp.sqrt(1 - cos_zenith**2)
    return xp.stack([horizontal * xp.cos(azimuth), horizontal * xp.sin(azimuth), speed * cos_zenith], -1)


def draw(recipe: CDLRecipe, split: str, indices: Sequence[int] | NDArray[np.int64]) -> Draws:
    """The draws of the given samples of a split, a function of (recipe, split, index) alone. Made on the CPU.

    One sample's Philox words in order: 3 for the velocity, then 32-bit halves for the phases [2, C, R] and the coupling
    keys [3, C, R]. The aod ray order stays fixed: rays have equal powers and independent phases, so coupling the other
    three angles at random is the same law as shuffling all four.
    """
    shape = profile(recipe.model).aod.shape
    rays = shape[0] * shape[1]
    raw = streams.words(recipe.seed, f"cdl/{split}", indices, 3 + 5 * rays // 2)
    halves = streams.halves(raw[:, 3:])
    return Draws(
        velocity=velocity_from_uniform(recipe, streams.uniform(raw[:, :3]), np).astype(np.float32),
        phases=streams.phases(halves[:, : 2 * rays]).reshape(-1, 2, *shape),
        coupling=streams.permutations(halves[:, 2 * rays :].reshape(-1, 3, *shape)).view(np.int32),
    )


def draw_on_device(recipe: CDLRecipe, n: int, generator: torch.Generator) -> Draws:
    """Draws of n samples from the same law as :func:`draw`, made by torch on the generator's device, not tied to an index."""
    shape = profile(recipe.model).aod.shape
    device = generator.device
    return Draws(
        velocity=velocity_from_uniform(recipe, torch.rand(n, 3, generator=generator, device=device), torch),
        phases=(2 * torch.rand(n, 2, *shape, generator=generator, device=device) - 1) * np.pi,
        coupling=torch.rand(n, 3, *shape, generator=generator, device=device).argsort(-1).to(torch.int32),
    )


def unit_vector(zenith: NDArray[np.float64], azimuth: NDArray[np.float64]) -> NDArray[np.float64]:
    """Unit vectors [..., 3] of spherical angles [rad] (TR 38.901 eq. 7.1-6); the two arrays broadcast."""
    zenith, azimuth = np.broadcast_arrays(zenith, azimuth)
    return np.stack([np.sin(zenith) * np.cos(azimuth), np.sin(zenith) * np.sin(azimuth), np.cos(zenith)], -1)


def element_gain_db(zenith: Any, azimuth: Any) -> Any:
    """Gain [dB] of a BS element (TR 38.901 Table 7.3-1) towards angles in degrees, numpy or torch. Shape kept."""
    vertical = (12 * ((zenith - 90) / 65) ** 2).clip(max=30)
    horizontal = (12 * (azimuth / 65) ** 2).clip(max=30)
    return 8 - (vertical + horizontal).clip(max=30)


def element_field(directions: NDArray[np.float64], pattern: str) -> NDArray[np.float64]:
    """Theta component of a vertically polarised element's field (TR 38.901 Table 7.3-1) towards unit vectors [..., 3]."""
    if pattern == "omni":
        return np.ones(directions.shape[:-1])
    zenith = np.rad2deg(np.arccos(np.clip(directions[..., 2], -1, 1)))
    azimuth = np.rad2deg(np.arctan2(directions[..., 1], directions[..., 0]))
    field: NDArray[np.float64] = 10 ** (element_gain_db(zenith, azimuth) / 20)
    return field


def angle_response(directions: NDArray[np.float64], recipe: CDLRecipe) -> NDArray[np.complex128]:
    """Response of the BS array towards unit vectors [..., 3], inverse transformed to the angle domain: [..., angle]."""
    antenna = np.arange(recipe.antennas) - (recipe.antennas - 1) / 2
    field = element_field(directions, recipe.antenna_pattern)[..., None]
    return np.fft.ifft(field * np.exp(1j * np.pi * antenna * directions[..., 1:2]), axis=-1)


@dataclass(frozen=True)
class Look:
    """One reading of the channel: X, Y or Z."""

    band: int  # whose phases: DOWNLINK or UPLINK
    time_s: float
    carrier_hz: float  # carrier of the path coefficients: sets the Doppler shift
    offset_hz: float  # centre of the band relative to that carrier: what the path delays turn into phases


def looks(recipe: CDLRecipe) -> dict[str, Look]:
    """X, Y and Z as readings of one set of paths, by the recipe's uplink relation (SCIENCE: GD-CSI §IV-B leaves it open)."""
    down, up, t = recipe.downlink_carrier_ghz * 1e9, recipe.uplink_carrier_ghz * 1e9, recipe.horizon_s
    if recipe.uplink == "comb":
        mean = (down + up) / 2
        x, y = Look(DOWNLINK, 0, mean, down - mean), Look(DOWNLINK, t, mean, up - mean)
    else:
        band = UPLINK if recipe.uplink == "independent-phases" else DOWNLINK
        x, y = Look(DOWNLINK, 0, down, 0), Look(band, t, up, 0)
    return {"X": x, "Y": y, "Z": dataclasses.replace(x, time_s=t)}


class CDLEngine:
    """What both engines share: the recipe, the device and the draws.

    :param recipe: what to simulate
    :param device: torch device
    """

    def __init__(self, recipe: CDLRecipe, device: torch.device) -> None:
        self.recipe, self.device = recipe, device
        self.profile = profile(recipe.model)
        self.looks = {name: look for name, look in looks(recipe).items() if name in recipe.arrays}

    def draw(self, split: str, indices: Sequence[int] | NDArray[np.int64]) -> Draws:
        """See :func:`draw`."""
        return draw(self.recipe, split, indices)

    def draw_on_device(self, n: int, generator: torch.Generator) -> Draws:
        """See :func:`draw_on_device`."""
        return draw_on_device(self.recipe, n, generator)


class ClosedForm(CDLEngine):
    """The closed-form engine: the equations at the top of this file, in float32 from tables made in float64."""

    def __init__(self, recipe: CDLRecipe, device: torch.device) -> None:
        super().__init__(recipe, device)
        rays = self.profile
        clusters, per_cluster = rays.aod.shape
        amplitude = np.sqrt(rays.powers / per_cluster / (1 + rays.k_factor))

        # rows of the response table: cluster, aod ray, zod ray; 2 N reals each, for the real and the imaginary part of a weight
        pairs = unit_vector(rays.zod[:, None, :], rays.aod[:, :, None])
        response = (amplitude[:, None, None, None] * angle_response(pairs, recipe)).reshape(-1, recipe.antennas)
        self.response = self._tensor(
            np.stack([response, 1j * response]).astype(np.complex64).view(np.float32), torch.float32
        ).flatten(0, 1)
        self.imaginary = len(response)
        row = np.arange(clusters * per_cluster).reshape(clusters, per_cluster) * per_cluster
        self.row = self._tensor(row, torch.int32)
        arrivals = unit_vector(rays.zoa[:, None, :], rays.aoa[:, :, None]).reshape(-1, 3)
        self.arrival = self._tensor(arrivals, torch.float64)

        delays = rays.delays * recipe.delay_spread_ns * 1e-9
        self.taps = {
            offset: self._tensor(
                delay_kernel(delays, recipe.subcarriers, recipe.spacing_khz * 1e3, offset, recipe.crop_taps),
                torch.complex64,
            )
            for offset in {look.offset_hz for look in self.looks.values()}
        }
        self.specular: tuple[torch.Tensor, torch.Tensor] | None = None
        if rays.los is not None:
            aod, aoa, zod, zoa = (np.array(angle) for angle in rays.los)
            response = np.sqrt(rays.k_factor / (1 + rays.k_factor)) * angle_response(unit_vector(zod, aod), recipe)
            self.specular = self._tensor(response, torch.complex64), self._tensor(unit_vector(zoa, aoa), torch.float64)

    def _tensor(self, array: NDArray[Any], dtype: torch.dtype) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device, dtype)

    @torch.no_grad()
    def __call__(self, draws: Draws) -> Batch:
        """Simulate the samples of some draws.

        :param draws: random numbers of n samples
        :returns: the recipe's arrays of X, Y, Z, each complex64 [n, antennas, crop_taps] on the engine's device
        """
        velocity, phases, coupling = (
            torch.as_tensor(part, device=self.device) for part in (draws.velocity, draws.phases, draws.coupling)
        )
        departure = self.row + coupling[:, ZOD]
        arrival = self.row[:, :1] + self.row.shape[1] * coupling[:, AOA] + coupling[:, ZOA]
        # speeds towards the rays [m/s] in float64: over long horizons the Doppler phase is many turns
        velocity = velocity.double()
        closing = torch.bmm(self.arrival[arrival.flatten()].view(len(velocity), -1, 3), velocity[:, :, None])
        closing = closing.view(arrival.shape)
        coefficients: dict[tuple[int, float, float], torch.Tensor] = {}
        arrays = {}
        for name, look in self.looks.items():
            key = (look.band, look.time_s, look.carrier_hz)
            if key not in coefficients:
                coefficients[key] = self._clusters(departure, phases[:, look.band], closing, velocity, look)
            arrays[name] = coefficients[key] @ self.taps[look.offset_hz]
        return arrays

    def _clusters(
        self, departure: torch.Tensor, phases: torch.Tensor, closing: torch.Tensor, velocity: torch.Tensor, look: Look
    ) -> torch.Tensor:
        """Cluster coefficients in the angle domain at one instant, [n, angle, C] complex64 (eq. 7.5-22, summed over rays)."""
        n, clusters, rays = departure.shape
        wave_number = 2 * np.pi * look.carrier_hz / SPEED_OF_LIGHT_MPS  # [rad/m]
        phase = phases + ((wave_number * look.time_s) * closing).remainder(2 * np.pi).float()
        weights = torch.cat([torch.cos(phase), torch.sin(phase)], -1)
        rows = torch.cat([departure, departure + self.imaginary], -1)
        summed = torch.nn.functional.embedding_bag(
            rows.view(-1, 2 * rays), self.response, per_sample_weights=weights.view(-1, 2 * rays), mode="sum"
        )
        coefficients = torch.view_as_complex(summed.view(n, clusters, -1, 2)).transpose(1, 2).contiguous()
        if self.specular is not None:
            response, direction = self.specular
            shift = (wave_number * look.time_s) * (velocity @ direction)
            coefficients[:, :, 0] += torch.polar(torch.ones_like(shift), shift)[:, None].to(response.dtype) * response
        return coefficients
