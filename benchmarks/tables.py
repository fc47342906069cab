"""What benchmark scripts share: their arguments, and where results go. A generated table in a hand-written page stands between two
comments that name the script that made it, and the scenario where there is a table for each."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
SCENARIO = "cdl"  # whose files and places bear plain names


def arguments(script: str, doc: str | None) -> argparse.ArgumentParser:
    """Parser of a script's arguments: where its results and its table go."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help=f"by default, benchmarks/results/{Path(script).stem}.json")
    parser.add_argument("--readme", type=Path, help="put the table into this file")
    return parser


def results_file(stem: str, scenario: str = SCENARIO) -> Path:
    """Where results are kept: ``jscc.json``, ``jscc-inh.json``."""
    return RESULTS / f"{stem if scenario == SCENARIO else f'{stem}-{scenario}'}.json"


def place(script: str, scenario: str = SCENARIO) -> str:
    """What a table stands under: ``benchmarks/jscc.py``, ``benchmarks/jscc.py inh``."""
    name = f"benchmarks/{Path(script).name}"
    return name if scenario == SCENARIO else f"{name} {scenario}"


def publish(script: str, given: argparse.Namespace, results: Any, table: str, scenario: str = SCENARIO) -> None:
    """Write a script's results to ``--out``, print its table, and put it into ``--readme``."""
    out = given.out or results_file(Path(script).stem, scenario)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(results, indent=1) + "\n")
    print(table)
    if given.readme is not None:
        put_into(given.readme, place(script, scenario), table)


def put_into(page: Path, place: str, table: str) -> None:
    """Replace what stands between ``<!-- place -->`` and ``<!-- /place -->``.

    :raises ValueError: the page has no such place
    """
    opening, closing = f"<!-- {place} -->\n", f"<!-- /{place} -->"
    head, found, rest = page.read_text().partition(opening)
    _, ended, tail = rest.partition(closing)
    if not found or not ended:
        raise ValueError(f"{page} has no place between {opening.strip()} and {closing}")
    page.write_text(head + opening + table + closing + tail)
