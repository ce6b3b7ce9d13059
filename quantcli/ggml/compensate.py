"""The cffi binding of the compensating encoder; as ``kernels`` for the rest."""

from __future__ import annotations

from dataclasses import astuple, dataclass

import numpy
from numpy.typing import NDArray

from quantcli.ggml import tensor_types
from quantcli.ggml.failures import OK, failure
from quantcli.ggml.kernels import Bytes, Floats, isa_index, library


@dataclass(frozen=True)
class Metric:
    """A metric of n columns as C takes it: C-contiguous arrays.

    ``hessian``, ``permuted`` (rows and columns in ``order``), ``factor`` (of ``permuted``, transposed: lower): float32
    (n, n). ``pivots``: float32 (n / together, together, together), the blocks between the factors. ``order``: int32
    (n,), every column once. Raises ValueError for others.
    """

    hessian: Floats
    permuted: Floats
    factor: Floats
    pivots: Floats
    order: NDArray[numpy.int32]

    @property
    def together(self) -> int:
        """Columns that are coded together."""
        return int(self.pivots.shape[-1])

    def __post_init__(self) -> None:
        columns = len(self.order)
        matrices = (self.hessian, self.permuted, self.factor)
        if any(matrix.shape != (columns, columns) or matrix.dtype != numpy.float32 for matrix in matrices):
            raise ValueError(f"the matrices of a metric of {columns} columns are float32 of that size")
        if self.pivots.shape != (columns // self.together, self.together, self.together):
            raise ValueError(f"the pivots of a metric of {columns} columns are blocks, not {self.pivots.shape}")
        if self.pivots.dtype != numpy.float32:
            raise ValueError("the pivots of a metric are float32")
        if self.order.dtype != numpy.int32 or not numpy.array_equal(numpy.sort(self.order), numpy.arange(columns)):
            raise ValueError("the order of a metric has every column once, as int32")
        if not all(array.flags.c_contiguous for array in (*matrices, self.pivots, self.order)):
            raise ValueError("the arrays of a metric are in C order")


@dataclass(frozen=True)
class Effort:
    """What the encoder does: see qc_effort in csrc/quantcli.h."""

    gptq: bool = True
    polish: bool = True
    rounds: int = 3
    sweeps: int = 2
    guard: bool = True  # rows whose loss does not fall keep their blocks
    recode: bool = False  # a refit looks for scales with codes of their own too


def columns_together(type_id: int) -> int:
    """Columns that the type codes together, 1 or 8; 0: it has no compensating encoder."""
    return int(library()[1].qc_columns_together(type_id))


def compensate(
    type_id: int, target: Floats, blocks: Bytes, metric: Metric, effort: Effort, *, isa: str | None = None
) -> tuple[int, Floats]:
    """Better blocks of ``target`` float32 [rows, columns] for a metric, in place of ``blocks`` uint8 [rows, bytes].

    Returns how many rows kept theirs, and what each row costs now, float32 [rows], the same on every machine.
    Raises NonFiniteWeight with ``row`` and ``column`` (a weight, or a scale in ``blocks``), NoKernel, and ValueError
    for arrays that do not fit.
    """
    ffi, lib = library()
    rows, columns = target.shape
    width = tensor_types.row_bytes(tensor_types.BY_ID[type_id], columns)
    if target.dtype != numpy.float32 or not target.flags.c_contiguous or len(metric.order) != columns:
        raise ValueError(f"need C-contiguous float32 rows of {len(metric.order)} columns, got {target.dtype} {columns}")
    if columns_together(type_id) not in (0, metric.together):
        raise ValueError(f"this type codes {columns_together(type_id)} columns together, the metric {metric.together}")
    if blocks.dtype != numpy.uint8 or not blocks.flags.c_contiguous or blocks.shape != (rows, width):
        raise ValueError(f"need C-contiguous uint8 blocks {(rows, width)}, got {blocks.dtype} {blocks.shape}")
    matrices = (metric.hessian, metric.permuted, metric.factor, metric.pivots)
    arrays = [ffi.from_buffer("float[]", matrix) for matrix in matrices]
    order = ffi.from_buffer("int32_t[]", metric.order)
    place, kept, losses = ffi.new("qc_place *"), ffi.new("int64_t *"), numpy.zeros(rows, numpy.float32)
    status = lib.qc_compensate(
        isa_index(isa),
        type_id,
        ffi.from_buffer("float[]", target),
        rows,
        columns,
        ffi.new("qc_metric *", (*arrays, order, metric.together)),
        ffi.new("qc_effort *", astuple(effort)),
        ffi.from_buffer("uint8_t[]", blocks, require_writable=True),
        kept,
        ffi.from_buffer("float[]", losses, require_writable=True),
        place,
    )
    if status != OK:
        raise failure(status, type_id, place)
    return int(kept[0]), losses
