"""Checkpoints by their outline: settings, and names, types and shapes of the tensors; the weights are made up here.

A pack (``tests/golden/*.json.xz``) was written by scripts/pack_outlines.py from oracles of llama.cpp's converter: what
it states of names, shapes, types and metadata is the oracle's; the hashes are of this package's bytes for made-up
weights, recorded when its bytes for the oracle's own weights were the oracle's.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import zlib
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy
from numpy.typing import NDArray

from helpers.checkpoints import encode_tensors
from quantcli.model import Model
from quantcli.plan import plan, recipes
from quantcli.plan.options import Options

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
Outline = Mapping[str, Any]  # files: name -> content; tensors: name -> [dtype, shape]; expected


def packed(name: str) -> dict[str, Outline]:
    """The outlines of a pack by name."""
    found: dict[str, Outline] = json.loads(lzma.decompress((GOLDEN / f"{name}.json.xz").read_bytes()))
    return found


def numbers(name: str, count: int) -> NDArray[numpy.uint32]:
    """``count`` made-up 32-bit numbers that belong to a name."""
    steps = numpy.arange(count, dtype=numpy.uint64) + numpy.uint64(zlib.crc32(name.encode()))
    steps *= numpy.uint64(0x9E3779B97F4A7C15)
    return (steps >> numpy.uint64(32)).astype(numpy.uint32)


def weights(name: str, dtype: str, shape: Sequence[int]) -> bytes:
    """Made-up weights between 2**-6 and 2**-4, of both signs."""
    bits = numbers(name, prod(shape))
    single = (bits & 0x807FFFFF) | (0x3C800000 + ((bits >> 8) & 1) * 0x00800000)
    if dtype == "F32":
        return single.astype("<u4").tobytes()
    assert dtype == "BF16"
    return (single >> 16).astype("<u2").tobytes()


def write(outline: Outline, folder: Path, weight_file: str) -> Path:
    """The folder of an outline."""
    for name, content in outline["files"].items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    tensors = {name: (dtype, shape, weights(name, dtype, shape)) for name, (dtype, shape) in outline["tensors"].items()}
    (folder / weight_file).write_bytes(encode_tensors(tensors))
    return folder


def digests(model: Model, file_type: str) -> dict[str, list[Any]]:
    """Shape, type and sha256 of every tensor of the file that the model becomes in a file type."""
    made = plan.make(model, Options(recipes.FILE_TYPES[file_type]))
    found = {}
    for entry in made.entries:
        data = encoded(entry.tensor, entry.type.name)
        found[entry.tensor.name] = [[*entry.tensor.shape], entry.type.name, hashlib.sha256(data).hexdigest()]
    return found


def summary(tensors: Mapping[str, Any]) -> str:
    """One hash of all that `digests` gives."""
    return hashlib.sha256(json.dumps(tensors, sort_keys=True).encode()).hexdigest()


def encoded(tensor: Any, kind: str) -> bytes:
    """A tensor's bytes in a type, as the pipeline writes them."""
    from quantcli.ggml import kernels
    from quantcli.ggml.tensor_types import BY_NAME

    if tensor.raw and tensor.stored.name == kind:
        return bytes(tensor.reader.read_raw(0, tensor.rows))
    values = tensor.reader.read_rows(0, tensor.rows)
    return bytes(kernels.encode(BY_NAME[kind].id, values))
