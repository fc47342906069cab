"""COST 2100: the closed form against its own paths, each step against its law, and the recipe."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from pathlib import Path
from types import ModuleType

import h5py
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import datagen
from benchmarks import cost2100 as speed
from benchmarks import csinet_judge
from datagen import COST2100Recipe, DatagenError, Store, fidelity, report
from datagen.angular_delay import to_angular_delay, to_spatial_frequency
from datagen.recipe import parse
from datagen.scenarios import cost2100
from tests.conftest import Cli

CPU = torch.device("cpu")


def small(**changes: object) -> COST2100Recipe:
    return COST2100Recipe.model_validate({"train": 600, "val": 40, "test": 0, "seed": 7, **changes})


def drawn(recipe: COST2100Recipe, n: int) -> tuple[cost2100.Draws, cost2100.Paths]:
    draws = cost2100.draw(recipe, "train", range(n)).to(CPU)
    return draws, cost2100.paths(recipe, draws)


def response(recipe: COST2100Recipe, found: datagen.Multipath) -> NDArray[np.complex128]:
    """Step 11 written out: every path at every antenna and subcarrier."""
    azimuth = found.azimuth_ue_rad if recipe.convention == "official" else found.azimuth_bs_rad
    f = recipe.lowest_frequency_mhz * 1e6 + np.arange(recipe.subcarriers) * recipe.spacing_khz * 1e3
    steering = np.exp(-1j * np.pi * np.arange(recipe.antennas)[:, None] * np.cos(azimuth))
    result: NDArray[np.complex128] = (steering * found.amplitude) @ np.exp(-2j * np.pi * np.outer(found.delay_s, f))
    return result


# the closed form -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"environment": "indoor"},
        {"line_of_sight": "nlos", "paths_per_cluster": 5},
        {"convention": "physical"},
        {"convention": "physical", "environment": "indoor", "path_loss": "free-space"},
        {"antennas": 7, "subcarriers": 64, "crop_taps": 64, "keep_band": 64, "convention": "physical"},
        {"antennas": 8, "subcarriers": 33, "crop_taps": 5, "keep_band": 3},
        {"users_per_environment": 3, "environment": "indoor", "keep_band": 20},
    ],
)
def test_samples_are_the_transform_of_their_paths(changes: dict[str, object]) -> None:
    recipe = small(**changes)
    batch = {name: array.numpy() for name, array in next(datagen.sample(recipe, range(3), "val")).items()}
    for i in range(3):
        h = response(recipe, datagen.multipath(recipe, i, "val"))
        if recipe.convention == "official":
            x = np.fft.fftshift(np.fft.fft(np.fft.ifft(h, axis=1)[:, : recipe.crop_taps], axis=0), axes=0)
            scale = 0.5 / np.abs(x).max()
        else:
            x, scale = to_angular_delay(h, recipe.crop_taps), 1.0
        assert np.linalg.norm(batch["X"][i] - scale * x) < 1e-5 * np.linalg.norm(scale * x)
        if recipe.keep_band:
            expected = scale * h[:, : recipe.keep_band]
            assert np.linalg.norm(batch["H"][i] - expected) < 1e-5 * np.linalg.norm(expected)


def test_official_samples_are_what_the_csinet_files_hold() -> None:
    """Peak 0.5, and the first 125 of 257 frequencies come back from the crop as CsiNet's own test code does it."""
    recipe = small(environment="indoor", keep_band=125)
    batch = next(datagen.sample(recipe, range(50), batch_size=50))
    x, h = batch["X"].numpy(), batch["H"].numpy()
    np.testing.assert_allclose(np.abs(x).max(axis=(1, 2)), 0.5, rtol=1e-5)
    full_band = np.fft.fft(np.concatenate([x, np.zeros((50, 32, 257 - 32))], 2), axis=2)[:, :, :125]
    angle = np.fft.fftshift(np.fft.fft(h, axis=1), axes=1)
    rho = np.abs((full_band.conj() * angle).sum(1)) / (
        np.linalg.norm(full_band, axis=1) * np.linalg.norm(angle, axis=1)
    )
    assert rho.mean() > 0.98  # what the crop drops is little indoors


