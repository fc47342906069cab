"""The angular-delay domain: crop, its closed form for discrete paths, and the inverse. One definition each.

A CSI sample is the crop of the 2-D inverse DFT of the spatial-frequency matrix H[antenna, subcarrier]: both axes inverse
transformed with the 1/N convention of ``numpy.fft``, first ``delay_taps`` delays kept, no fftshift.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np

Array = TypeVar("Array")  # numpy.ndarray or torch.Tensor


def _fft(array: object):  # type: ignore[no-untyped-def]  # numpy.fft and torch.fft share the names used here
    if isinstance(array, np.ndarray):
        return np.fft
    import torch.fft

    return torch.fft


def to_angular_delay(spatial_frequency: Array, delay_taps: int) -> Array:
    """Spatial-frequency matrix to angular-delay crop.

    :param spatial_frequency: complex, numpy or torch, shape [..., antenna, subcarrier]
    :param delay_taps: number of delay taps kept, at most the number of subcarriers
    :returns: same kind and precision, shape [..., antenna (now angle), delay_taps]
    """
    return _fft(spatial_frequency).ifft2(spatial_frequency)[..., :delay_taps]  # type: ignore[no-any-return]


def to_spatial_frequency(angular_delay: Array, subcarriers: int) -> Array:
    """Undo :func:`to_angular_delay`: zero-pad the delay axis, then the 2-D DFT.

    :param angular_delay: complex, numpy or torch, shape [..., angle, delay]
    :param subcarriers: length of the subcarrier axis, at least the number of delay taps
    :returns: same kind, shape [..., angle (now antenna), subcarriers]
    """
    angles = angular_delay.shape[-2]  # type: ignore[attr-defined]
    return _fft(angular_delay).fft2(angular_delay, (angles, subcarriers))  # type: ignore[no-any-return]


def delay_kernel(delays_s: Any, subcarriers: int, spacing_hz: float, offset_hz: float, delay_taps: int) -> Any:
    """Delay taps of unit paths: the inverse DFT over subcarriers in closed form, a Dirichlet kernel.

    Subcarrier k of K lies at ``offset + (k - floor(K/2)) spacing`` from the carrier of the path coefficients, as in Sionna's
    ``subcarrier_frequencies``. A path of delay tau contributes exp(-j 2 pi f_k tau), a geometric series in k, so that

        D[l] = exp(-j 2 pi f_0 tau) * exp(j pi (K-1) x) * sin(pi K x) / (K sin(pi x)),   x = l/K - spacing tau.

    :param delays_s: path delays [s], numpy or torch, float64, shape [..., path]
    :param subcarriers: K
    :param spacing_hz: subcarrier spacing [Hz]
    :param offset_hz: centre of the band relative to the carrier of the coefficients [Hz]
    :param delay_taps: number of taps kept
    :returns: same kind, complex128, shape [..., path, delay_taps]
    """
    xp: Any = np
    tau = delays_s[..., None]
    grid: Any = np.arange(delay_taps) / subcarriers
    if not isinstance(delays_s, np.ndarray):
        import torch

        xp, grid = torch, torch.as_tensor(grid, device=tau.device)
    x = grid - spacing_hz * tau
    x = x - xp.round(x)  # the kernel has period 1 up to the phase factor, which is 1 for whole periods of the DFT
    on_grid = abs(x) < 1e-12
    ratio = xp.where(
        on_grid, 1.0, xp.sin(np.pi * subcarriers * x) / xp.where(on_grid, 1.0, subcarriers * xp.sin(np.pi * x))
    )
    first_hz = offset_hz - (subcarriers // 2) * spacing_hz
    return ratio * xp.exp(1j * np.pi * ((subcarriers - 1) * x - 2 * first_hz * tau))
