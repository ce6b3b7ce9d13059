"""Arrays of numbers -> blocks of a tensor type, and back: the kernels that `convert` uses, on all cores."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import numpy
from numpy.typing import ArrayLike, NDArray

from quantcli.errors import ImportanceNeeded, UsageError
from quantcli.ggml import kernels, tensor_types
from quantcli.ggml.tensor_types import TensorType
from quantcli.methods.plain import search_for
from quantcli.system import usable_cores

PIECE = 1 << 20  # weights of a piece of work: rows that stay in cache together

Work: TypeAlias = Callable[[int, int], object]


def encode_blocks(
    values: ArrayLike,
    type: str,
    *,
    importance: ArrayLike | None = None,
    search: str | None = None,
    threads: int | None = None,
) -> NDArray[numpy.uint8]:
    """The blocks of ``values`` [..., columns] in a tensor type ("Q4_K"): uint8 [..., bytes of a row].

    The bytes are those that `convert` writes. ``importance``: one weight per column, float [columns], on the squared
    errors. ``search``: "best" (default) or "ggml", for ggml's bytes. Raises UnknownType, IndivisibleRow, NoKernel,
    ImportanceNeeded, NonFiniteWeight, ScaleOverflow, UsageError.
    """
    tensor_type = tensor_types.by_name(type)
    array = numpy.asarray(values)
    if array.dtype.kind not in "fiu":
        raise UsageError(
            f"an array of {array.dtype} cannot be encoded", hint="give float32 values, or what becomes them"
        )
    if array.ndim == 0:
        raise UsageError("a single number has no rows", hint="give an array [..., columns]")
    if tensor_type.importance == "required" and importance is None:
        raise ImportanceNeeded(
            f"{tensor_type.name} needs importance",
            hint="give importance=, one weight per column; numpy.ones(columns) at least",
        )
    width = tensor_types.row_bytes(tensor_type, array.shape[-1])
    rows = numpy.ascontiguousarray(array, numpy.float32).reshape(-1, array.shape[-1])
    weights = None if importance is None else _weights(importance, array.shape[-1])
    name = _search(tensor_type, search)
    out = numpy.empty((len(rows), width), numpy.uint8)

    def work(start: int, stop: int) -> None:
        kernels.encode(tensor_type.id, rows[start:stop], weights, search=name, out=out[start:stop])

    _in_pieces(work, len(rows), array.shape[-1], threads)
    return out.reshape(*array.shape[:-1], width)


def decode_blocks(
    blocks: NDArray[Any] | bytes, type: str, *, columns: int | None = None, threads: int | None = None
) -> NDArray[numpy.float32]:
    """The values of blocks of a tensor type: float32 [..., columns].

    ``blocks``: uint8 [..., bytes of a row] as `encode_blocks` gives them; or bytes of any shape where ``columns`` is
    given, then [rows, columns]. Raises UnknownType, UsageError, NoKernel.
    """
    tensor_type = tensor_types.by_name(type)
    raw = numpy.frombuffer(blocks, numpy.uint8) if isinstance(blocks, bytes | bytearray | memoryview) else blocks
    raw = numpy.ascontiguousarray(raw)
    if raw.dtype != numpy.uint8 or raw.ndim == 0:
        raise UsageError(f"blocks are bytes, not {raw.dtype}", hint="give an array of uint8")
    if columns is not None:
        raw = _in_rows(raw, tensor_types.row_bytes(tensor_type, columns), tensor_type)
    width = raw.shape[-1]
    if width % tensor_type.bytes:
        raise UsageError(f"{width} bytes are no multiple of {tensor_type.name}'s block of {tensor_type.bytes}")
    columns = width // tensor_type.bytes * tensor_type.block
    rows = raw.reshape(-1, width)
    out = numpy.empty((len(rows), columns), numpy.float32)

    def work(start: int, stop: int) -> None:
        kernels.decode(tensor_type.id, rows[start:stop], stop - start, columns, out=out[start:stop])

    _in_pieces(work, len(rows), columns, threads)
    return out.reshape(*raw.shape[:-1], columns)


def _in_rows(raw: NDArray[numpy.uint8], width: int, tensor_type: TensorType) -> NDArray[numpy.uint8]:
    if width == 0 or raw.size % width:
        raise UsageError(f"{raw.size} bytes are no rows of {width} bytes ({tensor_type.name})")
    return raw.reshape(-1, width)


def _weights(importance: ArrayLike, columns: int) -> NDArray[numpy.float32]:
    weights = numpy.ascontiguousarray(importance, numpy.float32)
    if weights.shape != (columns,):
        raise UsageError(f"importance has the shape {weights.shape}", hint=f"give one weight per column: ({columns},)")
    return weights


def _search(tensor_type: TensorType, asked: str | None) -> str:
    if asked is not None and asked not in kernels.SEARCHES:
        raise UsageError(f"there is no search {asked!r}", hint=f"known: {', '.join(kernels.SEARCHES)}")
    return search_for(tensor_type, asked)


def _in_pieces(work: Work, rows: int, columns: int, threads: int | None) -> None:
    """``work`` on all rows, some at a time, on several threads: the kernels release the interpreter's lock."""
    step = max(1, PIECE // max(columns, 1))
    starts = range(0, rows if columns else 0, step)
    if len(starts) <= 1:
        for start in starts:
            work(start, rows)
        return
    with ThreadPoolExecutor(min(threads or usable_cores(), len(starts)), thread_name_prefix="quantcli") as pool:
        for done in [pool.submit(work, start, min(start + step, rows)) for start in starts]:
            done.result()
