"""What follows attention: the MLP, or a mixture of experts of which each token uses the few that its router likes best.

Shapes: S sequences of equal length, T new positions each, H hidden; tokens = S * T.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt

import numpy

from quantcli.architectures.topology import BIAS_NAMES, mlp_inputs
from quantcli.runner.arrays import Floats, Ints
from quantcli.runner.cache import Cache
from quantcli.runner.choice import choose
from quantcli.runner.engine import Engine, flat
from quantcli.runner.operations import sigmoid, split
from quantcli.runner.weights import PackedMatrix


def activated(
    engine: Engine, gate: Floats, up: Floats | None, limit: float = 0.0, parameters: tuple[float, ...] = ()
) -> Floats:
    """act(gate) * up, or act(gate) without ``up``; both bounded where there is a ``limit`` (see `Graph.limited`)."""
    graph, activate = engine.settings.graph, engine.operations.activate
    if not limit or up is None:
        return activate(graph.activation, gate, up, parameters)
    bound, host = numpy.float32(limit), engine.operations.host
    if graph.limited == "gate":
        gate, up = host(lambda gate, up: (numpy.minimum(gate, bound), numpy.clip(up, -bound, bound)), gate, up)
        return activate(graph.activation, gate, up)
    gate = activate(graph.activation, gate, None)
    bounded: Floats = host(lambda gate, up: numpy.minimum(gate, bound) * numpy.clip(up, -bound, bound), gate, up)
    return bounded


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
        self.inner_norm = f"{prefix}ffn_sub_norm{suffix}" if graph.inner_norm else None
        layer = int(prefix.split(".")[-2])
        self.parameters = engine.settings.activation_of(layer)
        self.limit = engine.settings.limits[1][layer] if graph.limited else 0.0

    def forward(self, x: Floats, cache: Cache | None = None) -> Floats:
        """[..., H] -> [..., H]."""
        return self.back(self.inner(x)).reshape(x.shape)

    def inner(self, x: Floats, change: Callable[[Floats], Floats] | None = None) -> Floats:
        """What the lower matrix reads, [tokens, width]; ``change`` of the gate before it is activated."""
        graph = self.engine.settings.graph
        parts = self.engine.multiply(flat(x), *self.inputs)
        if graph.mlp == "fused":
            parts = split(parts[0], (self.down.columns, self.down.columns))
        up = parts[1] if len(parts) > 1 else None
        gate = parts[0] if change is None else change(parts[0])
        inner = activated(self.engine, gate, up, self.limit, self.parameters)
        return self.engine.norm(self.inner_norm, inner) if self.inner_norm else inner

    def back(self, inner: Floats) -> Floats:
        """[tokens, width] -> [tokens, H]."""
        return self.engine.multiply(inner, self.down)[0]


class Experts:
    """The routed experts of one layer, each token using a few of E, and what all tokens go through beside them."""

    def __init__(self, engine: Engine, prefix: str) -> None:
        self.engine, self.prefix = engine, prefix
        s, matrix = engine.settings, engine.weights.matrix
        assert s.routing is not None
        self.routing, experts = s.routing, s.routing.experts
        self.router = matrix(f"{prefix}ffn_gate_inp", s.hidden, experts)
        self.width = engine.weights.columns(f"{prefix}ffn_down_exps")
        both = f"{prefix}ffn_gate_up_exps"
        if f"{both}.weight" in engine.weights:  # gate above up
            self.inputs: tuple[PackedMatrix, ...] = (matrix(both, s.hidden, 2 * self.width, experts),)
        else:
            roles = mlp_inputs(s.graph, "_exps")
            self.inputs = tuple(matrix(prefix + role, s.hidden, self.width, experts) for role in roles)
        self.down = matrix(f"{prefix}ffn_down_exps", self.width, s.hidden, experts)
        self.limit = s.limits[0][int(prefix.split(".")[-2])] if s.graph.limited else 0.0
        self.shared = self._beside("_shexp")
        self.beside = self._beside("") if s.graph.beside_experts else None

    def _beside(self, suffix: str) -> Mlp | None:
        there = f"{self.prefix}ffn_up{suffix}.weight" in self.engine.weights
        return Mlp(self.engine, self.prefix, suffix) if there else None

    def forward(self, x: Floats, cache: Cache | None = None, scored: Floats | None = None) -> Floats:
        """[S, T, H] -> [S, T, H]; ``scored``: what the router reads, where that is not ``x``."""
        tokens, operations = flat(x), self.engine.operations
        result = self._mixed(tokens, tokens if scored is None else flat(scored))
        if self.shared is not None:
            result = operations.add(result, self._shared(self.shared, tokens))
            if self.engine.settings.graph.shared_expert == "average":
                result = operations.host(lambda x: x * numpy.float32(0.5), result)
        if self.beside is not None:
            both = operations.add(result, self.beside.forward(tokens))
            result = operations.host(lambda x: x * numpy.float32(sqrt(0.5)), both)
        return result.reshape(x.shape)

    def _shared(self, expert: Mlp, x: Floats) -> Floats:
        """What all tokens go through beside their own experts: [tokens, H] -> [tokens, H]."""
        result = expert.forward(x)
        if self.engine.settings.graph.shared_expert_gate:
            gate = self.engine.weights.vector(f"{self.prefix}ffn_gate_inp_shexp.weight", (x.shape[1],))
            result = self.engine.operations.host(lambda result, x: result * sigmoid(x @ gate.reshape(-1, 1)), result, x)
        return result

    def _mixed(self, x: Floats, scored: Floats) -> Floats:
        """Each token through its best experts, mixed by their weights: [tokens, H] -> [tokens, H]."""
        engine, host, bias = self.engine, self.engine.operations.host, self._bias()
        (logits,) = engine.multiply(scored, self.router)  # [tokens, E]
        chosen, share = host(lambda logits: choose(self.routing, logits, bias), logits)  # [tokens, used] each
        mixed: Floats
        if engine.settings.graph.expert_first:
            inner = self._inner(host(lambda x, share: x[:, None] * share[..., None], x, share), chosen)
            outer = engine.multiply_experts(inner, chosen, self.down)[0]
            mixed = host(lambda outer: numpy.ascontiguousarray(outer.sum(axis=1)), outer)
            return mixed
        (outer,) = engine.multiply_experts(self._inner(x, chosen), chosen, self.down)  # [tokens, used, H]
        scale = f"{self.prefix}ffn_down_exps.scale"
        if scale in engine.weights:
            factors = engine.weights.vector(scale, (self.routing.experts,))
            share = host(lambda share, chosen: share * factors[chosen], share, chosen)
        mixed = host(lambda outer, share: numpy.einsum("tuh,tu->th", outer, share), outer, share)
        return mixed

    def _inner(self, x: Floats, chosen: Ints) -> Floats:
        """What the experts' lower matrices read: of [tokens, H] or [tokens, used, H], [tokens, used, width]."""
        parts = [flat(part) for part in self.engine.multiply_experts(x, chosen, *self.inputs)]
        if self.inputs[0].rows == 2 * self.width:
            parts = split(parts[0], (self.width, self.width))
        up = parts[1] if len(parts) > 1 else None
        return activated(self.engine, parts[0], up, self.limit).reshape(*chosen.shape, self.width)

    def _bias(self) -> Floats | None:
        """What the choice alone is biased with (to even out the experts' load), under either of its names."""
        names = (f"{self.prefix}{name}" for name in BIAS_NAMES)
        weights = self.engine.weights
        return next((weights.vector(name, (self.routing.experts,)) for name in names if name in weights), None)
