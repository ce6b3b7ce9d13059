"""Checksums in a container that this program writes for itself and reads again: a last tensor that covers every byte.

``checksums``, I32 [a multiple of 8, so that no padding follows]: the bits of the crc32 of the header, of every other
tensor with its padding in the order of the file, zeros, and at the end the crc32 of all of them. It is written last: a
file that ends early, or was never filled, has none that fits. Who reads a tensor checks that one, on the way.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy

from quantcli.container.header import DEFAULT_ALIGNMENT, Header, TensorInfo, padded
from quantcli.errors import MalformedFile
from quantcli.ggml.tensor_types import BY_NAME

CACHE, STATES = "quantcli.reference", "quantcli.reference-states"
TYPES = (CACHE, STATES)  # general.type of the files that have them
NAME = "checksums"
TYPE = BY_NAME["I32"].id
_SUM = numpy.dtype("<u4")

Read = Callable[[int, int], bytes | bytearray]  # (offset, count) of the file


def shape(tensors: int) -> tuple[int]:
    """Of the last tensor, where there are so many others."""
    return (padded((tensors + 2) * _SUM.itemsize, DEFAULT_ALIGNMENT) // _SUM.itemsize,)


def are_due(header: Header) -> bool:
    """Whether it is a file that has them, by its kind or its last tensor: either may be damaged."""
    kind = header.metadata.get("general.type")
    return (kind is not None and kind.data in TYPES) or any(one.name == NAME for one in header.tensors[-1:])


def crc(data: bytes | bytearray | memoryview) -> int:
    """The checksum of some bytes."""
    return zlib.crc32(data)


@dataclass
class Sums:
    """Of the header and of every tensor so far."""

    found: list[int] = field(default_factory=list)

    def add(self, data: bytes | bytearray | memoryview) -> None:
        """The header, or the next tensor with its padding."""
        self.found.append(crc(data))

    def content(self) -> bytes:
        """What the last tensor holds."""
        values = numpy.zeros(shape(len(self.found) - 1), _SUM)
        values[: len(self.found)] = self.found
        values[-1] = crc(values[:-1].tobytes())
        return values.tobytes()


class Stored:
    """The checksums of a file."""

    def __init__(self, header: Header, read: Read) -> None:
        """Raises MalformedFile: the file has none, they or the header are damaged, or something follows them."""
        last = header.tensors[-1] if header.tensors else None
        if last is None or (last.name, last.type_id, last.shape) != (NAME, TYPE, shape(len(header.tensors) - 1)):
            raise MalformedFile("has no checksums: it is of an earlier version", where=str(header.path))
        end = header.data_start + last.offset + last.bytes
        if header.file_size != end:
            raise MalformedFile(f"has {header.file_size - end} bytes behind its end", where=str(header.path))
        self.header = header
        self._values = numpy.frombuffer(bytes(read(header.data_start + last.offset, last.bytes)), _SUM)
        self._places = {tensor.name: place for place, tensor in enumerate(header.tensors, start=1)}
        if crc(self._values[:-1].tobytes()) != self._values[-1]:
            raise self._damaged("its checksums")
        if crc(read(0, header.data_start)) != self._values[0]:
            raise self._damaged("its header")

    def check(self, tensor: TensorInfo, data: bytes | bytearray | memoryview) -> None:
        """Whether ``data`` is what was written as the tensor, with its padding. Raises MalformedFile."""
        self.compare(tensor, crc(data))

    def compare(self, tensor: TensorInfo, found: int) -> None:
        """The same for the crc32 that was ``found``."""
        if tensor.name != NAME and found != self._values[self._places[tensor.name]]:
            raise self._damaged(f"tensor {tensor.name}")

    def _damaged(self, what: str) -> MalformedFile:
        return MalformedFile(f"is damaged: {what} has another checksum", where=str(self.header.path))
