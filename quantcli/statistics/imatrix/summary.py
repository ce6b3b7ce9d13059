"""What an importance matrix says about each weight, in the figures of ``llama-imatrix --show-statistics``."""

from __future__ import annotations

import re
from math import log2, sqrt
from typing import TYPE_CHECKING

import numpy
from numpy.typing import NDArray

from quantcli.statistics.imatrix.importance import Importance

if TYPE_CHECKING:
    from quantcli.report.results import EntryResult

ACTIVE = 1e-5  # a mean square above this counts as active
_LAYER = re.compile(r"blk\.(\d+)\.(.*)", re.DOTALL)


def statistics(importance: Importance) -> list[EntryResult]:
    """Of every entry, in the file's order."""
    return [_entry(importance, name) for name in importance.entries]


def _entry(importance: Importance, name: str) -> EntryResult:
    values = importance.entries[name].astype(numpy.float64).reshape(-1)
    counts = importance.counts[name]
    total, mean = float(values.sum()), float(values.mean())
    deviation = sqrt(max(float((values * values).mean()) - mean * mean, 0.0))
    entropy = _entropy(values, total)
    return {
        "name": name,
        "matrices": len(counts),
        "columns": importance.entries[name].shape[1],
        "tokens": int(counts.max()),
        "sum": total,
        "min": float(values.min()),
        "max": float(values.max()),
        "mean": mean,
        "deviation": deviation,
        "active": float((values > ACTIVE).mean()),
        "entropy": entropy,
        "evenness": entropy / log2(values.size) if values.size > 1 else 1.0,
        "outliers": float((values - mean > deviation).mean()) if deviation > 0 else 0.0,
        "cosine": _cosine(importance, name),
    }


def _entropy(values: NDArray[numpy.float64], total: float) -> float:
    """Entropy in bits of ``values`` / ``total``."""
    if total <= 0:
        return 0.0
    share = values[values > 0] / total
    share = share[share > 0]
    return max(float(-(share * numpy.log2(share)).sum()), 0.0)


def _cosine(importance: Importance, name: str) -> float | None:
    match = _LAYER.fullmatch(name)
    before = importance.sums.get(f"blk.{int(match[1]) - 1}.{match[2]}") if match else None
    own = importance.sums[name]
    if before is None or before.size != own.size:
        return None
    left, right = (array.astype(numpy.float64).reshape(-1) for array in (own, before))
    norms = sqrt(float(left @ left)) * sqrt(float(right @ right))
    return float(left @ right) / norms if norms > 0 else None
