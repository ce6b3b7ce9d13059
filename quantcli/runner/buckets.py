"""Positions as biases: every score grows by a number for how far apart query and key are.

Far distances share one number, in buckets that grow like a logarithm: T5 (Raffel et al. 2020, arXiv 1910.10683).
"""

from __future__ import annotations

from math import log

import numpy

from quantcli.runner.arrays import Floats, Ints
from quantcli.runner.positions import Distances

FARTHEST = 128  # positions from which on all distances share the last bucket, in llama.cpp too


def bucket_of(distances: Ints, buckets: int, *, both: bool) -> Ints:
    """The bucket of each distance key - query; ``both``: half of them are for keys ahead, else none is."""
    ahead = distances > 0
    if both:
        buckets //= 2
        far = numpy.abs(distances)
    else:
        far = numpy.maximum(-distances, 0)
    exact = buckets // 2
    # a hair more, so that a logarithm that should be whole is
    growth = numpy.log(numpy.maximum(far, 1) / exact) / log(FARTHEST / exact) * (buckets - exact) + 1e-9
    wide = numpy.minimum(exact + numpy.floor(growth).astype(numpy.int64), buckets - 1)
    found: Ints = numpy.where(far < exact, far, wide) + (ahead * buckets if both else 0)
    return found


def biases(table: Floats, length: int, *, both: bool) -> Distances:
    """What scores become more by, from a table [buckets, heads], for texts of ``length`` positions."""
    distances = numpy.arange(1 - length, length if both else 1)
    chosen = table[bucket_of(distances, len(table), both=both)]  # [distances, heads]
    return Distances(numpy.ascontiguousarray(chosen.T, numpy.float32), length - 1)
