"""What a checkpoint becomes, against the record of llama.cpp's converter (``expected.json``)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy

from helpers.checkpoints import stored
from quantcli.model import Model

IGNORED = ("general.", "quantcli.")
DEFAULT_LENGTHS = (".attention.key_length", ".attention.value_length")  # hidden / heads: what their absence means


def expected(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "expected.json").read_text())
    return found


def plain(value: Any) -> dict[str, Any]:
    """A metadata value in the form of expected.json, as far as it is compared."""
    if value.type.name != "ARRAY":
        return {"type": value.type.name, "value": value.data}
    kind = value.element.name
    if kind == "FLOAT32":
        digest = {"sha256_f32le": hashlib.sha256(numpy.asarray(value.data, "<f4").tobytes()).hexdigest()}
    else:
        items = [item if isinstance(item, str) else item.item() for item in value.data]
        text = json.dumps(items, ensure_ascii=True, separators=(",", ":"), sort_keys=True)
        digest = {"sha256_json": hashlib.sha256(text.encode()).hexdigest()}
    return {"type": f"ARRAY:{kind}", "len": len(value.data), **digest}


def tensor_differences(model: Model, record: dict[str, Any]) -> Iterator[str]:
    """Every tensor that is not what was recorded: name, shape, type, bytes."""
    wanted = {tensor["name"]: tensor for tensor in record["tensors"]}
    for tensor in model.tensors:
        row = wanted.pop(tensor.name, None)
        if row is None:
            yield f"tensor {tensor.name} is not expected"
            continue
        kind = row["type"] if tensor.type.quantized or tensor.type.name == "F32" else record["outtype"]
        float32 = tensor.type.name == "F32" or record["outtype"] == "F32"
        if ([*tensor.shape], float32) != (row["shape"], row["type"] == "F32"):
            yield f"tensor {tensor.name}: {tensor.shape} {tensor.type.name}, expected {row['shape']} {row['type']}"
        elif hashlib.sha256(stored(tensor, kind, tensor.rows)).hexdigest() != row["sha256"]:
            yield f"tensor {tensor.name}: other data"
    yield from (f"tensor {name} is missing" for name in wanted)


def metadata_differences(model: Model, record: dict[str, Any], below: tuple[str, ...] = ()) -> Iterator[str]:
    """Every entry that is not what was recorded; those whose keys begin with one of ``below`` are passed over."""
    skipped = (*IGNORED, *below)
    for key, row in record["metadata"].items():
        if key.startswith(skipped):
            continue
        found = plain(model.metadata[key]) if key in model.metadata else None
        if found is None and key.endswith(DEFAULT_LENGTHS) and _is_default(key, row, record):
            continue
        if found != (found and {field: row.get(field) for field in found}):
            yield f"{key} is {found}, expected {row}"
        elif found is None:
            yield f"{key} is missing, expected {row}"
    for key in model.metadata:
        if key not in record["metadata"] and not key.startswith(skipped):
            yield f"{key} is not expected: {plain(model.metadata[key])}"


def _is_default(key: str, row: dict[str, Any], record: dict[str, Any]) -> bool:
    architecture, rows = key.split(".")[0], record["metadata"]
    hidden, heads = (rows[f"{architecture}.{name}"]["value"] for name in ("embedding_length", "attention.head_count"))
    return bool(hidden == row["value"] * heads)