def test_physical_samples_undo_to_the_band() -> None:
    recipe = small(convention="physical", environment="indoor", keep_band=1024, subcarriers=1024, train=4, val=0)
    batch = next(datagen.sample(recipe, range(4)))
    back = to_spatial_frequency(batch["X"], 1024)
    inner = (back.conj() * batch["H"]).sum(1).abs()
    rho = inner / (torch.linalg.norm(back, dim=1) * torch.linalg.norm(batch["H"], dim=1))
    assert float(rho.mean()) > 0.97  # what leaks before the first tap is dropped


@pytest.mark.parametrize("size", [32, 257, 5])
def test_dirichlet_kernel(size: int) -> None:
    points = torch.arange(min(size, 32), dtype=torch.float64)
    kernel = cost2100.DirichletKernel(size, points, CPU)
    t = torch.cat(
        [torch.linspace(-3.0 * size, 4.0 * size, 997, dtype=torch.float64), torch.arange(-5.0, 40.0).double()]
    )
    arguments, numerator = kernel.shift(t)
    x = points - t[:, None]
    x = torch.where((x - x.round()).abs() < 1e-9, x + 1e-9, x)
    expected = torch.sin(math.pi * x) / (size * torch.sin(math.pi * x / size))
    torch.testing.assert_close(kernel(*arguments) * numerator[:, None], expected.float(), rtol=1e-4, atol=2e-6)


# the steps -------------------------------------------------------------------------------------------------------------------


def test_users_stand_where_the_recipe_says() -> None:
    recipe = small(train=4000)
    users = drawn(recipe, 4000)[1].user_m
    assert 80 <= users.abs().min() < 82
    assert 198 < users.abs().max() <= 200
    assert float((users[:, 0] < 0).double().mean()) == pytest.approx(0.5, abs=0.03)
    assert float((users[:, 1] < 0).double().mean()) == 0


def test_visibility_regions_are_as_many_as_a_uniform_cell_shows() -> None:
    recipe = small(environment="indoor", parameters="published", train=3000)
    draws, _ = drawn(recipe, 3000)
    far = torch.bincount(draws.sample[(draws.local == cost2100.TWIN) & (draws.sample < 3000)], minlength=3000).double()
    mean = recipe.visibility_regions * (recipe.vr_radius_m / recipe.cell_radius_m) ** 2
    assert recipe.visibility_regions == round(3.8 * (30 / 1.72) ** 2)
    assert float(far.mean()) == pytest.approx(mean, rel=0.03)
    assert float(far.var()) == pytest.approx(mean, rel=0.15)  # binomial with rare successes
    assert far.min() >= 1


def test_region_gain_falls_smoothly_through_its_transition() -> None:
    gain = cost2100.vr_gain(torch.tensor([0.0, 16.0, 32.8]), 32.8, 16.8, 1.05)
    assert float(gain[1]) == 0.5
    assert gain[0] > 0.96
    assert 0 < gain[2] < 0.04


def test_shared_environments_show_the_same_clusters() -> None:
    common = {
        "train": 400,
        "parameters": "published",
        "mirrored_share": 0.0,
        "ue_x_m": (100.0, 110.0),
        "ue_y_m": (100.0, 110.0),
    }
    alone, shared = small(**common), small(**common, users_per_environment=200)
    draws, _ = drawn(shared, 400)
    far = draws.local == cost2100.TWIN

    def of(samples: range) -> set[float]:
        rows = far & (draws.sample >= samples.start) & (draws.sample < samples.stop)
        return set(draws.uniform[rows, cost2100.DISTANCE].tolist())

    assert len(of(range(1)) & of(range(1, 200))) > 15
    assert not of(range(200)) & of(range(200, 400))
    counts = [
        torch.bincount(d.sample[d.local == cost2100.TWIN])[:400].double().mean() for d in (draws, drawn(alone, 400)[0])
    ]
    assert float(counts[0]) == pytest.approx(float(counts[1]), rel=0.15)


