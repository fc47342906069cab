"""From a trained model to one that is shipped: as small as its quality allows, measured as it is, on record."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from zoo import results
from zoo.checkpoint import VECTORS_FILE, load_model, read_tensors, save_model
from zoo.data import Store
from zoo.errors import ZooError
from zoo.evaluate import evaluate
from zoo.evaluate_jscc import evaluate_jscc
from zoo.files import swap
from zoo.locate import locate
from zoo.models.jscc import JSCC
from zoo.parts import share
from zoo.registry import read_config, write_index

LOSS_DB = 0.05  # of NMSE, that half precision may cost


def release(
    models: Sequence[str | Path], store: Store, into: Path, samples: int | None = None, *, device: str = "cpu", progress: bool = False
) -> list[dict[str, Any]]:  # fmt: skip
    """Put models into a collection, with weights in half precision where that costs less than :data:`LOSS_DB`.

    Each is measured in single and in half precision on the test split; ``results.json`` is of the very weights that are shipped. What models of
    one family hold alike is stored once (:mod:`zoo.parts`), and the collection's index is made anew.

    :param models: names or directories
    :param into: directory of the collection; a model of the same name in it is replaced
    :param samples: the first so many of the test split; all if not given
    :returns: contents of the results files
    :raises ZooError: a model cannot be loaded, does not fit the store, or the collection cannot be written
    """
    try:
        into.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ZooError(f"cannot write {into}: {error.strerror}") from None
    released = []
    for model in models:
        path, digests = locate(model)
        with tempfile.TemporaryDirectory(dir=into, prefix=".") as directory:
            draft, found = _smallest(path, digests, Path(directory), store, samples, device, progress)
            results.write(draft / results.RESULTS_FILE, found)
            swap(draft, into / draft.name)
        released.append(into / draft.name)
    share(released)
    write_index(into)
    return [measured for path in released if (measured := results.read(path)) is not None]


def _smallest(
    path: Path, digests: dict[str, str] | None, directory: Path, store: Store, samples: int | None, device: str, progress: bool
) -> tuple[Path, dict[str, Any]]:  # fmt: skip
    """The model in the fewest bytes that keep its quality, and its results."""
    codec, config = load_model(path, digests), read_config(path)
    record = {
        key: value
        for key, value in config.items()
        if key not in ("format_version", "codec", "dtype", "weights_sha256", "parts")
    }
    vectors = {
        name: torch.view_as_complex(value)
        for name, value in read_tensors(path / VECTORS_FILE).items()
        if name in ("x", "y")
    }
    count = store.sizes.get("test", 0) if samples is None else samples
    command = f"zoo eval {config['name']} --data STORE --samples {count}"  # what measures the released file again
    symbols = isinstance(codec, JSCC)
    measure: Callable[..., dict[str, Any]] = evaluate_jscc if symbols else evaluate
    measured = {}
    for dtype in ("float32", "float16"):
        draft = directory / dtype / config["name"]
        save_model(draft, codec, record, vectors, dtype)
        measured[dtype] = (
            draft,
            measure(draft, store, "test", samples, device=device, progress=progress, command=command),
        )
    full, half = (found["points" if symbols else "side_information"] for _, found in measured.values())
    loss = max(short["nmse_db"] - long["nmse_db"] for short, long in zip(half, full, strict=True))
    draft, found = measured["float16" if loss < LOSS_DB else "float32"]
    return draft, {**found, "half_precision_loss_db": loss, "dtype": "float16" if loss < LOSS_DB else "float32"}
