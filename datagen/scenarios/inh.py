"""Indoor office (InH of TR 38.901 §7.5, steps 1 to 11) in closed form: users -> large-scale parameters -> clusters -> rays -> samples.

The BS is a horizontal array of vertically polarised elements, the UE one vertically polarised omnidirectional element, neither is
tilted, nobody moves: of the polarisation matrix only the theta-theta entry is seen (so that no XPR enters), and of the rays
only the departure (arrival angles, which calibration wants, are made by :func:`angles` on demand). Then eq. (7.5-22) to (7.5-30) are

    h[n](f) = sum_p g_p e^{j pi (n - (N-1)/2) s_p} e^{-j 2 pi f tau_p},    s = sin(zod) sin(aod),   n = 0 ... N-1 antennas,

over the rays g = sqrt(P / 20 (K + 1)) F(zod, aod) e^{j phi} of every cluster and the line of sight g = sqrt(K / (K + 1)) F e^{-j 2 pi d / lambda}.
Rays of one delay are summed first: 19 clusters, 2 further sub-clusters in each of the two strongest, and the line of sight.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from importlib.resources import files
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from datagen import draws as streams
from datagen.angular_delay import delay_kernel
from datagen.recipe import InHRecipe
from datagen.recipe.base import SPEED_OF_LIGHT_MPS
from datagen.scenarios import Batch
from datagen.scenarios.cdl import element_gain_db

CLUSTERS, RAYS = 19, 20  # without line of sight; with it the last 4 clusters are not used
SF, K, DS, ASD, ASA, ZSD, ZSA = range(7)  # large-scale parameters in the order of step 4
AOD, AOA, ZOD, ZOA = range(4)  # rows of Draws.signs and Draws.jitter
CANDIDATES = 16  # positions tried for each user: the first that is far enough from the BS
USER_WORDS = CANDIDATES + 1 + 4  # Philox words of a user: positions, line of sight, 7 normal numbers (and one to spare)
SAMPLE_WORDS = CLUSTERS + (5 * CLUSTERS + 1) // 2 + CLUSTERS * RAYS


@dataclass(frozen=True)
class Table:
    """The parameters of both states, line of sight last: row int(los) of each. Angles in degrees."""

    clusters: torch.Tensor  # [2]
    r_tau: torch.Tensor  # [2]
    shadowing_db: torch.Tensor  # [2], zeta
    cluster_ds_s: torch.Tensor  # [2]
    spread: torch.Tensor  # [2, 4 (aod, aoa, zod, zoa)], of the rays of a cluster
    c_phi: torch.Tensor  # [2], C_phi^NLOS
    c_theta: torch.Tensor  # [2]
    mean: torch.Tensor  # [2, 7], of log10 of SF, K, DS [s], ...
    deviation: torch.Tensor  # [2, 7]
    distance_m: torch.Tensor  # [2, 7], correlation distances
    mixing: torch.Tensor  # [2, 7, 7], Cholesky factor of the correlation of the seven
    offsets: torch.Tensor  # [20], ray offsets


@functools.cache
def table(carrier_ghz: float) -> Table:
    """The parameters at a carrier, float64 on the CPU: inh.toml, which names the tables of TR 38.901."""
    tables = tomllib.loads(files(__package__).joinpath("inh.toml").read_text())
    states = [tables["nlos"], tables["los"]]
    frequency = np.log10(1 + max(carrier_ghz, 6.0))  # note 6 of Table 7.5-6

    def rows(name: str) -> NDArray[np.float64]:
        return np.array([state[name] for state in states], dtype=np.float64)

    moments = {name: rows(name) @ [frequency, 1.0] for name in ("mean", "deviation")}
    for moment in moments.values():
        moment[:, [SF, K]] /= 10  # from dB
    cones = [state["cluster_spread_deg"] for state in states]
    spread = np.array([[cone["asd"], cone["asa"], 0.0, cone["zsa"]] for cone in cones])
    spread[:, ZOD] = 3 / 8 * 10 ** moments["mean"][:, ZSD]  # eq. (7.5-20)
    values = {
        **{name: rows(name) for name in ("clusters", "r_tau", "shadowing_db", "c_phi", "c_theta", "distance_m")},
        **moments,
        "cluster_ds_s": rows("cluster_ds_ns") * 1e-9,
        "spread": spread,
        "mixing": np.linalg.cholesky(rows("correlation")),
        "offsets": np.array([sign * offset for offset in tables["ray_offsets"] for sign in (1, -1)]),
    }
    return Table(**{name: torch.from_numpy(value) for name, value in values.items()})


@functools.cache
def subclusters() -> tuple[list[list[int]], list[float]]:
    """Rays of the three sub-clusters, and their delays in cluster delay spreads (Table 7.5-5)."""
    tables = tomllib.loads(files(__package__).joinpath("inh.toml").read_text())
    return tables["subclusters"], tables["subcluster_delays"]


@dataclass(frozen=True)
class Draws:
    """The random numbers of n samples; C = 19 clusters, R = 20 rays, U users in a drop. Angle rows: aod, aoa, zod, zoa."""

    places: torch.Tensor  # [n, U, 2] float64, users of the sample's drop, from the room's centre [m]
    sight: torch.Tensor  # [n, U] float64, uniform: line of sight where it is below the probability
    large: torch.Tensor  # [n, U, 7] float64, normal: large-scale parameters
    user: torch.Tensor  # [n] int64, which of the users the sample is
    delay: torch.Tensor  # [n, C] float64, uniform in (0, 1] (step 5)
    shadowing: torch.Tensor  # [n, C] float64, normal (step 6)
    signs: torch.Tensor  # [n, 4, C] float64, -1 or 1 (step 7)
    jitter: torch.Tensor  # [n, 4, C] float64, normal (step 7)
    phases: torch.Tensor  # [n, C, R] float32, initial phases [rad], theta-theta (step 10)
    coupling: torch.Tensor  # [n, C, R] int64, the zod ray that goes with each aod ray (step 8)

    def to(self, device: torch.device) -> Draws:
        """The same on a device."""
        return Draws(*(getattr(self, field.name).to(device) for field in fields(self)))

    def __len__(self) -> int:
        return len(self.user)

    def __getitem__(self, rows: slice) -> Draws:
        return Draws(*(getattr(self, field.name)[rows] for field in fields(self)))


def place(recipe: InHRecipe, tries: torch.Tensor) -> torch.Tensor:
    """Positions [..., 2] in m from the room's centre: the first of the uniform ``tries`` [..., m, 2] that is far enough from the BS."""
    size = tries.new_tensor([recipe.room_length_m, recipe.room_width_m])
    places = (tries - 0.5) * size
    distance = torch.linalg.vector_norm(places - tries.new_tensor([recipe.bs_x_m, recipe.bs_y_m]), dim=-1)
    first = (distance >= recipe.minimum_distance_m).to(torch.int8).argmax(-1)
    return places.take_along_dim(first[..., None, None], -2).squeeze(-2)


