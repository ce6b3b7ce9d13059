"""The gated delta rule (Yang et al. 2024, arXiv 2412.06464) of Qwen3-Next and Qwen3.5, and Kimi's with a decay for
every channel of the keys.

Shapes: S sequences, T positions, H hidden; h heads of P values, G groups of N keys; tokens = S * T.
"""

from __future__ import annotations

from math import sqrt

import numpy

from quantcli.runner.arrays import Floats
from quantcli.runner.cache import Cache
from quantcli.runner.engine import Engine, flat
from quantcli.runner.operations import Operations, sigmoid, split
from quantcli.runner.recurrence import Recurrence, softplus
from quantcli.runner.state_part import StatePart

NORM_EPS = 1e-6  # of the keys' and queries' length


def unit(operations: Operations, x: Floats, factor: float = 1.0) -> Floats:
    """x / sqrt(sum(x^2) + eps) over the last dimension, times ``factor``."""
    width = x.shape[-1]
    weight = numpy.full(width, factor / sqrt(width), numpy.float32)
    return operations.rms_norm(x, weight, NORM_EPS / width)


class GatedDelta(StatePart):
    """Qwen3-Next: one decay per head."""

    def __init__(self, engine: Engine, index: int) -> None:
        super().__init__(engine, index)
        t, hidden, tiled = self.sizes, engine.settings.hidden, engine.settings.graph.tiled_heads
        self.mixed = self.matrix("attn_qkv", hidden, 2 * t.shared + t.inner)
        self.gate = self.matrix("attn_gate", hidden, t.inner)
        rates = (("ssm_beta", t.heads), ("ssm_alpha", t.heads)) if tiled else (("ssm_ba", 2 * t.heads),)
        self.rates = [self.matrix(name, hidden, rows) for name, rows in rates]
        self.output = self.matrix("ssm_out", t.inner, hidden)

    def forward(self, x: Floats, cache: Cache) -> Floats:
        """[S, T, H] -> [S, T, H]."""
        engine, t, lead, operations = self.engine, self.sizes, x.shape[:2], self.engine.operations
        mixed, gate, *rates = engine.multiply(flat(x), self.mixed, self.gate, *self.rates)
        mixed = self.convolved(mixed.reshape(*lead, -1), cache)
        query, key, value = split(mixed, (t.shared, t.shared, t.inner))
        write, forget = [one[:, None] for one in rates] if len(rates) == 2 else self._rates(rates[0])
        bias, rate = self.vector("ssm_dt.bias", t.heads), self.vector("ssm_a", t.heads)
        decay, scale = operations.gates(forget, write, bias, rate)
        groups = (*lead, t.groups, t.size)
        result = operations.recur(
            Recurrence(
                key=unit(operations, key.reshape(groups)),
                query=unit(operations, query.reshape(groups), 1 / sqrt(t.size)),
                value=value.reshape(*lead, t.heads, t.width),
                decay=decay.reshape(*lead, t.heads, 1),
                state=cache.state(self.index, "state", t.heads, t.size, t.width),
                scale=scale.reshape(*lead, t.heads),
                delta=True,
                tiled=engine.settings.graph.tiled_heads,
            )
        )  # [S, T, h, P]
        normed = operations.rms_norm(flat(result), self.vector("ssm_norm.weight", t.width), engine.settings.eps)
        gated = operations.activate("silu", gate.reshape(-1, t.width), normed)
        return engine.multiply(gated.reshape(-1, t.inner), self.output)[0].reshape(x.shape)

    def _rates(self, both: Floats) -> tuple[Floats, Floats]:
        """How much every head writes and forgets, [tokens, G, h / G] each; group by group in ``both``."""
        t = self.sizes
        parts = both.reshape(-1, t.groups, 2, t.heads // t.groups)
        return parts[:, :, 0], parts[:, :, 1]


class KimiDelta(StatePart):
    """Kimi Linear: every channel of a key decays by itself."""

    def __init__(self, engine: Engine, index: int) -> None:
        super().__init__(engine, index)
        t, hidden = self.sizes, engine.settings.hidden
        self.inputs = [self.matrix(f"attn_{part}", hidden, t.inner) for part in "qkv"]
        self.downs = [self.matrix(f"ssm_{part}_a", hidden, t.width) for part in "fg"]
        self.ups = [self.matrix(f"ssm_{part}_b", t.width, t.inner) for part in "fg"]
        self.write = self.matrix("ssm_beta", hidden, t.heads)
        self.output = self.matrix("attn_output", t.inner, hidden)

    def forward(self, x: Floats, cache: Cache) -> Floats:
        """[S, T, H] -> [S, T, H]."""
        engine, t, lead, operations = self.engine, self.sizes, x.shape[:2], self.engine.operations
        *mixed, forget, gate, write = engine.multiply(flat(x), *self.inputs, *self.downs, self.write)
        heads = (*lead, t.heads, t.width)
        query, key, value = (
            self.convolved(part.reshape(*lead, -1), cache, f"ssm_conv1d_{name}").reshape(heads)
            for name, part in zip("qkv", mixed, strict=True)
        )
        forget, gate = (engine.multiply(part, up)[0] for part, up in zip((forget, gate), self.ups, strict=True))
        forget = softplus(forget + self.vector("ssm_dt.bias", t.inner)).reshape(heads)
        result = operations.recur(
            Recurrence(
                key=unit(operations, key),
                query=unit(operations, query, 1 / sqrt(t.size)),
                value=value,
                decay=numpy.exp(forget * self.vector("ssm_a", t.heads, 1)),
                state=cache.state(self.index, "state", t.heads, t.size, t.width),
                scale=sigmoid(write).reshape(*lead, t.heads),
                delta=True,
            )
        )
        normed = operations.rms_norm(flat(result), self.vector("ssm_norm.weight", t.width), engine.settings.eps)
        gated = normed.reshape(-1, t.inner) * sigmoid(gate)
        return engine.multiply(gated, self.output)[0].reshape(x.shape)
