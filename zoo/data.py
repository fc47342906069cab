"""Training and test samples: stores of datagen/FORMAT.md, cached in memory, or triples simulated on the way."""

from __future__ import annotations

import itertools
import math
import queue
import sys
import threading
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.covariances import Statistics
from zoo.devices import exact_products
from zoo.errors import ZooError
from zoo.remote import connect, pinned

FORMAT, FORMAT_VERSION = "fdd-csi", 1  # datagen/FORMAT.md, section 2
READ = 4096  # samples read at once: a shard
AHEAD = 4  # simulated batches kept ready
STREAMED = 2048  # samples drawn at once on a device


class Batch(NamedTuple):
    """Samples, complex64 [n, angle, delay] each; ``y`` is None without side information."""

    x: Tensor
    y: Tensor | None
    z: Tensor


Note = Callable[[Tensor, int], dict[str, Tensor]]  # of samples, and the number of the first: n rows each


@dataclass(frozen=True)
class Dataset:
    """What the records of a model say about its data."""

    name: str  # e.g. cdl-c-fdd-v1
    scenario: str  # the data set's part of a model's name, e.g. cdl, see :func:`scenario_label`
    recipe_digest: str
    shape: tuple[int, int]  # (angles, delays)
    side_information: bool
    subcarriers: int | None
    target: Literal["x", "z"] = "z"  # what is estimated: the UE's own sample, or a later one


def scenario_label(recipe: Mapping[str, Any]) -> str:
    """Name the data set as models' names do: the scenario of its recipe, and ``indoor`` where that has two environments."""
    indoor = recipe.get("scenario") == "cost2100" and recipe.get("environment") == "indoor"
    return f"{recipe.get('scenario')}{'indoor' * indoor}"


class Arrays:
    """The arrays of a finished store of FORMAT.md, format version 1, opened for reading.

    :param path: its directory, or its URL in a bucket, such as ``s3://bucket/store.zarr``, or in a data set on the Hub, such as
        ``hf://datasets/org/name@revision/store.zarr``
    :raises ZooError: no store, of another format or version, or not complete
    """

    def __init__(self, path: str | Path) -> None:
        import zarr

        self.path: str | Path = pinned(str(path)) if "://" in str(path) else Path(path)
        try:
            where = self.path if isinstance(self.path, Path) else connect(self.path)
            self._root = zarr.open_group(where, mode="r", zarr_format=3)
            attributes = dict(self._root.attrs)
        except Exception as error:  # whatever zarr makes of what lies there
            hint = f"make one with: datagen cdl --out {path}"
            if str(path).startswith("hf://"):
                hint = "give one that datagen publish has put there"
            elif "://" in str(path):
                hint += " if its bucket, endpoint and credentials (AWS_...) are right"
            raise ZooError(f"{path} is not a CSI store ({type(error).__name__}); {hint}") from None
        if attributes.get("format") != FORMAT:
            raise ZooError(f"{path} is a Zarr group but no {FORMAT} store; see datagen/FORMAT.md")
        if attributes.get("format_version") != FORMAT_VERSION:
            raise ZooError(
                f"{path} has format version {attributes.get('format_version')!r}; this zoo reads version {FORMAT_VERSION}"
            )
        if attributes.get("complete") is not True:
            raise ZooError(f"{path} is not complete; give the command that made it again to go on")
        recipe: Any = attributes.get("recipe")
        self.names = {split: set(group.array_keys()) for split, group in self._root.groups()}
        if not isinstance(recipe, dict) or not self.names:
            raise ZooError(f"{path} has no recipe or no samples; see datagen verify")
        self.attributes: dict[str, Any] = attributes
        self.recipe: dict[str, Any] = recipe

    def array(self, split: str, name: str) -> Any:
        """One array, not read yet; its shape is [sample, ...].

        :raises ZooError: no such split, or none with this array
        """
        if split not in self.names:
            raise ZooError(f"{self.path} has no split {split!r}; it has {', '.join(self.names)}")
        if name not in self.names[split]:
            raise ZooError(f"{self.path} has no {name} in {split}; it has {', '.join(sorted(self.names[split]))}")
        return self._root[f"{split}/{name}"]

    def read_array(self, split: str, name: str, start: int, stop: int) -> Tensor:
        """Rows of an array into memory, complex64 [stop - start, ...].

        :raises ZooError: no such split or array, damaged rows, or values that are not finite
        """
        array = self.array(split, name)
        out = np.empty((stop - start, *array.shape[1:]), np.complex64)
        for at in range(start, stop, READ):
            rows = slice(at, min(at + READ, stop))
            try:
                out[rows.start - start : rows.stop - start] = array[rows]
            except Exception as error:
                raise ZooError(
                    f"{self.path}: {split}/{name} cannot be read ({type(error).__name__}); see datagen verify"
                ) from None
            if not np.isfinite(out[rows.start - start : rows.stop - start].view(np.float32)).all():
                raise ZooError(
                    f"{self.path}: {split}/{name} holds values that are missing or not finite; see datagen verify"
                )
        return torch.from_numpy(out)


