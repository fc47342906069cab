"""Distortion measures, one definition each."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Complex = NDArray[np.complexfloating]
Energies = NDArray[np.float64]
AT_ONCE = 32  # samples whose subcarriers are held at a time
DOMAINS = ("angular-delay", "spatial-frequency")  # that an NMSE may be measured in


def relative_errors(z: Complex, estimate: Complex, tail: Energies | None = None) -> Energies:
    """||Z - estimate||_F^2 / ||Z||_F^2 of each sample, shape [sample].

    :param z: complex [sample, angle, delay]
    :param estimate: same shape
    :param tail: energy of each sample outside of the crop, [sample], for errors in the spatial-frequency domain: see
        :func:`crop_and_tail`; None for those in the angular-delay domain, where the crop is all there is
    :raises ValueError: the shapes differ
    """
    if z.shape != estimate.shape:
        raise ValueError(f"shapes {z.shape} and {estimate.shape} differ")
    outside = np.zeros(len(z)) if tail is None else tail
    if outside.shape != z.shape[:1]:
        raise ValueError(f"shapes {z.shape} and {outside.shape} differ")
    return (_energies(z - estimate) + outside) / (_energies(z) + outside)


def _energies(z: Complex) -> Energies:
    """||Z||_F^2 of each sample, shape [sample]."""
    energies: Energies = np.square(np.abs(z), dtype=np.float64).sum(axis=(1, 2))
    return energies


def crop_and_tail(h: Complex, delays: int, *, official: bool = False) -> tuple[Complex, Energies]:
    """What estimates are compared with for errors in the spatial-frequency domain [RD-JSCC §IV and §VII].

    There an estimate is padded with zeros to as many delays as there are subcarriers, transformed by the 2-D DFT and compared with H
    itself, so that the energy which the crop threw away counts as error. The transform multiplies all energies by one factor
    (Parseval), so ``relative_errors(crop, estimate, tail)`` is that ||H - H^||_F^2 / ||H||_F^2, at one transform a sample, however many
    estimates there are.

    :param h: complex [sample, antenna, subcarrier], the whole band; in any unit, which the crop then has too
    :param delays: that the crop keeps, at most as many as subcarriers
    :param official: H and estimates are in the official convention of datagen/FORMAT.md, section 5
    :returns: the crop of the 2-D inverse DFT of H, complex [sample, angle, delay]; the energy of the other delays, [sample]
    """
    crop = np.empty((*h.shape[:2], delays), h.dtype)
    tail = np.empty(len(h))
    for start in range(0, len(h), AT_ONCE):
        rows = slice(start, start + AT_ONCE)
        taps = np.fft.ifft(h[rows], axis=2)
        whole = np.fft.fftshift(np.fft.fft(taps, axis=1), axes=1) if official else np.fft.ifft(taps, axis=1)
        crop[rows], tail[rows] = whole[:, :, :delays], _energies(whole[:, :, delays:])
    return crop, tail


def nmse(z: Complex, estimate: Complex) -> float:
    """Mean over samples of :func:`relative_errors`."""
    return float(relative_errors(z, estimate).mean())


def nmse_db(z: Complex, estimate: Complex) -> float:
    """:func:`nmse` in dB: 10 log10 of the mean ratio, not the mean of decibels."""
    return float(10 * np.log10(nmse(z, estimate)))


def _responses(z: Complex, estimate: Complex, subcarriers: int) -> Iterator[tuple[Complex, Complex]]:
    """Angular-delay crops, padded to ``subcarriers`` delays and transformed back, some samples at a time.

    From angles to antennas is unitary up to a factor, which cancels in what is made of these: the transform over delays is enough.
    """
    if z.shape != estimate.shape:
        raise ValueError(f"shapes {z.shape} and {estimate.shape} differ")
    for start in range(0, len(z), AT_ONCE):
        h, g = (np.fft.fft(array[start : start + AT_ONCE], subcarriers, axis=2) for array in (z, estimate))
        yield h, g


def rho(z: Complex, estimate: Complex, subcarriers: int) -> float:
    """Mean over samples and subcarriers of |<h^, h>| / (||h^|| ||h||), h the antenna vector of a subcarrier.

    :param z: complex angular-delay crop [sample, angle, delay]; both are padded to ``subcarriers`` delays and transformed back
    :raises ValueError: the shapes differ
    """
    total = 0.0
    for h, g in _responses(z, estimate, subcarriers):
        inner = np.abs((g.conj() * h).sum(axis=1))
        scale = np.linalg.norm(g, axis=1) * np.linalg.norm(h, axis=1)
        total += (inner / np.maximum(scale, np.finfo(np.float32).tiny)).sum()  # zero correlates with nothing
    return float(total / (len(z) * subcarriers))


def bler(z: Complex, estimate: Complex, snr_db: float, subcarriers: int) -> float:
    """Uncoded block error rate of a downlink that is precoded by reconstructed CSI; the idea of RD-JSCC's Fig. 5.

    The paper states neither modulation nor block, precoder nor the SNR of the downlink. Here a block is one QPSK symbol on each of
    the ``subcarriers``; it fails if one of their bits does. The precoder is maximum-ratio transmission by the reconstruction,
    h^ / ||h^||, at equal power on all subcarriers, and the UE knows the product <h^, h> / ||h^|| (from precoded pilots), so that its
    SNR on a subcarrier is snr |<h^, h>|^2 / ||h^||^2. The error probability of given channels is exact and their mean is taken, so
    nothing is counted and small rates need no more samples than large ones.

    :param z: complex angular-delay crop [sample, angle, delay]; both are padded to ``subcarriers`` delays and transformed back. The
        size of a sample does not count: the mean power of its entries, antennas by subcarriers, is taken for 1
    :param snr_db: transmitted power over noise of such an entry [dB]: perfect CSI adds 10 log10 of the number of antennas
    :raises ValueError: the shapes differ
    """
    import torch

    tiny, total = np.finfo(np.float64).tiny, 0.0
    for h, g in _responses(z, estimate, subcarriers):
        h, g = h.astype(np.complex128), g.astype(np.complex128)
        beam = np.square(np.abs((g.conj() * h).sum(axis=1))) / np.maximum(np.square(np.abs(g)).sum(axis=1), tiny)
        power = np.square(np.abs(h)).mean(axis=(1, 2))[:, None]
        root = np.sqrt(10 ** (snr_db / 10) * beam / np.maximum(power, tiny))
        # A bit fails with Q(sqrt(snr)) = 1 - Phi(sqrt(snr)); a block of 2 bits a subcarrier with 1 - prod Phi^2.
        sound = 2 * torch.special.log_ndtr(torch.from_numpy(root)).sum(1)
        total += float(-torch.expm1(sound).sum())
    return total / len(z)
