"""The indexer of DeepSeek's sparse attention (V3.2, arXiv 2512.02556): which keys a query attends to.

Every position has one small key; a few small heads score it, and the best positions are seen by all heads of the layer.
Shapes: S sequences, T new positions, H hidden; i indexer heads of width w; N positions so far.
"""

from __future__ import annotations

from math import sqrt

import numpy

from quantcli.runner.arrays import Floats, Ints, Reals
from quantcli.runner.cache import Cache
from quantcli.runner.engine import Engine, flat
from quantcli.runner.operations import QUERIES, softmax

NORM_EPS = 1e-6  # llama.cpp's constant


class Indexer:
    """The indexer of one layer."""

    def __init__(self, engine: Engine, index: int) -> None:
        self.engine, self.index, self.prefix = engine, index, f"blk.{index}.indexer."
        s, sizes, matrix = engine.settings, engine.settings.indexer, engine.weights.matrix
        assert sizes is not None and s.latent is not None
        self.sizes = sizes
        self.queries = matrix(f"{self.prefix}attn_q_b", s.latent.query_rank, sizes.heads * sizes.width)
        self.keys = matrix(f"{self.prefix}attn_k", s.hidden, sizes.width)
        self.weights = matrix(f"{self.prefix}proj", s.hidden, sizes.heads)

    def choose(self, x: Floats, low: Floats, cache: Cache, start: int) -> None:
        """Leave the choice for these positions in ``cache.chosen``: int [S, T, most], -1 behind the last; None where
        every position is seen.

        ``x``: the layer's normed input [S, T, H]; ``low``: what its queries are made of, [tokens, rank].
        """
        keys = self._stored(x, cache, start)  # [S, N, w]
        if keys.shape[1] <= self.sizes.most:
            cache.chosen = None
            return
        engine, sizes, shape = self.engine, self.sizes, x.shape[:2]
        (queries,) = engine.multiply(low, self.queries)
        queries = self._rotated(queries.reshape(*shape, sizes.heads, sizes.width), start)
        (weights,) = engine.multiply(flat(x), self.weights)
        weights = weights.reshape(*shape, -1) / numpy.float32(sqrt(sizes.width * sizes.heads))
        cache.chosen = numpy.stack([best(*one, start, sizes.most) for one in zip(queries, weights, keys, strict=True)])

    def _stored(self, x: Floats, cache: Cache, start: int) -> Floats:
        """The keys of all positions so far, those of ``x`` added: [S, N, w]."""
        engine, sizes = self.engine, self.sizes
        (keys,) = engine.multiply(flat(x), self.keys)
        weight, bias = (engine.weights.vector(f"{self.prefix}k_norm.{part}") for part in ("weight", "bias"))
        keys = engine.operations.layer_norm(keys, weight, bias, NORM_EPS).reshape(*x.shape[:2], 1, sizes.width)
        store = cache.state(self.index, "indexer", cache.capacity, sizes.width)
        store[:, start : start + x.shape[1]] = self._rotated(keys, start)[:, :, 0]
        return store[:, : start + x.shape[1]]

    def _rotated(self, x: Floats, start: int) -> Floats:
        """The first elements of [S, T, heads, w] turned by their positions."""
        engine = self.engine
        angles = engine.angles.between(False, start, start + x.shape[1])
        return engine.operations.rotate(x, angles, engine.settings.graph.indexer_rope)


def best(queries: Floats, weights: Floats, keys: Floats, start: int, most: int) -> Ints:
    """The ``most`` positions with the largest sum over heads of weight * relu(query . key): int [T, most], -1 where a
    query sees fewer.

    ``queries`` [T, i, w], the first at position ``start``; ``weights`` [T, i]; ``keys`` [N, w].
    """
    length = len(queries)
    result = numpy.empty((length, most), numpy.int64)
    for first in range(0, length, QUERIES):
        last = min(first + QUERIES, length)
        products = numpy.maximum(numpy.matmul(queries[first:last], keys.T), 0)  # [queries, i, N]
        scores = numpy.einsum("qin,qi->qn", products, weights[first:last])
        ahead = numpy.arange(len(keys)) > numpy.arange(start + first, start + last)[:, None]
        scores[ahead] = -numpy.inf
        places = numpy.argpartition(-scores, most - 1, axis=1)[:, :most]
        seen = numpy.take_along_axis(ahead, places, axis=1)
        result[first:last] = numpy.where(seen, -1, places)
    return result


def attend_chosen(q: Floats, k: Reals, v: Reals, chosen: Ints, scale: float) -> Floats:
    """Attention of each query over the positions chosen for it: [S, T, h, value width].

    ``q`` [S, T, h, w]; ``k``, ``v`` [S, 1, N, w]: one key/value head; ``chosen`` [S, T, most], -1 for none.
    """
    result = numpy.empty((*q.shape[:3], v.shape[-1]), numpy.float32)
    for sequence, position in numpy.ndindex(q.shape[:2]):
        places = chosen[sequence, position]
        places = places[places >= 0]
        keys, values = (part[sequence, 0, places].astype(numpy.float32, copy=False) for part in (k, v))
        scores = (q[sequence, position] @ keys.T) * numpy.float32(scale)  # [h, chosen]
        softmax(scores)
        result[sequence, position] = scores @ values
    return result
