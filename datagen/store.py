"""Stores of FORMAT.md: the only file that reads and writes with zarr."""

from __future__ import annotations

import functools
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BytesCodec, Crc32cCodec
from zarr.storage import ObjectStore

from datagen.bucket import BucketPath, one_line
from datagen.errors import DatagenError
from datagen.hub import HubPath
from datagen.manifest import FORMAT, FORMAT_VERSION, Manifest, ShardRecord, sample_digest
from datagen.place import Place, check, pinned, place, sizes
from datagen.plan import CHUNK, Plan, Shard
from datagen.recipe import ARRAYS, Recipe, parse

Given = ParamSpec("Given")
Result = TypeVar("Result")


class _OnHub(ObjectStore[Any]):
    """A store on the Hub for zarr. It is pickled as an address, so that no token goes with an array to another process."""

    def __init__(self, path: HubPath) -> None:
        super().__init__(path.rooted, read_only=True)
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return _OnHub, (self.path,)


def _zarr(path: Place) -> Path | ObjectStore[Any]:
    """What zarr takes for a place."""
    if isinstance(path, HubPath):
        return _OnHub(path)
    return path if isinstance(path, Path) else ObjectStore(path.rooted)


def _plainly(function: Callable[Concatenate[Place, Given], Result]) -> Callable[Concatenate[Place, Given], Result]:
    """Let a function of a place raise a :class:`datagen.place.BucketError` for whatever a bucket's library raises."""

    @functools.wraps(function)
    def plain(path: Place, /, *args: Given.args, **kwargs: Given.kwargs) -> Result:
        with one_line(path):
            return function(path, *args, **kwargs)

    return plain


@_plainly
def create(path: Place, plan: Plan) -> None:
    """Lay out an empty, incomplete store; an existing one is kept as it is, so that a resumed run may call this too."""
    attributes: dict[str, Any] = {
        "format": FORMAT, "format_version": FORMAT_VERSION, "version": plan.recipe.dataset_version, "complete": False,
        "recipe": plan.recipe.model_dump(mode="json"), "recipe_digest": plan.recipe.digest,
    }  # fmt: skip
    if "X" in plan.recipe.arrays and "Z" not in plan.recipe.arrays:
        attributes["target"] = "X"
    root = zarr.open_group(_zarr(path), mode="a", zarr_format=3, attributes=attributes)
    for split, size in plan.recipe.splits.items():
        group = root.require_group(split)
        for name, shape in plan.recipe.shapes(split).items():
            if name in group:
                continue
            *dimensions, long_name = ARRAYS[name]
            group.create_array(
                name,
                shape=(size, *shape),
                dtype="complex64",
                chunks=(CHUNK, *shape),
                shards=(plan.shard_samples, *shape),
                serializer=BytesCodec(endian="little"),
                compressors=[Crc32cCodec()],
                filters=None,
                fill_value=complex("nan+nanj"),
                dimension_names=("sample", *dimensions),
                attributes={"long_name": long_name, "units": "1"},
            )


@_plainly
def write(path: Place, shard: Shard, arrays: Mapping[str, NDArray[np.complex64]]) -> None:
    """Write one whole shard of every array. A shard is one file, put in place by an atomic rename, or one object, put whole.

    A file that lies there is removed first: zarr would read it to merge the last, partly filled shard into it, and what an
    interrupted run left there may be damaged.
    """
    group = zarr.open_group(_zarr(path), mode="r+", path=shard.split, use_consolidated=False)
    for name, array in arrays.items():
        (path / shard_file(shard, name)).unlink(missing_ok=True)
        _array(group, name)[shard.start : shard.stop] = array


@_plainly
def read(path: Place, shard: Shard, name: str) -> NDArray[np.complex64]:
    """The samples of one shard, complex64 [stop - start, angle, delay]; missing ones are NaN.

    :raises Exception: what zarr raises for a truncated file or a checksum that does not hold
    """
    group = zarr.open_group(_zarr(path), mode="r", path=shard.split, use_consolidated=False, zarr_format=3)
    values: NDArray[np.complex64] = np.asarray(_array(group, name)[shard.start : shard.stop])
    return values


def _array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    array = group[name]
    if not isinstance(array, zarr.Array):
        raise DatagenError(f"{group.name}/{name} is not an array")
    return array


def shard_file(shard: Shard, name: str) -> str:
    """Path of a shard's file within the store."""
    return f"{shard.split}/{name}/c/{shard.index}/0/0"


