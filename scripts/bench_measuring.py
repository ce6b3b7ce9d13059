#!/usr/bin/env python3
"""What measuring costs: memory of perplexity, imatrix against perplexity, compare against perplexity runs.

    python scripts/bench_measuring.py CHECKPOINT [--rounds 3] [--parts memory imatrix compare] [--threads 2]

CHECKPOINT: a folder, SmolLM2-135M-Instruct for the figures of the documentation. Commands run as a user runs them, one
process each, on the bundled calibration text; what is compared takes turns, `--rounds` times. Time is the processor
time of the whole process (medians), wall time beside it: only the first means something on a busy machine.
Exit status 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
TEXT = ROOT / "quantcli" / "data" / "calibration.txt"
COMPARED = ("Q8_0", "Q6_K", "Q4_K_M", "Q2_K")
MEMORY = {"types": ("BF16", "Q4_K_M"), "chunks": 4, "bar": 300e6}
IMATRIX = {"chunks": 20, "bar": 1.2}
COMPARE = {"chunks": 4, "bar": 1.1}


@dataclass(frozen=True)
class Spent:
    """Seconds, processor seconds and peak resident bytes of a process."""

    wall: float
    cpu: float
    resident: int

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.wall + other.wall, self.cpu + other.cpu, max(self.resident, other.resident))


def run(*arguments: object) -> Spent:
    """`quantcli ARGUMENTS`."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "quantcli", *map(str, arguments)], cwd=ROOT, stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"quantcli {arguments[0]} failed with {process.returncode}")
    unit = 1 if sys.platform == "darwin" else 1024
    return Spent(time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit)


def perplexity(path: Path, chunks: int, threads: int, *more: object) -> Spent:
    return run("perplexity", path, "-f", TEXT, "-c", 512, "--chunks", chunks, "--threads", threads, "-q", *more)


def memory(files: dict[str, Path], given: argparse.Namespace) -> bool:
    """Peak resident memory over the file's bytes."""
    good = True
    for name in MEMORY["types"]:
        size = files[name].stat().st_size
        peak = perplexity(files[name], MEMORY["chunks"], given.threads).resident
        met = peak - size <= MEMORY["bar"]
        good &= met
        print(
            f"memory, perplexity of {name}, 4 x 512 tokens: {peak / 1e6:.0f} MB, weights {size / 1e6:.0f} MB, "
            f"beyond them {(peak - size) / 1e6:.0f} MB (bar {MEMORY['bar'] / 1e6:.0f}): {verdict(met)}",
            flush=True,
        )
    return good


def imatrix(files: dict[str, Path], given: argparse.Namespace, folder: Path) -> bool:
    """A calibration run against a perplexity run of the same tokens with the same activations."""
    pairs = [
        (
            run(
                "imatrix",
                files["BF16"],
                "-f",
                TEXT,
                "--chunks",
                IMATRIX["chunks"],
                "-o",
                folder / "imatrix.gguf",
                "--threads",
                given.threads,
                "-q",
                "--force",
            ),
            perplexity(files["BF16"], IMATRIX["chunks"], given.threads, "--activations", "float"),
        )
        for _ in range(given.rounds)
    ]
    return show(
        f"imatrix, {IMATRIX['chunks']} x 512 tokens", "perplexity with float activations", pairs, IMATRIX["bar"]
    )


def compare(files: dict[str, Path], given: argparse.Namespace) -> bool:
    """One comparison of four models against five perplexity runs, the reference's with float activations."""
    chunks, pairs = COMPARE["chunks"], []
    for _ in range(given.rounds):
        together = run(
            "compare",
            files["BF16"],
            *(files[name] for name in COMPARED),
            "-f",
            TEXT,
            "--chunks",
            chunks,
            "--threads",
            given.threads,
            "-q",
        )
        alone = perplexity(files["BF16"], chunks, given.threads, "--activations", "float")
        for name in COMPARED:
            alone += perplexity(files[name], chunks, given.threads)
        pairs.append((together, alone))
    return show(
        f"compare with {len(COMPARED)} models, {chunks} x 512 tokens", "five perplexity runs", pairs, COMPARE["bar"]
    )


def show(what: str, against: str, pairs: Sequence[tuple[Spent, Spent]], bar: float) -> bool:
    ratio = median(own.cpu / other.cpu for own, other in pairs)
    own, other = (median(pair[i].cpu for pair in pairs) for i in (0, 1))
    wall = median(own.wall / other.wall for own, other in pairs)
    print(
        f"{what}: {own:.1f} s of processor time, {against} {other:.1f} s: {ratio:.2f}x (bar {bar}x; wall {wall:.2f}x; "
        f"median of {len(pairs)}): {verdict(ratio <= bar)}",
        flush=True,
    )
    return ratio <= bar


def verdict(met: bool) -> str:
    return "met" if met else "MISSED"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--parts", nargs="+", default=["memory", "imatrix", "compare"], choices=("memory", "imatrix", "compare")
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="quantcli-bench-") as scratch:
        folder = Path(scratch)
        files = {name: folder / f"{name}.gguf" for name in ("BF16", *COMPARED)}
        for name, path in files.items():
            run("convert", given.checkpoint.absolute(), "-t", name, "-o", path, "-q")
        good = [
            {
                "memory": lambda: memory(files, given),
                "imatrix": lambda: imatrix(files, given, folder),
                "compare": lambda: compare(files, given),
            }[part]()
            for part in given.parts
        ]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
