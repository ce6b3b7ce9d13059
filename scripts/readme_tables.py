#!/usr/bin/env python3
"""Write the generated parts of README.md and docs/types.md: the number of families, the tables of types.

    python scripts/readme_tables.py            # rewrite them
    python scripts/readme_tables.py --check    # exit status 1 if one is not up to date

A generated part stands between `<!-- name -->` and `<!-- /name -->`.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from quantcli import families
from quantcli.commands import formats

ROOT = Path(__file__).resolve().parent.parent
PAGES = (ROOT / "README.md", ROOT / "docs" / "types.md")


def recipes() -> str:
    """A Markdown table of every recipe."""
    rows = ["| recipe | bpw | imatrix | for |", "|---|---|---|---|"]
    for row in formats.overview()["recipes"]:
        bpw = "-" if row["bpw"] is None else f"{row['bpw']:.2f}"
        rows.append(f"| {row['name']} | {bpw} | {row['importance']} | {row['purpose']} |")
    return "\n" + "\n".join(rows) + "\n"


def tensor_types() -> str:
    """A Markdown table of every tensor type."""
    rows = ["| type | bpw | block | bytes | imatrix | encode | for |", "|---|---|---|---|---|---|---|"]
    for row in formats.overview()["types"]:
        shown = (row["name"], f"{row['bpw']:.4g}", row["block"], row["bytes"], row["importance"])
        rows.append("| " + " | ".join(map(str, (*shown, ", ".join(row["searches"]) or "-", row["purpose"]))) + " |")
    return "\n" + "\n".join(rows) + "\n"


def family_list() -> str:
    """How many models are read; docs/models.md has the list."""
    known = families.registry().values()
    return f"{len({name for family in known for name in family.hf_architectures})} classes in {len(known)} families"


PARTS = {"recipes": recipes, "types": tensor_types, "families": family_list}


def render(text: str) -> str:
    """The text of a page with its generated parts made anew."""
    for name, make in PARTS.items():
        pattern = re.compile(rf"<!-- {name} -->(.*?<!-- /{name} -->)?", re.DOTALL)
        part = f"<!-- {name} -->{make()}<!-- /{name} -->".replace("\\", r"\\")
        text = pattern.sub(part, text, count=1)
    return text


def main() -> int:
    stale = False
    for page in PAGES:
        current = page.read_text(encoding="utf-8")
        wanted = render(current)
        stale = stale or current != wanted
        if "--check" not in sys.argv[1:]:
            page.write_text(wanted, encoding="utf-8")
    return int("--check" in sys.argv[1:] and stale)


if __name__ == "__main__":
    sys.exit(main())
