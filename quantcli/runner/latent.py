"""Multi-head latent attention (DeepSeek V2, arXiv 2405.04434), absorbed: keys and values of all heads are one vector.

What the cache holds of a position is the normed latent and one rotated key that all heads share. The matrix that would
make each head's keys of the latent is applied to its queries instead, the one that would make its values to what
attention mixed. Shapes: S sequences, T new positions, H hidden; h heads; tokens = S * T.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy

from quantcli.runner.arrays import Floats, Ints
from quantcli.runner.cache import Cache
from quantcli.runner.engine import Engine, flat
from quantcli.runner.indexer import Indexer, attend_chosen
from quantcli.runner.weights import PackedMatrix

if TYPE_CHECKING:
    pass


class LatentAttention:
    """Self-attention of one layer."""

    def __init__(self, engine: Engine, index: int) -> None:
        self.engine, self.index, self.prefix = engine, index, f"blk.{index}."
        s, sizes = engine.settings, engine.settings.latent
        assert sizes is not None
        self.sizes, self.heads = sizes, s.attention[index].queries
        rows = self.heads * sizes.key
        self.down = self._matrix("attn_q_a", s.hidden, sizes.query_rank) if sizes.query_rank else None
        self.queries = (
            self._matrix("attn_q_b", sizes.query_rank, rows) if self.down else self._matrix("attn_q", s.hidden, rows)
        )
        self.latent = self._matrix("attn_kv_a_mqa", s.hidden, sizes.stored)
        self.absorbed = self._matrix("attn_k_b", sizes.plain, sizes.rank, self.heads)
        self.values = self._matrix("attn_v_b", sizes.rank, sizes.value, self.heads)
        self.output = self._matrix("attn_output", self.heads * sizes.value, s.hidden)
        self.indexer = Indexer(engine, index) if s.indexer and s.indexer.full[index] else None

    def _matrix(self, role: str, columns: int, rows: int, matrices: int = 1) -> PackedMatrix:
        return self.engine.weights.matrix(self.prefix + role, columns, rows, matrices)

    def forward(self, x: Floats, cache: Cache) -> Floats:
        """Of the normed stream: [S, T, H] -> [S, T, H]."""
        engine, s, start = self.engine, self.engine.settings, cache.length[self.index]
        low, latent, key = self._inputs(x, start)
        queries = self._queries(low, x.shape[:2], start)  # [S, T, h, rank + rotated]
        keys, values = cache.extend(self.index, numpy.concatenate([latent, key], axis=-1), latent, engine.operations)
        chosen = self._chosen(x, low, cache, start)
        queries = cache.rotate_queries(self.index, queries)
        if chosen is None:
            mixed = engine.operations.attend_all(queries, keys, values, scale=s.attention_scale, start=start)
        else:
            mixed = attend_chosen(queries, keys, values, chosen, s.attention_scale)
        mixed = cache.rotate_back(self.index, mixed).reshape(-1, self.heads, self.sizes.rank)  # [tokens, h, rank]
        (outputs,) = engine.multiply_experts(mixed, self._every_head(len(mixed)), self.values)
        return engine.multiply(outputs.reshape(len(mixed), -1), self.output)[0].reshape(x.shape)

    def _inputs(self, x: Floats, start: int) -> tuple[Floats, Floats, Floats]:
        """What queries are made of [tokens, n], the latent [S, T, 1, rank], the shared key [S, T, 1, rotated]."""
        engine, sizes, shape = self.engine, self.sizes, x.shape[:2]
        tokens = flat(x)
        if self.down is None:
            low, (stored,) = tokens, engine.multiply(tokens, self.latent)
        else:
            low, stored = engine.multiply(tokens, self.down, self.latent)
            low = engine.norm(f"{self.prefix}attn_q_a_norm", low)
        latent = engine.norm(f"{self.prefix}attn_kv_a_norm", numpy.ascontiguousarray(stored[:, : sizes.rank]))
        key = numpy.ascontiguousarray(stored[:, sizes.rank :]).reshape(*shape, 1, sizes.rotated)
        return low, latent.reshape(*shape, 1, sizes.rank), self._rotated(key, start)

    def _queries(self, low: Floats, shape: tuple[int, ...], start: int) -> Floats:
        """Each head's query for the latent, then the one for the shared key: [S, T, h, rank + rotated]."""
        engine, sizes = self.engine, self.sizes
        (both,) = engine.multiply(low, self.queries)
        both = both.reshape(len(low), self.heads, sizes.key)
        plain = numpy.ascontiguousarray(both[..., : sizes.plain])
        (absorbed,) = engine.multiply_experts(plain, self._every_head(len(low)), self.absorbed)
        turned = numpy.ascontiguousarray(both[..., sizes.plain :]).reshape(*shape, self.heads, sizes.rotated)
        parts = [absorbed.reshape(*shape, self.heads, sizes.rank), self._rotated(turned, start)]
        return numpy.concatenate(parts, axis=-1)

    def _rotated(self, x: Floats, start: int) -> Floats:
        """[S, T, heads, rotated] turned by their positions, in families that rotate."""
        engine = self.engine
        if not engine.settings.rotates(self.index):
            return x
        angles = engine.angles.between(False, start, start + x.shape[1])
        return engine.operations.rotate(x, angles, engine.settings.graph.rope)

    def _every_head(self, tokens: int) -> Ints:
        """Every head's own matrix for its row: [tokens, h]."""
        return numpy.broadcast_to(numpy.arange(self.heads), (tokens, self.heads))

    def _chosen(self, x: Floats, low: Floats, cache: Cache, start: int) -> Ints | None:
        """The positions that each query sees, where an indexer chooses them; layers without one take over the choice
        of the layer before."""
        if self.engine.settings.indexer is None:
            return None
        if self.indexer is not None:
            self.indexer.choose(x, low, cache, start)
        return cache.chosen
