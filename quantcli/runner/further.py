"""Layers behind a model's own that predict further tokens: run beside it for those who observe its products.

Nobody here uses what they guess; the inputs of their matrices are what an importance matrix is made of. Shapes: S
sequences, T positions, H hidden.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy

from quantcli.runner.arrays import Floats, Tokens
from quantcli.runner.cache import Cache, LayerShape
from quantcli.runner.engine import Engine, flat
from quantcli.runner.layers import Layer
from quantcli.runner.settings import Heads, NetworkSettings


def extended(s: NetworkSettings) -> NetworkSettings:
    """The settings with the further layers among the model's own; all of them have attention as its layers have it."""
    more = s.blocks - s.layers
    return replace(
        s,
        layers=s.blocks,
        attention=s.attention + (Heads(s.heads, s.kv_heads, s.key, s.value),) * more,
        recurs=s.recurs + (False,) * more,
        window_layers=s.window_layers + (False,) * more,
        rotating=s.rotating + (True,) * more if s.rotating else (),
        sparsity=s.sparsity + (0.0,) * more if s.sparsity else (),
        sources=s.sources + tuple(range(s.layers, s.blocks)),
        activation_parameters=s.activation_parameters + s.activation_parameters[-1:] * more,
    )


class Further:
    """The layers of one model; none where the file has none, or has them in a form that is not computed here."""

    def __init__(self, engine: Engine, embed: Callable[[Tokens], Floats]) -> None:
        """``embed``: of the model's own tokens, [S, T] -> [S, T, H]."""
        s = engine.settings
        found = [block for block in range(s.layers, s.blocks) if f"blk.{block}.nextn.eh_proj.weight" in engine.weights]
        self.blocks = found if s.indexer is None and s.sides is None and not s.graph.streams else []
        self.engine, self.embed = engine, embed

    def show(self, tokens: Tokens, states: Floats) -> None:
        """Run them over ``tokens`` [S, T], of which the model has the normed ``states`` [S, T, H]: each layer reads the
        states before it and the token that follows."""
        parent, weights = self.engine, self.engine.weights
        engine = Engine(extended(parent.settings), weights, parent.operations, parent.angles, parent.observers)
        shapes = [LayerShape(heads.keys, (heads.key, heads.value)) for heads in engine.settings.attention]
        hidden = engine.settings.hidden
        for number, block in enumerate(self.blocks, start=1):
            if tokens.shape[1] <= number:
                return
            prefix = f"blk.{block}.nextn."
            embedded = engine.norm(f"{prefix}enorm", self.embed(tokens[:, number:]))
            states = engine.norm(f"{prefix}hnorm", numpy.ascontiguousarray(states[:, :-1]))
            both = flat(numpy.concatenate([embedded, states], axis=-1))
            x = engine.multiply(both, weights.matrix(f"{prefix}eh_proj", 2 * hidden, hidden))[0].reshape(states.shape)
            cache = Cache("F32", shapes, len(tokens), tokens.shape[1])
            x = Layer(engine, block).forward(x, cache)
            own = f"{prefix}shared_head_norm"
            name = own if f"{own}.weight" in weights else engine.settings.graph.final_norm
            states = engine.norm(name, x) if name else x
