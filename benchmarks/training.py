"""How fast GD-CSI trains on one CPU thread: the dense networks beside the paper's U-Net, one after the other in one run.

    python benchmarks/training.py --readme README.md

Batches are of simulated samples that are kept; a step is all that a step of ``zoo train`` does.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.datagen import machine
from benchmarks.tables import arguments, publish
from zoo import config
from zoo.data import Kept
from zoo.speed import training_speed

RECIPES: dict[
    str, tuple[str, dict[str, Any]]
] = {  # by row: the recipe, and what is changed; the U-Net's batches are a fifth of the paper's, whose steps take long
    "gd-csi, float32": ("gd-csi", {"training.precision": "float32"}),
    "gd-csi, bfloat16": ("gd-csi", {"training.precision": "bfloat16"}),
    "gd-csi-multirate, five rates": ("gd-csi-multirate", {"training.precision": "float32"}),
    "gd-csi-paper, float32": ("gd-csi-paper", {"training.precision": "float32", "training.batch": 20}),
    "gd-csi-paper, bfloat16": ("gd-csi-paper", {"training.precision": "bfloat16", "training.batch": 20}),
}
REFERENCE = "gd-csi-paper, float32"
SAMPLES = 1024  # kept, of which batches are made


def measure(seconds: float, changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """Measure steps, samples and floating point operations a second of each recipe, and samples over those of :data:`REFERENCE`.

    :param seconds: least time that each is measured for
    :param changes: to all recipes, by dotted key
    """
    torch.set_num_threads(1)
    source = Kept(None, "cpu", SAMPLES, seed=0)
    rows: dict[str, Any] = {}
    for name, (recipe, own) in RECIPES.items():
        found = training_speed(config.load(recipe, {**own, **(changes or {})}), source, "cpu", seconds)
        steps = found["steps_per_second"]["trained"]
        rows[name] = {
            "batch": found["batch"], "steps_per_second": steps, "samples_per_second": steps * found["batch"],
            "gflop_per_sample": found["flops_per_step"] / found["batch"] / 1e9, "gflops": steps * found["flops_per_step"] / 1e9,
        }  # fmt: skip
    reference = rows[REFERENCE]["samples_per_second"]
    for row in rows.values():
        row["times_reference"] = row["samples_per_second"] / reference
    return {"rows": rows, "machine": machine(), "torch": torch.__version__}


def markdown(results: dict[str, Any]) -> str:
    """Write the table of the README."""
    lines = [
        "| training step of | batch | steps/s | samples/s | GFLOP a sample | GFLOP/s | times the U-Net's samples/s |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, row in results["rows"].items():
        lines.append(
            f"| `{name.partition(',')[0]}`{name.partition(',')[1]}{name.partition(',')[2]} | {row['batch']} | {row['steps_per_second']:.2f} "
            f"| {row['samples_per_second']:.0f} | {row['gflop_per_sample']:.3f} | {row['gflops']:.0f} | {row['times_reference']:.1f} |"
        )
    return "\n".join([*lines, "", f"{results['machine']['processor']}, 1 thread, torch {results['torch']}."]) + "\n"


def main() -> None:
    parser = arguments(__file__, __doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="each recipe is timed for")
    given = parser.parse_args()
    results = measure(given.seconds)
    publish(__file__, given, results, markdown(results))


if __name__ == "__main__":
    main()
