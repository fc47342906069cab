"""From a plan to a finished store: shards as tasks, in this process, on a local Dask cluster, or on a given one."""

from __future__ import annotations

import errno
import functools
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from datagen import store as stores
from datagen.errors import DatagenError, Interrupted, VerificationError
from datagen.ledger import Ledger
from datagen.manifest import TOLERANCE, Manifest, Producer, ShardRecord, relative_error, sample_digest
from datagen.plan import CHUNK, SHARD, Plan, Shard
from datagen.recipe import Recipe, parse
from datagen.scenarios import Engine, check_device, check_engine, make_engine
from datagen.simulate import simulate_shard

if TYPE_CHECKING:
    from distributed import Client

Item = TypeVar("Item")
Result = TypeVar("Result")

SCHEDULER_TIMEOUT_S = 5


@dataclass(frozen=True)
class Job:
    """What a worker needs to know about a run."""

    out: str
    recipe_json: str
    shard_samples: int
    engine: str
    device: str

    @property
    def plan(self) -> Plan:
        return Plan(parse_json(self.recipe_json), self.shard_samples)


@dataclass(frozen=True)
class Failure:
    """A shard that could not be written, and why; returned, not raised, so that Dask neither retries nor logs it."""

    shard: Shard
    reason: str


@functools.cache
def parse_json(recipe_json: str) -> Recipe:
    import json

    return parse(json.loads(recipe_json))


@functools.lru_cache(maxsize=2)
def _engine(recipe_json: str, engine: str, device: str) -> Engine:
    return make_engine(parse_json(recipe_json), engine, device)


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
    ledger = Ledger(Path(job.out))
    try:
        if known is not None and bad_arrays(ledger.data, known) == {}:
            return known
        with _one_thread():
            arrays = simulate_shard(_engine(job.recipe_json, job.engine, job.device), shard)
        record = ShardRecord.of(shard, arrays)
        stores.write(ledger.data, shard, arrays)
        if bad := bad_arrays(ledger.data, record):
            return Failure(shard, "; ".join(f"{name} reads back {reason}" for name, reason in bad.items()))
        ledger.record(record)
        return record
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return Failure(shard, "the disk is full")
        return Failure(shard, f"{type(error).__name__}: {error}")
    except VerificationError as error:
        return Failure(shard, str(error))


def bad_arrays(path: Path, record: ShardRecord) -> dict[str, str]:
    """Arrays of a shard whose samples on disk are not those of its record, and what is wrong with each."""
    bad = {}
    for name, expected in record.arrays.items():
        file = stores.shard_file(record.shard, name)
        try:
            found = sample_digest(stores.read(path, record.shard, name))
        except Exception as error:  # whatever zarr or a codec makes of damaged bytes
            bad[name] = f"{file} cannot be read ({type(error).__name__}: {error})".replace("\n", " ")
        else:
            if not (path / file).exists():
                bad[name] = f"{file} is missing"
            elif found != expected.sha256:
                bad[name] = f"{file} has other samples (digest {found[:12]}, expected {expected.sha256[:12]})"
    return bad


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
    job = Job(str(ledger.out), recipe.model_dump_json(), shard_samples, engine, device)
    with ledger.locked():
        ledger.start(
            {"recipe": recipe.model_dump(mode="json"), "shard size": shard_samples, "engine": engine, "device": device},
            force,
        )
        known = ledger.records()
        _check_disk(plan, ledger, known)
        stores.create(ledger.data, plan)
        tasks = [(job, shard, known.get(shard)) for shard in plan.shards]
        records: list[ShardRecord] = []
        with _progress_bar(plan, progress) as advance:
            try:
                for result in _run(write_shard, tasks, workers, scheduler, ledger):
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
        manifest = Manifest.build(plan, Producer.here(engine, device), records)
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
def _progress_bar(plan: Plan, show: bool) -> Iterator[Callable[[int], object]]:
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


