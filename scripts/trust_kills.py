#!/usr/bin/env python3
"""Kill conversions and look at what is left: single and split, one and several outputs, --force, --checksums.

    python scripts/trust_kills.py [--kills 1000] [--seed N] [--jobs N]

SIGKILL, SIGINT, SIGTERM and SIGHUP, at random times, at the first name that changes, and at every step of publishing.
Prints a line per bar; exit 1 where one is missed. (seed, number) names a kill: `--seed 7 --only 12` repeats it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from helpers import kills
from helpers.bars import Row, print_rows

KILLS, QUICK = 1000, 100
BARS = {
    kills.FILES: "files under a final name that are not whole and of one set, and not named by verify",
    kills.MESSAGES: "false messages of what is there",
    kills.HIDDEN: "hidden files left by INT, TERM, HUP, or by the run after a -9",
}


def measure(quick: bool) -> list[Row]:
    """(what, bar, measured, met) of each bar."""
    return rows(run(QUICK if quick else KILLS, int(time.time())))


def run(count: int, seed: int, jobs: int = 0, first: int = 0) -> list[kills.Outcome]:
    """Kill ``count`` conversions on ``jobs`` processes (0: one per core). Prints what goes wrong, with its number."""
    jobs = jobs or os.cpu_count() or 1
    numbers = range(first, first + count)
    parts = [numbers[start::jobs] for start in range(jobs)]
    found: list[kills.Outcome] = []
    with tempfile.TemporaryDirectory(prefix="quantcli-kills-") as folder:
        works = [Path(folder) / str(index) for index in range(jobs)]
        with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
            for outcomes in pool.map(part, works, [seed] * jobs, parts):
                found += outcomes
    return found


def part(work: Path, seed: int, numbers: range) -> list[kills.Outcome]:
    """What one process does."""
    work.mkdir()
    found = []
    for one in kills.kills(work, seed, numbers):
        found.append(one)
        for bar, what in one.problems:
            print(f"  seed {seed}, {one.number}: {one.signal}, {one.aim}: {bar}: {what}", file=sys.stderr, flush=True)
    return found


def rows(outcomes: list[kills.Outcome]) -> list[Row]:
    inside = sum(one.inside for one in outcomes)
    head = f"{len(outcomes)} kills (-9, INT, TERM, HUP), {inside} of them within publishing"
    found = []
    for bar, text in BARS.items():
        bad = sum(any(which == bar for which, _ in one.problems) for one in outcomes)
        found.append((f"{head}: {text}", "0", str(bad), not bad))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--seed", type=int, default=int(time.time()), help="default: the time")
    parser.add_argument("--jobs", type=int, default=0, help="default: one per core")
    parser.add_argument("--only", type=int, help="only the kill of this number")
    arguments = parser.parse_args()
    if arguments.only is not None:
        outcomes = run(1, arguments.seed, 1, arguments.only)
    else:
        outcomes = run(arguments.kills, arguments.seed, arguments.jobs)
    sys.exit(not print_rows(rows(outcomes)))


if __name__ == "__main__":
    main()
