"""From a trained model to one that is shipped: as small as its quality allows, measured as it is, on record."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
from zoo.parts import needed_bytes, share
from zoo.registry import WEIGHTS_FILE, architecture, read_config, write_index
from zoo.storage import is_matrix

FORMS = ("float32", "float16", "int8")  # of weights that are tried, what the others are held to first
LOSS_DB = 0.05  # of NMSE, that a smaller form may cost
TRIAL_SAMPLES = 2000  # that the forms are compared by, without a search by the phone


def release(
    models: Sequence[str | Path], store: Store, into: Path, samples: int | None = None, *, device: str = "cpu", progress: bool = False
) -> list[dict[str, Any]]:  # fmt: skip
    """Put models into a collection, with weights in the smallest of :data:`FORMS` that costs less than :data:`LOSS_DB` anywhere.

    The forms are compared on the first :data:`TRIAL_SAMPLES` of the test split; ``results.json`` is of the very weights that are shipped, and has
    the losses of the forms as ``half_precision_loss_db`` and ``int8_loss_db`` (None where no matrix is large enough). What models of one family hold alike is stored
    once (:mod:`zoo.parts`), and the collection's index is made anew.

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
    with tempfile.TemporaryDirectory(dir=into, prefix=".") as directory:
        families: dict[str, dict[str, dict[str, _Draft]]] = {}
        for model in models:
            path, digests = locate(model)
            drafts = _tried(path, digests, Path(directory), store, samples, device, progress)
            name = drafts["float32"].path.name
            families.setdefault(name.rpartition("-")[0], {})[name] = drafts
        released = {}
        for family in families.values():
            for name, form in _forms(family).items():
                draft = family[name][form]
                losses = {key: family[name][key].loss_db if key in family[name] else None for key in FORMS[1:]}
                told = {"half_precision_loss_db": losses["float16"], "int8_loss_db": losses["int8"], "dtype": form}
                found = _measured(draft.path, store, samples, device, progress)
                results.write(draft.path / results.RESULTS_FILE, {**found, **told})
                released[name] = draft.path
        for name, path in released.items():
            swap(path, into / name)
    share([into / name for name in released])
    write_index(into)
    return [measured for name in released if (measured := results.read(into / name)) is not None]


@dataclass(frozen=True)
class _Draft:
    """A model in one form."""

    path: Path
    errors_db: list[float]  # at each condition of the trial
    loss_db: float  # where it is largest

    @property
    def size(self) -> int:
        """Bytes of the weights."""
        return (self.path / WEIGHTS_FILE).stat().st_size


def _measured(
    path: Path, store: Store, samples: int | None, device: str, progress: bool, **options: Any
) -> dict[str, Any]:
    """Results of a model as it is.

    :param options: of the evaluation of its sort
    """
    config = read_config(path)
    symbols = issubclass(architecture(config["architecture"]), JSCC)
    count = store.sizes.get("test", 0) if samples is None else samples
    command = f"zoo eval {config['name']} --data STORE --samples {count}"  # what measures the released file again
    measure: Callable[..., dict[str, Any]] = evaluate_jscc if symbols else evaluate
    return measure(path, store, "test", samples, device=device, progress=progress, command=command, **options)


def _tried(
    path: Path, digests: dict[str, str] | None, directory: Path, store: Store, samples: int | None, device: str, progress: bool
) -> dict[str, _Draft]:  # fmt: skip
    """A model in every form that makes it smaller than the one before."""
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
    few = min(TRIAL_SAMPLES, store.sizes.get("test", 0) if samples is None else samples)
    conditions, options = "points" if isinstance(codec, JSCC) else "side_information", {"effort": 0}
    drafts: dict[str, _Draft] = {}
    for form in FORMS:
        if form == "int8" and not any(map(is_matrix, codec.state_dict().values())):
            continue
        draft = directory / form / config["name"]
        save_model(draft, codec, record, vectors, form)
        found = _measured(draft, store, few, device, progress, **options)
        errors = [condition["nmse_db"] for condition in found[conditions]]
        exact = drafts["float32"].errors_db if drafts else errors
        drafts[form] = _Draft(draft, errors, max(short - long for short, long in zip(errors, exact, strict=True)))
    return drafts


def _forms(family: Mapping[str, Mapping[str, _Draft]]) -> dict[str, str]:
    """Form that each model of a family is shipped in: the smallest that keeps its quality.

    Weights that models share can be stored once only in one form: where that takes less room, all have the smallest that suits them all.
    """
    fit = {name: [form for form, draft in drafts.items() if draft.loss_db < LOSS_DB] for name, drafts in family.items()}
    own = {name: min(forms, key=lambda form: family[name][form].size) for name, forms in fit.items()}
    common = [form for form in FORMS if all(form in forms for forms in fit.values())][-1]
    choices = [own, dict.fromkeys(family, common)]
    return min(choices, key=lambda forms: needed_bytes([family[name][form].path for name, form in forms.items()]))
