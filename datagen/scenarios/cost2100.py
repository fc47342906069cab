"""The COST 2100 channel model for one base station at the origin and one user a sample: one function a step.

Sources: L. Liu et al., "The COST 2100 MIMO channel model", 2012; R. Verdone and A. Zanella (eds.), "Pervasive Mobile and Ambient
Wireless Communications", 2012, chapter 3; M. Zhu, G. Eriksson and F. Tufvesson, "The COST 2100 channel model: parameterization and
validation based on outdoor MIMO measurements at 300 MHz", 2013. Parameters: :class:`datagen.recipe.COST2100Recipe`.

A user sees the far clusters whose visibility regions (VR) he stands in, the local clusters, and perhaps the line of sight. All
clusters of all samples of a batch are the rows of one table; ``C`` counts rows, ``L`` the paths of a cluster, ``n`` samples.
Geometry is in float64, for phases at the carrier; a path then is one complex weight times two real kernels (:func:`dirichlet`),
so that a sample is one real matrix product over its paths.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datagen import draws as streams
from datagen.errors import DatagenError
from datagen.recipe import COST2100Recipe
from datagen.recipe.base import SPEED_OF_LIGHT_MPS
from datagen.scenarios import Batch

TWIN, SINGLE, LOCAL_UE, LOCAL_BS = range(4)  # kinds of clusters
REDRAWN = 128  # redraws of a sample that are made at once, for the cache too
TOGETHER = 4  # samples whose kernels are evaluated at once: they stay in the cache
ALIGN = 64  # rows are padded to a multiple: vector units then treat every row alike, whatever lies beside it

# uniform numbers of a row, and normal ones
VR_RADIUS, VR_AZIMUTH, KIND, DISTANCE, LINK_DELAY, UNIFORMS = range(6)
SHADOW, DELAY, ELEVATION_BS, AZIMUTH_BS, ELEVATION_UE, AZIMUTH_UE, DIRECTION_BS, DIRECTION_UE, NORMALS = range(9)


Flat = tuple[Tensor, Tensor, Tensor]  # of P paths: delays [s], cosines of azimuth, complex amplitudes
Shift = tuple[Tensor, Tensor, Tensor]  # see DirichletKernel


@dataclass(frozen=True)
class Draws:
    """The random numbers of n samples, numpy when drawn by index and torch when drawn on a device."""

    users: Any  # [n, 3] uniform: x, y, mirror
    los: Any  # [n, 3] two uniform (centre of the LOS's visibility region), one normal (power factor)
    sample: Any  # [C] the sample that a row belongs to, ascending; n for rows that only pad the table
    local: Any  # [C] LOCAL_UE, LOCAL_BS, or TWIN for far clusters
    shared_vr: Any  # [C, 2] centre of the VR [m], or None where regions are drawn round the user
    uniform: Any  # [C, UNIFORMS]
    normal: Any  # [C, NORMALS]
    paths: Any  # [C, L, 5] normal: three coordinates, complex amplitude

    def to(self, device: torch.device) -> Draws:
        """The same as torch tensors on a device."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return Draws(**{name: None if v is None else torch.as_tensor(v, device=device) for name, v in fields.items()})


# the draws -------------------------------------------------------------------------------------------------------------------


@functools.cache
def _visible_cdf(recipe: COST2100Recipe) -> NDArray[np.float64]:
    """Distribution of the number of visibility regions that reach a user, at least one: binomial, without its 0."""
    regions, reach = recipe.visibility_regions, (recipe.vr_radius_m / recipe.cell_radius_m) ** 2
    count = np.arange(regions)
    log_ratio = np.log((regions - count) / (count + 1)) + math.log(reach) - math.log1p(-reach)
    mass = np.exp(np.concatenate([[0.0], np.cumsum(log_ratio)]) + regions * math.log1p(-reach))
    mass[0] = 0
    cdf: NDArray[np.float64] = np.cumsum(mass) / mass.sum()
    return cdf


def _local_kinds(recipe: COST2100Recipe) -> list[int]:
    return [LOCAL_UE] * recipe.local_cluster_ue + [LOCAL_BS] * recipe.local_cluster_bs


def _words(recipe: COST2100Recipe) -> int:
    return UNIFORMS + (NORMALS + 5 * recipe.paths_per_cluster + 1) // 2


def _rows(recipe: COST2100Recipe, stream: str, rows: NDArray[np.int64]) -> tuple[NDArray[np.float64], ...]:
    """Uniform numbers [C, UNIFORMS], normal numbers [C, NORMALS] and of paths [C, L, 5] of some rows of a stream."""
    raw = streams.words(recipe.seed, stream, rows, _words(recipe))
    normal = streams.normal(streams.halves(raw[:, UNIFORMS:]))
    end = NORMALS + 5 * recipe.paths_per_cluster
    return (
        streams.uniform(raw[:, :UNIFORMS]),
        normal[:, :NORMALS],
        normal[:, NORMALS:end].reshape(len(rows), recipe.paths_per_cluster, 5),
    )


