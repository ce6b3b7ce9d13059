"""Gemma 3n's and Gemma 4's embeddings for every layer, which travel beside the residual stream to the end.

Shapes: S sequences, T positions, H hidden, L layers, P width of a layer's own input. The stream of these families is
[S, T, W]: first what layers change (H, or several streams of H), then L times P that they only read.
"""

from __future__ import annotations

from math import sqrt

import numpy

from quantcli.runner.arrays import Floats, Tokens
from quantcli.runner.engine import Engine, flat


class LayerInputs:
    """Makes every layer's own input of the tokens and their embeddings, and gives it to the layer."""

    def __init__(self, engine: Engine, vocabulary: int) -> None:
        self.engine = engine
        s = engine.settings
        self.layers, self.width = s.layers, s.layer_width
        matrix, total = engine.weights.matrix, s.layers * s.layer_width
        self.table = matrix("per_layer_token_embd", total, vocabulary)
        self.projection = matrix("per_layer_model_proj", s.hidden, total)

    def of(self, tokens: Tokens, x: Floats) -> Floats:
        """Of ``tokens`` [S, T] and their scaled embeddings [S, T, H]: [S, T, L * P]."""
        engine, hidden = self.engine, x.shape[-1]
        known, places = numpy.unique(tokens, return_inverse=True)
        own = self.table.take(known)[places.reshape(tokens.shape)] * numpy.float32(sqrt(self.width))
        (projected,) = engine.multiply(flat(x), self.projection)
        projected = (projected * numpy.float32(1 / sqrt(hidden))).reshape(-1, self.width)
        projected = engine.norm("per_layer_proj_norm", projected).reshape(own.shape)
        result: Floats = (projected + own) * numpy.float32(sqrt(0.5))
        return result


class LayerInput:
    """What one layer does with its own input."""

    def __init__(self, engine: Engine, index: int) -> None:
        self.engine, self.prefix, s = engine, f"blk.{index}.", engine.settings
        self.slice = slice(s.stream_width + index * s.layer_width, s.stream_width + (index + 1) * s.layer_width)
        self.gate = engine.weights.matrix(f"{self.prefix}inp_gate", s.hidden, s.layer_width)
        self.back = engine.weights.matrix(f"{self.prefix}proj", s.layer_width, s.hidden)

    def added(self, x: Floats, stream: Floats) -> Floats:
        """What is added to the stream: of ``x`` [tokens, H] and the whole ``stream`` [S, T, W], [tokens, H]."""
        engine = self.engine
        own = flat(stream[..., self.slice])
        (gate,) = engine.multiply(x, self.gate)
        (result,) = engine.multiply(engine.operations.activate("gelu_tanh", gate, own), self.back)
        return engine.norm(f"{self.prefix}post_norm", result)
