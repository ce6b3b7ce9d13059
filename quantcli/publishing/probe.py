"""How long a plan will take: a few rows of every type are encoded, and the rest is in proportion."""

from __future__ import annotations

import time
from collections import Counter

import numpy

from quantcli.ggml import kernels
from quantcli.ggml.tensor_types import BY_NAME
from quantcli.methods.plain import search_for
from quantcli.plan.plan import Plan

ROWS, COLUMNS = 32, 1024
_known: dict[str, float] = {}  # seconds of a weight on one thread


def seconds(plan: Plan, threads: int) -> float:
    """Seconds of encoding with the search alone: calibration, reading and writing are not counted."""
    counts: Counter[str] = Counter()
    for entry in plan.entries:
        if entry.type.quantized:
            counts[entry.type.name] += entry.tensor.rows * entry.tensor.columns
    return sum(count * _of(name) for name, count in counts.items()) / max(threads, 1)


def _of(name: str) -> float:
    if name not in _known:
        tensor_type = BY_NAME[name]
        search = search_for(tensor_type, None)
        if not kernels.can_encode(tensor_type.id, search):
            return 0.0
        values = numpy.random.default_rng(1).standard_normal((ROWS, COLUMNS), dtype=numpy.float32)
        importance = numpy.ones(COLUMNS, numpy.float32)
        kernels.encode(tensor_type.id, values[:4], importance, search=search)
        start = time.perf_counter()
        kernels.encode(tensor_type.id, values, importance, search=search)
        _known[name] = (time.perf_counter() - start) / values.size
    return _known[name]
