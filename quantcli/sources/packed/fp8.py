"""8-bit floats with scales: DeepSeek's and Mistral's FP8, FBGEMM's, that of compressed-tensors and of ModelOpt.

``X`` E4M3 or E5M2 [..., rows, columns] and its scale: one number, one per row, or one per tile (``weight_block_size``,
ragged at the edges); the value is code * scale in float32. Scales of activations are left out. Whether a matrix is
packed is told by its scale, not by config.json.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod

from quantcli.ggml import packing
from quantcli.sources.files import StoredTensor
from quantcli.sources.packed.group import Format, Group, Settings, bad_setting, check, of_dtypes
from quantcli.sources.packed.rows import Codes, Scaled
from quantcli.sources.packed.scales import tiles
from quantcli.sources.tensor import LogicalTensor

PACKINGS = {"F8_E4M3": packing.E4M3, "F8_E5M2": packing.E5M2}


def block_size(settings: Settings) -> tuple[int, int] | None:
    """Rows and columns of a tile as config.json states them; None where it does not. Raises BadConfig."""
    stated = settings.get("weight_block_size")
    return None if stated is None else pair(stated, "weight_block_size")


def pair(stated: object, key: str) -> tuple[int, int]:
    """Two positive numbers. Raises BadConfig."""
    numbers = list(stated) if isinstance(stated, Sequence) and not isinstance(stated, str) else []
    if len(numbers) != 2 or not all(type(number) is int and number > 0 for number in numbers):
        raise bad_setting(f"{key} is {stated!r}, not two positive numbers")
    return numbers[0], numbers[1]


def recognise(settings: Settings, tensors: Mapping[str, StoredTensor]) -> bool:
    return any(tensor.dtype in PACKINGS for tensor in tensors.values())


def logical(settings: Settings, group: Group) -> Iterator[LogicalTensor]:
    """The one tensor that codes and scale are. Raises UnsupportedFile, ShapeMismatch, BadConfig."""
    endings = [ending for ending in group.parts if ending.endswith(("scale", "scale_inv", "qscale_weight"))]
    codes_ending = next(ending for ending in group.parts if ending not in endings)
    yield matrix(group.name + codes_ending, group.parts[codes_ending], group.parts[endings[0]], block_size(settings))


def matrix(name: str, codes: StoredTensor, scale: StoredTensor, stated: tuple[int, int] | None) -> LogicalTensor:
    """The tensor ``name`` of ``codes`` and ``scale``; ``stated``: rows and columns of a tile, 0 for all."""
    check(codes, tuple(PACKINGS))
    shape = codes.shape if len(codes.shape) >= 2 else (1, prod(codes.shape))
    covering = tiles(scale, shape, stated)
    held = Codes(codes, PACKINGS[codes.dtype], prod(shape[:-1]), shape[-1])
    return LogicalTensor(name, codes.shape, Scaled(held, covering.read, group=covering.width), codes)


def _format(method: str, codes: str, scale: str) -> Format:
    return Format(method, (codes, scale), (scale,), recognise, logical, takes=of_dtypes(codes, *PACKINGS))


# the names of a scale: of a linear layer, of stacked experts, of Mistral's own files
_NAMES = (("", "_scale_inv"), (".weight", ".weight_scale"), ("_proj", "_proj_scale"), (".weight", ".qscale_weight"))
FORMATS = tuple(_format(method, *names) for method in ("fp8", "fbgemm_fp8") for names in _NAMES)
MODELOPT = _format("modelopt", ".weight", ".weight_scale")