def test_cluster_draws_are_correlated_log_normals() -> None:
    recipe = small(line_of_sight="nlos", train=600)
    draws, found = drawn(recipe, 600)
    user = found.user_m[draws.sample.clamp(max=599)]
    c = cost2100.clusters(recipe, draws, user, 1.05)
    twin = (c.kind == cost2100.TWIN) & (draws.sample < 600)
    assert float(
        (c.kind == cost2100.SINGLE).double().sum() / (c.kind <= cost2100.SINGLE).double().sum()
    ) == pytest.approx(0.2, abs=0.02)
    delay, shadow = 10 * c.along[twin].log10(), 10 * c.shadow[twin].log10()
    assert float(10 ** (delay.median() / 10)) == pytest.approx(317e-9 * 299792458 / 2, rel=0.05)
    assert float(delay.std()) == pytest.approx(2.5, rel=0.05)
    assert float(shadow.std()) == pytest.approx(2.27, rel=0.05)
    half_spread = 10 * (2 * torch.atan(c.across[twin] / torch.hypot(c.bs_x, c.bs_y)[twin])).log10()
    assert float(half_spread.std()) == pytest.approx(2.02, rel=0.05)
    correlation = torch.corrcoef(torch.stack([delay, half_spread, shadow]))
    assert float(correlation[0, 1]) == pytest.approx(0.9, abs=0.02)
    assert float(correlation[0, 2]) == pytest.approx(-0.1, abs=0.05)


def test_twins_have_the_same_width_seen_from_both_sides_and_link_delays() -> None:
    recipe = small(train=600)
    draws, found = drawn(recipe, 600)
    user = found.user_m[draws.sample.clamp(max=599)]
    c = cost2100.clusters(recipe, draws, user, 1.05)
    twin, single = c.kind == cost2100.TWIN, c.kind == cost2100.SINGLE
    link = c.link_delay_s[twin] * 1e9
    assert float(link.min()) >= 47.9
    assert float(link.mean()) == pytest.approx(47.9 + 854, rel=0.05)
    assert float(c.link_delay_s[~twin].abs().max()) == 0
    torch.testing.assert_close(c.bs_x[single], c.ue_x[single])
    assert float((c.bs_x[twin] - c.ue_x[twin]).abs().median()) > 50
    turn = (
        torch.remainder(c.azimuth_bs[twin] - torch.atan2(user[twin, 1], user[twin, 0]) + math.pi, 2 * math.pi) - math.pi
    )
    assert float(torch.rad2deg(turn).mean()) == pytest.approx(43, abs=4)
    assert float(torch.rad2deg(turn).std()) == pytest.approx(39, rel=0.1)


def test_local_clusters_lie_round_their_station() -> None:
    recipe = small(environment="indoor", train=200)
    draws, found = drawn(recipe, 200)
    user = found.user_m[draws.sample.clamp(max=199)]
    c = cost2100.clusters(recipe, draws, user, 0.0566)
    for kind, x, y in (
        (cost2100.LOCAL_UE, user[:, 0], user[:, 1]),
        (cost2100.LOCAL_BS, 0 * user[:, 0], 0 * user[:, 1]),
    ):
        rows = (c.kind == kind) & (draws.sample < 200)
        assert int(rows.sum()) == 200
        assert float(torch.hypot(c.ue_x - x, c.ue_y - y)[rows].max()) == 0
        excess = (found.delay_s[rows] - found.los_delay_s[draws.sample[rows]][:, None]) * 1e9
        assert excess.min() >= 0
        assert 0 < float(excess.mean()) < 3  # a few metres of spread at most
    power = found.amplitude.abs().square().sum(1)
    local = (c.kind >= cost2100.LOCAL_UE) & (draws.sample < 200)
    torch.testing.assert_close(
        power[local], torch.ones(400, dtype=torch.float64)
    )  # no shadow fading indoors, no attenuation
    assert float(power[draws.sample == 200].abs().sum()) == 0  # rows that only pad the table


def test_power_falls_with_excess_delay_down_to_the_cut_off() -> None:
    recipe = COST2100Recipe()
    los = torch.tensor([0.5], dtype=torch.float64)
    near, far, beyond = (
        float(cost2100.attenuation(recipe, torch.tensor([d], dtype=torch.float64), los)) for d in (0.5, 1.5, 50.0)
    )
    assert near == 1
    assert far == pytest.approx(10**-1.21)  # 12.1 dB for each microsecond
    assert beyond == pytest.approx(10 ** (-1.21 * 1.9))


