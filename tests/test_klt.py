"""The fitted codecs, KLT and KLT-grid, on samples without a store."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

import datagen
from zoo.covariances import Covariances
from zoo.errors import ZooError
from zoo.limits import gaussian_distortion
from zoo.metrics import nmse, nmse_db
from zoo.models.klt import KLT, KLTConfig
from zoo.models.klt_grid import KLTGrid
from zoo.nn.lloyd_max import MAX_WIDTH, GaussianQuantiser, allocate, lloyd_max

RECIPE = datagen.CDLRecipe()
SMALL = datagen.CDLRecipe(antennas=12, crop_taps=20)
Arrays = tuple[NDArray[np.complex64], NDArray[np.complex64], NDArray[np.complex64]]


def simulated(n: int, split: str, recipe: datagen.CDLRecipe = RECIPE) -> Arrays:
    (triple,) = datagen.sample(recipe, range(n), split, batch_size=n)
    return triple["X"].numpy(), triple["Y"].numpy(), triple["Z"].numpy()


@pytest.fixture(scope="module")
def fresh() -> Arrays:
    """500 triples that nothing was fitted to, Y with white noise at 30 dB."""
    x, y, z = simulated(500, "test")
    deviation = math.sqrt(float(np.square(np.abs(y)).mean()) * 1e-3 / 2)
    noise = np.random.default_rng(0).standard_normal((2, *y.shape)) * deviation
    return x, (y + noise[0] + 1j * noise[1]).astype(np.complex64), z


@pytest.fixture(scope="module")
def covariances() -> Covariances:
    x, y, z = simulated(3072, "train")
    return Covariances.of((x[i : i + 1024], y[i : i + 1024], z[i : i + 1024]) for i in range(0, 3072, 1024))


@pytest.fixture(scope="module")
def klt(covariances: Covariances) -> KLT:
    return KLT.fit(128, covariances)


@pytest.fixture(scope="module")
def law() -> datagen.ConditionalStatistics:
    return datagen.conditional_statistics(RECIPE, 150)


@pytest.fixture(scope="module")
def grid(law: datagen.ConditionalStatistics) -> KLTGrid:
    return KLTGrid.fit(128, law, steps=0, side_information_components=48)


@pytest.fixture(params=["klt", "grid"])
def codec(request: pytest.FixtureRequest) -> KLT | KLTGrid:
    found: KLT | KLTGrid = request.getfixturevalue(request.param)
    return found


# quantiser -------------------------------------------------------------------------------------------------------------------


def test_lloyd_max_is_the_textbooks() -> None:
    """Max 1960, Table I; at high rate Panter and Dite's sqrt(3) pi / 2 * 4^-b."""
    errors = [lloyd_max(width)[1] for width in range(MAX_WIDTH + 1)]
    assert errors[:6] == pytest.approx([1, 0.3634, 0.1175, 0.03454, 0.009497, 0.002499], rel=3e-3)
    assert errors[8] == pytest.approx(math.sqrt(3) * math.pi / 2 * 4.0**-8, rel=0.02)
    assert lloyd_max(2)[0].tolist() == pytest.approx([-1.510, -0.4528, 0.4528, 1.510], abs=5e-4)


