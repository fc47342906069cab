"""The README's table and picture of the codecs that come with the package, from their results.json files and the limits.

    python benchmarks/models.py --readme README.md --picture benchmarks/results/rd.png
    python benchmarks/models.py --scenario cost2100 --readme README.md --picture benchmarks/results/rd-cost2100.png

Nothing is measured here: `zoo release` wrote the results, `zoo limits` the limits (results/limits.json, results/limits-cost2100.json).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.released import MISSING, missing, released, remark
from benchmarks.tables import SCENARIO, place, put_into, results_file
from zoo import plot, registry

RATES = (64, 128, 192, 256, 320)  # columns
NEAR = 8  # bits from a column that a rate may stand in it; CsiNet and CRNet send up to 4 bits more
SNR_DB = 30.0


def column(bits: int) -> int | None:
    """The column that a rate stands in, if there is one."""
    return next((rate for rate in RATES if abs(rate - bits) <= NEAR), None)


def markdown(found: list[dict[str, Any]], limits: dict[str, Any]) -> str:
    """Families, limits and published points by rate: NMSE in dB."""
    rows: dict[str, dict[int | None, str]] = {}
    sizes: dict[str, set[str]] = {}
    for result in found:
        name = f"`{registry.family_of(result['model'])}`"
        levels = {level["snr_db"]: f"{level['nmse_db']:.1f}" for level in result["side_information"]}
        told = f"{levels[SNR_DB]} ({levels[None]})" if result["decoder_has_y"] else levels[None]
        rows.setdefault(name, {})[column(result["bits"])] = told
        sizes.setdefault(name, set()).add(f"{result['parameters'] / 1e6:.2f}")
    for family, parameters in missing(found).items():
        rows[f"`{family}`, {MISSING}"] = {}
        sizes[f"`{family}`, {MISSING}"] = {f"{parameters / 1e6:.2f}"}
    for row in limits["rows"]:
        cells = zip(row["bits"], row["nmse_db"], strict=True)
        rows[f"*limit: {row['name']}*"] = {column(bits): f"{nmse:.1f}" for bits, nmse in cells}
    data, elsewhere = found[0]["data"], []
    for row in plot.published(data["name"], "bits"):
        points = {bits: f"{nmse:.1f}" for bits, nmse in zip(row["bits"], row["nmse_db"], strict=True)}
        if any(map(column, points)):
            rows[f"*published: {row['name']}*"] = {column(bits): nmse for bits, nmse in points.items()}
        others = ", ".join(f"{nmse} at {bits}" for bits, nmse in points.items() if column(bits) is None)
        elsewhere += [f"{row['name']} {others}"] if others else []
    lines = [
        "| NMSE in dB at a rate of about | parameters | " + " | ".join(f"{rate} bits" for rate in RATES) + " |",
        "|---|---:|" + "---:|" * len(RATES),
    ]
    for name, told_at in rows.items():
        size = sorted(sizes.get(name, {""}))
        told = f"{size[0]} M" if len(size) == 1 else f"{size[0]}–{size[-1]} M"
        told = told if name in sizes else ""
        lines.append(f"| {name} | {told} | " + " | ".join(told_at.get(rate, "") for rate in RATES) + " |")
    with_y = any(result["decoder_has_y"] for result in found)
    side = f", Y at {SNR_DB:g} dB SNR, in brackets Y as simulated" if with_y else " (X itself is what is fed back)"
    counts = sorted({result["data"]["samples"] for result in found})
    samples = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    note = f"{samples} {data['split']} samples of `{data['name']}`{side}; payloads are real bytes."
    efforts = {registry.family_of(result["model"]): effort for result in found if (effort := result.get("effort", 0))}
    for family, effort in efforts.items():
        note += f" `{family}` at effort {effort}: the phone looks for its payload through the decoder."
    if elsewhere:
        note += f" Published at other rates [bits]: {'; '.join(elsewhere)}."
    return "\n\n".join(filter(None, ["\n".join(lines), note, remark(data)])) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", default=SCENARIO, help="data set's part of the models' names")
    parser.add_argument("--readme", type=Path, help="put the table into this file")
    parser.add_argument("--picture", type=Path, help="draw the rate-distortion picture")
    arguments = parser.parse_args()
    found = released(arguments.scenario, symbols=False)
    limits = plot.read_limits(results_file("limits", arguments.scenario))
    table = markdown(found, limits)
    print(table)
    if arguments.readme is not None:
        put_into(arguments.readme, place(__file__, arguments.scenario), table)
    if arguments.picture is not None:
        plot.rd(found, arguments.picture, limits, SNR_DB)


if __name__ == "__main__":
    main()