def test_line_of_sight_has_its_factor_and_its_region() -> None:
    recipe = small(train=3000, ue_x_m=(0.0, 400.0), ue_y_m=(0.0, 10.0))
    _, found = drawn(recipe, 3000)
    scattered = torch.zeros(3001, dtype=torch.float64).index_add_(
        0, found.sample, found.amplitude.abs().square().sum(1)
    )[:3000]
    k_db = 10 * torch.log10(found.los_amplitude.square() / scattered)
    distance = torch.hypot(*found.user_m.T)
    inside, outside = distance < 150, distance > 351
    assert float(k_db[inside].median()) == pytest.approx(-4.7, abs=0.3)
    assert float(k_db[inside].std()) == pytest.approx(2.0, rel=0.1)
    assert float(found.los_amplitude[outside].max()) == 0
    assert float(drawn(small(line_of_sight="nlos"), 20)[1].los_amplitude.max()) == 0
    _, loss = drawn(small(train=3000, ue_x_m=(0.0, 400.0), ue_y_m=(0.0, 10.0), path_loss="free-space"), 3000)
    gain = loss.los_amplitude[inside] / found.los_amplitude[inside]
    wavelength = 299792458 / 285e6
    torch.testing.assert_close(gain, wavelength / (4 * math.pi * distance[inside].clamp(min=wavelength)))


def test_multipath_lists_what_a_sample_is_made_of() -> None:
    recipe = small()
    found = datagen.multipath(recipe, 3)
    assert found.kind[0] == "los"
    assert found.delay_s[0] == pytest.approx(math.hypot(*found.user_m) / 299792458)
    assert set(found.kind[1:]) <= {"twin", "single", "local-ue"}
    assert (np.diff(found.delay_s[1:]) >= 0).all()
    assert len(found.kind) == 1 + 27 * (found.cluster.max() + 1)
    with pytest.raises(DatagenError, match="no sample 600 in train; it has 600"):
        datagen.multipath(recipe, 600)


# draws, recipe ---------------------------------------------------------------------------------------------------------------