def _run(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int, scheduler: str | None, ledger: Ledger
) -> Iterator[Result]:
    """Results of a function over items as they come: in this process, or by Dask.

    :raises DatagenError: the cluster cannot be used or was lost
    """
    if scheduler is None and workers == 0:
        yield from map(function, items)
        return
    from distributed import CancelledError, KilledWorker, as_completed

    with connect(workers, scheduler) as client:
        check_workers(client, ledger.wip)
        try:
            futures = client.map(function, items, pure=False, retries=2)
            try:
                for future in as_completed(futures):
                    yield future.result()
            finally:
                client.cancel(futures, force=True)
        except KilledWorker as error:
            raise DatagenError(
                f"workers died again and again, most likely out of memory ({error.args[0]}); "
                "give fewer --workers or a smaller --shard-samples and the same command goes on"
            ) from None
        except (CancelledError, OSError, TimeoutError) as error:
            raise DatagenError(
                f"lost the Dask scheduler ({type(error).__name__}); give the same command again to go on"
            ) from None


@contextmanager
def connect(workers: int, scheduler: str | None) -> Iterator[Client]:
    """A client of the scheduler at an address, or of a local cluster of single-threaded processes.

    :raises DatagenError: the scheduler does not answer
    """
    import dask.config
    from distributed import Client, LocalCluster

    if scheduler is None:
        # By default freed arrays go back to the system at once; ours are reused for every shard, and the page faults of asking for
        # them again cost a third of the speed (benchmarks/datagen.py)
        environ = "distributed.nanny.pre-spawn-environ"
        keep = {"MALLOC_TRIM_THRESHOLD_": 1 << 30, "MALLOC_MMAP_THRESHOLD_": 1 << 30}
        heap = {environ: {**dask.config.get(environ), **keep}}
        with dask.config.set(heap), LocalCluster(
            n_workers=workers, threads_per_worker=1, dashboard_address=None, silence_logs=logging.CRITICAL, preload="datagen.worker"
        ) as cluster, Client(cluster) as client:  # fmt: skip
            yield client
        return
    try:
        client = Client(scheduler, timeout=SCHEDULER_TIMEOUT_S)
    except (OSError, TimeoutError, ValueError) as error:
        raise DatagenError(
            f"no Dask scheduler answers at {scheduler} within {SCHEDULER_TIMEOUT_S} s ({type(error).__name__}); "
            "start one with `dask scheduler`, or leave --scheduler out"
        ) from None
    with client:
        yield client


def _probe(directory: str) -> dict[str, Any]:
    """What a worker is and sees."""
    import socket

    producer = Producer.here("", "")
    return {
        "host": socket.gethostname(), "pid": os.getpid(), "datagen": producer.datagen, "numpy": producer.numpy, "torch": producer.torch,
        "zarr": producer.zarr, "writable": os.access(directory, os.W_OK) and os.path.isdir(directory),
    }  # fmt: skip


def check_workers(client: Client, directory: Path) -> list[dict[str, Any]]:
    """Ask every worker whether it can do the job: the directory in sight, and the client's versions.

    :returns: one row a worker
    :raises DatagenError: there is no worker, or one cannot do it
    """
    try:
        rows = [{"address": address, **row} for address, row in client.run(_probe, str(directory)).items()]
    except Exception as error:  # a worker without datagen cannot even unpickle the question
        raise DatagenError(
            f"the workers cannot run datagen ({type(error).__name__}: {error}); install it on each".replace("\n", " ")
        ) from None
    if not rows:
        raise DatagenError("the scheduler has no workers; start some with `dask worker ADDRESS --nthreads 1`")
    here = _probe(str(directory))
    for row in rows:
        if not row["writable"]:
            raise DatagenError(
                f"worker {row['address']} on {row['host']} cannot write {directory}; all workers must share that file system"
            )
        differing = [
            f"{key} {row[key]} (here {here[key]})"
            for key in ("datagen", "numpy", "torch", "zarr")
            if row[key] != here[key]
        ]
        if differing:
            raise DatagenError(
                f"worker {row['address']} on {row['host']} has {', '.join(differing)}; install the same versions"
            )
    return rows


@dataclass(frozen=True)
class Verification:
    """What :func:`verify` found."""

    bad: list[str]  # one line for each array of a shard that is not what it should be; empty when all is well
    shards: int
    identical: int  # shards with the very bits of the manifest
    error: float  # largest relative error of the other good ones, estimated from their sketches


