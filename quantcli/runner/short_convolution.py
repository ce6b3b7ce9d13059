"""LFM2's short convolution: gated before and after."""

from __future__ import annotations

from quantcli.runner.arrays import Floats
from quantcli.runner.cache import Cache
from quantcli.runner.engine import Engine, flat
from quantcli.runner.operations import split
from quantcli.runner.state_part import StatePart


class ShortConvolution(StatePart):
    """out(c * convolution(b * x)) of three projections b, c and x."""

    def __init__(self, engine: Engine, index: int) -> None:
        super().__init__(engine, index)
        hidden = engine.settings.hidden
        self.input = self.matrix("shortconv.in_proj", hidden, 3 * hidden)
        self.output = self.matrix("shortconv.out_proj", hidden, hidden)

    def forward(self, x: Floats, cache: Cache) -> Floats:
        """[S, T, H] -> [S, T, H]."""
        before, after, value = split(self.engine.multiply(flat(x), self.input)[0], [x.shape[2]] * 3)
        mixed = self.convolved((before * value).reshape(x.shape), cache, "shortconv.conv", silu=False)
        return self.engine.multiply(after * flat(mixed), self.output)[0].reshape(x.shape)
