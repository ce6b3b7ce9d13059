"""What all layers with a state share: their tensors by short names, and the convolution before the state."""

from __future__ import annotations

import numpy

from quantcli.runner.arrays import Floats
from quantcli.runner.cache import Cache
from quantcli.runner.engine import Engine
from quantcli.runner.states import StateSettings
from quantcli.runner.weights import PackedMatrix


class StatePart:
    """A part of one layer; ``sizes`` are those of its state."""

    def __init__(self, engine: Engine, index: int) -> None:
        assert engine.settings.state is not None
        self.engine, self.index, self.prefix = engine, index, f"blk.{index}."
        self.sizes: StateSettings = engine.settings.state
        self.kernels: dict[str, Floats] = {}  # of convolutions, [K, C]

    def matrix(self, name: str, columns: int, rows: int) -> PackedMatrix:
        """``blk.N.<name>.weight``."""
        return self.engine.weights.matrix(self.prefix + name, columns, rows)

    def vector(self, name: str, *shape: int) -> Floats:
        """The whole tensor ``blk.N.<name>`` in numpy order."""
        return self.engine.weights.vector(self.prefix + name, shape)

    def optional(self, name: str, *shape: int) -> Floats | None:
        """The same, None where the model has no such tensor."""
        return self.vector(name, *shape) if self.prefix + name in self.engine.weights else None

    def convolved(self, x: Floats, cache: Cache, name: str = "ssm_conv1d", *, silu: bool = True) -> Floats:
        """Causal convolution of [S, T, C], whose window is in the cache."""
        channels, kernel = x.shape[2], self.sizes.kernel
        if name not in self.kernels:
            weight = self.vector(f"{name}.weight", channels, kernel)
            self.kernels[name] = numpy.ascontiguousarray(weight.T)
        return self.engine.operations.convolve(
            x,
            cache.state(self.index, name, kernel - 1, channels),
            self.kernels[name],
            self.optional(f"{name}.bias", channels),
            silu=silu,
        )
