"""MXFP4: 4-bit floats in groups of 32 with one power of two each.

As gpt-oss is released, ``X_blocks`` uint8 [..., rows, groups, 16] holds two codes a byte, ``X_scales`` uint8 [...,
rows, groups] the exponents plus 127; the unpacked X is [..., groups * 32, rows], the transpose (transformers,
``convert_moe_packed_tensors``). compressed-tensors and Quark have ``X.weight_packed`` or ``X.weight`` uint8 [rows,
columns / 2] and ``X.weight_scale`` uint8 [rows, columns / 32], not transposed. The same codes and scales are the tensor
type MXFP4, in another order, so nothing is decoded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod

import numpy
from numpy.typing import NDArray

from quantcli.errors import MalformedFile, ShapeMismatch
from quantcli.ggml import tensor_types
from quantcli.sources.files import StoredTensor
from quantcli.sources.packed.group import Format, Group, Settings, check, of_dtypes
from quantcli.sources.tensor import LogicalTensor
from quantcli.views import Reader, Reshaped, cut_columns, transpose

_GROUP = 32  # values under one scale
_CODES, _SCALES = "_blocks", "_scales"
_ROW_SCALES = ".weight_scale"
_NAN = 255
_MXFP4 = tensor_types.BY_NAME["MXFP4"]


class _Repacked(Reader):
    """Checkpoint MXFP4 (codes [rows, groups * 16], scales [rows, groups]) as GGUF's MXFP4 blocks of 17 bytes.

    A source byte b of a group holds values 2b (low nibble) and 2b+1; a GGUF byte j holds values j and j + 16.
    """

    def __init__(self, codes: StoredTensor, scales: StoredTensor) -> None:
        self._groups, self._where = scales.columns, scales.where
        self._codes, self._scales = Reshaped(codes.reader(), self._groups * (_GROUP // 2)), scales.reader()
        self.rows, self.columns, self.stored = scales.rows, self._groups * _GROUP, _MXFP4

    def gather(self, index: NDArray[numpy.intp], columns: slice | None = None) -> NDArray[numpy.uint8]:
        scales = self._scales.gather(index)
        if (scales == _NAN).any():
            raise MalformedFile(
                "a scale is NaN", where=self._where, hint="the checkpoint is damaged, or its weights overflowed"
            )
        codes = self._codes.gather(index).reshape(len(index), self._groups, 16)
        values = numpy.stack([codes & 15, codes >> 4], axis=-1).reshape(len(index), self._groups, _GROUP)
        blocks = numpy.empty((len(index), self._groups, _MXFP4.bytes), numpy.uint8)
        blocks[..., 0] = scales
        blocks[..., 1:] = values[..., :16] | values[..., 16:] << 4
        return cut_columns(blocks.reshape(len(index), -1), _MXFP4, columns)


def recognise(settings: Settings, tensors: Mapping[str, StoredTensor]) -> bool:
    """The settings say no more than the method: packed tensors have to be there."""
    return any(name.endswith(_CODES) for name in tensors)


def logical(settings: Settings, group: Group) -> Iterator[LogicalTensor]:
    """The one tensor that codes and scales are. Raises UnsupportedFile, ShapeMismatch."""
    codes, scales = group.parts[_CODES], group.parts[_SCALES]
    check(codes, ("U8",))
    if len(codes.shape) < 3 or codes.shape[-1] != _GROUP // 2:
        raise ShapeMismatch(
            f"has the shape {list(codes.shape)}, MXFP4 has [rows, groups, {_GROUP // 2}]",
            where=codes.where,
            hint="the checkpoint is damaged, or packed in a way that quantcli does not know",
        )
    check(scales, ("U8",), codes.shape[:-1])
    *lead, rows, groups = scales.shape
    view = _Repacked(codes, scales)
    yield LogicalTensor(group.name, (*lead, groups * _GROUP, rows), transpose(view, prod(lead)), codes)


def logical_rows(settings: Settings, group: Group) -> Iterator[LogicalTensor]:
    """The same where rows are stored as they are. Raises UnsupportedFile, ShapeMismatch."""
    ending = next(ending for ending in (".weight_packed", ".weight") if ending in group.parts)
    codes, scales = group.parts[ending], group.parts[_ROW_SCALES]
    check(codes, ("U8", "I8"))
    columns = codes.columns * 2
    if len(codes.shape) < 2 or columns % _GROUP:
        raise ShapeMismatch(f"has the shape {list(codes.shape)}, MXFP4 has [rows, groups * 16]", where=codes.where)
    check(scales, ("U8", "F8_E8M0"), (*codes.shape[:-1], columns // _GROUP))
    yield LogicalTensor(f"{group.name}.weight", (*codes.shape[:-1], columns), _Repacked(codes, scales), codes)


def recognise_rows(settings: Settings, tensors: Mapping[str, StoredTensor]) -> bool:
    return any(name.endswith(_ROW_SCALES) and tensor.dtype in ("U8", "F8_E8M0") for name, tensor in tensors.items())


def _format(method: str, codes: str) -> Format:
    def takes(parts: Mapping[str, StoredTensor]) -> bool:
        return of_dtypes(codes, "U8", "I8")(parts) and of_dtypes(_ROW_SCALES, "U8", "F8_E8M0")(parts)

    return Format(method, (codes, _ROW_SCALES), (_ROW_SCALES,), recognise_rows, logical_rows, takes=takes)


COMPRESSED, QUARK = _format("compressed-tensors", ".weight_packed"), _format("quark", ".weight")
FORMAT = Format("mxfp4", (_CODES, _SCALES), (_CODES, _SCALES), recognise, logical, evident=True)
