"""The profile code: real payloads, the same integers on both sides, and gain from what it knows of a sample."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import datagen
import zoo
from zoo import config, data, metrics
from zoo.checkpoint import check
from zoo.covariances import Covariances
from zoo.errors import ZooError
from zoo.models import profile_code
from zoo.models.klt import KLT
from zoo.models.profile_code import ProfileCode, ProfileCodeConfig, Sent
from zoo.train import train

SHAPE = (8, 16)


def wandering(n: int, seed: int = 0) -> Tensor:
    """Samples with one strong delay each, which wanders, and a weaker one behind it; powers over 30 dB."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(n, *SHAPE, dtype=torch.complex64, generator=generator)
    delay = torch.randint(0, SHAPE[1], (n,), generator=generator)
    power = torch.full((n, SHAPE[1]), 1e-4)
    power[torch.arange(n), delay] = 1
    power[torch.arange(n), (delay + 1) % SHAPE[1]] = 0.1
    gain = 10 ** (1.5 * torch.rand(n, generator=generator))
    return noise * power.sqrt()[:, None] * gain[:, None, None]


@pytest.fixture(scope="module")
def code() -> ProfileCode:
    config = ProfileCodeConfig(angles=SHAPE[0], delays=SHAPE[1], rate=96, rates=(64, 96), profiles=4, shifts=7)
    return ProfileCode.fit(wandering(1500), config)


def test_payloads_have_the_rate_and_say_what_was_decided(code: ProfileCode) -> None:
    x = wandering(40, 1)
    for single in code.singles():
        payloads = single.compress(x)
        assert {len(payload) for payload in payloads} == {single.config.rate // 8}
        sent = single.decide(x)
        ratio = profile_code._ratio(single._levels(sent.profile, sent.shift), sent.step)
        values = single._values(sent.cells, ratio)
        image = values * single._width(sent.energy, sent.step)[:, None, None, None]
        expected = torch.complex(image[:, 0], image[:, 1]) * single.scale
        torch.testing.assert_close(torch.from_numpy(single.decompress(payloads)), expected)
        assert (sent.cells != 0).any((1, 2, 3)).all()


def test_beats_a_fixed_transform_where_the_support_wanders(code: ProfileCode) -> None:
    train, test = wandering(3000).numpy(), wandering(300, 1).numpy()
    klt = KLT.fit(96, Covariances.of([(train, None, train)]))
    errors = {
        name: metrics.nmse_db(test, c.decompress(c.compress(test)))
        for name, c in (("klt", klt), ("profile", code.at(96)))
    }
    assert errors["profile"] < errors["klt"] - 3


def test_more_bits_less_error(code: ProfileCode) -> None:
    x = wandering(300, 1).numpy()
    low, high = (metrics.nmse_db(x, single.decompress(single.compress(x))) for single in code.singles())
    assert high < low - 1


def test_cells_far_above_the_others_are_not_cut(code: ProfileCode) -> None:
    x = 1e-3 * wandering(20, 1)
    x[:, 3, 5] = 100.0
    single = code.at(96)
    z = single.decompress(single.compress(x))
    assert int(single.decide(x).cells.abs().max()) > profile_code.LARGEST
    assert metrics.nmse_db(x.numpy(), z) < -25


def test_any_payload_is_decoded(code: ProfileCode) -> None:
    random = np.random.default_rng(0)
    payloads = [random.bytes(12) for _ in range(50)]
    assert np.isfinite(code.at(96).decompress(payloads)).all()


def test_nothing_to_say_fits_any_payload(code: ProfileCode) -> None:
    x = torch.zeros(2, *SHAPE, dtype=torch.complex64)
    x[1] = 1e-20
    z = code.at(64).decompress(code.at(64).compress(x))
    assert np.abs(z).max() < 1e-3


def test_a_code_that_is_too_long_by_a_hair_takes_a_coarser_step(
    code: ProfileCode, monkeypatch: pytest.MonkeyPatch
) -> None:
    single, tried = code.at(64), list[Tensor]()
    encode = ProfileCode._encode

    def first_never_fits(self: ProfileCode, sent: Sent, tables: Any) -> Any:
        bits, fits = encode(self, sent, tables)
        tried.append(sent.step.clone())
        return bits, fits & (len(tried) > 1)

    monkeypatch.setattr(ProfileCode, "_encode", first_never_fits)
    single.compress(wandering(5))
    assert (tried[1] < tried[0]).all()


def test_rates_are_codes_of_their_own(code: ProfileCode) -> None:
    assert [single.config.rate for single in code.singles()] == [64, 96]
    assert code.at(64).config.rates == ()
    with pytest.raises(ZooError, match="rate 128 is not one of 64, 96"):
        code.at(128)


def test_profiles_need_samples() -> None:
    with pytest.raises(ZooError, match="4 profiles take at least 16 samples; there are 10"):
        ProfileCode.fit(wandering(10), ProfileCodeConfig(angles=8, delays=16, profiles=4, shifts=7))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"side_information": True}, "by the payload alone"),
        ({"rate": 32}, "64"),
        ({"rates": (64, 96)}, "must hold rate 128"),
        ({"shifts": 16}, "under half of the 32 delays"),
    ],
)
def test_refuses(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ProfileCodeConfig(**fields)


def test_is_fitted_and_shipped_like_any_family(tmp_path: Path) -> None:
    small = {"codec.profiles": 8, "codec.rates": [64, 96], "codec.rate": 96, "training.samples": 64}
    recipe = config.load("profile-code", small)
    outdoor = datagen.COST2100Recipe(train=64, val=4, test=8)
    paths = train(recipe, data.Simulated(outdoor.model_dump(mode="json"), "cpu"), tmp_path / "run", progress=False)
    assert [path.name for path in paths] == ["profile-code-cost2100-64b", "profile-code-cost2100-96b"]
    x = next(iter(datagen.sample(outdoor, range(8), "test")))["X"]
    for path in paths:
        codec = zoo.load(path)
        assert check(path, codec) == 0
        assert metrics.nmse_db(x.numpy(), codec.decompress(codec.compress(x))) < -0.5
    cdl = config.load("profile-code", {**small, "codec.side_information": False})
    with pytest.raises(ZooError, match="profile-code estimates X; the target of cdl-c-fdd-v1 is Z"):
        train(cdl, data.Simulated(None, "cpu"), tmp_path / "other", progress=False)
    assert not (tmp_path / "other").exists()