def test_draws_are_those_of_the_format() -> None:
    """FORMAT.md section 5 once more, with nothing but numpy's Philox: sample 3 of the val split."""
    recipe, index = small(environment="indoor"), 3
    draws = cost2100.draw(recipe, "val", [index])

    def words(stream: str, item: int, count: int) -> NDArray[np.uint64]:
        name = int.from_bytes(hashlib.sha256(stream.encode()).digest()[:8], "little")
        blocks = -(-count // 4)
        key = np.array([7, name], np.uint64)
        return np.random.Philox(key=key, counter=item * blocks).random_raw(4 * blocks)[:count]

    def uniform(raw: NDArray[np.uint64]) -> NDArray[np.float64]:
        return np.asarray((raw >> np.uint64(11)).astype(np.float64) * 2.0**-53)

    def normal(raw: NDArray[np.uint64]) -> NDArray[np.float64]:
        low, high = (raw & np.uint64(2**32 - 1)).astype(float), (raw >> np.uint64(32)).astype(float)
        radius, angle = np.sqrt(-2 * np.log((low + 1) * 2.0**-32)), 2 * np.pi * high * 2.0**-32
        return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).ravel()

    own = words("cost2100/val", index, 8)
    np.testing.assert_allclose(draws.users[0], uniform(own[:3]))
    np.testing.assert_allclose(draws.los[0], [*uniform(own[3:5]), normal(own[6:7])[0]])
    far = int(((draws.local == cost2100.TWIN) & (draws.sample == 0)).sum())
    regions, reach = recipe.visibility_regions, (2.72 / 30) ** 2
    mass = [math.comb(regions, k) * reach**k * (1 - reach) ** (regions - k) for k in range(40)]
    cdf = np.cumsum([0, *mass[1:]]) / (1 - mass[0])
    assert cdf[far - 1] <= uniform(own[5:6])[0] < cdf[far]
    paths = recipe.paths_per_cluster
    for c in range(2 + far):  # local clusters at the user and the BS, then the far ones
        row = words("cost2100/val/clusters", index * (regions + 2) + c, 5 + (8 + 5 * paths + 1) // 2)
        np.testing.assert_allclose(draws.uniform[c], uniform(row[:5]))
        numbers = normal(row[5:])
        np.testing.assert_allclose(draws.normal[c], numbers[:8])
        np.testing.assert_allclose(draws.paths[c].ravel(), numbers[8 : 8 + 5 * paths])


@pytest.mark.parametrize(
    "changes", [{"environment": "indoor"}, {}, {"environment": "indoor", "users_per_environment": 5}]
)
def test_order_batches_and_neighbours_do_not_matter(changes: dict[str, object]) -> None:
    recipe = small(train=300, **changes)
    order = np.random.default_rng(0).permutation(300)
    straight = torch.cat([batch["X"] for batch in datagen.sample(recipe, range(300))])
    shuffled = torch.cat([batch["X"] for batch in datagen.sample(recipe, order, batch_size=77)])
    assert torch.equal(straight[order], shuffled)
    assert torch.equal(next(datagen.sample(recipe, [299]))["X"][0], straight[299])
    assert not torch.equal(next(datagen.sample(recipe, range(4), "val"))["X"], straight[:4])


def test_streamed_samples_follow_the_law_of_the_indexed_ones() -> None:
    recipe = small(environment="indoor")
    indexed = next(datagen.sample(recipe, range(3000), batch_size=3000))["X"]
    streamed = torch.cat([b["X"] for b in itertools.islice(datagen.stream(recipe, 1000, seed=1), 3)])
    profile = [array.abs().square().mean((0, 1))[:6] for array in (indexed, streamed)]
    torch.testing.assert_close(profile[0], profile[1], rtol=0.15, atol=1e-4)
    with pytest.raises(DatagenError, match="users_per_environment 1"):
        next(datagen.stream(small(users_per_environment=2)))


def test_recipe_takes_the_parameters_of_its_scenario() -> None:
    outdoor, indoor, nlos = COST2100Recipe(), COST2100Recipe(environment="indoor"), COST2100Recipe(line_of_sight="nlos")
    assert [r.label for r in (outdoor, indoor, nlos)] == [
        "cost2100-outdoor-v1",
        "cost2100-indoor-v1",
        "cost2100-outdoor-nlos-v1",
    ]
    assert [r.paths_per_cluster for r in (outdoor, indoor, nlos)] == [27, 3, 48]
    assert outdoor.splits == {"train": 100_000, "val": 30_000, "test": 20_000}
    assert outdoor.arrays == {"X": (32, 32)}
    assert COST2100Recipe(keep_band=125).arrays == {"X": (32, 32), "H": (32, 125)}
    assert (outdoor.visible_clusters, outdoor.delay_spread_ns, indoor.visible_clusters) == (1.0, 75.0, 2.0)
    published = COST2100Recipe(parameters="published")
    assert (published.visible_clusters, published.delay_spread_ns) == (6.0, 139.0)
    physical = COST2100Recipe(convention="physical")
    assert (physical.parameters, physical.visible_clusters) == ("published", 6.0)
    assert (physical.subcarriers, physical.ue_x_m) == (1024, (-200.0, 200.0))
    assert COST2100Recipe(environment="indoor", vr_radius_m=3.0).vr_radius_m == 3.0
    assert parse(indoor.model_dump(mode="json")) == indoor


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"environment": "indoor", "line_of_sight": "nlos"}, "no indoor parameter set"),
        ({"environment": "moon"}, "'outdoor' or 'indoor'"),
        ({"keep_band": 300}, "at most 257"),
        ({"vr_transition_m": 40.0}, "not less than vr_radius_m"),
        ({"vr_radius_m": 600.0}, "more than cell_radius_m"),
        ({"ue_x_m": [3.0, 1.0]}, "runs backwards"),
        ({"spread_correlation": -0.9}, "no correlation"),
    ],
)
def test_bad_fields_are_one_line(fields: dict[str, object], words: str) -> None:
    with pytest.raises(DatagenError, match=words) as error:
        parse({"scenario": "cost2100", **fields})
    assert "\n" not in str(error.value)


# against the official set ----------------------------------------------------------------------------------------------------


