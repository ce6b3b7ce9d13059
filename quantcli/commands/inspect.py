"""`quantcli inspect`: what is in this file or folder, from headers alone (and a few rows of a checkpoint's matrices).

A GGUF model (also split), a checkpoint folder as it would become a GGUF, or an importance matrix in either format.
"""

from __future__ import annotations

import contextlib
from contextlib import closing
from pathlib import Path

import numpy

from quantcli import container, places
from quantcli.container import foreign
from quantcli.errors import (
    BadConfig,
    BadTokenizer,
    MalformedFile,
    MissingTensors,
    QuantcliError,
    ShapeMismatch,
    UnknownArchitecture,
    UnsupportedGraph,
)
from quantcli.ggml import tensor_types
from quantcli.methods import snap
from quantcli.model import ModelTensor
from quantcli.report import tables
from quantcli.report.results import (
    CheckpointResult,
    GgufResult,
    MatrixResult,
    MetadataResult,
    OriginResult,
    TensorResult,
)
from quantcli.report.summary import summary
from quantcli.report.terminal import SILENT, Reporter
from quantcli.runner import description
from quantcli.sources import ways
from quantcli.sources.gguf import check_general

SHOWN_ELEMENTS = 6  # of a metadata array
SHOWN_NUMBER = 100  # characters of a file type that is none
MAGIC = b"GGUF"


def run(
    path: Path, reporter: Reporter = SILENT, *, tensors: bool = False
) -> GgufResult | CheckpointResult | MatrixResult:
    """Describe ``path``, with ``tensors`` every single one; an error behind it where the file contradicts itself.

    Raises QuantcliError.
    """
    result, contradiction = _look(path)
    result["path"] = ways.spelled(path)
    if result["kind"] == "imatrix":
        tables.show_matrix(reporter, result, tensors=tensors)
    else:
        tables.show_model(reporter, result, tensors=tensors)
    if contradiction is not None:  # what the file says is shown all the same
        raise contradiction
    return result


def describe(path: Path) -> GgufResult | CheckpointResult | MatrixResult:
    """What is at ``path``. Raises QuantcliError."""
    result = _look(path)[0]
    result["path"] = ways.spelled(path)
    return result


def _look(path: Path) -> tuple[GgufResult | CheckpointResult | MatrixResult, QuantcliError | None]:
    """What is at ``path``, and how the metadata of a model contradict its tensors."""
    given, path = path, ways.find(path)
    if places.is_folder(path):
        return _checkpoint(path), None
    if not places.exists(path):
        raise ways.missing(given, "No such file or directory")
    with closing(places.open_bytes(path)) as file:
        magic = bytearray(len(MAGIC))
        file.read_some(memoryview(magic), 0)
    if magic != MAGIC:
        return _legacy_imatrix(path), None
    header = container.read_header(path)
    check_general(header)
    general_type = header.metadata.get("general.type")
    if general_type is not None and general_type.data == "imatrix":
        return _imatrix(path), None
    headers = container.read_split_headers(path) if container.is_first_of_several(header) else [header]
    return _gguf(path, headers), _contradiction(path, headers)


def _contradiction(path: Path, headers: list[container.Header]) -> QuantcliError | None:
    """What the runner would say of a whole model that it could compute otherwise."""
    metadata, tensors = headers[0].metadata, {info.name: info.shape for one in headers for info in one.tensors}
    kind, shards = (metadata.get(key) for key in ("general.type", container.SPLIT_KEYS[1]))
    whole = shards is None or len(headers) == shards.data
    architecture = _text(headers[0], "general.architecture") or ""
    described = f"{architecture}.block_count" in metadata and (kind is None or kind.data == "model")
    if not tensors or not whole or not described:  # a vocabulary, a part, an adapter
        return None
    try:
        description.check(architecture, metadata, tensors, str(path))
    except (BadConfig, BadTokenizer, MissingTensors, ShapeMismatch) as error:
        return error
    except (UnknownArchitecture, UnsupportedGraph):  # not the runner's: nothing is known against it
        return None
    return None


def _gguf(path: Path, headers: list[container.Header]) -> GgufResult:
    header = headers[0]
    tensors: list[TensorResult] = [
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


def _checkpoint(path: Path) -> CheckpointResult:
    from quantcli.loader import open_model

    model = open_model(path)
    far = any(places.elsewhere(name) for name in model.weight_files)  # there the headers are enough
    tensors = [_origin(tensor, look=not far) for tensor in model.tensors]
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


def _origin(tensor: ModelTensor, look: bool) -> OriginResult:
    """A tensor of a checkpoint, and (``look``) of a matrix of floats the types on whose grid a few of its rows lie."""
    found: OriginResult = {
        "name": tensor.name,
        "shape": list(tensor.shape),
        "type": tensor.type.name,
        "bytes": tensor_types.tensor_bytes(tensor.type, tensor.shape),
        "origin": tensor.origin,
        "stored": tensor.stored.name,
    }
    if look and len(tensor.shape) > 1 and tensor.rows and tensor.stored.kind == "float":
        with contextlib.suppress(QuantcliError):  # weights that cannot be read are told where they are converted
            grids = snap.shares(tensor)
            if grids:
                found["grids"] = grids
    return found


def _imatrix(path: Path) -> MatrixResult:
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


def _legacy_imatrix(path: Path) -> MatrixResult:
    found = foreign.recognise(foreign.beginning(path), path)
    if found is not None:
        raise MalformedFile(f"{found[0]}, neither a GGUF file nor an importance matrix", where=str(path), hint=found[1])
    try:
        return _imatrix(path)
    except MalformedFile as error:
        raise MalformedFile(
            "neither a GGUF file nor an importance matrix",
            where=str(path),
            hint="`quantcli inspect` takes a GGUF file, a checkpoint folder or an imatrix",
        ) from error


# ---- pieces


def metadata(entries: dict[str, container.Value]) -> dict[str, MetadataResult]:
    """Every entry as {"type", "value"}; arrays as {"type", "length", "first"}: the first few elements."""
    shown: dict[str, MetadataResult] = {}
    for key, value in entries.items():
        if value.element is not None:
            element = value.data.bytes_at if isinstance(value.data, container.Strings) else value.data.__getitem__
            first = [_plain(element(i)) for i in range(min(len(value.data), SHOWN_ELEMENTS))]
            shown[key] = {"type": f"{value.element.name}[]".lower(), "length": len(value.data), "first": first}
        else:
            shown[key] = {"type": value.type.name.lower(), "value": _plain(value.data)}
    return shown


def _plain(value: object) -> object:
    if isinstance(value, bytes):  # a string that need not be UTF-8
        return value.decode("utf-8", "backslashreplace")
    return value.item() if isinstance(value, numpy.generic) else value


def _text(header: container.Header, key: str) -> str | None:
    value = header.metadata.get(key)
    return str(_plain(value.data)) if value is not None else None


def _file_type_name(number: object) -> str:
    from quantcli.plan import recipes

    if not isinstance(number, int):  # a file may say anything
        return repr(number)[:SHOWN_NUMBER]
    found = recipes.BY_NUMBER.get(number & ~recipes.GUESSED)
    return found.name if found is not None else str(number)
