#!/usr/bin/env python3
"""Speed of the compensating encoder on one core, beside the core's own peak of float operations, in the same run.

    python scripts/bench_compensation.py [--columns 2048] [--rows 128] [--types Q3_K Q4_K ...] [--seconds 0.3]

GPTQ alone is n multiplications and additions a weight and column, halved by the triangle: m n^2 operations for m rows;
the table says how many times m n^2 / peak it takes. A sweep is one polish with its slopes, everything what `encode`
does after the plain search. Times are the thread's own, best of several.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from quantcli.ggml import compensate, kernels, tensor_types
from quantcli.ggml.compensate import Effort
from quantcli.methods import compensation
from quantcli.methods.compensation import Metric

EFFORTS = {
    "GPTQ": Effort(True, False, 0, 0, False),
    "sweep": Effort(False, True, 0, 0, False),
    "refit": Effort(False, False, 1, 0, False),
    "everything": Effort(),
}


def best(work: Callable[[], object], seconds: float) -> float:
    """The shortest time of a call, in seconds of this thread."""
    found, end = float("inf"), time.thread_time() + seconds
    while time.thread_time() < end:
        start = time.thread_time()
        work()
        found = min(found, time.thread_time() - start)
    return found


def peak() -> float:
    """Float operations per second of one core, memory left out."""
    _, lib = kernels.library()
    isa, kind, rounds = kernels.isa_index(None), lib.QC_ACTIVATIONS_FLOAT, 200_000
    return float(lib.qc_peak(isa, kind, 1)) * rounds / best(partial(lib.qc_peak, isa, kind, rounds), 0.3)


def moments(columns: int) -> numpy.ndarray:
    """Second moments of random inputs of half rank."""
    generator = numpy.random.default_rng(0)
    inputs = generator.standard_normal((columns, columns // 2)) @ generator.standard_normal((columns // 2, columns))
    return inputs.T @ inputs / columns**2 + 0.1 * numpy.eye(columns)


def measure(name: str, rows: numpy.ndarray, metric: Metric, seconds: float) -> dict[str, float]:
    """Nanoseconds a weight, by effort."""
    tensor_type = tensor_types.BY_NAME[name]
    blocks, found = compensation.plain(tensor_type, rows, metric), {}
    for label, effort in EFFORTS.items():
        work = partial(compensation.improve, tensor_type, rows, blocks.copy(), metric, effort)
        found[label] = best(work, seconds) / rows.size * 1e9
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--columns", type=int, default=2048)
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--types", nargs="+", default=["Q2_K", "Q3_K", "Q4_K", "Q6_K", "Q4_0", "IQ4_XS", "IQ2_XS"])
    parser.add_argument("--seconds", type=float, default=0.3, help="per figure")
    given = parser.parse_args()
    rows = numpy.random.default_rng(1).standard_normal((given.rows, given.columns)).astype(numpy.float32) * 0.02
    metrics = {group: Metric.of(moments(given.columns), group=group) for group in (1, 8)}
    roof = peak()
    ideal = given.columns / roof * 1e9
    print(
        f"{kernels.isa()}, {len(rows)} x {given.columns}, peak {roof / 1e9:.0f} GFLOP/s: m n^2 = {ideal:.1f} ns/weight"
    )
    print()
    print(f"| type | {' | '.join(f'{label} ns/weight' for label in EFFORTS)} | GPTQ / (m n^2 / peak) |")
    print("|---|" + "---|" * (len(EFFORTS) + 1))
    for name in given.types:
        group = compensate.columns_together(tensor_types.BY_NAME[name].id)
        found = measure(name, rows, metrics[group], given.seconds)
        print(f"| {name} | {' | '.join(f'{value:.0f}' for value in found.values())} | {found['GPTQ'] / ideal:.2f} |")


if __name__ == "__main__":
    main()
