"""The feedback link: power, SNR behind the combiner, channels, capacity, and what separate coding reaches over it."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.autograd import grad

import datagen
from datagen import Store
from tests.conftest import Cli, assert_one_line_error
from tests.zoo_fixtures import samples
from zoo import data, limits, plot, uplink
from zoo.covariances import Covariances
from zoo.errors import ZooError
from zoo.uplink import AWGN, Channel, Rayleigh, Rician, Stored, capacity_bits, transmit, unit_power

EXCEEDED_ONCE_IN_A_THOUSAND = 1e-3  # p-value of the Kolmogorov-Smirnov tests


@pytest.fixture(scope="module")
def inh_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 feedback channels of 16 subcarriers in train, 40 in val."""
    path = tmp_path_factory.mktemp("store") / "inh.zarr"
    datagen.generate(datagen.InHRecipe(uplink=True, train=300, val=40, test=0, seed=3), path, shard_samples=256)
    return path


@pytest.fixture(scope="module")
def stored(inh_store: Path) -> Stored:
    return Stored(inh_store)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def symbols(n: int, k: int, seed: int = 9) -> Tensor:
    return unit_power(torch.randn(n, k, dtype=torch.complex64, generator=seeded(seed)))


CHANNELS: list[Channel] = [AWGN(), Rayleigh(), Rayleigh(flat=False), Rician(), Rician(flat=False)]


# symbols and channels --------------------------------------------------------------------------------------------------------


def test_unit_power_of_every_sample() -> None:
    s = unit_power(torch.tensor([[3, 4j], [1e-6, 0], [0, 0]], dtype=torch.complex64))
    assert s[0].tolist() == pytest.approx([3 * math.sqrt(2) / 5, 4j * math.sqrt(2) / 5])
    assert s.abs().square().mean(1).tolist() == pytest.approx([1, 1, 0])
    s = torch.zeros(1, 3, dtype=torch.complex64, requires_grad=True)
    (gradient,) = grad(unit_power(s).abs().sum(), s)  # a network that starts at zero does not end in NaN
    assert bool(torch.isfinite(torch.view_as_real(gradient)).all())


@pytest.mark.parametrize("channel", CHANNELS, ids=str)
def test_channels_have_unit_power_and_are_flat_where_they_say_so(channel: Channel) -> None:
    h = channel.sample(4000, 4, seeded())
    assert (h.shape, h.dtype) == ((4000, 32, 4), torch.complex64)
    assert h.abs().square().mean((0, 1)).tolist() == pytest.approx([1] * 4, rel=0.02)
    assert bool((h == h[..., :1]).all()) == (getattr(channel, "flat", True) is True)
    assert torch.equal(h, channel.sample(4000, 4, seeded()))
    if not isinstance(channel, AWGN):
        assert not torch.equal(h, channel.sample(4000, 4, seeded(1)))
        assert h.mean(0).abs().max() < 0.1  # no phase is preferred


def test_rician_lies_between_a_wave_and_rayleigh() -> None:
    wave = Rician(math.inf).sample(1000, 2, seeded())
    assert torch.allclose(wave.abs(), torch.ones(()), atol=1e-6)
    turns = wave[:, 1:, 0] / wave[:, :-1, 0]  # of one antenna to the next
    assert torch.allclose(turns, turns[:, :1], atol=1e-4)
    k = 10 ** (0.7)
    gain = Rician(7.0).sample(20_000, 1, seeded()).abs().square().sum(1)[:, 0].numpy()
    # 2 (K + 1) ||h||^2 is a noncentral chi-square of 64 degrees of freedom, noncentrality 2 * 32 K.
    found = stats.kstest(2 * (k + 1) * gain, stats.ncx2(64, 64 * k).cdf)
    assert found.pvalue > EXCEEDED_ONCE_IN_A_THOUSAND
    with pytest.raises(ZooError, match="k_factor_db is not a number"):
        Rician(math.nan)


