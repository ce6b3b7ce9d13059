"""QSUR (OSTQuant, Hu and others 2025, 2501.13987): how much of its quantization space a matrix uses; rank correlation.

The volume of the ellipsoid that holds the values over that of the cube which their largest range spans:

    QSUR = pi^(d/2) / (2^d Gamma(d/2 + 1)) prod_i sqrt(l_i / l_1) (max_j |q_1j|)^-d

with the eigenvalues l_1 >= ... >= l_d of the covariance and q_1, the eigenvector of the largest (the mean is
neglected, and then the confidence level cancels). It grows when the spectrum is flat and when q_1 is spread.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import lgamma, log, pi

import numpy
from numpy.typing import NDArray

Floats = NDArray[numpy.float32]
Doubles = NDArray[numpy.float64]

BLOCK = 32  # columns: those of a block of the legacy types
SHRINKAGE = 1e-4  # of the covariance, towards the mean of its diagonal


def per_dimension(rows: Floats, block: int = BLOCK) -> Doubles:
    """The d-th root of QSUR of every block of columns, float64 [n / block]; rows [m, n] are the samples.

    Columns beyond the last whole block are left out.
    """
    count = rows.shape[1] // block
    values = rows[:, : count * block].astype(numpy.float64).reshape(len(rows), count, block).transpose(1, 0, 2)
    values = values - values.mean(axis=1, keepdims=True)
    covariance = values.transpose(0, 2, 1) @ values / max(len(rows), 1)
    share = numpy.trace(covariance, axis1=1, axis2=2) / block
    covariance += (SHRINKAGE * share + 1e-300)[:, None, None] * numpy.eye(block)
    spectrum, vectors = numpy.linalg.eigh(covariance)
    constant = 0.5 * log(pi) - log(2) - lgamma(block / 2 + 1) / block
    flat = 0.5 * numpy.log(spectrum / spectrum[:, -1:]).mean(axis=1)
    found: Doubles = numpy.exp(constant + flat - numpy.log(numpy.abs(vectors[:, :, -1]).max(axis=1)))
    return found


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Spearman's; None where there are fewer than three values or one side is constant."""
    if len(one) < 3:
        return None
    first, second = (_ranks(numpy.asarray(values, numpy.float64)) for values in (one, other))
    if first.std() == 0 or second.std() == 0:
        return None
    return float(numpy.corrcoef(first, second)[0, 1])


def _ranks(values: Doubles) -> Doubles:
    """Equal values share the mean of their ranks."""
    _, inverse, counts = numpy.unique(values, return_inverse=True, return_counts=True)
    last = numpy.cumsum(counts)
    found: Doubles = ((last - counts + last - 1) / 2)[inverse]
    return found
