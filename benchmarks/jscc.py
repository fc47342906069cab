"""Models that send symbols, and the limits of the link: the README's tables and picture.

    python benchmarks/jscc.py STORE UPLINK --readme README.md --picture benchmarks/results/snr.png

The first table is of the results that `zoo release` wrote beside the weights of the package, and of separation limits; what one model
makes of coarse quantisation, of the phone's own misestimate, of more steps and of office channels is measured here. STORE is the data set that the models
are of, UPLINK feedback channels of `datagen inh --uplink`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.tables import arguments, publish
from zoo import limits, plot, registry, results
from zoo.data import Store
from zoo.evaluate_jscc import DOWNLINK_SNR_DB, SNRS_DB, evaluate_jscc
from zoo.uplink import Rayleigh

PATTERN = "*-cdl-k*"
RATES = (8, 16, 32)
K, SNR_DB = 16, 5.0  # where curves are measured
MODEL = "rd-jscc-lite-cdl-k32"
SAMPLES = 2000  # of the curves
SWEEPS: dict[str, dict[str, Any]] = {  # by what varies: options of evaluate_jscc
    "steps of refinement": {"steps": (0, 1, 2, 20, "auto")},
    "bits a real dimension": {"bits": (None, 6, 4, 3, 2)},
    "CNR of the phone's own CSI": {"cnr_db": (None, 20.0, 10.0, 5.0, 0.0)},
}
BOUNDS = ("Gaussian bound, instantaneous", "KLT code, instantaneous")


def released() -> list[dict[str, Any]]:
    """Results of the models of the package that send symbols."""
    found = [results.read(registry.WEIGHTS / name) for name in registry.list_models(PATTERN)]
    return [result for result in found if result is not None]


def measure(store: Store, uplink: str, model: str = MODEL, samples: int = SAMPLES) -> dict[str, Any]:
    """Limits of each rate, and a model's curves at one rate and SNR."""
    common: dict[str, Any] = {
        "samples": samples,
        "symbols": (K,),
        "snr_db": (SNR_DB,),
        "downlink_snr_db": DOWNLINK_SNR_DB,
    }
    return {
        "model": model,
        "samples": samples,
        "limits": [limits.over_link(store, Rayleigh(flat=False), k, SNRS_DB) for k in RATES],
        "sweeps": {
            name: evaluate_jscc(model, store, **{**common, **options})["points"] for name, options in SWEEPS.items()
        },
        "office": evaluate_jscc(model, store, **common, channel=uplink)["points"],
    }  # fmt: skip


def over_snr(found: list[dict[str, Any]], bounds: list[dict[str, Any]]) -> str:
    """Families and limits by rate and SNR: NMSE in dB."""
    lines = [
        "| NMSE in dB at an SNR an antenna of | k | " + " | ".join(f"{snr:g} dB" for snr in SNRS_DB) + " |",
        "|---|---:|" + "---:|" * len(SNRS_DB),
    ]

    def row(name: str, k: int, levels: dict[float, float]) -> None:
        lines.append(f"| {name} | {k} | " + " | ".join(f"{levels[snr]:.1f}" for snr in SNRS_DB) + " |")

    for k in RATES:
        for result in found:
            points = [point for point in result["points"] if point["k"] == k]
            for steps in dict.fromkeys(point["steps"] for point in points):
                told = f", {plot.SAID['steps'](steps)}" if len({point["steps"] for point in points}) > 1 else ""
                levels = {point["snr_db"]: point["nmse_db"] for point in points if point["steps"] == steps}
                row(f"`{registry.family_of(result['model'])}`{told}", k, levels)
        for bound in bounds:
            if bound["link"]["k"] == k:
                for one in bound["rows"]:
                    if one["name"] in BOUNDS:
                        row(f"*limit: {one['name']}*", k, dict(zip(one["snr_db"], one["nmse_db"], strict=True)))
    return "\n".join(lines) + "\n"


def curves(measured: dict[str, Any]) -> str:
    """What one model makes of everything else."""
    lines = [
        f"| `{registry.family_of(measured['model'])}`, k = {K}, {SNR_DB:g} dB | | NMSE [dB] | BLER |",
        "|---|---:|---:|---:|",
    ]
    columns = {"steps of refinement": "steps", "bits a real dimension": "bits", "CNR of the phone's own CSI": "cnr_db"}
    for name, points in measured["sweeps"].items():
        for point in points:
            value = point[columns[name]]
            if columns[name] != "steps" and point["steps"] != max(one["steps"] for one in points):
                continue  # the model's own choice of steps
            told = f"auto, {100 * point['refined_share']:.0f} % refined" if value == "auto" else _told(value)
            lines.append(f"| {name} | {told} | {point['nmse_db']:.2f} | {point['bler']:.1e} |")
    lines += [
        f"| over office channels with line of sight | {plot.SAID['steps'](point['steps'])} | {point['nmse_db']:.2f} | {point['bler']:.1e} |"
        for point in measured["office"]
    ]
    return "\n".join(lines) + "\n"


def _told(value: float | None) -> str:
    return "none" if value is None else f"{value:g}"


def markdown(found: list[dict[str, Any]], measured: dict[str, Any]) -> str:
    """Both tables."""
    data = found[0]["data"]
    size = {
        registry.family_of(
            result["model"]
        ): f"`{registry.family_of(result['model'])}` {result['parameters'] / 1e6:.2f} M"
        for result in found
    }
    note = (
        f"{data['samples']} {data['split']} samples of `{data['name']}` (X itself is what is fed back), Rayleigh fading, 32 antennas, one model for "
        f"all k and SNRs. Parameters: {', '.join(size.values())}."
    )
    second = f"The first {measured['samples']} of them; blocks of one QPSK symbol a subcarrier at {DOWNLINK_SNR_DB:g} dB, precoded by what was decoded."
    return "\n".join([over_snr(found, measured["limits"]), note, "", curves(measured), second, ""])


def main() -> None:
    parser = arguments(__file__, __doc__)
    parser.add_argument("store", help="of the data set that the models are of")
    parser.add_argument("uplink", help="of feedback channels")
    parser.add_argument("--picture", type=Path, help="draw NMSE over SNR")
    given = parser.parse_args()
    found, measured = released(), measure(Store(given.store), given.uplink)
    publish(__file__, given, measured, markdown(found, measured))
    if given.picture is not None:
        draw(found, measured, given.picture)


def draw(found: list[dict[str, Any]], measured: dict[str, Any], out: Path) -> None:
    """NMSE over SNR at :data:`K` symbols, with the limits."""
    bounds = [
        {**bound, "rows": [row for row in bound["rows"] if row["name"] in BOUNDS]} for bound in measured["limits"]
    ]
    plot.snr(found, out, bounds, chosen={"k": (K,)})


if __name__ == "__main__":
    main()
