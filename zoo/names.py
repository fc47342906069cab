"""Names of recipes, families and models, which are found whatever their hyphens, underscores, spaces and capitals."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable


def find(given: str, known: Iterable[str]) -> str:
    """The one known name that a given one stands for; as it was given where it is known, or stands for none or for several."""
    names = dict.fromkeys(known)
    alike = [given] if given in names else [name for name in names if _plain(name) == _plain(given)]
    return alike[0] if len(alike) == 1 else given


def matching(pattern: str, known: Iterable[str]) -> list[str]:
    """Known names that a shell pattern matches; where there are none, those that it matches in the same forgiving way."""
    names = list(known)
    return fnmatch.filter(names, pattern) or [
        name for name in names if fnmatch.fnmatchcase(_plain(name), _plain(pattern))
    ]


def _plain(text: str) -> str:
    """Small letters and figures; what stands in brackets of a pattern keeps its hyphens."""
    return re.sub(r"(\[[^]]*])|[-_\s]", lambda match: match[1] or "", text).casefold()
