"""Residual diffusion: hand-computed numbers, identities, and diffusers as an oracle."""

from __future__ import annotations

import itertools
import math
from functools import partial
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from zoo.nn.diffusion import cosine_alpha_bar, step_weights
from zoo.nn.residual_diffusion import add_residual_noise, alpha_bar_at, refine, residual_share, residual_weight, visited

ORACLE: Any = DDIMScheduler  # whose types are not complete
LEVEL = partial(alpha_bar_at, steps=20)


def normal(seed: int, n: int = 3) -> Tensor:
    return torch.randn(n, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_lambda_at_the_starts_that_could_be_meant() -> None:
    assert [residual_weight(LEVEL(n)) for n in (8, 10, 20)] == pytest.approx([1.36, 0.99, 0.0025], rel=0.02)
    assert residual_weight(0.64) == pytest.approx(0.8 / 0.6)


def test_eta_rises_from_none_of_the_residual_to_all_of_it() -> None:
    weight = residual_weight(LEVEL(10))
    eta = [residual_share(LEVEL(t), weight) for t in range(11)]
    assert eta[0] == 0
    assert eta[10] == pytest.approx(1)
    assert eta == sorted(eta)
    assert residual_share(0.8, residual_weight(0.5)) == pytest.approx(0.5)


def test_k_and_m_by_hand() -> None:
    k, m = step_weights(0.36, 0.64)  # sqrt: 0.6, 0.8 and 0.8, 0.6
    assert m == pytest.approx(0.6 / 0.8)
    assert k == pytest.approx(0.8 - 0.6 * 0.75)
    assert step_weights(0.36, 1.0) == (1.0, 0.0)  # the last step is the estimate


def test_z_t_by_hand() -> None:
    z0, coarse, noise = torch.tensor([[1.0]]), torch.tensor([[3.0]]), torch.tensor([[-1.0]])
    z = add_residual_noise(z0, coarse, noise, torch.tensor([0.64]), weight=0.5)
    assert z.item() == pytest.approx(0.8 * 1 + 0.6 * (0.5 * 2 - 1))


@pytest.mark.parametrize("n", [1, 8, 10, 19])
def test_at_the_start_nothing_of_the_clean_image_is_left(n: int) -> None:
    z0, coarse, noise, level = normal(0), normal(1), normal(2), LEVEL(n)
    levels = torch.full((3,), level, dtype=torch.float64)
    z = add_residual_noise(z0, coarse, noise, levels, residual_weight(level))
    assert torch.allclose(z, math.sqrt(level) * coarse + math.sqrt(1 - level) * noise)  # eq. (5)


@pytest.mark.parametrize("calls", [1, 2, 10, 20])
def test_the_true_image_as_estimate_comes_out_exactly(calls: int) -> None:
    z0, start = normal(0), normal(1)
    levels = {t: LEVEL(t) for t in visited(10, calls)}
    seen: list[Tensor] = []

    def denoise(z: Tensor, t: float) -> Tensor:
        seen.append((z - math.sqrt(levels[t]) * z0) / math.sqrt(1 - levels[t]))  # lambda r + eps, which stays
        return z0

    assert torch.equal(refine(denoise, start, visited(10, calls), LEVEL), z0)
    assert all(torch.allclose(noise, seen[0]) for noise in seen)
    assert len(seen) == calls


def test_times_that_are_visited() -> None:
    assert visited(10, 1) == (10,)
    assert visited(10, 2) == (10, 1)
    assert visited(10, 10) == tuple(range(10, 0, -1))
    many = visited(10, 20)
    assert len(many) == 20
    assert (many[0], many[-1]) == (10, 1)


def test_the_schedule_between_its_times() -> None:
    assert [LEVEL(t) for t in range(21)] == pytest.approx(cosine_alpha_bar(20))
    assert LEVEL(10) > LEVEL(10.5) > LEVEL(11)
    assert LEVEL(5.5) == pytest.approx(math.sqrt(LEVEL(5) * LEVEL(6)))


def denoise(z: Tensor, t: float) -> Tensor:
    return torch.tanh(z + 0.1 * t)


@pytest.mark.parametrize(("start", "calls"), [(20, 20), (10, 10), (10, 2), (8, 1), (10, 20)])
def test_against_diffusers(start: int, calls: int) -> None:
    times = visited(start, calls)
    levels = [1.0, *map(LEVEL, reversed(times))]  # of a schedule that has the visited times and no others
    betas = [1 - after / before for before, after in itertools.pairwise(levels)]
    scheduler = ORACLE(
        num_train_timesteps=calls, trained_betas=torch.tensor(betas, dtype=torch.float64).numpy(), clip_sample=False,
        prediction_type="sample", set_alpha_to_one=True,
    )  # fmt: skip
    scheduler.set_timesteps(calls)
    z = begin = normal(2)
    for t, timestep in zip(times, scheduler.timesteps, strict=True):
        z = scheduler.step(denoise(z, t), int(timestep), z, eta=0.0).prev_sample
    assert (
        refine(denoise, begin, times, LEVEL) - z
    ).abs().max() < 1e-5  # diffusers keeps its alphas in single precision
