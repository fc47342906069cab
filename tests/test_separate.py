"""Source and channel codes apart: blocks that arrive whole or are answered by zeros, by a table that both ends hold."""

from __future__ import annotations

import itertools
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import zoo
from tests.conftest import Cli, assert_one_line_error
from zoo import config, data
from zoo.checkpoint import check, save_model
from zoo.covariances import Covariances
from zoo.errors import ZooError
from zoo.evaluate_jscc import evaluate_jscc
from zoo.models import separate
from zoo.models.klt import KLT
from zoo.models.separate import (
    CRC,
    LIST,
    NOTHING,
    SPARE,
    Format,
    Separate,
    SeparateConfig,
    ShortProfileCode,
    ShortProfileCodeConfig,
)
from zoo.uplink import AWGN, Rayleigh, transmit

RATES, SYMBOLS = (20, 32, 64), (8, 16, 32)
LOW, HIGH = -20, 20


def source(n: int, seed: int = 0) -> Tensor:
    """Components of falling strength, each in a cell of its own."""
    draws = torch.randn(n, 16, dtype=torch.complex64, generator=torch.Generator().manual_seed(seed))
    return (draws * torch.exp(-torch.arange(16) / 3)).view(n, 4, 4)


@pytest.fixture(scope="module")
def code() -> Separate:
    """A model whose table is written by hand: at -20 dB nothing is sent, from 0 dB on the rate of each k, the highest first."""
    fields: dict[str, Any] = {
        "angles": 4,
        "delays": 4,
        "symbols": (32,),
        "inner": "klt",
        "rates": RATES,
        "snr_db": (20.0, 20.0),
    }
    fitted = Separate.fit(source(4000), source(64, 1), SeparateConfig(**fields, blocks=20))
    whole = Separate(fitted.config.model_copy(update={"symbols": SYMBOLS, "snr_db": (float(LOW), float(HIGH))}))
    whole.inner.load_state_dict(fitted.inner.state_dict())
    whole.distortion.copy_(fitted.distortion)
    for row, (number, order) in enumerate([(0, 6), (1, 4), (2, 4)]):
        whole.choice[row, -LOW:] = torch.tensor((number, order), dtype=torch.int16)
    return whole


def arrived(sent: Tensor, snr_db: float, seed: int = 0) -> Tensor:
    return transmit(sent, snr_db, channel=Rayleigh(), generator=torch.Generator().manual_seed(seed)).symbols


@pytest.mark.parametrize("k", SYMBOLS)
def test_strong_links_answer_as_the_codec_does_bit_for_bit(code: Separate, k: int) -> None:
    x = source(40, 2)
    sent = code.encode(x, 20, k)
    assert sent.shape == (40, k)
    assert sent.abs().square().mean(1).tolist() == pytest.approx([1.0] * 40, abs=1e-5)
    codec = code.codec(SYMBOLS.index(k))
    received = arrived(sent, 20)
    assert code.blocks(received, 20).all()
    assert not code.lost(received, 20).any()
    assert np.array_equal(code.decode(received, 20).numpy(), codec.decompress(codec.compress(x)))


def test_each_rate_is_the_klt_codec_of_that_rate(code: Separate) -> None:
    x = source(50, 3)
    second = Covariances.of([(source(4000).numpy(), None, source(4000).numpy())])
    for number, rate in enumerate(RATES):
        alone, shared = KLT.fit(rate, second), code.codec(number)
        assert alone.widths == tuple(shared.widths)
        assert np.allclose(alone.decompress(alone.compress(x)), shared.decompress(shared.compress(x)), atol=1e-4)


@pytest.mark.parametrize(("k", "n"), [(8, 500), (16, 1500), (32, 300)])
def test_no_crc_lets_more_noise_pass_than_chance(code: Separate, k: int, n: int) -> None:
    """The decoder has some paths to choose from, each of which passes by chance with 2^-CRC."""
    noise = torch.randn(n, k, dtype=torch.complex64, generator=torch.Generator().manual_seed(k))
    passed = code.blocks(noise, 0.0)
    expected = n * LIST / 2**CRC
    assert int(passed.sum()) <= expected + 4 * math.sqrt(expected)
    answers = code.decode(noise[~passed], 0.0)
    assert not answers.any()  # the rest are answered by the mean


