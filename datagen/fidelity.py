"""How close a COST 2100 set comes to the official one (the CsiNet files), figure by figure.

The official files are not ours to keep; what is known of them is. Compaction and the place of the strongest tap were read from public
plots of the first ten samples; energy and delay profile are what networks trained on the official training sets carry in their first
normalisation layer, which a linear convolution separates from the data (saved models of C.-K. Wen, W.-T. Shih and S. Jin, "Deep
Learning for Massive MIMO CSI Feedback", 2018); benchmarks/csinet_judge.py reads them out. The first and the last tap outdoors are left
out: there the convolution's edge and the profile cannot be told apart.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from datagen.errors import DatagenError
from datagen.recipe import COST2100Recipe, Recipe

CELLS, TAPS = (32, 64, 128), (1, 2, 4, 8)  # strongest cells and strongest delay taps whose share of the energy is told
COLUMNS = 32  # of the official matrices

OFFICIAL: dict[str, dict[str, Any]] = {
    "outdoor": {
        "mean_energy": 1.61,
        "mean_delay_taps": 14.44,
        "rms_delay_taps": 4.72,
        "energy_in_strongest_cells": [0.82, 0.91, 0.96],
        "energy_in_strongest_taps": [0.45, 0.65, 0.80, 0.92],
        "strongest_tap_5_to_95_percent": [7, 18],
        "delay_profile": [
            None, 0.000, 0.000, 0.005, 0.006, 0.007, 0.009, 0.010, 0.017, 0.033, 0.052, 0.072, 0.090, 0.103, 0.123, 0.122,
            0.096, 0.069, 0.047, 0.026, 0.018, 0.014, 0.012, 0.010, 0.009, 0.008, 0.006, 0.007, 0.006, 0.003, 0.007, None,
        ],
    },
    "indoor": {
        "mean_energy": 0.86,
        "mean_delay_taps": 1.43,
        "rms_delay_taps": 1.39,
        "energy_in_strongest_cells": [0.97, 0.99, 1.00],
        "strongest_tap_5_to_95_percent": [0, 2],
        "delay_profile": [
            0.125, 0.582, 0.164, 0.059, 0.040, 0.018, 0.007, 0.003, 0.001, 0.000, 0.000, 0.000, 0.000, 0.000, 0.000, 0.000,
            0.000, 0.000, 0.000, 0.000, 0.000, 0.000, 0.000, 0.000, 0.000, 0.000, 0.000, 0.000, 0.000, 0.000, 0.001, 0.000,
        ],
    },
}  # fmt: skip


def environment(recipe: Recipe) -> str:
    """Which official set a data set is to be compared with, ``outdoor`` or ``indoor``.

    :raises DatagenError: there is none for this recipe
    """
    found = getattr(recipe, "environment", None)
    if found not in OFFICIAL or recipe.arrays.get("X") != (32, COLUMNS):
        raise DatagenError(
            f"{recipe.label} has no official counterpart; --fidelity is for COST 2100 sets of 32 angles and {COLUMNS} delays"
        )
    if getattr(recipe, "convention", "official") != "official":
        raise DatagenError(
            f"{recipe.label} follows the physical convention; make a set with --convention official to compare"
        )
    return str(found)


def measure(x: NDArray[np.complex64]) -> dict[str, Any]:
    """The figures of :data:`OFFICIAL` for some samples, and how the angles are occupied.

    :param x: complex64 [sample, angle, delay], of peak 0.5
    """
    power = np.square(np.abs(x)).astype(np.float64)
    energy = power.sum(axis=(1, 2))
    profile = power.sum(axis=(0, 1)) / power.sum()
    taps = np.arange(len(profile))
    mean = float(profile @ taps)
    by_tap = power.sum(axis=1)
    low, high = np.percentile(by_tap.argmax(axis=1), [5, 95], method="nearest")
    angles = power.sum(axis=(0, 2)) / power.sum()
    return {
        "mean_energy": float(energy.mean()),
        "mean_delay_taps": mean,
        "rms_delay_taps": float(np.sqrt(profile @ (taps - mean) ** 2)),
        "energy_in_strongest_cells": _strongest(power.reshape(len(x), -1), CELLS),
        "energy_in_strongest_taps": _strongest(by_tap, TAPS),
        "strongest_tap_5_to_95_percent": [int(low), int(high)],
        "delay_profile": profile.tolist(),
        "effective_angles": float(np.exp(-(angles * np.log(np.maximum(angles, 1e-30))).sum())),
        "effective_angles_per_sample": float(np.mean([_effective(p.sum(axis=1)) for p in power])),
    }


def _strongest(power: NDArray[np.float64], counts: tuple[int, ...]) -> list[float]:
    share = np.sort(power, axis=1)[:, ::-1].cumsum(axis=1) / power.sum(axis=1, keepdims=True)
    return [float(share[:, count - 1].mean()) for count in counts]


def _effective(power: NDArray[np.float64]) -> float:
    """Number of equally strong entries with the same entropy."""
    share = power / power.sum()
    return float(np.exp(-(share * np.log(np.maximum(share, 1e-30))).sum()))


def measure_paths(recipe: COST2100Recipe, samples: int = 512) -> dict[str, float]:
    """Figures of the paths behind the first samples of the train split, before any crop or scale.

    :returns: median and standard deviation of the K-factor [dB] where there is a line of sight, share of those samples, mean RMS delay
        spread [ns], mean number of far clusters seen
    """
    import torch

    from datagen.scenarios import cost2100

    with torch.no_grad():
        found = cost2100.paths(recipe, cost2100.draw(recipe, "train", range(samples)).to(torch.device("cpu")))
        power = found.amplitude.abs().square()

        def by_sample(values: torch.Tensor) -> torch.Tensor:
            return torch.zeros(samples + 1, dtype=values.dtype).index_add_(0, found.sample, values)[:samples]

        scattered, los = by_sample(power.sum(1)), found.los_amplitude.square()
        total = scattered + los
        mean = (by_sample((power * found.delay_s).sum(1)) + los * found.los_delay_s) / total
        square = (by_sample((power * found.delay_s.square()).sum(1)) + los * found.los_delay_s.square()) / total
        far = by_sample((found.kind < cost2100.LOCAL_UE).double())
        k_db = 10 * torch.log10(los[los > 0] / scattered[los > 0])
    return {
        "k_factor_median_db": float(k_db.median()) if len(k_db) else -np.inf,
        "k_factor_sigma_db": float(k_db.std()) if len(k_db) > 1 else 0.0,
        "line_of_sight_share": float((los > 0).double().mean()),
        "rms_delay_spread_ns": float((square - mean.square()).clamp(min=0).sqrt().mean() * 1e9),
        "far_clusters": float(far.mean()),
    }


def compare(recipe: Recipe, x: NDArray[np.complex64]) -> dict[str, Any]:
    """Measured and official figures side by side.

    :param recipe: what the samples were made from
    :param x: complex64 [sample, 32, 32]
    :raises DatagenError: there is no official counterpart
    """
    official = OFFICIAL[environment(recipe)]
    facts = {"environment": environment(recipe), "samples": len(x), "measured": measure(x), "official": official}
    if isinstance(recipe, COST2100Recipe):
        facts["paths"] = measure_paths(recipe)
        facts["parameters"] = {
            "k_factor_median_db": recipe.los_factor_db,
            "k_factor_sigma_db": recipe.los_factor_sigma_db,
        }
    return facts


def table(facts: dict[str, Any]) -> str:
    """The comparison as text, one figure a line."""

    def show(value: Any) -> str:
        if isinstance(value, list):
            return " ".join("–" if part is None else show(part) for part in value)
        return "–" if value is None else f"{value:.3g}"

    rows = [("", "this store", f"official {facts['environment']} set")]
    words = {
        "mean_energy": "mean energy of a sample (peak 0.5)",
        "mean_delay_taps": "mean delay [taps]",
        "rms_delay_taps": "RMS delay [taps]",
        "energy_in_strongest_cells": f"energy in the {', '.join(map(str, CELLS))} strongest cells",
        "energy_in_strongest_taps": f"energy in the {', '.join(map(str, TAPS))} strongest taps",
        "strongest_tap_5_to_95_percent": "strongest tap, 5 to 95 % of the samples",
        "effective_angles": "angles in use, all samples",
        "effective_angles_per_sample": "angles in use, one sample",
    }
    rows += [(text, show(facts["measured"][key]), show(facts["official"].get(key))) for key, text in words.items()]
    for start in range(0, COLUMNS, 8):
        ours, theirs = (_profile(facts[side]["delay_profile"][start : start + 8]) for side in ("measured", "official"))
        rows.append((f"share of the energy at taps {start}–{start + 7}", ours, theirs))
    words = {
        "k_factor_median_db": "K-factor, median [dB]",
        "k_factor_sigma_db": "K-factor, sigma [dB], the rim of its region included",
        "line_of_sight_share": "share of samples with a line of sight",
        "rms_delay_spread_ns": "RMS delay spread of the paths [ns]",
        "far_clusters": "far clusters seen, also through the rim of their region",
    }
    if "paths" in facts:
        rows.append(("", "", "parameter"))
        rows += [(text, show(facts["paths"][key]), show(facts["parameters"].get(key))) for key, text in words.items()]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _profile(values: list[float | None]) -> str:
    return " ".join("   –" if value is None else f"{value:.3f}"[1:] if value < 0.9995 else "1.00" for value in values)
