"""InH: the closed form against Sionna's own class on the same draws, and in distribution on draws of its own."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import datagen
from benchmarks.inh import METRICS, Links, critical_distance, distance, ours, sionnas
from datagen import InHRecipe, Store, draws
from datagen.angular_delay import to_spatial_frequency
from datagen.croissant import croissant
from datagen.errors import DatagenError
from datagen.recipe import RECIPES, parse
from datagen.scenarios import inh, make_engine
from tests.conftest import Cli, assert_one_line_error
from tests.test_cdl import error
from tests.test_simulate import joined


def small(**changes: object) -> InHRecipe:
    """Physics of the default recipe, few samples."""
    return InHRecipe.model_validate({"train": 600, "val": 40, "test": 0, "seed": 7, **changes})


# the recipe ------------------------------------------------------------------------------------------------------------------


def test_defaults() -> None:
    csi, feedback = InHRecipe(), InHRecipe(uplink=True)
    assert (csi.label, csi.arrays, csi.line_of_sight) == ("inh-open-v1", {"X": (32, 32)}, "drawn")
    assert (feedback.label, feedback.arrays, feedback.line_of_sight) == ("inh-open-uplink-v1", {"H": (32, 16)}, "los")
    assert (feedback.carrier_ghz, feedback.room_length_m, feedback.room_width_m) == (5.4, 20.0, 20.0)
    assert (feedback.bs_height_m, feedback.ue_height_m, feedback.antenna_pattern) == (3.0, 1.5, "omni")
    assert InHRecipe(keep_band=125).arrays == {"X": (32, 32), "H": (32, 125)}
    assert InHRecipe(office="mixed").name == "inh-mixed"
    assert RECIPES["inh"] is InHRecipe
    for recipe in (csi, feedback):
        assert parse(json.loads(recipe.model_dump_json())) == recipe


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"office": "closed"}, "'open' or 'mixed'"),
        ({"uplink": "yes"}, "valid boolean"),
        ({"crop_taps": 700}, "give at most 667"),
        ({"keep_band": 668}, "give at most 667"),
        ({"uplink": True, "keep_band": 2}, "no effect on unit-power feedback channels"),
        ({"uplink": True, "path_loss": True}, "no effect on unit-power feedback channels"),
        ({"bs_x_m": 11.0}, "outside the room; give bs_x_m up to 10"),
        ({"minimum_distance_m": 6.0}, "give at most 5"),
        ({"users_per_drop": 0}, "greater than or equal to 1"),
        ({"carrier_ghz": 0.1}, "greater than or equal to 0.5"),
        ({"room_lenght_m": 5.0}, "did you mean 'room_length_m'?"),
    ],
)
def test_bad_fields(fields: dict[str, object], words: str) -> None:
    with pytest.raises(DatagenError) as caught:
        parse({"scenario": "inh", **fields})
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


# physics, draw by draw -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"line_of_sight": "los"},
        {"line_of_sight": "nlos"},
        {"office": "mixed"},
        {"uplink": True},
        {"uplink": True, "line_of_sight": "drawn", "office": "mixed", "subcarriers": 32, "spacing_khz": 960.0},
        {"office": "mixed", "users_per_drop": 8, "room_length_m": 120.0, "room_width_m": 50.0, "keep_band": 50},
        {"line_of_sight": "los", "users_per_drop": 5, "room_length_m": 3.0, "room_width_m": 8.0, "shadow_fading": True},
        {"antenna_pattern": "38.901", "antennas": 7, "bs_x_m": -9.0, "bs_y_m": 3.0, "line_of_sight": "nlos"},
        {"antenna_pattern": "38.901", "office": "mixed", "path_loss": True, "ue_height_m": 4.0, "carrier_ghz": 28.0},
        {"antennas": 1, "subcarriers": 64, "crop_taps": 64, "carrier_ghz": 0.9, "minimum_distance_m": 4.0},
        {"antennas": 65, "subcarriers": 1024, "spacing_khz": 120.0},
    ],
)
def test_engines_agree(changes: dict[str, object]) -> None:
    """Sionna's public InH from topology to path coefficients, OFDM response, 2-D IFFT, crop; only its random numbers are ours."""
    recipe = small(**changes)
    drawn = inh.draw(recipe, "val", range(24))
    found, expected = make_engine(recipe)(drawn), make_engine(recipe, "sionna")(drawn)
    for name, shape in recipe.arrays.items():
        assert found[name].shape == (24, *shape)
        assert found[name].dtype == torch.complex64
        assert error(found[name], expected[name]) < 1e-6


