"""`quantcli inspect`: what is in this file or folder, from headers alone.

A GGUF model (also split), a checkpoint folder as it would become a GGUF, or an importance matrix in either format.
Every function returns plain data; the command prints it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from math import prod
from pathlib import Path
from typing import Any

from quantcli import container
from quantcli.errors import MalformedFile, MissingFile
from quantcli.ggml import tensor_types

SHOWN_ELEMENTS = 6  # of a metadata array
SHOWN_TEXT = 100  # characters of a metadata string
MAGIC = b"GGUF"


def inspect(path: Path) -> dict[str, Any]:
    """Describe ``path``: {"schema", "kind": "gguf" | "checkpoint" | "imatrix", ...}. Raises QuantcliError."""
    path = Path(path)
    if path.is_dir():
        return _checkpoint(path)
    try:
        with open(path, "rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise MissingFile(error.strerror or "cannot be opened", where=str(path)) from error
    if magic != MAGIC:
        return _legacy_imatrix(path)
    header = container.read_header(path)
    general_type = header.metadata.get("general.type")
    if general_type is not None and general_type.data == "imatrix":
        return _imatrix(path)
    return _gguf(path, header)


def _gguf(path: Path, header: container.Header) -> dict[str, Any]:
    headers = [header]
    if container.is_first_of_several(header):
        headers = container.read_split_headers(path)
    tensors = [
        {"name": t.name, "shape": list(t.shape), "type": tensor_types.BY_ID[t.type_id].name, "bytes": t.bytes}
        for one in headers
        for t in one.tensors
    ]
    file_type = header.metadata.get("general.file_type")
    return {
        "schema": 1,
        "kind": "gguf",
        "path": str(path),
        "version": header.version,
        "architecture": _text(header, "general.architecture"),
        "name": _text(header, "general.name"),
        "file_type": _file_type_name(file_type.data) if file_type is not None else None,
        "files": len(headers),
        "bytes": sum(one.file_size for one in headers),
        **summary(tensors),
        "metadata": metadata(header.metadata),
        "tensors": tensors,
    }


def _checkpoint(path: Path) -> dict[str, Any]:
    from quantcli.loader import open_model

    model = open_model(path)
    tensors = [
        {
            "name": t.name,
            "shape": list(t.shape),
            "type": t.type.name,
            "bytes": tensor_types.tensor_bytes(t.type, t.shape),
            "origin": t.origin,
            "stored": t.stored.name,
        }
        for t in model.tensors
    ]
    return {
        "schema": 1,
        "kind": "checkpoint",
        "path": str(path),
        "architecture": model.architecture,
        "name": model.name,
        "file_type": None,
        "files": len(model.files),
        "bytes": sum(t["bytes"] for t in tensors),
        **summary(tensors),
        "metadata": metadata(model.metadata),
        "tensors": tensors,
        "notes": list(model.notes),
    }


def _imatrix(path: Path) -> dict[str, Any]:
    from quantcli.statistics import imatrix

    importance = imatrix.read(path)
    return {
        "schema": 1,
        "kind": "imatrix",
        "path": str(path),
        "datasets": list(importance.datasets),
        "chunks": importance.chunks,
        "sha256": importance.sha256,
        "warnings": list(importance.warnings),
        "entries": imatrix.statistics(importance),
    }


def _legacy_imatrix(path: Path) -> dict[str, Any]:
    try:
        return _imatrix(path)
    except MalformedFile as error:
        raise MalformedFile(
            "neither a GGUF file nor an importance matrix",
            where=str(path),
            hint="`quantcli inspect` takes a GGUF file, a checkpoint folder or an imatrix",
        ) from error


# ---- pieces that other commands print too


def summary(tensors: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Weights, bytes of tensor data and bits per weight in all and per type (largest first)."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for tensor in tensors:
        row = counts[tensor["type"]]
        row[0] += 1
        row[1] += prod(tensor["shape"])
        row[2] += tensor["bytes"]
    weights, size = (sum(row[i] for row in counts.values()) for i in (1, 2))
    types = [
        {"type": name, "tensors": n, "weights": w, "bytes": b, "bpw": 8 * b / w if w else 0.0}
        for name, (n, w, b) in sorted(counts.items(), key=lambda item: -item[1][2])
    ]
    return {"weights": weights, "tensor_bytes": size, "bpw": 8 * size / weights if weights else 0.0, "types": types}


def metadata(entries: dict[str, container.Value]) -> dict[str, Any]:
    """Every entry as {"type", "value"}; arrays as {"type", "length", "first"}: the first few elements."""
    shown: dict[str, Any] = {}
    for key, value in entries.items():
        if value.element is not None:
            element = value.data.bytes_at if isinstance(value.data, container.Strings) else value.data.__getitem__
            first = [_plain(element(i)) for i in range(min(len(value.data), SHOWN_ELEMENTS))]
            shown[key] = {"type": f"{value.element.name}[]".lower(), "length": len(value.data), "first": first}
        else:
            shown[key] = {"type": value.type.name.lower(), "value": _plain(value.data)}
    return shown


def one_line(entry: dict[str, Any]) -> str:
    """A metadata entry of `metadata` as one short line of text."""
    if "length" in entry:
        more = ", ..." if entry["length"] > len(entry["first"]) else ""
        return f"{entry['length']} x [{', '.join(map(repr, entry['first']))}{more}]"
    text = str(entry["value"]).replace("\n", "\\n")
    return text if len(text) <= SHOWN_TEXT else f"{text[:SHOWN_TEXT]}... ({len(text)} characters)"


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):  # a string that need not be UTF-8
        return value.decode("utf-8", "backslashreplace")
    return value.item() if hasattr(value, "item") else value


def _text(header: container.Header, key: str) -> str | None:
    value = header.metadata.get(key)
    return str(_plain(value.data)) if value is not None else None


def _file_type_name(number: Any) -> str:
    from quantcli.plan import recipes

    if not isinstance(number, int):  # a file may say anything
        return repr(number)[:SHOWN_TEXT]
    row = recipes.BY_NUMBER.get(number & ~recipes.GUESSED)
    return row.name if row is not None else str(number)