def test_stored_channels_are_rows_of_the_store(inh_store: Path, stored: Stored) -> None:
    h = stored.sample(500, 16, seeded())
    assert (h.shape, h.dtype) == ((500, 32, 16), torch.complex64)
    assert torch.equal(h, stored.sample(500, 16, seeded()))
    assert torch.equal(h[..., :5], stored.sample(500, 5, seeded()))  # the first subcarriers
    truth = torch.from_numpy(datagen.open_store(inh_store)["train"].H[:])
    rows, known = (torch.view_as_real(array).flatten(1) for array in (h[:50], truth))
    distances = torch.cdist(rows, known, compute_mode="donot_use_mm_for_euclid_dist")
    assert float(distances.amin(1).max()) < 1e-3  # out of a norm of 23
    assert len(set(distances.argmin(1).tolist())) > 35
    assert h.abs().square().mean((1, 2)).numpy() == pytest.approx(1, rel=1e-5)
    first = Stored(inh_store, "val", 1).sample(3, 16, seeded())
    assert torch.equal(first[0], first[2])
    assert isinstance(uplink.named(inh_store), Stored)
    assert uplink.named("awgn") == AWGN()


def test_stores_that_give_no_channels(inh_store: Path, small_store: Store, stored: Stored, tmp_path: Path) -> None:
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: Stored(tmp_path / "absent"), "is not a CSI store"),
        (lambda: Stored(inh_store, "test"), "has no split 'test'; it has train, val"),
        (lambda: Stored(inh_store, "val", 41), "has 40 channels in val; 41 are asked for"),
        (lambda: Stored(small_store.path), "has no H in train; it has X, Y, Z"),
        (lambda: stored.sample(2, 17, seeded()), "has channels of 16 subcarriers; 17 are asked for"),
        (lambda: uplink.named("raleigh"), "did you mean 'rayleigh'?; or give the path"),
        (lambda: data.Store(inh_store), "holds no CSI (X) but feedback channels (H)"),
    ]
    for make, words in cases:
        with pytest.raises(ZooError, match=re.escape(words)) as caught:
            make()
        assert "\n" not in str(caught.value)


# the link --------------------------------------------------------------------------------------------------------------------


def test_combined_snr_of_rayleigh_follows_a_gamma_law() -> None:
    received = transmit(symbols(20_000, 2), -3.0, channel=Rayleigh(), generator=seeded())
    ratio = (10 ** ((received.combined_snr_db[:, 0] + 3) / 10)).double().numpy()  # to the SNR of one antenna
    assert ratio.mean() == pytest.approx(32, rel=0.01)
    assert stats.kstest(ratio, stats.gamma(32).cdf).pvalue > EXCEEDED_ONCE_IN_A_THOUSAND


def test_the_noise_is_what_the_combiner_leaves() -> None:
    """Against every antenna's own noise, combined by h^H / ||h||."""
    s, channel, snr_db = symbols(20_000, 3), Rayleigh(flat=False), 4.0
    received = transmit(s, snr_db, channel=channel, generator=seeded())
    error = (received.symbols - s) * received.gain  # n'
    h = channel.sample(len(s), 3, seeded())
    noise = torch.randn(h.shape, dtype=h.dtype, generator=seeded(5)) * 10 ** (-snr_db / 20)
    combined = (h.conj() * (h * s[:, None] + noise)).sum(1) / received.gain  # ||h|| s + n'
    by_hand = combined - received.gain * s
    assert torch.allclose(received.gain, torch.linalg.vector_norm(h, dim=1))
    for one, other in ((error.real, by_hand.real), (error.imag, by_hand.imag)):
        assert stats.ks_2samp(one.flatten(), other.flatten()).pvalue > EXCEEDED_ONCE_IN_A_THOUSAND
    covariance = error.T @ error.conj() / len(error)
    assert torch.allclose(covariance, 10 ** (-snr_db / 10) * torch.eye(3, dtype=covariance.dtype), atol=0.02)
    relative = (received.symbols - s).abs().square() * 10 ** (received.combined_snr_db / 10)
    assert float(relative.mean()) == pytest.approx(1, rel=0.02)


@pytest.mark.parametrize("channel", CHANNELS, ids=str)
def test_without_noise_the_symbols_arrive(channel: Channel) -> None:
    s = symbols(5, 4)
    received = transmit(s, math.inf, channel=channel, generator=seeded())
    assert torch.equal(received.symbols, s)
    assert bool((received.combined_snr_db == math.inf).all())
    near = transmit(s, 120.0, channel=channel, generator=seeded())
    assert torch.allclose(near.symbols, s, atol=1e-5)


