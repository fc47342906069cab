"""What a model's config says of the samples that it is made for: measured rightly, kept through release and Hub, refused where malformed."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import zoo
from datagen import Store, generate
from tests.conftest import Cli, assert_one_line_error, small_recipe
from tests.hub_server import HubServer
from tests.zoo_fixtures import measured, samples, untrained
from zoo import config, data, input_statistics, registry
from zoo.checkpoint import load_model, save_model
from zoo.errors import ZooError
from zoo.input_statistics import ModelInput, measure, of_training, record
from zoo.train import train

NAME = "csinet-tiny-cdl-66b"


def write(path: Path, **codec: Any) -> Path:
    """A small model that says what its samples look like."""
    model = untrained("csinet", **codec)
    side = measure(samples(50, 2)) if model.takes_y else None
    made_for = ModelInput(**dict(measure(samples(50, 1))), side_information=side)
    facts = {"name": path.name, "architecture": "csinet", "input": record(made_for)}
    save_model(path, model, facts, {"x": samples(4, 1), "y": samples(4, 2)})
    return measured(path)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write(tmp_path / NAME)


def edit(model: Path, change: Callable[[dict[str, Any]], object]) -> None:
    settings_ = registry.read_config(model)
    change(settings_)
    (model / "config.json").write_text(json.dumps(settings_))


# measuring -------------------------------------------------------------------------------------------------------------------


def test_figures_that_are_known() -> None:
    x = torch.zeros(103, 4, 32, dtype=torch.complex64)
    x[:101, 1, 2] = torch.arange(1, 102).sqrt() * 1j  # energies 1 to 101
    x[0, 1, 2], x[0, 3, 20] = 0.6, torch.tensor(0.8j)
    found = measure(x)
    assert (found.samples, found.without_energy) == (101, 2)
    assert found.energy_quantiles == pytest.approx({"0.01": 2, "0.05": 6, "0.5": 51, "0.95": 96, "0.99": 100})
    moved = 0.64 / 101
    assert found.delay_profile == pytest.approx([0, 0, 1 - moved, *[0] * 17, moved, *[0] * 11], abs=1e-6)
    assert found.angle_profile == pytest.approx([0, 1 - moved, 0, moved], abs=1e-6)
    first = {"1": 0, "4": 1 - moved, "8": 1 - moved, "16": 1 - moved}
    assert found.first_taps_share == pytest.approx(first, abs=1e-6)
    assert measure(x.numpy()) == found
    assert measure(x.conj()) == found


@given(
    st.integers(1, 40),
    st.integers(1, 5),
    st.integers(1, 20),
    st.sampled_from([1e-12, 1e-3, 1.0, 1e6]),
    st.integers(0, 99),
)
@settings(deadline=None, max_examples=50)
def test_what_changes_with_the_samples(n: int, angles: int, delays: int, unit: float, seed: int) -> None:
    x = samples(n, seed, (angles, delays))
    found, scaled = measure(x), measure(x * unit)
    assert scaled.delay_profile == pytest.approx(found.delay_profile, rel=1e-4)
    for level, value in scaled.energy_quantiles.items():
        assert value == pytest.approx(found.energy_quantiles[level] * unit**2, rel=1e-4)
    turned = measure(x.transpose(1, 2))
    assert (turned.angle_profile, turned.delay_profile) == (found.delay_profile, found.angle_profile)
    assert measure(x.flip(2)).delay_profile == pytest.approx(found.delay_profile[::-1], rel=1e-4)
    assert measure(x.flip(0)).energy_quantiles == found.energy_quantiles
    assert found.first_taps_share["16"] == pytest.approx(sum(found.delay_profile[:16]), abs=1e-4)
    again = ModelInput.model_validate_json(json.dumps(record(ModelInput(**dict(found), side_information=turned))))
    assert again == ModelInput(**dict(found), side_information=turned)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (torch.zeros(3, 4, 4, dtype=torch.complex64), "no sample has any energy"),
        (torch.zeros(0, 4, 4, dtype=torch.complex64), "no sample has any energy"),
        (torch.full((3, 4, 4), torch.nan, dtype=torch.complex64), "not finite"),
        (torch.ones(3, 4, 4), r"torch.float32 \[3, 4, 4\]; they must be complex"),
        (np.ones((4, 4), np.complex64), r"torch.complex64 \[4, 4\]"),
    ],
)
def test_samples_that_cannot_be_measured(x: Any, words: str) -> None:
    with pytest.raises(ZooError, match=words):
        measure(x)


# written by training, kept ---------------------------------------------------------------------------------------------------


def test_training_writes_what_its_samples_look_like(small_store: Store, tmp_path: Path) -> None:
    whole = data.Store(small_store.path).read("train")
    assert whole.y is not None
    settings_ = {"training.steps": 2, "training.batch": 8, "training.validation_samples": 8}
    for samples_, fields in ((None, {}), (300, {"codec.side_information": False})):
        source = data.Cached(data.Store(small_store.path), "cpu", samples_, 0)
        out = tmp_path / str(samples_)
        [path] = train(config.load("csinet", settings_ | fields), source, out, progress=False)
        found = zoo.load(path).input_statistics
        x, y = measure(whole.x[:samples_]), measure(whole.y[:samples_])
        assert found == ModelInput(**dict(x), side_information=None if fields else y)
        assert found.samples == (samples_ or len(whole.x))
    assert ("side_information" in registry.read_config(path)["input"]) == (not fields)
    dataset = registry.read_config(path)["dataset"]
    assert dataset == source.record()
    assert {"name", "recipe_digest"} <= dataset.keys()


def test_simulated_samples_and_fits_say_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_statistics, "SAMPLES", 100)
    source = data.Simulated(None, "cpu")
    found = of_training(source, True)
    assert found.samples == 100
    assert found.side_information is not None
    assert of_training(source, False) == found.model_copy(update={"side_information": None})
    paths = train(config.load("klt", {"codec.rate": 64}), source, tmp_path / "run", progress=False)
    assert [zoo.load(path).input_statistics for path in paths] == [found] * len(paths)


def test_release_and_the_hub_leave_it_as_it_is(
    model: Path, hub: HubServer, manifests: Path, zoo_cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, written = load_model(model).input_statistics, registry.read_config(model)["input"]
    store = generate(small_recipe(train=0, val=0, test=8), tmp_path / "test.zarr").path
    assert zoo_cli("release", model, "--data", store, "--into", "shipped").returncode == 0
    assert registry.read_config(tmp_path / "shipped" / NAME)["input"] == written
    monkeypatch.setenv("HF_TOKEN", hub.token("org"))
    command = ("publish", "csinet-tiny-cdl", "--repo", "org/csinet-tiny", "--from", "shipped")
    assert zoo_cli(*command).returncode == 0
    assert zoo.load(NAME).input_statistics == wanted
    assert json.loads(zoo_cli("info", NAME, "--json").stdout)["input"] == written


def test_a_model_that_is_older_has_none(small_model: Path) -> None:
    assert "input" not in registry.read_config(small_model)
    assert load_model(small_model).input_statistics is None
    assert copy.deepcopy(load_model(small_model)).input_statistics is None


# malformed -------------------------------------------------------------------------------------------------------------------


def _put(key: str, value: Any) -> Callable[[dict[str, Any]], object]:
    return lambda found: found["input"].update({key: value})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda found: found.update(input=None), "input: "),
        (lambda found: found.update(input=[1]), "input: "),
        (lambda found: found["input"].pop("samples"), "input: samples: Field required"),
        (_put("samples", 0), "input: samples = 0: it should be greater than or equal to 1"),
        (_put("samples", "8"), "input: samples = '8': it should be a valid integer"),
        (_put("without_energy", -1), "input: without_energy = -1"),
        (_put("angel_profile", []), "input: unknown key 'angel_profile'; did you mean 'angle_profile'"),
        (_put("delay_profile", [0.5] * 32), "input: delay_profile must hold shares that are 1 together"),
        (_put("angle_profile", [2.0, -1.0, *[0.0] * 30]), "input: angle_profile must hold shares that are 1 together"),
        (_put("angle_profile", [1.0]), "input: profiles of 1 angles and 32 delays; the model's samples have 32 and 32"),
        (_put("angle_profile", [float("nan")] * 32), "input: "),
        (_put("energy_quantiles", {"0.5": 1.0}), "input: energy_quantiles must be positive and rise, at 0.01, 0.05, 0.5"),
        (_put("energy_quantiles", {"0.01": 1.0, "0.05": 1.0, "0.5": 0.5, "0.95": 2.0, "0.99": 3.0}), "input: energy_quantiles must"),
        (_put("energy_quantiles", {"0.01": 1.0, "0.02": 1.0}), "input: energy_quantiles.0.02"),
        (_put("first_taps_share", {"1": 0.5, "4": 0.5, "8": 0.5, "16": 0.5}), "input: first_taps_share must be the sums"),
        (lambda found: found["input"].pop("side_information"), "input: side_information must be there where the model takes it"),
        (lambda found: found["input"]["side_information"].pop("samples"), "input: side_information.samples: Field required"),
        (lambda found: found["input"]["side_information"].update(side_information=None), "input: unknown key 'side_information.side_information'"),
    ],
)  # fmt: skip
def test_malformed_statistics_are_refused_in_one_line(
    model: Path, zoo_cli: Cli, change: Callable[[dict[str, Any]], object], words: str
) -> None:
    edit(model, change)
    with pytest.raises(ZooError) as refused:
        load_model(model)
    assert f"config.json: {words}" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_zoo_check_tells_of_it(model: Path, zoo_cli: Cli) -> None:
    assert zoo_cli("check", model).returncode == 0
    edit(model, _put("samples", 0))
    told = zoo_cli("check", model)
    assert_one_line_error(told, 1, "1 of 1 models are not what their records say")
    assert f"bad  {model}: {model}/config.json: input: samples = 0: " in told.stdout


def test_statistics_of_side_information_that_a_model_does_not_take(tmp_path: Path) -> None:
    path = write(tmp_path / NAME, side_information=False)
    made_for = load_model(path).input_statistics
    assert made_for is not None
    assert made_for.side_information is None
    edit(path, lambda found: found["input"].update(side_information=dict(found["input"])))
    with pytest.raises(ZooError, match="side_information must be there where the model takes it, and nowhere else"):
        load_model(path)
