"""From a recipe to a finished store: each shard a task that simulates, writes, reads back and records it."""

from __future__ import annotations

import errno
import functools
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from datagen import store as stores
from datagen.bucket import LARGEST_COPY, BucketError, BucketPath
from datagen.cluster import run_tasks
from datagen.errors import DatagenError, Interrupted, VerificationError
from datagen.ledger import Ledger
from datagen.manifest import Manifest, Producer, ShardRecord, creation_time
from datagen.place import Place, exists, place
from datagen.plan import BYTES_PER_CELL, CHUNK, SHARD, Plan, Shard
from datagen.progress import progress_bar
from datagen.recipe import Recipe
from datagen.scenarios import Inputs, check_device, check_engine, make_engine
from datagen.simulate import simulate_shard
from datagen.sources import Source, laid_out

ELSEWHERE = "give another --out, or --force to replace it"


@dataclass(frozen=True)
class Job:
    """What is made, where and how: all that a worker needs to know."""

    out: Place
    plan: Plan
    engine: str
    device: str
    inputs: Inputs = ()

    @functools.cached_property
    def ledger(self) -> Ledger:
        making = {"recipe": self.plan.recipe.model_dump(mode="json"), "shard size": self.plan.shard_samples}
        version = Producer.here(self.engine, self.device).datagen
        return Ledger(self.out, {**making, "engine": self.engine, "device": self.device, "datagen version": version})


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
    ledger = job.ledger
    try:
        if known is not None and stores.bad_arrays(ledger.data, known) == {}:
            return known
        with _one_thread():
            arrays = simulate_shard(_engine(job.plan.recipe, job.engine, job.device, job.inputs), shard)
        record = ShardRecord.of(shard, arrays)
        # twice, for a worker of this job that outlived its client may just be replacing the files by their like
        for _ in range(2):
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
    except (MemoryError, RuntimeError) as error:  # torch raises RuntimeError when memory runs out
        return Failure(shard, f"{type(error).__name__}: {error}")
    except (VerificationError, BucketError) as error:
        return Failure(shard, str(error))


def generate(
    recipe: Recipe,
    out: str | os.PathLike[str] | BucketPath,
    *,
    workers: int = 0,
    scheduler: str | None = None,
    engine: str | None = None,
    device: str = "cpu",
    shard_samples: int = SHARD,
    force: bool = False,
    progress: bool = False,
    sources: Sequence[Source] = (),
    accept: Callable[[Manifest], None] | None = None,
) -> stores.Store:
    """Simulate a recipe into a store. Given again, it goes on where an earlier run stopped; a finished store is left alone.

    :param recipe: what to simulate
    :param out: directory of the store, or its URL in a bucket; work in progress lies beside it in ``OUT.wip``
    :param workers: local Dask workers, one process each; 0 works in this process. With workers, a script needs the usual
        ``if __name__ == "__main__":`` guard
    :param scheduler: address of a running Dask cluster that sees the same file system or bucket; takes precedence over ``workers``
    :param engine: one of the scenario's engines (:data:`datagen.scenarios.ENGINES`), by default the fastest
    :param device: ``cpu`` or ``cuda``
    :param shard_samples: samples of a shard, a multiple of 256
    :param force: replace what is at ``out``, once the new store is complete
    :param progress: show a progress bar on stderr
    :param sources: the files that the recipe imports, where it does: see :func:`datagen.sources.find_sources`
    :param accept: called with the manifest before the store is put in place; what it raises drops the store
    :returns: the opened store
    :raises DatagenError: bad input, another recipe at ``out``, full disk, unreachable scheduler or bucket, workers that died
    :raises Interrupted: Ctrl-C; what is finished is kept
    """
    plan = Plan(recipe, shard_samples)
    if workers < 0:
        raise DatagenError(f"{workers} workers are not allowed; give 0 (this process) or more")
    engine = check_engine(recipe, engine)
    if {source.part: source.record for source in sources} != recipe.sources:
        files = ", ".join(source.file for source in recipe.sources.values())
        raise DatagenError(
            f"{recipe.label} was imported from {files}; give the directory where they lie with --source"
            if files
            else f"{recipe.label} is simulated and needs no files; leave --source out"
        )
    creation_time()
    job = Job(resolve(out), plan, engine, device)
    check_objects(plan, job.out)
    ledger = job.ledger
    finished = _finished(job, force)
    if finished is not None and not ledger.wip.exists():
        return finished
    if scheduler is None:  # a cluster's workers may have the devices and the memory that this machine lacks
        check_device(device)
        check_memory(plan, workers)
    with resumable(ledger, plan.shard_count), ledger.locked() as assure:
        finished = _finished(job, force)
        if finished is not None:  # by another run just now, or by an earlier one that died tidying up
            ledger.tidy()
            return finished
        manifest = _make(job, sources, workers, scheduler, force, progress)
        try:
            for source in sources:
                source.check_unchanged()
            if accept is not None:
                accept(manifest)
        except BaseException:
            ledger.remove()
            raise
        stores.finish(ledger.data, manifest)
        ledger.publish(force, assure)
    return stores.open_store(ledger.out)


