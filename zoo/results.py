"""``results.json``: what an evaluation found, beside the weights that it evaluated."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.errors import ZooError
from zoo.files import put
from zoo.locate import locate

RESULTS_FILE = "results.json"
KEYS = {"model", "data", "parameters"}  # that readers here rely on, and those of either sort
SORTS = ({"bits", "decoder_has_y", "side_information"}, {"symbols", "points"})


def home(model: str | Path) -> Path | None:
    """Where a model's results belong, or None where they must not be put: a model of the package or of the Hub, one whose
    ``results.json`` an index has on record, or a directory that may not be written."""
    path, digests = locate(model)
    own = path == Path(model) and RESULTS_FILE not in (digests or {}) and os.access(path, os.W_OK)
    return path / RESULTS_FILE if own else None


def read(path: Path) -> dict[str, Any] | None:
    """A model's results, or None where there are none.

    :param path: the model's directory, or the file itself
    :raises ZooError: it is no such file
    """
    file = path / RESULTS_FILE if path.is_dir() else path
    try:
        results: Any = json.loads(file.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ZooError(f"cannot read results from {file}: {error}") from None
    if not isinstance(results, dict) or not any(set(results) >= KEYS | keys for keys in SORTS):
        raise ZooError(f"{file} holds no results; zoo eval writes them")
    return results


def write(path: Path, results: dict[str, Any]) -> None:
    """Write results as JSON.

    :raises ZooError: it cannot be written
    """
    put(path, json.dumps(results, indent=1, allow_nan=False) + "\n")


def domain(results: Mapping[str, Any]) -> str:
    """That the NMSE was measured in; results that do not say so are older than the choice."""
    return str(results.get("domain", "angular-delay"))


def effort(results: Mapping[str, Any]) -> int:
    """Of the sender in search of what it sends; results that do not say so are older than the choice."""
    return int(results.get("effort", 0))


def summary(results: dict[str, Any]) -> str:
    """Error at each quality of the side information, e.g. ``-7.77 dB, -7.60 dB with Y at 30 dB``; of a model that sends symbols, the
    range of its errors. Another domain than the crop's is named, and a sender's effort."""
    where = "" if domain(results) == "angular-delay" else f" in the {domain(results)} domain"
    searched = f" at effort {effort(results)}" if effort(results) else ""
    if "points" in results:
        errors = [point["nmse_db"] for point in results["points"]]
        return f"{max(errors):.2f} to {min(errors):.2f} dB over {len(errors)} points{searched}{where}"
    levels = (
        f"{level['nmse_db']:.2f} dB" + ("" if level["snr_db"] is None else f" with Y at {level['snr_db']:g} dB")
        for level in results["side_information"]
    )
    return ", ".join(levels) + searched + where
