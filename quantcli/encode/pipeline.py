"""Slabs of rows from the source to every output: read once, encoded for each output while in cache, written in order.

Worker threads read and encode (the kernels release the interpreter's lock); the calling thread takes the slabs in their
order and gives them to one writing thread per output, which hashes as it writes. Only a few slabs are in flight, so
memory is bounded whatever the model's size, and rows are independent, so the number of threads does not change a byte.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy

from quantcli.encode.sinks import Buffer, Progress, Sink, Writing
from quantcli.encode.slabs import Slab, slabs
from quantcli.errors import MalformedFile, NonFiniteWeight, QuantcliError
from quantcli.ggml import kernels, tensor_types
from quantcli.model import ModelTensor
from quantcli.output.writer import OutputFile
from quantcli.plan.plan import Plan

DEFAULT_SEARCH = "best"
AHEAD = 2  # slabs in flight beyond one per thread


def default_threads() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True)
class Group:
    """What is written of one model: plans that share their order of tensors, and per plan its files, one per shard."""

    plans: Sequence[Plan]
    outputs: Sequence[Sequence[OutputFile]]

    def __post_init__(self) -> None:
        for plan in self.plans[1:]:
            assert [entry.tensor for entry in plan.entries] == self.tensors, "plans of one group share their order"

    @property
    def tensors(self) -> list[ModelTensor]:
        """The tensors in writing order."""
        return [entry.tensor for entry in self.plans[0].entries]


class Encoder:
    """Encodes slabs for the plans of every group. Thread-safe."""

    def __init__(self, groups: Sequence[Group], search: str | None) -> None:
        self.plans = [group.plans for group in groups]
        self.search = search
        self.reading: list[float] = []  # seconds of each slab, on any thread
        self._scratch = threading.local()
        self._pool: queue.SimpleQueue[numpy.ndarray] = queue.SimpleQueue()

    def encode(self, slab: Slab) -> list[Buffer]:
        """The slab's bytes for every output of its group."""
        tensor, rows, columns = slab.tensor, slab.stop - slab.start, slab.tensor.columns
        plans = self.plans[slab.group]
        types = [plan.entries[slab.index].type for plan in plans]
        copied = [tensor.raw and kind is tensor.stored for kind in types]
        start = time.perf_counter()
        raw = tensor.reader.read_raw(slab.start, slab.stop) if any(copied) else None
        floats = None if all(copied) else self._floats(slab, raw)
        self.reading.append(time.perf_counter() - start)
        if raw is not None and (all(copied) or tensor.stored.quantized):  # encoders look at every weight themselves
            self._check_copied(slab, raw)
        done: dict[tuple[int, int], Any] = {}
        results = []
        for kind, copy, plan in zip(types, copied, plans, strict=True):
            importance = plan.options.importance
            key = kind.id, id(importance)
            if copy:
                results.append(raw)
            else:
                if key not in done:
                    done[key] = self._encode(slab, kind, floats, importance, rows, columns)
                results.append(done[key])
        return results

    def recycle(self, results: Iterable[Any]) -> None:
        """Give the buffers of written results back."""
        for buffer in {id(result): result for result in results}.values():
            if isinstance(buffer, numpy.ndarray) and buffer.base is not None:
                self._pool.put(buffer.base)

    def _floats(self, slab: Slab, raw) -> numpy.ndarray:
        rows, columns = slab.stop - slab.start, slab.tensor.columns
        buffer = getattr(self._scratch, "floats", None)
        if buffer is None or buffer.size < rows * columns:
            buffer = self._scratch.floats = numpy.empty(rows * columns, numpy.float32)
        out = buffer[: rows * columns].reshape(rows, columns)
        if raw is not None:
            return kernels.decode(slab.tensor.stored.id, raw, rows, columns, out=out)
        return slab.tensor.reader.read_rows(slab.start, slab.stop, out)

    def _encode(self, slab: Slab, kind, floats, importance, rows: int, columns: int) -> numpy.ndarray:
        width = tensor_types.row_bytes(kind, columns)
        weights = None
        if importance is not None and kind.importance != "ignored":
            matrices = importance.for_tensor(slab.tensor.name, slab.tensor.shape)
            weights = None if matrices is None else matrices[slab.matrix]
        try:
            return kernels.encode(
                kind.id,
                floats,
                weights,
                search=search_for(kind, self.search),
                out=self._buffer(rows * width).reshape(rows, width),
            )
        except QuantcliError as error:
            raise _placed(error, slab) from None

    def _buffer(self, size: int) -> numpy.ndarray:
        try:
            buffer = self._pool.get_nowait()
        except queue.Empty:
            buffer = numpy.empty(0, numpy.uint8)
        if buffer.size < size:
            buffer = numpy.empty(max(size, 4096), numpy.uint8)
        return buffer[:size]

    @staticmethod
    def _check_copied(slab: Slab, raw) -> None:
        kind = slab.tensor.stored
        if kind.kind == "integer":
            return
        bad = kernels.validate(kind.id, raw, slab.stop - slab.start, slab.tensor.columns)
        if bad is not None:
            float_type = kind.kind == "float"
            what = "a weight" if float_type else "the scale of a block"
            error = (NonFiniteWeight if float_type else MalformedFile)(
                f"{what} is NaN or infinite", hint="the source is damaged: get it again"
            )
            error.row, error.column = bad
            raise _placed(error, slab)


