"""How much the uplink Y and the past downlink X tell about the target Z by linear estimation, and what noise on Y leaves of it.

    python benchmarks/side_information.py --out benchmarks/results/side_information.json --readme README.md

CDL profiles have fixed cluster delays and angles, so that a triple has only some hundred degrees of freedom, fewer than Y has cells.
Without noise the weakest principal components of Y, far below what any receiver measures, determine Z; with noise they tell nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import datagen
from benchmarks.tables import arguments, publish

COMPONENTS = (48, 100, 140)
SNRS_DB = (None, 60, 40, 30, 20, 10)  # of Y, per cell of its angular-delay matrix; None: as simulated


def principal(samples: NDArray[np.complex64], components: int) -> NDArray[np.complex128]:
    """The leading principal components of samples [sample, cell], [sample, components]."""
    wide = samples.astype(np.complex128)
    _, vectors = np.linalg.eigh(wide.T @ wide.conj() / len(wide))
    features: NDArray[np.complex128] = wide @ vectors[:, ::-1][:, :components].conj()
    return features


def linear_error_db(features: list[NDArray[np.complex128]], target: NDArray[np.complexfloating], fit: int) -> float:
    """Error energy over energy of least squares fitted on the first ``fit`` samples, on the others [dB]."""
    stacked = np.concatenate(features, axis=1)
    weights = np.linalg.lstsq(stacked[:fit], target[:fit], rcond=None)[0]
    error = target[fit:] - stacked[fit:] @ weights
    return float(10 * np.log10(np.square(np.abs(error)).sum() / np.square(np.abs(target[fit:])).sum()))


def measure(samples: int, recipe: datagen.CDLRecipe) -> dict[str, Any]:
    """Errors of linear estimates of Z [dB]: by components of X and of Y without noise, and by the noise on Y."""
    (triple,) = datagen.sample(recipe, range(samples), batch_size=samples)
    x, y, z = (array.reshape(samples, -1).numpy() for array in triple.values())
    target, fit = principal(z, 64), samples * 5 // 6
    px, py = principal(x, max(COMPONENTS)), principal(y, max(COMPONENTS))
    noiseless = {
        str(k): {
            "X": linear_error_db([px[:, :k]], target, fit),
            "Y": linear_error_db([py[:, :k]], target, fit),
            "X and Y": linear_error_db([px[:, :k], py[:, :k]], target, fit),
        }
        for k in COMPONENTS
    }
    rng = np.random.default_rng(0)
    noisy = {}
    for snr_db in SNRS_DB:
        scale = 0.0 if snr_db is None else np.sqrt(np.square(np.abs(y)).mean() / 2) * 10 ** (-snr_db / 20)
        noise = scale * (rng.standard_normal(y.shape) + 1j * rng.standard_normal(y.shape))
        received = principal((y + noise).astype(np.complex64), max(COMPONENTS))
        noisy["none" if snr_db is None else str(snr_db)] = {
            "Y": linear_error_db([received], target, fit),
            "X and Y": linear_error_db([px, received], target, fit),
        }
    return {"recipe_digest": recipe.digest, "samples": samples, "by_components": noiseless, "by_snr_of_y_db": noisy}


def markdown(results: dict[str, Any]) -> str:
    """The table of the README."""
    by_components, by_snr = results["by_components"], results["by_snr_of_y_db"]
    lines = ["| linear estimate of Z from, error in dB | X | Y | X and Y |", "|---|---:|---:|---:|"]
    for k, row in by_components.items():
        lines.append(
            f"| {k} principal components of each, no noise | {row['X']:.1f} | {row['Y']:.1f} | {row['X and Y']:.1f} |"
        )
    for snr, row in by_snr.items():
        if snr != "none":
            k = max(COMPONENTS)
            lines.append(
                f"| {k} components, Y at {snr} dB SNR | {by_components[str(k)]['X']:.1f} | {row['Y']:.1f} | {row['X and Y']:.1f} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = arguments(__file__, __doc__)
    parser.add_argument("--samples", type=int, default=30_000)
    given = parser.parse_args()
    results = measure(given.samples, datagen.CDLRecipe())
    publish(__file__, given, results, markdown(results))


if __name__ == "__main__":
    main()
