"""`quantcli bench`: what this machine can do, measured in seconds: multiplications, memory, encoders, products; and
what follows from them for models of a size."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise

import numpy

from quantcli import __version__, system
from quantcli.ggml import kernels, tensor_types
from quantcli.ggml.tensor_types import TensorType
from quantcli.report.speed import (
    BandwidthResult,
    BenchResult,
    EncoderSpeed,
    ExpectedSpeed,
    PeakResult,
    ProductSpeed,
    show_bench,
)
from quantcli.report.terminal import SILENT, Reporter
from quantcli.runner.arrays import Bytes, Floats
from quantcli.runner.matrix_products import can_multiply
from quantcli.runner.products import Products

COLUMNS = 4096
ENCODED_ROWS = 8
PROMPT_ROWS, PROMPT_TOKENS = 512, 128
READ_BYTES = 192 << 20  # more than a cache holds
MODES = {"int8": "Q8", "int16": "INT16", "float32": "FLOAT"}
#: types whose products are measured; encoders are measured for all
PRODUCT_TYPES = ("BF16", "Q8_0", "Q6_K", "Q5_K", "Q4_K", "Q4_0", "IQ4_XS", "Q3_K", "IQ3_S", "IQ2_XS")
SLICE = 0.12  # seconds of each measurement


def run(parameters: Sequence[float], threads: int | None, reporter: Reporter = SILENT) -> BenchResult:
    """Measure, and say what is to be expected of models with so many ``parameters``."""
    start = time.perf_counter()
    count = threads or system.usable_cores()
    with reporter.steps("measuring", 2 + len(encoded_types()) + len(PRODUCT_TYPES)) as step:
        one, every = Products("q8", 1), Products("q8", count)
        peak = peaks(one)
        step(1, "memory")
        bandwidth = memory(one, every, count)
        step(2, "encoders")
        encoders = []
        for row in encoded_types():
            encoders.append(encoder_speed(row))
            step(2 + len(encoders), row.name)
        products = []
        for name in PRODUCT_TYPES:
            products.append(product_speed(tensor_types.by_name(name), every))
            step(2 + len(encoders) + len(products), name)
    load = system.load_average()
    result: BenchResult = {
        "schema": 1,
        "quantcli": __version__,
        "cpu": system.processor_name(),
        "instruction_set": kernels.isa(),
        "threads": count,
        "seconds": round(time.perf_counter() - start, 2),
        "load": None if load is None else round(load, 2),
        "peak": peak,
        "bandwidth": bandwidth,
        "encoders": encoders,
        "products": products,
        "expected": [expected(size, speed) for size in parameters for speed in products],
    }
    show_bench(reporter, result)
    return result


def best(run: Callable[[], object], seconds: float = SLICE) -> float:
    """Seconds of the fastest of the calls that fit into ``seconds``, three at least, after one warm-up."""
    run()
    shortest, end, calls = math.inf, time.perf_counter() + seconds, 0
    while calls < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        shortest = min(shortest, time.perf_counter() - start)
        calls += 1
    return shortest


def peaks(products: Products) -> PeakResult:
    """Operations per second (10^9; a multiplication and an addition are two) of one core, without memory."""
    found, rounds, pool = {}, 100_000, products.pool
    for name, mode in MODES.items():
        kind = getattr(pool.lib, f"QC_ACTIVATIONS_{mode}")
        operations = pool.lib.qc_peak(pool.isa, kind, 1) * rounds
        found[name] = operations / best(partial(pool.lib.qc_peak, pool.isa, kind, rounds)) / 1e9
    return {"int8": found["int8"], "int16": found["int16"], "float32": found["float32"]}


def memory(one: Products, every: Products, threads: int) -> BandwidthResult:
    """GB/s: a product of one token reads every weight once and does next to nothing with it; writing fills zeros."""
    weights: Bytes = numpy.zeros(READ_BYTES, numpy.uint8)
    rows, f32 = READ_BYTES // (4 * COLUMNS), tensor_types.by_name("F32").id
    x, out = numpy.ones((1, COLUMNS), numpy.float32), numpy.empty((1, rows), numpy.float32)
    edges = numpy.linspace(0, READ_BYTES, threads + 1, dtype=numpy.int64).tolist()
    slices = [weights[a:b] for a, b in pairwise(edges)]
    with ThreadPoolExecutor(threads) as pool:
        writing = best(lambda: list(pool.map(lambda part: part.fill(0), slices)))
    reading = [best(partial(made.product, f32, weights, rows, x, out)) for made in (one, every)]
    return {
        "read_one_core": READ_BYTES / reading[0] / 1e9,
        "read": READ_BYTES / reading[1] / 1e9,
        "write": READ_BYTES / writing / 1e9,
    }


def encoded_types() -> list[TensorType]:
    """Every type that `convert` can write, but floats."""
    return [row for row in tensor_types.BY_ID.values() if row.quantized and kernels.can_encode(row.id, "best")]


def normal(rows: int) -> Floats:
    return numpy.random.default_rng(1).normal(0, 0.02, (rows, COLUMNS)).astype(numpy.float32)


def encoder_speed(row: TensorType) -> EncoderSpeed:
    """ns per weight and core of the default search, with importance."""
    x, importance = normal(ENCODED_ROWS), numpy.random.default_rng(2).lognormal(size=COLUMNS).astype(numpy.float32)
    out = numpy.empty((ENCODED_ROWS, tensor_types.row_bytes(row, COLUMNS)), numpy.uint8)
    spent = best(lambda: kernels.encode(row.id, x, importance, search="best", out=out), SLICE / 2)
    return {"type": row.name, "ns_per_weight": spent / x.size * 1e9}


def product_speed(row: TensorType, products: Products) -> ProductSpeed:
    """Of all threads: GB/s of packed weights for one token, 10^9 operations per second for a prompt."""
    assert can_multiply(row.id)
    few = kernels.encode(row.id, normal(64), None)
    rows = max(PROMPT_ROWS, READ_BYTES // few.shape[1] // 64 * 64)
    raw = numpy.tile(few, (rows // 64, 1))
    x = numpy.random.default_rng(3).standard_normal((PROMPT_TOKENS, COLUMNS)).astype(numpy.float32)
    one, many = numpy.empty((1, rows), numpy.float32), numpy.empty((PROMPT_TOKENS, PROMPT_ROWS), numpy.float32)
    token = best(lambda: products.product(row.id, raw, rows, x[:1], one))
    prompt = best(lambda: products.product(row.id, raw, PROMPT_ROWS, x, many))
    return {
        "type": row.name,
        "bits_per_weight": row.bpw,
        "one_token": raw.nbytes / token / 1e9,
        "prompt": 2 * PROMPT_ROWS * COLUMNS * PROMPT_TOKENS / prompt / 1e9,
    }


def expected(parameters: float, speed: ProductSpeed) -> ExpectedSpeed:
    """Tokens per second of a model whose weights all have this type, from its products alone."""
    gigabytes = parameters * speed["bits_per_weight"] / 8e9
    return {
        "parameters": parameters,
        "type": speed["type"],
        "gigabytes": gigabytes,
        "generated": speed["one_token"] / gigabytes,
        "prompt": speed["prompt"] * 1e9 / (2 * parameters),
    }
