"""The seam between the pipeline and the methods: `prepare(matrix, tensor_type, statistics)` gives an encoder of rows.

The pipeline prepares an encoder once for every matrix, type and set of statistics, and calls it for one slab of rows
after the other, from several threads. A method that needs nothing but the rows at hand leaves ``prepare`` empty; one
that must see the whole matrix first reads it there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, TypeAlias

import numpy
from numpy.typing import NDArray

from quantcli.ggml.tensor_types import TensorType
from quantcli.model import ModelTensor, RowReader
from quantcli.statistics.imatrix import Importance

Rows: TypeAlias = NDArray[numpy.float32]  # [rows, columns], C order
Blocks: TypeAlias = NDArray[numpy.uint8]  # [rows, bytes of a row], C order
Need: TypeAlias = Literal["nothing", "importance", "hessian", "gradients"]


@dataclass(slots=True, eq=False, repr=False)
class Matrix:
    """One matrix of a tensor: all of it, or one expert. ``shape`` is the tensor's, in GGUF order (columns first)."""

    name: str  # of the tensor
    shape: tuple[int, ...]
    index: int  # among the tensor's matrices
    rows: int
    columns: int
    reader: RowReader  # of the tensor

    @classmethod
    def of(cls, tensor: ModelTensor, index: int = 0) -> Matrix:
        """Matrix number ``index`` of a tensor."""
        return cls(tensor.name, tensor.shape, index, matrix_rows(tensor), tensor.columns, tensor.reader)

    def read(self, start: int, stop: int) -> Rows:
        """Rows ``start`` to ``stop`` of this matrix, counted from its first."""
        base = self.index * self.rows
        return self.reader.read_rows(base + start, base + stop)


def matrix_count(tensor: ModelTensor) -> int:
    """Matrices of a tensor: one, or one per expert."""
    return tensor.shape[2] if len(tensor.shape) > 2 else 1


def matrix_rows(tensor: ModelTensor) -> int:
    """Rows of each matrix of a tensor."""
    return tensor.shape[1] if len(tensor.shape) > 2 else tensor.rows


@dataclass(frozen=True, eq=False, repr=False)
class Statistics:
    """What is known of the inputs of a model's matrices."""

    source: Importance | None = None  # an importance matrix file

    def importance(self, matrix: Matrix) -> NDArray[numpy.float32] | None:
        """One weight per column: float32 [columns]; None where nothing was collected. Raises BadImportance."""
        values = None if self.source is None else self.source.for_tensor(matrix.name, matrix.shape)
        return None if values is None else values[matrix.index]

    def has(self, need: Need, matrix: Matrix) -> bool:
        """Whether what a method needs is known of this matrix."""
        return need == "nothing" or (need == "importance" and self.importance(matrix) is not None)


class Settings(NamedTuple):
    """What a user says beside the method's name."""

    search: str | None = None  # the scale search of the kernels; None: the best there is


class RowEncoder(Protocol):
    """Encodes rows of the matrix that it was prepared for. Thread-safe, and the same for every cut into slabs."""

    def __call__(self, rows: Rows, start: int, out: Blocks) -> Blocks:
        """Encode ``rows``, which begin at row ``start`` of the matrix, into ``out``; returns ``out``.

        Raises NonFiniteWeight, ScaleOverflow, BadImportance with ``row`` counted from the first of ``rows``.
        """
        ...


class Prepare(Protocol):
    """Called once per matrix and type, before any of its rows is encoded."""

    def __call__(
        self, matrix: Matrix, tensor_type: TensorType, statistics: Statistics, settings: Settings
    ) -> RowEncoder: ...


class Method(NamedTuple):
    """A row of the table. ``fallback`` takes the matrices whose type or statistics this method does not."""

    name: str
    prepare: Prepare
    needs: Need
    types: frozenset[str] | None  # names of the tensor types that it takes; None: every type
    fallback: str | None
    cost: str  # time, beside the plain search
    purpose: str

    def takes(self, matrix: Matrix, tensor_type: TensorType, statistics: Statistics) -> bool:
        """Whether it encodes this matrix to this type."""
        return (self.types is None or tensor_type.name in self.types) and statistics.has(self.needs, matrix)
