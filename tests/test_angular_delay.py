"""The crop, its closed form and its inverse."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datagen.angular_delay import delay_kernel, to_angular_delay, to_spatial_frequency


def response(delays_s: np.ndarray, subcarriers: int, spacing_hz: float, offset_hz: float) -> np.ndarray:
    """Frequency response of unit paths, [path, subcarrier], straight from the definition."""
    f = offset_hz + (np.arange(subcarriers) - subcarriers // 2) * spacing_hz
    result: np.ndarray = np.exp(-2j * np.pi * f * delays_s[:, None])
    return result


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(0, 5e-6), min_size=1, max_size=4),
    st.integers(1, 700),
    st.sampled_from([15e3, 30e3, 120e3]),
    st.floats(-1e8, 1e8),
    st.data(),
)
def test_kernel_is_the_inverse_dft(
    delays: list[float], subcarriers: int, spacing: float, offset: float, data: st.DataObject
) -> None:
    taps = data.draw(st.integers(1, subcarriers))
    tau = np.array(delays)
    expected = np.fft.ifft(response(tau, subcarriers, spacing, offset), axis=-1)[:, :taps]
    np.testing.assert_allclose(delay_kernel(tau, subcarriers, spacing, offset, taps), expected, atol=2e-9)


def test_kernel_on_the_delay_grid_is_one_tap() -> None:
    tau = np.arange(4) / (64 * 15e3)
    np.testing.assert_allclose(np.abs(delay_kernel(tau, 64, 15e3, 0.0, 8)), np.eye(4, 8), atol=1e-12)


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_crop_and_undo(kind: str) -> None:
    rng = np.random.default_rng(0)
    h = rng.normal(size=(2, 8, 24)) + 1j * rng.normal(size=(2, 8, 24))
    array = h if kind == "numpy" else torch.from_numpy(h)
    full = to_angular_delay(array, 24)
    np.testing.assert_allclose(np.asarray(to_spatial_frequency(full, 24)), h, atol=1e-12)
    np.testing.assert_array_equal(np.asarray(to_angular_delay(array, 5)), np.asarray(full)[..., :5])
    padded = np.concatenate([np.asarray(full)[..., :5], np.zeros((2, 8, 19))], -1)
    np.testing.assert_allclose(
        np.asarray(to_spatial_frequency(to_angular_delay(array, 5), 24)), np.fft.fft2(padded), atol=1e-12
    )
