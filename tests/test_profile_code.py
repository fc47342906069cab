"""The profile code: real payloads, the same integers on both sides, and gain from what it knows of a sample."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
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
from zoo.nn.arithmetic import Encoder, cumulative, number_bits
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
        image = single.picture(sent).image
        expected = torch.complex(image[:, 0], image[:, 1]) * single.scale
        torch.testing.assert_close(torch.from_numpy(single.decompress(payloads)), expected)
        assert (sent.cells != 0).any((1, 2, 3)).all()


def slow_bits(code: ProfileCode, x: Tensor) -> NDArray[Any]:
    """Payload of one sample [angle, delay] by the long way: every profile, every cell and every step of the search in full."""
    number, rate = code._number, code.config.rate
    image = torch.stack((x.real, x.imag)) / code.scale
    power = image.double().square().sum(0)
    mean = power.mean().clamp(min=1e-30)
    energy = min(max(round(2 * float(mean.log2())) + 32, 0), 63)
    moves = range(-code.config.shifts, code.config.shifts + 1)
    moved = torch.stack([code.levels.roll(move, 2) for move in moves], 1).long()
    prior = code.profile_frequency[:, None].double().log() + code.shift_frequency.double().log()
    likelihood = prior - (moved / 4 * np.log(2) + power / mean / (moved / 4).double().exp2()).sum((2, 3))
    order = likelihood.flatten().argsort(descending=True, stable=True)
    ranked = [divmod(int(pair), len(moves)) for pair in order[:3]]
    bits_of = [-(table.double() / 2**15).log2() for table in code._header()]
    price = -(code.cell_frequency[number].double() / 2**15).log2().float()

    def quantise(level: Tensor, step: int, rounding: float, worth: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        width = torch.tensor(2 ** ((2 * (energy - 32) + 65 - step) / 8)).float()
        ratio = (level + step - 65 + 24).clamp(max=39)
        u, at = image / width, ratio.clamp(min=0)
        cells = (u.sign() * (u.abs() + rounding).floor()).clamp(-2053, 2053) * (ratio >= 0)

        def taken(cells: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            size = torch.nn.functional.pad(cells.abs().sum(0).clamp(max=4), (1, 0, 2, 1))
            a, d = level.shape
            nearby = (
                2 * size[1 : a + 1, 1:] + size[:a, 1:] + size[1 : a + 1, :d] + 2 * size[2 : a + 2, :d] + size[3:, :d]
            )
            context = sum((nearby >= bound).long() for bound in (1, 2, 3, 5, 8))
            near = cells.clamp(-7, 7).long() + 7
            number = number_bits((cells.abs().long() - 7).clamp(min=0).numpy())
            more = (torch.from_numpy(number) * (cells.abs() >= 7)).sum(0)
            symbol = near[0] * 15 + near[1]
            return price[at, context, symbol] + more, price[at, context, torch.tensor(112)], at * 6 + context

        near = cells.abs().clamp(max=7)
        value = (code.centroid[number][at, near.long()] + cells.abs() - near) * cells.sign()
        left, lost = (u - value).square().sum(0), u.square().sum(0)
        cost, empty, _ = taken(cells)
        kept = (left + worth * cost < lost + worth * empty) & (ratio >= 0)
        cells = cells * kept
        cost, _, which = taken(cells)
        change = (image.double() - value.double() * width.double() * kept).square().sum()
        return cells, (cost.double() * (ratio >= 0)).sum(), change, torch.where(ratio >= 0, which, -1)

    best, least = None, power.sum()
    low, high = 0, 127
    for rank, (rounding, worth) in profile_code.ATTEMPTS:
        profile, shift = ranked[rank]
        nothing = (profile, shift, energy, 0), torch.zeros_like(image), torch.full_like(moved[0, 0], -1)
        found, error = (None, torch.tensor(torch.inf)) if best else (nothing, least)
        first, last = low, high
        while first < last:
            step = (first + last + 1) // 2
            cells, bits, left, which = quantise(moved[profile, shift], step, rounding, worth)
            head = (profile, shift, energy, step)
            if bits + sum(table[value] for table, value in zip(bits_of, head, strict=True)) <= rate - 1:
                first = step
                if left < error:
                    found, error = (head, cells, which), left
            else:
                last = step - 1
        if found and (best is None or error < least):
            best, least, ranked[0] = found, error, found[0][:2]
        if (low, high) == (0, 127):
            assert best is not None
            low, high = max(best[0][3] - 4, 0), min(best[0][3] + 4, 127)
    assert best is not None
    head, cells, which = best
    encoder, row = Encoder(1, rate), np.zeros(1, np.int64)
    for table, value in zip(code._header(), head, strict=True):
        starts = cumulative(table.numpy())
        encoder.put(row, starts[value : value + 1], starts[value + 1 : value + 2])
    starts = cumulative(code.cell_frequency[number].long().numpy().reshape(-1, 225))
    for delay in range(x.shape[1]):
        for angle in range(x.shape[0]):
            if (alphabet := int(which[angle, delay])) >= 0:
                pair = cells[:, angle, delay].long().numpy()
                near = pair.clip(-7, 7) + 7
                symbol = near[0] * 15 + near[1]
                encoder.put(row, starts[alphabet, symbol : symbol + 1], starts[alphabet, symbol + 1 : symbol + 2])
                for part in pair:
                    if abs(part) >= 7:
                        encoder.put_number(row, np.array([abs(part) - 7]))
    written, fits = encoder.finish()
    assert fits.all()
    payload: NDArray[np.int64] = written[0]
    return payload


def test_payloads_are_those_of_the_long_way(code: ProfileCode) -> None:
    x = wandering(24, 3)
    x[:6, 3, 5] *= 300  # numbers beyond the symbols
    for single in code.singles():
        expected = np.stack([slow_bits(single, sample) for sample in x])
        assert (single.codes(x).numpy() == expected).all()


@pytest.mark.parametrize("name", ["profile-code-cost2100-128b", "profile-code-inh-64b"])
def test_a_shipped_model_codes_as_the_long_way(name: str) -> None:
    single = zoo.load(name)
    assert isinstance(single, ProfileCode)
    recipe = datagen.COST2100Recipe() if "cost2100" in name else datagen.InHRecipe()
    x = next(iter(datagen.sample(recipe, range(3), "test")))["X"]
    assert (single.codes(x).numpy() == np.stack([slow_bits(single, sample) for sample in x])).all()


def test_a_payload_does_not_depend_on_the_samples_beside_it_nor_on_threads(code: ProfileCode) -> None:
    x, single = wandering(100, 4), code.at(96)
    together = single.compress(x)
    assert [single.compress(sample[None])[0] for sample in x[:20]] == together[:20]
    assert single.compress(x.flip(0)[:90]) == together[:9:-1]
    threads = torch.get_num_threads()
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            assert single.compress(x) == together
    finally:
        torch.set_num_threads(threads)
    payloads = together[:30]
    alone = np.concatenate([single.decompress([payload]) for payload in payloads])
    assert (single.decompress(payloads) == alone).all()


def test_candidates_fit_and_lose_little_to_the_search_of_each_alone(code: ProfileCode) -> None:
    x, single = wandering(200, 5), code.at(64)
    candidates = single.candidates(x, profile_code.ATTEMPTS)
    assert len(candidates) == len(profile_code.ATTEMPTS)
    for sent, (rank, how) in zip(candidates, profile_code.ATTEMPTS, strict=True):
        assert single.fits(sent).all()
        assert (single.parse(single.write(sent)).cells == sent.cells).all()
        (alone,) = single.candidates(x, [(rank, how)])
        left, least = (
            (single.to_image(x) - single.picture(one).image).square().sum((1, 2, 3)) for one in (sent, alone)
        )
        assert (left / least).log().mean() < 0.05
    first, decided = candidates[0], single.decide(x, attempts=1)
    same = first.step == decided.step  # what differs did not fit
    assert same.double().mean() > 0.9
    assert (first.cells == decided.cells)[same].all()
    assert single.fits(decided)[same].all()


def test_candidates_go_to_coarser_steps_until_they_fit(code: ProfileCode, monkeypatch: pytest.MonkeyPatch) -> None:
    single, encode, tried = code.at(64), ProfileCode._encode, list[int]()
    before = single.candidates(wandering(5), profile_code.ATTEMPTS[:2])

    def some_never_fit_at_first(self: ProfileCode, sent: Sent) -> Any:
        bits, fits = encode(self, sent)
        tried.append(len(sent))
        return bits, fits & (np.arange(len(sent)) % 5 > 1) if len(tried) == 1 else fits

    monkeypatch.setattr(ProfileCode, "_encode", some_never_fit_at_first)
    after = single.candidates(wandering(5), profile_code.ATTEMPTS[:2])
    assert tried[:2] == [10, 4]
    for one, other in zip(before, after, strict=True):
        assert ((other.step < one.step) == torch.tensor([True, True, False, False, False])).all()


def test_what_does_not_fit_is_not_written(code: ProfileCode) -> None:
    single = code.at(64)
    sent = code.at(96).decide(wandering(20))
    sent.cells[0] = 5
    ratio = single.picture(sent).ratio
    sent.cells *= (ratio >= 0)[:, None]
    fits = single.fits(sent)
    assert not fits[0]
    with pytest.raises(ValueError, match=f"{int((~fits).sum())} of 20 codes exceed 64 bits"):
        single.write(sent)
    assert single.write(sent.rows(fits)).shape == (int(fits.sum()), 64)


def test_picture_is_what_is_reconstructed(code: ProfileCode) -> None:
    x, single = wandering(50, 6), code.at(96)
    codes = single.codes(x)
    sent = single.parse(codes)
    picture = single.picture(sent)
    z = single.reconstruct(codes, None)
    assert (torch.stack((z.real, z.imag), 1) == picture.image * single.scale).all()
    assert picture.ratio.dtype == torch.int64
    assert not picture.image[(picture.ratio < 0)[:, None].expand_as(picture.image)].any()
    torch.testing.assert_close(picture.width[:, None, None, None] * sent.cells, picture.image, rtol=0.5, atol=0)
    level = single.levels[sent.profile]
    moved = torch.stack([part.roll(int(s) - 7, 1) for part, s in zip(level, sent.shift, strict=True)]).long()
    assert (picture.ratio == (moved + sent.step[:, None, None] - 41).clamp(max=39)).all()


def test_samples_are_taken_apart_and_joined(code: ProfileCode) -> None:
    sent = code.at(96).decide(wandering(20, 7))
    some = Sent.joined([sent.rows(slice(0, 5)), sent.rows(torch.arange(20) >= 5)])
    assert len(some) == 20
    assert torch.equal(some.cells, sent.cells)


def test_no_samples_no_payloads(code: ProfileCode) -> None:
    single, none = code.at(64), wandering(0)
    sent = single.decide(none)
    assert single.parse(single.write(sent)).cells.shape == (0, 2, *SHAPE)
    assert len(single.picture(sent)) == 0
    assert [len(part) for part in single.candidates(none, profile_code.ATTEMPTS[:2])] == [0, 0]


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

    def first_never_fits(self: ProfileCode, sent: Sent) -> Any:
        bits, fits = encode(self, sent)
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
    with pytest.raises(ZooError, match="4 profiles take at least 16 samples with energy; there are 10"):
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
