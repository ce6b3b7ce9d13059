"""What every layer of a network computes with: the model's numbers, its weights, the operations, and who watches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy

from quantcli.architectures.topology import norm_tensor
from quantcli.runner.arrays import Floats, Ints
from quantcli.runner.observe import Observer, show, show_experts
from quantcli.runner.operations import Operations
from quantcli.runner.positions import Angles
from quantcli.runner.settings import NetworkSettings
from quantcli.runner.weights import PackedMatrix, Weights


class Engine:
    """All products of a network go through here, so that its observers see them."""

    def __init__(
        self,
        settings: NetworkSettings,
        weights: Weights,
        operations: Operations,
        angles: Angles,
        observers: Sequence[Observer] = (),
    ) -> None:
        self.settings, self.weights, self.operations, self.angles = settings, weights, operations, angles
        self.observers = list(observers)

    def multiply(self, x: Floats, *weights: PackedMatrix) -> list[Floats]:
        """``x`` [tokens, columns] times each of ``weights``, which read the same input: [tokens, rows] each."""
        if self.observers:
            show(self.observers, x, weights)
        return self.operations.multiply(x, *weights)

    def multiply_experts(self, x: Floats, chosen: Ints, *weights: PackedMatrix, always: bool = False) -> list[Floats]:
        """Each token through its experts, see `Operations.multiply_experts`: [tokens, used, rows] each."""
        if self.observers:
            show_experts(self.observers, x, chosen, weights)
        return self.operations.multiply_experts(x, chosen, *weights, always=always)

    def norm(self, name: str, x: Floats) -> Floats:
        """The family's kind of norm over the last dimension, with the weights (and bias) called ``name``."""
        if not self.settings.graph.norm_weights:
            return self._bare_norm(x)
        weight = self.weights.vector(norm_tensor(self.settings.graph, name))
        bias = self.weights.vector(f"{name}.bias") if f"{name}.bias" in self.weights else None
        if self.settings.graph.norm == "rms":
            normed = self.operations.rms_norm(x, weight, self.settings.eps)
            return normed if bias is None else normed + bias
        return self.operations.layer_norm(x, weight, bias, self.settings.eps)

    def unit(self, x: Floats) -> Floats:
        """x / sqrt(mean(x^2) + eps) over the last dimension."""
        return self.operations.rms_norm(x, numpy.ones(x.shape[-1], numpy.float32), self.settings.eps)

    def _bare_norm(self, x: Floats) -> Floats:
        """The same without weights."""
        ones = numpy.ones(x.shape[-1], numpy.float32)
        if self.settings.graph.norm == "rms":
            return self.operations.rms_norm(x, ones, self.settings.eps)
        return self.operations.layer_norm(x, ones, None, self.settings.eps)


def flat(x: Floats) -> Floats:
    """[S, T, n] as [tokens, n]."""
    return numpy.ascontiguousarray(x).reshape(-1, x.shape[-1])
