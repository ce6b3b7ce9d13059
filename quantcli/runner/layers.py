"""One layer of a network: attention and feed-forward around the residual stream, steered by the graph flags.

Shapes: S sequences of equal length, T new positions each, H hidden. A part's tensors are found when it is made; their
shapes follow from the settings.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy

from quantcli.runner import mixers
from quantcli.runner.arrays import Floats
from quantcli.runner.attention import Attention, Linear
from quantcli.runner.cache import Cache
from quantcli.runner.engine import Engine
from quantcli.runner.feed_forward import Experts, Mlp
from quantcli.runner.gemma3n import Gemma3nLayer
from quantcli.runner.gemma4 import Gemma4Layer
from quantcli.runner.latent import LatentAttention


def make(engine: Engine, index: int) -> Layer | Gemma4Layer | Gemma3nLayer:
    """The layer of the model's kind. Raises MissingTensors, ShapeMismatch, NoKernel."""
    graph = engine.settings.graph
    kind = Gemma3nLayer if graph.streams else Gemma4Layer if graph.layer_inputs else Layer
    return kind(engine, index)


class Layer:
    """Residual stream in, residual stream out."""

    def __init__(self, engine: Engine, index: int) -> None:
        """Raises MissingTensors, ShapeMismatch, NoKernel."""
        self.engine, self.prefix = engine, f"blk.{index}."
        self.index, heads = index, engine.settings.attention[index]
        self.attention: Attention | LatentAttention | Linear | None = None
        if heads.queries and engine.settings.latent is not None:
            self.attention = LatentAttention(engine, index)
        elif heads.queries:
            self.attention = Attention(engine, index) if heads.keys else Linear(engine, index)
        self.state = mixers.make(engine, index) if engine.settings.recurs[index] else None
        self.feed_forward = mixers.channels(engine, index) or self._feed_forward()

    def _feed_forward(self) -> Mlp | Experts | None:
        """The MLP or the experts; in a graph with gaps perhaps neither."""
        engine = self.engine
        if engine.settings.experts and f"{self.prefix}ffn_gate_inp.weight" in engine.weights:
            return Experts(engine, self.prefix)
        there = not engine.settings.graph.gaps or f"{self.prefix}ffn_down.weight" in engine.weights
        return Mlp(engine, self.prefix) if there else None

    def forward(self, x: Floats, cache: Cache) -> Floats:
        """[S, T, H] -> [S, T, H]; the positions' keys and values go into ``cache``."""
        for part in self.parts:
            x = part(x, cache)
        return x

    @property
    def parts(self) -> tuple[Callable[[Floats, Cache], Floats], ...]:
        """What the stream goes through one after the other, [S, T, H] -> [S, T, H] each: every part adds to it once.

        Attention and feed-forward, or both as one part in families where they read the same input.
        """
        if self.engine.settings.graph.early_router:
            return (self._scored_early,)
        return (self._both,) if self.engine.settings.parallel else (self._attend, self._feed)

    def _mix(self, x: Floats, cache: Cache) -> Floats:
        """What positions give to one another: attention, a state, or the sum of both."""
        if self.attention is None:
            cache.skip(self.index, x.shape[1])
        parts = [part.forward(x, cache) for part in (self.attention, self.state) if part is not None]
        return parts[0] if len(parts) == 1 else self.engine.operations.add(parts[0], parts[1])

    def _scored_early(self, x: Floats, cache: Cache) -> Floats:
        """Attention and experts, whose router reads the layer's own input."""
        assert isinstance(self.feed_forward, Experts)
        total = self._attend(x, cache)
        normed = self._before(self.engine.settings.graph.second_norm, total)
        return self.engine.operations.add(total, self.feed_forward.forward(normed, scored=x))

    def _attend(self, x: Floats, cache: Cache) -> Floats:
        if self.attention is None and self.state is None:
            cache.skip(self.index, x.shape[1])
            return x
        name = self.engine.settings.graph.attention_post_norm
        attended = self._after(name, self._mix(self._before("attn_norm", x), cache))
        total = self.engine.operations.add(x, attended, self.engine.settings.residual_scale)
        if not self.engine.settings.graph.sum_norm:
            return total
        total = self._summed("attn_output_norm", total)
        again = f"{self.prefix}attn_norm_2.weight" in self.engine.weights  # the input once more (Jina's BERT of code)
        return self._summed("attn_norm_2", self.engine.operations.add(total, x)) if again else total

    def _feed(self, x: Floats, cache: Cache) -> Floats:
        if self.feed_forward is None:
            return x
        normed = self._before(self.engine.settings.graph.second_norm, x)
        fed = self._after("post_ffw_norm", self.feed_forward.forward(normed, cache))
        total = self.engine.operations.add(x, fed, self.engine.settings.residual_scale)
        return self._rescaled(self._summed("layer_output_norm", total))

    def _rescaled(self, x: Floats) -> Floats:
        """Half the stream behind every so many layers, in models that count on it."""
        state = self.engine.settings.state
        return x * numpy.float32(0.5) if state and state.rescale and (self.index + 1) % state.rescale == 0 else x

    def _both(self, x: Floats, cache: Cache) -> Floats:
        if self.attention is None or self.feed_forward is None:
            return self._feed(self._attend(x, cache), cache)
        add = self.engine.operations.add
        normed = self._before("attn_norm", x)
        attended = self._after("post_attention_norm", self._mix(normed, cache))
        own_norm = f"{self.prefix}ffn_norm.weight" in self.engine.weights
        other = self._before("ffn_norm", x) if own_norm else normed
        return add(add(x, attended), self._after("post_ffw_norm", self.feed_forward.forward(other, cache)))

    def _before(self, role: str, x: Floats) -> Floats:
        """The norm before attention or MLP; none in families that only norm afterwards."""
        graph = self.engine.settings.graph
        if not graph.first_norm and f"{self.prefix}{role}.weight" not in self.engine.weights:
            return x
        return self.engine.norm(self.prefix + role, x) if graph.pre_norm else x

    def _after(self, role: str, x: Floats) -> Floats:
        """The norm of what attention or MLP gives, in families that have it."""
        return self.engine.norm(self.prefix + role, x) if self.engine.settings.graph.post_norm else x

    def _summed(self, role: str, x: Floats) -> Floats:
        """The norm of a residual sum, in families that have it."""
        return self.engine.norm(self.prefix + role, x) if self.engine.settings.graph.sum_norm else x
