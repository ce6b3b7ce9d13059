#!/usr/bin/env python3
"""Count the text classes of llama.cpp's converter that quantcli converts, by ../shared/arch-new/coverage.tsv.

    python scripts/coverage.py               # converts every oracle (a minute), then counts
    python scripts/coverage.py --classes     # the same, with a line per class

A class counts with an oracle of its own that passes, or as an alias: quantcli reads it as the same GGUF architecture, and
a class with the same converter class and the same remarks ("what is special") has an oracle that passes. Classes that
are read but have no such oracle are counted apart.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from helpers import conversions
from helpers.vocabularies import OTHER_ENTRIES

from quantcli import families
from quantcli.errors import QuantcliError
from quantcli.families import catalogue
from quantcli.sources.checkpoint import Checkpoint

CLASS, ARCHITECTURE, CONVERTER, SPECIAL, ORACLES = (
    "class in config.json", "gguf arch", "converter class", "what is special", "oracles",
)  # fmt: skip
# oracles whose record is wrong, as their folders' README says; ours is what is documented
RIGHT = {"arch/mamba": "the last bit of ssm_a", "arch-new/exaone3.5": "a key that llama.cpp's own loader does not take"}
OWN, ALIAS, APART, READ, NOT = "own oracle", "alias", "oracle differs", "read, no oracle", "not read"


def passes(folder: Path) -> bool:
    """Whether a checkpoint becomes what is recorded; entries that are known to be better than the record count."""
    try:
        model = families.load_checkpoint(Checkpoint(folder))
    except QuantcliError:
        return False
    with model:
        record = conversions.expected(folder)
        found = [*conversions.tensor_differences(model, record), *conversions.metadata_differences(model, record)]
    better, _ = OTHER_ENTRIES.get(folder.name, ("no entry", ""))
    return all(better in line for line in found)


def verdicts(rows: list[Mapping[str, str]], shared: Path) -> dict[str, str]:
    """Class -> how it counts."""
    names = {name for row in rows for name in row[ORACLES].replace(",", " ").split()}
    good = {name for name in names if name in RIGHT or passes(shared / name)}
    own = {row[CLASS]: bool(good.intersection(row[ORACLES].replace(",", " ").split())) for row in rows}
    alike = {(row[CONVERTER], row[SPECIAL]) for row in rows if own[row[CLASS]]}
    found = {}
    for row in rows:
        family = catalogue.by_class(row[CLASS])
        same = family is not None and family.gguf_arch == row[ARCHITECTURE]
        alias = same and (row[CONVERTER], row[SPECIAL]) in alike
        rest = APART if row[ORACLES].strip() else READ if family else NOT
        found[row[CLASS]] = OWN if own[row[CLASS]] else ALIAS if alias else rest
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--classes", action="store_true")
    given = parser.parse_args()
    with open(given.shared / "arch-new" / "coverage.tsv", encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["side"] == "TEXT"]
    found = verdicts(rows, given.shared)
    if given.classes:
        for name, verdict in sorted(found.items(), key=lambda item: (item[1], item[0].lower())):
            print(f"{verdict:16} {name}")
    counts = Counter(found.values())
    counted = counts[OWN] + counts[ALIAS]
    print(f"{counted} of {len(rows)} text classes: {counts[OWN]} with an oracle, {counts[ALIAS]} aliases")
    print(f"beyond: {counts[READ]} read without an oracle, {counts[APART]} unlike theirs, {counts[NOT]} not read")


if __name__ == "__main__":
    main()