def test_a_band_of_the_whole_grid_is_the_undone_crop() -> None:
    recipe = small(subcarriers=64, crop_taps=64, keep_band=64)
    batch = make_engine(recipe)(inh.draw(recipe, "train", range(8)))
    assert error(to_spatial_frequency(batch["X"], 64), batch["H"]) < 1e-6


def test_feedback_channels_have_unit_power() -> None:
    recipe = small(uplink=True)
    h = next(datagen.sample(recipe, range(600), batch_size=600))["H"]
    np.testing.assert_allclose(h.abs().square().mean((1, 2)), 1, rtol=1e-5)
    by_entry = h.abs().square().mean(0)  # stationary over the array: unit power at every antenna and subcarrier, too
    np.testing.assert_allclose(by_entry.mean(1), 1, atol=0.15)
    np.testing.assert_allclose(by_entry.mean(0), 1, atol=0.02)


def test_csi_has_unit_mean_power() -> None:
    recipe = small(subcarriers=64, crop_taps=64)
    x = next(datagen.sample(recipe, range(2000), batch_size=2000))["X"]
    power = x.abs().square().sum((1, 2))  # the mean of |H|^2 over antennas and subcarriers
    assert float(power.mean()) == pytest.approx(1, abs=5 * float(power.std()) / 2000**0.5)


# physics, in distribution ----------------------------------------------------------------------------------------------------

LINKS, CHANCE = 3000, 1e-4


@pytest.fixture(scope="module", params=["los", "nlos", "drawn"])
def both(request: pytest.FixtureRequest) -> tuple[Links, Links]:
    recipe = InHRecipe(line_of_sight=request.param, office="mixed", antennas=4)
    return ours(recipe, LINKS), sionnas(recipe, LINKS)


@pytest.mark.parametrize("name", METRICS)
def test_links_follow_the_law_of_sionnas(both: tuple[Links, Links], name: str) -> None:
    """Two-sample Kolmogorov-Smirnov test at the chance of one failure in ten thousand."""
    found, expected = both[0][name], both[1][name]
    if np.isnan(expected).all():
        assert np.isnan(found).all()
        return
    assert distance(found, expected) < critical_distance(found, expected, CHANCE)


@pytest.mark.parametrize("name", ["delay spread [ns]", "ASD [°]", "ASA [°]", "ZSD [°]", "ZSA [°]", "power"])
def test_means_are_sionnas(both: tuple[Links, Links], name: str) -> None:
    found, expected = both[0][name], both[1][name]
    standard_error = np.sqrt((found.var() + expected.var()) / LINKS)
    assert found.mean() == pytest.approx(expected.mean(), abs=4 * standard_error)


@pytest.mark.parametrize("office", ["open", "mixed"])
def test_probability_of_a_line_of_sight(office: str) -> None:
    recipe = InHRecipe(office=office, room_length_m=120.0, room_width_m=50.0)  # type: ignore[arg-type]
    drawn = inh.draw(recipe, "train", range(20_000))
    link = inh.links(recipe, inh.table(recipe.carrier_ghz), drawn)
    away = torch.linalg.vector_norm(drawn.places[:, 0], dim=-1)
    expected = inh.sight_probability(office, away)
    for near, far in ((0, 1.2), (1.2, 5), (5, 20), (20, 49), (49, 65)):
        at = (away >= near) & (away < far)
        spread = float((expected[at] * (1 - expected[at])).sum().sqrt()) + 1e-9
        assert float(link.los[at].sum()) == pytest.approx(float(expected[at].sum()), abs=4.5 * spread)