def test_each_sample_may_have_its_snr() -> None:
    s, snr = symbols(3, 200).to(torch.complex128), torch.tensor([-10.0, 10.0, math.inf])
    received = transmit(s, snr, channel=AWGN(), generator=seeded())
    errors = (received.symbols - s).abs().square().mean(1)
    assert errors.tolist() == pytest.approx([10 / 32, 0.1 / 32, 0], rel=0.3)
    assert received.symbols.dtype == torch.complex128
    assert received.combined_snr_db[:, 0].tolist() == pytest.approx([5.05, 25.05, math.inf], abs=0.01)
    alone = transmit(s, -10.0, channel=AWGN(), generator=seeded())
    assert torch.equal(alone.symbols[0], received.symbols[0])


def test_deterministic_given_the_generator(stored: Stored) -> None:
    s = symbols(6, 16)
    for channel in (*CHANNELS, stored):
        first, again, other = (transmit(s, 0.0, channel=channel, generator=seeded(i)) for i in (0, 0, 1))
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
        assert not torch.equal(first.symbols, other.symbols)
        louder = transmit(s, 20.0, channel=channel, generator=seeded())
        assert torch.equal(louder.gain, first.gain)  # the same channels and, smaller, the same noise
        assert torch.allclose(10 * (louder.symbols - s), first.symbols - s, atol=1e-5)


def test_gradients_flow_to_the_encoder() -> None:
    weights = torch.randn(4, 8, 2, generator=seeded(), requires_grad=True)
    s = unit_power(torch.view_as_complex(weights))
    received = transmit(s, 5.0, channel=Rayleigh(), generator=seeded()).symbols
    (gradient,) = grad((received - symbols(4, 8)).abs().square().sum(), weights, retain_graph=True)
    assert bool((gradient.abs().sum((1, 2)) > 0).all())
    ways = symbols(4, 8, 1), symbols(4, 8, 2)
    (straight,) = grad((received * ways[0] + received.conj() * ways[1]).real.sum(), s)  # the link adds noise, no more
    assert torch.allclose(straight, (ways[0].conj() + ways[1]), atol=1e-6)


def test_what_the_link_does_not_take() -> None:
    s = symbols(4, 3)
    cases: list[tuple[Tensor, float | Tensor, str]] = [
        (s.real, 0.0, "the symbols are float32 [4, 3]; the link takes complex [n, k]"),
        (s[0], 0.0, "the symbols are complex64 [3]; the link takes complex [n, k]"),
        (s, math.nan, "snr_db is not a number"),
        (s, torch.zeros(3), "snr_db has the shape [3]; give a number, or one for each of the 4 samples"),
        (s.to("meta"), 0.0, "the generator is on cpu, the symbols are on meta"),
    ]
    for bad, snr, words in cases:
        with pytest.raises(ZooError, match=re.escape(words)):
            transmit(bad, snr, channel=AWGN(), generator=seeded())


# capacity --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channel", [*CHANNELS, "stored"], ids=str)
def test_capacity_of_16_uses(channel: Channel | str, stored: Stored) -> None:
    """SCIENCE section 4, whatever the channel: 32 antennas harden it."""
    h = (stored if isinstance(channel, str) else channel).sample(3000, 16, seeded())
    assert [capacity_bits(h, snr).mean() for snr in (-10, 5, 10)] == pytest.approx([33, 107, 133], abs=3)


def test_capacity_by_hand() -> None:
    bits = capacity_bits(AWGN(1).sample(2, 3, seeded()), 0.0)
    assert bits == pytest.approx([3, 3])
    assert capacity_bits(AWGN(32).sample(1, 16, seeded()), 5.0) == pytest.approx(16 * math.log2(1 + 32 * 10**0.5))
    flat, free = (capacity_bits(Rayleigh(flat=flat).sample(5000, 16, seeded()), 0.0) for flat in (True, False))
    assert np.quantile(flat, 0.01) < np.quantile(free, 0.01) < free.mean()  # diversity
    assert flat.mean() == pytest.approx(free.mean(), rel=0.01)


# separation ------------------------------------------------------------------------------------------------------------------


def white(bits: np.ndarray) -> np.ndarray:
    """Of two complex components of equal variance: each bit for one of them halves its error."""
    return np.asarray(2 ** (-bits / 2))


