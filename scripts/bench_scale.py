#!/usr/bin/env python3
"""Bars of large models in one table: plans, memory, resumed and divided work, sources that are far away.

    python scripts/bench_scale.py [--row NAME]... [--list] [--quick] [--scratch DIR] [--output FILE]

Every file of scripts/scale_rows/ adds rows: it has a table ``ROWS``, name -> function of a `Place`, which gives rows
(what, bar, measured, met). `--quick` measures smaller models against the same bars. Exit 1 where a bar is missed. The
whole takes about an hour on two cores and 40 GB of disk.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import os
import platform
import shlex
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "scripts")]

from helpers.bars import print_rows
from scale_rows import Measure, Others, Place, compiled

FOLDER = ROOT / "scripts" / "scale_rows"
BUSY = 0.5  # processes that wait for a core before the measurement: speed is not worth much then


def every_row() -> dict[str, Measure]:
    """The rows of all files in their order."""
    found: dict[str, Measure] = {}
    for path in sorted(FOLDER.glob("[a-z]*.py")):
        found |= importlib.import_module(f"scale_rows.{path.stem}").ROWS
    return found


def machine() -> str:
    """CPU, cores and system of this machine."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    return f"{name}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}"


def head(command: str) -> str:
    """What the figures depend on."""
    load = os.getloadavg()[0]
    idle = "idle" if load < BUSY else f"not measured idle: load {load:.1f}"
    return f"{datetime.date.today()}, {machine()}, Python {platform.python_version()}; {idle}.\n\n`{command}`\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--row", action="append", metavar="NAME", help="only this row; repeatable")
    parser.add_argument("--list", action="store_true", help="name the rows")
    parser.add_argument("--quick", action="store_true", help="smaller models, the same bars")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--scratch", type=Path, help="where checkpoints go (default: the temporary folder)")
    parser.add_argument("--output", type=Path, help="also write the table to this file")
    given = parser.parse_args()
    rows = every_row()
    if given.list:
        print("\n".join(rows))
        return
    unknown = [name for name in given.row or () if name not in rows]
    if unknown:
        parser.error(f"there is no row {unknown[0]!r}; known: {', '.join(rows)}")
    command = shlex.join(["python", "scripts/bench_scale.py", *sys.argv[1:]])
    compiled()
    text = head(command)
    print(text, flush=True)
    found = []
    with tempfile.TemporaryDirectory(prefix="quantcli-scale-", dir=given.scratch) as folder:
        place = Place(Path(folder).resolve(), quick=given.quick, threads=given.threads)
        for name in given.row or rows:
            start, others = time.monotonic(), Others()
            found += rows[name](place)
            took, taken = time.monotonic() - start, others.seconds
            print(f"{name}: {took:.0f} s; other programs took {taken:.0f} s of processor time\n", flush=True)
    good = print_rows(found, head=True)
    if given.output:
        lines = [
            f"| {what} | {bar} | {measured} | {'met' if met else 'missed'} |" for what, bar, measured, met in found
        ]
        table = "\n".join(["| what | bar | measured | |", "|---|---|---|---|", *lines])
        given.output.write_text(f"{text}\n{table}\n", encoding="utf-8")
    sys.exit(not good)


if __name__ == "__main__":
    main()
