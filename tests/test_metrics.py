"""NMSE and rho against cases worked out by hand, and against the definition written as loops."""

from __future__ import annotations

import math

import numpy as np
import pytest

from zoo.metrics import nmse, nmse_db, relative_errors, rho

Z = np.array([[[3, 4j]], [[1, 0]]], np.complex64)  # two samples of one angle and two delays, energies 25 and 1
ESTIMATE = np.array([[[3, 3j]], [[0, 0]]], np.complex64)  # off by 1 of 25, and by everything


def test_nmse_by_hand() -> None:
    assert relative_errors(Z, ESTIMATE) == pytest.approx([1 / 25, 1])
    assert nmse(Z, ESTIMATE) == pytest.approx((1 / 25 + 1) / 2)  # a mean of ratios, not the ratio 2 / 26 of sums
    assert nmse_db(Z, ESTIMATE) == pytest.approx(10 * math.log10(0.52))  # of the mean, not the mean of 0 dB and -14 dB
    assert nmse(Z, Z) == 0
    assert nmse(Z, -Z) == pytest.approx(4)
    assert nmse(1e-6 * Z, 1e-6 * ESTIMATE) == pytest.approx(0.52)


def test_rho_by_hand() -> None:
    h = np.array([[[1], [1]]], np.complex64)  # one sample, two angles, one delay: one antenna vector, (2, 0)
    assert rho(h, h, 1) == pytest.approx(1)
    assert rho(h, -2j * h, 1) == pytest.approx(1)  # neither size nor phase counts
    assert rho(h, np.array([[[1], [-1]]], np.complex64), 1) == pytest.approx(0)  # antenna vector (0, 2)
    assert rho(h, np.array([[[1], [0]]], np.complex64), 1) == pytest.approx(1 / math.sqrt(2))  # antenna vector (1, 1)
    assert rho(h, np.zeros_like(h), 1) == 0


def test_rho_is_the_mean_over_samples_and_subcarriers() -> None:
    generator = np.random.default_rng(0)
    z, estimate = generator.standard_normal((2, 3, 4, 5, 2)).view(np.complex128)[..., 0]
    subcarriers, values = 7, []
    for a, b in zip(z, estimate, strict=True):
        for k in range(subcarriers):
            delay = np.exp(-2j * np.pi * k * np.arange(5) / subcarriers)
            angle = np.exp(-2j * np.pi * np.outer(np.arange(4), np.arange(4)) / 4)
            h, g = angle @ a @ delay, angle @ b @ delay
            values.append(abs(np.vdot(g, h)) / np.linalg.norm(g) / np.linalg.norm(h))
    assert rho(z, estimate, subcarriers) == pytest.approx(np.mean(values))


@pytest.mark.parametrize("measure", [nmse, nmse_db, relative_errors, lambda z, estimate: rho(z, estimate, 2)])
def test_other_shapes_are_refused_not_broadcast(measure: object) -> None:
    assert callable(measure)
    with pytest.raises(ValueError, match=r"shapes \(2, 1, 2\) and \(1, 1, 2\) differ"):
        measure(Z, ESTIMATE[:1])
