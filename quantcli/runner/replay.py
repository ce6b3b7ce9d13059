"""Token after token, without Python between the layers.

The pass of one token makes the same calls into C for every token: only angles, places in the cache and the number of
positions move on. `Stepper` has the operations record the steps of its first token and repeats all of them in one call
for the others.
"""

from __future__ import annotations

import numpy

from quantcli.errors import ContextTooLong, QuantcliError
from quantcli.runner.arrays import Floats
from quantcli.runner.cache import Cache
from quantcli.runner.network import Network
from quantcli.runner.steps import Recording


class Stepper:
    """``stepper(token)``: logits float32 [V] of the next position of ``cache``, valid until the next call.

    Results are those of `Network.forward`, bit for bit. What cannot be repeated (quantized caches, numbers
    that depend on positions and come out of Python, products that somebody observes) is computed by it.
    """

    def __init__(self, network: Network, cache: Cache) -> None:
        self.network, self.cache = network, cache
        self.limit = min(network.length, cache.capacity)  # what is recorded has angles and room for no more
        repeatable = cache.plain and network.settings.sides is None and not network.settings.by_position
        self.recording: Recording | None = network.operations.recording() if repeatable else None

    def __call__(self, token: int) -> Floats:
        network, position = self.network, self.cache.length[0]
        if position >= self.limit:
            raise ContextTooLong(f"{position + 1} positions, prepared for {self.limit}", where=network.model.name)
        x = network.embed(numpy.array([[token]]), position)
        try:
            logits: Floats = network.capped(self._logits(x, position))[0, -1]
        except QuantcliError:
            self.cache.length = [position] * len(self.cache.length)
            network.logits(x, self.cache)  # again, layer by layer: the first bad one is named
            raise
        return logits

    def _logits(self, x: Floats, position: int) -> Floats:
        """Of the embeddings [1, 1, H]: [1, 1, V]."""
        network, cache, recording = self.network, self.cache, self.recording
        if recording is None or network.observers:
            return network.logits(x, cache)
        if recording.ready and position < recording.position:  # steps are only moved on
            return network.logits(x, cache)
        if recording.ready:
            logits = recording.repeat(x, position)
            cache.length = [position + 1] * len(cache.length)
            return logits
        self.limit = min(self.limit, network.length)
        with recording.of(x, position) as start:
            logits = network.logits(start, cache)
        if not recording.finish(logits):
            self.recording = None
        return logits
