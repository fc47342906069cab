"""Source and channel codes apart, for real: NMSE and lost blocks over SNR beside the same codec behind an ideal code, and beside JSCC.

    zoo train separate --data cost2100.zarr --out runs/cost2100
    python benchmarks/separate.py cost2100=cost2100.zarr=runs/cost2100/models/separate-cost2100-k32 --readme README.md

Each argument is a data set's part of the models' names, its store, and a model of family separate that was fitted on it. The ideal lines
are those of :func:`zoo.limits.separation` at the rates of the model's own payloads, over the same flat Rayleigh fading.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import zoo
from benchmarks.tables import arguments, publish
from zoo import registry
from zoo.data import Store
from zoo.evaluate_jscc import SNRS_DB, evaluate_jscc
from zoo.limits import separation
from zoo.models.separate import Format, Separate
from zoo.uplink import Rayleigh, capacity_bits

BESIDE = ("klt-jscc", "rd-jscc")  # families of the package, measured on the same samples
SAMPLES = 500  # of the test split
CHANNELS = 2000  # of the ideal lines
IDEAL = ("fixed rate", "instantaneous")


def measure(store: Store, model: Path, scenario: str, samples: int) -> dict[str, Any]:
    """Measure a model, the ideal lines and the models beside it, at every k and SNR."""
    loaded = zoo.load(model)
    assert isinstance(loaded, Separate)
    found = evaluate_jscc(model, store, samples=samples)
    points = []
    for point in found["points"]:
        k, snr_db = point["k"], point["snr_db"]
        form = loaded.format(k, snr_db)
        points.append(
            {
                "k": k, "snr_db": snr_db, "nmse_db": point["nmse_db"], "lost_share": point["lost_share"],
                "format": None if form is None else form._asdict(), "ideal": ideal(loaded, k, snr_db),
            }
        )  # fmt: skip
    names = [f"{family}-{scenario}-k32" for family in BESIDE if f"{family}-{scenario}-k32" in zoo.list_models()]
    beside = {
        registry.family_of(name): [
            {key: point[key] for key in ("k", "snr_db", "nmse_db")}
            for point in evaluate_jscc(name, store, samples=samples, symbols=loaded.config.symbols)["points"]
        ]
        for name in names
    }
    return {
        "data": found["data"], "inner": loaded.config.inner, "rates": list(loaded.config.offered),
        "distortion_db": [10 * math.log10(value) for value in loaded.distortion.tolist()], "points": points, "beside": beside,
    }  # fmt: skip


def ideal(model: Separate, k: int, snr_db: float) -> dict[str, float]:
    """NMSE in dB of the same payloads behind an ideal code, taking turns between rates."""
    h = Rayleigh().sample(CHANNELS, k, torch.Generator().manual_seed(0))
    rates, errors = (0, *model.config.offered), np.minimum.accumulate((1.0, *model.distortion.tolist()))

    def curve(bits: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.interp(bits, rates, errors)

    found = separation(curve, capacity_bits(h, snr_db))
    return {name: 10 * math.log10(found[name]) for name in IDEAL}


def markdown(measured: dict[str, dict[str, Any]]) -> str:
    """One table of all data sets."""
    lines = [
        "| Data | k | | " + " | ".join(f"{snr:g} dB" for snr in SNRS_DB) + " |", "|---|---:|---|" + "---:|" * len(SNRS_DB)
    ]  # fmt: skip

    def row(data: str, k: int, name: str, cells: list[str]) -> None:
        lines.append(f"| {data} | {k} | {name} | " + " | ".join(cells) + " |")

    for scenario, one in measured.items():
        for k in sorted({point["k"] for point in one["points"]}):
            points = [point for point in one["points"] if point["k"] == k]
            row(scenario, k, f"`separate`, {one['inner']}: NMSE [dB]", [f"{point['nmse_db']:.1f}" for point in points])
            row(scenario, k, "what a block is; lost", [_told(point) for point in points])
            for name in IDEAL:
                row(scenario, k, f"*ideal code, {name}*", [f"{point['ideal'][name]:.1f}" for point in points])
            for family, others in one["beside"].items():
                row(scenario, k, f"`{family}`", [f"{point['nmse_db']:.1f}" for point in others if point["k"] == k])
    told = ", ".join(f"`{one['data']['name']}` ({one['data']['samples']} test samples)" for one in measured.values())
    return "\n".join(lines) + f"\n\n{told}; flat Rayleigh fading, 32 antennas, SNR an antenna.\n"


def _told(point: dict[str, Any]) -> str:
    if point["format"] is None:
        return "nothing"
    form = Format(**point["format"])
    return f"{form.payload} bits, {1 << form.order} points; {100 * point['lost_share']:.1f} %"


def main() -> None:
    parser = arguments(__file__, __doc__)
    parser.add_argument("sets", nargs="+", metavar="SCENARIO=STORE=MODEL")
    parser.add_argument("--samples", type=int, default=SAMPLES, help="of the test split")
    given = parser.parse_args()
    measured = {}
    for text in given.sets:
        scenario, store, model = text.split("=")
        measured[scenario] = measure(Store(store), Path(model), scenario, given.samples)
    publish(__file__, given, measured, markdown(measured))


if __name__ == "__main__":
    main()
