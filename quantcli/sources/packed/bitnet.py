"""BitNet b1.58 as transformers packs it: four ternary weights a byte.

``X.weight`` U8 [rows / 4, columns]: bits 2q and 2q + 1 of row r hold row q * rows / 4 + r, plus 1. ``X.weight_scale``
is one number: weights are divided by it, or multiplied where ``linear_class`` is autobitlinear.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy
from numpy.typing import NDArray

from quantcli.errors import MalformedFile, ShapeMismatch
from quantcli.ggml import packing
from quantcli.sources.files import StoredTensor
from quantcli.sources.jsonfile import text_in
from quantcli.sources.packed.group import Format, Group, Settings, check, of_dtypes
from quantcli.sources.packed.scales import Floats, Indices, one_number
from quantcli.sources.tensor import LogicalTensor
from quantcli.views import Computed

CODES, SCALE = ".weight", ".weight_scale"
_QUARTERS = 4


class _Ternary(Computed):
    """The weights; ``scale`` is read with the first rows."""

    def __init__(self, codes: StoredTensor, scale: StoredTensor, multiplied: bool) -> None:
        self._codes, self._scale, self._multiplied = codes, scale, multiplied
        self.rows, self.columns = codes.rows * _QUARTERS, codes.columns

    def values(self, index: Indices) -> Floats:
        stated = numpy.float32(one_number(self._scale))
        factor = stated if self._multiplied else numpy.float32(1) / stated
        quarter, row = numpy.divmod(index, self._codes.rows)
        raw, shifts = self._codes.reader().gather(row), (2 * quarter).astype(numpy.uint8)
        codes: NDArray[numpy.uint8] = (raw >> shifts[:, None]) & numpy.uint8(3)
        if codes.size and codes.max() == 3:
            bad = int(index[numpy.flatnonzero((codes == 3).any(axis=1))[0]])
            raise MalformedFile(
                f"row {bad} holds a code 3, which is no ternary weight",
                where=self._codes.where,
                hint="the checkpoint is damaged: get it again",
            )
        scale = numpy.full((len(index), 1), factor, numpy.float32)
        return packing.unpack(packing.BYTES, codes, self.columns, scale, zero=numpy.ones_like(scale))


def logical(settings: Settings, group: Group) -> Iterator[LogicalTensor]:
    """The one tensor that codes and scale are. Raises UnsupportedFile, ShapeMismatch."""
    codes, scale = group.parts[CODES], group.parts[SCALE]
    check(codes, ("U8",))
    if len(codes.shape) != 2:
        raise ShapeMismatch(f"has the shape {list(codes.shape)}, BitNet has [rows / 4, columns]", where=codes.where)
    view = _Ternary(codes, scale, text_in(settings, "linear_class") == "autobitlinear")
    yield LogicalTensor(group.name + CODES, (view.rows, view.columns), view, codes)


def recognise(settings: Settings, tensors: Mapping[str, StoredTensor]) -> bool:
    return any(name.endswith(SCALE) for name in tensors)


FORMAT = Format("bitnet", (CODES, SCALE), (SCALE,), recognise, logical, takes=of_dtypes(CODES, "U8"))