def draw(recipe: InHRecipe, split: str, indices: Sequence[int] | NDArray[np.int64]) -> Draws:
    """The draws of the given samples of a split, a function of (recipe, split, index) alone. Made on the CPU, as FORMAT.md, section 5 lays out.

    Sample i is user i mod U of drop floor(i / U). What its neighbours share with it is in the stream of users, the rest in that
    of samples. The aod ray order stays fixed: rays have equal powers and independent phases, so coupling the zenith to it is the
    same law as shuffling both.
    """
    order = np.asarray(indices, dtype=np.int64)
    drops, drop = np.unique(order // recipe.users_per_drop, return_inverse=True)
    users = drops[:, None] * recipe.users_per_drop + np.arange(recipe.users_per_drop)
    raw = streams.words(recipe.seed, f"inh/{split}/users", users.ravel(), USER_WORDS).reshape(*users.shape, USER_WORDS)
    tries = streams.halves(raw[..., :CANDIDATES]).reshape(*users.shape, CANDIDATES, 2) * 2.0**-32
    normal = torch.from_numpy(streams.normal(streams.halves(raw[..., CANDIDATES + 1 :])))
    shared = (
        place(recipe, torch.from_numpy(tries)),
        torch.from_numpy(streams.uniform(raw[..., CANDIDATES])),
        normal[..., :7],
    )
    places, sight, large = (part[torch.from_numpy(drop)] for part in shared)

    raw = streams.words(recipe.seed, f"inh/{split}", order, SAMPLE_WORDS)
    halves = streams.halves(raw[:, CLUSTERS:])
    normals, rays = halves[:, : 5 * CLUSTERS + 1], halves[:, 5 * CLUSTERS + 1 :].reshape(-1, 2, CLUSTERS, RAYS)
    normal = torch.from_numpy(streams.normal(normals))[:, : 5 * CLUSTERS].reshape(-1, 5, CLUSTERS)
    bits = raw[:, None, :CLUSTERS] >> np.arange(4, dtype=np.uint64)[:, None] & np.uint64(1)
    return Draws(
        places=places, sight=sight, large=large, user=torch.from_numpy(order % recipe.users_per_drop),
        delay=torch.from_numpy(1 - streams.uniform(raw[:, :CLUSTERS])), shadowing=normal[:, 0],
        signs=torch.from_numpy(1 - 2 * bits.astype(np.float64)), jitter=normal[:, 1:],
        phases=torch.from_numpy(streams.phases(rays[:, 0].copy())),
        coupling=torch.from_numpy(streams.permutations(rays[:, 1]).astype(np.int64)),
    )  # fmt: skip


def draw_on_device(recipe: InHRecipe, n: int, generator: torch.Generator) -> Draws:
    """Draws of n samples from the same law as :func:`draw`, made by torch on the generator's device, not tied to an index."""
    options: dict[str, Any] = {"generator": generator, "device": generator.device, "dtype": torch.float64}
    users = recipe.users_per_drop
    index = torch.arange(n, device=generator.device)
    drops = -(-n // users)
    shared = (
        place(recipe, torch.rand(drops, users, CANDIDATES, 2, **options)),
        torch.rand(drops, users, **options),
        torch.randn(drops, users, 7, **options),
    )
    places, sight, large = (part[index // users] for part in shared)
    rays = torch.rand(2, n, CLUSTERS, RAYS, generator=generator, device=generator.device)
    return Draws(
        places=places, sight=sight, large=large, user=index % users,
        delay=1 - torch.rand(n, CLUSTERS, **options), shadowing=torch.randn(n, CLUSTERS, **options),
        signs=1 - 2 * torch.randint(2, (n, 4, CLUSTERS), **options), jitter=torch.randn(n, 4, CLUSTERS, **options),
        phases=(2 * rays[0] - 1) * np.pi, coupling=rays[1].argsort(-1),
    )  # fmt: skip


@dataclass(frozen=True)
class Links:
    """Geometry and large-scale parameters of n samples, each [n] float64 but ``los``; steps 1 to 4."""

    los: torch.Tensor  # [n] bool
    distance_m: torch.Tensor  # in space
    azimuth: torch.Tensor  # of the UE seen from the BS [degrees]
    zenith: torch.Tensor
    path_loss_db: torch.Tensor
    sf: torch.Tensor  # shadow fading, a power factor
    k: torch.Tensor  # K-factor, specular over diffuse power; without line of sight not used
    ds: torch.Tensor  # [s]
    spreads: torch.Tensor  # [n, 4], ASD, ASA, ZSD, ZSA in the order of the angle rows [degrees]


def sight_probability(office: str, distance_m: torch.Tensor) -> torch.Tensor:
    """Probability of a line of sight at a horizontal distance in m (Table 7.4.2-1). Shape kept."""
    d = distance_m
    if office == "open":
        far = torch.where(d <= 49, torch.exp(-(d - 5) / 70.8), 0.54 * torch.exp(-(d - 49) / 211.7))
        return torch.where(d <= 5, 1.0, far)
    far = torch.where(d < 6.5, torch.exp(-(d - 1.2) / 4.7), 0.32 * torch.exp(-(d - 6.5) / 32.6))
    return torch.where(d <= 1.2, 1.0, far)


def links(recipe: InHRecipe, table: Table, draws: Draws) -> Links:
    """Steps 1 to 4: where the users are, who sees the BS, and the large-scale parameters, correlated in space."""
    n = len(draws)
    away = draws.places - draws.places.new_tensor([recipe.bs_x_m, recipe.bs_y_m])
    horizontal = torch.linalg.vector_norm(away, dim=-1)  # [n, U]
    state = draws.sight < sight_probability(recipe.office, horizontal)  # step 2
    if recipe.line_of_sight != "drawn":
        state = torch.full_like(state, recipe.line_of_sight == "los")

    # step 4: one field for each parameter, correlated between users of one state by exp(-d / D), then mixed within the link
    apart = torch.linalg.vector_norm(draws.places[:, :, None] - draws.places[:, None], dim=-1)
    reach = table.distance_m[state.long()].permute(0, 2, 1)[..., None]  # [n, 7, U, 1]
    alike = (state[:, :, None] == state[:, None]).double()[:, None]
    factor = torch.linalg.cholesky(torch.exp(-apart[:, None] / reach) * alike)
    rows = torch.arange(n, device=draws.user.device)
    field = (factor[rows, :, draws.user] * draws.large.transpose(1, 2)).sum(-1)
    los, away, horizontal = state[rows, draws.user], away[rows, draws.user], horizontal[rows, draws.user]
    which = los.long()
    mixed = (table.mixing[which] * field[:, None]).sum(-1)
    large = 10 ** (table.mean[which] + table.deviation[which] * mixed)
    spreads = large[:, [ASD, ASA, ZSD, ZSA]]

    drop = recipe.ue_height_m - recipe.bs_height_m
    distance = torch.sqrt(horizontal**2 + drop**2)
    log_distance, log_carrier = torch.log10(distance), np.log10(recipe.carrier_ghz)
    loss = 32.4 + 17.3 * log_distance + 20 * log_carrier  # Table 7.4.1-1, InH - Office
    loss = torch.where(los, loss, torch.maximum(loss, 17.3 + 38.3 * log_distance + 24.9 * log_carrier))
    return Links(
        los=los, distance_m=distance, azimuth=torch.rad2deg(torch.atan2(away[:, 1], away[:, 0])),
        zenith=torch.rad2deg(torch.atan2(horizontal, torch.full_like(horizontal, drop))), path_loss_db=loss,
        sf=large[:, SF], k=large[:, K], ds=large[:, DS],
        spreads=torch.minimum(spreads, spreads.new_tensor([104.0, 104.0, 52.0, 52.0])),
    )  # fmt: skip


@dataclass(frozen=True)
class Clusters:
    """Clusters of n samples, each [n, C] float64, in the order of the draws, not of their delays."""

    delays: torch.Tensor  # [s], 0 for clusters that are not used
    powers: torch.Tensor  # diffuse power; 0 for those not used or 25 dB below the strongest
    weights: torch.Tensor  # with the line of sight: eq. (7.5-8), what the angles are made from
    first: torch.Tensor  # 1 at the cluster of least delay, 0 elsewhere


def clusters(table: Table, draws: Draws, links: Links) -> Clusters:
    """Steps 5 and 6: delays and powers."""
    which = links.los.long()
    r_tau, ds = table.r_tau[which, None], links.ds[:, None]
    used = torch.arange(CLUSTERS, device=which.device) < table.clusters[which, None]
    delays = torch.where(used, -r_tau * ds * torch.log(draws.delay), torch.inf)  # (7.5-1)
    delays = delays - delays.amin(-1, keepdim=True)  # (7.5-2)
    first = (delays == 0).double()
    shadowing = 10 ** (-table.shadowing_db[which, None] * draws.shadowing / 10)
    powers = torch.exp(-delays * (r_tau - 1) / (r_tau * ds)) * shadowing  # (7.5-5); 0 for clusters not used
    powers = powers / powers.sum(-1, keepdim=True)  # (7.5-6)
    powers = torch.where(powers >= 10**-2.5 * powers.amax(-1, keepdim=True), powers, 0.0)
    k_db = 10 * torch.log10(links.k)
    scale = 0.7705 - 0.0433 * k_db + 0.0002 * k_db**2 + 0.000017 * k_db**3  # (7.5-3)
    delays = torch.where(used, delays, 0.0) / torch.where(links.los, scale, 1.0)[:, None]  # (7.5-4)
    k = torch.where(links.los, links.k, 0.0)[:, None]
    return Clusters(delays, powers, (powers + k * first) / (k + 1), first)


def angles(table: Table, draws: Draws, links: Links, clusters: Clusters, row: int) -> torch.Tensor:
    """Step 7: angles of the clusters [degrees], not yet wrapped, of one kind ``row``: AOD, AOA, ZOD or ZOA. Shape [n, C]."""
    which = links.los.long()
    k_db = 10 * torch.log10(links.k)
    spread = links.spreads[:, row, None]
    power = (clusters.weights / clusters.weights.amax(-1, keepdim=True)).clamp(min=1e-6)
    if row in (AOD, AOA):
        scale = torch.where(links.los, 1.1035 - 0.028 * k_db - 0.002 * k_db**2 + 0.0001 * k_db**3, 1.0)  # (7.5-10)
        constant = (table.c_phi[which] * scale)[:, None]
        magnitude = 2 * (spread / 1.4) * torch.sqrt(-torch.log(power)) / constant  # (7.5-9)
        direct = links.azimuth if row == AOD else links.azimuth + 180
    else:
        scale = torch.where(links.los, 1.3086 + 0.0339 * k_db - 0.0077 * k_db**2 + 0.0002 * k_db**3, 1.0)  # (7.5-15)
        constant = (table.c_theta[which] * scale)[:, None]
        magnitude = -spread * torch.log(power) / constant  # (7.5-14)
        direct = links.zenith if row == ZOD else 180 - links.zenith
    about = draws.signs[:, row] * magnitude + draws.jitter[:, row] * (spread / 7)  # (7.5-11), (7.5-16), (7.5-19)
    towards_first = (about * clusters.first).sum(-1, keepdim=True) * links.los[:, None]
    return about - towards_first + direct[:, None]  # (7.5-12), (7.5-17)


def coupling(draws: Draws, strongest: torch.Tensor) -> torch.Tensor:
    """Step 8: the zod ray that goes with each aod ray [n, C, R]. In the two strongest clusters only rays of one sub-cluster are coupled.

    :param strongest: their numbers, [n, 2]
    """
    at = strongest[..., None].expand(-1, -1, RAYS)
    ranks = draws.coupling.gather(1, at).argsort(-1)
    within = torch.empty_like(ranks)
    for group in subclusters()[0]:
        members = torch.tensor(group, device=ranks.device)
        within[..., members] = members[ranks[..., members].argsort(-1)]
    return draws.coupling.scatter(1, at, within)


def element_field(recipe: InHRecipe, zenith: torch.Tensor, azimuth: torch.Tensor) -> torch.Tensor:
    """Field of a BS element towards angles in degrees, zenith in 0 ... 180 and azimuth in -180 ... 180. Shape kept."""
    if recipe.antenna_pattern == "omni":
        return torch.ones_like(zenith)
    field: torch.Tensor = 10 ** (element_gain_db(zenith, azimuth) / 20)
    return field


def fold(zenith: torch.Tensor) -> torch.Tensor:
    """Zenith angles [degrees] into 0 ... 180. Shape kept."""
    return 180 - (180 - zenith.remainder(360)).abs()


def wrap(azimuth: torch.Tensor) -> torch.Tensor:
    """Azimuth angles [degrees] into -180 ... 180. Shape kept."""
    return 180 - (180 - azimuth).remainder(360)


def phasor(turns: torch.Tensor) -> torch.Tensor:
    """e^{j 2 pi turns}: float64 -> complex64, the phase reduced in float64. Shape kept."""
    phase = (turns.remainder(1) * (2 * np.pi)).float()
    return torch.complex(torch.cos(phase), torch.sin(phase))


def progression(turns: torch.Tensor, first: float, count: int) -> torch.Tensor:
    """e^{j 2 pi turns k} for k = first, first + 1, ...: [...] float64 -> [..., count] complex64.

    Cut into blocks of 8, so that few phasors are made: one for each block and one for each place in a block.
    """
    blocks = first + 8 * torch.arange(-(-count // 8), device=turns.device)
    within = torch.arange(8, device=turns.device)
    turns = turns[..., None]
    return (phasor(turns * blocks)[..., None] * phasor(turns * within)[..., None, :]).flatten(-2)[..., :count]


class InHEngine:
    """What both engines share: the recipe, the device and the draws.

    :param recipe: what to simulate
    :param device: torch device
    """

    def __init__(self, recipe: InHRecipe, device: torch.device) -> None:
        self.recipe, self.device = recipe, device
        self.band = recipe.arrays.get("H", (0, 0))[1]  # subcarriers kept

    def draw(self, split: str, indices: Sequence[int] | NDArray[np.int64]) -> Draws:
        """See :func:`draw`."""
        return draw(self.recipe, split, indices)

    def draw_on_device(self, n: int, generator: torch.Generator) -> Draws:
        """See :func:`draw_on_device`."""
        return draw_on_device(self.recipe, n, generator)

    def unit_power(self, h: torch.Tensor) -> torch.Tensor:
        """Feedback channels scaled so that the mean of |h|^2 over a sample's entries is 1. Shape [n, antenna, subcarrier] kept."""
        return h / h.abs().square().mean((1, 2), keepdim=True).sqrt()


class ClosedForm(InHEngine):
    """The closed-form engine: the equations at the top of this file; angles and phases in float64, sums in float32."""

    def __init__(self, recipe: InHRecipe, device: torch.device) -> None:
        super().__init__(recipe, device)
        parameters = table(recipe.carrier_ghz)
        self.table = Table(*(getattr(parameters, field.name).to(device) for field in fields(parameters)))
        columns = max(recipe.antennas, self.band // 16, recipe.crop_taps // 16, 4)
        self.rows = max(1, 1024 // columns)  # samples at a time: what stays near a core

    @torch.no_grad()
    def __call__(self, draws: Draws) -> Batch:
        """Simulate the samples of some draws.

        :param draws: random numbers of n samples
        :returns: the recipe's X and H, each complex64 [n, ...] on the engine's device
        """
        draws = draws.to(self.device)
        parts = [self._samples(draws[start : start + self.rows]) for start in range(0, len(draws), self.rows)]
        return {name: torch.cat([part[name] for part in parts]) for name in self.recipe.arrays}

    def _samples(self, draws: Draws) -> Batch:
        recipe = self.recipe
        gains, delays = self.paths(draws)
        arrays = {}
        if self.band:
            turns = -recipe.spacing_khz * 1e3 * delays  # from one subcarrier to the next
            arrays["H"] = gains.transpose(1, 2) @ progression(turns, -(recipe.subcarriers // 2), self.band)
        if recipe.uplink:
            return {"H": self.unit_power(arrays["H"])}
        taps = delay_kernel(delays, recipe.subcarriers, recipe.spacing_khz * 1e3, 0.0, recipe.crop_taps)
        arrays["X"] = torch.fft.ifft(gains.transpose(1, 2) @ taps.to(torch.complex64), dim=1)
        return arrays

    def paths(self, draws: Draws) -> tuple[torch.Tensor, torch.Tensor]:
        """Gains [n, path, antenna] complex64 and delays [n, path] float64 [s] of the paths that the samples are made of."""
        recipe, table = self.recipe, self.table
        link = links(recipe, table, draws)
        cluster = clusters(table, draws, link)
        k = torch.where(link.los, link.k, 0.0)
        scale = torch.ones_like(k)
        if recipe.path_loss:
            scale = scale * 10 ** (-link.path_loss_db / 20)
        if recipe.shadow_fading:
            scale = scale * link.sf.sqrt()
        strongest = torch.topk(cluster.powers, 2, dim=-1).indices

        which, pairs = link.los.long(), coupling(draws, strongest)
        azimuth_offsets = table.spread[which, AOD, None, None] * table.offsets
        zenith_offsets = table.spread[which, ZOD, None, None] * table.offsets[pairs]
        azimuth = wrap(angles(table, draws, link, cluster, AOD)[..., None] + azimuth_offsets)  # (7.5-13)
        zenith = fold(angles(table, draws, link, cluster, ZOD)[..., None] + zenith_offsets)  # (7.5-20)
        amplitude = (cluster.powers / RAYS / (k + 1)[:, None]).sqrt() * scale[:, None]
        amplitude = (amplitude[..., None] * element_field(recipe, zenith, azimuth)).float()
        sine = torch.sin(torch.deg2rad(zenith)) * torch.sin(torch.deg2rad(azimuth))
        weights = torch.polar(amplitude, draws.phases)

        # rays summed by sub-cluster, as if every cluster had them; in all but the two strongest they are one path
        groups, lags = subclusters()
        member = torch.zeros(len(groups), RAYS, dtype=weights.dtype, device=self.device)
        for row, group in enumerate(groups):
            member[row, group] = 1
        array_response = functools.partial(progression, first=-(recipe.antennas - 1) / 2, count=recipe.antennas)
        summed = (weights[:, :, None] * member) @ array_response(sine / 2)  # [n, C, 3, antenna]
        split = torch.zeros_like(cluster.powers).scatter(1, strongest, 1.0)
        whole = summed[:, :, 0] + (1 - split.float())[..., None] * summed[:, :, 1:].sum(2)
        at = strongest[:, :, None, None].expand(-1, -1, len(groups) - 1, recipe.antennas)
        parts = summed[:, :, 1:].gather(1, at).flatten(1, 2)
        late = table.cluster_ds_s[which, None, None] * cluster.delays.new_tensor(lags[1:])
        late = (cluster.delays.gather(1, strongest)[..., None] + late).flatten(1)

        direct = ((k / (k + 1)).sqrt() * scale * element_field(recipe, link.zenith, link.azimuth)).float()  # (7.5-29)
        turns = link.distance_m * (recipe.carrier_ghz * 1e9 / SPEED_OF_LIGHT_MPS)
        sine = torch.sin(torch.deg2rad(link.zenith)) * torch.sin(torch.deg2rad(link.azimuth))
        specular = (direct * phasor(-turns))[:, None] * array_response(sine / 2)
        gains = torch.cat([whole, parts, specular[:, None]], 1)
        return gains, torch.cat([cluster.delays, late, torch.zeros_like(k)[:, None]], 1)