def test_separation_by_hand() -> None:
    assert limits.gaussian_distortion(np.ones(2), np.array([0.0, 4.0])) / 2 == pytest.approx(
        white(np.array([0.0, 4.0]))
    )
    same = limits.separation(white, np.full(7, 4.0))  # no fading: the three are one
    assert same == pytest.approx({"ergodic": 0.25, "instantaneous": 0.25, "fixed rate": 0.25})
    two = limits.separation(white, np.array([8.0, 0.0]))
    assert two["ergodic"] == pytest.approx(2**-2)
    assert two["instantaneous"] == pytest.approx((1 + 2**-4) / 2)
    assert two["fixed rate"] == pytest.approx(0.5 + 0.5 * 2**-4)  # 8 bits, which half of the channels lose
    # AWGN of one antenna at 0 dB carries a bit a use, so k = 2 uses halve the energy of two white components.
    bits = capacity_bits(AWGN(1).sample(3, 2, seeded()), 0.0)
    assert limits.separation(white, bits)["ergodic"] == pytest.approx(0.5)


def test_separation_is_ordered_and_falls_with_snr() -> None:
    h = Rayleigh(antennas=2).sample(500, 4, seeded())
    found = [list(limits.separation(white, capacity_bits(h, snr)).values()) for snr in (-10, -5, 0, 5, 10)]
    assert all(kinds == sorted(kinds) for kinds in found)  # ergodic, instantaneous, fixed rate
    assert all(column == sorted(column, reverse=True) for column in map(list, zip(*found, strict=True)))
    assert found[0][2] < 1  # never worse than nothing


def test_klt_codes_are_measured() -> None:
    x = samples(600, shape=(4, 4)).numpy()
    covariances = Covariances.of([(x[:400], None, x[:400])])
    errors = limits.klt_distortion(covariances, x[400:], [0, 8, 16, 32])
    assert errors[0] == 1
    assert errors == sorted(errors, reverse=True)
    variances = np.linalg.eigvalsh(covariances.x)
    for bits, error in zip(
        (8, 16, 32), errors[1:], strict=True
    ):  # real codes of a Gaussian source; its samples' energies vary
        assert error > 0.95 * limits.gaussian_distortion(variances, bits) / variances.sum()


def code_result(bits: int, nmse_db: float, digest: str, **changed: Any) -> dict[str, Any]:
    data = {"name": "mine-v1", "recipe_digest": digest}
    levels = [{"snr_db": None, "nmse_db": nmse_db}]
    return {
        "model": f"klt-mine-{bits}b",
        "bits": bits,
        "decoder_has_y": False,
        "side_information": levels,
        "data": data,
        **changed,
    }


def test_measured_codes_take_turns_between_their_rates(small_store: Store) -> None:
    store = data.Store(small_store.path)
    store.dataset = dataclasses.replace(store.dataset, side_information=False)
    digest = store.dataset.recipe_digest
    codes = [code_result(bits, nmse_db, digest) for bits, nmse_db in ((8, -6.0), (4, -3.0))]
    found = limits.over_link(store, AWGN(1), 4, [0.0, 60.0], codes=codes, channels=3)  # 4 bits, and more than all rates
    rows = {row["name"]: row["nmse_db"] for row in found["rows"]}
    assert rows["klt, ergodic"] == pytest.approx([-3.0, -6.0])
    half = limits.over_link(store, AWGN(1), 2, [0.0], codes=codes, channels=3)  # 2 bits: every other time
    assert half["rows"][-3]["nmse_db"] == pytest.approx([10 * math.log10((1 + 10**-0.3) / 2)])
    for wrong, words in (
        (code_result(8, -6.0, "another"), "results of klt-mine-8b are of mine-v1, not of"),
        (
            code_result(8, -6.0, digest, domain="spatial-frequency"),
            "are of the spatial-frequency domain; limits are of",
        ),
        (code_result(8, -6.0, digest, decoder_has_y=True), "klt-mine-8b is no codec of X by the payload alone"),
    ):
        with pytest.raises(ZooError, match=words):
            limits.over_link(store, AWGN(1), 4, [0.0], codes=[wrong])


