"""Small functions that build malformed files: bytes are put together by hand, so that anything can be wrong in them."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from quantcli.sources.checkpoint import Checkpoint

UINT32, STRING, ARRAY, FLOAT32 = 4, 8, 9, 6
DATA = bytes(range(256))


# ---- GGUF


def text(raw: bytes | str, length: int | None = None) -> bytes:
    """A packed string, whatever length it claims."""
    raw = raw.encode() if isinstance(raw, str) else raw
    return struct.pack("<Q", len(raw) if length is None else length) + raw


def entry(key: bytes | str, kind: int = UINT32, value: bytes = bytes(4)) -> bytes:
    return text(key) + struct.pack("<i", kind) + value


def array(kind: int, count: int, elements: bytes) -> bytes:
    return struct.pack("<iQ", kind, count) + elements


def row(
    name: bytes | str = "a", shape: Sequence[int] = (8,), kind: int = 0, offset: int = 0, dimensions: int | None = None
) -> bytes:
    sizes = struct.pack(f"<{len(shape)}q", *shape)
    dimensions = len(shape) if dimensions is None else dimensions
    return text(name) + struct.pack("<I", dimensions) + sizes + struct.pack("<iQ", kind, offset)


ARCHITECTURE = entry("general.architecture", STRING, text("llama"))


def gguf(
    entries: Sequence[bytes] = (ARCHITECTURE,),
    rows: Sequence[bytes] = (),
    *,
    data: bytes = b"",
    version: int = 3,
    counts: tuple[int, int] | None = None,
    magic: bytes = b"GGUF",
    alignment: int = 32,
) -> bytes:
    """A GGUF file; ``counts`` (tensors, metadata) are what it claims instead of what it has."""
    tensors, keys = counts or (len(rows), len(entries))
    head = magic + struct.pack("<Iqq", version, tensors, keys) + b"".join(entries) + b"".join(rows)
    return head + bytes(-len(head) % alignment if rows else 0) + data


# ---- safetensors


def tensor(start: int = 0, stop: int = 16, *, dtype: Any = "F32", shape: Any = (4,)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape) if isinstance(shape, tuple) else shape, "data_offsets": [start, stop]}


def safetensors(header: Any, data: bytes = bytes(16), *, length: int | None = None) -> bytes:
    """A safetensors file; ``header`` as an object or as raw bytes."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def sound_safetensors(names: Sequence[str] = ("a",)) -> bytes:
    return safetensors({name: tensor(16 * i, 16 * i + 16) for i, name in enumerate(names)}, bytes(16 * len(names)))


# ---- folders


def folder(where: Path, files: dict[str, bytes | str | dict | list]) -> Path:
    """A checkpoint folder with these files; objects become JSON. config.json is there unless given as None."""
    where.mkdir(exist_ok=True)
    for name, content in {"config.json": {"architectures": ["LlamaForCausalLM"]}, **files}.items():
        if content is None:
            continue
        raw = (
            content
            if isinstance(content, bytes)
            else (content.encode() if isinstance(content, str) else json.dumps(content).encode())
        )
        (where / name).parent.mkdir(exist_ok=True)
        (where / name).write_bytes(raw)
    return where


def index(weight_map: Any, **more: Any) -> dict[str, Any]:
    return {"metadata": {"total_size": 16}, "weight_map": weight_map, **more}


# ---- a checkpoint of two shards

ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
INDEX = "model.safetensors.index.json"


def read_folder(path: Path) -> None:
    """Open a checkpoint and look at what it holds."""
    with Checkpoint(path) as checkpoint:
        assert checkpoint.config is not None and checkpoint.tensors
