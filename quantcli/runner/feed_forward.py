"""What follows attention: the MLP, or a mixture of experts of which each token uses the few that its router likes best.

Shapes: S sequences of equal length, T new positions each, H hidden; tokens = S * T.
"""

from __future__ import annotations

import numpy

from quantcli.architectures.topology import mlp_inputs
from quantcli.runner.arrays import Floats, Ints
from quantcli.runner.cache import Cache
from quantcli.runner.engine import Engine, flat
from quantcli.runner.operations import sigmoid, softmax, split, top_indices


class Mlp:
    """down(act(gate) * up), or down(act(up))."""

    def __init__(self, engine: Engine, prefix: str, suffix: str = "") -> None:
        """``suffix`` of the tensors' roles: of a shared expert."""
        self.engine = engine
        graph, hidden, matrix = engine.settings.graph, engine.settings.hidden, engine.weights.matrix
        width = engine.weights.columns(f"{prefix}ffn_down{suffix}")  # shapes.py has checked that all agree
        rows = width * (2 if graph.mlp == "fused" else 1)
        self.inputs = tuple(matrix(prefix + role, hidden, rows) for role in mlp_inputs(graph, suffix))
        self.down = matrix(f"{prefix}ffn_down{suffix}", width, hidden)

    def forward(self, x: Floats, cache: Cache | None = None) -> Floats:
        """[..., H] -> [..., H]."""
        graph = self.engine.settings.graph
        parts = self.engine.multiply(flat(x), *self.inputs)
        if graph.mlp == "fused":
            parts = split(parts[0], (self.down.columns, self.down.columns))
        up = parts[1] if len(parts) > 1 else None
        inner = self.engine.operations.activate(graph.activation, parts[0], up)
        return self.engine.multiply(inner, self.down)[0].reshape(x.shape)


class Experts:
    """The routed experts of one layer, each token using a few of E, and the shared one where there is one."""

    def __init__(self, engine: Engine, prefix: str) -> None:
        self.engine, self.prefix = engine, prefix
        s, matrix = engine.settings, engine.weights.matrix
        self.router = matrix(f"{prefix}ffn_gate_inp", s.hidden, s.experts)
        width = engine.weights.columns(f"{prefix}ffn_down_exps")
        roles = mlp_inputs(s.graph, "_exps")
        self.inputs = tuple(matrix(prefix + role, s.hidden, width, s.experts) for role in roles)
        self.down = matrix(f"{prefix}ffn_down_exps", width, s.hidden, s.experts)
        self.shared = Mlp(engine, prefix, "_shexp") if f"{prefix}ffn_up_shexp.weight" in engine.weights else None

    def forward(self, x: Floats, cache: Cache | None = None) -> Floats:
        """[S, T, H] -> [S, T, H]."""
        tokens = flat(x)
        result = self._mixed(tokens)
        if self.shared is not None:
            result += self._shared(self.shared, tokens)
        return result.reshape(x.shape)

    def _shared(self, expert: Mlp, x: Floats) -> Floats:
        """What all tokens go through beside their own experts: [tokens, H] -> [tokens, H]."""
        result = expert.forward(x)
        if self.engine.settings.graph.shared_expert_gate:
            gate = self.engine.weights.vector(f"{self.prefix}ffn_gate_inp_shexp.weight", (x.shape[1],))
            result *= sigmoid(x @ gate.reshape(-1, 1))
        return result

    def _mixed(self, x: Floats) -> Floats:
        """Each token through its best experts, mixed by their weights: [tokens, H] -> [tokens, H]."""
        engine = self.engine
        (logits,) = engine.multiply(x, self.router)  # [tokens, E]
        chosen, share = self._route(logits)  # [tokens, used] each
        parts = engine.multiply_experts(x, chosen, *self.inputs)  # [tokens, used, width] each
        inner = engine.operations.activate(engine.settings.graph.activation, parts[0], parts[1] if parts[1:] else None)
        (outer,) = engine.multiply_experts(inner, chosen, self.down)  # [tokens, used, H]
        mixed: Floats = numpy.einsum("tuh,tu->th", outer, share)
        return mixed

    def _route(self, logits: Floats) -> tuple[Ints, Floats]:
        """Experts of each token and their weights, [tokens, used] each."""
        s = self.engine.settings
        if s.gating == "softmax_chosen":
            chosen = top_indices(logits, s.experts_used)
            share = numpy.take_along_axis(logits, chosen, axis=1)
            softmax(share)
            return chosen, share
        if s.gating == "sigmoid":
            share = sigmoid(logits)
        else:
            share = logits.copy()
            softmax(share)
        chosen = top_indices(self._biased(share), s.experts_used)
        share = numpy.take_along_axis(share, chosen, axis=1)
        if s.expert_norm:
            share /= share.sum(axis=1, keepdims=True)
        return chosen, share * numpy.float32(s.expert_scale)

    def _biased(self, share: Floats) -> Floats:
        """The choice alone may be biased (to even out the experts' load), the weights are not."""
        name = f"{self.prefix}exp_probs_b.bias"
        weights = self.engine.weights
        return share + weights.vector(name, (self.router.rows,)) if name in weights else share
