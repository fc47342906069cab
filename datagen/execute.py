"""From a recipe to a finished store: each shard a task that simulates, writes, reads back and records it."""

from __future__ import annotations

import errno
import functools
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from datagen import store as stores
from datagen.cluster import run_tasks
from datagen.errors import DatagenError, Interrupted, VerificationError
from datagen.ledger import Ledger
from datagen.manifest import Manifest, Producer, ShardRecord
from datagen.plan import CHUNK, SHARD, Plan, Shard
from datagen.recipe import Recipe
from datagen.scenarios import check_device, check_engine, make_engine
from datagen.simulate import simulate_shard


@dataclass(frozen=True)
class Job:
    """What a worker needs to know about a run."""

    out: Path
    recipe: Recipe
    engine: str
    device: str


@dataclass(frozen=True)
class Failure:
    """A shard that could not be written, and why; returned, not raised, so that Dask neither retries nor logs it."""

    shard: Shard
    reason: str


_engine = functools.lru_cache(maxsize=2)(make_engine)  # a process makes many shards of one recipe


@contextmanager
def _one_thread() -> Iterator[None]:
    """Processes are the unit of parallelism: torch keeps to one thread inside a task."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def write_shard(task: tuple[Job, Shard, ShardRecord | None]) -> ShardRecord | Failure:
    """One task: simulate a shard, write it, read it back, and only then note it in the ledger.

    A shard that an earlier run noted is kept if what lies on disk still has its digests.
    """
    job, shard, known = task
    ledger = Ledger(job.out)
    try:
        if known is not None and stores.bad_arrays(ledger.data, known) == {}:
            return known
        with _one_thread():
            arrays = simulate_shard(_engine(job.recipe, job.engine, job.device), shard)
        record = ShardRecord.of(shard, arrays)
        for _ in range(
            2
        ):  # a worker that outlived its client by a moment may be replacing these very files by their like
            stores.write(ledger.data, shard, arrays)
            bad = stores.bad_arrays(ledger.data, record)
            if not bad:
                ledger.record(record)
                return record
        return Failure(shard, "; ".join(f"{name} reads back wrong: {reason}" for name, reason in bad.items()))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return Failure(shard, "the disk is full")
        return Failure(shard, f"{type(error).__name__}: {error}")
    except VerificationError as error:
        return Failure(shard, str(error))


def generate(
    recipe: Recipe,
    out: str | os.PathLike[str],
    *,
    workers: int = 0,
    scheduler: str | None = None,
    engine: str = "closed-form",
    device: str = "cpu",
    shard_samples: int = SHARD,
    force: bool = False,
    progress: bool = False,
    accept: Callable[[Manifest], None] | None = None,
) -> stores.Store:
    """Simulate a recipe into a store. Given again, it goes on where an earlier run stopped; a finished store is left alone.

    :param recipe: what to simulate
    :param out: directory of the store; work in progress lies beside it in ``OUT.wip``
    :param workers: local Dask workers, one process each; 0 works in this process. With workers, a script needs the usual
        ``if __name__ == "__main__":`` guard
    :param scheduler: address of a running Dask cluster that sees the same file system; takes precedence over ``workers``
    :param engine: ``closed-form`` or ``sionna``
    :param device: ``cpu`` or ``cuda``
    :param shard_samples: samples of a shard, a multiple of 256
    :param force: replace what is at ``out``, once the new store is complete
    :param progress: show a progress bar on stderr
    :param accept: called with the manifest before the store is put in place; what it raises drops the store
    :returns: the opened store
    :raises DatagenError: bad input, another recipe at ``out``, full disk, unreachable scheduler, workers that died
    :raises Interrupted: Ctrl-C; what is finished is kept
    """
    plan = Plan(recipe, shard_samples)
    ledger = Ledger(Path(os.path.abspath(out)))
    if not ledger.out.parent.is_dir():
        raise DatagenError(f"the directory {ledger.out.parent} does not exist; make it first")
    if workers < 0:
        raise DatagenError(f"{workers} workers are not allowed; give 0 (this process) or more")
    check_engine(engine)
    if (finished := _existing(ledger, recipe, force)) is not None:
        return finished
    if scheduler is None:  # a cluster's workers may have devices that this machine lacks
        check_device(device)
    job, producer = Job(ledger.out, recipe, engine, device), Producer.here(engine, device)
    with ledger.locked():
        making = {
            "recipe": recipe.model_dump(mode="json"),
            "shard size": shard_samples,
            "engine": engine,
            "device": device,
        }
        ledger.start({**making, "datagen version": producer.datagen}, force)
        known = ledger.records()
        _check_disk(plan, ledger, known)
        stores.create(ledger.data, plan)
        tasks = [(job, shard, known.get(shard)) for shard in plan.shards]
        records: list[ShardRecord] = []
        with progress_bar(plan, progress) as advance:
            try:
                for result in run_tasks(write_shard, tasks, workers, scheduler, ledger.wip):
                    if isinstance(result, Failure):
                        left = len(tasks) - len(records)
                        raise DatagenError(
                            f"{result.shard}: {result.reason}; {left} of {len(tasks)} shards are left: mend it and give the same command again"
                        )
                    records.append(result)
                    advance(result.stop - result.start)
            except KeyboardInterrupt:
                raise Interrupted(
                    f"stopped with {len(records)} of {len(tasks)} shards in {ledger.wip}; give the same command again to go on"
                ) from None
        manifest = Manifest.build(plan, producer, records)
        if accept is not None:
            try:
                accept(manifest)
            except BaseException:
                ledger.remove()
                raise
        stores.finish(ledger.data, manifest)
        ledger.publish()
    return stores.open_store(ledger.out)


def _existing(ledger: Ledger, recipe: Recipe, force: bool) -> stores.Store | None:
    """The finished store of this very recipe at ``out``, if there is one.

    :raises DatagenError: something else is there
    """
    if force or not os.path.lexists(ledger.out):
        return None
    advice = "give another --out, or --force to replace it"
    try:
        store = stores.open_store(ledger.out)
    except DatagenError as error:
        raise DatagenError(f"{ledger.out} exists and is no finished store ({error}); {advice}") from None
    if store.recipe != recipe:
        differing = ", ".join(
            sorted(k for k, v in recipe.model_dump().items() if store.recipe.model_dump().get(k) != v)
        )
        raise DatagenError(f"{ledger.out} holds another recipe (differing in {differing}); {advice}")
    return store


def _check_disk(plan: Plan, ledger: Ledger, known: dict[Shard, ShardRecord]) -> None:
    done = sum(shard.stop - shard.start for shard in known)
    needed = plan.store_bytes * (1 - done / plan.samples)
    free = shutil.disk_usage(ledger.wip).free
    if needed > free:
        raise DatagenError(
            f"{ledger.out} needs {needed / 1e9:.1f} GB more and the disk has {free / 1e9:.1f} GB free; free some or give another --out"
        )


@contextmanager
def progress_bar(plan: Plan, show: bool) -> Iterator[Callable[[int], object]]:
    from tqdm import tqdm

    interval = 0.2 if sys.stderr.isatty() else 10
    with tqdm(
        total=plan.samples,
        desc=plan.recipe.label,
        unit=" triples",
        unit_scale=True,
        mininterval=interval,
        disable=not show,
    ) as bar:
        yield bar.update


def estimate_rate(plan: Plan, engine: str, device: str) -> float:
    """Triples per second of one worker here, from two small shards really simulated, written and read back."""
    small = Plan(plan.recipe.model_copy(update={"train": 2 * CHUNK, "val": 0, "test": 0}), CHUNK)
    with tempfile.TemporaryDirectory() as directory:
        ledger = Ledger(Path(directory) / "estimate.zarr")
        job = Job(ledger.out, small.recipe, engine, device)
        with ledger.locked():
            ledger.start({}, force=False)
            stores.create(ledger.data, small)
            warm_up, measured = small.shards
            start = 0.0
            for shard in (warm_up, measured):
                start = time.perf_counter()
                result = write_shard((job, shard, None))
                if isinstance(result, Failure):
                    raise DatagenError(f"{result.shard}: {result.reason}")
            return CHUNK / (time.perf_counter() - start)
