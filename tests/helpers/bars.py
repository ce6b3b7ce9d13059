"""Bars: what is measured against what was promised, as a table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

Row: TypeAlias = tuple[str, str, str, bool]  # what, bar, measured, met


def print_rows(rows: Iterable[Row], *, head: bool = False) -> bool:
    """Print the rows of a Markdown table, each when it is known; whether all bars are met."""
    good = True
    if head:
        print("| what | bar | measured | |\n|---|---|---|---|")
    for what, bar, measured, met in rows:
        print(f"| {what} | {bar} | {measured} | {'met' if met else 'missed'} |", flush=True)
        good = good and met
    return good
