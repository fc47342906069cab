"""Gaussian limits: hand-computed cases, order, and SCIENCE's table from samples and from the law."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

import datagen
from datagen import Store
from tests.conftest import Cli, assert_one_line_error
from zoo import data
from zoo.covariances import Covariances, as_arrays
from zoo.errors import ZooError
from zoo.limits import (
    clusters_known,
    from_store,
    gaussian_distortion,
    linear,
    paths_known,
    prediction_distortion,
    velocity_known,
    water_level,
)

SMALL = datagen.COST2100Recipe(train=300, val=0, test=200, antennas=8, crop_taps=8)
BITS = [32, 64, 128, 192, 256, math.inf]


def db(errors: list[float]) -> list[float]:
    return [10 * math.log10(error) for error in errors]


@pytest.fixture(scope="module")
def covariances() -> Covariances:
    """Of 4 000 samples of the default recipe."""
    batches = datagen.sample(datagen.CDLRecipe(), range(4000), batch_size=1000)
    return Covariances.of(as_arrays((batch["X"], batch["Y"], batch["Z"])) for batch in batches)


def test_water_filling_by_hand() -> None:
    variances = np.array([4.0, 1.0])
    assert water_level(variances, 2) == pytest.approx(1.0)  # both components get what exceeds 1: log2(4) + 0 bits
    assert gaussian_distortion(variances, 2) == pytest.approx(2.0)
    assert gaussian_distortion(variances, 4) == pytest.approx(1.0)  # level 1/2, twice
    assert gaussian_distortion(variances, 1) == pytest.approx(3.0)  # level 2: only the first component gets its bit
    assert gaussian_distortion(variances, 0) == pytest.approx(5.0)
    assert gaussian_distortion(variances, math.inf) == 0
    assert gaussian_distortion(np.array([1.0, 0.0, 0.0]), 3) == pytest.approx(1 / 8)


def test_prediction_by_hand() -> None:
    one = np.eye(1, dtype=complex)
    # Z = X + noise of variance 1: X at rate R leaves 1 + 2^-R of 2; side information Y = Z leaves nothing.
    assert prediction_distortion(one, one, 2 * one, [0, 1, math.inf]) == pytest.approx([1, 0.75, 0.5])
    side = (2 * one, one, 2 * one)
    assert prediction_distortion(one, one, 2 * one, [0, 5], *side) == pytest.approx([0, 0], abs=1e-12)


def test_linear_row_of_the_table(covariances: Covariances) -> None:
    """SCIENCE §2, 'best linear', X only and Y only, there fitted and tested on other samples."""
    assert db(linear(covariances, BITS, 48, None)) == pytest.approx([-7.46, -7.74, -7.77, -7.77, -7.77, -7.77], abs=0.3)
    alone = Covariances(covariances.shape, covariances.x, covariances.z, covariances.zx)
    assert db(linear(alone, [math.inf], 48, None)) == pytest.approx([-5.87], abs=0.3)
    assert covariances.y is not None
    assert covariances.zy is not None
    from_y = Covariances(covariances.shape, covariances.y, covariances.z, covariances.zy)
    assert db(linear(from_y, [math.inf], 48, None)) == pytest.approx([-2.82], abs=0.3)


def test_reconstruction_row_of_the_table(covariances: Covariances) -> None:
    variances = np.linalg.eigvalsh(covariances.x)
    errors = [gaussian_distortion(variances, bits) / variances.sum() for bits in (64, 128, 192, 256)]
    assert db(errors) == pytest.approx([-14.8, -21.5, -26.5, -30.8], abs=0.5)


def test_velocity_known_row_of_the_table() -> None:
    """The table counts 48 principal components of a Y without noise; with all of them, or with noise, the row is another one."""
    law = datagen.conditional_statistics(datagen.CDLRecipe())
    assert db(velocity_known(law, BITS, 48, None)) == pytest.approx(
        [-14.68, -17.33, -17.79, -17.81, -17.81, -17.81], abs=0.3
    )
    assert db(velocity_known(law, [math.inf], 48, None, side_information=False)) == pytest.approx([-16.41], abs=0.3)
    assert db(velocity_known(law, [math.inf], None, 30.0))[0] < -18.5
    with pytest.raises(ZooError, match="give components, or snr_db"):
        velocity_known(law, BITS, None, None)


def test_order_of_limits(covariances: Covariances) -> None:
    law = datagen.conditional_statistics(datagen.CDLRecipe(), 20)
    alone = Covariances(covariances.shape, covariances.x, covariances.z, covariances.zx)
    rates = [0, 8, 64, 256, math.inf]
    for errors in (
        linear(covariances, rates, 60, 20.0),
        linear(alone, rates, 60, None),
        velocity_known(law, rates, None, 20.0),
    ):
        assert errors == sorted(errors, reverse=True)
        assert errors[0] <= 1 + 1e-9
    for less, more in [
        (linear(alone, rates, 60, None), linear(covariances, rates, 60, 20.0)),  # side information never hurts
        (linear(covariances, rates, 60, 10.0), linear(covariances, rates, 60, 30.0)),  # nor does less noise on it
        (velocity_known(law, rates, None, 20.0, side_information=False), velocity_known(law, rates, None, 20.0)),
    ]:
        assert all(b <= a + 1e-9 for a, b in zip(less, more, strict=True))


def test_limits_of_a_store_without_side_information(small_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store = data.Store(small_store.path)
    read = store.read

    def only_x(split: str, start: int = 0, stop: int | None = None) -> data.Batch:
        x = read(split, start, stop).x
        return data.Batch(x, None, x)

    monkeypatch.setattr(store, "read", only_x)
    found = from_store(store, [64, 128], components=1024)
    (row,) = found["rows"]
    assert row["name"] == "Gaussian, no side information"
    assert row["nmse_db"] == pytest.approx([-14.8, -21.5], abs=1.0)


def test_paths_known_by_hand() -> None:
    white = np.eye(2, 8, dtype=complex).reshape(2, 2, 4)  # two paths in cells of their own
    one = white[:1]
    assert paths_known([white], [0, 4, math.inf]) == pytest.approx([1, 2**-2, 0])
    assert paths_known([one], [4]) == pytest.approx([2**-4])
    assert paths_known([one, white], [4]) == pytest.approx([(2**-4 + 2**-2) / 2])
    assert paths_known([np.concatenate((one, one))], [4]) == pytest.approx([2**-4])  # together they are one


def test_paths_known_of_a_recipe() -> None:
    recipe = datagen.COST2100Recipe(train=4, val=0, test=4)
    maps = data.Simulated(recipe.model_dump(mode="json"), "cpu").path_maps(4)
    assert maps is not None
    errors = paths_known(maps, [0, 64, 128, math.inf])
    assert errors == sorted(errors, reverse=True)
    assert errors[0] == pytest.approx(1)
    assert errors[2] < 0.1
    with pytest.raises(ZooError, match="has 4 samples in test; 5 are asked for"):
        data.Simulated(recipe.model_dump(mode="json"), "cpu").path_maps(5)
    assert data.Simulated(None, "cpu").path_maps(1) is None


def test_clusters_known_by_hand() -> None:
    white = 2**0.5 * np.eye(2, 8, dtype=np.complex64).reshape(2, 2, 4)  # two redraws, each in a cell of its own
    one = white[:1]
    assert clusters_known([white, one], [0, 4]) == pytest.approx(np.array([[1, 2**-2], [1, 2**-4]]))
    assert clusters_known([1j * one], [4]) == pytest.approx(
        2**-4
    )  # a complex component of variance v takes log2(v / D)


def test_known_clusters_lie_between_the_gaussian_bound_and_known_paths() -> None:
    law, bits = data.Simulated(SMALL.model_dump(mode="json"), "cpu"), [8, 16, 32, 64]
    maps = law.path_maps(12)
    assert maps is not None
    x = next(iter(datagen.sample(SMALL, range(200), "test", batch_size=200)))["X"].numpy()
    variances = np.linalg.eigvalsh(Covariances.of([(x, None, x)]).x)
    clusters, paths = clusters_known(law.redrawn(12, 500), bits).mean(0), paths_known(maps, bits)
    assert (np.diff(clusters) < 0).all()
    assert (paths < clusters).all()
    assert (clusters < gaussian_distortion(variances, np.array(bits, float)) / variances.sum()).all()


def test_too_few_redraws_tell_too_low_an_error() -> None:
    [x] = data.Simulated(SMALL.model_dump(mode="json"), "cpu").redrawn(1, 4000)
    few, some, many = (clusters_known([x[:count]], [32])[0, 0] for count in (64, 1000, 4000))
    assert few < some < many
    assert some == pytest.approx(many, rel=0.05)


def test_command_tells_of_known_clusters(zoo_cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.limits.PATH_SAMPLES", 20)
    datagen.generate(SMALL, tmp_path / "small.zarr")
    given = ("limits", "small.zarr", "--components", "64", "--bits", "16", "--bits", "32")
    result = zoo_cli(*given, "--simulate", "--cluster-samples", "9", "--redraws", "256", "--out", "limits.json")
    assert result.returncode == 0, result.stderr
    found = json.loads((tmp_path / "limits.json").read_text())
    assert [row["name"] for row in found["rows"]] == ["Gaussian, no side information", "clusters known", "paths known"]
    assert "clusters known  " in result.stdout
    genie = found["genie"]
    assert (genie["name"], genie["samples"], genie["redraws"]) == ("clusters known", 9, 256)
    assert all(0 < error < 3 for error in genie["standard_error_db"])
    assert "genie's reference, no bound on all codes; of 9 test samples, 256 redraws each" in result.stderr
    for options, words in [
        (("--simulate", "--redraws", "63"), "63 redraws are too few for the covariance of 64 cells; give at least 64"),
        (("--simulate", "--cluster-samples", "201"), "has 200 samples in test; 201 are asked for"),
        (("--simulate", "--cluster-samples", "1"), "1 is not in the range x>=2"),
        (("--redraws", "99"), "--redraws goes with --simulate"),
        (("--link", "k=4", "--cluster-samples", "9"), "--cluster-samples goes without --link"),
    ]:
        assert_one_line_error(zoo_cli(*given[:2], *options), 2, words)


def test_clusters_of_another_scenario(small_store: Store, zoo_cli: Cli) -> None:
    result = zoo_cli("limits", small_store.path, "--simulate", "--redraws", "2000")
    assert_one_line_error(result, 2, "paths of cdl-c-fdd-v1 cannot be redrawn within clusters; only those of cost2100")


def test_command(small_store: Store, zoo_cli: Cli, tmp_path: Path) -> None:
    result = zoo_cli("limits", small_store.path, "--bits", "64", "--bits", "128", "--simulate", "--out", "limits.json")
    assert result.returncode == 0, result.stderr
    found = json.loads((tmp_path / "limits.json").read_text())
    assert [row["name"] for row in found["rows"]] == ["linear, X alone", "linear, X and Y", "velocity known"]
    assert all(row["bits"] == [64, 128] for row in found["rows"])
    assert f"{found['rows'][2]['nmse_db'][1]:.2f}" in result.stdout
    assert_one_line_error(zoo_cli("limits", "absent.zarr"), 2, "is not a CSI store")
