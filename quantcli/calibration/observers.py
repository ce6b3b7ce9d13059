"""Clip ranges as calibration observers find them: what a matrix would lose with one range per row.

GGUF's types have a scale per block and searches for it, so nothing here encodes a file: `quantcli analyze` and
docs/methods.md show what a row's range costs beside that. A row is rounded to symmetric integers of four bits,
-7 to 7 steps of a seventh of its range.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy
from numpy.typing import NDArray

Floats = NDArray[numpy.float32]
Doubles = NDArray[numpy.float64]
Observer = Callable[[Floats, Floats], Floats]  # rows [m, n], importance of the columns [n] -> range of every row [m]

STEPS = 7  # on either side of zero
PERCENTILE = 0.999  # of the magnitudes
SHARES = numpy.arange(0.2, 1.001, 0.05)  # of the largest magnitude, that the searches try
BINS, FEWEST_BINS, EVERY = 256, 32, 8  # of the histogram; ranges that are tried
LAPLACE = 5.03  # times the mean magnitude: the analytic clip of four bits (Banner and others 2018)


def rounded(rows: Floats, ranges: Floats) -> Floats:
    """``rows`` [m, n] on the grid that ``ranges`` [m] give, clipped to it."""
    step = (numpy.maximum(ranges, 1e-30) / STEPS).astype(numpy.float32)[:, None]
    found: Floats = numpy.clip(numpy.rint(rows / step), -STEPS, STEPS) * step
    return found


def loss(rows: Floats, ranges: Floats, importance: Floats) -> Doubles:
    """Per row [m] the squared error, each column times its importance."""
    errors = numpy.square(rounded(rows, ranges) - rows, dtype=numpy.float64)
    found: Doubles = errors @ importance.astype(numpy.float64)
    return found


def min_max(rows: Floats, importance: Floats) -> Floats:
    """Everything is within."""
    found: Floats = numpy.abs(rows).max(axis=1)
    return found


def percentile(rows: Floats, importance: Floats) -> Floats:
    """All but a thousandth."""
    return numpy.quantile(numpy.abs(rows), PERCENTILE, axis=1).astype(numpy.float32)


def analytic(rows: Floats, importance: Floats) -> Floats:
    """The best clip of Laplace's distribution (ACIQ), at most the largest magnitude."""
    sizes = numpy.abs(rows)
    found: Floats = numpy.minimum(LAPLACE * sizes.mean(axis=1), sizes.max(axis=1)).astype(numpy.float32)
    return found


def squares(rows: Floats, importance: Floats) -> Floats:
    """Least squared error, all columns alike."""
    return weighted(rows, numpy.ones_like(importance))


def weighted(rows: Floats, importance: Floats) -> Floats:
    """Least squared error, columns by importance."""
    largest = min_max(rows, importance)
    tried = numpy.stack([loss(rows, (share * largest).astype(numpy.float32), importance) for share in SHARES])
    found: Floats = (SHARES[tried.argmin(axis=0)] * largest).astype(numpy.float32)
    return found


def entropy(rows: Floats, importance: Floats) -> Floats:
    """Least KL divergence between the histogram of magnitudes and what the levels leave of it."""
    largest = numpy.maximum(min_max(rows, importance), 1e-30)
    places = numpy.minimum((numpy.abs(rows) / largest[:, None] * BINS).astype(numpy.intp), BINS - 1)
    places += numpy.arange(len(rows))[:, None] * BINS
    counts = numpy.bincount(places.reshape(-1), minlength=len(rows) * BINS).reshape(len(rows), BINS).astype(float)
    widths = range(FEWEST_BINS, BINS + 1, EVERY)
    tried = numpy.stack([_divergence(counts, width) for width in widths])
    found: Floats = (numpy.array(widths)[tried.argmin(axis=0)] / BINS * largest).astype(numpy.float32)
    return found


def _divergence(counts: Doubles, width: int) -> Doubles:
    """Per row, of the clipped histogram from its version on the levels. ``counts``: [m, bins]."""
    true = counts[:, :width].copy()
    true[:, -1] += counts[:, width:].sum(axis=1)
    level = numpy.rint((numpy.arange(width) + 0.5) * STEPS / width).astype(numpy.intp)
    one_hot = (level[:, None] == numpy.arange(STEPS + 1)).astype(float)
    inside = counts[:, :width]
    filled = (inside > 0).astype(float)
    spread = numpy.maximum(filled @ one_hot, 1.0)
    kept = ((inside @ one_hot) / spread) @ one_hot.T * filled
    p = true / numpy.maximum(true.sum(axis=1, keepdims=True), 1.0)
    q = numpy.maximum(kept / numpy.maximum(kept.sum(axis=1, keepdims=True), 1.0), 1e-9)
    found: Doubles = numpy.where(p > 0, p * numpy.log(numpy.maximum(p, 1e-30) / q), 0.0).sum(axis=1)
    return found


#: by the name under which they are shown
OBSERVERS: dict[str, Observer] = {
    "min-max": min_max,
    "percentile": percentile,
    "analytic": analytic,
    "mse": squares,
    "weighted": weighted,
    "kl": entropy,
}
