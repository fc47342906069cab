"""Models by name: the architectures, and the index of released models.

A model is a directory of four files (``model.safetensors``, ``config.json``, ``vectors.safetensors``, ``results.json``); a collection
is a directory of models with an ``index.json`` that holds the SHA-256 of every file.
"""

from __future__ import annotations

import fnmatch
import hashlib
import importlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import ZooError, unknown
from zoo.files import put

if TYPE_CHECKING:
    from zoo.models.base import Model

ARCHITECTURES = {
    "klt": "zoo.models.klt:KLT",
    "klt-grid": "zoo.models.klt_grid:KLTGrid",
    "csinet": "zoo.models.csinet:CsiNet",
    "crnet": "zoo.models.crnet:CRNet",
    "gd-csi": "zoo.models.gdcsi:GDCSI",
    "profile-code": "zoo.models.profile_code:ProfileCode",
    "klt-jscc": "zoo.models.klt_jscc:KLTJSCC",
    "adjscc": "zoo.models.adjscc:ADJSCC",
    "unet-jscc": "zoo.models.unetjscc:UNetJSCC",
    "rd-jscc": "zoo.models.rdjscc:RDJSCC",
}
WEIGHTS = Path(__file__).parent / "weights"  # models that come with the package
INDEX = "index.json"
FILES = {  # of a model, and the bytes that each may have
    "config.json": 1 << 20, "model.safetensors": 1 << 40, "results.json": 1 << 24, "vectors.safetensors": 1 << 28,
}  # fmt: skip


def architecture(name: str) -> type[Model[Any]]:
    """The class of an architecture.

    :raises ZooError: there is none of this name
    """
    if name not in ARCHITECTURES:
        raise ZooError(unknown("architecture", name, ARCHITECTURES))
    module, _, attribute = ARCHITECTURES[name].partition(":")
    found: type[Model[Any]] = getattr(importlib.import_module(module), attribute)
    return found


def model_name(family: str, dataset: str, label: str) -> str:
    """``<family>-<dataset>-<rate>b`` or ``<family>-<dataset>-k<symbols>``, e.g. ``gd-csi-cdl-128b``, ``rd-jscc-cdl-k32``.

    :param label: of :meth:`zoo.models.base.Model.label`
    """
    return f"{family}-{dataset}-{label}"


def rate_of(name: str) -> int:
    """Rate in a model's name: bits of a payload, or channel uses (of the longest latent, where there are several)."""
    match = re.search(r"-(?:(\d+)b|k(\d+))$", name)
    if match is None:
        raise ZooError(f"{name!r} is not named <family>-<dataset>-<rate>b or -k<symbols>")
    return int(match[1] or match[2])


def family_of(name: str) -> str:
    """Family in a model's name."""
    return name.rsplit("-", 2)[0]


def sha256(path: Path) -> str:
    """Digest of a file, hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def read_index(collection: Path) -> dict[str, dict[str, str]]:
    """Digests of a collection: name of the model, name of the file, SHA-256. Empty where there is no index.

    :raises ZooError: it is something else
    """
    path = collection / INDEX
    try:
        index: Any = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ZooError(f"cannot read {path}: {error}") from None
    if not isinstance(index, dict) or not all(isinstance(files, dict) for files in index.values()):
        raise ZooError(f"{path} is no index of models; zoo index {collection} writes one")
    return index


def write_index(collection: Path) -> dict[str, dict[str, str]]:
    """Make the index of a collection anew from what lies there.

    :raises ZooError: it cannot be written
    """
    index = {
        model.name: {file.name: sha256(file) for file in sorted(model.iterdir())}
        for model in sorted(collection.iterdir())
        if (model / "config.json").is_file() and not model.name.startswith(".")
    }
    put(collection / INDEX, json.dumps(index, indent=1) + "\n")
    return index


def list_models(pattern: str = "*") -> list[str]:
    """Names of the models that come with the package, by family and rate.

    :param pattern: shell pattern, e.g. ``gd-csi-*``
    """
    found = fnmatch.filter(read_index(WEIGHTS), pattern)
    return sorted(found, key=lambda name: (name.rsplit("-", 1)[0], rate_of(name)))
