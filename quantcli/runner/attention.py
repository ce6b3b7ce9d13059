"""Self-attention of one layer: queries, keys and values, their norms and rotations, the cache, the output.

Shapes: S sequences of equal length, T new positions each, H hidden; heads h of width d; tokens = S * T.
"""

from __future__ import annotations

import numpy

from quantcli.runner.arrays import Floats
from quantcli.runner.cache import Cache
from quantcli.runner.engine import Engine, flat
from quantcli.runner.operations import clamped, sigmoid, split
from quantcli.runner.weights import PackedMatrix


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
        self.inputs: tuple[PackedMatrix, ...]
        if s.graph.fused_qkv:
            self.inputs = (matrix(f"{self.prefix}attn_qkv", s.hidden, sum(self.widths)),)
        else:
            roles = ("attn_q", "attn_k", "attn_v")
            rows = (2 * self.widths[0], *self.widths[1:]) if s.graph.gated_attention else self.widths
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
            angles = engine.angles.between(windowed, start, start + x.shape[1])
            q, k = (engine.operations.rotate(part, angles, s.graph.rope) for part in (q, k))
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
            window=s.window if windowed else 0,
            cap=s.attention_cap,
            sinks=sinks,
            distances=engine.angles.distances,
        )  # [S, T, h, d]
        mixed = cache.rotate_back(self.index, mixed).reshape(x.shape[0] * x.shape[1], -1)
        if gate is not None:
            mixed = mixed * sigmoid(gate)
        return engine.multiply(mixed, self.output)[0].reshape(x.shape)

    def _heads(self, x: Floats) -> tuple[Floats, Floats, Floats, Floats | None]:
        """Queries [S, T, h, d], keys and values [S, T, kv heads, d], normed where the family norms them; and what the
        output is gated with, [tokens, h * d], where the family does so."""
        s = self.engine.settings
        parts = self.engine.multiply(flat(x), *self.inputs)
        q, k, v = split(parts[0], self.widths) if s.graph.fused_qkv else parts
        gate = None
        if s.graph.gated_attention:
            both = q.reshape(len(q), self.heads.queries, 2, self.heads.key)
            q, gate = (numpy.ascontiguousarray(both[:, :, part]).reshape(len(q), -1) for part in (0, 1))
        if s.clamp:
            q, k, v = (clamped(part, s.clamp) for part in (q, k, v))
        q, k = self._head_norm("attn_q_norm", q), self._head_norm("attn_k_norm", k)
        shape = x.shape[:2]
        return (
            q.reshape(*shape, self.heads.queries, self.heads.key),
            k.reshape(*shape, self.heads.keys, self.heads.key),
            v.reshape(*shape, self.heads.keys, self.heads.value),
            gate,
        )

    def _head_norm(self, role: str, x: Floats) -> Floats:
        """Norm of queries or keys [tokens, heads * d]: per head, or over the whole projection."""
        kind, name = self.engine.settings.graph.qk_norm, self.prefix + role
        if kind is None or f"{name}.weight" not in self.engine.weights:
            return x
        if kind == "full":
            return self.engine.norm(name, x)
        return self.engine.norm(name, x.reshape(len(x), -1, self.heads.key)).reshape(x.shape)
