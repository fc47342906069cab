"""Is a store what its manifest says, and is a regenerated data set the same?"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datagen import store as stores
from datagen.bucket import BucketPath
from datagen.errors import DatagenError, VerificationError
from datagen.execute import generate
from datagen.manifest import TOLERANCE, Manifest, ShardRecord, relative_error
from datagen.place import exists, place
from datagen.progress import progress_bar
from datagen.sources import find_sources


@dataclass(frozen=True)
class Verification:
    """What :func:`verify` found."""

    bad: list[str]  # one line for each array of a shard, or metadata file, that is not what it should be
    shards: int
    identical: int  # shards with the very bits of the manifest
    error: float  # largest relative error of the other good ones, estimated from their sketches


def verify(
    store: stores.Store, manifest: Manifest | None = None, *, threads: int | None = None, progress: bool = False
) -> Verification:
    """Read every shard of a store and check every digest, and the metadata that tell readers what the bytes mean.

    A store is first held to the manifest that it carries, bit for bit. A released manifest may have been made on another
    machine, where floating point rounds otherwise: its samples may differ by 1e-5 relative.

    :param store: an opened store
    :param manifest: released manifest that the store should be a making of
    :param threads: shards read at a time
    :raises VerificationError: a manifest was edited, or is of another recipe than the store
    """
    own = store.manifest
    expected = own if manifest is None else manifest
    if expected.recipe_digest != store.recipe.digest:
        raise VerificationError(
            f"{store.path} was made from recipe {store.recipe.digest}, the manifest {expected.name} is of {expected.recipe_digest}"
        )
    path = place(store.path)
    bad, identical, worst = stores.metadata_faults(path, own), 0, 0.0
    intact = set()
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        with progress_bar(own.plan.samples, own.name, "samples", progress) as advance:
            for record, wrong in zip(
                own.shards, pool.map(lambda record: stores.bad_arrays(path, record), own.shards), strict=True
            ):
                bad += [f"{record.shard}: {reason}" for reason in wrong.values()]
                advance(record.stop - record.start)
                if not wrong:
                    intact.add((record.shard, record.digests))
        if manifest is None or bad:
            return Verification(bad, len(own.shards), len(intact), worst)

        def making(record: ShardRecord) -> ShardRecord:
            if (record.shard, record.digests) in intact:
                return record
            return ShardRecord.of(record.shard, {name: stores.read(path, record.shard, name) for name in record.arrays})

        for record, found in zip(expected.shards, pool.map(making, expected.shards), strict=True):
            off = 0.0 if found.digests == record.digests else relative_error(record, found)
            identical += found.digests == record.digests
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


def regenerate(
    manifest: Manifest,
    out: str | os.PathLike[str] | BucketPath,
    *,
    source: str | os.PathLike[str] | None = None,
    **options: Any,
) -> tuple[stores.Store, Comparison]:
    """Make a manifest's data set again and prove that it holds the same samples.

    :param manifest: what to make
    :param out: directory of the store, or its URL in a bucket
    :param source: directory of the files that it was imported from, if it was; they are known by name and digest
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
    existed = exists(place(out)) and not options.get("force")
    options = {"engine": manifest.producer.engine, **options}
    if source is not None:
        options["sources"] = find_sources(plan.recipe, Path(source), bool(options.get("progress")))
    store = generate(plan.recipe, out, shard_samples=plan.shard_samples, accept=accept, **options)
    if existed and (bad := verify(store, manifest).bad):
        raise VerificationError(f"{out} was there already and is not {manifest.name}: {bad[0]}; --force makes it anew")
    if store.manifest.plan != plan:
        raise DatagenError(f"{out} holds this recipe in shards of {store.manifest.shard_samples}; give another --out")
    return store, compare(manifest, store.manifest)
