"""Self-attention of one layer: queries, keys and values, their norms and rotations, the cache, the output.

Shapes: S sequences of equal length, T new positions each, H hidden; heads h of width d; tokens = S * T.
"""

from __future__ import annotations

import numpy

from quantcli.architectures.topology import attention_inputs
from quantcli.runner.arrays import Floats
from quantcli.runner.cache import Cache
from quantcli.runner.engine import Engine, flat
from quantcli.runner.operations import clamped, sigmoid, split


class Linear:
    """A matrix in the place of attention: no position sees another."""

    def __init__(self, engine: Engine, index: int) -> None:
        self.engine, self.index, hidden = engine, index, engine.settings.hidden
        self.output = engine.weights.matrix(f"blk.{index}.attn_output", hidden, hidden)

    def forward(self, x: Floats, cache: Cache) -> Floats:
        """Of the normed stream: [S, T, H] -> [S, T, H]."""
        cache.skip(self.index, x.shape[1])
        return self.engine.multiply(flat(x), self.output)[0].reshape(x.shape)


class Attention:
    """Self-attention of one layer."""

    def __init__(self, engine: Engine, index: int) -> None:
        self.engine, self.index, self.prefix = engine, index, f"blk.{index}."
        s, matrix = engine.settings, engine.weights.matrix
        self.heads = s.attention[index]
        self.widths = self.heads.widths
        roles = attention_inputs(s.graph, lambda role: f"{self.prefix}{role}.weight" in engine.weights)
        self.rows = (2 * self.widths[0], *self.widths[1:]) if s.graph.gated_attention else self.widths
        rows = self.rows if len(roles) > 1 else (sum(self.rows),)
        self.inputs = tuple(
            matrix(self.prefix + role, s.hidden, width) for role, width in zip(roles, rows, strict=True)
        )
        self.output = matrix(f"{self.prefix}attn_output", self.heads.queries * self.heads.value, s.hidden)

    def forward(self, x: Floats, cache: Cache) -> Floats:
        """Of the normed stream: [S, T, H] -> [S, T, H]."""
        engine, s = self.engine, self.engine.settings
        start, windowed = cache.length[self.index], s.window_layers[self.index]
        q, k, v, gate = self._heads(x)
        if s.rotates(self.index):
            q, k = self._rotated(q, k, windowed, start)
        keys, values = cache.extend(self.index, k, v, engine.operations)  # [S, kv heads, positions so far, d]
        sinks = (
            engine.weights.vector(f"{self.prefix}attn_sinks.weight", (self.heads.queries,)) if s.graph.sinks else None
        )
        mixed = engine.operations.attend_all(
            cache.rotate_queries(self.index, q),
            keys,
            values,
            scale=s.attention_scale,
            start=start,
            window=s.reach if windowed else 0,
            ahead=s.ahead(windowed),
            cap=s.attention_cap,
            sinks=sinks,
            distances=engine.angles.distances,
        )  # [S, T, h, d]
        mixed = cache.rotate_back(self.index, mixed).reshape(x.shape[0] * x.shape[1], -1)
        mixed = engine.norm(f"{self.prefix}attn_sub_norm", mixed) if s.graph.inner_norm else mixed
        if gate is not None:
            mixed = mixed * sigmoid(gate)
        return engine.multiply(mixed, self.output)[0].reshape(x.shape)

    def _rotated(self, q: Floats, k: Floats, windowed: bool, start: int) -> tuple[Floats, Floats]:
        """Queries and keys [S, T, heads, d] of the positions from ``start`` on, turned; and normed in late families."""
        engine, graph = self.engine, self.engine.settings.graph
        stop = start + q.shape[1]
        q = engine.operations.rotate(q, engine.angles.of_queries(windowed, start, stop), graph.rope)
        k = engine.operations.rotate(k, engine.angles.between(windowed, start, stop), graph.rope)
        if graph.late_qk_norm:
            q, k = self._head_norm("attn_q_norm", q), self._head_norm("attn_k_norm", k)
        return q, k

    def _heads(self, x: Floats) -> tuple[Floats, Floats, Floats, Floats | None]:
        """Queries [S, T, h, d], keys and values [S, T, kv heads, d], normed where the family norms them; and what the
        output is gated with, [tokens, h * d], where the family does so."""
        s = self.engine.settings
        parts = self.engine.multiply(flat(x), *self.inputs)
        q, k, v = parts if len(parts) > 1 else split(parts[0], self.rows)
        gate = None
        if s.graph.gated_attention:
            both = q.reshape(len(q), self.heads.queries, 2, self.heads.key)
            q, gate = (numpy.ascontiguousarray(both[:, :, part]).reshape(len(q), -1) for part in (0, 1))
        if s.clamp:
            q, k, v = (clamped(part, s.clamp) for part in (q, k, v))
        if not s.graph.late_qk_norm:
            q, k = self._head_norm("attn_q_norm", q), self._head_norm("attn_k_norm", k)
        shape = x.shape[:2]
        return (
            q.reshape(*shape, self.heads.queries, self.heads.key),
            k.reshape(*shape, self.heads.keys, self.heads.key),
            v.reshape(*shape, self.heads.keys, self.heads.value),
            gate,
        )

    def _head_norm(self, role: str, x: Floats) -> Floats:
        """Norm of queries or keys, [tokens, heads * d] or [S, T, heads, d]: per head, or over the whole projection."""
        kind, name = self.engine.settings.graph.qk_norm, self.prefix + role
        if kind is None or f"{name}.weight" not in self.engine.weights:
            return x
        if kind == "full" or x.ndim == 4:
            return self.engine.norm(name, x)
        return self.engine.norm(name, x.reshape(len(x), -1, self.heads.key)).reshape(x.shape)
