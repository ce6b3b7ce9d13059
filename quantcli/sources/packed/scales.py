"""Scales of packed weights: where each lies, and what it must not be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TypeAlias

import numpy
from numpy.typing import NDArray

from quantcli.errors import MalformedFile, ShapeMismatch
from quantcli.ggml import tensor_types
from quantcli.sources.files import StoredTensor
from quantcli.sources.packed.group import check

Floats: TypeAlias = NDArray[numpy.float32]
Indices: TypeAlias = NDArray[numpy.intp]

FLOATS = ("F32", "BF16", "F16", "F64")
POWERS = "F8_E8M0"  # exponents of two, plus 127
_POWER_CODE_NAN = 255


def as_floats(part: StoredTensor, raw: NDArray[numpy.uint8], columns: int) -> Floats:
    """Rows of stored bytes of a tensor of scales, uint8 [rows, bytes], as float32 [rows, columns]."""
    from quantcli.ggml import kernels  # headers can be looked at where the kernels are not built

    if part.dtype == "I8":  # zero points
        return raw.view(numpy.int8).astype(numpy.float32)
    if part.type is None:  # powers of two
        powers = numpy.ldexp(numpy.float32(1), raw.astype(numpy.int32) - 127).astype(numpy.float32)
        powers[raw == _POWER_CODE_NAN] = numpy.nan
        return powers
    return kernels.decode(part.type.id, numpy.ascontiguousarray(raw), len(raw), columns)


def checked(values: Floats, part: StoredTensor, first: int = 0, zeros: bool = False) -> Floats:
    """``values`` where each can be a scale. Raises MalformedFile naming the tensor, and the row counted from ``first``.

    ``zeros``: a scale may be 0 (formats that write so what is all zero).
    """
    good = numpy.isfinite(values) if zeros else numpy.isfinite(values) & (values != 0)
    if not good.all():
        row, column = (int(position[0]) for position in numpy.nonzero(~good))
        value = float(values[row, column])
        what = "0" if value == 0 else "NaN" if value != value else "infinite"
        raise MalformedFile(
            f"the scale in row {first + row}, column {column} is {what}",
            where=part.where,
            hint="the checkpoint is damaged, or its weights overflowed when it was packed: get it again",
        )
    return values


@dataclass(frozen=True, slots=True)
class Tiles:
    """One number per tile of ``height`` x ``width`` weights of matrices of ``rows`` rows that lie one below another.

    ``part`` has ``count`` tile rows a matrix (0: one number or row for all matrices) and ``across`` tiles a row.
    """

    part: StoredTensor
    rows: int
    height: int
    width: int
    count: int
    across: int
    zeros: bool = False

    def read(self, index: Indices) -> Floats:
        """float32 [len(index), across]: those of the rows ``index``. Raises MalformedFile for one that is none."""
        if self.count:
            matrix, row = numpy.divmod(index, self.rows)
            wanted = matrix * self.count + row // self.height
        else:
            wanted = numpy.zeros_like(index)
        first, last = (int(wanted.min()), int(wanted.max())) if len(wanted) else (0, 0)
        size = self.part.nbytes * self.across // max(prod(self.part.shape), 1)
        raw = numpy.frombuffer(self.part.read_bytes(first * size, (last + 1) * size), numpy.uint8)
        values = as_floats(self.part, raw.reshape(last + 1 - first, size), self.across)
        checked(values, self.part, first, self.zeros)
        return numpy.ascontiguousarray(values[wanted - first])


def tiles(
    part: StoredTensor, shape: Sequence[int], stated: tuple[int, int] | None = None, *, zeros: bool = False
) -> Tiles:
    """How the numbers of ``part`` cover weights of ``shape`` [..., rows, columns].

    ``stated`` is the size of a tile as config.json says (0: all of that side); without it the shape of ``part`` tells:
    one for all, for each matrix, for each row, or for tiles that divide rows and columns. Raises UnsupportedFile,
    ShapeMismatch.
    """
    check(part, (*FLOATS, POWERS))
    *lead, rows, columns = shape
    own, matrices = part.shape, prod(lead)
    if prod(own) == 1 and (stated is None or matrices * rows * columns == 1 or len(own) < 2):
        return Tiles(part, rows, rows, columns, 0, 1, zeros)
    if lead and prod(own) == matrices:
        return Tiles(part, rows, rows, columns, 1, 1, zeros)
    if stated is not None:
        height, width = stated[0] or rows, stated[1] or columns
        count, across = -(-rows // height), -(-columns // width)
        found = own if len(own) >= 2 else (*own, 1)
        if found[-2:] == (count, across) and prod(own) == matrices * count * across:
            return Tiles(part, rows, height, width, count, across, zeros)
        raise ShapeMismatch(
            f"has the shape {list(own)}; tiles of {height} x {width} of the weights {list(shape)} "
            f"ask for {[*lead, count, across]}",
            where=part.where,
            hint="config.json states other groups than these scales have: get the checkpoint again",
        )
    return _told_by_shape(part, lead, rows, columns, zeros)


def _told_by_shape(part: StoredTensor, lead: Sequence[int], rows: int, columns: int, zeros: bool) -> Tiles:
    own = part.shape
    if own[-1:] == (rows,) and prod(own) == prod(lead) * rows:
        return Tiles(part, rows, 1, columns, rows, 1, zeros)
    if len(own) >= 2 and prod(own[:-2]) == prod(lead):
        count, across = own[-2:]
        if count and across and rows % count == 0 and columns % across == 0:
            return Tiles(part, rows, rows // count, columns // across, count, across, zeros)
    raise ShapeMismatch(
        f"has the shape {list(own)}, which covers weights of {[*lead, rows, columns]} in no known way",
        where=part.where,
        hint="codes and scales do not belong together: get the checkpoint again",
    )


def one_number(part: StoredTensor) -> float:
    """The only number of a tensor of floats. Raises ShapeMismatch, UnsupportedFile, MalformedFile."""
    check(part, FLOATS)
    if prod(part.shape) != 1:
        raise ShapeMismatch(f"has the shape {list(part.shape)}, one number is needed", where=part.where)
    size = tensor_types.row_bytes(part.type, 1) if part.type else 1
    raw = numpy.frombuffer(part.read_bytes(0, size), numpy.uint8).reshape(1, size)
    return float(checked(as_floats(part, raw, 1), part)[0, 0])
