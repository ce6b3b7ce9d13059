#!/usr/bin/env python3
"""Count the text classes of llama.cpp's converter that `quantcli convert` takes: prints "N of 267 text classes".

    python scripts/coverage.py              # the count
    python scripts/coverage.py --verbose    # and every class with what it counts by

A class counts with an oracle (a tiny checkpoint with what llama.cpp's converter made of it, compared in
tests/families), or as an alias: llama.cpp reads it with the same converter class, and nothing else is special about it,
as about one that has an oracle. `tests/families/text_classes.tsv` lists the classes; a wrapper that nobody declares is
read by the part that holds its language model, whose model_type stands there."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from quantcli.errors import QuantcliError
from quantcli.families import catalogue

CLASSES = Path(__file__).resolve().parent.parent / "tests" / "families" / "text_classes.tsv"


class TextClass(NamedTuple):
    """A class that llama.cpp registers; ``oracle`` is a folder of checkpoints or empty."""

    name: str
    converter: str
    special: str
    oracle: str
    part: str


def listed() -> list[TextClass]:
    with CLASSES.open(encoding="utf-8", newline="") as file:
        return [TextClass(*row) for row in list(csv.reader(file, delimiter="\t"))[1:]]


def family_of(one: TextClass) -> str | None:
    """The name of the family that reads checkpoints of a class; None where nobody does."""
    config: dict[str, object] = {"architectures": [one.name]}
    if one.part:
        config["text_config"] = {"model_type": one.part}
    try:
        return catalogue.choose(config, None).family.name
    except QuantcliError:
        return None


def counted(classes: Iterable[TextClass]) -> Iterator[tuple[TextClass, str]]:
    """Every class with what it counts by: "oracle", "alias", "" (it does not)."""
    classes = list(classes)
    taken = {one.name for one in classes if family_of(one)}
    proved = {(one.converter, one.special) for one in classes if one.oracle and one.name in taken}
    for one in classes:
        alias = "alias" if (one.converter, one.special) in proved else ""
        yield one, "" if one.name not in taken else "oracle" if one.oracle else alias


def main() -> int:
    found = list(counted(listed()))
    if "--verbose" in sys.argv[1:]:
        for one, how in found:
            print(f"{one.name:48} {how or '-':8} {one.oracle}")
    by = {how: sum(1 for _, other in found if other == how) for how in ("oracle", "alias")}
    print(f"{sum(by.values())} of {len(found)} text classes: {by['oracle']} by an oracle, {by['alias']} as aliases")
    return 0


if __name__ == "__main__":
    sys.exit(main())
