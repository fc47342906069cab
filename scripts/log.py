"""What a session leaves: where its files are, and the log that says what is done. Nothing heavy is imported here."""

from __future__ import annotations

import fnmatch
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from zoo.files import put

LOG, MODELS, RUNS, RELEASED, MEASURED, STORE = "log.jsonl", "models", "runs", "released", "measured", "data.zarr"
HOME = (  # what is worth keeping
    LOG, f"{MODELS}/*", f"{MODELS}/*/*", f"{MEASURED}/*", f"{RUNS}/*/{LOG}", f"{RUNS}/*/recipe.json",
)  # fmt: skip
State = Literal["done", "failed", "left out", "begun", "open"]


class Log:
    """Lines of JSON in a file, one an event; a line that a cut has torn is dropped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        text = path.read_text() if path.is_file() else ""
        self._whole = text[: text.rfind("\n") + 1]
        self.events: list[dict[str, Any]] = [json.loads(line) for line in self._whole.splitlines()]

    def add(self, event: str, step: str, **facts: Any) -> None:
        """Append an event, on disk when this returns."""
        if self.path.is_file() and self.path.stat().st_size > len(self._whole.encode()):
            put(self.path, self._whole)
        self.events.append({"time": round(time.time(), 3), "event": event, "step": step, **facts})
        line = json.dumps(self.events[-1]) + "\n"
        self._whole += line
        with self.path.open("a") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def last(self, event: str, step: str) -> dict[str, Any] | None:
        """The newest event of a sort, or None."""
        return next((e for e in reversed(self.events) if (e["event"], e["step"]) == (event, step)), None)

    def state(self, step: str) -> State:
        """How far a step is."""
        events = [event["event"] for event in self.events if event["step"] == step]
        if "done" in events:
            return "done"
        return events[-1] if events else "open"


def minutes_left(log: Log) -> float:
    """Of the session, from its first start on the wall clock."""
    begun = log.last("begun", "session")
    return 0.0 if begun is None else begun["minutes"] - (time.time() - begun["time"]) / 60


def states(log: Log) -> Iterator[tuple[str, State]]:
    """Each step that the log knows or the plan asks for, and how far it is."""
    begun = log.last("begun", "session")
    planned = ["device", "data"]
    for job in [] if begun is None else begun["plan"]["jobs"]:
        planned += [f"{what} {job['name']}" for what in ("speed", "train", "release")]
    for step in dict.fromkeys([*planned, *(event["step"] for event in log.events)]):
        if step != "session":
            yield step, log.state(step)


def keepsakes(out: Path) -> list[Path]:
    """Files of a session that are worth taking home."""
    inside = (path for path in out.rglob("*") if path.is_file())
    return [
        path for path in inside
        if any(_matches(path.relative_to(out), pattern) for pattern in HOME) and not path.name.startswith(".")
    ]  # fmt: skip


def _matches(path: Path, pattern: str) -> bool:
    return len(path.parts) == pattern.count("/") + 1 and fnmatch.fnmatch(path.as_posix(), pattern)
