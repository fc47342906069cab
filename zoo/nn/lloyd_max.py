"""Scalar quantisers of least mean squared error for Gaussian components, and how to spread bits over them.

Sources: J. Max, "Quantizing for minimum distortion", IRE Trans. IT 1960; S. P. Lloyd, "Least squares quantization in PCM", IEEE Trans.
IT 1982; A. Gersho, R. M. Gray, Vector Quantization and Signal Compression, ch. 8 (allocation by greatest marginal return).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from zoo.errors import ZooError

MAX_WIDTH = 8  # bits of a scalar


def _density(t: Tensor) -> Tensor:
    return torch.exp(-t.square() / 2) / math.sqrt(2 * math.pi)


@functools.cache
def lloyd_max(width: int) -> tuple[Tensor, float]:
    """The best quantiser of a unit real Gaussian, by Newton's method on Max's equations.

    Every level is the centroid of its cell and every threshold lies midway between two levels. The levels are symmetric about zero, so
    that the positive ones are solved for.

    :param width: bits, 0 to :data:`MAX_WIDTH`
    :returns: levels, ascending, float64 [2^width]; mean squared error
    """
    if width == 0:
        return torch.zeros(1, dtype=torch.float64), 1.0
    half = 2 ** (width - 1)
    centre = (torch.arange(half, dtype=torch.float64) + half + 0.5) / (2 * half)
    levels = math.sqrt(3) * torch.special.ndtri(centre)  # Panter and Dite: levels as dense as the density's cube root
    ends = torch.tensor([0.0, math.inf], dtype=torch.float64)
    for _ in range(50):
        t = torch.cat((ends[:1], (levels[1:] + levels[:-1]) / 2, ends[1:]))
        density, tail = _density(t), torch.special.erfc(t / math.sqrt(2)) / 2
        mass = tail[:-1] - tail[1:]
        centroid = (density[:-1] - density[1:]) / mass
        if (levels - centroid).abs().max() < 1e-12:
            break
        below = density[:-1] * (centroid - t[:-1]) / mass / 2  # how a centroid follows the levels at its two thresholds
        above = density[1:-1] * (t[1:-1] - centroid[:-1]) / mass[:-1] / 2
        below[0] = 0  # the threshold at zero stays
        slope = torch.diag(below) + torch.diag(below[1:], -1) + torch.diag(above, 1)
        slope[:-1, :-1] += torch.diag(above)
        levels = levels - torch.linalg.solve(torch.eye(half, dtype=torch.float64) - slope, levels - centroid)
    return torch.cat((-levels.flip(0), levels)), float(1 - 2 * (mass * levels.square()).sum())


def allocate(variances: NDArray[np.floating], bits: int) -> tuple[int, ...]:
    """Widths for the real and the imaginary parts of Gaussian components: each bit goes where it lowers the total error most.

    :param variances: of complex components, in descending order, shape [component]
    :param bits: to spend, all of them
    :returns: widths (re, im, re, im, ...) of the leading components that get any, summing to ``bits``
    :raises ZooError: the components cannot take that many bits
    """
    parts = np.repeat(np.asarray(variances, np.float64), 2)
    if bits > MAX_WIDTH * len(parts):
        raise ZooError(
            f"{len(variances)} components take at most {MAX_WIDTH * len(parts)} bits; {bits} is too high a rate"
        )
    error = np.array([lloyd_max(width)[1] for width in range(MAX_WIDTH + 1)])
    gain = np.append(error[:-1] - error[1:], -1.0)  # of one bit more, at each width; none beyond the last
    widths = np.zeros(len(parts), np.int64)
    for _ in range(bits):
        widths[np.argmax(np.where(gain[widths] < 0, -1.0, parts * gain[widths]))] += 1
    used = 2 * (1 + int(np.flatnonzero(widths)[-1]) // 2) if bits else 0
    return tuple(widths[:used].tolist())


class GaussianQuantiser(nn.Module):
    """Lloyd-Max quantisers side by side, for complex components with E|s|^2 = 1.

    :param widths: bits of the real and the imaginary part of each component, (re, im, re, im, ...)
    """

    levels: Tensor  # [2 component, most levels], padded with zeros
    thresholds: Tensor  # [2 component, most levels - 1], padded with infinity
    error: Tensor  # E|s - s^|^2 of each component, [component]

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        most = 2 ** max(widths, default=0)
        levels = torch.zeros(len(widths), most, dtype=torch.float64)
        thresholds = torch.full((len(widths), most - 1), math.inf, dtype=torch.float64)
        for row, width in enumerate(widths):
            table = lloyd_max(width)[0] / math.sqrt(2)
            levels[row, : len(table)] = table
            thresholds[row, : len(table) - 1] = (table[1:] + table[:-1]) / 2
        error = torch.tensor([lloyd_max(width)[1] for width in widths], dtype=torch.float64)
        for name, table in (("levels", levels), ("thresholds", thresholds), ("error", error.view(-1, 2).mean(1))):
            self.register_buffer(name, table.to(torch.get_default_dtype()), persistent=False)

    def codes(self, components: Tensor) -> Tensor:
        """Nearest levels: complex [n, component] to int64 [n, 2 component]."""
        parts = torch.view_as_real(components).flatten(1).T.contiguous()
        return torch.searchsorted(self.thresholds.to(parts.dtype), parts).T

    def forward(self, codes: Tensor) -> Tensor:
        """The levels themselves, the mean of what is quantised to them: int64 [n, 2 component] to complex [n, component]."""
        levels = self.levels.to(torch.promote_types(self.levels.dtype, torch.float32))
        return torch.view_as_complex(levels.gather(1, codes.T).T.unflatten(1, (-1, 2)).contiguous())