def draw(recipe: COST2100Recipe, split: str, indices: Sequence[int] | NDArray[np.int64]) -> Draws:
    """The draws of the given samples of a split, a function of (recipe, split, index) alone. Made on the CPU."""
    index = np.asarray(indices, dtype=np.int64)
    n, stream = len(index), f"cost2100/{split}"
    raw = streams.words(recipe.seed, stream, index, 8)
    uniform = streams.uniform(raw[:, :6])
    locals_ = _local_kinds(recipe)
    if recipe.users_per_environment == 1:
        far = np.searchsorted(_visible_cdf(recipe), uniform[:, 5], side="right")
        counts = far + len(locals_)
        sample = np.repeat(np.arange(n), counts)
        place = np.arange(len(sample)) - np.repeat(np.cumsum(counts) - counts, counts)
        kind = np.array([*locals_, TWIN])[np.minimum(place, len(locals_))]
        rows = index[sample] * (recipe.visibility_regions + len(locals_)) + place
        vr, numbers = None, _rows(recipe, f"{stream}/clusters", rows)
    else:
        users = users_m(recipe, torch.from_numpy(uniform[:, :3])).numpy()
        environment = index // recipe.users_per_environment
        sample, kind, vr, numbers = _shared(recipe, stream, index, environment, users, locals_)
    pad = -len(sample) % ALIGN
    rows_uniform, rows_normal, path_normal = (np.concatenate([part, np.repeat(part[-1:], pad, 0)]) for part in numbers)
    return Draws(
        users=uniform[:, :3],
        los=np.concatenate([uniform[:, 3:5], streams.normal(streams.halves(raw[:, 6:7]))[:, :1]], 1),
        sample=np.concatenate([sample, np.full(pad, n)]),
        local=np.concatenate([kind, np.repeat(kind[-1:], pad)]),
        shared_vr=None if vr is None else np.concatenate([vr, np.repeat(vr[-1:], pad, 0)]),
        uniform=rows_uniform, normal=rows_normal, paths=path_normal,
    )  # fmt: skip


def _shared(
    recipe: COST2100Recipe,
    stream: str,
    index: NDArray[np.int64],
    environment: NDArray[np.int64],
    users: NDArray[np.float64],
    locals_: list[int],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], tuple[NDArray[np.float64], ...]]:
    """Rows of samples whose far clusters belong to environments: those with a region that reaches the user."""
    regions = recipe.visibility_regions
    centres: dict[int, NDArray[np.float64]] = {}
    for e in np.unique(environment):
        u = streams.uniform(streams.words(recipe.seed, f"{stream}/regions", e * regions + np.arange(regions), 2))
        radius, azimuth = recipe.cell_radius_m * np.sqrt(u[:, 0]), 2 * np.pi * u[:, 1]
        centres[int(e)] = np.stack([radius * np.cos(azimuth), radius * np.sin(azimuth)], 1)
    samples, kinds, vrs, parts = [], [], [], []
    for i, (number, e) in enumerate(zip(index, environment, strict=True)):
        centre = centres[int(e)]
        seen = np.flatnonzero(np.square(centre - users[i]).sum(1) < recipe.vr_radius_m**2)
        local = _rows(recipe, f"{stream}/clusters", number * len(locals_) + np.arange(len(locals_)))
        far = _rows(recipe, f"{stream}/environments", e * regions + seen)
        samples.append(np.full(len(locals_) + len(seen), i))
        kinds.append(np.array([*locals_, *[TWIN] * len(seen)]))
        vrs.append(np.concatenate([np.zeros((len(locals_), 2)), centre[seen]]))
        parts.append([np.concatenate(pair) for pair in zip(local, far, strict=True)])
    numbers = tuple(np.concatenate(part) for part in zip(*parts, strict=True))
    return np.concatenate(samples), np.concatenate(kinds), np.concatenate(vrs), numbers


def draw_on_device(recipe: COST2100Recipe, n: int, generator: torch.Generator) -> Draws:
    """Draws of n samples from the same law as :func:`draw`, made by torch on the generator's device, not tied to an index.

    :raises DatagenError: users share environments, which is a matter of their indices
    """
    if recipe.users_per_environment > 1:
        raise DatagenError("samples that share environments cannot be streamed; give users_per_environment 1")
    device, size = generator.device, recipe.paths_per_cluster
    locals_ = _local_kinds(recipe)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, device=device, dtype=torch.float64)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device, dtype=torch.float64)

    cdf = torch.from_numpy(_visible_cdf(recipe)).to(device)
    counts = torch.searchsorted(cdf, uniform(n), right=True) + len(locals_)
    sample = torch.repeat_interleave(torch.arange(n, device=device), counts)
    place = torch.arange(len(sample), device=device) - (counts.cumsum(0) - counts)[sample]
    return Draws(
        users=uniform(n, 3), los=torch.cat([uniform(n, 2), normal(n, 1)], 1), sample=sample,
        local=torch.tensor([*locals_, TWIN], device=device)[place.clamp(max=len(locals_))], shared_vr=None,
        uniform=uniform(len(sample), UNIFORMS), normal=normal(len(sample), NORMALS), paths=normal(len(sample), size, 5),
    )  # fmt: skip


# the steps -------------------------------------------------------------------------------------------------------------------


