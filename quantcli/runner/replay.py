"""Token after token, without Python between the layers.

The pass of one token makes the same calls into C for every token: only angles, places in the cache and the number of
positions move on. `Stepper` records the calls of its first token and repeats all of them in one call for the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy

from quantcli.errors import ContextTooLong
from quantcli.runner.cache import Cache
from quantcli.runner.network import Network
from quantcli.runner.products import MODES, Products

Array = numpy.ndarray


class Stepper:
    """``stepper(token)``: logits float32 [V] of the next position of ``cache``, valid until the next call.

    Results are those of `Network.forward`, bit for bit. What cannot be repeated (the choice of experts, quantized
    caches, operations in numpy) is computed by it.
    """

    def __init__(self, network: Network, cache: Cache) -> None:
        self.network, self.cache = network, cache
        self.recorder: Recorder | None = None
        if isinstance(network.operations, Products) and cache.plain and not network.settings.experts:
            self.recorder = Recorder(network.operations)

    def __call__(self, token: int) -> Array:
        network, position = self.network, self.cache.length[0]
        if position >= network.length:
            raise ContextTooLong(f"{position + 1} positions, prepared for {network.length}", where=network.model.name)
        x = network.embed(numpy.array([[token]]), position)
        recorder = self.recorder
        if recorder is None:
            logits = network.logits(x, self.cache)
        elif recorder.ready:
            logits = recorder.repeat(x, position)
            self.cache.length = [position + 1] * len(self.cache.length)
        else:
            network.operations = recorder
            try:
                logits = network.logits(recorder.begin(x, position), self.cache)
            finally:
                network.operations = recorder.products
            if not recorder.finish(logits):
                self.recorder = None
        return network.capped(logits)[0, -1]


class Recorder(Products):
    """Operations that compute, and note every step with all that its pointers need alive."""

    def __init__(self, products: Products) -> None:
        self.__dict__.update(products.__dict__)  # the same threads and instruction set
        self.products = products
        self.made: dict[int, Array] = {}  # arrays that steps have made, by id
        self.steps: list[Any] = []
        self.held: list[Any] = []
        self.complete, self.ready = True, False

    def begin(self, x: Array, position: int) -> Array:
        """Record from ``x``, the embeddings of the token at ``position``."""
        self.position, self.start = position, x.copy()
        self._note([self.start])
        return self.start

    def finish(self, logits: Array) -> bool:
        """End with the pass's result. False: something between the steps was computed elsewhere."""
        self.result = logits
        self.complete &= _owner(logits) in self.made
        self.ready = self.complete
        if self.complete:
            self.list = self.ffi.new("qc_step[]", [step[0] for step in self.steps])
        return self.complete

    def repeat(self, x: Array, position: int) -> Array:
        """The recorded steps for the embeddings ``x`` of another position."""
        self.start[...] = x
        self._check(
            self.lib.qc_run(
                self.pool, self.isa, MODES[self.activations], self.list, len(self.list), position - self.position
            )
        )
        return self.result

    def _run(
        self,
        name: str,
        fields: Any,
        *,
        inputs: Sequence[Array],
        outputs: Sequence[Array],
        held: Any = (),
        type_id: int = 0,
    ) -> Any:
        # An input that no step has made comes out of Python: repeating the steps would not make it anew.
        self.complete &= all(_owner(x) in self.made for x in inputs)
        step, arguments = super()._run(name, fields, inputs=inputs, outputs=outputs, held=held, type_id=type_id)
        self._note(outputs)
        self.steps.append(step)
        self.held += [arguments, fields, inputs, outputs, held]
        return step, arguments

    def _note(self, arrays: Sequence[Array]) -> None:
        for array in arrays:
            owner = _root(array)
            self.made[id(owner)] = owner


def _root(array: Array) -> Array:
    """The array that owns the memory."""
    while isinstance(array.base, numpy.ndarray):
        array = array.base
    return array


def _owner(array: Array) -> int:
    return id(_root(array))
