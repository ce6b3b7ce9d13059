"""Importance files of both formats, by hand."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

from helpers import broken_files as broken
from quantcli.statistics import imatrix
from quantcli.statistics.imatrix import Importance

WEIGHT = "blk.0.attn_q.weight"


def f32(*numbers: float) -> bytes:
    return struct.pack(f"<{len(numbers)}f", *numbers)


def padded(raw: bytes) -> bytes:
    return raw + bytes(-len(raw) % 32)


def keys(datasets: Sequence[str] = ("text.txt",), chunks: int = 3, size: int = 512) -> list[bytes]:
    texts = b"".join(broken.text(name) for name in datasets)
    return [
        broken.entry("general.type", broken.STRING, broken.text("imatrix")),
        broken.entry("imatrix.datasets", broken.ARRAY, broken.array(broken.STRING, len(datasets), texts)),
        broken.entry("imatrix.chunk_count", value=struct.pack("<I", chunks)),
        broken.entry("imatrix.chunk_size", value=struct.pack("<I", size)),
    ]


def gguf_file(
    *tensors: tuple[str, Sequence[int], bytes],
    entries: Sequence[bytes] | None = None,
    kinds: dict[str, int] | None = None,
) -> bytes:
    """A GGUF imatrix put together by hand from (name, shape, raw data)."""
    rows, data = [], b""
    for name, shape, raw in tensors:
        rows.append(broken.row(name, shape, (kinds or {}).get(name, 0), len(data)))
        data += padded(raw)
    return broken.gguf(keys() if entries is None else entries, rows, data=data)


def pair(
    name: str = WEIGHT,
    sums: Sequence[float] = (2, 4, 6, 8),
    counts: Sequence[float] = (2,),
    shape: Sequence[int] | None = None,
) -> list[tuple[str, Sequence[int], bytes]]:
    return [
        (name + ".in_sum2", shape or (len(sums) // len(counts), len(counts)), f32(*sums)),
        (name + ".counts", (1, len(counts)), f32(*counts)),
    ]


def dat_entry(
    name: bytes | str = WEIGHT,
    calls: int = 2,
    values: Sequence[float] = (2, 4, 6, 8),
    length: int | None = None,
    number: int | None = None,
) -> bytes:
    raw = name.encode() if isinstance(name, str) else name
    return (
        struct.pack("<i", len(raw) if length is None else length)
        + raw
        + struct.pack("<ii", calls, len(values) if number is None else number)
        + f32(*values)
    )


def dat(*entries: bytes, count: int | None = None, tail: bytes = struct.pack("<ii", 7, 8) + b"text.txt") -> bytes:
    return struct.pack("<i", len(entries) if count is None else count) + b"".join(entries) + tail


def read(folder: Path, raw: bytes, name: str = "im.gguf") -> Importance:
    (folder / name).write_bytes(raw)
    return imatrix.read(folder / name)