def test_quantiser_does_what_its_error_says() -> None:
    quantiser = GaussianQuantiser((5, 5, 3, 2, 1, 0))
    s = torch.randn(20_000, 3, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    codes = quantiser.codes(s)
    assert codes.amax(0).tolist() == [31, 31, 7, 3, 1, 0]
    assert codes.amin(0).tolist() == [0] * 6
    levels = quantiser(codes)
    torch.testing.assert_close((levels - s).abs().square().mean(0), quantiser.error, rtol=0.05, atol=0)
    assert torch.equal(quantiser.codes(levels), codes)
    distance = (torch.view_as_real(s).flatten(1)[:, 2, None] - lloyd_max(3)[0] / math.sqrt(2)).abs()
    assert torch.equal(codes[:, 2], distance.argmin(1))


@pytest.mark.parametrize("bits", [0, 1, 13, 66, 128])
def test_allocation_spends_every_bit_on_the_strongest(bits: int) -> None:
    widths = allocate(0.7 ** np.arange(40), bits)
    assert sum(widths) == bits
    assert all(a >= b for a, b in itertools.pairwise(widths))
    assert len(widths) % 2 == 0
    assert max(widths[-2:], default=1) > 0


def test_allocation_stops_at_the_widest_scalars() -> None:
    assert allocate(np.array([1.0, 1e-9]), 32) == (8, 8, 8, 8)
    with pytest.raises(ZooError, match="at most 32 bits"):
        allocate(np.array([1.0, 1e-9]), 33)


# codecs ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [13, 66, 128])
def test_payloads_have_the_bits_of_the_rate(rate: int) -> None:
    x, y, z = simulated(512, "train", SMALL)
    law = datagen.conditional_statistics(SMALL, 10)
    for codec in (
        KLT.fit(rate, Covariances.of([(x, y, z)]), side_information_components=8),
        KLTGrid.fit(rate, law, steps=0, side_information_components=8),
    ):
        assert codec.bits == sum(codec.widths) == rate
        payloads = codec.compress(x[:20])
        assert {len(payload) for payload in payloads} == {codec.payload_bytes} == {math.ceil(rate / 8)}
        assert codec.decompress(payloads, y[:20]).shape == (20, 12, 20)
        assert codec.decompress([], y[:0]).shape == (0, 12, 20)


def test_estimates_are_as_good_as_they_should_be(klt: KLT, grid: KLTGrid, fresh: Arrays) -> None:
    x, y, z = fresh
    linear, by_velocity = (nmse_db(z, codec.decompress(codec.compress(x), y)) for codec in (klt, grid))
    assert -8.5 < linear < -6.5  # the linear limit is -7.8 dB: SCIENCE.md section 2
    assert by_velocity < -11.5
    assert by_velocity > -17.8  # velocity known


def test_noise_beyond_the_assumed_degrades_gently(grid: KLTGrid, fresh: Arrays) -> None:
    x, y, z = fresh
    noise = np.random.default_rng(1).standard_normal((2, *y.shape)) * math.sqrt(
        float(np.square(np.abs(y)).mean()) * 1e-2 / 2
    )
    assert nmse_db(z, grid.decompress(grid.compress(x), y + noise[0] + 1j * noise[1])) < -6


def test_a_few_steps_improve_the_transform(law: datagen.ConditionalStatistics, grid: KLTGrid, fresh: Arrays) -> None:
    x, y, z = fresh
    fitted = KLTGrid.fit(128, law, steps=15, side_information_components=48)
    before, after = (nmse_db(z, codec.decompress(codec.compress(x), y)) for codec in (grid, fitted))
    assert after < before - 0.3


def test_fit_is_deterministic(law: datagen.ConditionalStatistics) -> None:
    first, second = (KLTGrid.fit(32, law, steps=2, side_information_components=16).state_dict() for _ in range(2))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_reconstruction_without_side_information(covariances: Covariances, fresh: Arrays) -> None:
    """Z = X: the KLT of X, held against the Gaussian bound; fixed-rate scalars lose at most Panter and Dite's 4.35 dB to it."""
    x, _, _ = fresh
    same = Covariances(covariances.shape, covariances.x, covariances.x, covariances.x)
    variances = np.linalg.eigvalsh(covariances.x)
    codec = KLT.fit(64, same)
    assert not codec.config.side_information
    bound = 10 * math.log10(gaussian_distortion(variances, 64) / variances.sum())
    loss = nmse_db(x, codec.decompress(codec.compress(x))) - bound
    assert 0.5 < loss < 4.35


def test_covariances_of_a_target_that_is_the_source(fresh: Arrays) -> None:
    x = fresh[0]
    found = Covariances.of((part, None, part) for part in (x[:300], x[300:]))
    flat = x.reshape(len(x), -1)
    np.testing.assert_allclose(found.x, flat.T @ flat.conj() / len(x), atol=1e-7)
    assert found.z is found.zx is found.x
    assert found.y is None
    assert found.shape == (32, 32)
    with pytest.raises(ZooError, match="no samples"):
        Covariances.of([])


def test_payload_is_a_function_of_x_alone(codec: KLT | KLTGrid, fresh: Arrays) -> None:
    x, y, _ = fresh
    payloads = codec.compress(x[:50])
    codec.decompress(payloads, y[:50])
    assert codec.compress(x[:50]) == payloads
    assert codec.compress(x[10:20]) == payloads[10:20]
    batch, (single,) = codec.decompress(payloads, y[:50]), codec.decompress(payloads[7:8], y[7:8])
    np.testing.assert_allclose(single, batch[7], rtol=1e-3, atol=1e-4 * float(np.abs(batch[7]).max()))


def reloaded(codec: KLT | KLTGrid, dtype: torch.dtype = torch.float32) -> KLT | KLTGrid:
    config = codec.Config.model_validate_json(codec.config.model_dump_json())
    copy: Any = type(codec)(config)  # type: ignore[arg-type]
    copy.load_state_dict(codec.state_dict(), strict=True)
    converted: KLT | KLTGrid = copy.to(dtype)
    return converted


def test_weights_are_all_of_a_codec(codec: KLT | KLTGrid, fresh: Arrays) -> None:
    x, y, _ = fresh
    copy = reloaded(codec)
    assert copy.config == codec.config
    payloads = codec.compress(x[:50])
    assert copy.compress(x[:50]) == payloads
    np.testing.assert_array_equal(copy.decompress(payloads, y[:50]), codec.decompress(payloads, y[:50]))


def test_what_is_made_of_the_weights_follows_them(grid: KLTGrid, klt: KLT, fresh: Arrays) -> None:
    x, y, _ = fresh
    payloads = grid.compress(x[:20])
    copy = reloaded(grid)
    before = copy.decompress(payloads, y[:20])
    silent = {**grid.state_dict(), "correlation": torch.zeros_like(grid.correlation)}  # X tells nothing of Z
    copy.load_state_dict(silent)
    changed = copy.decompress(payloads, y[:20])
    assert nmse(before, changed) > 1e-2
    copy.load_state_dict(grid.state_dict())
    np.testing.assert_array_equal(copy.decompress(payloads, y[:20]), before)
    assert not any("quantiser" in name for name in (*grid.state_dict(), *klt.state_dict()))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float16, 1e-3)])
def test_precision_of_weights_changes_little(
    codec: KLT | KLTGrid, fresh: Arrays, dtype: torch.dtype, tolerance: float
) -> None:
    x, y, _ = fresh
    payloads = codec.compress(x[:100])
    other = reloaded(codec, dtype)
    assert nmse(codec.decompress(payloads, y[:100]), other.decompress(payloads, y[:100])) < tolerance
    bits = [np.unpackbits(np.frombuffer(b"".join(p), np.uint8)) for p in (payloads, other.compress(x[:100]))]
    assert (bits[0] != bits[1]).mean() < 0.02


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"widths": (4, 3)}, "widths sum to 7 bits; the rate is 8"),
        ({"widths": (8,)}, "pairs of 0 to 8 bits"),
        ({"widths": (9, -1)}, "pairs of 0 to 8 bits"),
        ({"side_information": False}, "must be 0 without side information"),
    ],
)
def test_a_config_that_does_not_add_up_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        KLTConfig.model_validate({"rate": 8, "widths": (4, 4), **changes})