def test_users_of_a_drop_are_correlated_as_exp_of_their_distance() -> None:
    users, drops = 8, 4000
    recipe = small(users_per_drop=users, line_of_sight="los")
    table = inh.table(recipe.carrier_ghz)
    drawn = inh.draw(recipe, "train", range(users * drops))
    link = inh.links(recipe, table, drawn)
    apart = torch.cdist(drawn.places[::users], drawn.places[::users])
    weights = table.mixing[1].square()  # of the independent fields in each parameter
    for parameter, values in ((inh.SF, link.sf), (inh.K, link.k), (inh.DS, link.ds)):
        field = (torch.log10(values) - table.mean[1, parameter]) / table.deviation[1, parameter]
        product = field.view(drops, users, 1) * field.view(drops, 1, users)
        expected = (weights[parameter] * torch.exp(-apart[..., None] / table.distance_m[1])).sum(-1)
        for near, far in ((0.1, 1), (1, 2), (2, 4), (4, 8), (8, 16), (16, 30)):
            at = (apart > near) & (apart < far)
            assert float(product[at].mean()) == pytest.approx(float(expected[at].mean()), abs=0.06)
    assert float(weights[inh.SF, inh.SF]) == 1  # one field alone: exp(-d / 10 m)


def test_users_in_other_states_are_not_correlated() -> None:
    recipe = small(users_per_drop=2, office="mixed", room_length_m=8.0, room_width_m=8.0)
    table = inh.table(recipe.carrier_ghz)
    link = inh.links(recipe, table, inh.draw(recipe, "train", range(20_000)))
    state = link.los.long()
    field = ((torch.log10(link.sf)) / table.deviation[state, inh.SF]).view(-1, 2)
    mixed = link.los.view(-1, 2).sum(1) == 1
    assert int(mixed.sum()) > 2000
    assert float(field[mixed].prod(1).mean()) == pytest.approx(0, abs=4.5 / float(mixed.sum()) ** 0.5)


def test_users_keep_their_distance_and_fill_the_room() -> None:
    recipe = small(room_length_m=12.0, room_width_m=30.0, minimum_distance_m=3.0, bs_x_m=2.0, bs_y_m=-5.0)
    places = inh.draw(recipe, "train", range(20_000)).places[:, 0]
    assert float(torch.linalg.vector_norm(places - torch.tensor([2.0, -5.0]), dim=-1).min()) >= 3
    assert (places.abs().amax(0) <= torch.tensor([6.0, 15.0])).all()
    free = 12 * 30 - np.pi * 9
    corner = ((places[:, 0] < 0) & (places[:, 1] > 0)).double().mean()
    assert float(corner) == pytest.approx(90 / free, abs=0.015)


# draws -----------------------------------------------------------------------------------------------------------------------


def test_normal_numbers() -> None:
    values = draws.normal(draws.halves(draws.words(0, "law", range(2000), 64)))
    assert values.shape == (2000, 128)
    n = values.size
    assert values.mean() == pytest.approx(0, abs=5 / n**0.5)
    assert values.var() == pytest.approx(1, abs=5 * (2 / n) ** 0.5)
    assert (values**4).mean() == pytest.approx(3, abs=5 * (96 / n) ** 0.5)
    assert np.corrcoef(values[:, 0::2].ravel(), values[:, 1::2].ravel())[0, 1] == pytest.approx(
        0, abs=5 / (n / 2) ** 0.5
    )
    ends = draws.normal(np.array([0, 0, 2**32 - 1, 2**31], dtype=np.uint32))
    np.testing.assert_allclose(ends, [(64 * np.log(2)) ** 0.5, 0, 0, 0], atol=1e-9)


