"""Importance matrices as the bytes of llama.cpp's two formats. Callers write them (writer.py)."""

from __future__ import annotations

import struct
from math import ceil

import numpy

from quantcli import container
from quantcli.container import LIMITS, Value, padded, string, strings, u32
from quantcli.errors import BadImportance
from quantcli.ggml.tensor_types import BY_NAME
from quantcli.statistics.imatrix.importance import CHUNK, Importance, Sums
from quantcli.statistics.imatrix.read_formats import COUNTS, KEYS, ORIGIN, SUMS

F32 = BY_NAME["F32"].id
LARGEST = 2**31 - 1  # the legacy format counts in int32


def to_gguf_bytes(importance: Importance) -> bytes:
    """The GGUF file: per weight, by name, ``.in_sum2`` [columns, matrices] and ``.counts`` [1, matrices], F32."""
    metadata: dict[str, Value] = {
        "general.type": string("imatrix"),
        KEYS[0]: strings(list(importance.datasets)),
        KEYS[1]: u32(importance.chunks),
        KEYS[2]: u32(importance.chunk_size),
        **{ORIGIN + key: string(one) if isinstance(one, str) else u32(one) for key, one in importance.origin.items()},
    }
    arrays: list[tuple[str, tuple[int, ...], Sums]] = []
    for name in sorted(importance.sums, key=str.encode):
        if len((name + SUMS).encode()) > LIMITS.name_bytes:
            raise BadImportance(f"with {SUMS} the name is longer than GGUF's {LIMITS.name_bytes} bytes", where=name)
        sums, counts = importance.sums[name], importance.counts[name]
        arrays.append((name + SUMS, (sums.shape[1], sums.shape[0]), sums))
        arrays.append((name + COUNTS, (1, len(counts)), counts))
    offsets, size = container.place_tensors([(shape, F32) for _, shape, _ in arrays])
    placed = [(name, shape, F32, offset) for (name, shape, _), offset in zip(arrays, offsets, strict=True)]
    pieces = [container.encode_header(metadata, placed)]
    for _, _, array in arrays:
        raw = array.astype("<f4").tobytes()
        pieces += (raw, bytes(padded(len(raw)) - len(raw)))
    data = b"".join(pieces)
    assert len(data) == len(pieces[0]) + size
    return data


def to_dat_bytes(importance: Importance) -> bytes:
    """The legacy file: means times the number of chunks; entries that saw nothing are left out."""
    entries = []
    for name in sorted(importance.sums, key=str.encode):
        counts = importance.counts[name]
        if not counts.any():
            continue
        calls = ceil(float(counts.max()) / (importance.chunk_size or CHUNK))
        means = importance.entries[name].astype("<f4") * numpy.float32(calls)
        if calls > LARGEST or means.size > LARGEST or not numpy.isfinite(means).all():
            raise BadImportance("too large for the legacy format", where=name, hint="write the GGUF format")
        raw = name.encode()
        entries.append(struct.pack("<i", len(raw)) + raw + struct.pack("<ii", calls, means.size) + means.tobytes())
    dataset = (importance.datasets[-1] if importance.datasets else "").encode()
    tail = struct.pack("<ii", min(importance.chunks, LARGEST), len(dataset)) + dataset
    return struct.pack("<i", len(entries)) + b"".join(entries) + tail
