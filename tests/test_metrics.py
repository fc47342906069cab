"""NMSE and rho against cases worked out by hand, and against the definition written as loops."""

from __future__ import annotations

import math

import numpy as np
import pytest

from zoo.metrics import bler, nmse, nmse_db, relative_errors, rho

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


@pytest.mark.parametrize(
    "measure",
    [
        nmse,
        nmse_db,
        relative_errors,
        lambda z, estimate: rho(z, estimate, 2),
        lambda z, estimate: bler(z, estimate, 0.0, 2),
    ],
)
def test_other_shapes_are_refused_not_broadcast(measure: object) -> None:
    assert callable(measure)
    with pytest.raises(ValueError, match=r"shapes \(2, 1, 2\) and \(1, 1, 2\) differ"):
        measure(Z, ESTIMATE[:1])


def test_bler_by_hand() -> None:
    h = np.array([[[1], [0]], [[0], [2]]], np.complex64)  # two antennas, one delay, of any size
    snr = 10 ** (3 / 10) * 2  # perfect CSI: two antennas add 3 dB
    bit = 0.5 * math.erfc(math.sqrt(snr / 2))
    assert bler(h, 5j * h, 3.0, 1) == pytest.approx(1 - (1 - bit) ** 2)
    assert bler(h, h, 3.0, 7) == pytest.approx(1 - (1 - bit) ** 14)  # flat: 7 symbols of the same SNR
    assert bler(h, np.zeros_like(h), 30.0, 1) == pytest.approx(0.75)  # no beam, no bit
    assert bler(h, h[:, ::-1], 30.0, 1) == pytest.approx(0.75)  # a beam that misses
    half = np.ones_like(h)  # a beam that catches half of the power
    assert bler(h, half, 3.0, 1) == pytest.approx(bler(h, h, 3.0 - 10 * math.log10(2), 1))
    assert 1e-8 < bler(h, h, 12.0, 1) < 1e-7  # nothing is counted


def test_bler_falls_with_snr_and_with_nmse() -> None:
    generator = np.random.default_rng(1)
    z, noise = generator.standard_normal((2, 200, 8, 4, 2)).view(np.complex128)[..., 0]
    rates = [[bler(z, z + size * noise, snr, 8) for snr in (0.0, 5.0, 10.0)] for size in (0.1, 0.5, 1.5)]
    assert all(row == sorted(row, reverse=True) for row in rates)
    assert all(column == sorted(column) for column in map(list, zip(*rates, strict=True)))


def test_bler_is_what_counting_finds() -> None:
    """Bits through antennas, noise and a UE that decides by signs."""
    generator = np.random.default_rng(2)
    z, noise = generator.standard_normal((2, 3000, 4, 3, 2)).view(np.complex128)[..., 0]
    estimate, subcarriers, snr_db, times = z + 0.5 * noise, 6, 3.0, 10
    h, g = (np.fft.fft2(array, (4, subcarriers)) for array in (z, estimate))  # antennas, subcarriers
    h /= np.sqrt(np.square(np.abs(h)).mean(axis=(1, 2), keepdims=True))
    beam = (g.conj() / np.linalg.norm(g, axis=1, keepdims=True) * h).sum(axis=1)  # [sample, subcarrier]
    failed = 0.0
    for _ in range(times):
        sent = generator.choice([-1, 1], (*beam.shape, 2))
        symbols = (sent[..., 0] + 1j * sent[..., 1]) / math.sqrt(2)
        received = beam * symbols + 10 ** (-snr_db / 20) * generator.standard_normal((*beam.shape, 2)).view(complex)[
            ..., 0
        ] / math.sqrt(2)
        turned = received * beam.conj()
        wrong = (np.sign(turned.real) != sent[..., 0]) | (np.sign(turned.imag) != sent[..., 1])
        failed += wrong.any(axis=1).mean() / times
    assert bler(z, estimate, snr_db, subcarriers) == pytest.approx(failed, rel=0.03)
    assert 0.05 < failed < 0.95