def test_draws_are_where_the_format_says() -> None:
    recipe = small(users_per_drop=4)

    def philox(stream: str, block: int, n: int) -> list[int]:
        name = int.from_bytes(hashlib.sha256(stream.encode()).digest()[:8], "little")
        key = np.array([recipe.seed, name], dtype=np.uint64)
        return [int(word) for word in np.random.Philox(key=key, counter=block).random_raw(n)]

    drawn = inh.draw(recipe, "val", [6])
    assert int(drawn.user) == 2
    for user in range(4):
        words = philox("inh/val/users", 6 * (4 + user), 21)
        x, y = (words[0] % 2**32) / 2**32, (words[0] >> 32) / 2**32
        np.testing.assert_allclose(drawn.places[0, user], [20 * (x - 0.5), 20 * (y - 0.5)])
        assert float(drawn.sight[0, user]) == (words[16] >> 11) / 2**53
        u, v = (words[17] % 2**32 + 1) / 2**32, (words[17] >> 32) / 2**32
        assert float(drawn.large[0, user, 0]) == pytest.approx((-2 * np.log(u)) ** 0.5 * np.cos(2 * np.pi * v))
    words = philox("inh/val", 112 * 6, 447)
    assert float(drawn.delay[0, 18]) == 1 - (words[18] >> 11) / 2**53
    assert drawn.signs[0, :, 3].tolist() == [1 - 2 * (words[3] >> bit & 1) for bit in range(4)]
    u, v = (words[19] % 2**32 + 1) / 2**32, (words[19] >> 32) / 2**32
    assert float(drawn.shadowing[0, 1]) == pytest.approx((-2 * np.log(u)) ** 0.5 * np.sin(2 * np.pi * v))
    signed = (words[67] % 2**32 + 2**31) % 2**32 - 2**31
    assert float(drawn.phases[0, 0, 0]) == pytest.approx(signed * np.pi / 2**31, rel=1e-6)
    keys = [words[257 + i // 2] >> 32 * (i % 2) & 0xFFFFFFFF for i in range(20)]
    assert drawn.coupling[0, 0].tolist() == sorted(range(20), key=lambda i: (keys[i] >> 5, i))


def test_users_do_not_depend_on_who_is_counted_with_them() -> None:
    alone, together = (inh.draw(small(users_per_drop=n), "train", range(12)) for n in (1, 6))
    np.testing.assert_array_equal(alone.places[:6, 0], together.places[0])
    np.testing.assert_array_equal(alone.phases, together.phases)


@pytest.mark.parametrize("changes", [{"users_per_drop": 3, "office": "mixed", "keep_band": 5}, {"uplink": True}])
def test_order_batches_and_neighbours_do_not_matter(changes: dict[str, object]) -> None:
    recipe = small(**changes)
    order = np.random.default_rng(0).permutation(600)
    shuffled = joined(datagen.sample(recipe, order, batch_size=77))
    for ordered, other in zip(joined(datagen.sample(recipe, range(600))), shuffled, strict=True):
        np.testing.assert_array_equal(ordered[order], other)
    name = next(iter(recipe.arrays))
    single = next(datagen.sample(recipe, [599]))
    np.testing.assert_array_equal(single[name][0], shuffled[0][order == 599][0])


def test_streamed_samples_follow_the_law_of_the_indexed() -> None:
    recipe = small(users_per_drop=4, office="mixed")
    engine, table, n = inh.ClosedForm(recipe, torch.device("cpu")), inh.table(recipe.carrier_ghz), 4000
    sides = [engine.draw("train", range(n)), engine.draw_on_device(n, torch.Generator().manual_seed(1))]

    def figures(drawn: inh.Draws) -> list[torch.Tensor]:
        link, x = inh.links(recipe, table, drawn), engine(drawn)["X"].abs().square().sum(-1)
        return [link.ds, link.k, inh.clusters(table, drawn, link).powers.amax(-1), x.sum(1), x[:, 5]]

    for a, b in zip(*([figure.numpy() for figure in figures(side)] for side in sides), strict=True):
        assert distance(a, b) < 1.5 * critical_distance(a, b, CHANCE)  # users of one drop are not independent
    assert next(datagen.stream(recipe, 6))["X"].shape == (6, 32, 32)


# stores ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def feedback_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return datagen.generate(small(uplink=True), tmp_path_factory.mktemp("inh") / "h.zarr", shard_samples=256)


def test_workers_make_the_same_store(feedback_store: Store, tmp_path: Path) -> None:
    other = datagen.generate(feedback_store.recipe, tmp_path / "h.zarr", shard_samples=512, workers=2)
    for split, size in feedback_store.recipe.splits.items():
        expected = joined(datagen.sample(feedback_store.recipe, range(size), split))[0]
        np.testing.assert_array_equal(feedback_store[split]["H"][:], expected)
        np.testing.assert_array_equal(other[split]["H"][:], expected)
    metadata = json.loads((Path(feedback_store.path) / "val/H/zarr.json").read_text())
    assert metadata["dimension_names"] == ["sample", "antenna", "subcarrier"]


def test_a_store_of_feedback_channels_is_read_by_every_command(feedback_store: Store, cli: Cli, tmp_path: Path) -> None:
    seen = cli("inspect", str(feedback_store.path), "--json", "--plot", "h.png")
    assert seen.returncode == 0, seen.stderr
    facts = json.loads(seen.stdout)
    assert facts["measured"]["H"]["entry_power"] == pytest.approx(1, rel=1e-4)
    assert 0.9 < facts["measured"]["H"]["edge_correlation"] < 1
    assert (tmp_path / "h.png").read_bytes().startswith(b"\x89PNG")
    assert "32 antennas, 16 subcarriers" in cli("inspect", str(feedback_store.path)).stdout
    assert cli("verify", str(feedback_store.path)).returncode == 0
    assert "sha256_H" in json.dumps(croissant(feedback_store.manifest))


def test_keras_reads_feedback_channels(feedback_store: Store) -> None:
    pytest.importorskip("tensorflow")
    (batch,) = next(iter(datagen.tf_dataset(feedback_store, "val", 40, real=True)))
    np.testing.assert_array_equal(batch[..., 1], np.imag(np.asarray(feedback_store["val"]["H"][:])))


def test_the_command_makes_what_its_options_say(cli: Cli, tmp_path: Path) -> None:
    sizes = ("--train", "3", "--val", "0", "--test", "2", "--workers", "0")
    made = cli(
        "inh", *sizes, "--uplink", "--carrier", "6", "--room-length", "30", "--users-per-drop", "2", "--out", "h.zarr"
    )
    assert made.returncode == 0, made.stderr
    recipe = InHRecipe(uplink=True, carrier_ghz=6.0, room_length_m=30.0, users_per_drop=2, train=3, val=0, test=2)
    assert datagen.open_store(tmp_path / "h.zarr").recipe == recipe
    (tmp_path / "mine.toml").write_text('scenario = "inh"\nuplink = true\n')
    made = cli("inh", *sizes, "--recipe", "mine.toml", "--no-uplink", "--keep-band", "4", "--out", "x.zarr")
    assert made.returncode == 0, made.stderr
    assert datagen.open_store(tmp_path / "x.zarr").recipe.arrays == {"X": (32, 32), "H": (32, 4)}
    table = cli("inspect", "x.zarr", "--plot", "x.png")
    assert "X [sample, 32 angles, 32 delays]; H [sample, 32 antennas, 4 subcarriers]" in table.stdout
    dry = cli("inh", "--uplink", "--dry-run", "--json", "--out", "d.zarr")
    assert json.loads(dry.stdout)["arrays"] == {"H": [32, 16]}
    assert_one_line_error(cli("inh", "--bs-x", "11", "--out", "d.zarr"), 2, "is outside the room")
