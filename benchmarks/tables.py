"""What benchmark scripts share: their arguments, and where results go. A generated table in a hand-written page stands between two
comments that name the script that made it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def arguments(script: str, doc: str | None) -> argparse.ArgumentParser:
    """Parser of a script's arguments: where its results and its table go."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results") / f"{Path(script).stem}.json")
    parser.add_argument("--readme", type=Path, help="put the table into this file")
    return parser


def publish(script: str, given: argparse.Namespace, results: Any, table: str) -> None:
    """Write a script's results to ``--out``, print its table, and put it into ``--readme``."""
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(results, indent=1) + "\n")
    print(table)
    if given.readme is not None:
        put_into(given.readme, f"benchmarks/{Path(script).name}", table)


def put_into(page: Path, script: str, table: str) -> None:
    """Replace what stands between ``<!-- script -->`` and ``<!-- /script -->``.

    :raises ValueError: the page has no such place
    """
    opening, closing = f"<!-- {script} -->\n", f"<!-- /{script} -->"
    head, found, rest = page.read_text().partition(opening)
    _, ended, tail = rest.partition(closing)
    if not found or not ended:
        raise ValueError(f"{page} has no place between {opening.strip()} and {closing}")
    page.write_text(head + opening + table + closing + tail)
