"""`quantcli diff`: what is not the same in two GGUF files: metadata, types, bytes, and the values behind the bytes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy
from numpy.typing import NDArray

from quantcli import container
from quantcli.container import Strings, Value, without_trailing_ones
from quantcli.errors import UsageError
from quantcli.ggml import tensor_types
from quantcli.loader import open_model
from quantcli.model import Model, ModelTensor
from quantcli.report import release_tables
from quantcli.report.releases import DiffResult, DiffSide, MetadataDifference, TensorDifference
from quantcli.report.terminal import SILENT, Advance, Reporter

SLAB = 1 << 22  # weights that are decoded at a time
SHOWN = 200  # characters of a value of the metadata


@dataclass(frozen=True, kw_only=True)
class DiffRequest:
    """``tensor``: only this one; ``values``: decode tensors that are not the same, and say how far they are apart."""

    a: Path
    b: Path
    tensor: str | None = None
    values: bool = True


def run(request: DiffRequest, reporter: Reporter = SILENT) -> DiffResult:
    """Compare, and show what is found. Raises QuantcliError; a difference is none."""
    with open_model(request.a) as a, open_model(request.b) as b:
        names = _names(request, a, b)
        tensors = [{tensor.name: tensor for tensor in model.tensors} for model in (a, b)]
        pairs = [(tensors[0].get(name), tensors[1].get(name)) for name in names]
        total = sum(_stored(one) for pair in pairs for one in pair if one is not None)
        with reporter.progress("diff", total) as advance:
            found = list(_compared(pairs, request.values, advance))
        metadata = _metadata(_said(request.a, a), _said(request.b, b))
        result: DiffResult = {
            "schema": 1,
            "same": not metadata and all(one["same"] for one in found),
            "a": _side(request.a, a),
            "b": _side(request.b, b),
            "metadata": metadata,
            "tensors": found,
        }
    release_tables.show_difference(reporter, result, every=request.tensor is not None)
    return result


def _names(request: DiffRequest, a: Model, b: Model) -> list[str]:
    """The tensors to compare, in A's order, those that B alone has last. Raises UsageError."""
    names = list(dict.fromkeys(tensor.name for model in (a, b) for tensor in model.tensors))
    if request.tensor is None:
        return names
    if request.tensor not in names:
        raise UsageError(
            "neither file has this tensor",
            where=request.tensor[:200],
            hint=f"their names: quantcli inspect {request.a} --tensors",
        )
    return [request.tensor]


def _said(path: Path, model: Model) -> Mapping[str, Value]:
    """The metadata: all that a file says, of a checkpoint what it would become."""
    return model.metadata if path.is_dir() else container.read_header(path).metadata


def _side(path: Path, model: Model) -> DiffSide:
    return {
        "path": str(path),
        "architecture": model.architecture,
        "files": len(model.weight_files),
        "bytes": sum(map(os.path.getsize, model.weight_files)),
        "tensors": len(model.tensors),
    }


# ---- metadata


def _metadata(a: Mapping[str, Value], b: Mapping[str, Value]) -> list[MetadataDifference]:
    """Entries that one side lacks, or that have other values or types."""
    keys = list(dict.fromkeys((*a, *b)))
    return [
        {"key": key, "a": _shown(a.get(key), b.get(key)), "b": _shown(b.get(key), a.get(key))}
        for key in keys
        if not _equal(a.get(key), b.get(key))
    ]


def _equal(one: Value | None, other: Value | None) -> bool:
    if one is None or other is None or one.type != other.type or one.element != other.element:
        return one is other
    if isinstance(one.data, numpy.ndarray) and isinstance(other.data, numpy.ndarray):
        return one.data.tobytes() == other.data.tobytes()
    return bool(one.data == other.data)


def _shown(value: Value | None, other: Value | None) -> str | None:
    """A value as people read it; of an array its length and, beside another one, where they part."""
    if value is None:
        return None
    if not isinstance(value.data, numpy.ndarray | Strings):
        return f"{value.data!r}"[:SHOWN] if isinstance(value.data, str) else str(value.data)
    text = f"{len(value.data):,} values"
    if other is not None and isinstance(other.data, numpy.ndarray | Strings):
        pairs = enumerate(zip(value.data, other.data, strict=False))
        place = next((number for number, (mine, its) in pairs if mine != its), None)
        text += f", number {place}: {value.data[place]!r}" if place is not None else ""
    return text[:SHOWN]


# ---- tensors


def _stored(tensor: ModelTensor) -> int:
    return tensor_types.tensor_bytes(tensor.stored, tensor.shape)


def _compared(
    pairs: list[tuple[ModelTensor | None, ModelTensor | None]], values: bool, advance: Advance
) -> Iterator[TensorDifference]:
    done = 0
    for a, b in pairs:
        done += sum(_stored(one) for one in (a, b) if one is not None)
        yield _pair(a, b, values)
        advance(done)


def _pair(a: ModelTensor | None, b: ModelTensor | None, values: bool) -> TensorDifference:
    one = a or b
    assert one is not None
    found: TensorDifference = {
        "name": one.name,
        "shape": list(without_trailing_ones(one.shape)),
        "type_a": a.type.name if a is not None else None,
        "type_b": b.type.name if b is not None else None,
        "same": False,
        "blocks": None,
        "error": None,
        "largest": None,
        "row": None,
        "column": None,
    }
    if a is None or b is None or without_trailing_ones(a.shape) != without_trailing_ones(b.shape):
        return found
    alike = a.stored is b.stored and a.raw and b.raw
    if alike:
        found["blocks"] = _different_blocks(a, b)
        found["same"] = found["blocks"] == 0
    if not found["same"] and values and "integer" not in (a.stored.kind, b.stored.kind):
        _put_errors(found, a, b)
    return found


def _slabs(tensor: ModelTensor) -> Iterator[tuple[int, int]]:
    step = max(1, SLAB // max(tensor.columns, 1))
    for start in range(0, tensor.rows, step):
        yield start, min(start + step, tensor.rows)


def _different_blocks(a: ModelTensor, b: ModelTensor) -> int:
    count = 0
    for start, stop in _slabs(a):
        one, other = (
            numpy.frombuffer(tensor.reader.read_raw(start, stop), numpy.uint8).reshape(-1, a.stored.bytes)
            for tensor in (a, b)
        )
        count += int((one != other).any(axis=1).sum())
    return count


def _put_errors(found: TensorDifference, a: ModelTensor, b: ModelTensor) -> None:
    """How far the decoded values are apart."""
    squares = power = 0.0
    largest, place = -1.0, (0, 0)
    for start, stop in _slabs(a):
        one: NDArray[numpy.float64] = a.reader.read_rows(start, stop).astype(numpy.float64)
        difference = numpy.abs(one - b.reader.read_rows(start, stop).astype(numpy.float64))
        difference[numpy.isnan(difference)] = numpy.inf  # a number beside none
        squares += float(numpy.square(difference).sum())
        power += float(numpy.square(one).sum())
        number = int(difference.argmax()) if difference.size else 0
        if difference.size and difference.flat[number] > largest:
            largest, place = float(difference.flat[number]), (start + number // a.columns, number % a.columns)
    found["error"] = (squares / power) ** 0.5 if power else (0.0 if not squares else float("inf"))
    found["largest"], (found["row"], found["column"]) = max(largest, 0.0), place
