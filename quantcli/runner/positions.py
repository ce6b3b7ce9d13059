"""Rotary position embeddings: the angles of every position, and the rotation of queries and keys."""

from __future__ import annotations

from functools import cached_property
from math import ceil, floor, log, pi
from typing import NamedTuple, TypeAlias

import numpy

from quantcli.runner.arrays import Doubles, Floats
from quantcli.runner.ropes import Rope
from quantcli.runner.settings import NetworkSettings
from quantcli.runner.weights import Weights

AngleTable: TypeAlias = tuple[Floats, Floats]  # cosines and sines, [positions, dims / 2] each


def frequencies(rope: Rope, dims: int, divisors: Floats | None) -> tuple[Doubles, float]:
    """Angle per position of each pair, float64 [dims / 2], and the factor of all cosines and sines.

    ``divisors`` are the model's own (llama3, longrope). Formula of yarn: Peng et al. 2023, arXiv 2309.00071, as
    llama.cpp applies it (whole dimensions as bounds of the ramp).
    """
    pairs = numpy.arange(0, dims, 2, dtype=numpy.float64)
    plain = rope.base ** (-pairs / dims)
    if divisors is not None:
        plain = plain / divisors.astype(numpy.float64)
    scaled = plain / rope.scale
    if rope.kind != "yarn" or rope.extrapolation == 0:
        return scaled, rope.magnitude

    def dimension(turns: float) -> float:
        return dims * log(rope.original / (turns * 2 * pi)) / (2 * log(rope.base))

    low, high = max(0, floor(dimension(rope.fast))), min(dims - 1, ceil(dimension(rope.slow)))
    ramp = 1 - numpy.clip((pairs / 2 - low) / max(0.001, high - low), 0, 1)
    mix = ramp * rope.extrapolation
    growth = (1 + 0.1 * log(rope.scale)) / (1 + 0.1 * rope.log_multiplier * log(rope.scale))
    return scaled * (1 - mix) + plain * mix, rope.magnitude * growth


def table(rope: Rope, dims: int, start: int, stop: int, divisors: Floats | None = None) -> AngleTable:
    """Cosines and sines of the positions ``start`` to ``stop``."""
    each, magnitude = frequencies(rope, dims, divisors)
    angles = numpy.arange(start, stop, dtype=numpy.float64)[:, None] * each
    return (numpy.cos(angles) * magnitude).astype(numpy.float32), (numpy.sin(angles) * magnitude).astype(numpy.float32)


def rotate(x: Floats, angles: AngleTable, kind: str) -> Floats:
    """Rotate the first 2 * pairs elements of every head of ``x`` [sequences, positions, heads, width].

    ``kind``: "norm" pairs neighbours (2i, 2i + 1), "neox" pairs halves (i, i + pairs).
    """
    cosine, sine = (part[:, None, :] for part in angles)  # [positions, 1, pairs]
    pairs = cosine.shape[-1]
    if kind == "norm":
        first, second = slice(0, 2 * pairs, 2), slice(1, 2 * pairs, 2)
    else:
        first, second = slice(0, pairs), slice(pairs, 2 * pairs)
    result = x.copy()
    a, b = x[..., first], x[..., second]
    result[..., first] = a * cosine - b * sine
    result[..., second] = a * sine + b * cosine
    return result


class Distances(NamedTuple):
    """What scores become more by for how far apart query and key are: ``table`` float32 [heads, distances], of which
    element ``zero`` is for a key at the query's own position, the ones before it for keys further back, the ones after
    it for keys ahead (models that see both directions)."""

    table: Floats
    zero: int

    def between(self, first: int, count: int, low: int, high: int) -> Floats:
        """Of ``count`` queries from position ``first`` on and the keys ``low`` to ``high``: [heads, queries, keys].

        What a query cannot see may be anything.
        """
        places = self.zero + numpy.arange(low, high)[None, :] - numpy.arange(first, first + count)[:, None]
        return self.table[:, numpy.minimum(places, self.table.shape[1] - 1)]


def alibi(heads: int, bias: float, length: int, causal: bool = True) -> Distances:
    """Attention with linear biases (Press et al. 2021, arXiv 2108.12409): a slope per head times the distance.

    Slopes are powers of 2^(-bias/n) for the first n heads, the largest power of two, and odd powers of its root beyond.
    """
    whole = 1 << (heads.bit_length() - 1)
    powers = [head + 1 if head < whole else head - whole + 0.5 for head in range(heads)]
    slopes = numpy.array([2 ** (-bias * power / whole) for power in powers], numpy.float32)
    distances = -numpy.abs(numpy.arange(1 - length, 1 if causal else length, dtype=numpy.float32))
    return Distances(slopes[:, None] * distances, length - 1)


class Angles:
    """The angles of one model's positions 0 to ``length``, computed when first asked for."""

    def __init__(self, settings: NetworkSettings, weights: Weights, length: int) -> None:
        self.settings, self.weights, self.length = settings, weights, length
        self._tables: dict[bool, AngleTable] = {}
        self._grown: dict[bool, AngleTable] = {}

    def between(self, windowed: bool, start: int, stop: int) -> AngleTable:
        """Cosines and sines of positions ``start`` to ``stop`` in layers with or without window."""
        if windowed not in self._tables:
            rope = self.settings.window_rope if windowed else self.settings.rope
            dims = self.settings.window_rope_dims if windowed else self.settings.rope_dims
            divisors = None if windowed and not self.settings.graph.window_divisors else self._divisors()
            divisors = None if divisors is None else divisors[: dims // 2]
            self._tables[windowed] = table(rope, dims, 0, self.length, divisors)
        cosine, sine = self._tables[windowed]
        return cosine[start:stop], sine[start:stop]

    def of_queries(self, windowed: bool, start: int, stop: int) -> AngleTable:
        """The same for queries: with a temperature, their cosines and sines grow, as the whole query does."""
        temperature = self.settings.temperature
        if not temperature:
            return self.between(windowed, start, stop)
        if windowed not in self._grown:
            spans = numpy.arange(self.length) // max(self.settings.rope.original, 1)
            growth = (1 + temperature * numpy.log1p(spans)).astype(numpy.float32)[:, None]
            cosine, sine = self.between(windowed, 0, self.length)
            self._grown[windowed] = cosine * growth, sine * growth
        cosine, sine = self._grown[windowed]
        return cosine[start:stop], sine[start:stop]

    @cached_property
    def distances(self) -> Distances | None:
        """What the distance of two positions adds to their score, in models with linear biases."""
        bias = self.settings.alibi
        return alibi(self.settings.heads, bias, self.length, self.settings.causal) if bias else None

    def _divisors(self) -> Floats | None:
        """The model's own divisors of the frequencies: one table, or one for short and one for long contexts."""
        size = "long" if self.length > self.settings.rope.original else "short"
        for name in ("rope_freqs.weight", f"rope_factors_{size}.weight"):
            if name in self.weights:
                return self.weights.vector(name, (self.settings.divisors,))
        return None
