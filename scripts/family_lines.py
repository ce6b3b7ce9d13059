#!/usr/bin/env python3
"""Count what a family costs: lines of its declaration in families/ and of its architecture in architectures/.

    python scripts/family_lines.py             # median and longest
    python scripts/family_lines.py --verbose   # every family

What a module shares among its families (facts, transforms, the comment at its top) is divided among them; blank lines
and imports don't count. An architecture that several families use counts for the first of them.
"""

from __future__ import annotations

import ast
import importlib
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from quantcli import architectures, families

BAR_MEDIAN, BAR_LONGEST = 35, 120


class Cost(NamedTuple):
    name: str
    arch: str
    lines: float


def declared(package: str, folder: Path, table: str) -> Iterator[tuple[str, str, float]]:
    """Of every entry of every module's ``table``: its name, its GGUF architecture, its lines."""
    for path in sorted(folder.glob("*.py")):
        module = importlib.import_module(f"{package}.{path.stem}")
        entries = getattr(module, table, ())
        if not entries:
            continue
        source = path.read_text(encoding="utf-8")
        body, filled = ast.parse(source).body, [bool(line.strip()) for line in source.splitlines()]
        for node in body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                filled[node.lineno - 1 : node.end_lineno] = [False] * ((node.end_lineno or 0) - node.lineno + 1)
        own = {id(entry): 0 for entry in entries}
        for node in body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                value = getattr(module, node.targets[0].id, None)
                if id(value) in own:
                    own[id(value)] = sum(filled[node.lineno - 1 : node.end_lineno])
        shared = (sum(filled) - sum(own.values())) / len(entries)
        for entry in entries:
            yield entry.name, getattr(entry, "gguf_arch", entry.name), own[id(entry)] + shared


def costs() -> list[Cost]:
    """Of all families."""
    folder = _folder(architectures)
    structure = {name: lines for name, _, lines in declared(architectures.__name__, folder, "ARCHITECTURES")}
    found = []
    for name, arch, lines in declared(families.__name__, _folder(families), "FAMILIES"):
        found.append(Cost(name, arch, lines + structure.pop(arch, 0)))
    return found


def _folder(package: object) -> Path:
    return Path(str(getattr(package, "__file__", ""))).parent


def main() -> None:
    found = sorted(costs(), key=lambda one: one.lines)
    if "--verbose" in sys.argv[1:]:
        for one in found:
            print(f"{one.name:24} {one.arch:20} {one.lines:6.1f}")
    middle, longest = statistics.median(one.lines for one in found), found[-1]
    print(
        f"{len(found)} families: {middle:.0f} lines in the middle (bar {BAR_MEDIAN}), "
        f"{longest.lines:.0f} at most (bar {BAR_LONGEST}), {longest.name}"
    )
    sys.exit(middle > BAR_MEDIAN or longest.lines > BAR_LONGEST)


if __name__ == "__main__":
    main()
