"""Samples per second of the profile code's two sides, one after the other in one run on one thread.

python benchmarks/profile_code.py --out benchmarks/results/profile_code.json
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import datagen
import zoo
from benchmarks.tables import arguments, publish
from zoo.models.profile_code import ProfileCode

MODELS = (
    "profile-code-cost2100-64b",
    "profile-code-cost2100-128b",
    "profile-code-cost2100-320b",
    "profile-code-inh-128b",
)
RECIPES = {"cost2100": datagen.COST2100Recipe, "inh": datagen.InHRecipe}


def per_second(job: Callable[[], Any], samples: int, repeats: int) -> float:
    """Samples per second of the quickest of some runs."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        job()
        times.append(time.perf_counter() - start)
    return samples / min(times)


def one_attempt(code: ProfileCode, x: torch.Tensor) -> Any:
    """What codes a training sample: the first attempt alone."""
    return code.decide(x, attempts=1)


def measure(samples: int, repeats: int) -> dict[str, dict[str, float]]:
    """Speeds by model: of the encoder with one attempt and with all, and of the decoder [samples/s]."""
    torch.set_num_threads(1)
    rows, known = {}, dict[str, torch.Tensor]()
    for name in MODELS:
        scenario, code = name.split("-")[2], zoo.load(name)
        assert isinstance(code, ProfileCode)
        if scenario not in known:
            known[scenario] = torch.cat([b["X"] for b in datagen.sample(RECIPES[scenario](), range(samples), "test")])
        x = known[scenario]
        payloads = code.compress(x)
        sides = {
            "encoder_one_attempt": partial(one_attempt, code, x),
            "encoder": partial(code.compress, x),
            "decoder": partial(code.decompress, payloads),
        }
        rows[name] = {f"{side}_samples_per_second": per_second(job, samples, repeats) for side, job in sides.items()}
    return rows


def markdown(rows: dict[str, dict[str, float]]) -> str:
    """A table of the speeds."""
    lines = [
        "| model | encoder, one attempt, samples/s | encoder, samples/s | decoder, samples/s |",
        "|---|---:|---:|---:|",
    ]
    lines += [
        f"| `{name}` | " + " | ".join(f"{speed:.0f}" for speed in row.values()) + " |" for name, row in rows.items()
    ]
    return "\n".join([*lines, "", f"One CPU thread, torch {torch.__version__}."]) + "\n"


def main() -> None:
    parser = arguments(__file__, __doc__)
    parser.add_argument("--samples", type=int, default=2048, help="that are coded at once")
    parser.add_argument("--repeats", type=int, default=3, help="the quickest counts")
    given = parser.parse_args()
    rows = measure(given.samples, given.repeats)
    publish(__file__, given, rows, markdown(rows))


if __name__ == "__main__":
    main()
