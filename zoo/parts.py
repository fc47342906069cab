"""Parts: weights in files beside the models that have them.

What several models of a family hold alike, such as the rates of one network, is stored once; what a file has no room for goes to a
second one. A part is named by its content, so that a model that is replaced neither takes another's weights away nor changes them.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from zoo import results
from zoo.checkpoint import read_tensors, read_weights, write_weights
from zoo.files import replacing, whole
from zoo.registry import PART, models, part_name, read_config, sha256

FILE_BYTES = 30_000_000  # of a file of weights, at most
ENTRY_BYTES = 256  # of a weight in a file's header, at most
SAVING = 1 << 14  # bytes that sharing must save
Weights = dict[tuple[str, str], Tensor]  # by name and digest of the content


def share(directories: Sequence[Path]) -> None:
    """Move weights of models into parts. What is loaded stays the same, bit for bit, and results stay those of the very weights.

    Taken are parts that lie there already, then what at least two of the models hold alike. A model that has parts already, or no model's name, is
    left as it is. Parts that no model of the collection has any more are deleted.

    :param directories: of models in one collection
    :raises ZooError: a model's weights are missing or were edited, or a file cannot be written
    """
    families: dict[str, list[Path]] = {}
    for model in dict.fromkeys(directories):
        family = model.name.rpartition("-")[0]
        if re.fullmatch(PART, part_name(family, "0" * 64)) and not read_config(model)["parts"]:
            families.setdefault(family, []).append(model)
    for family, members in families.items():
        _share(family, members)
    for collection in {model.parent for model in directories}:
        _prune(collection)


def needed_bytes(directories: Sequence[Path]) -> int:
    """Bytes of the weights of some models, what they hold alike counted once.

    :raises ZooError: a model's weights are missing or were edited
    """
    weights: Weights = {}
    for model in directories:
        weights |= _keyed(read_weights(model))
    return sum(value.nbytes for value in weights.values())


def _share(family: str, members: Sequence[Path]) -> None:
    own = {model: _keyed(read_weights(model)) for model in members}
    parts: dict[Path, dict[str, str]] = {model: {} for model in members}

    def move(weights: Weights, name: str, digest: str, holders: Iterable[Path]) -> None:
        for model in holders:
            parts[model][name] = digest
            own[model] = {key: value for key, value in own[model].items() if key not in weights}

    def store(weights: Weights, holders: Sequence[Path]) -> None:
        content = save(_named(weights))
        digest = hashlib.sha256(content).hexdigest()
        name = part_name(family, digest)
        with whole(holders[0].parent / name) as draft:
            draft.write_bytes(content)
        move(weights, name, digest, holders)

    for file in sorted(members[0].parent.glob(f"{family}-part-*.safetensors")):
        digest = sha256(file)
        if file.name == part_name(family, digest):
            there = _keyed(read_tensors(file))
            move(there, file.name, digest, [model for model in members if there.keys() <= own[model].keys()])
    alike: dict[tuple[Path, ...], Weights] = {}
    for key, value in {key: value for weights in own.values() for key, value in weights.items()}.items():
        alike.setdefault(tuple(model for model in members if key in own[model]), {})[key] = value
    for holders, weights in alike.items():
        if (len(holders) - 1) * sum(value.nbytes for value in weights.values()) >= SAVING:
            for lot in _lots(weights):
                store(lot, holders)
    for model in members:
        for lot in _lots(own[model])[1:]:
            store(lot, [model])
        if parts[model]:
            _rewrite(model, _named(own[model]), parts[model])


def _keyed(weights: dict[str, Tensor]) -> Weights:
    return {(name, _digest(value)): value for name, value in sorted(weights.items())}


def _named(weights: Weights) -> dict[str, Tensor]:
    return {name: value for (name, _), value in weights.items()}


def _digest(value: Tensor) -> str:
    """Of a weight's type, shape and bits."""
    bits = value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return hashlib.sha256(f"{value.dtype} {list(value.shape)}".encode() + bits).hexdigest()


def _lots(weights: Weights) -> list[Weights]:
    """Weights in as many lots as they need files."""
    lots: list[Weights] = [{}]
    room = FILE_BYTES
    for key, value in weights.items():
        size = value.nbytes + ENTRY_BYTES
        if size > room and lots[-1]:
            lots.append({})
            room = FILE_BYTES
        lots[-1][key] = value
        room -= size
    return lots


def _rewrite(model: Path, weights: dict[str, Tensor], parts: dict[str, str]) -> None:
    """Replace a model by one that has parts."""
    config, found = read_config(model), results.read(model)
    with replacing(model) as draft:
        shutil.copytree(model, draft, dirs_exist_ok=True)
        write_weights(draft, weights, config, parts)
        if found is not None and found.get("weights_sha256") == config["weights_sha256"]:
            digest = read_config(draft)["weights_sha256"]
            results.write(draft / results.RESULTS_FILE, {**found, "weights_sha256": digest})


def _prune(collection: Path) -> None:
    """Delete the parts that no model has any more."""
    used = {name for model in models(collection) for name in read_config(model)["parts"]}
    for file in collection.glob("*-part-*.safetensors"):
        if re.fullmatch(PART, file.name) and file.name not in used:
            file.unlink()
