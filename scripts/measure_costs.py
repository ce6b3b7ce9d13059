#!/usr/bin/env python3
"""Nanoseconds of one core per weight that each type takes to encode: the table of quantcli/plan/costs.py.

    python scripts/measure_costs.py [--seconds 0.5]

With the search that is the default and with importance where the type has it, on normal weights in rows of 4096.
Processor time, not the clock: other work on the machine changes little.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

from quantcli.commands.estimating import encoder_of, sample
from quantcli.ggml import kernels, tensor_types

ROWS = 32


def measure(row: tensor_types.TensorType, seconds: float) -> float:
    """ns per weight."""
    encode, rows = encoder_of(row, None, sample(ROWS)), sample(ROWS)
    encode(rows)
    best, end = float("inf"), time.monotonic() + seconds
    while time.monotonic() < end:
        start = time.thread_time_ns()
        encode(rows)
        best = min(best, (time.thread_time_ns() - start) / rows.size)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=0.5, help="per type")
    given = parser.parse_args()
    print(f"# {kernels.isa()}, numpy {numpy.__version__}")
    for name, row in tensor_types.BY_NAME.items():
        if row.kind != "integer" and kernels.can_encode(row.id, "ggml"):
            print(f'    "{name}": {measure(row, given.seconds):.2f},', flush=True)


if __name__ == "__main__":
    main()
