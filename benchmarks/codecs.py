"""What the codecs cost at about 128 bits, measured one after the other in one run on one thread.

python benchmarks/codecs.py --out benchmarks/results/codecs.json --readme README.md
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import zoo
from benchmarks.tables import arguments, publish
from zoo.bench import bench
from zoo.models.gdcsi import GDCSI, GDCSIConfig
from zoo.registry import family_of

MODELS = ("csinet-cdl-132b", "crnet-cdl-132b", "klt-cdl-128b", "klt-grid-cdl-128b", "gd-csi-cdl-128b")
FULL = "gd-csi-paper"  # full size, untrained: its cost is known, its quality is not
REFERENCE = "csinet"


def measure(seconds: float) -> dict[str, Any]:
    """Costs by family, and how many times the decoder of :data:`REFERENCE` is faster in this very run."""
    torch.set_num_threads(1)
    rows = {family_of(name): bench(zoo.load(name), seconds=seconds) for name in MODELS}
    rows[FULL] = bench(GDCSI(GDCSIConfig()).eval().requires_grad_(False), batch=16, seconds=seconds)
    speed = rows[REFERENCE]["decompress_samples_per_second"]
    return {
        family: {**row, "decoder_times_reference": speed / row["decompress_samples_per_second"]}
        for family, row in rows.items()
    }


def markdown(rows: dict[str, Any]) -> str:
    """The table of the README."""
    lines = [
        f"| family | encoder, M MACs | decoder, M MACs | compress, samples/s | decompress, samples/s | times {REFERENCE}'s time |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for family, row in rows.items():
        macs = " | ".join(f"{row[f'{side}_macs'] / 1e6:.1f}" for side in ("compress", "decompress"))
        speed = " | ".join(f"{row[f'{side}_samples_per_second']:.0f}" for side in ("compress", "decompress"))
        lines.append(f"| `{family}` | {macs} | {speed} | {row['decoder_times_reference']:.2f} |")
    first = next(iter(rows.values()))
    return (
        "\n".join(
            [
                *lines,
                "",
                f"One {first['device'].upper()} thread, torch {first['torch']}, batches of {first['batch']}, full-size GD-CSI of 16.",
            ]
        )
        + "\n"
    )


def main() -> None:
    parser = arguments(__file__, __doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="each side of a codec is timed for")
    given = parser.parse_args()
    rows = measure(given.seconds)
    publish(__file__, given, rows, markdown(rows))


if __name__ == "__main__":
    main()