def users_m(recipe: COST2100Recipe, u: Tensor) -> Tensor:
    """Positions of the users [m], [n, 2], from uniform numbers [n, 3]: x, y, and whether mirrored to -x."""
    (x0, x1), (y0, y1) = recipe.ue_x_m, recipe.ue_y_m
    x = x0 + (x1 - x0) * u[:, 0]
    return torch.stack([torch.where(u[:, 2] < recipe.mirrored_share, -x, x), y0 + (y1 - y0) * u[:, 1]], 1)


def vr_gain(distance_m: Tensor, radius_m: float, transition_m: float, wavelength_m: float) -> Tensor:
    """Amplitude gain of a visibility region at a distance from its centre: 1 inside, 0 outside, smooth between (Liu et al.)."""
    y = 2 * math.sqrt(2) * (distance_m - (radius_m - transition_m)) / math.sqrt(wavelength_m * transition_m)
    return 0.5 - torch.atan(y) / math.pi


def visibility(recipe: COST2100Recipe, draws: Draws, ue: Tensor, wavelength_m: float) -> tuple[Tensor, Tensor, Tensor]:
    """Steps 1 and 2: where the visibility regions lie, x and y [m], and their amplitude gain, [C] each; 1 for local clusters.

    Regions that reach a user are uniform in the disc about him. Beyond the cell there are none.
    """
    u = draws.uniform
    if draws.shared_vr is None:
        radius, azimuth = recipe.vr_radius_m * u[:, VR_RADIUS].sqrt(), 2 * math.pi * u[:, VR_AZIMUTH]
        x, y = ue[:, 0] + radius * azimuth.cos(), ue[:, 1] + radius * azimuth.sin()
    else:
        x, y = draws.shared_vr[:, 0], draws.shared_vr[:, 1]
        radius = torch.hypot(x - ue[:, 0], y - ue[:, 1])
    gain = vr_gain(radius, recipe.vr_radius_m, recipe.vr_transition_m, wavelength_m)
    gain = torch.where(torch.hypot(x, y) <= recipe.cell_radius_m, gain, 0.0)
    return x, y, torch.where(draws.local >= LOCAL_UE, 1.0, gain)


@dataclass(frozen=True)
class Spreads:
    """Step 3: the correlated log-normal draws of a cluster, [C] each."""

    shadow: Tensor  # power
    length_m: Tensor  # delay spread as a length, tau c / 2
    azimuth_bs: Tensor  # tangents of half the angular spreads
    elevation_bs: Tensor
    azimuth_ue: Tensor
    elevation_ue: Tensor


def spreads(recipe: COST2100Recipe, normal: Tensor) -> Spreads:
    """Step 3: median 10^(0.1 sigma z), z normal and correlated (Verdone and Zanella, chapter 3).

    :param normal: independent, in the order of SHADOW ... AZIMUTH_UE, [C, >= 6]
    """
    z = normal[:, :6] @ torch.from_numpy(np.linalg.cholesky(recipe.correlation)).to(normal).T

    def log_normal(median: float, sigma_db: float, which: int) -> Tensor:
        return median * torch.pow(10.0, 0.1 * sigma_db * z[:, which])

    def half_tangent(median_deg: float, sigma_db: float, which: int) -> Tensor:
        return torch.tan(log_normal(math.radians(median_deg), sigma_db, which).clamp(max=math.radians(170)) / 2)

    delay_s = log_normal(recipe.delay_spread_ns * 1e-9, recipe.delay_spread_sigma_db, DELAY)
    return Spreads(
        shadow=log_normal(1.0, recipe.shadow_sigma_db, SHADOW), length_m=delay_s * SPEED_OF_LIGHT_MPS / 2,
        azimuth_bs=half_tangent(recipe.azimuth_spread_bs_deg, recipe.azimuth_spread_bs_sigma_db, AZIMUTH_BS),
        elevation_bs=half_tangent(recipe.elevation_spread_bs_deg, recipe.elevation_spread_bs_sigma_db, ELEVATION_BS),
        azimuth_ue=half_tangent(recipe.azimuth_spread_ue_deg, recipe.azimuth_spread_ue_sigma_db, AZIMUTH_UE),
        elevation_ue=half_tangent(recipe.elevation_spread_ue_deg, recipe.elevation_spread_ue_sigma_db, ELEVATION_UE),
    )  # fmt: skip


@dataclass(frozen=True)
class Clusters:
    """Where the clusters of a batch lie and how large they are. Every field [C]; lengths in m, angles in rad, float64."""

    kind: Tensor
    gain: Tensor  # amplitude gain of the visibility region
    shadow: Tensor  # power
    delay_s: Tensor  # tau_m, over both centres, with the link delay
    link_delay_s: Tensor
    bs_x: Tensor  # centre on the BS side
    bs_y: Tensor
    ue_x: Tensor  # centre on the UE side; the same point but for twins
    ue_y: Tensor
    azimuth_bs: Tensor  # direction that the BS side lies in, seen from the BS
    azimuth_ue: Tensor  # direction that the UE side lies in, seen from its region
    along: Tensor  # radii: along the line of sight to the cluster, across it, up
    across: Tensor
    up_bs: Tensor
    up_ue: Tensor