@contextmanager
def resumable(ledger: Ledger, shards: int) -> Iterator[None]:
    """Say what is kept of work that ends early inside.

    :param shards: of the whole store
    :raises Interrupted: Ctrl-C
    :raises DatagenError: the operating system refuses to write
    """
    try:
        yield
    except KeyboardInterrupt:
        kept = len(ledger.records())
        what = f"{kept} of {shards} shards are in {ledger.wip}; " if kept else "no shard was finished; "
        raise Interrupted(f"stopped: {what}give the same command again to go on") from None
    except OSError as error:
        raise DatagenError(
            f"cannot write {ledger.out}: {error.strerror or error}; mend it and give the same command again"
        ) from None


def _make(
    job: Job, sources: Sequence[Source], workers: int, scheduler: str | None, force: bool, progress: bool
) -> Manifest:
    """Bring every shard of a job to the disk, and describe them."""
    ledger, plan = job.ledger, job.plan
    ledger.start(force)
    known = ledger.records()
    done = sum(shard.stop - shard.start for shard in known)
    check_disk(ledger, plan.store_bytes * (1 - done / plan.samples))
    stores.create(ledger.data, plan)
    records: list[ShardRecord] = []
    # what is unpacked for a bucket lies on this machine, out of sight of another's workers
    scratch = ledger.home / "scratch" if isinstance(ledger.home, Path) else Path(tempfile.mkdtemp(prefix="datagen-"))
    with (
        laid_out(sources, scratch, progress) as inputs,
        progress_bar(plan.samples, plan.recipe.label, "samples", progress) as advance,
    ):
        tasks = [(replace(job, inputs=inputs), shard, known.get(shard)) for shard in plan.shards]
        for result in run_tasks(write_shard, tasks, workers, scheduler, ledger.wip):
            if isinstance(result, Failure):
                left = len(tasks) - len(records)
                raise DatagenError(
                    f"{result.shard}: {result.reason}; {left} of {len(tasks)} shards are left: "
                    "mend it and give the same command again"
                )
            records.append(result)
            advance(result.stop - result.start)
    return Manifest.build(plan, Producer.here(job.engine, job.device), records)


def resolve(out: str | os.PathLike[str] | BucketPath) -> Place:
    """Absolute path of a store to be made; a symbolic link at its end is kept. A bucket is asked whether it is there.

    :raises DatagenError: its directory does not exist, or it names no entry of one; the bucket cannot be reached
    """
    path = place(out)
    if isinstance(path, BucketPath):
        path.check_writable()
        return path
    try:
        parent = path.parent.resolve(strict=True)
    except (OSError, RuntimeError):
        raise DatagenError(f"the directory {path.parent} does not exist; make it first") from None
    if path.name in ("", "..") or not parent.is_dir():
        raise DatagenError(f"{path} names no directory to make; give --out a path such as store.zarr")
    return parent / path.name


