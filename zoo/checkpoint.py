"""Models and training states on disk: safetensors and JSON, written whole or not at all, read strictly.

``config.json`` says in ``dtype`` how ``model.safetensors`` and the parts hold the weights: :mod:`zoo.storage` has the forms.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from zoo import input_statistics
from zoo.config import explain
from zoo.devices import local_device
from zoo.errors import CheckError, ZooError
from zoo.files import replacing
from zoo.hub import Source
from zoo.locate import locate
from zoo.models.base import Codec, Model
from zoo.registry import CONFIG_FILE, FORMAT_VERSION, WEIGHTS_FILE, architecture, place, read_config, sha256
from zoo.storage import DTYPES, restore, store

VECTORS_FILE = "vectors.safetensors"
VECTORS = 4  # golden samples
TOLERANCE = 1e-3  # relative error of a golden reconstruction: machines round differently


# models ----------------------------------------------------------------------------------------------------------------------


def save_model(
    path: Path, codec: Model[Any], record: Mapping[str, Any], vectors: Mapping[str, Tensor], dtype: str = "float32"
) -> None:
    """Write a model's directory: weights, config, golden vectors. An existing one is replaced.

    :param codec: of any architecture
    :param record: ``name``, ``architecture``, and whatever tells where the weights come from
    :param vectors: ``x`` and, where the codec takes it, ``y``: samples to replay, complex [n, angle, delay]
    :param dtype: form of the weights in the file, one of :data:`zoo.storage.FORMS`
    :raises ZooError: it cannot be written, there is no such form, or the codec does not take the samples
    """
    with replacing(path) as draft:
        weights = store(codec.state_dict(), dtype)
        sizes = codec.config.model_dump(mode="json")
        write_weights(draft, weights, {"format_version": FORMAT_VERSION, **record, "codec": sizes, "dtype": dtype})
        saved = load_model(draft)  # as it will be read, rounded
        save_file(golden(saved, vectors["x"], vectors.get("y")), draft / VECTORS_FILE)


def write_weights(
    path: Path, weights: dict[str, Tensor], config: Mapping[str, Any], parts: Mapping[str, str] | None = None
) -> None:
    """Write a model's weights, all but those of its parts, and the config that vouches for them.

    The digests of the parts stand in the weights' header too, so that ``weights_sha256`` is that of all weights.

    :param parts: SHA-256 by name
    """
    save_file(weights, path / WEIGHTS_FILE, _header(parts) or None)
    vouched = {**config, "weights_sha256": sha256(path / WEIGHTS_FILE), **({"parts": parts} if parts else {})}
    (path / CONFIG_FILE).write_text(json.dumps(vouched, indent=1) + "\n")


def _header(parts: Mapping[str, str] | None) -> dict[str, str]:
    return {"parts": json.dumps(parts)} if parts else {}


def load(
    model: str | Path, *, device: str = "cpu", dtype: str = "float32", revision: str | None = None,
    cache_dir: str | Path | None = None, local_files_only: bool = False,
) -> Any:  # fmt: skip
    """A model, ready to use: a :class:`zoo.Codec`, which sends payloads, or a :class:`zoo.JSCC`, which sends symbols.

    A name is looked for among directories, the models of the package, the Hub's cache and the Hub, in this order. What comes from the Hub
    or its cache is checked against the SHA-256 on record each time.

    :param model: name (:func:`list_models`), path of a model's directory, or ``hf:org/repo[/folder][@revision]``
    :param device: torch device
    :param dtype: ``float32``, ``float64``, ``float16`` or ``bfloat16``
    :param revision: branch, tag or commit on the Hub, in place of the one on record
    :param cache_dir: of what the Hub sends, in place of the client's own
    :param local_files_only: never ask the Hub
    :raises ZooError: unknown name; a file missing, edited or not of this format; weights that do not fit the config exactly
    """
    cache = None if cache_dir is None else Path(cache_dir)
    path, digests = locate(model, Source(revision, cache, local_files_only))
    return load_model(path, digests, device=device, dtype=dtype)


def load_model(
    path: Path, digests: Mapping[str, str] | None = None, *, device: str = "cpu", dtype: str = "float32"
) -> Any:
    """A model from its directory, every byte and every weight accounted for.

    :param digests: SHA-256 that each file must have, where an index knows
    :raises ZooError: a file is missing or was edited; a weight is missing, superfluous or of another shape; an unknown config key; statistics
        of the input that are malformed
    """
    if dtype not in DTYPES:
        raise ZooError(f"unknown dtype {dtype!r}; allowed: {', '.join(DTYPES)}")
    with torch.inference_mode(False):  # a model made within inference mode could not be searched through by gradients
        return _load_model(path, digests, device, dtype)


def _load_model(path: Path, digests: Mapping[str, str] | None, device: str, dtype: str) -> Any:
    config = read_config(path)
    for file, digest in (digests or {}).items():
        require_file(path, file, digest)
    weights = read_weights(path)
    codec = bare(path, config)
    shape = (codec.config.angles, codec.config.delays)
    codec.input_statistics = input_statistics.read(config, path, shape, codec.takes_y)
    codec.load_state_dict(restore(weights, codec.state_dict(), config.get("dtype", "float32"), path))
    return codec.to(local_device(device), DTYPES[dtype]).eval().requires_grad_(False)


def bare(path: Path, config: Mapping[str, Any]) -> Model[Any]:
    """The model of a directory as its config says, without its weights.

    :param config: of :func:`zoo.registry.read_config`
    :raises ZooError: an unknown architecture or config key
    """
    kind = architecture(config["architecture"])
    try:
        return kind(kind.Config.model_validate_json(json.dumps(config["codec"])))
    except ValidationError as error:
        raise ZooError(f"{path / CONFIG_FILE}: codec: {explain(error, kind.Config)}") from None


def load_codec(path: Path, digests: Mapping[str, str] | None = None, *, device: str = "cpu") -> Codec[Any]:
    """:func:`load_model` where payloads are meant.

    :raises ZooError: the model sends symbols
    """
    codec = load_model(path, digests, device=device)
    if not isinstance(codec, Codec):
        raise ZooError(
            f"{path.name} sends symbols over a radio link, not payloads: use its encode and decode in Python"
        )
    return codec


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file.

    :raises ZooError: it cannot be read
    """
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no mapping
    except (OSError, SafetensorError) as error:
        raise ZooError(f"{path} is no safetensors file: {error}") from None


