"""What the phone gains and pays by looking for its payload: NMSE and samples/s at each effort, one after the other in one run on one thread.

    python benchmarks/effort.py cost2100=cost2100.zarr inh=inh.zarr --readme README.md

Of each data set, the gd-csi models of the package; payloads are real bytes, decoded as they would be at the base station.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import zoo
from benchmarks.datagen import machine
from benchmarks.released import of_family
from benchmarks.tables import arguments, publish
from zoo import metrics
from zoo.data import Store

FAMILY = "gd-csi"
SAMPLES = 1000  # of the test split


def measure(stores: dict[str, Store], samples: int) -> dict[str, Any]:
    """Measure NMSE [dB] and samples a second of the sender at each effort, and of the receiver, by data set and model.

    :param stores: by data set, as in the models' names
    :param samples: of the test split, the first so many
    """
    torch.set_num_threads(1)
    rows = []
    for scenario, store in stores.items():
        x = store.read("test", 0, samples).x.numpy()
        for result in of_family(FAMILY, scenario, symbols=False):
            codec = zoo.load(result["model"])
            row: dict[str, Any] = {
                "model": result["model"],
                "data": store.dataset.name,
                "bits": codec.bits,
                "efforts": [],
            }
            for effort in range(codec.efforts):
                start = time.perf_counter()
                payloads = codec.compress(x, effort=effort)
                sent = time.perf_counter()
                z = codec.decompress(payloads)
                row["decoded_per_second"] = len(x) / (time.perf_counter() - sent)
                assert {len(payload) for payload in payloads} == {codec.payload_bytes}
                row["efforts"].append(
                    {"effort": effort, "nmse_db": metrics.nmse_db(x, z), "sent_per_second": len(x) / (sent - start)}
                )
            rows.append(row)
    return {"samples": samples, "rows": rows, "machine": machine(), "torch": torch.__version__}


def markdown(results: dict[str, Any]) -> str:
    """Write the table of the README."""
    efforts = range(max(len(row["efforts"]) for row in results["rows"]))
    head = " | ".join(f"effort {effort} [dB] | samples/s" for effort in efforts)
    lines = [f"| model | {head} | decoded, samples/s |", "|---|" + "---:|" * (2 * len(efforts) + 1)]
    for row in results["rows"]:
        cells = " | ".join(f"{one['nmse_db']:.2f} | {one['sent_per_second']:.0f}" for one in row["efforts"])
        lines.append(f"| `{row['model']}` | {cells} | {row['decoded_per_second']:.0f} |")
    gained = [row["efforts"][0]["nmse_db"] - row["efforts"][-1]["nmse_db"] for row in results["rows"]]
    return (
        "\n".join(
            [
                *lines,
                "",
                f"First {results['samples']} test samples of each set; the most effort gains {np.min(gained):.2f} to {np.max(gained):.2f} dB. "
                f"{results['machine']['processor']}, 1 thread, torch {results['torch']}.",
            ]
        )
        + "\n"
    )


def main() -> None:
    parser = arguments(__file__, __doc__)
    parser.add_argument("stores", nargs="+", metavar="SCENARIO=STORE", help="data sets, as in the models' names")
    parser.add_argument("--samples", type=int, default=SAMPLES, help="of each test split")
    given = parser.parse_args()
    stores = {scenario: Store(path) for scenario, _, path in (store.partition("=") for store in given.stores)}
    results = measure(stores, given.samples)
    publish(__file__, given, results, markdown(results))


if __name__ == "__main__":
    main()
