"""What the commands of ``zoo`` share: types of options, and options."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import click


class InOrder(click.Group):
    """Lists its commands as they stand in this file."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


class Snr(click.ParamType[Any, Any]):
    """An SNR in dB, or the word none, for Y as simulated, where that is allowed."""

    name = "snr"

    def __init__(self, none: bool = True) -> None:
        self.none = none

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        import math

        try:
            snr = None if self.none and value == "none" else float(value)
        except ValueError:
            snr = math.nan
        if snr is not None and not math.isfinite(snr):
            self.fail(f"{value!r} is no SNR in dB" + (", nor 'none'" if self.none else ""), param, ctx)
        return snr


class Numbers(click.ParamType[Any, Any]):
    """Numbers as 8,16,32 or START:STOP:STEP with both ends, or a word where one is allowed.

    :param kind: int or float
    :param words: and what they stand for
    """

    name = "numbers"
    NONE: ClassVar[dict[str, Any]] = {"none": None}
    AUTO: ClassVar[dict[str, Any]] = {"auto": "auto"}

    def __init__(self, kind: type[int] | type[float], words: Mapping[str, Any] | None = None) -> None:
        self.kind, self.words = kind, words or {}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        parts = str(value).split(",")
        return [number for part in parts for number in self._of(part, param, ctx)]

    def _of(self, part: str, param: click.Parameter | None, ctx: click.Context | None) -> list[Any]:
        import math

        if part in self.words:
            return [self.words[part]]
        try:
            start, *rest = map(self.kind, part.split(":"))
            stop, step = rest or (start, 1)
            steps = (stop - start) / step
        except (ValueError, ZeroDivisionError):
            start, stop, step, steps = 0, 0, 0, math.nan
        if not 0 <= steps <= 1000 or max(abs(start), abs(stop)) > 1000:
            word = "".join(f", nor {word!r}" for word in self.words)
            self.fail(f"{part!r} is neither a number nor START:STOP:STEP, such as -10:10:5{word}", param, ctx)
        return [start + number * step for number in range(math.floor(steps + 1e-9) + 1)]


class Link(click.ParamType[Any, Any]):
    """k=N."""

    name = "link"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        key, _, number = str(value).partition("=")
        if key != "k" or not number.isdecimal() or int(number) < 1:
            self.fail(f"{value!r} is no number of symbols; give k=16, say", param, ctx)
        return int(number)


class StorePath(click.ParamType[Any, Any]):
    """A path, or a URL as it stands."""

    name = "PATH|URL"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if "://" in str(value) else Path(value)


PATH = click.Path(path_type=Path)
MODEL = click.argument("model")
JSON = click.option("--json", "as_json", is_flag=True, help="print the result as JSON")
QUIET = click.option("--quiet", is_flag=True, help="no progress bar, no closing words")
DEVICE = click.option("--device", default="cpu", show_default=True, metavar="cpu|cuda", help="device that computes")
SPLIT = click.option("--split", default="test", show_default=True, help="of a store")
EFFORT = click.option(
    "--effort", type=click.IntRange(0), metavar="N", help="of the phone in search of what it sends  [default: the model's own]"
)  # fmt: skip
SAMPLES = click.option("--samples", type=click.IntRange(1), help="the first so many  [default: all]")


def spaced(number: int) -> str:
    return f"{number:,}".replace(",", " ")


def size_of(facts: dict[str, Any]) -> str:
    return f"{facts['bits']} bits ({facts['payload_bytes']} bytes)"