class Store(Arrays):
    """A finished store of CSI samples.

    :param path: its directory, or its URL in a bucket or on the Hub
    :raises ZooError: no store, of another format or version, not complete, or one of feedback channels alone
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        if not all("X" in arrays for arrays in self.names.values()):
            raise ZooError(
                f"{path} holds no CSI (X) but feedback channels (H), which zoo limits --link takes as --channel"
            )
        self.sizes: dict[str, int] = {split: self.array(split, "X").shape[0] for split in self.names}
        first = next(iter(self.names))
        self.dataset = Dataset(
            name=f"{self.recipe.get('name')}-v{self.attributes.get('version')}",
            scenario=scenario_label(self.recipe),
            recipe_digest=str(self.attributes.get("recipe_digest")),
            shape=self.array(first, "X").shape[1:],
            side_information="Y" in self.names[first],
            subcarriers=self.recipe.get("subcarriers"),
            target="x" if self.attributes.get("target") == "X" else "z",
        )
        self.target = "X" if self.attributes.get("target") == "X" else "Z"

    def read(self, split: str, start: int = 0, stop: int | None = None) -> Batch:
        """Samples of a split into memory.

        :raises ZooError: no such split, too few samples, damaged ones, or values that are not finite
        """
        if split not in self.sizes:
            raise ZooError(f"{self.path} has no split {split!r}; it has {', '.join(self.sizes)}")
        stop = self.sizes[split] if stop is None else stop
        if stop > self.sizes[split]:
            raise ZooError(f"{self.path} has {self.sizes[split]} samples in {split}; {stop} are asked for")
        x = self.read_array(split, "X", start, stop)
        y = self.read_array(split, "Y", start, stop) if self.dataset.side_information else None
        return Batch(x, y, x if self.target == "X" else self.read_array(split, self.target, start, stop))

    def require_band(self, split: str, of: str) -> None:
        """See that a split holds the whole band of what is estimated as H; a part will not do, as the error of a crop gathers at the edges.

        :param of: X or Z; H is of X
        :raises ZooError: it does not
        """
        whole = self.dataset.subcarriers
        kept = self.array(split, "H").shape[2] if of == "X" and "H" in self.names.get(split, ()) else None
        if kept is None or kept != whole:
            held = f"no frequency response H of {of}" if kept is None else f"H of {kept} subcarriers only"
            wanted = f"all {whole} subcarriers" if whole else "the whole band"
            scenario, band = (self.recipe["scenario"], whole) if whole and "keep_band" in self.recipe else ("inh", 667)
            others = " ".join(f"--{other} 0" for other in ("train", "val", "test") if other != split)
            raise ZooError(
                f"{self.path} has {held} in {split}; the spatial-frequency domain takes {wanted}, as kept by: "
                f"datagen {scenario} --keep-band {band} {others} --out band.zarr"
            )

    def batches(self, split: str, stop: int | None = None, size: int = READ) -> Iterator[Batch]:
        """A split piece by piece, memory bounded."""
        stop = self.sizes.get(split, 0) if stop is None else stop
        for start in range(0, max(stop, 1), size):
            yield self.read(split, start, min(start + size, stop))


class Source(Protocol):
    """Where training batches come from: a function of the step, so that a resumed run sees what an unbroken one sees."""

    dataset: Dataset

    def batches(self, start: int, size: int) -> Iterator[Batch]:
        """Endless batches from step ``start`` on.

        :raises ZooError: there are fewer samples than ``size``
        """

    def observe(self, note: Note, progress: bool = False) -> None:
        """Note something of every sample that is kept, once; where none are kept, nothing is done."""

    def notes(self, step: int, size: int) -> dict[str, Tensor] | None:
        """Hand out what was noted of the samples of a step's batch, rows as in the batch; None where none are kept."""

    def once(self, samples: int) -> Iterator[Batch]:
        """The first training samples, or all where there are fewer, each once, piece by piece."""

    def validation(self, samples: int) -> Batch:
        """The first samples of the val split."""

    def statistics(self) -> Statistics:
        """The law of the samples in closed form.

        :raises ZooError: it is not known
        """

    def record(self) -> dict[str, Any]:
        """Origin of the samples, for a model's config."""


