"""COST 2100: samples per second against the plain way, and fidelity to the official set.

Plain is what one writes first, in numpy: every path at every antenna and subcarrier, transform, crop; from the same paths.

python benchmarks/cost2100.py --out benchmarks/results/cost2100.json --readme README.md
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import datagen
from benchmarks.datagen import kernel, rate
from benchmarks.tables import arguments, publish
from datagen import fidelity
from datagen.plan import CHUNK
from datagen.scenarios import cost2100

VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "published parameters": {"parameters": "published"},
    "published, 256 users an environment": {"parameters": "published", "users_per_environment": 256},
}


def variants(environment: str) -> dict[str, datagen.COST2100Recipe]:
    """Recipes to compare, by name."""
    kind = datagen.COST2100Recipe
    return {name: kind.model_validate({"environment": environment, **fields}) for name, fields in VARIANTS.items()}


def plain(recipe: datagen.COST2100Recipe, samples: int) -> Callable[[], int]:
    engine = cost2100.ClosedForm(recipe, torch.device("cpu"))
    f = recipe.lowest_frequency_mhz * 1e6 + np.arange(recipe.subcarriers) * recipe.spacing_khz * 1e3
    antenna = np.arange(recipe.antennas)[:, None]

    def run() -> int:
        found = cost2100.paths(recipe, engine.draw("train", range(samples)).to(torch.device("cpu")))
        for i in range(samples):
            own = found.sample == i
            delay, cosine, amplitude = (
                np.concatenate([part[own].flatten().numpy(), one[i : i + 1].numpy()])
                for part, one in (
                    (found.delay_s, found.los_delay_s),
                    (found.cos_ue, -found.los_cos_bs),
                    (found.amplitude, found.los_amplitude),
                )
            )
            h = (np.exp(-1j * np.pi * antenna * cosine) * amplitude) @ np.exp(-2j * np.pi * np.outer(delay, f))
            x = np.fft.fftshift(np.fft.fft(np.fft.ifft(h, axis=1)[:, : recipe.crop_taps], axis=0), axes=0)
            x *= 0.5 / np.abs(x).max()
        return samples

    return run


def measure(seconds: float, samples: int) -> dict[str, Any]:
    """Speeds of both ways and fidelity of every variant, by environment."""
    results: dict[str, Any] = {"samples": samples, "torch": torch.__version__, "environments": {}}
    for environment in fidelity.OFFICIAL:
        recipes = variants(environment)
        slow, fast = (
            rate(plain(recipes["default"], 8), seconds),
            rate(kernel(recipes["default"], "closed-form", CHUNK), seconds),
        )
        published = rate(kernel(recipes["published parameters"], "closed-form", CHUNK), seconds)
        found = {}
        for name, recipe in recipes.items():
            x = torch.cat([batch["X"] for batch in datagen.sample(recipe, range(samples))]).numpy()
            found[name] = fidelity.compare(recipe, x)
        results["environments"][environment] = {
            "plain_samples_per_second": slow,
            "samples_per_second": fast,
            "samples_per_second_published_parameters": published,
            "ratio": fast / slow,
            "variants": found,
        }
    return results


def markdown(results: dict[str, Any]) -> str:
    """The table of the README."""
    rows = {
        "mean_energy": "mean energy, peak 0.5",
        "mean_delay_taps": "mean delay [taps]",
        "rms_delay_taps": "RMS delay [taps]",
        "energy_in_strongest_cells": "energy in 32, 64, 128 cells",
        "energy_in_strongest_taps": "energy in 1, 2, 4, 8 taps",
        "strongest_tap_5_to_95_percent": "strongest tap, 5–95 %",
    }
    lines = []
    for environment, found in results["environments"].items():
        lines += [
            f"| {environment} | {' | '.join(found['variants'])} | official |",
            "|---" * (len(found["variants"]) + 2) + "|",
        ]
        official = fidelity.OFFICIAL[environment]
        for key, words in rows.items():
            values = [variant["measured"][key] for variant in found["variants"].values()]
            lines.append(f"| {words} | {' | '.join(map(_show, [*values, official.get(key)]))} |")
        lines.append("")
    speeds = []
    for environment, found in results["environments"].items():
        default, published = (
            f"{found[key]:,.0f}".replace(",", " ")
            for key in ("samples_per_second", "samples_per_second_published_parameters")
        )
        speeds.append(
            f"{environment} {default} samples/s, {found['ratio']:.0f} times the plain way, and {published} with the published parameters"
        )
    return "\n".join([*lines, f"{results['samples']} samples each. One core: {'; '.join(speeds)}.", ""])


def _show(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(_show, value))
    return "" if value is None else f"{value:.3g}"


def main() -> None:
    parser = arguments(__file__, __doc__)
    parser.add_argument("--seconds", type=float, default=10, help="measuring time of each speed")
    parser.add_argument("--samples", type=int, default=4096, help="samples that fidelity is measured on")
    given = parser.parse_args()
    torch.set_num_threads(1)
    results = measure(given.seconds, given.samples)
    publish(__file__, given, results, markdown(results))


if __name__ == "__main__":
    main()
