"""GPTQ: codes of 2, 4 or 8 bits in words along the inputs, one scale and zero per group of inputs and output.

``X.qweight`` I32 [inputs * bits / 32, outputs], the low bits first; ``X.scales`` [groups, outputs]; ``X.qzeros`` I32
[groups, outputs * bits / 32]: what is stored is the zero less 1, but not in checkpoint format gptq_v2 (and 2^bits - 1
becomes 2^bits); ``X.g_idx`` I32 [inputs], the group of every input, in any order where the weights were sorted by
activations. The value is (code - zero) * scale.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy
from numpy.typing import NDArray

from quantcli.errors import ShapeMismatch, UnsupportedFile
from quantcli.ggml import packing
from quantcli.sources.files import StoredTensor
from quantcli.sources.jsonfile import object_in, text_in
from quantcli.sources.packed.group import Format, Group, Settings, bad_setting, check, whole_number
from quantcli.sources.packed.pack_quantized import PACKINGS, column_groups
from quantcli.sources.packed.rows import Band, Turned
from quantcli.sources.packed.scales import FLOATS, Floats, as_floats, checked
from quantcli.sources.tensor import LogicalTensor

CODES, ZEROS, SCALES, ORDER = ".qweight", ".qzeros", ".scales", ".g_idx"
_WORD = 32
_FORMATS = ("gptq", "gptq_v2")
_OWN = ("dynamic", "extra_config")  # settings of single modules


class _Matrix(Turned):
    """The weights [outputs, inputs]."""

    def __init__(self, parts: Mapping[str, StoredTensor], bits: int, group: int, shift: int, ordered: bool) -> None:
        self._parts, self._shift = parts, shift
        self.packing, self.group = PACKINGS[bits], group
        words, outputs = parts[CODES].shape
        self._ordered = ordered
        super().__init__(outputs, words * _WORD // bits)

    def band(self, start: int, stop: int) -> Band:
        if not self._ordered and ORDER in self._parts:
            self.index, self._ordered = self._order(), True
        words = columns_of(self._parts[CODES], start, stop).view(numpy.uint32)
        codes = packing.turn_words(words).view(numpy.uint8)
        return Band(codes, scales_of(self._parts[SCALES], start, stop), self._zeros(start, stop))

    def _order(self) -> NDArray[numpy.int32] | None:
        """The group of every input; None where groups follow each other."""
        groups = self._parts[SCALES].shape[0]
        found = column_groups(self._parts[ORDER], self.columns, groups)
        plain = numpy.arange(self.columns) // self.group
        return None if numpy.array_equal(found, plain) else found

    def _zeros(self, start: int, stop: int) -> Floats:
        bits = self.packing.bits
        per_word = _WORD // bits
        words = columns_of(self._parts[ZEROS], start // per_word, -(-stop // per_word)).view(numpy.uint32)
        shifts = (numpy.arange(per_word) * bits).astype(numpy.uint32)
        codes = (words[:, :, None] >> shifts) & numpy.uint32((1 << bits) - 1)
        zeros = codes.reshape(len(words), -1)[:, : stop - start].astype(numpy.float32) + self._shift
        return numpy.ascontiguousarray(zeros.T)


def columns_of(part: StoredTensor, start: int, stop: int) -> NDArray[numpy.uint8]:
    """Columns ``start`` to ``stop`` of a matrix as it is stored: uint8 [rows, bytes], C order."""
    return numpy.ascontiguousarray(part.reader().gather(numpy.arange(part.rows), slice(start, stop)))


def scales_of(part: StoredTensor, start: int, stop: int) -> Floats:
    """Scales [groups, outputs] of some outputs as float32 [outputs, groups]. Raises MalformedFile for a bad one."""
    values = as_floats(part, columns_of(part, start, stop), stop - start)
    return numpy.ascontiguousarray(checked(values, part).T)


def stated(settings: Settings, *keys: str) -> list[int]:
    """What config.json states under one of ``keys``: for all modules, then for single ones. Raises BadConfig.

    ``dynamic`` (GPTQModel) and ``extra_config`` (AutoRound) give modules numbers of their own, by name or pattern.
    """
    own = [one for place in _OWN for one in object_in(settings, place).values() if isinstance(one, Mapping)]
    found = (whole_number(one, *keys) for one in (settings, *own))
    return list(dict.fromkeys(number for number in found if number is not None))


def group_of(settings: Settings, parts: Mapping[str, StoredTensor], inputs: int, *keys: str) -> int:
    """Inputs under one scale: the first size that config.json states for any module which the scales' shape confirms.

    Raises BadConfig, ShapeMismatch.
    """
    scales, known = parts[SCALES], stated(settings, *keys) or [-1]
    if 0 in known:
        raise bad_setting(f"{keys[0]} is 0")
    sizes = [inputs if size < 0 else size for size in known]
    groups = scales.shape[0] if len(scales.shape) == 2 else 0
    for size in sizes:
        if groups == -(-inputs // size):
            return size
    if any(place in settings for place in _OWN) and groups and inputs % groups == 0:
        return inputs // groups
    raise ShapeMismatch(
        f"has the shape {list(scales.shape)}; {inputs} inputs in groups of {sizes[0]} ask for "
        f"{-(-inputs // sizes[0])} rows",
        where=scales.where,
        hint="config.json states other groups than these scales have: get the checkpoint again",
    )


def code_bits(settings: Settings, parts: Mapping[str, StoredTensor]) -> int:
    """Bits of a code; of several that config.json states, those that the shape of the zeros asks for.

    Raises BadConfig, UnsupportedFile.
    """
    known, codes, zeros = stated(settings, "bits", "w_bit"), parts[CODES], parts[ZEROS]
    if not known:
        raise bad_setting("bits is missing")
    if len(known) > 1:  # 16: modules that are not packed
        width, words = codes.shape[-1], zeros.shape[-1] if zeros.shape else 0
        known = [bits for bits in known if -(-width * bits // _WORD) == words] or known
    if known[0] not in PACKINGS:
        raise UnsupportedFile(
            f"packs codes of {known[0]} bits; {', '.join(map(str, PACKINGS))} can be read here",
            where=codes.where,
            hint="use the original weights",
        )
    return known[0]


def _zero_shift(settings: Settings, codes: StoredTensor) -> int:
    """What has to be added to stored zeros. Raises UnsupportedFile."""
    stated = text_in(settings, "checkpoint_format") or "gptq"
    if stated not in _FORMATS:
        raise UnsupportedFile(
            f"is packed for {stated}; the checkpoint formats {' and '.join(_FORMATS)} can be read here",
            where=codes.where,
            hint="save the model in the format gptq, or use the original weights",
        )
    return int(stated == "gptq")


def logical(settings: Settings, group: Group) -> Iterator[LogicalTensor]:
    """The one tensor that the parts are. Raises UnsupportedFile, ShapeMismatch, BadConfig."""
    codes, order = group.parts[CODES], group.parts.get(ORDER)
    check(codes, ("I32",))
    if len(codes.shape) != 2:
        raise ShapeMismatch(f"has the shape {list(codes.shape)}, GPTQ has [words, outputs]", where=codes.where)
    bits = code_bits(settings, group.parts)
    words, outputs = codes.shape
    inputs = words * _WORD // bits
    size = group_of(settings, group.parts, inputs, "group_size")
    groups = group.parts[SCALES].shape[0]
    check(group.parts[SCALES], FLOATS, (groups, outputs))
    check(group.parts[ZEROS], ("I32",), (groups, -(-outputs * bits // _WORD)))
    if order is not None:
        check(order, ("I32", "I64"), (inputs,))
    elif settings.get("desc_act") is True:
        raise ShapeMismatch(
            "has no g_idx, which tells the order of its inputs (desc_act)",
            where=codes.where,
            hint="a shard may be missing: get the checkpoint again",
        )
    view = _Matrix(group.parts, bits, size, _zero_shift(settings, codes), order is None)
    yield LogicalTensor(f"{group.name}.weight", (outputs, inputs), view, codes)


def recognise(settings: Settings, tensors: Mapping[str, StoredTensor]) -> bool:
    return any(name.endswith((CODES, ZEROS, SCALES)) for name in tensors)


def _of_auto_round(settings: Settings, tensors: Mapping[str, StoredTensor]) -> bool:
    packed = (text_in(settings, "packing_format") or "auto_round:auto_gptq").endswith("gptq")
    return packed and recognise(settings, tensors)


_PARTS = (CODES, ZEROS, SCALES, ORDER)
FORMATS = (
    Format("gptq", _PARTS, (CODES, SCALES), recognise, logical, frozenset({ORDER})),
    Format("auto-round", _PARTS, (CODES, SCALES), _of_auto_round, logical, frozenset({ORDER})),
)
