"""The closed-form statistics against simulated samples."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from datagen import CDLRecipe, DatagenError, conditional_statistics, sample
from tests.conftest import small_recipe

Samples = dict[str, NDArray[np.complex64]]


def simulated(recipe: CDLRecipe, n: int) -> Samples:
    """X, Y and Z of the first n train samples, each [n, angle * delay]."""
    (triple,) = sample(recipe, range(n), batch_size=n)
    return {name: triple[name].reshape(n, -1).numpy() for name in "XYZ"}


def distance(a: NDArray[np.complexfloating], b: NDArray[np.complexfloating]) -> float:
    """Frobenius norm of the difference over the norm of b."""
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


@pytest.mark.parametrize(
    "changes",
    [{}, {"speed_mps": 1.5, "velocity": "horizontal", "antennas": 16, "crop_taps": 24}, {"model": "A", "speed_mps": [0.0, 10.0], "antennas": 16}],
    ids=["default", "slow", "A"],
)  # fmt: skip
def test_covariances_of_samples_are_the_closed_forms(changes: dict[str, object]) -> None:
    recipe, n = small_recipe(**changes), 3000
    found, law = simulated(recipe, n), conditional_statistics(recipe, 500)
    basis = np.linalg.qr(np.concatenate((law.downlink, law.uplink), 1))[0]  # of all cells that the latents reach
    samples = {name: array @ basis.conj() for name, array in found.items()}
    d, u = basis.conj().T @ law.downlink, basis.conj().T @ law.uplink
    chi = law.latent_correlation.mean(0)
    power = {"X": d @ d.conj().T, "Y": u @ u.conj().T, "Z": d @ d.conj().T}
    expected = {
        **{2 * a: power[a] for a in "XYZ"},
        "ZY": d @ u.conj().T,
        "ZX": (d * chi) @ d.conj().T,
        "YX": (u * chi) @ d.conj().T,
    }
    for (a, b), covariance in ((tuple(pair), value) for pair, value in expected.items()):
        noise = np.sqrt(np.trace(power[a]).real * np.trace(power[b]).real / n)  # RMS error of a sample covariance
        assert distance(samples[a].T @ samples[b].conj() / n, covariance) < 1.5 * noise / np.linalg.norm(covariance), (
            a + b
        )
        assert noise < 0.2 * np.linalg.norm(covariance), a + b


def test_energy_is_that_of_the_samples() -> None:
    found, law = simulated(CDLRecipe(), 4000), conditional_statistics(CDLRecipe(), 1)
    for name, maps in (("X", law.downlink), ("Y", law.uplink), ("Z", law.downlink)):
        energy = np.square(np.abs(found[name])).sum(1)
        tolerance = 4 * energy.std() / np.sqrt(len(energy)) / energy.mean()
        assert np.square(np.abs(maps)).sum() == pytest.approx(float(energy.mean()), rel=float(tolerance)), name


def test_standing_still_everything_stays() -> None:
    law = conditional_statistics(CDLRecipe(speed_mps=(0.0, 0.0)), 3)
    np.testing.assert_allclose(law.correlation, 1)


def test_sizes_and_determinism() -> None:
    recipe = CDLRecipe()
    first, second = conditional_statistics(recipe, 50), conditional_statistics(recipe, 50)
    for name, value in vars(first).items():
        np.testing.assert_array_equal(value, getattr(second, name), err_msg=name)
    latents, clusters = len(first.cluster), len(first.downlink_taps)
    assert first.roots.shape == (latents, 32)
    assert first.downlink_taps.shape == first.uplink_taps.shape == (24, 32)
    assert first.velocities.shape == (50, 3)
    assert first.correlation.shape == (50, clusters)
    assert set(first.cluster) == set(range(clusters))
    assert sum(value.nbytes for value in vars(first).values()) < 340_000  # half of it in single precision
    np.testing.assert_allclose(np.linalg.norm(first.velocities, axis=1), 5)
    more = conditional_statistics(recipe, 80)
    np.testing.assert_array_equal(more.correlation[:50], first.correlation)


@pytest.mark.parametrize(
    ("changes", "velocities", "word"),
    [
        ({"model": "D"}, 10, "line of sight"),
        ({"model": "E"}, 10, "line of sight"),
        ({"uplink": "independent-phases"}, 10, "'comb'"),
        ({"uplink": "same-coefficients"}, 10, "'comb'"),
        ({}, 0, "velocities 0"),
    ],
)
def test_what_has_no_closed_form_is_refused(changes: dict[str, object], velocities: int, word: str) -> None:
    with pytest.raises(DatagenError, match=word):
        conditional_statistics(small_recipe(**changes), velocities)
