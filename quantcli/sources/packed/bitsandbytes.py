"""bitsandbytes: 4-bit levels (nf4, fp4) in blocks of the flattened matrix, and 8-bit rows.

``X`` holds two codes a byte, the high four bits first, whatever its dtype; ``X.quant_map`` F32 [16] is what they mean;
``X.absmax`` is the factor of each block, in float32 or, with double quantization, 8-bit codes into
``X.nested_quant_map`` F32 [256] times ``X.nested_absmax`` of their own block plus an offset. Sizes and the offset are
JSON in ``X.quant_state.bitsandbytes__nf4``. 8-bit weights are I8 with ``X.SCB`` F32 [rows]: code * SCB / 127.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isfinite, prod

import numpy
from numpy.typing import NDArray

from quantcli.errors import MalformedFile, ShapeMismatch, UnsupportedFile
from quantcli.ggml import packing
from quantcli.sources.files import StoredTensor
from quantcli.sources.jsonfile import parse_object
from quantcli.sources.packed.group import Format, Group, Settings, check, of_dtypes
from quantcli.sources.packed.rows import Codes, Scaled
from quantcli.sources.packed.scales import Floats, Indices, as_floats, checked, tiles
from quantcli.sources.tensor import LogicalTensor
from quantcli.views import Computed

CODES, ABSMAX, LEVELS, NESTED, NESTED_LEVELS = "", ".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map"
STATES = (".quant_state.bitsandbytes__nf4", ".quant_state.bitsandbytes__fp4")
_LARGEST_STATE = 1 << 16  # bytes
_INT8_FACTOR = numpy.float32(7.874015718698502e-3)  # 1 / 127, as bitsandbytes multiplies


@dataclass(frozen=True, slots=True)
class State:
    """What the JSON of a matrix says: weights under one factor, and of factors that are codes themselves."""

    shape: tuple[int, ...]
    block: int
    nested_block: int
    offset: float

    @property
    def blocks(self) -> int:
        return -(-prod(self.shape) // self.block)


class _Blocks(Computed):
    """Blocks of the flattened matrix, which may begin within rows."""

    def __init__(self, parts: Mapping[str, StoredTensor], state: State) -> None:
        self._parts, self._state = parts, state
        self.rows, self.columns = prod(state.shape[:-1]), state.shape[-1]

    def values(self, index: Indices) -> Floats:
        wanted, back = numpy.unique(index, return_inverse=True)
        runs = numpy.split(wanted, numpy.flatnonzero(numpy.diff(wanted) > 1) + 1) if len(wanted) else []
        parts = [self._span(int(run[0]), int(run[-1]) + 1) for run in runs]
        found: Floats = numpy.concatenate(parts)[back] if parts else numpy.empty((0, self.columns), numpy.float32)
        return found

    def read_rows(self, start: int, stop: int, out: Floats | None = None) -> Floats:
        if out is None:
            return self._span(start, stop)
        out[:] = self._span(start, stop)
        return out

    def _span(self, start: int, stop: int) -> Floats:
        size, total = self._state.block, prod(self._state.shape)
        first, last = start * self.columns // size, min(-(-stop * self.columns // size), self._state.blocks)
        low, high = first * size, min(last * size, total)
        raw = numpy.frombuffer(self._parts[CODES].read_bytes(low // 2, -(-high // 2)), numpy.uint8)
        count = len(raw) * 2
        found: Floats = packing.unpack(
            packing.NIBBLES_HIGH,
            raw,
            count,
            self._factors(first, last)[None, :],
            group=size,
            levels=_floats(self._parts[LEVELS]),
        )[0]
        inside: Floats = found[start * self.columns - low : stop * self.columns - low]
        return inside.reshape(stop - start, self.columns)

    def _factors(self, first: int, last: int) -> Floats:
        """The factors of blocks ``first`` to ``last``. Raises MalformedFile."""
        part = self._parts[ABSMAX]
        width = part.nbytes // self._state.blocks
        raw = numpy.frombuffer(part.read_bytes(first * width, last * width), numpy.uint8)
        if NESTED not in self._parts:
            return _row(as_floats(part, raw.reshape(1, -1), last - first), part)
        levels, factors = _floats(self._parts[NESTED_LEVELS]), _floats(self._parts[NESTED])
        outer = factors[numpy.arange(first, last) // self._state.nested_block]
        return _row((levels[raw] * outer + numpy.float32(self._state.offset))[None, :], part)


class _Bytes(Scaled):
    """8-bit rows."""

    def _decoded(self, raw: NDArray[numpy.uint8], numbers: tuple[Floats, Floats | None], out: Floats | None) -> Floats:
        found = super()._decoded(raw, numbers, out)
        found *= _INT8_FACTOR
        return found


def _floats(part: StoredTensor) -> Floats:
    """A whole small tensor of float32. Raises MalformedFile for a number that is none."""
    return _row(numpy.frombuffer(part.read_bytes(0, part.nbytes), numpy.float32).reshape(1, -1).copy(), part)


def _row(values: Floats, part: StoredTensor) -> Floats:
    """The only row of ``values``, each a number. Raises MalformedFile."""
    row: Floats = checked(values, part, zeros=True)[0]
    return row


def read_state(part: StoredTensor) -> State:
    """Raises UnsupportedFile, MalformedFile."""
    check(part, ("U8",))
    if part.nbytes > _LARGEST_STATE:
        raise MalformedFile(f"has {part.nbytes} bytes, more than such a state may have", where=part.where)
    found = parse_object(bytes(part.read_bytes(0, part.nbytes)), part.where)
    shape, offset = found.get("shape"), found.get("nested_offset", 0.0)
    sizes = list(shape) if isinstance(shape, list) else []
    block, nested = found.get("blocksize"), found.get("nested_blocksize", 1)
    good = all(type(size) is int and size > 0 for size in (*sizes, block, nested))
    if not good or len(sizes) < 2 or not isinstance(offset, (int, float)) or not isfinite(offset):
        raise MalformedFile("says no usable shape, blocksize and nested_offset", where=part.where)
    assert isinstance(block, int) and isinstance(nested, int)  # for the type checker
    if block % 2:
        raise MalformedFile(f"says blocks of {block} weights, which fill no whole bytes", where=part.where)
    return State(tuple(sizes), block, nested, float(offset))


def logical(settings: Settings, group: Group) -> Iterator[LogicalTensor]:
    """The one tensor that the parts are. Raises UnsupportedFile, ShapeMismatch, MalformedFile."""
    parts, codes = group.parts, group.parts[CODES]
    states = [parts[ending] for ending in STATES if ending in parts]
    if len(states) != 1:
        raise UnsupportedFile(
            "has no quant_state of nf4 or fp4",
            where=codes.where,
            hint="save the model with a recent bitsandbytes, or use the original weights",
        )
    state = read_state(states[0])
    if codes.nbytes != -(-prod(state.shape) // 2):
        raise ShapeMismatch(
            f"has {codes.nbytes} bytes of codes; {list(state.shape)} of four bits ask for {-(-prod(state.shape) // 2)}",
            where=codes.where,
            hint="codes and quant_state do not belong together: get the checkpoint again",
        )
    check(parts[LEVELS], ("F32",), (16,))
    nested = NESTED in parts
    check(parts[ABSMAX], ("U8",) if nested else ("F32",), (state.blocks,))
    if nested:
        check(parts[NESTED], ("F32",), (-(-state.blocks // state.nested_block),))
        if NESTED_LEVELS not in parts:
            raise ShapeMismatch("has a nested_absmax and no nested_quant_map", where=codes.where)
        check(parts[NESTED_LEVELS], ("F32",), (256,))
    yield LogicalTensor(group.name, state.shape, _Blocks(parts, state), codes)


def logical_bytes(settings: Settings, group: Group) -> Iterator[LogicalTensor]:
    """The one tensor that 8-bit codes and row scales are. Raises UnsupportedFile, ShapeMismatch."""
    codes, scale = group.parts[".weight"], group.parts[".SCB"]
    check(codes, ("I8",))
    if len(codes.shape) != 2:
        raise ShapeMismatch(f"has the shape {list(codes.shape)}, a matrix is needed", where=codes.where)
    covering = tiles(scale, codes.shape, (1, 0), zeros=True)
    view = _Bytes(Codes(codes, packing.SIGNED, *codes.shape), covering.read)
    yield LogicalTensor(f"{group.name}.weight", codes.shape, view, codes)


def recognise(settings: Settings, tensors: Mapping[str, StoredTensor]) -> bool:
    return any(name.endswith(ABSMAX) for name in tensors)


def _recognise_bytes(settings: Settings, tensors: Mapping[str, StoredTensor]) -> bool:
    return any(name.endswith(".SCB") for name in tensors)


FORMATS = (
    Format(
        "bitsandbytes",
        (CODES, ABSMAX, LEVELS, *STATES, NESTED, NESTED_LEVELS),
        (ABSMAX,),
        recognise,
        logical,
        frozenset({*STATES, NESTED, NESTED_LEVELS}),
    ),
    Format(
        "bitsandbytes",
        (".weight", ".SCB", ".weight_format"),
        (".SCB",),
        _recognise_bytes,
        logical_bytes,
        frozenset({".weight_format"}),
        takes=of_dtypes(".weight", "I8"),
    ),
)