def test_command(small_store: Store, inh_store: Path, zoo_cli: Cli, tmp_path: Path) -> None:
    options = ("--link", "k=4", "--snr", "-10:10:10", "--channel", inh_store, "--out", "l.json", "--quiet")
    told = zoo_cli("limits", small_store.path, *options)
    assert told.returncode == 0, told.stderr
    found = plot.read_limits(tmp_path / "l.json")
    assert [row["name"] for row in found["rows"]] == [
        f"{code}, {kind}"
        for code in ("Gaussian bound", "KLT code")
        for kind in ("ergodic", "instantaneous", "fixed rate")
    ]
    for row in found["rows"]:
        assert row["snr_db"] == [-10, 0, 10]
        assert row["nmse_db"] == sorted(row["nmse_db"], reverse=True)
        assert row["bits"] == pytest.approx([4 * math.log2(1 + 32 * 10 ** (snr / 10)) for snr in (-10, 0, 10)], abs=0.3)
    ergodic, _, fixed, klt, *_ = (row["nmse_db"] for row in found["rows"])
    assert all(a <= b and a < c for a, b, c in zip(ergodic, fixed, klt, strict=True))
    assert [row["name"] for row in found["capacity"]] == ["ergodic", "1 % outage", "10 % outage"]
    assert (found["link"]["k"], found["link"]["channel"]) == (4, str(inh_store))
    lines = told.stdout.splitlines()
    assert lines[0].split() == ["NMSE", "in", "dB", "at", "SNR", "in", "dB", "-10", "0", "10"]
    assert lines[1].endswith(f"{ergodic[2]:.2f}")
    assert lines[-1].startswith("capacity, 10 % outage")
    printed = zoo_cli("limits", small_store.path, *options, "--json")
    assert json.loads(printed.stdout) == found


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--snr", "5"), "--snr goes with --link"),
        (("--channel", "awgn"), "--channel goes with --link"),
        (("--code", "klt-cdl-128b"), "--code goes with --link"),
        (("--link", "k=4", "--code", "klt-cdl-128b"), "klt-cdl-128b is no codec of X by the payload alone"),
        (("--link", "k=4", "--code", "klt-jscc-cdl-k32"), "klt-jscc-cdl-k32 sends symbols, not bits"),
        (("--link", "k=4", "--bits", "64"), "--bits goes without --link"),
        (("--link", "16"), "'16' is no number of symbols; give k=16, say"),
        (("--link", "k=0"), "'k=0' is no number of symbols"),
        (("--link", "k=4", "--snr", "10:-10:5"), "neither a number nor START:STOP:STEP"),
        (("--link", "k=4", "--snr", "1e9"), "'1e9' is neither a number nor START:STOP:STEP"),
        (("--link", "k=4", "--snr", "loud"), "neither a number nor START:STOP:STEP"),
        (("--link", "k=4", "--channel", "raleigh"), "did you mean 'rayleigh'?"),
        (("--link", "k=17", "--channel", "INH"), "channels of 16 subcarriers; 17 are asked for"),
    ],
)
def test_command_refuses(
    options: tuple[str, ...], words: str, small_store: Store, inh_store: Path, zoo_cli: Cli
) -> None:
    given = [str(inh_store) if option == "INH" else option for option in options]
    assert_one_line_error(zoo_cli("limits", small_store.path, *given), 2, words)


# imperfect CSI at the UE -----------------------------------------------------------------------------------------------------


def test_channel_estimates_have_the_stated_cnr() -> None:
    x = samples(400)
    white = torch.randn(x.shape, dtype=torch.complex64, generator=seeded())
    for subcarriers, part in ((None, 1.0), (32, 1.0), (256, 1 / 8)):  # the noise of the delays that the crop keeps
        estimate = data.channel_estimate(x, 10.0, white, subcarriers)
        ratio = float((estimate - x).abs().square().sum() / x.abs().square().sum())
        assert ratio == pytest.approx(0.1 * part, rel=0.05)
    # A white error on [antenna, subcarrier] of that CNR, transformed and cropped, is no other.
    response = np.fft.fft2(x.numpy(), (32, 256))
    noise = torch.randn(response.shape, dtype=torch.complex64, generator=seeded()).numpy()
    noise *= np.sqrt(np.square(np.abs(response)).mean() / 10)
    cropped = np.fft.ifft2(noise)[:, :, :32]
    assert np.square(np.abs(cropped)).sum() / x.abs().square().sum() == pytest.approx(0.1 / 8, rel=0.02)