def clusters(recipe: COST2100Recipe, draws: Draws, ue: Tensor, wavelength_m: float) -> Clusters:
    """Steps 1 to 5 for all rows: visibility, spreads, positions, extents.

    A far cluster lies in a direction about that of its region. Seen from the UE side, a twin's other half lies at the distance
    at which it has the same width across, in a direction of its own, and a link delay separates the halves.

    :param ue: users' positions [C, 2], one a row [m]
    """
    u, z = draws.uniform, draws.normal
    kind = torch.where(
        draws.local == TWIN, torch.where(u[:, KIND] < recipe.single_bounce_share, SINGLE, TWIN), draws.local
    )
    local, single = kind >= LOCAL_UE, kind != TWIN
    vr_x, vr_y, gain = visibility(recipe, draws, ue, wavelength_m)
    spread = spreads(recipe, z)

    # step 4: positions
    mean, sigma = math.radians(recipe.cluster_azimuth_mean_deg), math.radians(recipe.cluster_azimuth_sigma_deg)
    vr_azimuth = torch.atan2(vr_y, vr_x)
    azimuth_bs = vr_azimuth + mean + sigma * z[:, DIRECTION_BS]
    azimuth_ue = vr_azimuth + mean + sigma * z[:, DIRECTION_UE]
    distance_bs = recipe.cluster_distance_m * u[:, DISTANCE]
    distance_ue = distance_bs * spread.azimuth_bs / spread.azimuth_ue
    at_ue, at_bs = kind == LOCAL_UE, kind == LOCAL_BS
    bs_x, bs_y = distance_bs * azimuth_bs.cos(), distance_bs * azimuth_bs.sin()
    bs_x = torch.where(at_ue, ue[:, 0], torch.where(at_bs, 0.0, bs_x))
    bs_y = torch.where(at_ue, ue[:, 1], torch.where(at_bs, 0.0, bs_y))
    ue_x = torch.where(single, bs_x, vr_x + distance_ue * azimuth_ue.cos())
    ue_y = torch.where(single, bs_y, vr_y + distance_ue * azimuth_ue.sin())
    link_ns = recipe.link_delay_minimum_ns - recipe.link_delay_mean_ns * torch.log1p(-u[:, LINK_DELAY])
    link_s = torch.where(single, 0.0, link_ns * 1e-9)
    to_ue = torch.hypot(ue_x - ue[:, 0], ue_y - ue[:, 1])

    # step 5: extents; local clusters are round and flat
    across = torch.where(local, spread.length_m, distance_bs * spread.azimuth_bs)
    up_bs = torch.where(local, spread.length_m / 20, distance_bs * spread.elevation_bs)
    up_ue = torch.where(single, up_bs, distance_ue * spread.elevation_ue)
    return Clusters(
        kind=kind, gain=gain, shadow=spread.shadow, link_delay_s=link_s,
        delay_s=(torch.hypot(bs_x, bs_y) + to_ue) / SPEED_OF_LIGHT_MPS + link_s, bs_x=bs_x, bs_y=bs_y, ue_x=ue_x, ue_y=ue_y,
        azimuth_bs=torch.where(local, 0.0, azimuth_bs), azimuth_ue=torch.where(single, torch.where(local, 0.0, azimuth_bs), azimuth_ue),
        along=spread.length_m, across=across, up_bs=up_bs, up_ue=up_ue,
    )  # fmt: skip