def test_broken_blocks_are_told_and_answered_by_zeros(code: Separate) -> None:
    x = source(400, 4)
    sent = code.encode(x, 0, 16)
    received = arrived(sent, -7.0)  # far below what both ends believe
    whole, codec = code.blocks(received, 0), code.codec(1)
    wanted = torch.from_numpy(codec.decompress(codec.compress(x)))
    found = code.decode(received, 0)
    assert 0 < int(whole.sum()) < 400
    assert torch.equal(code.lost(received, 0), ~whole)
    assert not found[~whole].any()
    wrong = int((found[whole] != wanted[whole]).flatten(1).any(1).sum())  # undetected
    assert wrong <= 400 * LIST / 2**CRC + 4


def test_weak_links_send_nothing_and_are_answered_by_zeros(code: Separate) -> None:
    x = source(5, 5)
    for k in SYMBOLS:
        assert code.format(k, -0.5) is None
        sent = code.encode(x, -0.5, k)
        assert sent.abs().square().mean(1).tolist() == pytest.approx([1.0] * 5)
        assert bool((sent == 1).all())  # no symbol tells anything
        received = arrived(sent, -0.5)
        assert not code.decode(received, -0.5).any()
        assert not code.blocks(received, -0.5).any()
        assert not code.lost(received, -0.5).any()  # what was not sent was not lost


def test_levels_are_whole_decibels_from_below_and_their_ends_hold(code: Separate) -> None:
    x = source(6, 6)
    assert code.format(16, 0.0) == code.format(16, 0.99) == code.format(16, 500.0) == Format(1, 32, 4, 16)
    assert code.format(16, -0.01) is code.format(16, -500.0) is None
    for outside, end in ((500.0, HIGH), (-500.0, LOW)):
        assert torch.equal(code.encode(x, outside, 8), code.encode(x, end, 8))
        received = arrived(code.encode(x, outside, 8), 30.0)
        assert torch.equal(code.decode(received, outside), code.decode(received, end))
    mixed = torch.tensor([-9.0, 5.0, 19.9, -0.1, 0.0, 12.0])
    together = code.encode(x, mixed, 32)
    for row, snr_db in enumerate(mixed.tolist()):
        assert torch.equal(together[row], code.encode(x[row : row + 1], snr_db, 32)[0])
    assert code.blocks(together, mixed).tolist() == [False, True, True, False, True, True]


def test_only_received_symbols_matter_and_tables_are_alike_in_a_copy(code: Separate, tmp_path: Path) -> None:
    path = tmp_path / "separate-cdl-k32"
    for form in ("float32", "int8", "float16"):
        save_model(path, code, {"name": path.name, "architecture": "separate"}, {"x": source(4)}, form)
        sender, receiver = zoo.load(path), zoo.load(path)
        assert check(path, receiver) < 1e-5
        assert torch.equal(sender.choice, code.choice)
        assert torch.equal(receiver.choice, code.choice)
    x = source(30, 7)
    for k in SYMBOLS:
        assert [sender.format(k, snr) for snr in range(LOW, HIGH)] == [code.format(k, snr) for snr in range(LOW, HIGH)]
        received = arrived(sender.encode(x, 3.0, k), 3.0)
        first = sender.decode(received, 3.0)
        sender.encode(source(30, 8), 9.0, k)  # what it does in between is nothing to the receiver
        assert torch.equal(first, receiver.decode(received.clone(), 3.0))
        assert np.array_equal(first.numpy(), receiver.decode(received.numpy(), 3.0))
        assert torch.equal(receiver.decode(received.roll(1, 0), 3.0), first.roll(1, 0))


