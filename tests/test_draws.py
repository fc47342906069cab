"""Draws: a function of (seed, stream, index), and of the right law."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datagen import draws
from tests.conftest import small_recipe


def test_a_sample_owns_its_range_of_the_counter() -> None:
    key = draws.stream_key(5, "cdl/train")
    whole = np.random.Philox(key=key, counter=0).random_raw(40).reshape(5, 8)
    np.testing.assert_array_equal(draws.words(5, "cdl/train", range(5), 7), whole[:, :7])


@settings(max_examples=30)
@given(st.lists(st.integers(0, 2**40), max_size=20), st.integers(1, 9))
def test_words_depend_on_the_index_alone(indices: list[int], count: int) -> None:
    together = draws.words(3, "s", indices, count)
    alone = [draws.words(3, "s", [index], count)[0] for index in indices]
    assert together.shape == (len(indices), count)
    for one, row in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, row)


def test_streams_and_seeds_differ() -> None:
    one = draws.words(0, "cdl/train", range(100), 4)
    for other in (draws.words(0, "cdl/val", range(100), 4), draws.words(1, "cdl/train", range(100), 4)):
        assert not np.intersect1d(one, other).size


def test_uniforms_and_phases_fill_their_intervals() -> None:
    raw = draws.words(0, "law", range(1000), 64)
    u = draws.uniform(raw)
    assert (u >= 0).all()
    assert (u < 1).all()
    np.testing.assert_allclose(np.histogram(u, 10, (0, 1))[0] / u.size, 0.1, atol=0.005)
    phi = draws.phases(draws.halves(raw))
    assert phi.min() >= -np.float32(np.pi)
    assert phi.max() <= np.float32(np.pi)
    np.testing.assert_allclose(np.abs(np.exp(1j * np.outer(np.arange(1, 6), phi)).mean(1)), 0, atol=0.01)


def test_permutations_are_permutations_and_uniform() -> None:
    raw = draws.halves(draws.words(0, "law", range(6000), 2)).reshape(-1, 4)
    permuted = draws.permutations(raw)
    np.testing.assert_array_equal(np.sort(permuted, axis=-1), np.broadcast_to(np.arange(4), permuted.shape))
    _, counts = np.unique(permuted, axis=0, return_counts=True)
    assert len(counts) == 24
    expected = len(permuted) / 24
    assert ((counts - expected) ** 2 / expected).sum() < 49.7  # chi-square, 23 degrees of freedom, p = 0.001


def test_too_many_items_to_permute() -> None:
    with pytest.raises(ValueError, match="at most 32"):
        draws.permutations(np.zeros((1, 33), np.uint32))


@pytest.mark.parametrize(
    ("law", "mean_square"), [("sionna", (0.25, 0.25, 0.5)), ("sphere", (1 / 3,) * 3), ("horizontal", (0.5, 0.5, 0.0))]
)
def test_velocity_laws(law: str, mean_square: tuple[float, float, float]) -> None:
    from datagen.scenarios.cdl import draw

    velocity = draw(small_recipe(velocity=law, speed_mps=[3.0, 3.0]), "train", range(4000)).velocity
    np.testing.assert_allclose(np.linalg.norm(velocity, axis=1), 3, rtol=1e-5)
    np.testing.assert_allclose(np.square(velocity / 3).mean(0), mean_square, atol=0.02)
    np.testing.assert_allclose(velocity.mean(0), 0, atol=0.15)


def test_speeds_fill_their_range() -> None:
    from datagen.scenarios.cdl import draw

    speed = np.linalg.norm(draw(small_recipe(speed_mps=[2.0, 10.0]), "train", range(4000)).velocity, axis=1)
    np.testing.assert_allclose(np.histogram(speed, 4, (2, 10))[0] / 4000, 0.25, atol=0.03)
