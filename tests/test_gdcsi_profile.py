"""GD-CSI behind the payload of profile-code: the same bytes, where training starts, the UE's search, one network for all rates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import zoo
from tests.test_profile_code import SHAPE, wandering
from zoo import config, data, metrics
from zoo.checkpoint import check, read_tensors, save_model
from zoo.models.gdcsi import GDCSI, GDCSIConfig
from zoo.models.gdcsi.profile import ProfileBackbone
from zoo.models.profile_code import ProfileCode, ProfileCodeConfig
from zoo.registry import read_config
from zoo.train import train

FIELDS: dict[str, Any] = {
    "angles": SHAPE[0], "delays": SHAPE[1], "backbone": "dense", "encoder": "profile", "target": "x", "side_information": False,
    "align": True, "width": 16, "hidden": 16, "decoder_blocks": 2, "profiles": 4, "shifts": 7, "steps": 1, "decoding_steps": 1,
    "objective": "sampler", "rate": 96, "rates": (64, 96),
}  # fmt: skip


@pytest.fixture(scope="module")
def code() -> ProfileCode:
    return ProfileCode.fit(
        wandering(1500), ProfileCodeConfig(**{name: FIELDS[name] for name in ProfileCodeConfig.model_fields if name != "side_information"})
    )  # fmt: skip


def behind(code: ProfileCode, stray: float = 0.0, **fields: Any) -> GDCSI:
    """A network behind a code; its last layer is random where ``stray`` is not zero."""
    torch.manual_seed(0)
    codec = GDCSI(GDCSIConfig(**{**FIELDS, **fields}))
    codec.prepare(wandering(200, 3))
    codec.start_from(code.state_dict())
    assert isinstance(codec.net, ProfileBackbone)
    torch.nn.init.normal_(codec.net.denoiser.leave.weight, std=stray)
    return codec.eval().requires_grad_(False)


def errors(codec: GDCSI, x: Tensor, payloads: list[bytes]) -> Tensor:
    z = torch.as_tensor(codec.decompress(payloads))
    return (z - x).abs().square().sum((1, 2))


@pytest.mark.parametrize("rate", [64, 96])
def test_an_untrained_network_is_the_classical_code(code: ProfileCode, rate: int) -> None:
    x = wandering(30, 1)
    codec, classical = behind(code).at(rate), code.at(rate)
    payloads = codec.compress(x)
    assert payloads == classical.compress(x)
    assert {len(payload) for payload in payloads} == {rate // 8}
    np.testing.assert_allclose(codec.decompress(payloads), classical.decompress(payloads), rtol=1e-5, atol=1e-6)


def test_each_rate_ships_alone_with_the_denoiser_that_all_share(code: ProfileCode) -> None:
    shared = behind(code, stray=0.02)
    x = wandering(10, 1)
    for rate in (64, 96):
        single = shared.at(rate)
        assert single.config.rates == ()
        twin = GDCSI(shared.config.model_copy(update={"rate": rate}))
        twin.load_state_dict(shared.state_dict())
        assert single.compress(x) == twin.eval().compress(x)
        np.testing.assert_array_equal(single.decompress(single.compress(x)), twin.decompress(twin.compress(x)))


@pytest.mark.parametrize("threads", [1, 2])
def test_a_payload_decodes_alike_for_one_sample_and_many(code: ProfileCode, threads: int) -> None:
    codec, x = behind(code, stray=0.02), wandering(9, 1)
    torch.set_num_threads(threads)
    try:
        payloads = codec.compress(x)
        z = codec.decompress(payloads)
        assert [codec.compress(x[i : i + 1])[0] for i in range(9)] == payloads
        for i in range(9):
            np.testing.assert_allclose(codec.decompress(payloads[i : i + 1])[0], z[i], rtol=1e-4, atol=1e-4)
    finally:
        torch.set_num_threads(1)


def test_effort_changes_payloads_but_never_their_length_and_never_raises_the_error(code: ProfileCode) -> None:
    codec, x = behind(code, stray=0.05).at(96), wandering(40, 1)
    found = [codec.compress(x, effort=effort) for effort in range(3)]
    assert {len(payload) for payloads in found for payload in payloads} == {12}
    none, some, more = (errors(codec, x, payloads) for payloads in found)
    assert found[0] != found[1]
    assert (some <= none * (1 + 1e-5)).all()
    assert (more <= some * (1 + 1e-5)).all()
    assert some.sum() < none.sum()


def test_zero_energy_gives_a_payload_that_decodes_to_something_finite(code: ProfileCode) -> None:
    codec = behind(code, stray=0.02)
    x = wandering(3, 1)
    x[1] = 0
    for effort in range(2):
        assert np.isfinite(codec.decompress(codec.compress(x, effort=effort))).all()


@pytest.mark.parametrize("factor", [1.0, 300.0, 1e4])
def test_what_a_search_decides_is_what_is_decoded(code: ProfileCode, factor: float) -> None:
    codec, x = behind(code, stray=0.2).at(64), wandering(40, 1) * factor
    plain, found = (errors(codec, x, codec.compress(x, effort=effort)) for effort in (0, 2))
    assert (found <= plain * (1 + 1e-5)).all()


def test_the_scale_of_the_code_is_stored_as_it_is(code: ProfileCode, tmp_path: Path) -> None:
    path = tmp_path / "gd-csi-wandering-64b"
    single, x = behind(code).at(64), wandering(20, 1)
    save_model(path, single, {"name": path.name, "architecture": "gd-csi"}, {"x": x[:2]}, "float16")
    stored = read_tensors(path / "model.safetensors")
    assert torch.equal(stored["net.code.scale"], single.state_dict()["net.code.scale"])
    assert stored["net.code.centroid"].dtype == torch.float16


def test_one_sample_without_energy_is_left_out_of_the_fit() -> None:
    x = wandering(600)
    config = ProfileCodeConfig(angles=SHAPE[0], delays=SHAPE[1], rate=64, profiles=4, shifts=7)
    empty = torch.zeros(1, *SHAPE, dtype=torch.complex64)
    assert torch.equal(ProfileCode.fit(torch.cat((empty, x)), config).levels, ProfileCode.fit(x, config).levels)


def test_what_is_observed_is_what_would_be_sent_and_turns_with_the_sample(code: ProfileCode) -> None:
    codec = behind(code, stray=0.02)
    x = wandering(8, 1)
    image = codec.to_image(x)
    seen = codec.observe(x, 5)
    assert seen["number"].tolist() == [1, 0] * 4  # each rate in turn, by the samples' numbers
    for quarter in range(4):
        phase = codec.net.allowed(torch.full((8,), (quarter + 0.7) * torch.pi / 2))
        context, _, number = codec.net.quantise(image, None, {**seen, "phase": phase})
        assert number.tolist() == seen["number"].tolist()
        turn = torch.exp(1j * phase[0])
        for place, rate in enumerate((64, 96)):
            rows = number == place
            single = code.at(rate)
            classical = torch.as_tensor(single.decompress(list(single.compress(x[rows]))))
            first = single.picture(single.decide(x[rows], attempts=1))
            expected = torch.complex(first.image[:, 0], first.image[:, 1]) * single.scale * turn
            estimate = codec.from_image(context.estimate[rows])
            torch.testing.assert_close(estimate, expected, rtol=1e-4, atol=1e-4)
            assert (estimate / turn - x[rows]).norm() < 1.3 * (classical - x[rows]).norm()


def test_the_door_that_all_families_share(tmp_path: Path) -> None:
    recipe = {"scenario": "cost2100", "antennas": 8, "crop_taps": 16, "val": 64, "test": 64}
    changes = {
        **{f"codec.{name}": FIELDS[name] for name in ("width", "hidden", "decoder_blocks", "profiles", "shifts", "rate", "rates")},
        "training.samples": 512, "training.batch": 32, "training.steps": 60, "training.warmup_steps": 0,
        "training.validation_samples": 64, "first.samples": 512,
    }  # fmt: skip
    source = data.Kept(recipe, "cpu", 512, seed=0)
    paths = train(config.load("gd-csi-profile", changes), source, tmp_path / "run", progress=False)
    assert [path.name for path in paths] == ["gd-csi-cost2100-64b", "gd-csi-cost2100-96b"]
    assert [path.name for path in sorted((tmp_path / "run/first/models").glob("p*b"))] == [
        "profile-code-cost2100-64b",
        "profile-code-cost2100-96b",
    ]
    x = next(data.Simulated(recipe, "cpu")._sample(range(400, 500), "train", 100)).x.numpy()
    for path in paths:
        codec = zoo.load(path)
        classical = zoo.load(tmp_path / "run/first/models" / path.name.replace("gd-csi", "profile-code"))
        assert check(path, codec) < 1e-3
        assert codec.compress(x, effort=0) == classical.compress(x)
        before, after = (metrics.nmse_db(x, c.decompress(c.compress(x))) for c in (classical, codec))
        assert after < before
        assert read_config(path)["dataset"]["train_samples"] == 512


def test_a_resumed_run_does_not_fit_its_first_stage_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = {"scenario": "cost2100", "antennas": 8, "crop_taps": 16, "val": 64, "test": 64}
    changes = {
        **{f"codec.{name}": FIELDS[name] for name in ("width", "hidden", "decoder_blocks", "profiles", "shifts", "rate", "rates")},
        "training.samples": 64, "training.batch": 32, "training.steps": 4, "training.validation_samples": 8, "first.samples": 64,
    }  # fmt: skip
    source = data.Kept(recipe, "cpu", 64, seed=0)
    chosen = config.load("gd-csi-profile", changes)
    first = train(chosen, source, tmp_path / "run", progress=False)
    digests = [read_config(path)["weights_sha256"] for path in first]
    monkeypatch.delattr(ProfileCode, "fit")
    again = train(chosen, source, tmp_path / "run", progress=False, resume=True)
    assert [read_config(path)["weights_sha256"] for path in again] == digests
