"""Whole numbers with scales: compressed-tensors' int-quantized weights (W8A8), and its 8-bit floats.

``X.weight`` I8 (or E4M3) [rows, columns], ``X.weight_scale`` one number, one per row, per group of columns or per tile;
``X.weight_zero_point`` of the same shape where the weights are asymmetric. The value is (code - zero) * scale.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import prod

from quantcli.ggml import packing
from quantcli.sources.files import StoredTensor
from quantcli.sources.jsonfile import object_in, text_in
from quantcli.sources.packed import fp8
from quantcli.sources.packed.group import Format, Group, Settings, check, of_dtypes, whole_number
from quantcli.sources.packed.rows import Codes, Scaled
from quantcli.sources.packed.scales import tiles
from quantcli.sources.tensor import LogicalTensor

CODES, SCALE, ZERO = ".weight", ".weight_scale", ".weight_zero_point"
_DTYPES = ("I8", *fp8.PACKINGS)


def stated_tile(settings: Settings) -> tuple[int, int] | None:
    """Rows and columns under one scale as the only config group states them (0: all); None where nothing is stated.

    Raises BadConfig.
    """
    groups = object_in(settings, "config_groups")
    if len(groups) != 1:
        return None  # the shapes of the scales tell
    weights = object_in(next(iter(groups.values())), "weights")
    strategy = text_in(weights, "strategy")
    if strategy == "block":
        return fp8.pair(weights.get("block_structure"), "block_structure")
    if strategy == "channel":
        return 1, 0
    if strategy == "group":
        size = whole_number(weights, "group_size")
        return (1, size) if size is not None and size > 0 else None
    return None


def logical(settings: Settings, group: Group) -> Iterator[LogicalTensor]:
    """The one tensor that codes, scales and zeros are. Raises UnsupportedFile, ShapeMismatch, BadConfig."""
    codes, scale, zero = group.parts[CODES], group.parts[SCALE], group.parts.get(ZERO)
    check(codes, _DTYPES)
    if codes.dtype != "I8":
        yield fp8.matrix(group.name + CODES, codes, scale, stated_tile(settings))
        return
    covering = tiles(scale, codes.shape, stated_tile(settings))
    held = Codes(codes, packing.SIGNED, prod(codes.shape[:-1]), codes.shape[-1])
    zeros = None
    if zero is not None:
        check(zero, ("I8",), scale.shape)
        zeros = replace(covering, part=zero, zeros=True).read
    view = Scaled(held, covering.read, group=covering.width, zero=zeros)
    yield LogicalTensor(group.name + CODES, codes.shape, view, codes)


def recognise(settings: Settings, tensors: Mapping[str, StoredTensor]) -> bool:
    return any(tensor.dtype in _DTYPES for tensor in tensors.values())


FORMAT = Format(
    "compressed-tensors",
    (CODES, SCALE, ZERO),
    (SCALE,),
    recognise,
    logical,
    frozenset({ZERO}),
    takes=of_dtypes(CODES, *_DTYPES),
)
