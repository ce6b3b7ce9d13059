"""compressed-tensors' packed integers (W4A16, W8A16): codes of 2, 4 or 8 bits in words along the inputs.

``X.weight_packed`` I32 [rows, words], the low bits first; ``X.weight_scale`` one per row or per group of columns;
``X.weight_shape`` I64 [2]. Symmetric codes are offset by half their range; else ``X.weight_zero_point`` I32 [words,
groups] is packed along the rows. ``X.weight_g_idx`` I32 [columns], where there is one, is the group of each column.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property

import numpy
from numpy.typing import NDArray

from quantcli.errors import MalformedFile, ShapeMismatch, UnsupportedFile
from quantcli.ggml import packing
from quantcli.ggml.packing import Packing
from quantcli.sources.files import StoredTensor
from quantcli.sources.jsonfile import object_in
from quantcli.sources.packed.group import Format, Group, Settings, check, of_dtypes, whole_number
from quantcli.sources.packed.integers import stated_tile
from quantcli.sources.packed.rows import Codes, Scaled
from quantcli.sources.packed.scales import Floats, Indices, Tiles, tiles
from quantcli.sources.tensor import LogicalTensor

CODES, SCALE, SHAPE = ".weight_packed", ".weight_scale", ".weight_shape"
ZERO, ORDER = ".weight_zero_point", ".weight_g_idx"
PACKINGS: Mapping[int, Packing] = {2: packing.PAIRS, 4: packing.NIBBLES, 8: packing.BYTES}
_WORD = 32  # bits


class PackedIntegers(Scaled):
    """As `Scaled`; the order of the groups is read with the first rows."""

    def __init__(self, codes: Codes, scale: Tiles, zero: Zeros | None, order: StoredTensor | None) -> None:
        offset = 1 << (codes.packing.bits - 1)

        def middle(index: Indices) -> Floats:
            return numpy.full((len(index), scale.across), offset, numpy.float32)

        super().__init__(codes, scale.read, group=scale.width, zero=zero.read if zero else middle)
        self._order, self._groups = order, scale.across

    def _numbers(self, index: Indices) -> tuple[Floats, Floats | None]:
        if self._order is not None and self._index is None:
            self._index = column_groups(self._order, self.columns, self._groups)
        return super()._numbers(index)


class Zeros:
    """Zero points that are packed along the rows, words [rows * bits / 32, groups]."""

    def __init__(self, part: StoredTensor, bits: int, rows: int, groups: int) -> None:
        check(part, ("I32",), (-(-rows * bits // _WORD), groups))
        self._part, self._bits = part, bits

    @cached_property
    def _words(self) -> NDArray[numpy.uint32]:
        raw = self._part.read_bytes(0, self._part.nbytes)
        return numpy.frombuffer(raw, numpy.uint32).reshape(self._part.shape)

    def read(self, index: Indices) -> Floats:
        """float32 [len(index), groups]."""
        word, place = numpy.divmod(index, _WORD // self._bits)
        shift = (place * self._bits).astype(numpy.uint32)[:, None]
        codes = (self._words[word] >> shift) & numpy.uint32((1 << self._bits) - 1)
        return codes.astype(numpy.float32)


def column_groups(part: StoredTensor, columns: int, groups: int) -> NDArray[numpy.int32]:
    """The group of every column: int32 [columns]. Raises MalformedFile for one beyond ``groups``."""
    dtype = {"I32": numpy.int32, "I64": numpy.int64}[part.dtype]
    index = numpy.frombuffer(part.read_bytes(0, part.nbytes), dtype)
    beyond = numpy.flatnonzero((index < 0) | (index >= groups))
    if len(beyond):
        raise MalformedFile(
            f"puts column {int(beyond[0])} into group {int(index[beyond[0]])}; there are {groups}",
            where=part.where,
            hint="codes and scales do not belong together: get the checkpoint again",
        )
    return index.astype(numpy.int32)


def true_shape(part: StoredTensor) -> tuple[int, int]:
    """Rows and columns as ``weight_shape`` says. Raises UnsupportedFile, ShapeMismatch, MalformedFile."""
    check(part, ("I64", "I32"), (2,))
    dtype = {"I32": numpy.int32, "I64": numpy.int64}[part.dtype]
    rows, columns = numpy.frombuffer(part.read_bytes(0, part.nbytes), dtype).tolist()
    if rows <= 0 or columns <= 0:
        raise MalformedFile(f"says {rows} x {columns}, which no matrix is", where=part.where)
    return rows, columns


def code_bits(settings: Settings, codes: StoredTensor, columns: int) -> int:
    """Bits of a code: what config.json states, held against the words of a row, which tell where it is silent.

    Raises BadConfig, ShapeMismatch, UnsupportedFile.
    """
    groups = object_in(settings, "config_groups")
    stated = {whole_number(object_in(group, "weights"), "num_bits") for group in groups.values()} - {None}
    words = codes.shape[1]
    fitting = [bits for bits in PACKINGS if -(-columns * bits // _WORD) == words]
    if stated and not stated & set(PACKINGS):
        found = ", ".join(map(str, sorted(bits for bits in stated if bits is not None)))
        raise UnsupportedFile(
            f"packs codes of {found} bits; {', '.join(map(str, PACKINGS))} can be read here",
            where=codes.where,
            hint="use the original weights",
        )
    chosen = [bits for bits in fitting if not stated or bits in stated]
    if not chosen:
        raise ShapeMismatch(
            f"has {words} words a row; {columns} codes"
            + (f" of {' or '.join(str(bits) for bits in sorted(filter(None, stated)))} bits" if stated else "")
            + " take another number",
            where=codes.where,
            hint="config.json states other codes than these, or weight_shape is wrong: get the checkpoint again",
        )
    return chosen[0]


def logical(settings: Settings, group: Group) -> Iterator[LogicalTensor]:
    """The one tensor that the parts are. Raises UnsupportedFile, ShapeMismatch, MalformedFile, BadConfig."""
    codes, order = group.parts[CODES], group.parts.get(ORDER)
    check(codes, ("I32",))
    rows, columns = true_shape(group.parts[SHAPE])
    if len(codes.shape) != 2 or codes.shape[0] != rows:
        raise ShapeMismatch(
            f"has the shape {list(codes.shape)}, weight_shape says {rows} rows of {columns}",
            where=codes.where,
            hint="codes and shape do not belong together: get the checkpoint again",
        )
    bits = code_bits(settings, codes, columns)
    held = Codes(codes, PACKINGS[bits], rows, columns, 4 * codes.shape[1])
    scale = tiles(group.parts[SCALE], (rows, columns), stated_tile(settings))
    zero = Zeros(group.parts[ZERO], bits, rows, scale.across) if ZERO in group.parts else None
    if order is not None:
        check(order, ("I32", "I64"), (columns,))
    view = PackedIntegers(held, scale, zero, order)
    yield LogicalTensor(f"{group.name}.weight", (rows, columns), view, codes)


def recognise(settings: Settings, tensors: Mapping[str, StoredTensor]) -> bool:
    return any(name.endswith(CODES) for name in tensors)


FORMAT = Format(
    "compressed-tensors",
    (CODES, SCALE, SHAPE, ZERO, ORDER),
    (CODES,),
    recognise,
    logical,
    frozenset({ZERO, ORDER}),
    takes=of_dtypes(CODES, "I32"),
)