def search_for(kind: tensor_types.TensorType, asked: str | None) -> str:
    """The search that is used for a type: what was asked for, where the type has it; else ggml's."""
    wanted = asked or DEFAULT_SEARCH
    return wanted if kernels.can_encode(kind.id, wanted) else "ggml"


def _placed(error: QuantcliError, slab: Slab) -> QuantcliError:
    """Name tensor and row: kernels count from the start of the slab."""
    error.where = f"{slab.tensor.origin}: tensor {slab.tensor.name}"
    if getattr(error, "row", -1) >= 0:
        error.where += f", row {slab.start + error.row}, column {error.column}"
    return error


# ---- the run


def run(
    groups: Sequence[Group], *, threads: int, search: str | None, progress: Progress | None = None
) -> tuple[int, float]:
    """Fill the files of every group, one model after the other, through the same threads.

    Returns the weights encoded, and the seconds of reading the sources as float32 (summed over threads). Any failure
    leaves the files to the caller, who discards them.
    """
    encoder = Encoder(groups, search)
    with ExitStack() as stack:
        sinks = [
            [stack.enter_context(Sink(plan, files)) for plan, files in zip(group.plans, group.outputs, strict=True)]
            for group in groups
        ]
        writing = Writing(sinks, encoder.recycle, progress)
        work = chain.from_iterable(slabs(group.tensors, number) for number, group in enumerate(groups))
        in_order(work, encoder.encode, writing.take, threads)
        writing.finish()
    return writing.encoded, sum(encoder.reading)


def in_order(
    items: Iterable[Slab], work: Callable[[Slab], Any], take: Callable[[Slab, Any], None], threads: int
) -> None:
    """``work`` on threads, ``take`` its results here and in order, with a bounded number of items in between."""
    pending: deque[tuple[Slab, Future]] = deque()
    stop = threading.Event()

    def guarded(item: Slab) -> Any:
        return None if stop.is_set() else work(item)

    with ThreadPoolExecutor(threads, thread_name_prefix="quantcli") as pool:
        try:
            for item in items:
                pending.append((item, pool.submit(guarded, item)))
                if len(pending) >= threads + AHEAD:
                    first, future = pending.popleft()
                    take(first, future.result())
            while pending:
                first, future = pending.popleft()
                take(first, future.result())
        except BaseException:
            stop.set()
            for _, future in pending:
                future.cancel()
            raise
