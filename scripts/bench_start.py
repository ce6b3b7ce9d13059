#!/usr/bin/env python3
"""How long the program takes to say --help and --version, beside a Typer application that does nothing.

    python scripts/bench_start.py [--rounds 15]

Bars: 0.2 s, and 1.5 times the bare application; the median of runs that take turns. Exits with 1 above a bar.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SECONDS, RATIO = 0.2, 1.5
BARE = """
import typer

app = typer.Typer(rich_markup_mode=None)


@app.command()
def run(name: str = typer.Option("a", help="A name.")) -> None:
    '''Nothing.'''


app()
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder) / "bare.py"
        bare.write_text(BARE, encoding="utf-8")
        commands = {
            "bare --help": [sys.executable, str(bare), "--help"],
            "quantcli --help": [sys.executable, "-m", "quantcli", "--help"],
            "quantcli --version": [sys.executable, "-m", "quantcli", "--version"],
            "quantcli convert --help": [sys.executable, "-m", "quantcli", "convert", "--help"],
        }
        taken: dict[str, list[float]] = {name: [] for name in commands}
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        for _ in range(rounds + 1):  # the first fills caches
            for name, command in commands.items():
                began = time.perf_counter()
                subprocess.run(command, check=True, capture_output=True, env=environment, cwd=folder)
                taken[name].append(time.perf_counter() - began)
    medians = {name: statistics.median(times[1:]) for name, times in taken.items()}
    bar = min(SECONDS, RATIO * medians["bare --help"])
    for name, seconds in medians.items():
        print(f"{name:24}  {seconds:.3f} s  {seconds / medians['bare --help']:.2f} x bare")
    slow = [name for name in ("quantcli --help", "quantcli --version") if medians[name] > bar]
    print(f"bars: {SECONDS} s and {RATIO} x bare: {'held' if not slow else 'MISSED by ' + ', '.join(slow)}")
    if os.getloadavg()[0] > 2:
        print(f"not measured idle: the load average is {os.getloadavg()[0]:.1f}")
    sys.exit(bool(slow))


if __name__ == "__main__":
    main()
