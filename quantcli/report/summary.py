"""Sums over the tensors of a result."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quantcli.report.results import Summary, TensorResult, TypeSummary


def summary(tensors: Iterable[TensorResult]) -> Summary:
    """Weights, bytes of tensor data and bits per weight in all and per type (largest first)."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for tensor in tensors:
        count = counts[tensor["type"]]
        count[0] += 1
        count[1] += prod(tensor["shape"])
        count[2] += tensor["bytes"]
    weights, size = (sum(count[i] for count in counts.values()) for i in (1, 2))
    types: list[TypeSummary] = [
        {"type": name, "tensors": n, "weights": w, "bytes": b, "bpw": 8 * b / w if w else 0.0}
        for name, (n, w, b) in sorted(counts.items(), key=lambda item: -item[1][2])
    ]
    return {"weights": weights, "tensor_bytes": size, "bpw": 8 * size / weights if weights else 0.0, "types": types}
