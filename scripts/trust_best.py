#!/usr/bin/env python3
"""Whether `--search best` ends above `--search ggml` by what it minimises, on random and adversarial rows.

    python scripts/trust_best.py [--cases 210000] [--seed 15] [--types Q4_K,Q6_K] [--json]

A case is one row of 256 to 1024 weights of a type: random ones, few columns with importance (5 %, 1 in 32, 1 in 256)
beside none or very little, outliers of 100 to 50,000 times the rest, a column of importance 1e30, blocks of other
scales, zeros, denormals; with importance and without. The sums of importance (or 1) times squared error are taken in
float64. A case fails where that of `best` is more than 1.0001 times ggml's. A row whose scale overflows fp16 is an
error of the encoder and no case. Beside the cases: the single blocks of narrow rows, as docs/searches.md promises."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]
from quantcli.errors import ScaleOverflow
from quantcli.ggml import kernels, tensor_types

LIMIT = 1.0001
CASES, SEED = 210_000, 15
#: the types with a `ggml` search
TYPES = (
    *("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS"),
    *("Q8_0", "MXFP4", "NVFP4", "TQ1_0", "TQ2_0", "Q1_0", "Q2_0"),
    *("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"),
)
WIDTHS = (256, 512, 768, 1024)
#: rows of at most so many columns: no block of theirs ends above ggml's
STRICT = {name: 1024 if tensor_types.by_name(name).block == 256 else 512 for name in TYPES}
SIGMA = 0.02

Floats = numpy.ndarray
Generator = numpy.random.Generator


# ---- rows ----------------------------------------------------------------------------------------------------------


def tails(generator: Generator, x: Floats) -> Floats:
    return generator.standard_t(3, x.shape) * SIGMA


def outliers(factor: float, part: float = 1 / 64) -> Callable[[Generator, Floats], Floats]:
    return lambda generator, x: x * numpy.where(generator.random(x.shape) < part, factor, 1)


def outlier_columns(generator: Generator, x: Floats) -> Floats:
    x[:, generator.integers(0, x.shape[1], 3)] *= 10 ** generator.uniform(1, 5)
    return x


def scales(block: int) -> Callable[[Generator, Floats], Floats]:
    """Blocks of other scales."""
    return lambda generator, x: (
        x * numpy.exp(generator.normal(0, 3, (len(x), x.shape[1] // block))).repeat(block, axis=1)
    )


WEIGHTS: dict[str, Callable[[Generator, Floats], Floats]] = {
    "normal": lambda _, x: x,
    "tails": tails,
    "outliers x100": outliers(100),
    "outliers x5,000": outliers(5000),
    "outliers x50,000": outliers(50000),
    "one outlier": outliers(1000, 1 / 512),
    "outlier columns": outlier_columns,
    "sparse": lambda generator, x: x * (generator.random(x.shape) < 0.05),
    "mixed": lambda generator, x: x * numpy.exp(generator.normal(0, 4, x.shape)),
    "scales of 32": scales(32),
    "scales of 256": scales(256),
    "far from zero": lambda generator, x: x / 20 + generator.choice((-1, 1), (len(x), 1)),
    "few levels": lambda _, x: numpy.rint(x / SIGMA) * SIGMA,
    "small": lambda _, x: x * 1e-4,
    "denormal": lambda _, x: x * 1e-38,
    "large": lambda _, x: x * 1e4,
}


# ---- importance ----------------------------------------------------------------------------------------------------


def few(part: float, rest: float) -> Callable[[Generator, Floats], Floats]:
    """Columns at random that count, beside others that count `rest` times as much."""
    return lambda generator, q: numpy.where(generator.random(len(q)) < part, q, q * rest)


def every(step: int, rest: float) -> Callable[[Generator, Floats], Floats]:
    return lambda generator, q: numpy.where(numpy.arange(len(q)) % step == generator.integers(step), q, q * rest)


def one_column(value: float, others: Callable[[Generator, Floats], Floats]) -> Callable[[Generator, Floats], Floats]:
    def made(generator: Generator, q: Floats) -> Floats:
        q = others(generator, q)
        q[generator.integers(len(q))] = value
        return q

    return made


IMPORTANCE: dict[str, Callable[[Generator, Floats], Floats | None]] = {
    "none": lambda _, q: None,
    "lognormal": lambda _, q: q,
    "wide": lambda generator, q: numpy.exp(generator.normal(0, 8, len(q))),
    "5 % alone": few(0.05, 0),
    "5 %": few(0.05, 1e-6),
    "1 in 32 alone": every(32, 0),
    "1 in 32": every(32, 1e-7),
    "1 in 256 alone": every(256, 0),
    "1 in 256": every(256, 1e-5),
    "1e30": one_column(1e30, lambda _, q: q),
    "1e30 and 5 %": one_column(1e30, few(0.05, 0)),
    "1000 times": one_column(1000, lambda _, q: q),
    "blocks": lambda generator, q: q * numpy.exp(generator.normal(0, 4, len(q) // 32)).repeat(32),
    "half a row": lambda _, q: numpy.where(numpy.arange(len(q)) < len(q) // 2, q, 0),
}


def matrices(rows: int, generator: Generator) -> Iterator[tuple[str, Floats, Floats | None]]:
    """(name, weights [rows, columns], importance [columns] or None), float32: every pattern with every importance."""
    for x_name, weights in WEIGHTS.items():
        for q_name, importance in IMPORTANCE.items():
            columns = int(generator.choice(WIDTHS))
            x = weights(generator, generator.normal(0, SIGMA, (rows, columns)))
            q = importance(generator, generator.lognormal(size=columns))
            name = f"{x_name}; importance: {q_name}"
            yield name, numpy.ascontiguousarray(x, numpy.float32), None if q is None else q.astype(numpy.float32)


# ---- comparison ----------------------------------------------------------------------------------------------------


@dataclass
class Result:
    """Of one type: cases, how many are above the limit, the worst ratio and where; the same of single blocks."""

    type: str
    cases: int = 0
    above: int = 0
    worst: float = 0.0
    where: str = ""
    blocks: int = 0
    blocks_above: int = 0


def block_errors(name: str, x: Floats, importance: Floats | None, search: str) -> Floats:
    """Sums of importance x squared error of blocks, float64 [rows, blocks]; infinite where a scale overflows."""
    row = tensor_types.by_name(name)
    raw = numpy.empty((len(x), tensor_types.row_bytes(row, x.shape[1])), numpy.uint8)
    with suppress(ScaleOverflow):  # `raw` is complete all the same
        kernels.encode(row.id, x, importance, search=search, out=raw)
    decoded = kernels.decode(row.id, raw, *x.shape).astype(numpy.float64)
    weights = 1.0 if importance is None else importance.astype(numpy.float64)
    with numpy.errstate(invalid="ignore", over="ignore"):
        errors = weights * (x - decoded) ** 2
    errors[~numpy.isfinite(errors)] = numpy.inf
    return errors.reshape(len(x), -1, row.block).sum(axis=2)


def ratios(best: Floats, ggml: Floats) -> Floats:
    """best / ggml; 1 where both are 0."""
    with numpy.errstate(divide="ignore", invalid="ignore"):
        return numpy.where(best == ggml, 1.0, best / ggml)


def measure(result: Result, name: str, x: Floats, importance: Floats | None) -> None:
    """Add the rows of a matrix to a result."""
    best, ggml = (block_errors(result.type, x, importance, search) for search in ("best", "ggml"))
    encoded = numpy.isfinite(best).all(axis=1)
    found = ratios(best[encoded].sum(axis=1), ggml[encoded].sum(axis=1))
    result.cases += len(found)
    result.above += int((found > LIMIT).sum())
    if len(found) and found.max() > result.worst:
        result.worst, result.where = float(found.max()), name
    if x.shape[1] <= STRICT[result.type]:
        single = ratios(best[encoded], ggml[encoded])
        result.blocks += single.size
        result.blocks_above += int((single > LIMIT).sum())


def trust_best(cases: int = CASES, seed: int = SEED, types: tuple[str, ...] = TYPES) -> list[Result]:
    """At least ``cases`` rows, spread over the types, patterns of weights and kinds of importance."""
    results = []
    for number, name in enumerate(types):
        result, generator = Result(name), numpy.random.default_rng((seed, number))
        wanted = -(-cases // len(types))
        while result.cases < wanted:
            rest = wanted - result.cases
            rows = max(1, min(64, -(-rest // (len(WEIGHTS) * len(IMPORTANCE)))))
            for pattern, x, importance in matrices(rows, generator):
                measure(result, pattern, x, importance)
        results.append(result)
    return results


def met(results: list[Result]) -> bool:
    return not any(result.above or result.blocks_above for result in results)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=CASES)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--types", type=lambda text: tuple(text.split(",")), default=TYPES)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results = trust_best(options.cases, options.seed, options.types)
    total, above = sum(result.cases for result in results), sum(result.above for result in results)
    if options.json:
        print(json.dumps({"cases": total, "above": above, "types": [vars(result) for result in results]}))
    else:
        print(f"{'type':8} {'cases':>8} {'above':>6} {'worst':>9}  {'blocks':>8} {'above':>6}")
        for at in results:
            print(
                f"{at.type:8} {at.cases:8} {at.above:6} {at.worst:9.6f}  {at.blocks:8} {at.blocks_above:6}  {at.where}"
            )
        print(f"best <= {LIMIT} x ggml in {total - above:,} of {total:,} cases")
    return 0 if met(results) else 1


if __name__ == "__main__":
    sys.exit(main())
