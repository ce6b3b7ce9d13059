#!/usr/bin/env python3
"""Flatten tests/golden/blocks.npz for the C driver: records that C reads without a library.

    python scripts/make_flat_golden.py OUTPUT

File: "QCFLAT1\\0", int32 count, int32 0, then records (little-endian): char name[48], int32 kind (0 encode, 1 decode),
type, rows, columns, weighted, input bytes, expected bytes, 0; then input (float32 or blocks), importance (float32
[columns], if weighted) and the expected bytes. IQ1, IQ2 and IQ3 are decoded only: their encoders promise ggml's error,
not its bytes.
"""

from __future__ import annotations

import argparse
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy

from quantcli.ggml import tensor_types

ROOT = Path(__file__).resolve().parent.parent
NOT_EXACT = ("IQ1", "IQ2", "IQ3")


def record(
    name: str, kind: int, type_id: int, shape: tuple[int, int], given: bytes, importance: bytes, expected: bytes
) -> bytes:
    head = struct.pack("<48s8i", name.encode(), kind, type_id, *shape, bool(importance), len(given), len(expected), 0)
    return head + given + importance + expected


def records(golden: dict[str, numpy.ndarray]) -> Iterator[bytes]:
    for key, value in golden.items():
        parts = key.split("/")
        if len(parts) != 3:
            continue
        case, name, what = parts
        type_id = tensor_types.BY_NAME[name].id
        if case == "decode" and what == "bytes":
            values = golden[f"decode/{name}/values"]
            yield record(key, 1, type_id, values.shape, value.tobytes(), b"", values.tobytes())
        elif what in ("plain", "imatrix") and not name.startswith(NOT_EXACT):
            x = golden[f"{case}/input"]
            importance = golden[f"{case}/importance"].tobytes() if what == "imatrix" else b""
            yield record(key, 0, type_id, x.shape, x.tobytes(), importance, value.tobytes())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    output = parser.parse_args().output
    with numpy.load(ROOT / "tests" / "golden" / "blocks.npz") as stored:
        made = list(records(dict(stored)))
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_bytes(b"QCFLAT1\0" + struct.pack("<2i", len(made), 0) + b"".join(made))
    print(f"{output}: {len(made)} records")


if __name__ == "__main__":
    main()
