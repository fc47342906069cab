"""The linear reference over the link, against theory and against what it measures."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import zoo
from zoo import config, data
from zoo.checkpoint import check, save_model
from zoo.errors import ZooError
from zoo.models.klt_jscc import KLTJSCC, KLTJSCCConfig, principal_directions
from zoo.uplink import Rayleigh, transmit

STRENGTHS = torch.tensor([4.0, 2.0, 1.0, 0.5, 0.25, 0.125])  # amplitudes of components, each in a cell of its own


def source(n: int, seed: int = 0) -> Tensor:
    x = torch.zeros(n, 4, 4, dtype=torch.complex64)
    draws = torch.randn(n, 6, dtype=torch.complex64, generator=torch.Generator().manual_seed(seed))
    x.view(n, -1)[:, 3:9] = draws * STRENGTHS
    return x


@pytest.fixture(scope="module")
def code() -> KLTJSCC:
    return KLTJSCC.fit(source(20_000), KLTJSCCConfig(angles=4, delays=4, symbols=(2, 4), snr_db=(-10.0, 20.0)))


def over_link(code: KLTJSCC, x: Tensor, snr_db: float, k: int) -> float:
    generator = torch.Generator().manual_seed(1)
    sent = code.encode(x, snr_db, k)
    received = transmit(sent, snr_db, channel=Rayleigh(flat=False), generator=generator).symbols
    return zoo.nmse(x.numpy(), code.decode(received, snr_db).numpy())


def test_components_are_the_strongest_in_order() -> None:
    energies, directions = principal_directions(source(20_000), 4)
    assert directions.abs().argmax(1).tolist() == [3, 4, 5, 6]
    assert directions.abs().square().sum(1).tolist() == pytest.approx([1] * 4, abs=1e-5)
    assert energies.tolist() == sorted(energies.tolist(), reverse=True)
    assert float(principal_directions(source(20_000), 16)[0].sum()) == pytest.approx(1, abs=1e-4)


def test_strong_links_leave_what_is_not_sent(code: KLTJSCC) -> None:
    """At 20 dB the error is that of the components left out, and of the strength that unit power takes from a sample."""
    x = source(5000, 1)
    energy = x.abs().square().flatten(1)
    unsent = [float((energy[:, 3 + k :].sum(1) / energy.sum(1)).mean()) for k in (2, 4)]
    error = [over_link(code, x, 20, k) for k in (2, 4)]
    assert unsent[0] < error[0]
    assert unsent[1] < error[1] < error[0]


def test_better_links_and_more_symbols_mean_smaller_errors(code: KLTJSCC) -> None:
    x = source(5000, 2)
    errors = [[over_link(code, x, snr_db, k) for snr_db in (-10, 0, 10)] for k in (2, 4)]
    for worse, better in [
        *zip(errors[0], errors[1], strict=True),
        *(pair for row in errors for pair in itertools.pairwise(row)),
    ]:
        assert better < worse


def test_its_weights_are_the_linear_estimates_of_least_error(code: KLTJSCC) -> None:
    x = source(5000, 3)
    best = over_link(code, x, 0, 4)
    for factor in (0.9, 1.1):
        changed = KLTJSCC(code.config)
        changed.load_state_dict(code.state_dict())
        changed.receiving.mul_(factor)
        assert over_link(changed, x, 0, 4) > best


def test_weak_links_send_the_strong_components_strongest(code: KLTJSCC) -> None:
    spread = code.loading[:, 3] / code.loading[:, 0]  # how much more the fourth is turned up than the first
    assert spread[-1] > spread[0]
    assert (
        float(spread[-1]) >= math.sqrt(4 / 0.5) - 0.1
    )  # at least the loading of a Gaussian source at high SNR, p = 1/4


def test_levels_are_interpolated_and_their_ends_hold(code: KLTJSCC) -> None:
    x = source(3, 4)
    low, high, between = (code.latent(code.to_image(x), torch.full((3,), snr)) for snr in (4.0, 5.0, 4.25))
    assert torch.allclose(between, 0.75 * low + 0.25 * high, rtol=1e-5)
    assert torch.equal(torch.as_tensor(code.encode(x, 60)), torch.as_tensor(code.encode(x, 20)))
    sent = code.encode(x, 5)
    assert torch.equal(code.decode(sent, -40), code.decode(sent, -10))
    single = KLTJSCC.fit(source(2000), KLTJSCCConfig(angles=4, delays=4, symbols=(2,), snr_db=(5.0, 5.0)))
    assert torch.equal(single.encode(x, 5), single.encode(x, 0))


def test_rates_are_prefixes(code: KLTJSCC) -> None:
    x = source(3, 5)
    ratio = code.encode(x, 5, 2) / code.encode(x, 5, 4)[:, :2]
    assert torch.allclose(ratio, ratio[:, :1].expand_as(ratio), atol=1e-5)
    with pytest.raises(ZooError, match="this model has k of 2, 4"):
        code.encode(x, 5, 3)


def test_it_is_saved_loaded_and_checked(code: KLTJSCC, tmp_path: Path) -> None:
    path = tmp_path / "klt-jscc-cdl-k4"
    for dtype in ("float32", "float16"):
        save_model(path, code, {"name": path.name, "architecture": "klt-jscc"}, {"x": source(4)}, dtype)
        loaded = zoo.load(path)
        assert check(path, loaded) < 1e-5
    x = source(4).numpy()
    assert np.allclose(loaded.decode(loaded.encode(x, 5), 5), code.decode(code.encode(x, 5), 5), atol=0.02)


def test_training_is_fitting(tmp_path: Path, small_store: data.Store) -> None:
    from zoo.train import train

    cached = data.Cached(data.Store(small_store.path), "cpu", None, 0)
    [path] = train(config.load("klt-jscc", {"codec.symbols": (4, 8)}), cached, tmp_path / "run", progress=False)
    assert path.name == "klt-jscc-cdl-k8"
    assert zoo.load(path).config.symbols == (4, 8)
    with pytest.raises(ZooError, match="codec: unknown key 'rate'"):
        train(config.load("klt-jscc", {"codec.rate": 3}), cached, tmp_path / "other", progress=False)