def scatterers(c: Clusters, normal: Tensor, ue: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Steps 5 and 8: a cluster's paths, normal about its centre with a third of its radii, alike on both sides.

    :param normal: coordinates along, across and up, [C, L, 3]
    :param ue: users' positions [C, 2] [m]
    :returns: delays [s], cosines of the azimuths of departure and of arrival, [C, L] each
    """
    along, across, up = (normal / 3).unbind(-1)
    along, across = along * c.along[:, None], across * c.across[:, None]

    def turned(x: Tensor, y: Tensor, azimuth: Tensor) -> tuple[Tensor, Tensor]:
        """The first axis looks back along the azimuth."""
        cos, sin = azimuth.cos()[:, None], azimuth.sin()[:, None]
        return x[:, None] - along * cos + across * sin, y[:, None] - along * sin - across * cos

    bs_x, bs_y = turned(c.bs_x, c.bs_y, c.azimuth_bs)
    ue_x, ue_y = turned(c.ue_x - ue[:, 0], c.ue_y - ue[:, 1], c.azimuth_ue)
    flat_bs, flat_ue = bs_x.square() + bs_y.square(), ue_x.square() + ue_y.square()
    length = (flat_bs + (up * c.up_bs[:, None]).square()).sqrt() + (flat_ue + (up * c.up_ue[:, None]).square()).sqrt()
    return length / SPEED_OF_LIGHT_MPS + c.link_delay_s[:, None], bs_x / flat_bs.sqrt(), ue_x / flat_ue.sqrt()


def attenuation(recipe: COST2100Recipe, delay_us: Tensor, los_us: Tensor) -> Tensor:
    """Step 7: power attenuation of far clusters by their delay beyond the LOS, exponential down to a cut-off (Liu et al.)."""
    return torch.exp(-recipe.attenuation_per_us * (delay_us.clamp(max=recipe.cut_off_us) - los_us))


@dataclass(frozen=True)
class Paths:
    """The multipath components of n samples: C clusters of L paths each, and the lines of sight. float64, azimuths as cosines."""

    sample: Tensor  # [C] the sample that a cluster belongs to, ascending; n for rows that pad the table
    kind: Tensor  # [C] TWIN, SINGLE, LOCAL_UE or LOCAL_BS
    delay_s: Tensor  # [C, L] absolute
    amplitude: Tensor  # [C, L] complex128, without the phase of the carrier
    cos_bs: Tensor  # [C, L] of the azimuth of departure, from the array's axis x
    cos_ue: Tensor  # [C, L] of the azimuth of arrival
    user_m: Tensor  # [n, 2]
    los_delay_s: Tensor  # [n]
    los_amplitude: Tensor  # [n], 0 without a line of sight
    los_cos_bs: Tensor  # [n]


def paths(recipe: COST2100Recipe, draws: Draws) -> Paths:
    """Steps 1 to 10: all paths of the samples of some draws (torch, float64)."""
    n = len(draws.users)
    wavelength = SPEED_OF_LIGHT_MPS / centre_hz(recipe)
    user = users_m(recipe, draws.users)
    row = draws.sample.clamp(max=n - 1)
    c = clusters(recipe, draws, user[row], wavelength)
    distance = torch.hypot(user[:, 0], user[:, 1])
    los_s = distance / SPEED_OF_LIGHT_MPS
    delay, cos_bs, cos_ue = scatterers(c, draws.paths[..., :3], user[row])

    # step 6: complex Gaussian amplitudes, of unit power in a cluster; step 7: the cluster's power
    real, imaginary = draws.paths[..., 3], draws.paths[..., 4]
    unit = real.square().sum(1) + imaginary.square().sum(1)
    decay = attenuation(recipe, c.delay_s * 1e6, los_s[row] * 1e6)
    power = torch.where(c.kind < LOCAL_UE, decay, 1.0) * c.shadow
    scale = c.gain * (power / unit).sqrt() * path_gain(recipe, distance, wavelength)[row] * (draws.sample < n)

    # step 10: the line of sight, against the power of all the others
    scattered = torch.zeros_like(los_s).index_add_(0, row, scale.square() * unit)
    return Paths(
        sample=draws.sample, kind=c.kind, delay_s=delay, amplitude=scale[:, None] * torch.complex(real, imaginary),
        cos_bs=cos_bs, cos_ue=cos_ue, user_m=user, los_delay_s=los_s, los_cos_bs=user[:, 0] / distance,
        los_amplitude=(los_factor(recipe, draws.los, user, wavelength) * scattered).sqrt(),
    )  # fmt: skip


def path_gain(recipe: COST2100Recipe, distance_m: Tensor, wavelength_m: float) -> Tensor:
    """Step 7: amplitude gain common to all paths of a user; ``free-space`` is Friis' wavelength / (4 pi distance)."""
    if recipe.path_loss == "none":
        return torch.ones_like(distance_m)
    return wavelength_m / (4 * math.pi * distance_m.clamp(min=wavelength_m))


def los_factor(recipe: COST2100Recipe, los: Tensor, user: Tensor, wavelength_m: float) -> Tensor:
    """Step 10: power of the line of sight over that of all other paths, [n].

    :param los: two uniform numbers, for the centre of its visibility region, and a normal one, [n, 3]
    :param user: positions [m], [n, 2]
    """
    factor = torch.pow(10.0, 0.1 * (recipe.los_factor_db + recipe.los_factor_sigma_db * los[:, 2]))
    seen = torch.hypot(user[:, 0], user[:, 1]) < recipe.los_cut_off_m
    if recipe.los_vr_radius_m:
        centre = (recipe.los_cut_off_m - recipe.los_vr_radius_m) * los[:, :2]
        distance = torch.hypot(user[:, 0] - centre[:, 0], user[:, 1] - centre[:, 1])
        seen &= distance < recipe.los_vr_radius_m
        factor *= vr_gain(distance, recipe.los_vr_radius_m, recipe.los_vr_transition_m, wavelength_m).square()
    return factor * seen


# from paths to samples -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Multipath:
    """The multipath components of one sample, the line of sight first, then by delay. Numpy, P entries each."""

    kind: NDArray[np.str_]  # "los", "twin", "single", "local-ue" or "local-bs"
    cluster: NDArray[np.int64]  # clusters of the sample from 0 up; -1 for the line of sight
    delay_s: NDArray[np.float64]  # absolute
    amplitude: NDArray[np.complex128]  # at delay 0: the carrier's phase comes with the delay
    azimuth_bs_rad: NDArray[np.float64]  # between path and array axis, 0 to pi: what a linear array sees
    azimuth_ue_rad: NDArray[np.float64]
    user_m: tuple[float, float]  # where the user stands, the base station being at (0, 0)


def multipath(recipe: COST2100Recipe, index: int, split: str = "train") -> Multipath:
    """List the paths that make one sample of a COST 2100 data set.

    :param recipe: what is simulated
    :param index: sample of the split
    :param split: ``train``, ``val`` or ``test``
    :raises DatagenError: there is no such sample
    """
    _require_sample(recipe, index, split)
    found = paths(recipe, draw(recipe, split, [index]).to(torch.device("cpu")))
    own = found.sample == 0
    size = found.delay_s.shape[1]
    names = np.array(["twin", "single", "local-ue", "local-bs"])[found.kind[own].numpy()]
    cosine = found.los_cos_bs[:1]
    parts = [
        (np.array(["los"]), np.repeat(names, size)),
        (np.array([-1]), np.repeat(np.arange(len(names)), size)),
        (found.los_delay_s, found.delay_s[own].flatten()),
        (found.los_amplitude.to(torch.complex128), found.amplitude[own].flatten()),
        (torch.acos(cosine), torch.acos(found.cos_bs[own].flatten().clamp(-1, 1))),
        (torch.acos(-cosine), torch.acos(found.cos_ue[own].flatten().clamp(-1, 1))),
    ]
    columns = [np.concatenate([np.asarray(part) for part in pair]) for pair in parts]
    order = np.concatenate([[0], 1 + np.argsort(columns[2][1:], kind="stable")])
    kind, cluster, delay, amplitude, azimuth_bs, azimuth_ue = (column[order] for column in columns)
    x, y = found.user_m[0].tolist()
    return Multipath(kind, cluster, delay, amplitude, azimuth_bs, azimuth_ue, (x, y))


def path_maps(recipe: COST2100Recipe, index: int, split: str = "train") -> NDArray[np.complex64]:
    """What each path adds to a sample at the root mean square of its amplitude, its delay and angles being given.

    The paths of a cluster share its power alike, so that a sample is the sum of independent circular normal numbers of unit variance times
    these maps, up to its own scale and to the clusters' power being exact; the number of the line of sight has a modulus of one.

    :param recipe: what is simulated
    :param index: sample of the split
    :param split: ``train``, ``val`` or ``test``
    :returns: complex64 [path, angle, delay], the line of sight last
    :raises DatagenError: there is no such sample
    """
    _require_sample(recipe, index, split)
    device = torch.device("cpu")
    found = paths(recipe, draw(recipe, split, [index]).to(device))
    own = found.sample == 0
    mean = found.amplitude[own].abs().square().mean(1, keepdim=True).sqrt().expand(-1, found.amplitude.shape[1])
    engine = ClosedForm(recipe, device)
    cos, los_cos = engine.cosines(found)
    return engine.maps(
        torch.cat([found.delay_s[own].flatten(), found.los_delay_s]), torch.cat([cos[own].flatten(), los_cos]),
        torch.cat([mean.flatten(), found.los_amplitude]).to(torch.complex128),
    ).numpy()  # fmt: skip


def redrawn(
    recipe: COST2100Recipe, index: int, split: str = "train", count: int = 1, seed: int = 0
) -> NDArray[np.complex64]:
    """Draw the paths of a sample anew within its own clusters.

    User, visibility, clusters and their powers, and the line of sight are the sample's own; where in the clusters the paths lie, and their
    amplitudes, are drawn afresh from the model's law. No redraw is the sample itself, and the first redraws are the same whatever the count.

    :param recipe: what is simulated
    :param index: sample of the split
    :param split: ``train``, ``val`` or ``test``
    :param count: redraws, 1 and up
    :param seed: of the redraws, which belong to the recipe's own seed too
    :returns: complex64 [redraw, angle, delay], on one scale: before the official convention's, which is of each sample's own peak
    :raises DatagenError: there is no such sample, or the count is below 1
    """
    _require_sample(recipe, index, split)
    if count < 1:
        raise DatagenError(f"{count} redraws are none; give 1 or more")
    device = torch.device("cpu")
    engine, own = ClosedForm(recipe, device), draw(recipe, split, [index])
    out = np.empty((count, recipe.antennas, recipe.crop_taps), np.complex64)
    for first in range(0, count, REDRAWN):
        n = min(REDRAWN, count - first)
        fresh = _redraw(recipe, own, f"cost2100/{split}/redrawn/{index}/{seed}", first, n)
        out[first : first + n] = engine.superposition(fresh.to(device)).numpy()
    return out


def _redraw(recipe: COST2100Recipe, own: Draws, stream: str, first: int, n: int) -> Draws:
    """Draws of n samples that are those of one sample but for their paths: redraws first, first + 1, ... of a stream."""
    clusters_ = np.count_nonzero(own.sample == 0)
    pad = -n * clusters_ % ALIGN
    row = np.concatenate([np.tile(np.arange(clusters_), n), np.full(pad, clusters_ - 1)])
    size = 5 * recipe.paths_per_cluster
    raw = streams.words(recipe.seed, stream, first * clusters_ + np.arange(len(row)), (size + 1) // 2)
    return Draws(
        users=np.repeat(own.users, n, 0), los=np.repeat(own.los, n, 0),
        sample=np.concatenate([np.repeat(np.arange(n), clusters_), np.full(pad, n)]),
        local=own.local[row], shared_vr=None if own.shared_vr is None else own.shared_vr[row],
        uniform=own.uniform[row], normal=own.normal[row],
        paths=streams.normal(streams.halves(raw))[:, :size].reshape(len(row), -1, 5),
    )  # fmt: skip


def _require_sample(recipe: COST2100Recipe, index: int, split: str) -> None:
    size = recipe.splits.get(split, 0)
    if not 0 <= index < size:
        raise DatagenError(f"{recipe.label} has no sample {index} in {split}; it has {size} there, counted from 0")


def centre_hz(recipe: COST2100Recipe) -> float:
    """Centre of the band [Hz]."""
    return recipe.lowest_frequency_mhz * 1e6 + (recipe.subcarriers - 1) / 2 * recipe.spacing_khz * 1e3


class ClosedForm:
    """The engine: H[n, k] = sum of a e^{-j pi n cos} e^{-j 2 pi (f_0 + k spacing) tau} over the paths, transformed in closed form.

    Both transforms of a path are Dirichlet kernels, real but for phases that are the path's own or the cell's own, so that

        X[a, l] = e^{-+j pi (N-1) a / N} e^{j pi (K-1) l / K} sum_p w_p D_N(a -+ ...) D_K(l - t_p).

    :param recipe: what to simulate
    :param device: torch device
    """

    def __init__(self, recipe: COST2100Recipe, device: torch.device) -> None:
        self.recipe, self.device = recipe, device
        antennas, subcarriers = recipe.antennas, recipe.subcarriers
        self.sign = -1 if recipe.convention == "official" else 1  # of the exponent of the transform over antennas
        angle, tap = torch.arange(antennas, dtype=torch.float64), torch.arange(recipe.crop_taps, dtype=torch.float64)
        if recipe.convention == "official":
            angle = torch.fft.fftshift(angle)
        turns = (
            self.sign * (antennas - 1) / (2 * antennas) * angle[:, None] + (subcarriers - 1) / (2 * subcarriers) * tap
        )
        scale = antennas if recipe.convention == "official" else 1
        cell = torch.polar(torch.full_like(turns, scale), 2 * math.pi * turns)
        self.cell = cell.to(device, torch.complex64)
        self.angles, self.taps = (
            DirichletKernel(size, points, device) for size, points in ((antennas, angle), (subcarriers, tap))
        )

    def draw(self, split: str, indices: Sequence[int] | NDArray[np.int64]) -> Draws:
        """See :func:`draw`."""
        return draw(self.recipe, split, indices)

    def draw_on_device(self, n: int, generator: torch.Generator) -> Draws:
        """See :func:`draw_on_device`."""
        return draw_on_device(self.recipe, n, generator)

    @torch.no_grad()
    def __call__(self, draws: Draws) -> Batch:
        """Simulate the samples of some draws.

        :param draws: random numbers of n samples
        :returns: X complex64 [n, antennas, crop_taps], and with ``keep_band`` H complex64 [n, antennas, keep_band]
        """
        recipe, found = self.recipe, self._flat(draws)
        arrays = {"X": self._crop(*found)}
        if recipe.keep_band:
            arrays["H"] = self._band(*found)
        if recipe.convention == "official":
            scale = 0.5 / arrays["X"].abs().amax((1, 2), keepdim=True)
            arrays = {name: array * scale for name, array in arrays.items()}
        return arrays

    @torch.no_grad()
    def superposition(self, draws: Draws) -> Tensor:
        """X of some draws before the official convention scales it, complex64 [n, antennas, crop_taps]."""
        return self._crop(*self._flat(draws))

    def _flat(self, draws: Draws) -> tuple[Flat, Flat, list[int]]:
        """Paths of clusters and lines of sight of n samples, one after the other, and where the paths of each begin and end, [n + 1]."""
        found = paths(self.recipe, draws.to(self.device))
        n, (cos, los_cos) = len(found.user_m), self.cosines(found)
        scattered = found.delay_s.flatten(), cos.flatten(), found.amplitude.flatten()
        los = found.los_delay_s, los_cos, found.los_amplitude.to(torch.complex128)
        ends = torch.bincount(found.sample, minlength=n + 1)[:n].cumsum(0) * cos.shape[1]
        return scattered, los, [0, *ends.tolist()]

    def cosines(self, found: Paths) -> tuple[Tensor, Tensor]:
        """Of the azimuths that the array's response is made of, of clusters' paths and of the line of sight: arrival where the official files have it."""
        if self.recipe.convention == "official":
            return found.cos_ue, -found.los_cos_bs
        return found.cos_bs, found.los_cos_bs

    def _crop(self, scattered: Flat, los: Flat, starts: list[int]) -> Tensor:
        """The angular-delay matrices of n samples whose paths lie one after the other, complex64 [n, angle, delay]."""
        n, cells = len(starts) - 1, self.cell.shape
        out = torch.empty(n, *cells, dtype=torch.complex64, device=self.device)
        line_of_sight = self._apart(*los)
        angles, taps, weight = self._separate(*scattered)
        parts = (*angles, *taps, torch.view_as_real(weight))
        for first in range(0, n, TOGETHER):
            edges = starts[first : first + TOGETHER + 1]
            a_shift, a_cos, a_sin, t_shift, t_cos, t_sin, w = (part[edges[0] : edges[-1]] for part in parts)
            angle = self.angles(a_shift, a_cos, a_sin)
            left, right = torch.cat([angle * w[:, :1], angle * w[:, 1:]], 1), self.taps(t_shift, t_cos, t_sin)
            for i, (start, end) in enumerate(itertools.pairwise(edge - edges[0] for edge in edges), first):
                product = left[start:end].T @ right[start:end]
                out[i] = torch.complex(product[: cells[0]], product[cells[0] :])
        return (out + line_of_sight) * self.cell

    def maps(self, delay: Tensor, cosine: Tensor, amplitude: Tensor) -> Tensor:
        """What each of P paths adds to the angular-delay matrix of its sample, complex64 [P, angle, delay]."""
        return self._apart(delay, cosine, amplitude) * self.cell

    def _apart(self, delay: Tensor, cosine: Tensor, amplitude: Tensor) -> Tensor:
        """The same without the phases of the cells."""
        angles, taps, weight = self._separate(delay, cosine, amplitude)
        return weight[:, None, None] * (self.angles(*angles)[:, :, None] * self.taps(*taps)[:, None, :])

    def _separate(self, delay: Tensor, cosine: Tensor, amplitude: Tensor) -> tuple[Shift, Shift, Tensor]:
        """Arguments of both kernels and the complex weight of each path, complex64 [P]."""
        recipe = self.recipe
        spacing = recipe.spacing_khz * 1e3
        centre = recipe.lowest_frequency_mhz * 1e6 + (recipe.subcarriers - 1) / 2 * spacing
        angles, angle_weight = self.angles.shift(self.sign * recipe.antennas / 2 * cosine)
        taps, tap_weight = self.taps.shift(recipe.subcarriers * spacing * delay)
        weight = rotate(amplitude, centre * delay + (recipe.antennas - 1) / 4 * cosine)
        return angles, taps, weight * (angle_weight * tap_weight)

    def _band(self, scattered: Flat, los: Flat, starts: list[int]) -> Tensor:
        """Frequency responses at the first subcarriers, complex64 [n, antenna, keep_band]."""
        recipe = self.recipe
        antenna = torch.arange(recipe.antennas, device=self.device) / 2
        subcarrier = torch.arange(recipe.keep_band, device=self.device) * (recipe.spacing_khz * 1e3)
        out = []
        for i, (start, end) in enumerate(itertools.pairwise(starts)):
            delay, cosine, amplitude = (
                torch.cat([s[start:end], o[i : i + 1]]) for s, o in zip(scattered, los, strict=True)
            )
            weight = rotate(amplitude, recipe.lowest_frequency_mhz * 1e6 * delay)
            one = torch.ones_like(cosine)
            steering = rotate(one[:, None], cosine[:, None] * antenna)
            tones = rotate(one[:, None], delay[:, None] * subcarrier)
            out.append((steering * weight[:, None]).T @ tones)
        return torch.stack(out)


def rotate(amplitude: Tensor, turns: Tensor) -> Tensor:
    """amplitude e^{-j 2 pi turns} in complex64; the turns, many of the carrier's, are reduced in float64."""
    angle = (turns - turns.round()).float() * (-2 * math.pi)
    return amplitude.to(torch.complex64) * torch.polar(torch.ones_like(angle), angle)


class DirichletKernel:
    """D(m - t) = sin(pi (m - t)) / (M sin(pi (m - t) / M)), the DFT of length M of one tone, at given integers m for any real t.

    With t = i + f, i the nearest integer, the denominator is a row of a table for i turned by f:
    sin(pi (m - i) / M) cos(pi f / M) - cos(pi (m - i) / M) sin(pi f / M), without cancellation even in float32. The numerator
    is a path's own, and is left to its weight.

    :param size: M
    :param points: integers m, float64 [count]
    """

    def __init__(self, size: int, points: Tensor, device: torch.device) -> None:
        self.size = size
        difference = points - torch.arange(size, dtype=torch.float64)[:, None]
        sign = size * (1 - 2 * (difference % 2))
        angle = math.pi / size * difference
        self.sin, self.cos = (sign * angle.sin()).to(device).float(), (sign * angle.cos()).to(device).float()

    def shift(self, t: Tensor) -> tuple[Shift, Tensor]:
        """What a call needs of real t, float64 [P], and the numerator, float32 [P]."""
        nearest = t.round()
        fraction = t - nearest
        fraction = torch.where(fraction.abs() < 1e-7, 1e-7, fraction).float()  # on the grid the ratio has the limit 1
        periods = torch.div(nearest, self.size, rounding_mode="floor")
        flip = periods % 2 if self.size % 2 == 0 else torch.zeros_like(periods)
        row = (nearest - self.size * periods).to(torch.int32)
        angle = math.pi / self.size * fraction
        return (row, angle.cos(), angle.sin()), torch.sin(-math.pi * fraction) * (1 - 2 * flip).float()

    def __call__(self, row: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """The kernel over its numerator, float32 [P, count]."""
        across, along = self.sin.index_select(0, row), self.cos.index_select(0, row)
        return across.mul_(cos[:, None]).addcmul_(along, sin[:, None], value=-1).reciprocal_()
