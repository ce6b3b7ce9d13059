"""A layer of Gemma 4: four norms, perhaps experts beside the MLP, perhaps an input of its own, one factor at the end.

Shapes: S sequences, T positions, H hidden, W the stream with every layer's input behind it; tokens = S * T.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt

import numpy

from quantcli.runner.arrays import Floats
from quantcli.runner.attention import Attention
from quantcli.runner.cache import Cache
from quantcli.runner.engine import Engine, flat
from quantcli.runner.feed_forward import Experts, Mlp
from quantcli.runner.layer_inputs import LayerInput


class Gemma4Layer:
    """Residual stream in, residual stream out."""

    def __init__(self, engine: Engine, index: int) -> None:
        self.engine, self.prefix, s = engine, f"blk.{index}.", engine.settings
        self.attention, self.mlp = Attention(engine, index), Mlp(engine, self.prefix)
        self.experts = Experts(engine, self.prefix) if f"{self.prefix}ffn_gate_inp.weight" in engine.weights else None
        self.input = LayerInput(engine, index) if s.layer_width else None

    def forward(self, x: Floats, cache: Cache) -> Floats:
        """[S, T, W] -> [S, T, W]; the positions' keys and values go into ``cache``."""
        for part in self.parts:
            x = part(x, cache)
        return x

    @property
    def parts(self) -> tuple[Callable[[Floats, Cache], Floats], ...]:
        """What the stream goes through one after the other."""
        return (self._attend, self._feed, self._close)

    def _attend(self, x: Floats, cache: Cache) -> Floats:
        stream = self._stream(x)
        attended = self.attention.forward(self._norm("attn_norm", stream), cache)
        return self._with(x, stream + self._norm("post_attention_norm", attended))

    def _feed(self, x: Floats, cache: Cache) -> Floats:
        stream = self._stream(x)
        fed = self.mlp.forward(self._norm("ffn_norm", stream))
        if self.experts is not None:
            fed = self._norm("post_ffw_norm_1", fed) + self._norm("post_ffw_norm_2", self._mixed(stream, self.experts))
        return self._with(x, stream + self._norm("post_ffw_norm", fed))

    def _mixed(self, stream: Floats, experts: Experts) -> Floats:
        """What the experts make of the stream, whose plain norm the router reads: [S, T, H] -> [S, T, H]."""
        hidden = stream.shape[-1]
        weights = self.engine.weights.vector(f"{self.prefix}ffn_gate_inp.scale", (hidden,))
        scored = self.engine.unit(stream) * (weights * numpy.float32(1 / sqrt(hidden)))
        return experts.forward(self._norm("pre_ffw_norm_2", stream), scored=scored)

    def _close(self, x: Floats, cache: Cache) -> Floats:
        """The layer's own input, and the factor of its output."""
        stream = self._stream(x)
        if self.input is not None:
            stream = stream + self.input.added(flat(stream), x).reshape(stream.shape)
        name = f"{self.prefix}layer_output_scale.weight"
        if name in self.engine.weights:
            stream = stream * self.engine.weights.vector(name, (1,))
        return self._with(x, stream)

    # ---- the stream, and what travels behind it

    def _stream(self, x: Floats) -> Floats:
        return numpy.ascontiguousarray(x[..., : self.engine.settings.hidden])

    def _with(self, x: Floats, stream: Floats) -> Floats:
        if x.shape == stream.shape:
            return stream
        return numpy.concatenate([stream, x[..., stream.shape[-1] :]], axis=-1)

    def _norm(self, role: str, x: Floats) -> Floats:
        return self.engine.norm(self.prefix + role, x)
