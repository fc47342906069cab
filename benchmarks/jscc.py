"""Models that send symbols, and the limits of the link: the README's tables and picture.

    python benchmarks/jscc.py STORE UPLINK --readme README.md --picture benchmarks/results/snr.png
    python benchmarks/jscc.py STORE UPLINK --scenario inh --readme README.md --picture benchmarks/results/snr-inh.png

The first table is of the results that `zoo release` wrote beside the weights of the package, and of separation limits; what one model
makes of coarse quantisation, of the phone's own misestimate, of more steps, of the phone's effort and of office channels is measured here. STORE is the data set that the models
are of, UPLINK feedback channels of `datagen inh --uplink`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import zoo
from benchmarks.released import MISSING, missing, of_family, released, remark
from benchmarks.tables import SCENARIO, arguments, publish
from zoo import limits, plot, registry, results
from zoo.data import Store
from zoo.evaluate_jscc import SNRS_DB, evaluate_jscc, leak_check
from zoo.uplink import Rayleigh

RATES = (8, 16, 32)
K, SNR_DB = 16, 5.0  # where curves are measured
FAMILY = "rd-jscc"
SAMPLES = 2000  # of the curves
CNRS_DB = (None, 20.0, 10.0, 5.0, 0.0)
SWEEPS: dict[str, tuple[str, str, dict[str, Any]]] = {  # in words: family, what varies, options of evaluate_jscc
    "steps of refinement": (FAMILY, "steps", {"steps": (0, 1, 2, 20, "auto")}),
    "bits a real dimension": (FAMILY, "bits", {"bits": (None, 6, 4, 3, 2), "steps": (2,)}),
    "CNR of the phone's own CSI [dB]": (FAMILY, "cnr_db", {"cnr_db": CNRS_DB, "steps": (2,)}),
}
BRIEF = ("klt-jscc", "rd-jscc", "separate")  # families of which other rates are shown
DOWNLINK_SNR_DB = 0.0  # of block error rates, where they tell estimates apart
CODE = "profile-code"  # family of codecs that an ideal channel code is put behind, where there is one of X alone
BOUNDS = ("Gaussian bound, instantaneous", "KLT code, instantaneous", f"{CODE}, instantaneous")


def measure(
    store: Store, uplink: str, scenario: str, samples: int = SAMPLES, band: str | None = None
) -> dict[str, Any]:
    """Limits of each rate, and curves at one rate and SNR, of the models of a scenario; over the whole band too, where it is kept."""
    common: dict[str, Any] = {
        "samples": samples,
        "symbols": (K,),
        "snr_db": (SNR_DB,),
        "downlink_snr_db": DOWNLINK_SNR_DB,
    }
    models = {registry.family_of(name): name for name in registry.list_models(f"*-{scenario}-k*")}
    sweeps = {
        name: {
            "model": models[family], "column": column,
            "points": evaluate_jscc(models[family], store, **{**common, **options})["points"],
        } for name, (family, column, options) in SWEEPS.items() if family in models
    }  # fmt: skip
    efforts = [
        {**point, "effort": effort}
        for effort in range(zoo.load(models[FAMILY]).efforts)
        for point in evaluate_jscc(models[FAMILY], store, **common, steps=(2,), effort=effort)["points"]
    ]
    sweeps["effort of the phone, searching its symbols"] = {
        "model": models[FAMILY],
        "column": "effort",
        "points": efforts,
    }
    office = evaluate_jscc(models[FAMILY], store, **common, channel=uplink, steps=(2,))["points"]
    sweeps["over office channels with line of sight"] = {"model": models[FAMILY], "column": "steps", "points": office}
    if band is not None:
        whole = {**common, "snr_db": SNRS_DB, "steps": (2,), "domain": "spatial-frequency"}
        points = evaluate_jscc(models[FAMILY], Store(band), **whole)["points"]
        sweeps["SNR [dB], error over the whole band"] = {"model": models[FAMILY], "column": "snr_db", "points": points}
    codes = of_family(CODE, scenario, symbols=False)
    bounds = [limits.over_link(store, Rayleigh(flat=False), k, SNRS_DB, codes=codes) for k in RATES]
    leak = leak_check(models[FAMILY], store, samples=samples, k=K, snr_db=SNR_DB)
    return {"samples": samples, "limits": bounds, "sweeps": sweeps, "leak_check": leak}


def over_snr(found: list[dict[str, Any]], bounds: list[dict[str, Any]]) -> str:
    """Families, limits and published points by rate and SNR: NMSE in dB."""
    lines = [
        "| NMSE in dB at an SNR an antenna of | k | " + " | ".join(f"{snr:g} dB" for snr in SNRS_DB) + " |",
        "|---|---:|" + "---:|" * len(SNRS_DB),
    ]

    def row(name: str, k: int, levels: dict[float, float]) -> None:
        lines.append(
            f"| {name} | {k} | " + " | ".join(f"{levels[snr]:.1f}" if snr in levels else "" for snr in SNRS_DB) + " |"
        )

    for k in (K, *(rate for rate in RATES if rate != K)):
        for result in found:
            family = registry.family_of(result["model"])
            points = [point for point in result["points"] if point["k"] == k and (k == K or family in BRIEF)]
            for steps in dict.fromkeys(point["steps"] for point in points):
                told = f", {plot.SAID['steps'](steps)}" if len({point["steps"] for point in points}) > 1 else ""
                levels = {point["snr_db"]: point["nmse_db"] for point in points if point["steps"] == steps}
                row(f"`{family}`{told}", k, levels)
        for family in missing(found) if k == K else ():
            row(f"`{family}`, {MISSING}", k, {})
        for one in next(bound["rows"] for bound in bounds if bound["link"]["k"] == k):
            if one["name"] in BOUNDS:
                row(f"*limit: {one['name']}*", k, dict(zip(one["snr_db"], one["nmse_db"], strict=True)))
        for one in plot.published(found[0]["data"]["name"], "snr_db"):
            printed = zip(one["k"], one["snr_db"], one["nmse_db"], strict=True)
            levels = {snr: nmse for rate, snr, nmse in printed if rate == k}
            if levels:
                row(f"*published: {one['name']}*", k, levels)
    return "\n".join(lines) + "\n"


def curves(measured: dict[str, Any]) -> str:
    """What varies, and what that does to a model."""
    lines = [f"| k = {K}, {SNR_DB:g} dB | | | NMSE [dB] | BLER |", "|---|---|---:|---:|---:|"]
    for name, sweep in measured["sweeps"].items():
        family = registry.family_of(sweep["model"])
        lines += [
            f"| {name} | `{family}` | {_told(point, sweep['column'])} | {point['nmse_db']:.2f} | {point['bler']:.1e} |"
            for point in sweep["points"]
        ]
    return "\n".join(lines) + "\n"


def _told(point: dict[str, Any], column: str) -> str:
    value = point[column]
    if value == "auto":
        return f"auto, {100 * point['refined_share']:.0f} % refined"
    return "none" if value is None else f"{value:g}"


def markdown(found: list[dict[str, Any]], measured: dict[str, Any]) -> str:
    """Both tables."""
    data = found[0]["data"]
    sizes = {registry.family_of(result["model"]): result["parameters"] for result in found} | missing(found)
    told = ", ".join(f"`{family}` {size / 1e6:.2f} M" for family, size in sizes.items())
    note = (
        f"{data['samples']} {data['split']} samples of `{data['name']}` (X itself is what is fed back), Rayleigh fading, 32 antennas, one model for "
        f"all k and SNRs. Parameters: {told}."
    )
    searched = {
        registry.family_of(result["model"]): results.effort(result) for result in found if results.effort(result)
    }
    note += "".join(
        f" `{family}` at effort {effort}: the phone looks for its symbols through the decoder."
        for family, effort in searched.items()
    )
    second = f"The first {measured['samples']} of them; blocks of one QPSK symbol a subcarrier at {DOWNLINK_SNR_DB:g} dB, precoded by what was decoded."
    leak = measured["leak_check"]
    rounded = ", ".join(f"{one['payload_bits']} bits {one['nmse_db']:.1f} dB" for one in leak["rounded"])
    third = (
        f"Nothing but symbols reaches a decoder: of `{registry.family_of(leak['model'])}` {leak['nmse_db']['received']:.1f} dB, with the symbols of another "
        f"sample {leak['nmse_db']['shuffled']:+.1f} dB, with noise for symbols {leak['nmse_db']['noise']:+.1f} dB, with symbols rounded to {rounded}; the "
        f"link carries {leak['capacity_bits']:.0f} bits on average."
    )
    parts = (over_snr(found, measured["limits"]), note, curves(measured), second, third, remark(data))
    return "\n\n".join(part.rstrip("\n") for part in parts if part) + "\n"


def main() -> None:
    parser = arguments(__file__, __doc__)
    parser.add_argument("store", help="of the data set that the models are of")
    parser.add_argument("uplink", help="of feedback channels")
    parser.add_argument("--scenario", default=SCENARIO, help="data set's part of the models' names")
    parser.add_argument("--samples", type=int, default=SAMPLES, help="of the curves")
    parser.add_argument(
        "--band", help="the same test samples with the whole band kept, for NMSE in the spatial-frequency domain"
    )
    parser.add_argument("--picture", type=Path, help="draw NMSE over SNR")
    given = parser.parse_args()
    found = released(given.scenario, symbols=True)
    measured = measure(Store(given.store), given.uplink, given.scenario, given.samples, given.band)
    publish(__file__, given, measured, markdown(found, measured), given.scenario)
    if given.picture is not None:
        draw(found, measured, given.picture)


def draw(found: list[dict[str, Any]], measured: dict[str, Any], out: Path) -> None:
    """NMSE over SNR at :data:`K` symbols, with the limits and what was published."""
    bounds = [
        {**bound, "rows": [row for row in bound["rows"] if row["name"] in BOUNDS]} for bound in measured["limits"]
    ]
    papers = plot.published(found[0]["data"]["name"], "snr_db")
    plot.snr(found, out, bounds, chosen={"k": (K,)}, with_published=bool(papers))


if __name__ == "__main__":
    main()