def test_symbols_may_be_quantised(code: Separate) -> None:
    x = source(20, 9)
    sent = torch.from_numpy(code.symbols(code.encode(x, 10, 16, bits=6), 6, 16))
    assert bool(code.blocks(sent, 10).all())


def test_block_error_rates_are_the_same_again() -> None:
    form = Format(0, 20, 6, 8)
    first = separate.block_error_rate(form, 0.0, 60, seed=3)
    assert 0 < first < 1
    assert separate.block_error_rate(form, 0.0, 60, seed=3) == first
    assert separate.block_error_rate(form, -20.0, 1000, seed=3, most=0.1) == 1  # given up early


def test_spare_bits_bring_a_rows_power_next_to_one() -> None:
    payload = torch.randint(0, 2, (200, 30), generator=torch.Generator().manual_seed(0))
    form = Format(0, 30, 6, 8)
    assert form.information == 30 + SPARE
    sent = separate.block(payload, form)
    grid = sent.real.abs() * math.sqrt(42)  # odd numbers, but for what unit power has scaled
    off = torch.stack([(grid / odd - 1).abs() for odd in (1, 3, 5, 7)]).amin(0)
    assert float(off.median()) < 0.03
    bits, whole = separate.opened(sent, form, 15.0)
    assert whole.all()
    assert torch.equal(bits, payload)


def test_the_table_is_what_leaves_least_error() -> None:
    """Rates rise and errors fall with the SNR, and blocks are lost as seldom as was measured."""
    fields: dict[str, Any] = {
        "angles": 4,
        "delays": 4,
        "symbols": (16,),
        "inner": "klt",
        "rates": (20, 48),
        "snr_db": (-13.0, -1.0),
    }
    fitted = Separate.fit(source(4000), source(200, 1), SeparateConfig(**fields, blocks=60))
    numbers = fitted.choice[0, :, 0].tolist()
    assert numbers == sorted(numbers)
    assert numbers[0] == NOTHING
    assert numbers[-1] == 1
    worth = [1.0, *fitted.distortion.tolist()]
    lost = fitted.block_errors[0].tolist()
    error = [share + (1 - share) * worth[number + 1] for number, share in zip(numbers, lost, strict=True)]
    assert all(later <= earlier + 0.03 for earlier, later in itertools.pairwise(error))
    x = source(300, 2)
    for level in (-5.0, -1.0):
        received = arrived(fitted.encode(x, level), level, seed=5)
        place = int(level) + 13
        assert float(fitted.lost(received, level).float().mean()) == pytest.approx(lost[place], abs=0.1)
        assert zoo.nmse(x.numpy(), fitted.decode(received, level).numpy()) == pytest.approx(error[place], abs=0.1)
    steady = transmit(fitted.encode(x, -1.0), -1.0, channel=AWGN(), generator=torch.Generator().manual_seed(1))
    assert fitted.blocks(steady, -1.0).float().mean() > 0.97  # without fading