def files(plan: Plan) -> set[str]:
    """Names of all the files of a finished store, relative to it."""
    shards = {shard_file(shard, name) for shard in plan.shards for name in plan.recipe.shapes(shard.split)}
    arrays = {f"{split}/{name}/zarr.json" for split in plan.recipe.splits for name in plan.recipe.shapes(split)}
    return shards | arrays | {f"{split}/zarr.json" for split in plan.recipe.splits} | {"zarr.json"}


def bad_arrays(path: Place, record: ShardRecord) -> dict[str, str]:
    """Arrays of a shard whose samples on disk are not those of its record, and what is wrong with each.

    :raises BucketError: the bucket cannot be reached, which says nothing about the samples
    """
    bad = {}
    for name, expected in record.arrays.items():
        file = shard_file(record.shard, name)
        try:
            found = sample_digest(read(path, record.shard, name))
        except Exception as error:  # whatever zarr or a codec makes of damaged bytes
            check(path)
            bad[name] = f"{file} cannot be read ({type(error).__name__}: {error})".replace("\n", " ")
        else:
            if not (path / file).exists():
                bad[name] = f"{file} is missing"
            elif found != expected.sha256:
                bad[name] = f"{file} has other samples (digest {found[:12]}, expected {expected.sha256[:12]})"
    return bad


@_plainly
def finish(path: Place, manifest: Manifest) -> None:
    """Mark a store complete: sweep unfinished writes, embed the manifest, consolidate metadata, flush to disk."""
    if isinstance(path, Path):
        for leftover in path.rglob("*.partial"):
            leftover.unlink()
    root = zarr.open_group(_zarr(path), mode="r+", use_consolidated=False)
    root.attrs.update({"manifest": manifest.model_dump(mode="json"), "complete": True})
    with warnings.catch_warnings():  # readers that know consolidated metadata (xarray) ask for it; others ignore it
        warnings.filterwarnings("ignore", "Consolidated metadata is currently not part")
        for group in (*manifest.plan.recipe.splits, None):
            zarr.consolidate_metadata(_zarr(path), path=group)
    if isinstance(path, Path):
        for file in path.rglob("*"):
            if file.is_file():
                with file.open("rb") as handle:
                    os.fsync(handle.fileno())


class Split:
    """One split of a store. Its arrays are zarr arrays, complex64; slices are numpy.

    ``X``, ``Y`` and ``Z`` are [sample, angle, delay], ``H`` is [sample, antenna, subcarrier]. Where the store keeps no ``Z``
    (the target is ``X``), ``Z`` is ``X``; reading another array that it does not keep raises.
    """

    def __init__(self, group: zarr.Group, target: str) -> None:
        self._group, self._target = group, target

    def __len__(self) -> int:
        return self[next(iter(sorted(self._group.array_keys())))].shape[0]

    def __repr__(self) -> str:
        arrays = ", ".join(f"{name} {self[name].shape[1:]}" for name in sorted(self._group.array_keys()))
        return f"<Split of {len(self)} samples: {arrays}>"

    def __getitem__(self, name: str) -> zarr.Array[Any]:
        """An array by name.

        :raises DatagenError: the split has none of that name
        """
        name = self._target if name == "Z" else name
        if name not in self._group:
            what = "side information Y" if name == "Y" else f"array {name}"
            raise DatagenError(
                f"{self._group.store_path} has no {what}; it has {', '.join(sorted(self._group.array_keys()))}"
            )
        return _array(self._group, name)

    @property
    def X(self) -> zarr.Array[Any]:
        """Downlink CSI at the first symbol."""
        return self["X"]

    @property
    def Y(self) -> zarr.Array[Any]:
        """Uplink CSI at the last symbol, the side information."""
        return self["Y"]

    @property
    def Z(self) -> zarr.Array[Any]:
        """Target: downlink CSI at the last symbol."""
        return self["Z"]

    @property
    def H(self) -> zarr.Array[Any]:
        """Frequency response of the subcarriers kept, [sample, antenna, subcarrier]."""
        return self["H"]


