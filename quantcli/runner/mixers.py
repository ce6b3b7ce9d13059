"""The layers with a state by kind: what stands in the place of attention, and for RWKV of the MLP."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from quantcli.runner.arrays import Floats
from quantcli.runner.cache import Cache
from quantcli.runner.delta_rule import GatedDelta, KimiDelta
from quantcli.runner.engine import Engine
from quantcli.runner.rwkv import ChannelMix, TimeMix6, TimeMix7
from quantcli.runner.short_convolution import ShortConvolution
from quantcli.runner.state_shapes import mixes_channels
from quantcli.runner.state_space import Mamba, Mamba2, Plamo2


class Mixer(Protocol):
    """A part of a layer."""

    def forward(self, x: Floats, cache: Cache) -> Floats:
        """Of the normed stream: [S, T, H] -> [S, T, H]; what it keeps is in ``cache``."""
        ...


KINDS: Mapping[str, Callable[[Engine, int], Mixer]] = {
    "mamba": Mamba, "mamba2": Mamba2, "plamo2": Plamo2, "short_convolution": ShortConvolution, "delta": GatedDelta,
    "kimi_delta": KimiDelta, "rwkv6": TimeMix6, "rwkv7": TimeMix7,
}  # fmt: skip


def make(engine: Engine, index: int) -> Mixer:
    """The mixer of a layer that has a state."""
    assert engine.settings.state is not None
    return KINDS[engine.settings.state.kind](engine, index)


def channels(engine: Engine, index: int) -> Mixer | None:
    """What stands in the place of the MLP."""
    return ChannelMix(engine, index) if mixes_channels(engine.settings) else None
