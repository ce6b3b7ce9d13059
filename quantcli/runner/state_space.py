"""State space layers: Mamba (Gu and Dao 2023, arXiv 2312.00752), Mamba 2 (Dao and Gu 2024, arXiv 2405.21060), Plamo 2.

Shapes: S sequences, T positions, H hidden; C channels = h heads of P values; N numbers of state per channel, G groups
of heads that share keys and queries; tokens = S * T.
"""

from __future__ import annotations

import numpy

from quantcli.architectures.topology import norm_tensor
from quantcli.runner.arrays import Floats
from quantcli.runner.cache import Cache
from quantcli.runner.engine import Engine, flat
from quantcli.runner.operations import split
from quantcli.runner.recurrence import Recurrence, softplus
from quantcli.runner.state_part import StatePart


class Mamba(StatePart):
    """Every channel has a step and decays of its own."""

    def __init__(self, engine: Engine, index: int) -> None:
        super().__init__(engine, index)
        t, hidden = self.sizes, engine.settings.hidden
        self.input = self.matrix("ssm_in", hidden, 2 * t.inner)
        self.parts = self.matrix("ssm_x", t.inner, t.rank + 2 * t.size)
        self.step = self.matrix("ssm_dt", t.rank, t.inner)
        self.output = self.matrix("ssm_out", t.inner, hidden)
        self.rate = numpy.ascontiguousarray(self.vector("ssm_a", t.inner, t.size).T)  # [N, C]

    def forward(self, x: Floats, cache: Cache) -> Floats:
        """[S, T, H] -> [S, T, H]."""
        engine, t, operations = self.engine, self.sizes, self.engine.operations
        value, gate = split(engine.multiply(flat(x), self.input)[0], [t.inner, t.inner])
        value = self.convolved(value.reshape(*x.shape[:2], -1), cache)  # [S, T, C]
        step, key, query = split(engine.multiply(flat(value), self.parts)[0], [t.rank, t.size, t.size])
        step, key, query = (
            self._normed(f"ssm_{name}_norm", part) for name, part in (("dt", step), ("b", key), ("c", query))
        )
        step = softplus(engine.multiply(step, self.step)[0])
        state = cache.state(self.index, "state", t.size, t.inner)
        shape = (*x.shape[:2], -1)
        skip = self.vector("ssm_d", t.inner)
        mixed = operations.scan(
            value, step.reshape(shape), self.rate, key.reshape(shape), query.reshape(shape), skip, state
        )  # [S, T, C]
        mixed = operations.activate("silu", gate, flat(mixed))
        return engine.multiply(mixed, self.output)[0].reshape(x.shape)

    def _normed(self, name: str, x: Floats) -> Floats:
        """RMS norm with the weights of that name, in families that have them, or with none."""
        x = numpy.ascontiguousarray(x)
        weight = self.optional(norm_tensor(self.engine.settings.graph, name), x.shape[1])
        if weight is None and not self.sizes.normed:
            return x
        ones = numpy.ones(x.shape[1], numpy.float32)
        return self.engine.operations.rms_norm(x, ones if weight is None else weight, self.engine.settings.eps)


class Mamba2(StatePart):
    """Every head has one step and one decay."""

    def __init__(self, engine: Engine, index: int) -> None:
        super().__init__(engine, index)
        t, hidden = self.sizes, engine.settings.hidden
        self.widths = (t.inner, t.inner + 2 * t.shared, t.heads)
        self.input = self.matrix("ssm_in", hidden, sum(self.widths))
        self.output = self.matrix("ssm_out", t.inner, hidden)

    def forward(self, x: Floats, cache: Cache) -> Floats:
        """[S, T, H] -> [S, T, H]."""
        engine, t = self.engine, self.sizes
        gate, mixed, step = split(engine.multiply(flat(x), self.input)[0], self.widths)
        mixed = self.convolved(mixed.reshape(*x.shape[:2], -1), cache)  # [S, T, C + 2 G N]
        value, key, query = split(mixed, (t.inner, t.shared, t.shared))
        result = self.scanned(value, key, query, step, cache)  # [tokens, C]
        result = self._normed(engine.operations.activate("silu", gate, result))
        return engine.multiply(result, self.output)[0].reshape(x.shape)

    def scanned(self, value: Floats, key: Floats, query: Floats, step: Floats, cache: Cache) -> Floats:
        """What the state gives for values [S, T, C], keys and queries [S, T, G N], steps [tokens, h]: [tokens, C]."""
        t, lead = self.sizes, value.shape[:2]
        bias, rate = self.vector("ssm_dt.bias", t.heads), self.vector("ssm_a", t.heads)
        decay, step = self.engine.operations.gates(step[:, None], None, bias, rate)
        return flat(
            self.engine.operations.recur(
                Recurrence(
                    key=key.reshape(*lead, t.groups, t.size),
                    query=query.reshape(*lead, t.groups, t.size),
                    value=value.reshape(*lead, t.heads, t.width),
                    decay=decay.reshape(*lead, t.heads, 1),
                    state=cache.state(self.index, "state", t.heads, t.size, t.width),
                    scale=step.reshape(*lead, t.heads),
                    skip=self.vector("ssm_d", t.heads),
                )
            ).reshape(*lead, t.inner)
        )

    def _normed(self, x: Floats) -> Floats:
        """Each group of heads normed by itself: [tokens, C]."""
        t = self.sizes
        width = t.inner // t.groups
        shape = (t.groups, width) if t.groups > 1 else (width,)
        weight = self.optional("ssm_norm.weight", *shape)
        if weight is None:
            return x
        normed = self.engine.operations.rms_norm(x.reshape(-1, *shape), weight, self.engine.settings.eps)
        return normed.reshape(x.shape)


class Plamo2(Mamba2):
    """Mamba 2's state, with projections and norms of keys, queries and steps as Mamba has them."""

    def __init__(self, engine: Engine, index: int) -> None:
        StatePart.__init__(self, engine, index)
        t, hidden = self.sizes, engine.settings.hidden
        self.input = self.matrix("ssm_in", hidden, 2 * t.inner)
        self.parts = self.matrix("ssm_x", t.inner, t.rank + 2 * t.size)
        self.step = engine.weights.matrix(f"{self.prefix}ssm_dt", t.rank, t.heads, with_bias=False)
        self.output = self.matrix("ssm_out", t.inner, hidden)

    def forward(self, x: Floats, cache: Cache) -> Floats:
        """[S, T, H] -> [S, T, H]; every head's part of the input is its gate, then its values."""
        engine, t = self.engine, self.sizes
        both = engine.multiply(flat(x), self.input)[0].reshape(-1, t.heads, 2, t.width)
        gate, value = (numpy.ascontiguousarray(both[:, :, part]).reshape(-1, t.inner) for part in (0, 1))
        value = self.convolved(value.reshape(*x.shape[:2], -1), cache)
        key, query, step = split(engine.multiply(flat(value), self.parts)[0], [t.size, t.size, t.rank])
        key, query, step = (
            engine.norm(f"{self.prefix}ssm_{name}_norm", numpy.ascontiguousarray(part))
            for name, part in (("b", key), ("c", query), ("dt", step))
        )
        step = engine.multiply(step, self.step)[0]
        shape = (*x.shape[:2], t.size)
        result = self.scanned(value, key.reshape(shape), query.reshape(shape), step, cache)
        return engine.multiply(engine.operations.activate("silu", gate, result), self.output)[0].reshape(x.shape)
