"""Triples per second of the naive Sionna pipeline and of both engines, in one process and one run, on one core each.

    python benchmarks/datagen.py --out benchmarks/results/datagen.json --readme README.md

naive        Sionna's CDL at all 71 instants, full 667-subcarrier band, downlink and uplink, 2-D IFFT, crop; float32, best batch size
sionna       the reference engine: draws by index, two instants, double precision
closed-form  the default engine: draws by index, kernel
end-to-end   simulate, fingerprint, write, read back, note in the ledger; in this process, and with 1 and 2 Dask workers
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.tables import arguments, publish
from datagen import store as stores
from datagen.cluster import connect
from datagen.execute import Job, write_shard
from datagen.manifest import Producer, ShardRecord
from datagen.plan import SHARD, Plan
from datagen.recipe import CDLRecipe, Recipe
from datagen.scenarios import make_engine


def rate(function: Callable[[], int], seconds: float) -> float:
    """Samples per second of a function that returns how many it made, over at least ``seconds`` after one warm-up."""
    function()
    made, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        made += function()
    return made / (time.perf_counter() - start)


def naive(recipe: CDLRecipe, batch: int) -> Callable[[], int]:
    """What one writes from Sionna's tutorial: the whole resource grid, then the two symbols that are wanted."""
    from sionna.phy.channel import cir_to_ofdm_channel, subcarrier_frequencies
    from sionna.phy.channel.tr38901 import CDL, PanelArray

    carrier = (recipe.downlink_carrier_ghz + recipe.uplink_carrier_ghz) / 2 * 1e9
    offset = (recipe.downlink_carrier_ghz - recipe.uplink_carrier_ghz) / 2 * 1e9
    common: dict[str, Any] = {
        "polarization": "single",
        "polarization_type": "V",
        "carrier_frequency": carrier,
        "device": "cpu",
    }
    channel = CDL(
        recipe.model, recipe.delay_spread_ns * 1e-9, carrier, PanelArray(1, 1, antenna_pattern="omni", **common),
        PanelArray(1, recipe.antennas, antenna_pattern="38.901", **common),
        min_speed=recipe.speed_mps[0], max_speed=recipe.speed_mps[1], device="cpu",
    )  # fmt: skip
    frequencies = subcarrier_frequencies(recipe.subcarriers, recipe.spacing_khz * 1e3, device="cpu")

    def run() -> int:
        with torch.no_grad():
            h, tau = channel(batch, recipe.slots, (recipe.slots - 1) / recipe.horizon_s)
            down, up = (cir_to_ofdm_channel(frequencies + shift, h, tau)[:, 0, 0, 0] for shift in (offset, -offset))
            down, up = (torch.fft.ifft2(band.transpose(1, 2))[..., : recipe.crop_taps] for band in (down, up))
            return len(torch.stack([down[:, 0], up[:, -1], down[:, -1]], 1))

    return run


def kernel(recipe: Recipe, name: str, batch: int) -> Callable[[], int]:
    engine, position = make_engine(recipe, name), [0]

    def run() -> int:
        position[0] += batch
        made = engine(engine.draw("train", range(position[0] - batch, position[0])))
        return len(next(iter(made.values())))

    return run


def pin(*cores: int) -> None:
    """Hold every thread of this process to the given cores."""
    for thread in os.listdir("/proc/self/task"):
        os.sched_setaffinity(int(thread), cores)


def peak_rss_bytes() -> int:
    """Peak resident memory of this process. Linux counts it anew after exec; getrusage would carry the parent's over."""
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) * 1024