def verify(
    store: stores.Store, manifest: Manifest | None = None, *, threads: int | None = None, progress: bool = False
) -> Verification:
    """Read every shard of a store and check every digest.

    A store is first held to the manifest that it carries, bit for bit. A released manifest may have been made on another
    machine, where floating point rounds otherwise: its samples may differ by 1e-5 relative.

    :param store: an opened store
    :param manifest: released manifest that the store should be a making of
    :param threads: shards read at a time
    :raises VerificationError: a manifest was edited, or is of another recipe than the store
    """
    from concurrent.futures import ThreadPoolExecutor

    own = store.manifest
    expected = own if manifest is None else manifest
    if expected.recipe_digest != store.recipe.digest:
        raise VerificationError(
            f"{store.path} was made from recipe {store.recipe.digest}, the manifest {expected.name} is of {expected.recipe_digest}"
        )
    path = Path(store.path)
    bad, identical, worst = [], 0, 0.0
    intact = set()
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        with _progress_bar(own.plan, progress) as advance:
            for record, wrong in zip(
                own.shards, pool.map(lambda record: bad_arrays(path, record), own.shards), strict=True
            ):
                bad += [f"{record.shard}: {reason}" for reason in wrong.values()]
                advance(record.stop - record.start)
                if not wrong:
                    intact.add((record.shard, record.digests))
        if manifest is None or bad:
            return Verification(bad, len(own.shards), len(intact), worst)

        def error(record: ShardRecord) -> float:
            if (record.shard, record.digests) in intact:
                return 0.0
            return relative_error(
                record,
                ShardRecord.of(record.shard, {name: stores.read(path, record.shard, name) for name in record.arrays}),
            )

        for record, off in zip(expected.shards, pool.map(error, expected.shards), strict=True):
            identical += (record.shard, record.digests) in intact
            worst = max(worst, off)
            if off > TOLERANCE:
                bad.append(
                    f"{record.shard}: its samples differ from those of {expected.name} by {off:.1e} relative, more than {TOLERANCE:g}"
                )
    return Verification(bad, len(expected.shards), identical, worst)


@dataclass(frozen=True)
class Comparison:
    """How a regenerated data set compares with its manifest."""

    identical: int  # shards with the very bits of the manifest
    shards: int
    error: float  # largest relative error of a shard, estimated from the sketches


def compare(expected: Manifest, found: Manifest) -> Comparison:
    """Compare two manifests of one recipe shard by shard."""
    pairs = list(zip(expected.shards, found.shards, strict=True))
    return Comparison(
        sum(a.digests == b.digests for a, b in pairs), len(pairs), max(relative_error(a, b) for a, b in pairs)
    )


def regenerate(manifest: Manifest, out: str | os.PathLike[str], **options: Any) -> tuple[stores.Store, Comparison]:
    """Make a manifest's data set again and prove that it holds the same samples.

    :param manifest: what to make
    :param out: directory of the store
    :param options: as of :func:`generate`; the engine is the manifest's unless given
    :returns: the store, and how it compares
    :raises VerificationError: a shard differs by more than 1e-5 relative; the store is dropped
    """

    def accept(found: Manifest) -> None:
        error = compare(manifest, found).error
        if error > TOLERANCE:
            raise VerificationError(
                f"the samples differ from those of {manifest.name} by {error:.1e} relative, more than {TOLERANCE:g}; nothing kept"
            )

    plan = manifest.plan
    options = {"engine": manifest.producer.engine, **options}
    store = generate(plan.recipe, out, shard_samples=plan.shard_samples, accept=accept, **options)
    found = store.manifest
    if found.plan != plan:
        raise DatagenError(f"{out} holds this recipe in shards of {found.shard_samples}; give another --out")
    accept(found)
    return store, compare(manifest, found)


def estimate_rate(plan: Plan, engine: str, device: str) -> float:
    """Triples per second of one worker here, from two small shards really simulated, written and read back."""
    small = Plan(plan.recipe.model_copy(update={"train": 2 * CHUNK, "val": 0, "test": 0}), CHUNK)
    with tempfile.TemporaryDirectory() as directory:
        ledger = Ledger(Path(directory) / "estimate.zarr")
        job = Job(str(ledger.out), small.recipe.model_dump_json(), CHUNK, engine, device)
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
