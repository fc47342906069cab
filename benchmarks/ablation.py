"""What each departure from the GD-CSI paper is worth: its U-Net with few channels trained anew on the same batches, one thing changed at a time.

    python benchmarks/ablation.py store.zarr --steps 300 --readme README.md

All variants have the same steps, batches, schedule and seed, and are measured by payloads of the same test samples.
"""

from __future__ import annotations

import math
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import zoo
from benchmarks.datagen import machine
from benchmarks.models import SNR_DB
from benchmarks.tables import arguments, publish
from zoo import config
from zoo.bench import bench
from zoo.data import Cached, Source, Store
from zoo.evaluate import evaluate
from zoo.registry import rate_of, read_config
from zoo.train import build, export, train

RECIPE = "gd-csi-paper"
SMALL: dict[str, Any] = {  # sizes and training for two CPU cores
    "codec.width": 12, "codec.kernel": 3, "training.steps": 10_000, "training.batch": 96, "training.precision": "bfloat16",
}  # fmt: skip
USUAL = config.load(RECIPE, SMALL)
RATE = USUAL.codec["rate"]  # bits, of the table
RATES = (64, 128, 192, 256)  # where there are several


class Variant(NamedTuple):
    """A row: what differs, and from which row."""

    words: str
    base: str | None
    change: dict[str, Any]
    trained: bool = True  # itself; else it decodes with the weights of its base


VARIANTS = {
    "A": Variant("as in the paper", None, {}),
    "B": Variant("with several rates from one network", "A", {"codec.rates": RATES}),
    "C": Variant("decoded in one call, weights as they are", "B", {"codec.decoding_steps": 1}, trained=False),
    "D": Variant("trained through that call", "C", {"codec.objective": "sampler"}),
    "E": Variant("for one rate alone", "D", {"codec.rates": ()}),
    "F": Variant("without side information", "D", {"codec.side_information": False}),
    "G": Variant("with normalisation over channels alone", "D", {"codec.norm": "channel"}),
}


def differences(name: str) -> dict[str, Any]:
    """All that a variant changes, from the first row on."""
    _, base, change, _ = VARIANTS[name]
    return {**(differences(base) if base else {}), **change}


def recipe(name: str, steps: int, changes: dict[str, Any]) -> config.Recipe:
    """How a variant is trained.

    :param changes: to all variants, by dotted key
    """
    same = {
        "training.steps": steps, "training.validation_samples": 16,
        "training.warmup_steps": min(USUAL.training.warmup_steps, steps // 10),
    }  # fmt: skip
    return config.load(RECIPE, {**SMALL, **same, **changes, **differences(name)})


def make(name: str, given: config.Recipe, source: Source, runs: Path) -> list[Path]:
    """Models of a variant, one a rate; a run that is there goes on."""
    variant, run = VARIANTS[name], runs / name
    if variant.trained:
        return train(given, source, run, resume=True)
    start = given.training.model_copy(update={"init": str(runs / str(variant.base))})
    codec = build(given.model_copy(update={"training": start}), source)
    return export(codec, given, source, {"dataset": source.record()}, run / "models")


def measure(
    store: Store, steps: int, samples: int, runs: Path, seconds: float, changes: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Train, then evaluate, then time all variants.

    :param samples: of the test split
    :param runs: directory of the runs
    :param seconds: each side of a codec is timed for
    :param changes: to all variants, by dotted key
    """
    recipes = {name: recipe(name, steps, changes or {}) for name in VARIANTS}
    training = recipes["A"].training
    seen = min(steps * training.batch, store.sizes["train"])
    source = Cached(store, "cpu", seen, training.seed)
    models = {name: make(name, given, source, runs) for name, given in recipes.items()}
    rows: dict[str, dict[str, Any]] = {}
    for name, paths in models.items():
        rates = {}
        for path in paths:
            found = evaluate(path, store, samples=samples, snr_db=[SNR_DB], rho_samples=0, progress=True)
            [level] = found["side_information"]
            rates[str(rate_of(path.name))] = {
                "weights_sha256": found["weights_sha256"],
                **{key: value for key, value in level.items() if key.startswith("nmse")},
            }
        rows[name] = {"rates": rates}
    for name, paths in models.items():
        [path] = [path for path in paths if rate_of(path.name) == RATE]
        rows[name] |= {"config": read_config(path)["codec"], "cost": bench(zoo.load(path), seconds=seconds)}
    return {
        "data": found["data"], "train_samples": seen, "training": training.model_dump(mode="json"), "snr_db": SNR_DB,
        "variants": rows, "machine": machine(),
    }  # fmt: skip


def markdown(results: dict[str, Any]) -> str:
    """The table of the README."""
    rows, data, training = results["variants"], results["data"], results["training"]
    level = {name: row["rates"][str(RATE)] for name, row in rows.items()}
    speed = {name: row["cost"]["decompress_samples_per_second"] for name, row in rows.items()}
    lines = [
        "| | GD-CSI in small | rates [bits] | training minimises | U-Net calls | NMSE [dB] | against | decoder, M MACs | its time |",
        "|---|---|---|---|---:|---:|---|---:|---:|",
    ]
    for name, row in rows.items():
        words, base, *_ = VARIANTS[name]
        against = "" if base is None else f"{level[name]['nmse_db'] - level[base]['nmse_db']:+.2f} to {base}"
        told = [
            name, words if base is None else f"{base} {words}", ", ".join(row["rates"]),
            {"diffusion": "eq. (7)", "sampler": "decoder's error"}[row["config"]["objective"]],
            row["config"]["decoding_steps"], f"{level[name]['nmse_db']:.2f}", against,
            f"{row['cost']['decompress_macs'] / 1e6:.1f}", f"{speed['A'] / speed[name]:.2f}",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(map(str, told))} |")
    worst = max(10 / math.log(10) * one["nmse_standard_error"] / one["nmse"] for one in level.values())
    threads = rows["A"]["cost"]["threads"]
    note = (
        f"NMSE at {RATE} bits, real payloads, of {data['samples']} {data['split']} samples of `{data['name']}`, Y at {results['snr_db']:g} dB SNR; "
        f"standard errors up to {worst:.2f} dB, one seed. `{RECIPE}` with {USUAL.codec['width']} channels for {training['steps']} of its {USUAL.training.steps} steps "
        f"of {training['batch']} samples, {results['train_samples']} in all, the same batches for every row; the rates of one network share each "
        f"batch evenly. {results['machine']['processor']}, {threads} thread{'s' * (threads > 1)}, torch {results['machine']['torch']}."
    )
    return "\n".join([*lines, "", note, ""])


def main() -> None:
    parser = arguments(__file__, __doc__)
    parser.add_argument("store", type=Path, help="of cdl-c-fdd-v1")
    parser.add_argument("--steps", type=int, required=True, help="of training, each variant")
    parser.add_argument("--samples", type=int, default=1000, help="of the test split")
    parser.add_argument("--seconds", type=float, default=2.0, help="each side of a codec is timed for")
    parser.add_argument("--runs", type=Path, help="keep the runs here, and go on with those that are there")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        runs = given.runs or Path(directory)
        results = measure(Store(given.store), given.steps, given.samples, runs, given.seconds)
    publish(__file__, given, results, markdown(results))


if __name__ == "__main__":
    main()
