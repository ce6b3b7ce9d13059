"""Keys and values of the positions so far, stored as one of the cache types of llama.cpp."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache as memoize
from math import sqrt
from typing import NamedTuple

import numpy

from quantcli.errors import ContextTooLong, QuantcliError, UnsupportedGraph, UsageError
from quantcli.ggml import kernels, tensor_types
from quantcli.runner import finite
from quantcli.runner.arrays import Bytes, Doubles, Floats, Ints, Reals
from quantcli.runner.operations import Operations

TYPES = ("F32", "F16", "Q8_0", "Q4_0")
VIEWS: dict[str, type[numpy.floating]] = {"F32": numpy.float32, "F16": numpy.float16}
ROTATED = 64  # quantized caches hold rotated heads when the width is a multiple of this


class LayerShape(NamedTuple):
    """What one layer stores of a position: ``heads`` keys and values of these ``widths``. No heads: nothing."""

    heads: int
    widths: tuple[int, int]


class Cache:
    """One store for all layers: `extend` adds positions of a layer and gives all of them back.

    Quantized types hold each head's vector rotated by a Hadamard matrix (as llama.cpp does), which spreads outliers
    over a block; queries are rotated alike and results back, so that only rounding is left of it.
    """

    def __init__(self, kind: str, layers: Sequence[LayerShape], sequences: int, capacity: int) -> None:
        """``layers``: what each of them stores. Raises UsageError."""
        if kind.upper() not in TYPES:
            raise UsageError(f"there is no cache type {kind!r}", where="--kv-type", hint=f"known: {', '.join(TYPES)}")
        self.type = tensor_types.BY_NAME[kind.upper()]
        for width in sorted({width for layer in layers if layer.heads for width in layer.widths}):
            if width % self.type.block:
                raise UsageError(
                    f"a head has {width} elements, no multiple of {self.type.name}'s block of {self.type.block}",
                    where="--kv-type",
                    hint="use F16",
                )
        self.length = [0] * len(layers)
        self.sequences, self.capacity, self.layers = sequences, capacity, layers
        self.stores: dict[int, list[Bytes]] = {}  # per layer keys and values, uint8 [S, heads, capacity, bytes]
        self.states: dict[int, dict[str, Floats]] = {}  # of layers that keep no positions
        self.passed: dict[str, Floats] = {}  # what a layer of the pass that runs leaves to later ones
        self.chosen: Ints | None = None  # likewise: the positions that each query sees, of an indexer
        self.turns = [
            [self._turn(layer.widths[0], largest=True), self._turn(layer.widths[1], largest=False)] for layer in layers
        ]

    def _turn(self, width: int, *, largest: bool) -> Floats | None:
        """The rotation of a head's vector: size 64 for values, the largest 64 * 2^n that divides a key's width."""
        if not self.type.quantized or width % ROTATED:
            return None
        size = ROTATED
        while largest and width % (2 * size) == 0:
            size *= 2
        return hadamard(size)

    @property
    def bytes(self) -> int:
        """What the positions take when all are there."""
        rows = (
            layer.heads * tensor_types.row_bytes(self.type, width) for layer in self.layers for width in layer.widths
        )
        return self.sequences * self.capacity * sum(rows)

    @property
    def plain(self) -> bool:
        """Whether what is stored is what attention reads: nothing is turned or decoded on the way."""
        return self.type.name in VIEWS

    def extend(self, layer: int, keys: Floats, values: Floats, operations: Operations) -> tuple[Reals, Reals]:
        """Store ``keys``, ``values`` [sequences, positions, heads, width] behind the layer's positions.

        Raises ContextTooLong for more than there is room for, NonFiniteResult for NaN and infinity.
        Returns all of the layer's keys and values so far, [sequences, heads, positions so far, width] each: a view of
        the store for float types, decoded for others; keys still rotated (see `rotate_queries`).
        """
        start = self.length[layer]
        stop = start + keys.shape[1]
        heads, widths = self.layers[layer]
        shape = (self.sequences, heads, self.capacity)
        if stop > self.capacity:
            raise ContextTooLong(f"{stop} positions, the cache has room for {self.capacity}", where=f"layer {layer}")
        for part, width in zip((keys, values), widths, strict=True):
            if part.shape != (self.sequences, stop - start, heads, width):
                raise ValueError(f"{part.shape} from {start} on does not fit a cache of {shape} x {width}")
        if layer not in self.stores:
            rows = (tensor_types.row_bytes(self.type, width) for width in widths)
            self.stores[layer] = [numpy.zeros((*shape, row), numpy.uint8) for row in rows]
        result = []
        for store, turn, new, width in zip(self.stores[layer], self.turns[layer], (keys, values), widths, strict=True):
            try:
                operations.store(turned(new, turn), self.type, store[:, :, start:stop])
            except QuantcliError:
                finite.check(new, f"layer {layer}", f"blk.{layer}")
                raise
            result.append(self._seen(store[:, :, :stop], width))
        self.length[layer] = stop
        return result[0], result[1]

    def _seen(self, part: Bytes, width: int) -> Reals:
        """Stored heads as numbers."""
        if self.plain:
            return part.view(VIEWS[self.type.name])
        packed = numpy.ascontiguousarray(part)
        return kernels.decode(self.type.id, packed, packed[..., 0].size, width).reshape(*part.shape[:3], width)

    def skip(self, layer: int, positions: int) -> None:
        """Count ``positions`` of a layer that stores nothing."""
        self.length[layer] += positions

    def seen(self, layer: int, stop: int) -> tuple[Reals, Reals]:
        """Keys and values of a layer's positions up to ``stop``, as `extend` gives them. Raises UnsupportedGraph."""
        if layer not in self.stores:
            raise UnsupportedGraph(
                f"keys of layer {layer} are used by a later layer, which is run apart from it",
                hint="convert without calibration: layers of this model cannot be run one by one",
            )
        keys, values = (
            self._seen(store[:, :, :stop], width)
            for store, width in zip(self.stores[layer], self.layers[layer].widths, strict=True)
        )
        return keys, values

    def drop(self, layer: int) -> None:
        """Free a layer that nothing will be added to any more."""
        self.stores.pop(layer, None)
        self.states.pop(layer, None)

    def state(self, layer: int, name: str, *shape: int) -> Floats:
        """What a layer keeps of all positions so far, to be changed in place: float32 [sequences, *shape], zeros at
        first."""
        states = self.states.setdefault(layer, {})
        if name not in states:
            states[name] = numpy.zeros((self.sequences, *shape), numpy.float32)
        return states[name]

    def rotate_queries(self, layer: int, queries: Floats) -> Floats:
        """Queries as the layer's stored keys expect them: the products stay what they were."""
        return turned(queries, self.turns[layer][0])

    def rotate_back(self, layer: int, mixed: Floats) -> Floats:
        """What attention made of the layer's stored values, rotated back (the matrix is its own inverse)."""
        return turned(mixed, self.turns[layer][1])


def turned(x: Floats, turn: Floats | None) -> Floats:
    """The last dimension, cut into pieces of the matrix's size, times the matrix."""
    if turn is None:
        return x
    result: Floats = x.reshape(*x.shape[:-1], -1, len(turn)) @ turn
    return result.reshape(x.shape)


@memoize
def hadamard(size: int) -> Floats:
    """The symmetric orthogonal matrix of a power of two, float32 [size, size] (Sylvester's construction)."""
    matrix: Doubles = numpy.ones((1, 1))
    while len(matrix) < size:
        matrix = numpy.block([[matrix, matrix], [matrix, -matrix]])
    return (matrix / sqrt(size)).astype(numpy.float32)
