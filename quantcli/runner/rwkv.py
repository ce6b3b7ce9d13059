"""RWKV 6 (Peng et al. 2024, arXiv 2404.05892) and 7 (arXiv 2503.14456): time mix, channel mix.

Both read every position mixed with the one before. Shapes: S sequences, T positions, H hidden = h heads of N.
"""

from __future__ import annotations

from math import exp

import numpy

from quantcli.errors import UnsupportedGraph
from quantcli.runner.arrays import Floats
from quantcli.runner.cache import Cache
from quantcli.runner.engine import Engine, flat
from quantcli.runner.operations import sigmoid
from quantcli.runner.recurrence import Recurrence
from quantcli.runner.schema import MISSING_KIND
from quantcli.runner.state_part import StatePart

HEAD_EPS = 64e-5  # of the norm of each head's output
LENGTH_EPS = 1e-12


class _Shifted(StatePart):
    """A part that reads the position before, which the cache keeps."""

    def difference(self, x: Floats, cache: Cache, name: str) -> Floats:
        """The stream a position earlier minus the stream: [S, T, H]."""
        last = cache.state(self.index, name, 1, x.shape[2])
        before = numpy.concatenate([last, x[:, :-1]], axis=1)
        last[...] = x[:, -1:]
        return before - x

    def normed_heads(self, x: Floats) -> Floats:
        """Layer norm of each head with weights and bias of all: [tokens, H]."""
        hidden = x.shape[1]
        heads = x.reshape(len(x), self.sizes.heads, -1)
        ones = numpy.ones(heads.shape[2], numpy.float32)
        result = self.engine.operations.layer_norm(heads, ones, None, HEAD_EPS).reshape(x.shape)
        return result * self.vector("time_mix_ln.weight", hidden) + self.vector("time_mix_ln.bias", hidden)


class TimeMix6(_Shifted):
    """RWKV 6: how much of the position before is mixed in depends on the data."""

    def __init__(self, engine: Engine, index: int) -> None:
        super().__init__(engine, index)
        hidden, (extra, decay) = engine.settings.hidden, self.sizes.ranks
        self.mixes = [
            self.matrix(f"time_mix_{name}", hidden, hidden) for name in ("key", "value", "receptance", "gate")
        ]
        self.output = self.matrix("time_mix_output", hidden, hidden)
        self.extra = self.matrix("time_mix_w1", hidden, 5 * extra)
        self.decays = (self.matrix("time_mix_decay_w1", hidden, decay), self.matrix("time_mix_decay_w2", decay, hidden))

    def forward(self, x: Floats, cache: Cache) -> Floats:
        """[S, T, H] -> [S, T, H]."""
        engine, t, hidden = self.engine, self.sizes, x.shape[2]
        difference = flat(self.difference(x, cache, "time"))
        parts = self._mixed(flat(x), difference)  # for decay, key, value, receptance, gate: [tokens, H] each
        key, value, query, gate = (
            engine.multiply(part, mix)[0] for part, mix in zip(parts[1:], self.mixes, strict=True)
        )
        low = numpy.tanh(engine.multiply(parts[0], self.decays[0])[0])
        decay = engine.multiply(low, self.decays[1])[0] + self.vector("time_mix_decay.weight", hidden)
        heads = (*x.shape[:2], t.heads, t.size)
        result = engine.operations.recur(
            Recurrence(
                key=key.reshape(heads),
                query=query.reshape(heads),
                value=value.reshape(heads),
                decay=numpy.exp(-numpy.exp(decay)).reshape(heads),
                state=cache.state(self.index, "state", t.heads, t.size, t.size),
                bonus=self.vector("time_mix_first.weight", t.heads, t.size),
            )
        )
        gated = engine.operations.activate("silu", gate, self.normed_heads(result.reshape(-1, hidden)))
        return engine.multiply(gated, self.output)[0].reshape(x.shape)

    def _mixed(self, x: Floats, difference: Floats) -> Floats:
        """The position and the one before in five mixtures: [5, tokens, H]."""
        tokens, hidden = x.shape
        first = x + difference * self.vector("time_mix_lerp_x.weight", hidden)
        low = numpy.tanh(self.engine.multiply(first, self.extra)[0]).reshape(tokens, 5, -1)
        ups = self.vector("time_mix_w2.weight", 5, hidden, low.shape[2])
        share = numpy.matmul(low.transpose(1, 0, 2), ups.transpose(0, 2, 1))  # [5, tokens, H]
        result: Floats = x + difference * (share + self.vector("time_mix_lerp_fused.weight", 5, 1, hidden))
        return result


