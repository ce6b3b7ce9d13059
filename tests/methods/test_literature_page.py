"""docs/methods.md: every named system of the literature, and a figure for every row that it names."""

from __future__ import annotations

import csv
from pathlib import Path


def rows(path: Path) -> list[dict[str, str]]:
    """Lines of a table of docs/."""
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def test_every_system_has_a_place_and_its_rows_are_measured(root: Path) -> None:
    systems, measured = rows(root / "docs" / "systems.tsv"), rows(root / "docs" / "methods.tsv")
    known = {line["row"] for line in measured}
    page = (root / "docs" / "methods.md").read_text(encoding="utf-8")
    assert len(systems) == len({one["system"] for one in systems}) == 56
    for one in systems:
        assert f"| {one['system']} | {one['what']} | {one['where']} |" in page and one["what"] and one["where"]
        for name in filter(None, one["rows"].split("; ")):
            assert name in known, f"{one['system']}: {name} has no figure"
    for line in measured:
        assert float(line["ratio"]) > 0 and line["date"] and line["commit"] and line["cpu"]
        assert f"| {line['model']} | {line['row']} | " in page
