"""Means, their errors, and percentiles, by the formulas of llama.cpp's perplexity tool."""

from __future__ import annotations

from math import exp, sqrt
from typing import TypeAlias

import numpy
from numpy.typing import NDArray

from quantcli.report.measurements import MeanError

Reals: TypeAlias = NDArray[numpy.floating]

FEW = 10  # below that many values an error is no error


class Moments:
    """Running count, sum and sum of squares in float64."""

    def __init__(self) -> None:
        self.count, self.sum, self.squares = 0, 0.0, 0.0

    def add(self, values: Reals) -> None:
        doubles = values.astype(numpy.float64, copy=False)
        self.count += doubles.size
        self.sum += float(doubles.sum())
        self.squares += float(numpy.square(doubles).sum())

    @property
    def mean(self) -> float:
        return self.sum / self.count if self.count else 0.0

    @property
    def error(self) -> float:
        """Standard error of the mean; 0 for few values."""
        variance = self.squares / self.count - self.mean**2 if self.count else 0.0
        return sqrt(variance / (self.count - 1)) if self.count > FEW and variance > 0 else 0.0


def perplexity(nll: Moments) -> MeanError:
    """Of exp(mean nll)."""
    try:
        mean = exp(nll.mean)
    except OverflowError:  # a model that knows nothing at all
        mean = float("inf")
    return {"mean": mean, "se": mean * nll.error}


def covariance(a: Reals, b: Reals) -> float:
    """Of the two means: (mean(ab) - mean(a) mean(b)) / (n - 1); 0 for few values."""
    if len(a) < FEW:
        return 0.0
    left, right = a.astype(numpy.float64), b.astype(numpy.float64)
    return float((left * right).mean() - left.mean() * right.mean()) / (len(a) - 1)


def mean_error(values: Reals) -> tuple[float, float]:
    """(mean, its standard error) of an array."""
    moments = Moments()
    moments.add(values)
    return moments.mean, moments.error


def percentile(ordered: Reals, share: float) -> float:
    """Linear interpolation at ``share * (n - 1)`` in sorted values."""
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return float(ordered[low]) * (1 - (place - low)) + float(ordered[high]) * (place - low)
