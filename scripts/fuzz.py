#!/usr/bin/env python3
"""Fuzz the readers, the commands and the runner with mutants of the bundled models; for ten minutes, or as asked.

    python scripts/fuzz.py [--minutes N | --mutants N] [--seed N] [--target NAME]... [--crashes FOLDER]

A mutant is named by (target, seed, number): `--seed 7 --target runner --only 1234` runs that one again. Inputs that end
badly are kept below build/fuzz; copy one into tests/fuzz/crashes and it is a test. Exit 1 when there is one.
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

from fuzz import engine
from fuzz.targets import Target, targets, unpack

BATCH = 200  # mutants of one child process
MOST = 1_000_000  # planned where a time is the limit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--mutants", type=int, help="how many in all, instead of a time")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="default: the time")
    parser.add_argument("--target", action="append", help="only this one; repeatable")
    parser.add_argument("--only", type=int, help="only the mutant of this number")
    parser.add_argument("--crashes", type=Path, default=ROOT / "build" / "fuzz")
    parser.add_argument(
        "--jobs", type=int, default=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
    )
    arguments = parser.parse_args()
    arguments.crashes.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="quantcli-fuzz-") as folder:
        failures, done = campaign(arguments, Path(folder), start)
    print(f"seed {arguments.seed}; {engine.summary(failures, done, time.monotonic() - start)}")
    sys.exit(bool(failures))


def campaign(arguments: argparse.Namespace, work: Path, start: float) -> tuple[list[engine.Failure], int]:
    """Batches of all targets by their shares, until the time or the number is used up."""
    chosen = [one for one in targets(work) if not arguments.target or one.name in arguments.target]
    if not chosen:
        sys.exit(f"no such target; known: {', '.join(one.name for one in targets(work))}")
    if arguments.only is not None:
        batches = [(one.name, range(arguments.only, arguments.only + 1)) for one in chosen]
    else:
        batches = planned(chosen, arguments.mutants)
    until = None if arguments.mutants or arguments.only is not None else start + 60 * arguments.minutes
    unpack(work)
    jobs = [(name, arguments.seed, numbers, work, arguments.crashes, until) for name, numbers in batches]
    failures: list[engine.Failure] = []
    done = 0
    with ProcessPoolExecutor(arguments.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        for found, count in pool.map(run_batch, jobs):
            failures += found
            done += count
            if count and sys.stderr.isatty():
                print(f"\r{done} mutants, {len(failures)} bad", end="", file=sys.stderr)
    return failures, done


def planned(chosen: list[Target], mutants: int | None) -> list[tuple[str, range]]:
    """(target, numbers) in batches; at every moment the targets have had their shares."""
    total = sum(one.share for one in chosen)
    found = []
    for one in chosen:
        count = -(-(mutants or MOST) * one.share // total)
        found += [
            (first / one.share, one.name, range(first, min(first + BATCH, count))) for first in range(0, count, BATCH)
        ]
    return [(name, numbers) for _, name, numbers in sorted(found, key=lambda batch: batch[0])]


def run_batch(job: tuple[str, int, range, Path, Path, float | None]) -> tuple[list[engine.Failure], int]:
    """In a process of the pool, which never runs a mutant itself."""
    name, seed, numbers, work, crashes, until = job
    if until is not None and time.monotonic() > until:
        return [], 0
    own = work / f"process-{os.getpid()}"
    own.mkdir(exist_ok=True)
    target = next(one for one in targets(work) if one.name == name)
    return engine.run(target, seed, numbers, own, crashes), len(numbers)


if __name__ == "__main__":
    main()