def test_strongest_cells_taps_and_angles_of_a_made_up_sample() -> None:
    x = np.zeros((3, 32, 32), np.complex64)
    x[:, 4, 7], x[:, 5, 7], x[:, 5, 9] = 0.5, 0.5j, 0.5
    found = fidelity.measure(x)
    assert found["mean_energy"] == pytest.approx(0.75)
    assert found["mean_delay_taps"] == pytest.approx((7 + 7 + 9) / 3)
    assert found["energy_in_strongest_cells"] == pytest.approx([1, 1, 1])
    assert found["energy_in_strongest_taps"] == pytest.approx([2 / 3, 1, 1, 1])
    assert found["strongest_tap_5_to_95_percent"] == [7, 7]
    assert found["effective_angles"] == pytest.approx(3 / 2 ** (2 / 3))  # entropy of 1/3 and 2/3


@pytest.mark.parametrize(
    ("environment", "parameters", "slack"),
    [
        ("outdoor", "published", 0.02),
        ("outdoor", "matched", 0.04),
        ("indoor", "published", 0.04),
        ("indoor", "matched", 0.04),
    ],
)
def test_generated_sets_have_the_official_statistics(environment: str, parameters: str, slack: float) -> None:
    recipe = COST2100Recipe.model_validate({"environment": environment, "parameters": parameters})
    x = next(datagen.sample(recipe, range(2000), "test", batch_size=2000))["X"].numpy()
    found = fidelity.compare(recipe, x)
    ours, official = found["measured"], found["official"]
    assert ours["mean_energy"] == pytest.approx(official["mean_energy"], rel=0.05 + 2 * slack)
    assert ours["mean_delay_taps"] == pytest.approx(official["mean_delay_taps"], abs=12 * slack)
    np.testing.assert_allclose(
        ours["energy_in_strongest_cells"], official["energy_in_strongest_cells"], atol=1.5 * slack
    )
    known = [i for i, share in enumerate(official["delay_profile"]) if share is not None]
    profile, theirs = (np.array(side["delay_profile"], float)[known] for side in (ours, official))
    np.testing.assert_allclose(profile, theirs, atol=slack)
    assert found["paths"]["k_factor_sigma_db"] > 0


def test_fidelity_and_paths_from_the_command_line(cli: Cli) -> None:
    sizes = ("--train", "300", "--val", "0", "--test", "0", "--workers", "0")
    made = cli("cost2100", "--scenario", "indoor", *sizes, "--keep-band", "16", "--out", "i.zarr", "--json")
    assert json.loads(made.stdout)["name"] == "cost2100-indoor-v1", made.stderr
    assert "official indoor set" in cli("inspect", "i.zarr", "--fidelity").stdout
    facts = json.loads(cli("inspect", "i.zarr", "--fidelity", "--json").stdout)
    assert facts["measured"]["mean_energy"] == pytest.approx(0.9, rel=0.15)
    paths = json.loads(cli("inspect", "i.zarr", "--paths", "7", "--json").stdout)
    assert len(paths["kind"]) == len(paths["delay_ns"]) > 6
    assert "local-ue" in cli("inspect", "i.zarr", "--paths", "7").stdout
    assert cli("verify", "i.zarr").returncode == 0
    missing = cli("inspect", "i.zarr", "--paths", "300")
    assert (missing.returncode, "it has 300 there" in missing.stderr) == (2, True)
    physical = cli("cost2100", "--convention", "physical", *sizes, "--out", "p.zarr")
    assert physical.returncode == 0
    refused = cli("inspect", "p.zarr", "--fidelity")
    assert (refused.returncode, "--convention official" in refused.stderr) == (2, True)
    wrong = cli("cost2100", "--scenario", "indoor", "--line-of-sight", "nlos", "--out", "n.zarr")
    assert (wrong.returncode, "no indoor parameter set" in wrong.stderr) == (2, True)


def test_fidelity_is_of_official_sets_only(small_store: Store) -> None:
    with pytest.raises(DatagenError, match="no official counterpart"):
        fidelity.environment(small_store.recipe)
    with pytest.raises(DatagenError, match="only paths of cost2100 sets"):
        report.paths(small_store, 0, "train")


