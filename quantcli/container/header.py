"""What the header of a GGUF file says, and the limits that no header may exceed."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import NamedTuple

from quantcli.container.values import Value

DEFAULT_ALIGNMENT = 32
ALIGNMENT_KEY = "general.alignment"


class Limits(NamedTuple):
    """Upper bounds while reading and writing; the file's own size bounds everything as well."""

    header_bytes: int = 128 << 20  # metadata and tensor table; a vocabulary of 300,000 with merges takes 15 MB
    keys: int = 1 << 16
    key_bytes: int = (1 << 16) - 1  # GGUF specification
    string_bytes: int = 1 << 30  # ggml
    array_elements: int = 1 << 30  # ggml
    array_strings: int = 1 << 24
    tensors: int = 1 << 18
    name_bytes: int = 63  # ggml keeps names in 64 bytes
    dimensions: int = 4  # ggml
    elements: int = (1 << 63) - 1  # ggml counts in int64
    alignment: int = 1 << 20


LIMITS = Limits()


@dataclass(slots=True)
class TensorInfo:
    """One row of the tensor table. ``shape``: columns first, trailing ones dropped; ``offset``: from data_start."""

    name: str
    shape: tuple[int, ...]
    type_id: int
    offset: int
    bytes: int

    @property
    def elements(self) -> int:
        return prod(self.shape)


@dataclass(slots=True)
class Header:
    """Everything in front of the tensor data. Sizes and positions are bytes; ``data_start`` counts from the file's."""

    version: int
    metadata: dict[str, Value]
    tensors: list[TensorInfo]
    alignment: int
    data_start: int
    file_size: int
    path: Path
    by_name: dict[str, TensorInfo] = field(default_factory=dict)

    @property
    def surplus(self) -> int:
        """Bytes of the file behind the last tensor and its padding: none in a sound file."""
        last = self.tensors[-1] if self.tensors else None
        end = self.data_start + (last.offset + last.bytes if last else 0)
        return max(0, self.file_size - padded(end, self.alignment))


def padded(size: int, alignment: int = DEFAULT_ALIGNMENT) -> int:
    """``size`` rounded up to a multiple of ``alignment``."""
    return -(-size // alignment) * alignment


def without_trailing_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape as ggml writes it: at least one dimension, no trailing dimensions of 1."""
    count = len(shape)
    while count > 1 and shape[count - 1] == 1:
        count -= 1
    return tuple(shape[:count]) or (1,)
