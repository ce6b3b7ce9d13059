"""Checkpoints that differ from an oracle in something, and the bytes that a model gives."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy

from helpers import oracles
from quantcli.model import ModelTensor
from quantcli.sources.checkpoint import Checkpoint


def stored(tensor: ModelTensor, kind: str, step: int) -> bytes:
    """The bytes of a tensor in a float type, read in slabs of ``step`` rows."""
    slabs = [(start, min(start + step, tensor.rows)) for start in range(0, tensor.rows, step)]
    if tensor.raw and tensor.stored.name == kind:
        return b"".join(bytes(tensor.reader.read_raw(*slab)) for slab in slabs)
    values = numpy.concatenate([tensor.reader.read_rows(*slab) for slab in slabs])
    return oracles.as_stored(values, kind).tobytes()


def read_tensors(folder: Path) -> dict[str, tuple[str, list[int], bytes]]:
    return read_file(folder / "model.safetensors")


def read_file(path: Path) -> dict[str, tuple[str, list[int], bytes]]:
    """The tensors of a safetensors file: dtype, shape, bytes."""
    raw = path.read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + size])
    header.pop("__metadata__", None)
    data = raw[8 + size :]
    return {name: (row["dtype"], row["shape"], data[slice(*row["data_offsets"])]) for name, row in header.items()}


def write_tensors(folder: Path, tensors: dict[str, tuple[str, list[int], bytes]]) -> None:
    (folder / "model.safetensors").write_bytes(encode_tensors(tensors))


def encode_tensors(tensors: dict[str, tuple[str, list[int], bytes]]) -> bytes:
    """A safetensors file."""
    header, position = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [position, position + len(data)]}
        position += len(data)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + b"".join(row[2] for row in tensors.values())


def changed(
    name: str, folder: Path, config: dict[str, Any] | None = None, tensors: Callable | None = None
) -> Checkpoint:
    """A copy of a bundled checkpoint with fields of config.json replaced (None: removed) and its tensors edited."""
    target = folder / name
    shutil.copytree(oracles.folder(name), target)
    fields = json.loads((target / "config.json").read_text()) | (config or {})
    (target / "config.json").write_text(json.dumps({k: v for k, v in fields.items() if v is not None}))
    if tensors:
        write_tensors(target, tensors(read_tensors(target)))
    return Checkpoint(target)
