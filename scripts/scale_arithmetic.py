#!/usr/bin/env python3
"""The arithmetic of docs/scale.md: bytes, core-hours, hours of a link for models of 70B, 744B and 1T weights.

    python scripts/scale_arithmetic.py [--scratch DIR] [--from DIR]

Writes sparse checkpoints (sparse_checkpoint.py), plans them (`quantcli convert --dry-run`, exact to the byte) and
multiplies by the ns per weight of quantcli/plan/costs.py, which measure_costs.py measured. `--from`: a folder with dry
runs that were made before (SHAPE-TYPE.json).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from math import prod
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from quantcli.plan.costs import COPIED, NANOSECONDS
from scale_rows import Place

SHAPES, TYPES = ("70b", "744b", "1t"), ("Q4_K_M", "IQ2_XS", "Q8_0")
CORES = (2, 16, 128)
LINKS = {"25 MB/s": 25e6, "1 GB/s": 1e9}
HOUR = 3600.0


def dry_runs(place: Place, folder: Path) -> None:
    """SHAPE-TYPE.json of every shape and type into ``folder``."""
    for shape in SHAPES:
        source = place.scratch / shape
        place.script("sparse_checkpoint.py", str(source), "--shape", shape)
        for name in TYPES:
            done = place.quantcli("convert", str(source), "-t", name, "--dry-run", "--json")
            (folder / f"{shape}-{name}.json").write_text(done.output)


def hours(seconds: float) -> str:
    if seconds < 600:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3 * HOUR else f"{seconds / HOUR:.1f} h"


def line(shape: str, name: str, result: dict) -> list[str]:
    """The cells of a row."""
    (output,) = result["outputs"]
    weights: Counter[str] = Counter()
    for tensor in output["tensors"]:
        weights[tensor["type"]] += prod(tensor["shape"])
    total = sum(weights.values())
    each = COPIED + sum(count * NANOSECONDS[kind] for kind, count in weights.items()) / total
    work = total * each * 1e-9
    source = result["source"]["bytes"]
    return [
        f"{shape} ({total / 1e9:,.1f} * 10^9)",
        name,
        f"{source / 1e9:,.0f} GB",
        f"{output['bytes'] / 1e9:,.0f} GB",
        f"{each:.1f}",
        f"{work / HOUR:.2f}",
        *(hours(work / cores) for cores in CORES),
        *(hours(source / speed) for speed in LINKS.values()),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scratch", type=Path)
    parser.add_argument("--from", dest="known", type=Path, metavar="DIR")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="quantcli-scale-", dir=given.scratch) as scratch:
        folder = given.known or Path(scratch)
        if given.known is None:
            dry_runs(Place(Path(scratch)), folder)
        heads = ["model (weights)", "type", "source", "output", "ns per weight", "core-hours"]
        heads += [*(f"{cores} cores" for cores in CORES), *(f"source at {name}" for name in LINKS)]
        print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
        for shape in SHAPES:
            for name in TYPES:
                found = json.loads((folder / f"{shape}-{name}.json").read_text())
                print(f"| {' | '.join(line(shape, name, found))} |")


if __name__ == "__main__":
    main()
