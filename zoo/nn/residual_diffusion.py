"""Residual diffusion: from a coarse estimate to the clean image, not from noise. Functions of tensors; no state.

    z_t = sqrt(alpha-bar_t) z_0 + sqrt(1 - alpha-bar_t) (lambda r + eps),  r = H^ - z_0,  t = 1 ... N        (10)
    z_N = sqrt(alpha-bar_N) H^ + sqrt(1 - alpha-bar_N) eps                                                   (5)

Source: S. K. Ankireddy, H. Kim and H. Kim, "Residual Diffusion Models for Variable-Rate Joint Source Channel Coding of MIMO CSI"
(RD-JSCC) §IV; equation numbers are its. Every alpha is cumulative: its eq. (8) drops the bars, without which eta_N is not 1.

Started from noise (``lambda = 0``), the same functions are the generative diffusion that the paper compares with.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

from torch import Tensor

from zoo.nn.diffusion import add_noise, cosine_alpha_bar, ddim_step


def alpha_bar_at(time: float, steps: int) -> float:
    """alpha-bar of the cosine schedule of T = ``steps``, also between its whole times.

    :param time: 0 ... T; between two whole times the logarithm is interpolated
    """
    schedule, before = cosine_alpha_bar(steps), min(int(time), steps - 1)
    share = time - before
    return schedule[before] ** (1 - share) * schedule[before + 1] ** share


def residual_weight(start_alpha_bar: float) -> float:
    """lambda, which makes eta_N = 1 (below eq. 8).

    :param start_alpha_bar: alpha-bar_N, below 1
    """
    return math.sqrt(start_alpha_bar) / math.sqrt(1 - start_alpha_bar)


def residual_share(alpha_bar: float, weight: float) -> float:
    """eta_t, the share of the residual that z_t has taken on: from 0 at t = 0 to 1 at N (eq. 8).

    :param alpha_bar: alpha-bar_t
    :param weight: lambda of :func:`residual_weight`
    """
    return weight * math.sqrt(1 - alpha_bar) / math.sqrt(alpha_bar)


def add_residual_noise(z0: Tensor, coarse: Tensor, noise: Tensor, alpha_bar: Tensor, weight: float) -> Tensor:
    """z_t of z_0 and its coarse estimate (eq. 10).

    :param z0: [n, ...]
    :param coarse: H^, same shape
    :param noise: standard normal, same shape
    :param alpha_bar: of each sample's time, [n]
    :param weight: lambda; 0 leaves the residual out
    """
    return add_noise(z0, weight * (coarse - z0) + noise, alpha_bar)


def visited(start: int, calls: int) -> tuple[float, ...]:
    """Times at which the denoiser is called: evenly from N down to 1, both among them; (10, 1) is two-step decoding from N = 10.

    More calls than N visit times between the whole ones too: the time is a real number to schedule and denoiser.

    :param start: N
    :param calls: 1 and up; one call is at N
    """
    return tuple(start + (1 - start) * number / max(calls - 1, 1) for number in range(calls))


def refine(
    denoise: Callable[[Tensor, float], Tensor], start: Tensor, times: Sequence[float], alpha_bar: Callable[[float], float]
) -> Tensor:  # fmt: skip
    """Run the deterministic backward process (eq. 7 with sigma = 0) over given times, and to 0 after the last.

    :param denoise: (z_t, t) to an estimate of z_0
    :param start: z at the first time: of eq. (5), or noise
    :param times: descending, e.g. of :func:`visited`
    :param alpha_bar: of a time
    """
    z = start
    for t, following in itertools.pairwise((*times, 0.0)):
        z = ddim_step(z, denoise(z, t), alpha_bar(t), alpha_bar(following))
    return z
