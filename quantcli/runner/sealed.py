"""Arrays in a file that ends with its checksum: after a power cut a file may be there and hold something else."""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy
from numpy.typing import NDArray

from quantcli import system

SEAL = 4  # bytes: crc32 of all before it
PIECE = 1 << 20  # bytes that are looked at together

Arrays = Mapping[str, NDArray[numpy.generic]]


def write(path: Path, arrays: Arrays) -> None:
    """Put arrays into a file, complete or not at all. Raises OSError."""
    part = path.with_name(f".{path.name}.part")
    with open(part, "wb") as file:
        file.writelines(pieces(arrays))
    part.replace(path)


def pieces(arrays: Arrays) -> tuple[bytes, bytes]:
    """What such a file holds: the arrays, and the checksum."""
    from safetensors.numpy import save

    data = save({key: numpy.ascontiguousarray(value) for key, value in arrays.items()})
    return data, zlib.crc32(data).to_bytes(SEAL, "little")


def check(path: Path) -> None:
    """Whether a file is what was written. Raises ValueError where it is not, OSError."""
    with open(path, "rb") as file:
        left, crc = os.fstat(file.fileno()).st_size - SEAL, 0
        while left > 0 and (piece := file.read(min(left, PIECE))):
            left, crc = left - len(piece), zlib.crc32(piece, crc)
        if left or crc.to_bytes(SEAL, "little") != file.read():
            raise ValueError("its checksum is another one")


def read(path: Path) -> dict[str, NDArray[numpy.generic]]:
    """The arrays of a file. Raises ValueError where it is not what was written, OSError."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    data = path.read_bytes()
    if len(data) <= SEAL or zlib.crc32(data[:-SEAL]).to_bytes(SEAL, "little") != data[-SEAL:]:
        raise ValueError("its checksum is another one")
    try:
        found: dict[str, NDArray[numpy.generic]] = load(data[:-SEAL])
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    return found


def sync(path: Path) -> None:
    """Bring a file to the disk. Raises OSError."""
    descriptor = system.open_to_read(path)
    try:
        system.sync(descriptor)
    finally:
        os.close(descriptor)
