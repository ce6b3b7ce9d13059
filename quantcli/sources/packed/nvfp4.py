"""NVFP4 of ModelOpt and compressed-tensors: 4-bit floats in groups of 16 with an 8-bit float each, and one number more.

``X.weight`` or ``X.weight_packed`` U8 [rows, columns / 2], the low four bits first; ``X.weight_scale`` E4M3 [rows,
columns / 16]; ``X.weight_scale_2`` one number, or its reciprocal ``X.weight_global_scale``. The same codes and scales
are the tensor type NVFP4 in another order, so they are copied; the number becomes the tensor ``X.scale`` of the GGUF,
and ``X.input_scale`` (``X.input_global_scale``) goes with it. Metadata list the matrices whose inputs keep 16 bits
(ModelOpt's W4A16_NVFP4). Rows that are no multiple of 64 are decoded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy
from numpy.typing import NDArray

from quantcli.errors import MalformedFile, ShapeMismatch
from quantcli.ggml import tensor_types
from quantcli.sources.factors import Factors
from quantcli.sources.files import StoredTensor
from quantcli.sources.jsonfile import object_in, text_in
from quantcli.sources.packed.group import Format, Group, Settings, check, of_dtypes
from quantcli.sources.packed.scales import Floats, Indices, one_number
from quantcli.sources.tensor import LogicalTensor
from quantcli.views import Computed, Reader, cut_columns

_GROUP, _SUPER = 16, 64  # weights under one scale, and in a block of the tensor type
_NVFP4 = tensor_types.BY_NAME["NVFP4"]
_SCALE = ".weight_scale"
_NAN = 0x7F
_WIDE_INPUTS = "W4A16_NVFP4"
# The value of each byte of a scale, without its sign; that of each code.
_E4M3 = numpy.array(
    [m * 2.0**-9 if e == 0 else (1 + m / 8) * 2.0 ** (e - 7) for e in range(16) for m in range(8)], numpy.float32
)
_LEVELS = numpy.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], numpy.float32)


class _Parts:
    """Codes and scales of some rows, checked."""

    def __init__(self, codes: StoredTensor, scales: StoredTensor) -> None:
        self._codes, self._scales = codes, scales
        self.rows, self.columns = codes.rows, codes.columns * 2

    def codes(self, index: Indices) -> NDArray[numpy.uint8]:
        """One code a byte: [len(index), columns]."""
        raw = self._codes.reader().gather(index)
        return numpy.stack([raw & 15, raw >> 4], axis=-1).reshape(len(index), self.columns)

    def scales(self, index: Indices) -> NDArray[numpy.uint8]:
        """The bytes of the scales without their signs. Raises MalformedFile for one that is NaN."""
        raw: NDArray[numpy.uint8] = self._scales.reader().gather(index) & numpy.uint8(0x7F)
        bad = numpy.argwhere(raw == _NAN)
        if len(bad):
            row, column = bad[0].tolist()
            raise MalformedFile(
                f"the scale in row {int(index[row])}, column {column} is NaN",
                where=self._scales.where,
                hint="the checkpoint is damaged: get it again",
            )
        return raw


class _Repacked(Reader):
    """GGUF's blocks of 36 bytes: four scales, then byte j of each group holds its weights j and j + 8."""

    def __init__(self, parts: _Parts) -> None:
        self._parts = parts
        self.rows, self.columns, self.stored = parts.rows, parts.columns, _NVFP4

    def gather(self, index: NDArray[numpy.intp], columns: slice | None = None) -> NDArray[numpy.uint8]:
        count = self.columns // _SUPER
        blocks = numpy.empty((len(index), count, _NVFP4.bytes), numpy.uint8)
        codes = self._parts.codes(index).reshape(len(index), count, 4, _GROUP)
        blocks[..., :4] = self._parts.scales(index).reshape(len(index), count, 4)
        blocks[..., 4:] = (codes[..., :8] | codes[..., 8:] << 4).reshape(len(index), count, 32)
        return cut_columns(blocks.reshape(len(index), -1), _NVFP4, columns)


class _Exact(Computed):
    """The values: level * scale (exact), times the number, in float32."""

    def __init__(self, parts: _Parts, factor: float) -> None:
        self._parts, self._factor = parts, numpy.float32(factor)
        self.rows, self.columns = parts.rows, parts.columns

    def values(self, index: Indices) -> Floats:
        scales = numpy.repeat(_E4M3[self._parts.scales(index)], _GROUP, axis=1)
        values = _LEVELS[self._parts.codes(index)]
        values *= scales
        values *= self._factor
        return values


def _number(group: Group, endings: tuple[str, str]) -> float:
    """A factor, stored as it is or as its reciprocal; 1 where there is none."""
    plain, reciprocal = (group.parts.get(ending) for ending in endings)
    if plain is not None:
        return one_number(plain)
    if reciprocal is not None:
        return float(numpy.float32(1) / numpy.float32(one_number(reciprocal)))
    return 1.0


def _algorithm(settings: Settings, module: str) -> str | None:
    """ModelOpt's ``quant_algo`` of a module: its own, that of the nearest module around it, or that of all."""
    layers = object_in(settings, "quantized_layers")
    while module:
        if module in layers:
            return text_in(layers[module], "quant_algo")
        module = module.rpartition(".")[0]
    return text_in(settings, "quant_algo")


def logical(settings: Settings, group: Group) -> Iterator[LogicalTensor]:
    """The weights, with the numbers beside them. Raises UnsupportedFile, ShapeMismatch, MalformedFile."""
    ending = next(ending for ending in (".weight_packed", ".weight") if ending in group.parts)
    codes, scales = group.parts[ending], group.parts[_SCALE]
    check(codes, ("U8",))
    check(scales, ("F8_E4M3",))
    columns = codes.columns * 2
    if len(codes.shape) < 2 or columns % _GROUP:
        raise ShapeMismatch(f"has the shape {list(codes.shape)}, NVFP4 has [rows, groups * 8]", where=codes.where)
    check(scales, ("F8_E4M3",), (*codes.shape[:-1], columns // _GROUP))
    factor = _number(group, (".weight_scale_2", ".weight_global_scale"))
    inputs = _number(group, (".input_scale", ".input_global_scale"))
    parts, shape = _Parts(codes, scales), (*codes.shape[:-1], columns)
    exact, name = _Exact(parts, factor), f"{group.name}.weight"
    if columns % _SUPER:
        yield LogicalTensor(name, shape, exact, codes)
        return
    wide = _algorithm(settings, group.name) == _WIDE_INPUTS
    yield LogicalTensor(name, shape, _Repacked(parts), codes, exact, Factors(factor, inputs, wide))


def recognise(settings: Settings, tensors: Mapping[str, StoredTensor]) -> bool:
    return any(tensor.dtype == "F8_E4M3" and name.endswith(_SCALE) for name, tensor in tensors.items())


def _format(method: str, codes: str, factor: str, inputs: str) -> Format:
    return Format(
        method,
        (codes, _SCALE, factor, inputs),
        (_SCALE,),
        recognise,
        logical,
        frozenset({factor, inputs}),
        takes=lambda parts: of_dtypes(codes, "U8")(parts) and of_dtypes(_SCALE, "F8_E4M3")(parts),
    )


MODELOPT = _format("modelopt", ".weight", ".weight_scale_2", ".input_scale")
COMPRESSED = _format("compressed-tensors", ".weight_packed", ".weight_global_scale", ".input_global_scale")