def test_judge_reads_keras_files(tmp_path: Path) -> None:
    """A file of the published shape whose networks answer 0.5, that is a channel of 0: an NMSE of 0 dB.

    Their first layer passes everything on, and its moving variance is that of a channel whose power falls from tap to tap.
    """
    power = np.linspace(3.2, 0.1, 32)
    shapes: dict[str, list[tuple[int, ...]]] = {}
    convolutions = [(2, 2), *[(2, 8), (8, 16), (16, 2)] * 2, (2, 2)]
    for i, (inside, outside) in enumerate(convolutions):
        shapes[f"conv2d_{i}"] = [(3, 3, inside, outside), (outside,)]
        if i < 7:
            shapes[f"batch_normalization_{i}"] = [(32,)] * 4
    shapes |= {"dense_0": [(2048, 32), (32,)], "dense_1": [(32, 2048), (2048,)]}
    for name in ("indoor_dim32", "indoor_dim64", "indoor_dim128", "outdoor_dim32", "outdoor_dim64", "outdoor_dim128"):
        with h5py.File(tmp_path / f"model_CsiNet_{name}.h5", "w") as file:
            file.attrs["layer_names"] = [layer.encode() for layer in shapes]
            for layer, parts in shapes.items():
                group = file.create_group(layer)
                group.attrs["weight_names"] = [f"{layer}/{i}".encode() for i in range(len(parts))]
                for i, shape in enumerate(parts):
                    group[f"{layer}/{i}"] = np.zeros(shape, np.float32)
            file["conv2d_0/conv2d_0/0"][1, 1] = np.eye(2)
            file["batch_normalization_0/batch_normalization_0/3"][...] = power
    results = csinet_judge.measure(tmp_path, 8)
    found = results["environments"]["indoor"]["nmse_db"]["default"]
    assert found == {
        "128": pytest.approx(0, abs=1e-4),
        "64": pytest.approx(0, abs=1e-4),
        "32": pytest.approx(0, abs=1e-4),
    }
    known = results["environments"]["outdoor"]["official"]
    assert known["mean_energy"] == pytest.approx(64 * power.sum())
    assert known["delay_profile"] == pytest.approx(power / power.sum())
    assert known["residual"] == pytest.approx(0, abs=1e-6)
    assert "| codeword of 32 | -0.00 | " in csinet_judge.markdown(results).replace(" 0.00", " -0.00")


@pytest.mark.parametrize("script", [speed, csinet_judge])
def test_readme_figures_are_those_of_the_benchmarks(script: ModuleType) -> None:
    root = Path(__file__).parent.parent
    results = json.loads((root / "benchmarks" / "results" / f"{Path(str(script.__file__)).stem}.json").read_text())
    assert script.markdown(results) in (root / "README.md").read_text()


def test_what_is_known_of_the_official_sets_is_what_networks_know_of_them() -> None:
    judged = json.loads((Path(__file__).parent.parent / "benchmarks" / "results" / "csinet_judge.json").read_text())
    for environment, known in fidelity.OFFICIAL.items():
        read = judged["environments"][environment]["official"]
        for key in ("mean_energy", "mean_delay_taps", "rms_delay_taps"):
            assert known[key] == round(read[key], 2)
        profile = zip(known["delay_profile"], read["delay_profile"], strict=True)
        assert all(share is None or share == round(exact, 3) for share, exact in profile)


def test_benchmark_reaches_its_marks() -> None:
    """The committed run: 2 000 samples/s a core outdoors were asked for."""
    results = json.loads((Path(__file__).parent.parent / "benchmarks" / "results" / "cost2100.json").read_text())
    assert results["environments"]["outdoor"]["samples_per_second_published_parameters"] > 2000
    assert results["environments"]["outdoor"]["ratio"] > 4


def test_benchmark_runs() -> None:
    results = speed.measure(0.01, 64)
    assert results["environments"]["indoor"]["ratio"] > 0
    assert "samples/s" in speed.markdown(results)