def end_to_end(recipe: CDLRecipe, shards: int, workers: int) -> dict[str, Any]:
    """Rate of whole shard tasks, each process held to one core; 0 workers is this process. First shards are not counted."""
    plan = Plan(recipe.model_copy(update={"train": (shards + max(workers, 1)) * SHARD, "val": 0, "test": 0}))
    with tempfile.TemporaryDirectory() as directory:
        job = Job(Path(directory) / "bench.zarr", plan, "closed-form", "cpu")
        ledger = job.ledger
        with ledger.locked():
            ledger.start(force=False)
            stores.create(ledger.data, plan)
            tasks = [(job, shard, None) for shard in plan.shards]
            if workers == 0:
                write_shard(tasks[0])
                cores = os.sched_getaffinity(0)
                pin(min(cores))
                start = time.perf_counter()
                results = [write_shard(task) for task in tasks[1:]]
                seconds, memory = time.perf_counter() - start, []
                pin(*cores)
            else:
                with connect(workers, None) as client:
                    names = list(client.scheduler_info()["workers"])
                    for core, name in zip(sorted(os.sched_getaffinity(0)), names, strict=False):
                        client.run(pin, core, workers=[name])
                    for future in [
                        client.submit(write_shard, task, workers=[name], pure=False)
                        for task, name in zip(tasks, names, strict=False)
                    ]:
                        future.result()
                    start = time.perf_counter()
                    results = client.gather(client.map(write_shard, tasks[workers:], pure=False))
                    seconds, memory = time.perf_counter() - start, list(client.run(peak_rss_bytes).values())
            assert all(isinstance(result, ShardRecord) for result in results), results
    return {
        "triples_per_second": len(results) * SHARD / seconds,
        "peak_rss_bytes_per_worker": max(memory, default=None),
    }


def markdown(results: dict[str, Any]) -> str:
    """The table of the README."""
    ratios, whole = results["ratios"], results["end_to_end"]
    machine = results["machine"]
    memory = max(row["peak_rss_bytes_per_worker"] or 0 for row in whole.values())
    rows = [
        ("naive Sionna", results["naive_triples_per_second"], 1.0),
        ("`--engine sionna`", results["sionna_triples_per_second"], ratios["sionna_over_naive"]),
        (
            "closed-form kernel with its draws",
            results["closed_form_triples_per_second"],
            ratios["closed_form_over_naive"],
        ),
        ("end to end, in one process", whole["0"]["triples_per_second"], ratios["end_to_end_over_naive"]),
        ("end to end, 1 Dask worker", whole["1"]["triples_per_second"], None),
        ("end to end, 2 Dask workers", whole["2"]["triples_per_second"], None),
    ]
    lines = ["| one core each | triples/s | times naive |", "|---|---:|---:|"]
    for name, speed, ratio in rows:
        ratio = speed / rows[0][1] if ratio is None else ratio
        figures = f"{speed:,.1f} | {ratio:,.0f}" if speed < 100 else f"{speed:,.0f} | {ratio:,.0f}"
        lines.append(f"| {name} | {figures.replace(',', ' ')} |")
    lines.append("")
    lines.append(
        f"{machine['processor']}, torch {machine['torch']}, Sionna {machine['sionna']}; two workers make "
        f"{ratios['two_workers_over_one']:.2f} times what one makes; peak memory of a worker {memory / 1e6:.0f} MB, "
        "whatever the store's size."
    )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = arguments(__file__, __doc__)
    parser.add_argument("--seconds", type=float, default=10, help="measuring time of each figure")
    parser.add_argument("--shards", type=int, default=12, help="shards written in each end-to-end figure")
    given = parser.parse_args()
    torch.set_num_threads(1)
    recipe = CDLRecipe()

    naive_rates = {batch: rate(naive(recipe, batch), given.seconds / 2) for batch in (1, 4, 16)}
    best = max(naive_rates.values())
    closed_form = rate(kernel(recipe, "closed-form", 256), given.seconds)
    sionna = rate(kernel(recipe, "sionna", 64), given.seconds)
    whole = {str(workers): end_to_end(recipe, given.shards * max(workers, 1), workers) for workers in (0, 1, 2)}
    in_process = whole["0"]["triples_per_second"]
    results: dict[str, Any] = {
        "recipe_digest": recipe.digest,
        "threads": 1,
        "machine": machine(),
        "naive_triples_per_second": best,
        "naive_by_batch": naive_rates,
        "sionna_triples_per_second": sionna,
        "closed_form_triples_per_second": closed_form,
        "end_to_end": whole,
        "ratios": {
            "sionna_over_naive": sionna / best,
            "closed_form_over_naive": closed_form / best,
            "end_to_end_over_naive": in_process / best,
            "two_workers_over_one": whole["2"]["triples_per_second"] / whole["1"]["triples_per_second"],
        },
    }
    publish(__file__, given, results, markdown(results))


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    software = Producer.here("", "cpu").model_dump(include={"torch", "numpy", "zarr", "sionna"})
    return {"processor": _processor(), "python": platform.python_version(), **software}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


if __name__ == "__main__":
    main()