def _finished(job: Job, force: bool) -> stores.Store | None:
    """The finished store of this very recipe, if it is there and need not be made anew.

    :raises DatagenError: something else is there that may not be replaced
    """
    store = occupant(job.ledger, force)
    if store is None:
        return None
    mine, theirs = job.plan.recipe.model_dump(), store.recipe.model_dump()
    if mine != theirs:
        differing = ", ".join(sorted(key for key in {**mine, **theirs} if mine.get(key) != theirs.get(key)))
        raise DatagenError(f"{job.out} holds another recipe (differing in {differing}); {ELSEWHERE}")
    return store


def occupant(ledger: Ledger, force: bool) -> stores.Store | None:
    """The finished store that is already at a ledger's place, unless it is to be replaced.

    :raises DatagenError: something is there that is no finished store, or may not be replaced
    """
    out = ledger.out
    if not exists(out) or ledger.half_published():
        return None
    if not stores.is_store(out):
        raise DatagenError(f"{out} exists and is no datagen store; give another --out")
    if force:
        if isinstance(out, Path) and (out.is_symlink() or out in (Path.cwd(), *Path.cwd().parents)):
            raise DatagenError(
                f"{out} is a link or the working directory, which --force does not replace; give another --out"
            )
        return None
    try:
        return stores.open_store(out)
    except DatagenError as error:
        raise DatagenError(f"{error}; {ELSEWHERE}") from None


def check_disk(ledger: Ledger, needed: float) -> None:
    """:raises DatagenError: the disk has not the room that is still needed [B]"""
    if not isinstance(ledger.wip, Path):
        return
    free = shutil.disk_usage(ledger.wip).free
    if needed > free:
        raise DatagenError(
            f"{ledger.out} needs {needed / 1e9:.1f} GB more and the disk has {free / 1e9:.1f} GB free; "
            "free some or give another --out"
        )


def check_memory(plan: Plan, workers: int) -> None:
    """:raises DatagenError: the estimated memory of the workers is more than this machine has"""
    needed, there = plan.worker_bytes * max(workers, 1), psutil.virtual_memory().total
    if needed > there:
        raise DatagenError(
            f"{max(workers, 1)} workers need about {needed / 1e9:.1f} GB of memory and this machine has {there / 1e9:.1f} GB; "
            f"give fewer --workers or a smaller --shard-samples (at least {CHUNK})"
        )


def check_objects(plan: Plan, out: Place) -> None:
    """:raises DatagenError: a shard's object is larger than a bucket copies in one piece"""
    if isinstance(out, Path):
        return
    cells = max(math.prod(shape) for split in plan.recipe.splits for shape in plan.recipe.shapes(split).values())
    largest = plan.shard_samples * cells * BYTES_PER_CELL
    if largest > LARGEST_COPY * 0.99:  # the rest is for checksums and the index
        raise DatagenError(
            f"shards of {largest / 1e9:.1f} GB are too large for a bucket, which copies {LARGEST_COPY / 1e9:.1f} GB in one piece; "
            "give a smaller --shard-samples"
        )


def estimate_rate(plan: Plan, engine: str | None, device: str) -> float:
    """Samples per second of one worker here, from two small shards really simulated, written and read back."""
    small = Plan(plan.recipe.model_copy(update={"train": 2 * CHUNK, "val": 0, "test": 0}), CHUNK)
    with tempfile.TemporaryDirectory() as directory:
        job = Job(Path(directory) / "estimate.zarr", small, check_engine(small.recipe, engine), device)
        with job.ledger.locked():
            job.ledger.start(force=False)
            stores.create(job.ledger.data, small)
            warm_up, measured = small.shards
            start = 0.0
            for shard in (warm_up, measured):
                start = time.perf_counter()
                result = write_shard((job, shard, None))
                if isinstance(result, Failure):
                    raise DatagenError(f"{result.shard}: {result.reason}")
            return CHUNK / (time.perf_counter() - start)
