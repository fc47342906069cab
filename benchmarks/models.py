"""The README's table and picture of the codecs that come with the package, from their results.json files and the limits.

    python benchmarks/models.py --readme README.md --picture benchmarks/results/rd.png

Nothing is measured here: `zoo release` wrote the results, `zoo limits` the limits.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.tables import put_into
from zoo import plot, registry, results

RATES = (64, 128, 192, 256, 320)  # columns; CsiNet and CRNet send up to 4 bits more
LIMITS = Path(__file__).parent / "results/limits.json"
SNR_DB = 30.0
PATTERN = "*-cdl-*b"  # models that send payloads; benchmarks/jscc.py has the others


def column(bits: int) -> int:
    """The column that a rate stands in."""
    return min(RATES, key=lambda rate: abs(rate - bits))


def markdown(found: list[dict[str, Any]], limits: dict[str, Any]) -> str:
    """Families, limits and published points by rate: NMSE in dB."""
    rows: dict[str, dict[int, str]] = {}
    sizes: dict[str, set[str]] = {}
    for result in found:
        family = registry.family_of(result["model"])
        levels = {level["snr_db"]: level["nmse_db"] for level in result["side_information"]}
        rows.setdefault(f"`{family}`", {})[column(result["bits"])] = f"{levels[SNR_DB]:.1f} ({levels[None]:.1f})"
        sizes.setdefault(f"`{family}`", set()).add(f"{result['parameters'] / 1e6:.2f}")
    for row in limits["rows"]:
        rows[f"*limit: {row['name']}*"] = {
            column(bits): f"{nmse:.1f}" for bits, nmse in zip(row["bits"], row["nmse_db"], strict=True) if bits in RATES
        }
    for row in plot.published(found[0]["data"]["name"], "bits"):
        rows[f"*published: {row['name']}*"] = {
            column(bits): f"{nmse:.1f}" for bits, nmse in zip(row["bits"], row["nmse_db"], strict=True)
        }
    lines = [
        "| NMSE in dB at a rate of about | parameters | " + " | ".join(f"{rate} bits" for rate in RATES) + " |",
        "|---|---:|" + "---:|" * len(RATES),
    ]
    for name, cells in rows.items():
        size = sorted(sizes.get(name, {""}))
        told = f"{size[0]} M" if len(size) == 1 else f"{size[0]}–{size[-1]} M"
        told = told if name in sizes else ""
        lines.append(f"| {name} | {told} | " + " | ".join(cells.get(rate, "") for rate in RATES) + " |")
    data = found[0]["data"]
    note = (
        f"{data['samples']} {data['split']} samples of `{data['name']}`, Y at {SNR_DB:g} dB SNR, in brackets Y as simulated; "
        "payloads are real bytes."
    )
    return "\n".join([*lines, "", note]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pattern", default=PATTERN, help="which models")
    parser.add_argument("--readme", type=Path, help="put the table into this file")
    parser.add_argument("--picture", type=Path, help="draw the rate-distortion picture")
    arguments = parser.parse_args()
    found = [results.read(registry.WEIGHTS / name) for name in registry.list_models(arguments.pattern)]
    measured = [result for result in found if result is not None]
    limits = plot.read_limits(LIMITS)
    table = markdown(measured, limits)
    print(table)
    if arguments.readme is not None:
        put_into(arguments.readme, "benchmarks/models.py", table)
    if arguments.picture is not None:
        plot.rd(measured, arguments.picture, limits, SNR_DB)


if __name__ == "__main__":
    main()
