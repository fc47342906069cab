"""The diffusion schedule and its steps: printed values, closed form, and diffusers as an oracle."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from zoo.nn.diffusion import add_noise, cosine_alpha_bar, ddim_step, sample

ORACLE: Any = DDIMScheduler  # whose types are not complete


def normal(seed: int, n: int = 3) -> Tensor:
    return torch.randn(n, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_alpha_bar_is_cumulative_and_as_the_paper_prints_it() -> None:
    alpha_bar = cosine_alpha_bar(4)
    assert alpha_bar == pytest.approx([1, 0.847, 0.493, 0.144, 1.44e-4], rel=5e-3)
    steps = [after / before for before, after in itertools.pairwise(alpha_bar)]
    assert steps == pytest.approx([0.847, 0.583, 0.292, 0.001], rel=5e-3)


@pytest.mark.parametrize("steps", [1, 4, 20, 1000])
def test_alpha_bar_follows_the_cosine(steps: int) -> None:
    alpha_bar = cosine_alpha_bar(steps)
    angles = [(t / steps + 0.008) / 1.008 * math.pi / 2 for t in range(steps + 1)]
    cosine = [math.cos(angle) ** 2 / math.cos(angles[0]) ** 2 for angle in angles]
    assert alpha_bar[:-1] == pytest.approx(cosine[:-1])
    assert alpha_bar[-1] == pytest.approx(0.001 * cosine[-2])  # beta is clipped at 0.999 in the last step
    assert alpha_bar == sorted(alpha_bar, reverse=True)


def test_noise_is_added_to_each_sample_at_its_own_level() -> None:
    z0, noise = normal(0), normal(1)
    noisy = add_noise(z0, noise, torch.tensor([1.0, 0.64, 0.0]))
    assert torch.allclose(noisy[0], z0[0])
    assert torch.allclose(noisy[1], 0.8 * z0[1] + 0.6 * noise[1])
    assert torch.allclose(noisy[2], noise[2])


def test_a_step_with_the_true_image_keeps_the_noise_and_changes_its_level() -> None:
    z0, noise = normal(0), normal(1)
    stepped = ddim_step(0.6 * z0 + 0.8 * noise, z0, 0.36, 0.64)
    assert torch.allclose(stepped, 0.8 * z0 + 0.6 * noise)
    assert torch.allclose(ddim_step(0.6 * z0 + 0.8 * noise, noise, 0.36, 1.0), noise)  # the last step is the estimate


def denoise(z: Tensor, t: int) -> Tensor:
    return torch.tanh(z + 0.1 * t)


@pytest.mark.parametrize(("total", "steps"), [(4, 4), (4, 1), (20, 2), (20, 5)])
def test_sampler_against_diffusers(total: int, steps: int) -> None:
    alpha_bar = cosine_alpha_bar(total)
    betas = [1 - after / before for before, after in itertools.pairwise(alpha_bar)]
    scheduler = ORACLE(
        num_train_timesteps=total, trained_betas=torch.tensor(betas, dtype=torch.float64).numpy(), clip_sample=False,
        prediction_type="sample", timestep_spacing="trailing", set_alpha_to_one=True,
    )  # fmt: skip
    scheduler.set_timesteps(steps)
    z = start = normal(2)
    for timestep in scheduler.timesteps:  # theirs count from 0
        z = scheduler.step(denoise(z, int(timestep) + 1), int(timestep), z, eta=0.0).prev_sample
    error = (sample(denoise, start, alpha_bar, steps) - z).abs().max()
    assert error < 1e-5  # diffusers keeps its alphas in single precision


def test_times_that_are_visited() -> None:
    for steps, expected in ((4, [4, 3, 2, 1]), (2, [4, 2]), (1, [4])):
        visited: list[int] = []

        def record(z: Tensor, t: int, visited: list[int] = visited) -> Tensor:
            visited.append(t)
            return z

        sample(record, torch.zeros(1, 2), cosine_alpha_bar(4), steps)
        assert visited == expected