def require_file(path: Path, file: str, digest: str) -> Path:
    """Where a file of a model is.

    :raises ZooError: it is missing or has another SHA-256
    """
    found = place(path, file)
    if sha256(found) != digest:
        raise ZooError(f"{found} was changed: its SHA-256 is not the one on record; get the model again")
    return found


def read_weights(path: Path) -> dict[str, Tensor]:
    """All weights of a model as they are stored, its own and those of its parts, held to the digests of its config.

    :raises ZooError: a file is missing, was edited or cannot be read, or a weight is in two of them
    """
    config = read_config(path)
    own = require_file(path, WEIGHTS_FILE, config["weights_sha256"])
    weights = read_tensors(own)
    with safe_open(own, "pt") as file:
        if (file.metadata() or {}).get("parts") != _header(config["parts"]).get("parts"):
            raise ZooError(f"{own} and {CONFIG_FILE} name different parts; get the model again")
    for name, digest in config["parts"].items():
        held = read_tensors(require_file(path, name, digest))
        if weights.keys() & held.keys():
            raise ZooError(f"{path}: the weight {min(weights.keys() & held.keys())!r} is in {name} and in another file")
        weights |= held
    return weights


# golden vectors --------------------------------------------------------------------------------------------------------------


def golden(codec: Model[Any], x: Tensor, y: Tensor | None) -> dict[str, Tensor]:
    """Some samples and what a model makes of them: tensors ``x``, ``y`` and those of its ``replay``, complex ones as real pairs."""
    y = y if codec.takes_y else None
    tensors = ({"x": x} if y is None else {"x": x, "y": y}) | codec.replay(x, y)
    return {
        name: torch.view_as_real(value.to(torch.complex64)).contiguous() if value.is_complex() else value
        for name, value in tensors.items()
    }


def check(path: Path, codec: Model[Any]) -> float:
    """Replay a model's golden vectors.

    :returns: relative error of the reconstructions
    :raises ZooError: there are none
    :raises CheckError: other payloads, or reconstructions (or symbols) off by more than :data:`TOLERANCE`
    """
    wanted = read_tensors(path / VECTORS_FILE) if (path / VECTORS_FILE).is_file() else {}
    made: dict[str, Tensor] = {}
    if "x" in wanted:
        y = torch.view_as_complex(wanted["y"]) if "y" in wanted else None
        made = golden(codec, torch.view_as_complex(wanted["x"]), y)
    if not made or made.keys() != wanted.keys():
        raise ZooError(f"{path / VECTORS_FILE} is missing or holds no golden vectors")
    errors = {}
    for name, value in made.items():
        if value.shape != wanted[name].shape:
            raise CheckError(f"{path.name}: golden {name} is of another shape")
        if not value.is_floating_point():
            wrong = int((value != wanted[name]).flatten(1).any(1).sum())
            if wrong:
                raise CheckError(f"{path.name}: {wrong} of {len(value)} golden {name}s differ")
            continue
        error = float(torch.linalg.vector_norm(value - wanted[name]) / torch.linalg.vector_norm(wanted[name]))
        if not error <= TOLERANCE:
            what = {"z": "reconstructions"}.get(name, name)
            raise CheckError(f"{path.name}: golden {what} differ by {error:.1e} relative, allowed {TOLERANCE:g}")
        errors[name] = error
    return errors["z"]


# training states -------------------------------------------------------------------------------------------------------------


def save_state(
    run: Path, step: int, weights: Mapping[str, Tensor], tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
) -> None:
    """Write the checkpoint of a step beside the earlier ones, then drop all but the newest two.

    :param weights: what would be released: ``weights.safetensors``
    :param tensors: what only going on needs: ``state.safetensors``
    """
    states = run / "checkpoints"
    states.mkdir(parents=True, exist_ok=True)
    with replacing(states / f"step-{step:08d}") as draft:
        for file, content in (("weights", weights), ("state", tensors)):
            save_file(
                {name: value.detach().cpu().contiguous() for name, value in content.items()},
                draft / f"{file}.safetensors",
            )
        (draft / "state.json").write_text(json.dumps({"step": step, **facts}) + "\n")
    for old in sorted(states.glob("step-*"))[:-2]:
        shutil.rmtree(old)


def load_state(run: Path) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Any]] | None:
    """Weights, training state and facts of a run's newest checkpoint, or None."""
    found = sorted((run / "checkpoints").glob("step-*"))
    if not found:
        return None
    facts: dict[str, Any] = json.loads((found[-1] / "state.json").read_text())
    return read_tensors(found[-1] / "weights.safetensors"), read_tensors(found[-1] / "state.safetensors"), facts