class Repeated:
    """Training samples in memory; each epoch in an order of its own."""

    device: str
    seed: int
    _notes: dict[str, Tensor]
    _order: tuple[tuple[int, int], Tensor] | None = None  # of the epoch at hand

    @property
    @abstractmethod
    def kept(self) -> int:
        """Count the samples."""

    @abstractmethod
    def pick(self, rows: Tensor | slice) -> Batch:
        """Take some of the samples."""

    def batches(self, start: int, size: int) -> Iterator[Batch]:
        if size > self.kept:
            raise ZooError(f"a batch of {size} does not fit {self.kept} training samples; set training.batch lower")
        return (self.pick(self._rows(step, size)) for step in itertools.count(start))

    def notes(self, step: int, size: int) -> dict[str, Tensor]:
        rows = self._rows(step, size).cpu() if self._notes else torch.empty(0)
        return {name: value[rows] for name, value in self._notes.items()}

    def once(self, samples: int) -> Iterator[Batch]:
        for start in range(0, min(samples, self.kept), READ):
            yield self.pick(slice(start, min(start + READ, samples)))

    def _rows(self, step: int, size: int) -> Tensor:
        """The samples of a step's batch."""
        epoch, place = divmod(step, self.kept // size)
        if self._order is None or self._order[0] != (epoch, size):
            shuffled = np.random.default_rng((self.seed, epoch)).permutation(self.kept)
            self._order = (epoch, size), torch.from_numpy(shuffled).to(self.device)
        return self._order[1][place * size : (place + 1) * size]

    def observe(self, note: Note, progress: bool = False) -> None:
        from tqdm import tqdm

        pieces: list[dict[str, Tensor]] = []
        starts = range(0, self.kept, READ)
        for start in tqdm(starts, "coding samples", unit="shard", file=sys.stderr, disable=None if progress else True):
            pieces.append(note(self.pick(slice(start, start + READ)).x, start))
            if not pieces[0]:
                break
        self._notes = {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}


class Cached(Repeated):
    """The train split of a store in memory, on the device."""

    def __init__(self, store: Store, device: str, samples: int | None, seed: int) -> None:
        self.store, self.dataset, self.device, self.seed = store, store.dataset, device, seed
        self._train, self._notes = to_device(store.read("train", 0, samples), device), {}

    @property
    def kept(self) -> int:
        return len(self._train.x)

    def pick(self, rows: Tensor | slice) -> Batch:
        x, y, z = (None if array is None else array[rows] for array in self._train)
        assert x is not None
        assert z is not None
        return Batch(x, y, z)

    def validation(self, samples: int) -> Batch:
        return to_device(self.store.read("val", 0, min(samples, self.store.sizes.get("val", 0))), self.device)

    def statistics(self) -> Statistics:
        raise ZooError(
            "a store does not say what law its samples follow: fit this family with --simulate [--simulate-recipe FILE]"
        )

    def record(self) -> dict[str, Any]:
        return {
            "name": self.dataset.name,
            "recipe_digest": self.dataset.recipe_digest,
            "train_samples": self.kept,
        }


class Simulated:
    """Triples that no step sees twice, simulated a few batches ahead: samples 0, 1, 2, ... of the recipe's train split.

    :param recipe: path of a TOML file, or the fields of a store's recipe; None for datagen's CDL set
    :raises ZooError: the recipe cannot be read
    """

    def __init__(self, recipe: str | Path | dict[str, Any] | None, device: str) -> None:
        import datagen
        from datagen.recipe import load, parse

        try:
            fields = recipe if isinstance(recipe, dict) else load(recipe) if recipe else {}
            self.recipe = parse(fields, "the store's recipe" if isinstance(recipe, dict) else str(recipe))
        except datagen.DatagenError as error:
            raise ZooError(str(error)) from None
        self.device = device
        self.dataset = Dataset(
            name=self.recipe.label, scenario=scenario_label(self.recipe.model_dump()), recipe_digest=self.recipe.digest, shape=self.recipe.arrays["X"],
            side_information="Y" in self.recipe.arrays, subcarriers=getattr(self.recipe, "subcarriers", None),
            target="z" if "Z" in self.recipe.arrays else "x",
        )  # fmt: skip

    def _sample(self, indices: range, split: str, size: int) -> Iterator[Batch]:
        import datagen

        try:
            for batch in datagen.sample(self.recipe, indices, split, batch_size=size, device=self.device):
                yield Batch(batch["X"], batch.get("Y"), batch.get("Z", batch["X"]))
        except datagen.DatagenError as error:
            raise ZooError(str(error)) from None

    def batches(self, start: int, size: int) -> Iterator[Batch]:
        ready: queue.Queue[Batch | BaseException] = queue.Queue(AHEAD)
        closed = threading.Event()

        def work() -> None:
            try:
                for batch in self._sample(range(start * size, 2**62), "train", size):
                    while not closed.is_set():
                        try:
                            ready.put(batch, timeout=0.1)
                            break
                        except queue.Full:
                            continue
                    if closed.is_set():
                        return
            except BaseException as error:  # handed to the consumer
                ready.put(error)

        threading.Thread(target=work, daemon=True).start()
        try:
            while True:
                batch = ready.get()
                if isinstance(batch, BaseException):
                    raise batch
                yield batch
        finally:
            closed.set()

    def observe(self, note: Note, progress: bool = False) -> None:
        pass

    def notes(self, step: int, size: int) -> dict[str, Tensor] | None:
        return None

    def once(self, samples: int) -> Iterator[Batch]:
        return self._sample(range(samples), "train", READ)

    def validation(self, samples: int) -> Batch:
        return next(self._sample(range(samples), "val", samples))

    def statistics(self) -> Statistics:
        import datagen

        if not isinstance(self.recipe, datagen.CDLRecipe):
            raise ZooError(f"the law of {self.dataset.name} is not known in closed form; only that of cdl recipes is")
        try:
            return datagen.conditional_statistics(self.recipe)
        except datagen.DatagenError as error:
            raise ZooError(f"{self.dataset.name}: {error}") from None

    def path_maps(self, samples: int, split: str = "test") -> Iterator[NDArray[np.complex64]] | None:
        """Of the first samples of a split, what each path adds to it, complex [path, angle, delay]; None where paths are no matter of geometry.

        :raises ZooError: the split has fewer samples
        """
        import datagen

        recipe = self.recipe
        if not isinstance(recipe, datagen.COST2100Recipe):
            return None
        self._require(samples, split)
        return (datagen.path_maps(recipe, index, split) for index in range(samples))

    def redrawn(
        self, samples: int, redraws: int, split: str = "test", progress: bool = False
    ) -> Iterator[NDArray[np.complex64]]:
        """Of the first samples of a split, each with its paths drawn anew within its own clusters, complex [redraw, angle, delay].

        :param redraws: of each sample; at least as many as cells, whose covariance they are for
        :param progress: show a bar on stderr if it takes longer than a few seconds
        :raises ZooError: samples have no clusters to redraw the paths of, the split has fewer samples, or too few redraws
        """
        from tqdm import tqdm

        import datagen

        recipe, cells = self.recipe, math.prod(self.dataset.shape)
        if not isinstance(recipe, datagen.COST2100Recipe):
            raise ZooError(
                f"paths of {self.dataset.name} cannot be redrawn within clusters; only those of cost2100 can"
            )
        self._require(samples, split)
        if redraws < cells:
            raise ZooError(
                f"{redraws} redraws are too few for the covariance of {cells} cells; give at least {cells}, better four times that"
            )
        indices = tqdm(range(samples), desc="clusters known", unit="sample", disable=not progress, delay=3)
        return (datagen.redrawn(recipe, index, split, redraws) for index in indices)

    def _require(self, samples: int, split: str) -> None:
        held = self.recipe.splits.get(split, 0)
        if samples > held:
            raise ZooError(f"{self.dataset.name} has {held} samples in {split}; {samples} are asked for")

    def record(self) -> dict[str, Any]:
        return {
            "name": self.dataset.name,
            "recipe_digest": self.dataset.recipe_digest,
            "train_samples": "simulated, each used once",
        }


class Halved:
    """Complex samples in half precision, each over its own largest part: four bytes a cell, 66 dB below the sample."""

    def __init__(self, samples: int, shape: tuple[int, int]) -> None:
        self.pairs = torch.empty(samples, *shape, 2, dtype=torch.float16)
        self.largest = torch.empty(samples)

    def put(self, rows: slice, x: Tensor) -> None:
        """Keep samples, complex [n, angle, delay]."""
        pairs = torch.view_as_real(x.cpu().contiguous())
        self.largest[rows] = pairs.abs().flatten(1).amax(1)
        self.pairs[rows] = (pairs / self.largest[rows].clamp(min=1e-30)[:, None, None, None]).half()

    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        return torch.view_as_complex(self.pairs[rows].float() * self.largest[rows][:, None, None, None])


class Kept(Repeated, Simulated):
    """Samples simulated once, the first of the train split, and kept in half precision.

    :param samples: how many; there may be more than the recipe's split has, as samples have no end
    :param seed: of their order
    """

    def __init__(
        self, recipe: str | Path | dict[str, Any] | None, device: str, samples: int, seed: int, progress: bool = False
    ) -> None:
        from tqdm import tqdm

        Simulated.__init__(self, recipe, device)
        self.seed, self._notes = seed, {}
        self._train: list[Halved] = []  # x, y where there is one, z where it is not x
        bar = tqdm(total=samples, desc="simulating", unit="sample", file=sys.stderr, disable=None if progress else True)
        start = 0
        for batch in self._sample(range(samples), "train", READ):
            parts = [part for part in (batch.x, batch.y, None if batch.z is batch.x else batch.z) if part is not None]
            self._train = self._train or [Halved(samples, self.dataset.shape) for _ in parts]
            for array, part in zip(self._train, parts, strict=True):
                array.put(slice(start, start + len(part)), part)
            start += len(batch.x)
            bar.update(len(batch.x))
        bar.close()

    @property
    def kept(self) -> int:
        return len(self._train[0].largest)

    def pick(self, rows: Tensor | slice) -> Batch:
        where = rows if isinstance(rows, slice) else rows.cpu()
        parts = [array[where].to(self.device) for array in self._train]
        y = parts[1] if self.dataset.side_information else None
        return Batch(parts[0], y, parts[0] if self.dataset.target == "x" else parts[-1])

    def record(self) -> dict[str, Any]:
        return {**super().record(), "train_samples": self.kept}


class Streamed(Simulated):
    """Samples drawn on the device itself, each used once: the law of a recipe at the device's speed, but no sample has an index.

    A resumed run goes on with fresh samples, not with those that an unbroken one would see. The first samples and those of the val split
    are the recipe's own.

    :param seed: of the stream
    """

    def __init__(self, recipe: str | Path | dict[str, Any] | None, device: str, seed: int) -> None:
        super().__init__(recipe, device)
        self.seed = seed

    def batches(self, start: int, size: int) -> Iterator[Batch]:
        import datagen

        together = max(STREAMED // size, 1)
        drawn = datagen.stream(self.recipe, together * size, seed=(self.seed << 31) + start, device=self.device)
        while True:
            with exact_products():
                arrays = next(drawn)
            pieces = {name: array.split(size) for name, array in arrays.items()}
            for x, y, z in zip(
                pieces["X"], pieces.get("Y", [None] * together), pieces.get("Z", pieces["X"]), strict=True
            ):
                yield Batch(x, y, z)

    def record(self) -> dict[str, Any]:
        return {**super().record(), "train_samples": "simulated on the device, each used once"}


def to_device(batch: Batch, device: str) -> Batch:
    """The same samples on another device."""
    return Batch(*(None if array is None else array.to(device) for array in batch))  # type: ignore[arg-type]


def noisy(y: Tensor, snr_db: float | None, generator: torch.Generator) -> Tensor:
    """Side information as a receiver measures it: white noise on every cell, relative to the batch's mean energy.

    :param y: complex [n, angle, delay]
    :param snr_db: energy of Y over energy of the noise, both over the crop; None for no noise
    :param generator: on the device of ``y``
    """
    if snr_db is None:
        return y
    noise = torch.randn(y.shape, dtype=y.dtype, device=y.device, generator=generator)  # complex normal of unit variance
    return y + noise * (y.abs().square().mean().sqrt() * 10 ** (-snr_db / 20))


def channel_estimate(x: Tensor, cnr_db: float | Tensor, noise: Tensor, subcarriers: int | None = None) -> Tensor:
    """X as a UE measures it: H_d + E, the entries of E white [RD-JSCC (13)].

    The transform to angles and delays leaves E white and spreads it over all delays, of which the crop keeps a part.

    :param x: complex [n, angle, delay], or images [n, 2, angle, delay]
    :param cnr_db: channel-to-noise ratio, for all samples or for each, [n]: mean power of an entry of a sample's H_d over that of E, both
        over antennas and ``subcarriers``
    :param noise: standard normal, as ``x``
    :param subcarriers: of H_d; those of the paper's COST 2100 set, the default, are as many as there are delays
    """
    gain = (subcarriers or x.shape[-1]) / x.shape[-1]  # of the crop: it has all the energy, and this part of the noise
    power = x.abs().square().flatten(1).mean(1) * 10 ** (-torch.as_tensor(cnr_db, device=x.device) / 10) / gain
    return x + power.sqrt().view(-1, *(1 for _ in x.shape[1:])) * noise


def read_samples(path: str | Path, name: str) -> NDArray[np.complexfloating]:
    """Complex samples [n, angle, delay] from a ``.npy`` file.

    :param name: what they are for, for messages
    :raises ZooError: no such file, or not complex samples
    """
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ZooError(f"cannot read {name} from {path}: {error}") from None
    if not isinstance(array, np.ndarray) or array.ndim != 3 or array.dtype.kind != "c":
        raise ZooError(f"{path} holds {array.dtype} {list(array.shape)}; {name} must be complex [n, angle, delay]")
    return array
