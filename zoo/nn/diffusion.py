"""Deterministic diffusion in few steps: the schedule, one step, the loop. Functions of tensors; no state.

alpha-bar_t is cumulative throughout: z_t = sqrt(alpha-bar_t) z_0 + sqrt(1 - alpha-bar_t) eps, alpha-bar_0 = 1.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

from torch import Tensor

MAX_BETA = 0.999  # a step keeps at least 1 - MAX_BETA of the signal's power


def cosine_alpha_bar(steps: int, offset: float = 0.008) -> list[float]:
    """Cumulative alpha-bar_0 = 1, ..., alpha-bar_T of the cosine schedule (Nichol and Dhariwal 2021, eq. 17).

    For T = 4: 1, 0.847, 0.493, 0.144, 1.44e-4, which GD-CSI §IV-A prints as alpha_1 ... alpha_4.

    :param steps: T, 1 and up
    """
    angle = [(t / steps + offset) / (1 + offset) * math.pi / 2 for t in range(steps + 1)]
    alpha_bar = [1.0]
    for before, after in itertools.pairwise(angle):
        alpha_bar.append(alpha_bar[-1] * max(math.cos(after) ** 2 / math.cos(before) ** 2, 1 - MAX_BETA))
    return alpha_bar


def add_noise(z0: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """z_t of z_0 (GD-CSI eq. 2).

    :param z0: [n, ...]
    :param noise: standard normal, same shape
    :param alpha_bar: of each sample's time, [n]
    """
    level = alpha_bar.view(-1, *(1 for _ in z0.shape[1:])).to(z0.dtype)
    return level.sqrt() * z0 + (1 - level).sqrt() * noise


def step_weights(alpha_bar: float, next_alpha_bar: float) -> tuple[float, float]:
    """(k, m) of the step k z^_0 + m z_t without fresh noise: DDIM with eta = 0 (GD-CSI eq. 6; RD-JSCC eq. 7).

    :param alpha_bar: at t, below 1
    :param next_alpha_bar: at the time that follows
    """
    m = math.sqrt(1 - next_alpha_bar) / math.sqrt(1 - alpha_bar)
    return math.sqrt(next_alpha_bar) - math.sqrt(alpha_bar) * m, m


def ddim_step(z: Tensor, clean: Tensor, alpha_bar: float, next_alpha_bar: float) -> Tensor:
    """From z_t and the estimate of z_0 to z at the time that follows, by :func:`step_weights`.

    :param z: z_t, any shape
    :param clean: estimate of z_0, same shape
    """
    k, m = step_weights(alpha_bar, next_alpha_bar)
    return k * clean + m * z


def sample(denoise: Callable[[Tensor, int], Tensor], start: Tensor, alpha_bar: list[float], steps: int) -> Tensor:
    """Run the deterministic backward process from t = T to 0.

    :param denoise: (z_t, t) to an estimate of z_0
    :param start: z_T (GD-CSI: zeros)
    :param alpha_bar: of :func:`cosine_alpha_bar`
    :param steps: how many of the T times are visited, evenly spaced from T down; 1 is a single call at T
    """
    last = len(alpha_bar) - 1
    times = [
        round(last * left / steps) for left in range(steps, -1, -1)
    ]  # numbers, not a tensor: compilers follow them
    z = start
    for t, following in itertools.pairwise(times):
        z = ddim_step(z, denoise(z, t), alpha_bar[t], alpha_bar[following])
    return z
