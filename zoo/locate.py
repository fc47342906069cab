"""Where a model's name is looked for: among directories, the models of the package, the Hub's cache and the Hub, in this order."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from zoo import hub, registry
from zoo.errors import ZooError
from zoo.hub import Source
from zoo.names import find
from zoo.publication import published

_NAME = re.compile(r".+-.+-(\d+b|k\d+)")  # of a model


def locate(model: str | Path, source: Source | None = None) -> tuple[Path, dict[str, str] | None]:
    """Directory of a model, and the digests that its files must have.

    A directory of the name given goes before a model of the package, and that before the Hub.

    :param model: name, in any spelling of :mod:`zoo.names`, path of a directory, or ``hf:org/repo[/folder][@revision]``
    :param source: of models of the Hub
    :raises ZooError: nothing of that name; the nearest names are given; or it cannot be fetched
    """
    text, path, source = known_as(model), Path(model), source or Source()
    if text.startswith("hf:"):
        return hub.fetch(text, source)
    if (path / "config.json").is_file():
        if source.revision is not None:
            raise ZooError(f"{text} is a directory here; a revision is for models of the Hub")
        return path, registry.read_index(path.resolve().parent).get(path.resolve().name)
    index = registry.read_index(registry.WEIGHTS)
    if text in index and source.revision is None:
        return registry.WEIGHTS / text, index[text]
    known = published()
    if text in known:
        return hub.fetch_published(text, known[text], source)
    if text in index:
        raise ZooError(f"{text} comes with the package; a revision is for models of the Hub")
    if path.is_dir() or "/" in text:
        raise ZooError(f"{text} is no model directory: it has no config.json; see zoo list for names")
    raise ZooError(unknown_model(text, [*index, *known]))


def known_as(model: str | Path) -> str:
    """The name of a model in its own spelling; directories, addresses and names that nobody knows as they are given."""
    text = str(model)
    if text.startswith("hf:") or (Path(model) / "config.json").is_file():
        return text
    index = registry.read_index(registry.WEIGHTS)
    return text if text in index else find(text, [*index, *published()])


def unknown_model(name: str, known: Iterable[str]) -> str:
    """Message for a name that no model has, with the nearest: of what it sends, of its data set, of its family, of its rate, in this order."""
    names, wanted = list(dict.fromkeys(known)), name.lower()
    near = difflib.get_close_matches(wanted, names, n=len(names) or 1, cutoff=0.4)
    if all(map(_NAME.fullmatch, (wanted, *near))):
        near.sort(key=partial(_distance, wanted))
    return f"unknown model {name!r}; " + (f"nearest: {', '.join(near[:3])}" if near else "see zoo list --remote")


def _distance(wanted: str, name: str) -> tuple[bool, float, float, int]:
    """How far a model is from one that is not there, the weightiest first."""

    def unlike(part: Callable[[str], str]) -> float:
        return -difflib.SequenceMatcher(None, part(wanted), part(name)).ratio()

    of_other_kind = wanted.endswith("b") != name.endswith("b")
    rates = registry.rate_of(wanted) - registry.rate_of(name)
    return of_other_kind, unlike(registry.scenario_of), unlike(registry.family_of), abs(rates)
