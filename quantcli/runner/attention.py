"""Self-attention of one layer: queries, keys and values, their norms and rotations, the cache, the output.

Shapes: S sequences of equal length, T new positions each, H hidden; heads h of width d; tokens = S * T.
"""

from __future__ import annotations

import itertools

import numpy

from quantcli.architectures.topology import attention_inputs
from quantcli.runner.arrays import Floats, Reals
from quantcli.runner.cache import Cache
from quantcli.runner.engine import Engine, flat
from quantcli.runner.operations import clamped, sigmoid, split
from quantcli.runner.recurrence import softplus
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
        self.heads, self.source = s.attention[index], s.sources[index]
        self.widths = self.heads.widths
        self.rows = (2 * self.widths[0], *self.widths[1:]) if s.graph.gated_attention else self.widths
        self.inputs = self._inputs()
        self.output = matrix(f"{self.prefix}attn_output", self.heads.queries * self.heads.value, s.hidden)
        gate = f"{self.prefix}attn_gate"
        self.gate = matrix(gate, s.hidden, engine.weights.rows(gate)) if s.graph.attention_gate else None

    def _inputs(self) -> tuple[PackedMatrix, ...]:
        """The matrices of queries, keys and values, as far as the layer has its own."""
        s, weights = self.engine.settings, self.engine.weights
        roles = attention_inputs(s.graph, lambda role: f"{self.prefix}{role}.weight" in weights)
        found = list(zip(roles, self.rows if len(roles) > 1 else (sum(self.rows),), strict=True))
        if s.graph.value_norm:  # keys and values may be another layer's, values may be the keys
            found = found if self.source == self.index else found[:1]
            found = [(role, count) for role, count in found if f"{self.prefix}{role}.weight" in weights]
        return tuple(weights.matrix(self.prefix + role, s.hidden, count) for role, count in found)

    def forward(self, x: Floats, cache: Cache) -> Floats:
        """Of the normed stream: [S, T, H] -> [S, T, H]."""
        engine, s, start = self.engine, self.engine.settings, cache.length[self.index]
        q, k, v, gate = self._heads(x)
        q = self._warmed(self._turned("attn_q_norm", q, start), start)
        if k is None or v is None:
            cache.skip(self.index, x.shape[1])
            keys, values = cache.seen(self.source, start + x.shape[1])
        else:
            keys, values = cache.extend(self.index, self._turned("attn_k_norm", k, start), v, engine.operations)
        mixed = self._mixed(cache.rotate_queries(self.source, q), keys, values, start)  # [S, T, h, d]
        mixed = cache.rotate_back(self.source, mixed).reshape(x.shape[0] * x.shape[1], -1)
        mixed = engine.norm(f"{self.prefix}attn_sub_norm", mixed) if s.graph.inner_norm else mixed
        if gate is not None:
            mixed = engine.operations.host(lambda mixed, gate: mixed * sigmoid(gate), mixed, gate)
        if self.gate is not None:
            mixed = engine.operations.host(self._gated, mixed, engine.multiply(flat(x), self.gate)[0])
        (result,) = engine.multiply(mixed, self.output)
        if s.value_scale != 1:
            result = engine.operations.host(lambda x: x * numpy.float32(s.value_scale), result)
        return result.reshape(x.shape)

    def _mixed(self, q: Floats, keys: Reals, values: Reals, start: int) -> Floats:
        """Values of [S, kv heads, N, d] mixed by their keys for the queries [S, T, h, d], from position ``start`` on:
        [S, T, h, d]. Windows of chunks begin anew at every multiple of their length."""
        s, length = self.engine.settings, q.shape[1]
        windowed = s.window_layers[self.index]
        if not (windowed and s.graph.chunked):
            return self._attended(q, keys, values, start, s.reach if windowed else 0)
        bounds = [start, *range((start // s.window + 1) * s.window, start + length, s.window), start + length]
        parts = []
        for first, last in itertools.pairwise(bounds):
            low = first - first % s.window
            part, seen = q[:, first - start : last - start], slice(low, last)
            parts.append(self._attended(part, keys[:, :, seen], values[:, :, seen], first - low, 0))
        return parts[0] if len(parts) == 1 else numpy.concatenate(parts, axis=1)

    def _attended(self, q: Floats, keys: Reals, values: Reals, start: int, window: int) -> Floats:
        engine, s, sinks = self.engine, self.engine.settings, f"{self.prefix}attn_sinks.weight"
        return engine.operations.attend_all(
            q,
            keys,
            values,
            scale=s.attention_scale,
            start=start,
            window=window,
            ahead=s.ahead(window > 0),
            cap=s.attention_cap,
            sinks=engine.weights.vector(sinks, (self.heads.queries,)) if sinks in engine.weights else None,
            distances=engine.angles.distances,
        )

    def _turned(self, role: str, x: Floats, start: int) -> Floats:
        """Queries or keys [S, T, heads, d] turned by their positions, from ``start`` on; and normed in families that do
        so late, by the norm of that ``role``."""
        engine, s, stop = self.engine, self.engine.settings, start + x.shape[1]
        if not s.rotates(self.index):
            return x
        angles = engine.angles.of_queries if role == "attn_q_norm" else engine.angles.between
        x = engine.operations.rotate(x, angles(s.window_layers[self.index], start, stop), s.graph.rope)
        if s.graph.unit_qk_norm and s.experts != s.graph.unit_qk_norm:
            x = engine.unit(x)
        return self._head_norm(role, x) if s.graph.late_qk_norm else x

    def _warmed(self, q: Floats, start: int) -> Floats:
        """Queries that do not rotate, growing with their position in families that have a temperature."""
        temperature = self.engine.settings.graph.temperature
        if temperature is None or self.engine.settings.rotates(self.index):
            return q
        span, scale = temperature
        growth = 1 + scale * numpy.log1p(numpy.arange(start, start + q.shape[1]) // span)
        result: Floats = q * growth.astype(numpy.float32)[:, None, None]
        return result

    def _gated(self, mixed: Floats, gate: Floats) -> Floats:
        """``mixed`` [tokens, h * d] times a function of ``gate``, [tokens, h * d] or one for each head."""
        weights = sigmoid(gate) if self.engine.settings.graph.attention_gate == "sigmoid" else softplus(gate)
        parts = mixed.reshape(len(mixed), weights.shape[1], -1)
        result: Floats = (parts * weights[:, :, None]).reshape(mixed.shape)
        return result

    def _heads(self, x: Floats) -> tuple[Floats, Floats | None, Floats | None, Floats | None]:
        """Queries [S, T, h, d], keys and values [S, T, kv heads, d], normed where the family norms them (None where
        they are another layer's); and what the output is gated with, [tokens, h * d], where the family does so."""
        s, shape = self.engine.settings, x.shape[:2]
        parts = self.engine.multiply(flat(x), *self.inputs)
        q, *others = split(parts[0], self.rows) if self.inputs[0].rows == sum(self.rows) else parts
        gate = None
        if s.graph.gated_attention:
            q, gate = self.engine.operations.host(self._queries_and_gate, q)
        if s.clamp:
            clamp = self.engine.operations.host
            q, *others = (clamp(lambda part: clamped(part, s.clamp), part) for part in (q, *others))
        if not s.graph.late_qk_norm:
            q = self._head_norm("attn_q_norm", q)
        q = q.reshape(*shape, self.heads.queries, self.heads.key)
        if not others:
            return q, None, None, gate
        k, v = others[0], others[-1]  # values may be keys before their norm
        if not s.graph.late_qk_norm:
            k = self._head_norm("attn_k_norm", k)
        k = k.reshape(*shape, self.heads.keys, self.heads.key)
        v = v.reshape(*shape, self.heads.keys, self.heads.value)
        return q, k, self.engine.unit(v) if s.graph.value_norm else v, gate

    def _queries_and_gate(self, both: Floats) -> tuple[Floats, ...]:
        """What lies side by side for every head: [tokens, h * d] each."""
        parts = both.reshape(len(both), self.heads.queries, 2, self.heads.key)
        return tuple(numpy.ascontiguousarray(parts[:, :, part]).reshape(len(both), -1) for part in (0, 1))

    def _head_norm(self, role: str, x: Floats) -> Floats:
        """Norm of queries or keys, [tokens, heads * d] or [S, T, heads, d]: per head, or over the whole projection."""
        kind, name = self.engine.settings.graph.qk_norm, self.prefix + role
        if kind is None or f"{name}.weight" not in self.engine.weights:
            return x
        if kind == "full" or x.ndim == 4:
            return self.engine.norm(name, x)
        return self.engine.norm(name, x.reshape(len(x), -1, self.heads.key)).reshape(x.shape)