def test_short_payloads_of_profile_code_hold_any_sample() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.zeros(300, 8, 8, dtype=torch.complex64)
    draws = torch.randn(300, 3, dtype=torch.complex64, generator=generator)
    x.view(300, -1).scatter_(1, torch.randint(0, 64, (300, 3), generator=generator), draws)
    fields: dict[str, Any] = {"angles": 8, "delays": 8, "profiles": 8, "shifts": 2, "rate": 40, "rates": (32, 40)}
    code = ShortProfileCode.fit(x, ShortProfileCodeConfig(**fields))
    odd = torch.cat((x[:50], 1e6 * x[:10], 0 * x[:2], torch.ones(2, 8, 8, dtype=torch.complex64)))
    for rate in (32, 40):
        single = code.at(rate)
        assert single.holds_blanks()
        payloads = single.compress(odd)
        assert {len(payload) for payload in payloads} == {rate // 8}
        assert np.isfinite(single.decompress(payloads)).all()


def test_training_is_fitting_and_results_have_the_share_of_lost_blocks(
    tmp_path: Path, small_store: data.Store, zoo_cli: Cli
) -> None:
    from zoo.train import train

    changes = {"codec.symbols": (16,), "codec.inner": "klt", "codec.rates": (24, 40), "codec.snr_db": (4.0, 5.0)}
    recipe = config.load("separate", {**changes, "codec.blocks": 20})
    cached = data.Cached(data.Store(small_store.path), "cpu", None, 0)
    [path] = train(recipe, cached, tmp_path / "run", progress=False)
    assert path.name == "separate-cdl-k16"
    found = evaluate_jscc(path, data.Store(small_store.path), "val", snr_db=(5.0, -10.0))
    assert found["points"][0]["lost_share"] < 0.2
    assert found["points"][1]["lost_share"] > 0.8  # the table ends at 4 dB
    assert found["points"][1]["nmse_db"] == pytest.approx(0, abs=0.5)
    shown = zoo_cli(
        "eval", path, "--data", small_store.path, "--split", "val", "--snr", "5", "--out", tmp_path / "r.json"
    )
    assert shown.returncode == 0, shown.stderr
    assert "lost" in shown.stdout
    shown = zoo_cli("train", "separate", "--data", small_store.path, "--set", "codec.inner=turbo")
    assert_one_line_error(shown, 2, "codec: inner")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"inner": "turbo"}, "inner = 'turbo'"),
        ({"rates": (64, 32)}, "must rise"),
        ({"rates": (16, 64)}, "must be 32 and up"),
        ({"inner": "klt", "rates": (16,)}, "must be 20 and up"),
        ({"inner": "klt", "rates": (20,), "widths": ((5, 5),)}, "widths must add up"),
        ({"rate": 3}, "unknown key 'rate'"),
        ({"blocks": 0}, "blocks = 0"),
    ],
)
def test_recipes_that_make_no_sense_are_refused(
    changes: dict[str, object], words: str, small_store: data.Store
) -> None:
    recipe = config.load("separate", {f"codec.{name}": value for name, value in changes.items()})
    from zoo.train import build

    with pytest.raises(ZooError, match="recipe of separate: codec: ") as error:
        build(recipe, data.Cached(data.Store(small_store.path), "cpu", None, 0))
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_errors_are_measured_on_samples_that_were_not_fitted_to() -> None:
    with pytest.raises(ZooError, match="the val split, which has no samples"):
        Separate.fit(source(100), source(0), SeparateConfig(angles=4, delays=4, inner="klt", rates=(20,)))


def test_calls_that_make_no_sense_are_refused(code: Separate) -> None:
    for call, words in (
        (lambda: code.encode(source(2), 0, 9), "9 symbols are not served"),
        (lambda: code.encode(source(2), math.nan, 8), "snr_db must be a finite number"),
        (lambda: code.decode(torch.zeros(2, 9, dtype=torch.complex64), 0), "9 symbols are not served"),
        (lambda: code.blocks(torch.zeros(2, 8), 0), "this model takes complex"),
        (lambda: code.lost(torch.zeros(2, 8, dtype=torch.complex64), (1, 2, 3)), "or 2 of them"),
        (lambda: code.decode(torch.zeros(2, 8, dtype=torch.complex64), 0, steps=1), "steps 1 is out of range"),
        (lambda: code.format(9, 0), "9 symbols are not served"),
    ):
        with pytest.raises(ZooError, match=words):
            call()


def test_nobody_has_to_have_sionna_until_a_block_is_coded(code: Separate, monkeypatch: pytest.MonkeyPatch) -> None:
    separate._polar.cache_clear()
    separate._modulation.cache_clear()
    for name in ("sionna.phy.fec.polar", "sionna.phy.mapping"):
        monkeypatch.setitem(sys.modules, name, None)
    for call in (lambda: code.encode(source(1), 5, 8), lambda: code.decode(torch.ones(1, 8, dtype=torch.complex64), 5)):
        with pytest.raises(ZooError, match="pip install sionna-no-rt"):
            call()  # type: ignore[no-untyped-call]
    assert not code.decode(torch.ones(1, 8, dtype=torch.complex64), -9).any()