class TimeMix7(_Shifted):
    """RWKV 7: a generalized delta rule; values are mixed with those of the first layer."""

    def __init__(self, engine: Engine, index: int) -> None:
        super().__init__(engine, index)
        hidden, (decay, rate, values, gate) = engine.settings.hidden, self.sizes.ranks
        self.mixes = [self.matrix(f"time_mix_{name}", hidden, hidden) for name in ("receptance", "key", "value")]
        self.output = self.matrix("time_mix_output", hidden, hidden)
        ranks = {"w": decay, "a": rate, "g": gate} | ({"v": values} if index else {})
        self.low = {
            letter: (self.matrix(f"time_mix_{letter}1", hidden, rank), self.matrix(f"time_mix_{letter}2", rank, hidden))
            for letter, rank in ranks.items()
        }

    def forward(self, x: Floats, cache: Cache) -> Floats:
        """[S, T, H] -> [S, T, H]."""
        engine, t, hidden = self.engine, self.sizes, x.shape[2]
        difference = flat(self.difference(x, cache, "time"))
        mixed = flat(x) + difference * self.vector("time_mix_lerp_fused.weight", 6, 1, hidden)
        for_query, for_decay, for_key, for_value, for_rate, for_gate = mixed
        query, key, value = (
            engine.multiply(part, mix)[0] for part, mix in zip((for_query, for_key, for_value), self.mixes, strict=True)
        )
        value = self._with_first(value, for_value, cache)
        decay = numpy.exp(numpy.float32(-exp(-0.5)) * sigmoid(self._low_rank("w", for_decay, tanh=True)))
        rate = sigmoid(self._low_rank("a", for_rate))
        unit = self._unit(key * self.vector("time_mix_k_k.weight", hidden))
        key = key * (1 + (rate - 1) * self.vector("time_mix_k_a.weight", hidden))
        heads = (*x.shape[:2], t.heads, t.size)
        result = engine.operations.recur(
            Recurrence(
                key=key.reshape(heads),
                query=query.reshape(heads),
                value=value.reshape(heads),
                decay=decay.reshape(heads),
                state=cache.state(self.index, "state", t.heads, t.size, t.size),
                read=-unit.reshape(heads),
                write=(unit * rate).reshape(heads),
            )
        )
        result = self.normed_heads(result.reshape(-1, hidden)) + self._bonus(query, key, value)
        result *= engine.multiply(sigmoid(engine.multiply(for_gate, self.low["g"][0])[0]), self.low["g"][1])[0]
        return engine.multiply(result, self.output)[0].reshape(x.shape)

    def _low_rank(self, letter: str, x: Floats, *, tanh: bool = False) -> Floats:
        """The projection of low rank by that letter, with its offset: [tokens, H]."""
        down, up = self.low[letter]
        inner = self.engine.multiply(x, down)[0]
        found = self.engine.multiply(numpy.tanh(inner) if tanh else inner, up)[0]
        return found + self.vector(f"time_mix_{letter}0.weight", x.shape[1])

    def _with_first(self, value: Floats, x: Floats, cache: Cache) -> Floats:
        """Values mixed with those of layer 0 at the same positions."""
        if self.index == 0:
            cache.passed["first values"] = value
            return value
        first = cache.passed.get("first values")
        if first is None or first.shape != value.shape:
            where = f"{self.engine.settings.architecture}: layer {self.index}"
            hint = MISSING_KIND.format(what="single layers of RWKV 7")
            raise UnsupportedGraph("needs the values of layer 0", where=where, hint=hint)
        return value + (first - value) * sigmoid(self._low_rank("v", x))

    def _unit(self, key: Floats) -> Floats:
        """Each head's part of length 1."""
        heads = key.reshape(len(key), self.sizes.heads, -1)
        length = numpy.sqrt(numpy.einsum("thn,thn->th", heads, heads))[..., None]
        result: Floats = heads / numpy.maximum(length, numpy.float32(LENGTH_EPS))
        return result.reshape(key.shape)

    def _bonus(self, query: Floats, key: Floats, value: Floats) -> Floats:
        """What a position gives to itself."""
        heads = (len(query), self.sizes.heads, self.sizes.size)
        weighted = (query * key * self.vector("time_mix_r_k.weight", query.shape[1])).reshape(heads)
        result: Floats = weighted.sum(axis=2, keepdims=True) * value.reshape(heads)
        return result.reshape(value.shape)


class ChannelMix(_Shifted):
    """Instead of an MLP: squared ReLU, in RWKV 6 gated."""

    def __init__(self, engine: Engine, index: int) -> None:
        super().__init__(engine, index)
        hidden, width = engine.settings.hidden, engine.weights.columns(f"{self.prefix}channel_mix_value")
        self.key = self.matrix("channel_mix_key", hidden, width)
        self.value = self.matrix("channel_mix_value", width, hidden)
        gated = f"{self.prefix}channel_mix_receptance.weight" in engine.weights
        self.gate = self.matrix("channel_mix_receptance", hidden, hidden) if gated else None

    def forward(self, x: Floats, cache: Cache) -> Floats:
        """[S, T, H] -> [S, T, H]."""
        engine, hidden, inputs = self.engine, x.shape[2], flat(x)
        difference = flat(self.difference(x, cache, "channels"))
        for_key = inputs + difference * self.vector("channel_mix_lerp_k.weight", hidden)
        inner = engine.operations.activate("relu2", engine.multiply(for_key, self.key)[0], None)
        result = engine.multiply(inner, self.value)[0]
        if self.gate is not None:
            for_gate = inputs + difference * self.vector("channel_mix_lerp_r.weight", hidden)
            result = result * sigmoid(engine.multiply(for_gate, self.gate)[0])
        return result.reshape(x.shape)
