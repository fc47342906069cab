"""Tasks in this process, on local Dask workers, or on a given cluster."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from datagen.bucket import BucketPath
from datagen.errors import DatagenError
from datagen.manifest import Producer
from datagen.place import Place, place, writable

if TYPE_CHECKING:
    from distributed import Client

Item = TypeVar("Item")
Result = TypeVar("Result")

SCHEDULER_TIMEOUT_S = 5
VERSIONS = {"datagen", "numpy", "sionna", "torch", "zarr"}  # what workers must have the same of


def run_tasks(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int,
    scheduler: str | None,
    directory: Place,
) -> Iterator[Result]:
    """Results of a function over items as they come.

    :param workers: local Dask workers; 0 works in this process
    :param scheduler: address of a running cluster; takes precedence over ``workers``
    :param directory: what every worker must be able to write
    :raises DatagenError: the cluster cannot be used or was lost
    """
    if scheduler is None and workers == 0:
        yield from map(function, items)
        return
    from distributed import CancelledError, KilledWorker, as_completed

    with connect(workers, scheduler) as client:
        check_workers(client, directory)
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
    from distributed.utils import silence_logging_cmgr

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
    with silence_logging_cmgr(logging.CRITICAL), client:  # what goes wrong is raised, and said in one line
        yield client


def _probe(directory: str) -> dict[str, Any]:
    """What a worker is and sees."""
    producer = Producer.here("", "")
    return {
        "host": socket.gethostname(), "pid": os.getpid(), **producer.model_dump(include=VERSIONS),
        "writable": writable(place(directory)),
    }  # fmt: skip


def check_workers(client: Client, directory: Place) -> list[dict[str, Any]]:
    """Ask every worker whether it can do the job: the directory or bucket in sight, and the client's versions.

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
            advice = (
                "start all workers with the bucket's environment, such as AWS_ACCESS_KEY_ID"
                if isinstance(directory, BucketPath)
                else "all workers must share that file system"
            )
            raise DatagenError(f"worker {row['address']} on {row['host']} cannot write {directory}; {advice}")
        differing = [f"{key} {row[key]} (here {here[key]})" for key in sorted(VERSIONS) if row[key] != here[key]]
        if differing:
            raise DatagenError(
                f"worker {row['address']} on {row['host']} has {', '.join(differing)}; install the same versions"
            )
    return rows
