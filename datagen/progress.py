"""Progress bars, on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(total: int, name: str, unit: str, show: bool) -> Iterator[Callable[[int], object]]:
    """A bar, and the function that moves it on.

    :param unit: what is counted, plural, or ``B``
    """
    from tqdm import tqdm

    interval = 0.2 if sys.stderr.isatty() else 10
    unit = unit if unit == "B" else f" {unit}"
    with tqdm(total=total, desc=name, unit=unit, unit_scale=True, mininterval=interval, disable=not show) as bar:
        yield bar.update
