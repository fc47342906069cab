"""Models by name: the architectures, and the index of released models.

A model is a directory of four files (``model.safetensors``, ``config.json``, ``vectors.safetensors``, ``results.json``). Weights that it has
in common with others may lie beside the directory, in parts that its config names (:mod:`zoo.parts`). The ``dtype`` of the config is the form that the
weights have in these files, such as ``float16`` or ``int8`` (:mod:`zoo.storage`); its ``input`` tells what samples the model is made for look like
(:mod:`zoo.input_statistics`). A collection is a directory of models with their parts and an ``index.json`` that holds the SHA-256 of every file.
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
    "separate": "zoo.models.separate:Separate",
    "klt-jscc": "zoo.models.klt_jscc:KLTJSCC",
    "adjscc": "zoo.models.adjscc:ADJSCC",
    "unet-jscc": "zoo.models.unetjscc:UNetJSCC",
    "rd-jscc": "zoo.models.rdjscc:RDJSCC",
    "dense-jscc": "zoo.models.densejscc:DenseJSCC",
}
WEIGHTS = Path(__file__).parent / "weights"  # models that come with the package
INDEX = "index.json"
FORMAT_VERSION = 1  # of a model
CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
FILES = {  # of a model, and the bytes that each may have
    CONFIG_FILE: 1 << 20, WEIGHTS_FILE: 1 << 40, "results.json": 1 << 24, "vectors.safetensors": 1 << 28,
}  # fmt: skip
PART = r"^[A-Za-z0-9][\w.-]*-part-[0-9a-f]{12}\.safetensors$"  # name of a file of weights, beside the models that have them


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


def scenario_of(name: str) -> str:
    """Data set in a model's name, the scenario of its recipe."""
    return name.rsplit("-", 2)[1]


def sha256(path: Path) -> str:
    """Digest of a file, hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def read_config(path: Path) -> dict[str, Any]:
    """A model's ``config.json``, with its ``parts``: SHA-256 by name, often none.

    :raises ZooError: missing, no JSON, or of another format version
    """
    try:
        if (path / CONFIG_FILE).stat().st_size > FILES[CONFIG_FILE]:
            raise ZooError(f"{path / CONFIG_FILE} is larger than any config, {FILES[CONFIG_FILE]} bytes")
        config: Any = json.loads((path / CONFIG_FILE).read_text())
    except FileNotFoundError:
        raise ZooError(f"{path} is no model directory: it has no {CONFIG_FILE}") from None
    except (ValueError, RecursionError) as error:
        raise ZooError(f"{path / CONFIG_FILE} is not JSON: {error}") from None
    if not isinstance(config, dict):
        raise ZooError(f"{path / CONFIG_FILE} is no model's config")
    if config.get("format_version") != FORMAT_VERSION:
        raise ZooError(
            f"{path / CONFIG_FILE} has format_version {config.get('format_version')!r}; this zoo reads {FORMAT_VERSION}"
        )
    for key in ("name", "architecture", "codec", "weights_sha256"):
        if key not in config:
            raise ZooError(f"{path / CONFIG_FILE} lacks {key!r}; get the file again, or export the model anew")
    listed = config.setdefault("parts", {})
    if not isinstance(listed, dict) or not all(_is_part(name, digest) for name, digest in listed.items()):
        raise ZooError(f"{path / CONFIG_FILE}: parts: they must be names of parts, each with its SHA-256")
    return config


def _is_part(name: str, digest: object) -> bool:
    named = re.fullmatch(PART, name) and isinstance(digest, str) and re.fullmatch(r"[0-9a-f]{64}", digest)
    return bool(named) and name == part_name(name.rpartition("-part-")[0], str(digest))


def part_name(family: str, digest: str) -> str:
    """Name of a part by its content: no two contents contend for a name.

    :param family: ``<family>-<dataset>``
    :param digest: SHA-256
    """
    return f"{family}-part-{digest[:12]}.safetensors"


def place(model: Path, file: str) -> Path:
    """Where a file of a model is: in its directory or, if it is a part, beside it.

    :raises ZooError: it is missing
    """
    if (model / file).is_file():
        return model / file
    beside = model.resolve().parent / file
    if re.fullmatch(PART, file) is None:
        raise ZooError(f"{model / file} is missing; get the model again")
    if not beside.is_file():
        raise ZooError(
            f"{beside} is missing, with weights of {model.resolve().name}; copy it there, or get the model again"
        )
    return beside


def parts(model: Path) -> list[Path]:
    """The parts of a model.

    :raises ZooError: one is missing
    """
    return [place(model, name) for name in read_config(model)["parts"]]


def models(collection: Path) -> list[Path]:
    """Directories of the models of a collection."""
    found = sorted(config.parent for config in collection.glob(f"*/{CONFIG_FILE}"))
    return [model for model in found if not model.name.startswith(".")]


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

    :raises ZooError: it cannot be written, or a model lacks a file
    """
    index = {
        model.name: {file.name: sha256(file) for file in [*sorted(model.iterdir()), *parts(model)]}
        for model in models(collection)
    }
    put(collection / INDEX, json.dumps(index, indent=1) + "\n")
    return index


def list_models(pattern: str = "*") -> list[str]:
    """Names of the models that come with the package, by family and rate.

    :param pattern: shell pattern, e.g. ``gd-csi-*``
    """
    found = fnmatch.filter(read_index(WEIGHTS), pattern)
    return sorted(found, key=lambda name: (name.rsplit("-", 1)[0], rate_of(name)))
