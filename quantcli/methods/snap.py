"""Snap: weights that lie on the grid of their type are carried over, whatever method encodes the others.

A checkpoint that was trained for a type, or that is stored in one with the same grid, has scales and integers already;
a search for small errors finds other scales where the block does not use the level that it takes them from. The kernels
look for what gives the weights back (csrc/encode/snap.inc). A sample tells whether a matrix lies on the grid at all: of
others nothing else is tried.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

import numpy

from quantcli.ggml import packing, tensor_types
from quantcli.ggml.tensor_types import TensorType
from quantcli.methods.seam import Blocks, Matrix, RowEncoder, Rows
from quantcli.model import ModelTensor

Mode: TypeAlias = Literal["auto", "always", "never"]
MODES: tuple[Mode, ...] = get_args(Mode)
# Types whose encoder looks for nothing, and is quicker than looking for a grid: what it does not give back is tried.
SEARCHED_LAST = frozenset({"Q8_0", "TQ1_0", "TQ2_0", "Q2_0", "MXFP4", "NVFP4"})
GRIDS = ("Q4_0", "Q4_1", "Q8_0", "TQ2_0", "Q2_0", "MXFP4")  # that `inspect` speaks of
_LEAST_SHARE = 1 / 16  # of the sample: a matrix with fewer blocks on the grid lies on none
_FIRST_BLOCKS = 16  # of a sampled row: where none of them lies on the grid, the others are not looked at


@dataclass(slots=True)
class Carried:
    """Blocks of a tensor: all of them, those carried over, those of them that are the weights to the bit."""

    blocks: int = 0
    carried: int = 0
    exact: int = 0


@dataclass(eq=False, repr=False)
class Snapping:
    """How a conversion snaps, and by key what it carried over. Thread-safe."""

    mode: Mode = "never"
    carried: dict[Hashable, Carried] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def prepare(self, key: Hashable, matrix: Matrix, tensor_type: TensorType, ordinary: RowEncoder) -> RowEncoder:
        """An encoder that carries over what it can and leaves the rest to ``ordinary``; ``key`` names the tensor."""
        if not self._tries(matrix, tensor_type):
            return ordinary

        def encode(rows: Rows, start: int, out: Blocks) -> Blocks:
            if tensor_type.name in SEARCHED_LAST:
                ordinary(rows, start, out)
                found = packing.snap(tensor_type.id, rows, out, encoded=True)
            else:
                found = packing.snap(tensor_type.id, rows, out)
                if not found.all():
                    _fill(out, ordinary(rows, start, numpy.empty_like(out)), found)
            self._count(key, found)
            return out

        return encode

    def _tries(self, matrix: Matrix, tensor_type: TensorType) -> bool:
        if self.mode == "never" or not packing.can_snap(tensor_type.id):
            return False
        if self.mode == "always":
            return True
        on, blocks = sample(matrix, tensor_type)
        return on >= _LEAST_SHARE * blocks

    def _count(self, key: Hashable, found: Blocks) -> None:
        with self._lock:
            one = self.carried.setdefault(key, Carried())
            one.blocks += found.size
            one.carried += int(numpy.count_nonzero(found))
            one.exact += int(numpy.count_nonzero(found == 2))


def sample(matrix: Matrix, tensor_type: TensorType) -> tuple[int, int]:
    """(blocks on the grid, blocks) of a few rows of a matrix; blocks of nothing but zeros tell nothing.

    Where no block of the first ones of each row lies on the grid, it is these alone that are counted: looking for a
    grid where there is none takes many times as long as encoding a block.
    """
    rows = [numpy.ascontiguousarray(matrix.read(row, row + 1)) for row in sorted({0, matrix.rows // 2})]
    first = [values[:, : _FIRST_BLOCKS * tensor_type.block].copy() for values in rows]
    on, blocks = _count_blocks(first, tensor_type)
    return (on, blocks) if blocks and not on else _count_blocks(rows, tensor_type)


def _count_blocks(rows: Sequence[Rows], tensor_type: TensorType) -> tuple[int, int]:
    """(blocks on the grid, blocks that are not all zero) of rows, float32 [1, columns] each."""
    on = blocks = 0
    for values in rows:
        told = values.reshape(-1, tensor_type.block).any(axis=1)
        width = tensor_types.row_bytes(tensor_type, values.shape[1])
        found = packing.snap(tensor_type.id, values, numpy.empty((1, width), numpy.uint8))[0]
        on, blocks = on + int(numpy.count_nonzero(found[told])), blocks + int(numpy.count_nonzero(told))
    return on, blocks


def shares(tensor: ModelTensor) -> dict[str, float]:
    """The share of a tensor's blocks (of a sample of its first matrix) that lie on the grid of each type in GRIDS.

    Types whose blocks do not divide the rows, and those on whose grid no block lies, are left out.
    """
    matrix, found = Matrix.of(tensor), {}
    for name in GRIDS:
        tensor_type = tensor_types.BY_NAME[name]
        if matrix.columns % tensor_type.block == 0:
            on, blocks = sample(matrix, tensor_type)
            if on:
                found[name] = on / blocks
    return found


def _fill(out: Blocks, plain: Blocks, found: Blocks) -> None:
    """Put the blocks of ``plain`` where nothing was found."""
    shape = (*found.shape, -1)
    out.reshape(shape)[found == 0] = plain.reshape(shape)[found == 0]