@pytest.mark.parametrize("convention", ["official", "physical"])
def test_a_sample_is_the_sum_of_its_path_maps(convention: str) -> None:
    recipe = datagen.COST2100Recipe(convention=convention)  # type: ignore[arg-type]
    x = next(iter(datagen.sample(recipe, range(3))))["X"].numpy()
    found = cost2100.paths(recipe, cost2100.draw(recipe, "train", range(3)).to(torch.device("cpu")))
    for index, sample in enumerate(x):
        amplitude = found.amplitude[found.sample == index]
        power = amplitude.abs().square().mean(1, keepdim=True)
        assert power.min() > 0
        number = np.append((amplitude / power.sqrt()).flatten().numpy(), 1)
        total = np.tensordot(number, datagen.path_maps(recipe, index), 1)
        scale = np.vdot(total, sample) / np.vdot(total, total)
        np.testing.assert_allclose(scale * total, sample, atol=1e-5 * np.abs(sample).max())
        if convention == "physical":
            assert scale == pytest.approx(1)
    with pytest.raises(DatagenError, match="has no sample 100000 in train"):
        datagen.path_maps(recipe, 100000)


def test_redraws_are_determined_by_recipe_sample_and_seed() -> None:
    recipe = datagen.COST2100Recipe(antennas=8, crop_taps=8)
    many = datagen.redrawn(recipe, 3, "test", 300)
    assert many.shape == (300, 8, 8)
    assert many.dtype == np.complex64
    np.testing.assert_array_equal(datagen.redrawn(recipe, 3, "test", 200), many[:200])
    others = [
        datagen.redrawn(recipe, 3, "test", 2, seed=1),
        datagen.redrawn(recipe, 3, "val", 2),
        datagen.redrawn(recipe, 4, "test", 2),
        datagen.redrawn(recipe.model_copy(update={"seed": 1}), 3, "test", 2),
        many[2:4],
    ]
    assert all(np.abs(other - many[:2]).max() > 0.01 * np.abs(many).max() for other in others)
    for arguments, words in [((100_000,), "has no sample 100000 in train"), ((0, "test", 0), "0 redraws are none")]:
        with pytest.raises(DatagenError, match=words):
            datagen.redrawn(recipe, *arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("users", [1, 20])
def test_redraws_keep_the_clusters_of_the_sample(users: int) -> None:
    """Their mean power is that of the sample's clusters, not of other samples', and clusters and line of sight are the very same."""
    recipe = datagen.COST2100Recipe(users_per_environment=users)
    x = next(iter(datagen.sample(recipe, range(6))))["X"].abs().square().sum(1)  # by delay
    profile = np.stack([np.square(np.abs(datagen.redrawn(recipe, i, count=200))).mean(0).sum(0) for i in range(6)])
    likeness = np.corrcoef(x.numpy(), profile)[:6, 6:]
    assert likeness.diagonal().min() > 0.7
    assert likeness.diagonal().mean() > likeness[~np.eye(6, dtype=bool)].mean() + 0.3
    own = cost2100.draw(recipe, "train", [2])
    found = cost2100.paths(recipe, own.to(torch.device("cpu")))
    fresh = cost2100.paths(recipe, cost2100._redraw(recipe, own, "stream", 0, 5).to(torch.device("cpu")))
    kept = found.sample == 0
    for name in ("los_delay_s", "los_amplitude", "los_cos_bs"):
        torch.testing.assert_close(getattr(fresh, name), getattr(found, name).expand(5), rtol=1e-9, atol=0)
    power = fresh.amplitude.abs().square().sum(1)[fresh.sample < 5].view(5, -1)
    torch.testing.assert_close(power, found.amplitude.abs().square().sum(1)[kept].expand(5, -1))
    assert not torch.isclose(fresh.delay_s[: kept.sum()], found.delay_s[kept], rtol=1e-9, atol=0).any()


def test_redraws_have_the_covariance_of_the_path_maps() -> None:
    """Far from the law of paths' places: clusters that are points leave only the amplitudes to draw, as the maps do."""
    points = dict.fromkeys(("delay_spread_ns", "azimuth_spread_bs_deg", "azimuth_spread_ue_deg"), 1e-6)
    recipe = datagen.COST2100Recipe.model_validate({"convention": "physical", "antennas": 8, "crop_taps": 8, **points})
    redrawn = datagen.redrawn(recipe, 0, count=4000).reshape(4000, -1)
    maps = datagen.path_maps(recipe, 0).reshape(-1, 64)
    expected = maps.T @ maps.conj()
    difference = np.abs(redrawn.T @ redrawn.conj() / 4000 - expected).max()
    assert difference < 0.1 * np.abs(expected).max()
