"""AWQ as AutoAWQ writes it (version gemm): codes of four bits in words along the outputs.

``X.qweight`` I32 [inputs, outputs / 8]: nibble k of a word, from the low one on, is output 0, 2, 4, 6, 1, 3, 5, 7 of
its eight; ``X.qzeros`` I32 [groups, outputs / 8] in the same order; ``X.scales`` [groups, outputs]. The value is
(code - zero) * scale, here in float32 (AutoAWQ multiplies in half precision).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy

from quantcli.errors import ShapeMismatch, UnsupportedFile
from quantcli.ggml import packing
from quantcli.sources.files import StoredTensor
from quantcli.sources.jsonfile import text_in
from quantcli.sources.packed.gptq import columns_of, group_of, scales_of
from quantcli.sources.packed.group import Format, Group, Settings, check, whole_number
from quantcli.sources.packed.rows import Band, Turned
from quantcli.sources.packed.scales import FLOATS, Floats
from quantcli.sources.tensor import LogicalTensor

CODES, ZEROS, SCALES = ".qweight", ".qzeros", ".scales"
_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # the output of each nibble
_VERSIONS = ("gemm",)


class _Matrix(Turned):
    """The weights [outputs, inputs]."""

    packing = packing.NIBBLES

    def __init__(self, parts: Mapping[str, StoredTensor], group: int) -> None:
        self._parts, self.group = parts, group
        inputs, words = parts[CODES].shape
        super().__init__(words * 8, inputs)

    def band(self, start: int, stop: int) -> Band:
        words = columns_of(self._parts[CODES], start // 8, stop // 8).view(numpy.uint32)
        codes = packing.turn_nibbles(words).view(numpy.uint8)
        return Band(codes, scales_of(self._parts[SCALES], start, stop), self._zeros(start, stop))

    def _zeros(self, start: int, stop: int) -> Floats:
        words = columns_of(self._parts[ZEROS], start // 8, stop // 8).view(numpy.uint32)
        zeros = numpy.empty((*words.shape, 8), numpy.float32)
        for nibble, output in enumerate(_ORDER):
            zeros[:, :, output] = (words >> numpy.uint32(4 * nibble)) & numpy.uint32(15)
        return numpy.ascontiguousarray(zeros.reshape(len(words), -1).T)


def logical(settings: Settings, group: Group) -> Iterator[LogicalTensor]:
    """The one tensor that the parts are. Raises UnsupportedFile, ShapeMismatch, BadConfig."""
    codes = group.parts[CODES]
    check(codes, ("I32",))
    version, bits = (text_in(settings, "version") or "gemm").lower(), whole_number(settings, "bits", "w_bit")
    if version not in _VERSIONS or bits not in (4, None):
        raise UnsupportedFile(
            f"is packed as AWQ {version} of {bits} bits; gemm of 4 bits can be read here",
            where=codes.where,
            hint="use the original weights",
        )
    if len(codes.shape) != 2 or codes.shape[0] % 8:
        raise ShapeMismatch(
            f"has the shape {list(codes.shape)}, AWQ has [inputs, outputs / 8] with inputs in eights",
            where=codes.where,
        )
    inputs, words = codes.shape
    size = group_of(settings, group.parts, inputs, "group_size", "q_group_size")
    groups = group.parts[SCALES].shape[0]
    check(group.parts[SCALES], FLOATS, (groups, words * 8))
    check(group.parts[ZEROS], ("I32",), (groups, words))
    yield LogicalTensor(f"{group.name}.weight", (words * 8, inputs), _Matrix(group.parts, size), codes)


def recognise(settings: Settings, tensors: Mapping[str, StoredTensor]) -> bool:
    return any(name.endswith((CODES, ZEROS, SCALES)) for name in tensors)


def _of_auto_round(settings: Settings, tensors: Mapping[str, StoredTensor]) -> bool:
    return (text_in(settings, "packing_format") or "").endswith("awq") and recognise(settings, tensors)


_PARTS = (CODES, ZEROS, SCALES)
FORMATS = (
    Format("awq", _PARTS, (CODES, SCALES), recognise, logical),
    Format("auto-round", _PARTS, (CODES, SCALES), _of_auto_round, logical),
)