class Store(Mapping[str, Split]):
    """An opened store: a mapping from split name to :class:`Split`."""

    def __init__(self, path: str | Path, root: zarr.Group) -> None:
        self.path, self._root = path, root

    def __getitem__(self, split: str) -> Split:
        if split not in set(self):
            raise KeyError(f"{self.path} has no split {split!r}; it has {', '.join(self)}")
        group = self._root[split]
        assert isinstance(group, zarr.Group)
        return Split(group, "Z" if "Z" in self.recipe.arrays else "X")

    def __iter__(self) -> Iterator[str]:
        return iter(self.recipe.splits)

    def __len__(self) -> int:
        return len(self.recipe.splits)

    def __repr__(self) -> str:
        return f"<Store {self.path}: {self.recipe.label}, {', '.join(f'{n} {split}' for split, n in self.recipe.splits.items())}>"

    @functools.cached_property
    def recipe(self) -> Recipe:
        """The recipe that the store was made from."""
        return parse(self._root.attrs.get("recipe"), f"{self.path}: recipe")

    @functools.cached_property
    def manifest(self) -> Manifest:
        """The manifest that the store carries.

        :raises DatagenError: it has none
        :raises VerificationError: it was edited
        """
        return Manifest.parse(self._root.attrs.get("manifest"), f"the manifest of {self.path}")


def is_store(path: Place) -> bool:
    """Whether a directory is a store of this format, finished or not, whole or damaged."""
    try:
        return bool(json.loads((path / "zarr.json").read_text())["attributes"]["format"] == FORMAT)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def metadata_faults(path: Place, manifest: Manifest) -> list[str]:
    """What is wrong with a store's metadata: every ``zarr.json`` against the one that belongs there, and foreign files.

    :returns: one line for each file; empty when all is well
    """
    faults = []
    with tempfile.TemporaryDirectory() as directory:
        model = Path(directory) / "model.zarr"
        create(model, manifest.plan)
        finish(model, manifest)
        wanted = {file.relative_to(model).as_posix(): file for file in model.rglob("zarr.json")}
        for name, file in wanted.items():
            try:
                found = json.loads((path / name).read_text())
            except (OSError, ValueError, RecursionError) as error:
                faults.append(f"{name} cannot be read ({type(error).__name__})")
                continue
            if found != json.loads(file.read_text()):
                faults.append(f"{name} is not the metadata that belongs to this data set")
    return faults + [f"{name} does not belong in a store" for name in sorted(set(sizes(path)) - files(manifest.plan))]


def open_store(path: str | Place) -> Store:
    """Open a finished store for reading.

    :param path: directory of the store, or its URL in a bucket or on the Hub; there a branch or tag is held to the commit
        that it points to
    :returns: mapping of splits, e.g. ``open_store(path)["train"].X[:10]``
    :raises DatagenError: there is no store, it is of another format or version, or it is not complete
    """
    where = pinned(place(path))
    path = str(where) if isinstance(where, BucketPath) else path
    try:
        # the Hub lists no directories, so what there is must be read from the metadata
        root = zarr.open_group(_zarr(where), mode="r", use_consolidated=isinstance(where, HubPath), zarr_format=3)
        attributes = dict(root.attrs)
    except Exception as error:  # whatever zarr makes of what lies there
        hint = (
            f"; an unfinished run lies in {path}.wip, give the same command again to go on"
            if place(f"{path}.wip").is_dir()
            else ""
        )
        raise DatagenError(f"{path} is not a datagen store ({type(error).__name__}){hint}") from None
    if attributes.get("format") != FORMAT:
        raise DatagenError(f"{path} is a Zarr group but no {FORMAT} store; see datagen/FORMAT.md")
    if attributes.get("format_version") != FORMAT_VERSION:
        raise DatagenError(
            f"{path} has format version {attributes.get('format_version')!r}; this datagen reads version {FORMAT_VERSION}"
        )
    if attributes.get("complete") is not True:
        raise DatagenError(f"{path} is not complete; give the command that made it again to go on")
    store = Store(path if isinstance(path, Path) else str(path), root)
    for split, size in store.recipe.splits.items():
        for name, shape in store.recipe.shapes(split).items():
            expected = (size, *shape)
            try:
                node = root.get(f"{split}/{name}")
            except Exception as error:
                raise DatagenError(f"{path}: {split}/{name}/zarr.json is damaged ({type(error).__name__})") from None
            if not isinstance(node, zarr.Array) or node.shape != expected or node.dtype != np.complex64:
                raise DatagenError(
                    f"{path}: {split}/{name} is not the complex64 array {expected} that its recipe asks for"
                )
    return store
