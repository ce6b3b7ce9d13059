"""Multi-head latent attention (DeepSeek V2, arXiv 2405.04434), absorbed: keys and values of all heads are one vector.

What the cache holds of a position is the normed latent and one rotated key that all heads share (files that hold both
matrices in one are run with each head's own keys and values). The matrix that would
make each head's keys of the latent is applied to its queries instead, the one that would make its values to what
attention mixed. Shapes: S sequences, T new positions, H hidden; h heads; tokens = S * T.
"""

from __future__ import annotations

import numpy

from quantcli.errors import UnsupportedGraph
from quantcli.runner.arrays import Floats, Ints
from quantcli.runner.cache import Cache
from quantcli.runner.engine import Engine, flat
from quantcli.runner.indexer import Indexer, attend_chosen
from quantcli.runner.operations import split
from quantcli.runner.weights import PackedMatrix


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
        self.both = self.keys = self.values = None
        if sizes.absorbed:
            self.keys = self._matrix("attn_k_b", sizes.plain, sizes.rank, self.heads)
            self.values = self._matrix("attn_v_b", sizes.rank, sizes.value, self.heads)
        else:
            self.both = self._matrix("attn_kv_b", sizes.rank, self.heads * (sizes.plain + sizes.value))
        self.output = self._matrix("attn_output", self.heads * sizes.value, s.hidden)
        self.indexer = Indexer(engine, index) if s.indexer and s.indexer.full[index] else None

    def _matrix(self, role: str, columns: int, rows: int, matrices: int = 1) -> PackedMatrix:
        return self.engine.weights.matrix(self.prefix + role, columns, rows, matrices)

    def forward(self, x: Floats, cache: Cache) -> Floats:
        """Of the normed stream: [S, T, H] -> [S, T, H]."""
        engine, start = self.engine, cache.length[self.index]
        low, latent, key = self._inputs(x, start)
        plain, turned = self._queries(low, x.shape[:2], start)
        if self.keys is None:
            mixed = self._expanded(plain, turned, latent, key, cache)
        else:
            mixed = self._absorbed(plain, turned, latent, key, cache, self._choice(x, low, cache, start))
        return engine.multiply(mixed, self.output)[0].reshape(x.shape)

    def _absorbed(
        self, plain: Floats, turned: Floats, latent: Floats, key: Floats, cache: Cache, chosen: Ints | None
    ) -> Floats:
        """Attention over latents; the queries' ``plain`` part [S, T, h, n] through each head's own matrix before, what
        was mixed through another behind: [tokens, h * value]."""
        assert self.keys is not None and self.values is not None
        engine, scale, start = self.engine, self.engine.settings.attention_scale, cache.length[self.index]
        rows = flat(plain).reshape(-1, self.heads, self.sizes.plain)
        (absorbed,) = engine.multiply_experts(rows, self._every_head(len(rows)), self.keys, always=True)
        absorbed = absorbed.reshape(*plain.shape[:3], self.sizes.rank)
        queries = self._joined(absorbed, turned)
        queries = cache.rotate_queries(self.index, queries)
        keys, values = cache.extend(self.index, self._joined(latent, key), latent, engine.operations)
        if chosen is None:
            mixed = engine.operations.attend_all(queries, keys, values, scale=scale, start=start)
        else:
            mixed = attend_chosen(queries, keys, values, chosen, scale)
        mixed = cache.rotate_back(self.index, mixed).reshape(-1, self.heads, self.sizes.rank)  # [tokens, h, rank]
        (outputs,) = engine.multiply_experts(mixed, self._every_head(len(mixed)), self.values, always=True)
        return outputs.reshape(len(mixed), -1)

    def _expanded(self, plain: Floats, turned: Floats, latent: Floats, key: Floats, cache: Cache) -> Floats:
        """Attention over each head's keys and values, made of the latent at once: [tokens, h * value]."""
        assert self.both is not None
        engine, shape, sizes = self.engine, plain.shape[:3], self.sizes
        (made,) = engine.multiply(flat(latent[:, :, 0]), self.both)
        made = made.reshape(*shape, sizes.plain + sizes.value)
        keys = numpy.concatenate([made[..., : sizes.plain], numpy.broadcast_to(key, turned.shape)], axis=-1)
        queries = cache.rotate_queries(self.index, numpy.concatenate([plain, turned], axis=-1))
        start, values = cache.length[self.index], numpy.ascontiguousarray(made[..., sizes.plain :])
        seen = cache.extend(self.index, keys, values, engine.operations)
        mixed = engine.operations.attend_all(queries, *seen, scale=engine.settings.attention_scale, start=start)
        return flat(cache.rotate_back(self.index, mixed).reshape(*shape[:2], -1))

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

    def _queries(self, low: Floats, shape: tuple[int, ...], start: int) -> tuple[Floats, Floats]:
        """Each head's query for the keys of the latent [S, T, h, n], and for the shared key [S, T, h, rotated]."""
        (both,) = self.engine.multiply(low, self.queries)
        both = both.reshape(*shape, self.heads, self.sizes.key)
        widths = (self.sizes.plain, self.sizes.rotated)
        plain, turned = self.engine.operations.host(
            lambda both: tuple(numpy.ascontiguousarray(part) for part in split(both, widths)), both
        )
        return plain, self._rotated(turned, start)

    def _rotated(self, x: Floats, start: int) -> Floats:
        """[S, T, heads, rotated] turned by their positions, in families that rotate."""
        engine = self.engine
        if not engine.settings.rotates(self.index):
            return x
        angles = engine.angles.between(False, start, start + x.shape[1])
        return engine.operations.rotate(x, angles, engine.settings.graph.rope)

    def _joined(self, left: Floats, right: Floats) -> Floats:
        """Side by side in the last dimension."""
        both: Floats = self.engine.operations.host(
            lambda left, right: numpy.concatenate([left, right], axis=-1), left, right
        )
        return both

    def _every_head(self, tokens: int) -> Ints:
        """Every head's own matrix for its row: [tokens, h]."""
        return numpy.broadcast_to(numpy.arange(self.heads), (tokens, self.heads))

    def _choice(self, x: Floats, low: Floats, cache: Cache, start: int) -> Ints | None:
        """The positions that each query sees, where an indexer chooses them; layers without one take over the choice
        of the layer before."""
        if self.engine.settings.indexer is None:
            return None
        if self.indexer is not None:
            self.indexer.choose(x, low, cache, start)
        elif cache.chosen is None and start + x.shape[1] > self.engine.settings.indexer.most:
            raise UnsupportedGraph(
                f"layer {self.index} takes over the choice of a layer before it, which is run apart from it",
                hint="convert without calibration: layers of this model cannot be run one by one",
            )
        return cache.chosen
