#!/usr/bin/env python3
"""Write the generated parts of README.md: the table of recipes and the number of model families.

    python scripts/readme_tables.py            # rewrite README.md
    python scripts/readme_tables.py --check    # exit status 1 if it is not up to date

A generated part stands between `<!-- name -->` and `<!-- /name -->`.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from quantcli import families
from quantcli.commands import formats

README = Path(__file__).resolve().parent.parent / "README.md"


def recipes() -> str:
    """A Markdown table of every recipe."""
    rows = ["| recipe | bpw | imatrix | for |", "|---|---|---|---|"]
    for row in formats.overview()["recipes"]:
        bpw = "-" if row["bpw"] is None else f"{row['bpw']:.2f}"
        rows.append(f"| {row['name']} | {bpw} | {row['importance']} | {row['purpose']} |")
    return "\n" + "\n".join(rows) + "\n"


def family_list() -> str:
    """How many models are read; docs/models.md has the list."""
    known = families.registry().values()
    return f"{len({name for family in known for name in family.hf_architectures})} classes in {len(known)} families"


PARTS = {"recipes": recipes, "families": family_list}


def render(text: str) -> str:
    """The text of README.md with its generated parts made anew."""
    for name, make in PARTS.items():
        pattern = re.compile(rf"<!-- {name} -->(.*?<!-- /{name} -->)?", re.DOTALL)
        part = f"<!-- {name} -->{make()}<!-- /{name} -->".replace("\\", r"\\")
        text = pattern.sub(part, text, count=1)
    return text


def main() -> int:
    current = README.read_text(encoding="utf-8")
    wanted = render(current)
    if "--check" in sys.argv[1:]:
        return int(current != wanted)
    README.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
