"""Generated tables in hand-written pages: each stands between two comments that name the script that made it."""

from __future__ import annotations

from pathlib import Path


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
