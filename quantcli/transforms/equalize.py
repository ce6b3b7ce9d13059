"""Factors from maxima: SmoothQuant (Xiao and others 2022) and cross-layer equalization (Nagel and others 2019)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy
from numpy.typing import NDArray

Floats = NDArray[numpy.float32]
Doubles = NDArray[numpy.float64]

STRENGTH = 0.5  # SmoothQuant's alpha: how much of the inputs' range goes into the weights
SMALLEST = 1e-5  # of a range, relative to the largest


def smoothquant_scale(readers: Sequence[Floats], largest_inputs: Doubles) -> Doubles:
    """s = max|x|^(1/2) / max|W column|^(1/2), the factor on the columns [columns]; inputs are divided by it."""
    weights = _floor(numpy.max([numpy.abs(values).max(axis=0) for values in readers], axis=0))
    return _centred(_floor(largest_inputs) ** STRENGTH / weights ** (1 - STRENGTH))


def equalized_scale(readers: Sequence[Floats], source_rows: Doubles) -> Doubles:
    """s = sqrt(r1 / r2): the source's rows (``source_rows``: their maxima) and the readers' columns get one range."""
    columns = _floor(numpy.max([numpy.abs(values).max(axis=0) for values in readers], axis=0))
    return _centred(numpy.sqrt(_floor(source_rows) / columns))


def _floor(values: Doubles | Floats) -> Doubles:
    wide = values.astype(numpy.float64)
    result: Doubles = numpy.maximum(wide, SMALLEST * max(wide.max(), 1e-30))
    return result


def _centred(scale: Doubles) -> Doubles:
    """The same with geometric mean 1: what all columns share changes nothing."""
    result: Doubles = scale / numpy.exp(numpy.log(scale).mean())
    return result
