"""Gemma 3n: four streams side by side, of which one is active (AltUp, Baykal et al. 2023, arXiv 2301.13310), a low-rank
shortcut beside attention (LAuReL, arXiv 2411.07501), MLPs of which few channels are active.

Shapes: S sequences, T positions, H hidden, n streams, W = n * H and every layer's input behind them; tokens = S * T.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite, sqrt

import numpy

from quantcli.runner.arrays import Floats
from quantcli.runner.attention import Attention
from quantcli.runner.cache import Cache
from quantcli.runner.engine import Engine, flat
from quantcli.runner.feed_forward import Mlp
from quantcli.runner.layer_inputs import LayerInput

STREAMS = 4
LEAST = 1e-5  # length that a stream is divided by, at least


class Streams:
    """From the embeddings to several streams, and back to one."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        hidden, matrix = engine.settings.hidden, engine.weights.matrix
        self.spread = matrix("altup_proj", hidden, hidden, STREAMS - 1)
        self.gather = matrix("altup_unembd_proj", hidden, hidden, STREAMS - 1)

    def start(self, x: Floats) -> Floats:
        """The embeddings, and three projections as long as they are: [S, T, H] -> [S, T, n * H]."""
        tokens = flat(x)
        others = self._others(numpy.broadcast_to(tokens[:, None], (len(tokens), STREAMS - 1, tokens.shape[1])), True)
        streams = numpy.concatenate([tokens[:, None], _as_long_as(others, tokens)], axis=1)
        return streams.reshape(*x.shape[:2], -1)

    def end(self, x: Floats) -> Floats:
        """The mean of the streams, projected back: [S, T, W] -> [S, T, H]."""
        hidden = self.engine.settings.hidden
        streams = flat(x[..., : STREAMS * hidden]).reshape(-1, STREAMS, hidden)
        others = _as_long_as(self._others(streams[:, 1:], False), streams[:, self.engine.settings.active])
        mean: Floats = (streams[:, 0] + others.sum(axis=1)) * numpy.float32(1 / STREAMS)
        return mean.reshape(*x.shape[:2], hidden)

    def _others(self, x: Floats, spread: bool) -> Floats:
        """Each of the other streams through its own matrix: [tokens, n - 1, H]."""
        places = numpy.broadcast_to(numpy.arange(STREAMS - 1), x.shape[:2])
        weight = self.spread if spread else self.gather
        return self.engine.multiply_experts(numpy.ascontiguousarray(x), places, weight)[0]


def _as_long_as(others: Floats, target: Floats) -> Floats:
    """``others`` [tokens, n - 1, H] scaled to the root mean square of ``target`` [tokens, H]."""
    wanted = numpy.sqrt(numpy.square(target).mean(axis=-1, dtype=numpy.float64))[:, None, None]
    own = numpy.sqrt(numpy.square(others).mean(axis=-1, keepdims=True, dtype=numpy.float64))
    result: Floats = (others * (wanted / numpy.maximum(own, LEAST))).astype(numpy.float32)
    return result


class Gemma3nLayer:
    """All streams in, all streams out."""

    def __init__(self, engine: Engine, index: int) -> None:
        self.engine, self.prefix, s = engine, f"blk.{index}.", engine.settings
        self.attention, self.input = Attention(engine, index), LayerInput(engine, index)
        self.mlp, self.sparsity = Mlp(engine, self.prefix), s.sparsity[index]
        matrix, rank = engine.weights.matrix, engine.weights.rows(f"{self.prefix}laurel_l")
        self.left = matrix(f"{self.prefix}laurel_l", s.hidden, rank)
        self.right = matrix(f"{self.prefix}laurel_r", rank, s.hidden)
        self.router = matrix(f"{self.prefix}altup_router", s.hidden, STREAMS)
        self.predicting = matrix(f"{self.prefix}altup_predict_coef", STREAMS, STREAMS * STREAMS)
        self.correcting = matrix(f"{self.prefix}altup_correct_coef", STREAMS, STREAMS)

    def forward(self, x: Floats, cache: Cache) -> Floats:
        """[S, T, W] -> [S, T, W]; the positions' keys and values go into ``cache``."""
        hidden, active = self.engine.settings.hidden, self.engine.settings.active
        streams = flat(x[..., : STREAMS * hidden]).reshape(-1, STREAMS, hidden)
        predicted = self._predicted(streams, active)  # [tokens, n, H]
        now = numpy.ascontiguousarray(predicted[:, active])
        result = self._corrected(predicted, self._active(now, x.shape[:2], cache), active)
        scale = self.engine.weights.vector(f"{self.prefix}altup_correct_scale.weight", (hidden,))
        result[:, 1:] += self.input.added(result[:, active] * scale, x)[:, None]
        return numpy.concatenate([result.reshape(*x.shape[:2], -1), x[..., STREAMS * hidden :]], axis=-1)

    @property
    def parts(self) -> tuple[Callable[[Floats, Cache], Floats], ...]:
        """What the streams go through: everything at once."""
        return (self.forward,)

    # ---- the active stream

    def _active(self, x: Floats, shape: tuple[int, ...], cache: Cache) -> Floats:
        """Attention and its shortcut, then the MLP: [tokens, H] -> [tokens, H]."""
        normed = self._norm("attn_norm", x)
        attended = self.attention.forward(normed.reshape(*shape, -1), cache).reshape(x.shape)
        x = self._norm("post_attention_norm", attended) + x
        x = (x + self._shortcut(normed)) * numpy.float32(sqrt(0.5))
        inner = self.mlp.inner(self._norm("ffn_norm", x), self._sparse)
        return self._norm("post_ffw_norm", self.mlp.back(inner)) + x

    def _shortcut(self, x: Floats) -> Floats:
        """A matrix of low rank beside attention, and its input: [tokens, H] -> [tokens, H]."""
        low = self.engine.multiply(x, self.left)[0]
        return self._norm("laurel_post_norm", self.engine.multiply(low, self.right)[0]) + x

    def _sparse(self, gate: Floats) -> Floats:
        """What exceeds the mean by so many standard deviations, the rest zero: [tokens, width]."""
        if not isfinite(self.sparsity):
            return gate
        cut = gate.mean(axis=-1, keepdims=True) + gate.std(axis=-1, keepdims=True) * numpy.float32(self.sparsity)
        result: Floats = numpy.maximum(gate - cut, 0)
        return result

    # ---- the streams

    def _modes(self, x: Floats) -> Floats:
        """How much of each mode a token is: [tokens, H] -> [tokens, n]."""
        hidden = numpy.float32(self.engine.settings.hidden)
        modes: Floats = numpy.tanh(self.engine.multiply(self._norm("altup_router_norm", x) / hidden, self.router)[0])
        return modes

    def _predicted(self, streams: Floats, active: int) -> Floats:
        """What each stream will be, as a mixture of all: [tokens, n, H]."""
        modes = self._modes(numpy.ascontiguousarray(streams[:, active]))
        mixture = self.engine.multiply(modes, self.predicting)[0].reshape(-1, STREAMS, STREAMS)
        result: Floats = numpy.matmul(mixture, streams) + streams
        return result

    def _corrected(self, predicted: Floats, computed: Floats, active: int) -> Floats:
        """All streams corrected by what the active one became, [tokens, H]: [tokens, n, H]."""
        shares = self.engine.multiply(self._modes(computed), self.correcting)[0] + 1
        result: Floats = shares[..., None] * (computed - predicted[:, active])[:, None] + predicted
        return result

    def _norm(self, role: str, x: Floats) -> Floats:
        return self.engine.norm(self.prefix + role, x)
