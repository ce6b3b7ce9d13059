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
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy

from quantcli import formats, kernels
from quantcli.errors import MalformedFile, NonFiniteWeight, QuantcliError
from quantcli.model import ModelTensor
from quantcli.plan import Plan
from quantcli.shards import ALIGNMENT, PlannedTensor
from quantcli.writer import OutputFile

SLAB_WEIGHTS = 1 << 19  # 2 MiB of float32: stays in the caches of a core's share while every output is encoded
SLAB_ROWS = 16  # slabs are multiples, as far as a matrix goes: kernels take this many rows side by side
DEFAULT_SEARCH = "best"
AHEAD = 2  # slabs in flight beyond one per thread
UNWRITTEN = 2  # slabs that wait for their writers

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Slab:
    """Rows ``start`` to ``stop`` of a tensor, all of one matrix (expert) ``matrix``; ``last``: the tensor's last."""

    index: int  # of the tensor in the writing order
    tensor: ModelTensor
    matrix: int
    start: int
    stop: int
    last: bool


def default_threads() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def slabs(tensors: Sequence[ModelTensor]) -> Iterator[Slab]:
    """Cut tensors, in order, into slabs of about SLAB_WEIGHTS weights."""
    for index, tensor in enumerate(tensors):
        total = tensor.rows
        per_matrix = tensor.shape[1] if len(tensor.shape) > 2 else total
        step = max(SLAB_WEIGHTS // max(tensor.columns, 1) // SLAB_ROWS, 1) * SLAB_ROWS
        for matrix, base in enumerate(range(0, total, max(per_matrix, 1))):
            end = min(base + per_matrix, total)
            for start in range(base, end, step):
                stop = min(start + step, end)
                yield Slab(index, tensor, matrix, start, stop, stop == total)


class Encoder:
    """Encodes slabs for several plans of one model. Thread-safe."""

    def __init__(self, plans: Sequence[Plan], search: str | None) -> None:
        self.entries: list[Sequence[PlannedTensor]] = [plan.entries for plan in plans]
        self.importance = [plan.options.importance for plan in plans]
        self.search = search
        self.reading: list[float] = []  # seconds of each slab, on any thread
        self._scratch = threading.local()
        self._pool: queue.SimpleQueue[numpy.ndarray] = queue.SimpleQueue()

    def encode(self, slab: Slab) -> list[numpy.ndarray | memoryview]:
        """The slab's bytes for every output."""
        tensor, rows, columns = slab.tensor, slab.stop - slab.start, slab.tensor.columns
        types = [entries[slab.index].type for entries in self.entries]
        copied = [tensor.raw and kind is tensor.stored for kind in types]
        start = time.perf_counter()
        raw = tensor.reader.read_raw(slab.start, slab.stop) if any(copied) else None
        floats = None if all(copied) else self._floats(slab, raw)
        self.reading.append(time.perf_counter() - start)
        if raw is not None and (all(copied) or tensor.stored.quantized):  # encoders look at every weight themselves
            self._check_copied(slab, raw)
        done: dict[tuple[int, int], Any] = {}
        results = []
        for kind, copy, importance in zip(types, copied, self.importance, strict=True):
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
        width = formats.row_bytes(kind, columns)
        weights = None
        if importance is not None and kind.importance != "ignored":
            matrices = importance.for_tensor(slab.tensor.name, slab.tensor.shape)
            weights = None if matrices is None else matrices[slab.matrix]
        try:
            return kernels.encode(kind.id, floats, weights, search=search_for(kind, self.search),
                                  out=self._buffer(rows * width).reshape(rows, width))
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
                f"{what} is NaN or infinite", hint="the source is damaged: get it again")
            error.row, error.column = bad
            raise _placed(error, slab)


def search_for(kind: formats.TensorType, asked: str | None) -> str:
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


def run(plans: Sequence[Plan], outputs: Sequence[Sequence[OutputFile]], *, threads: int, search: str | None,
        progress: Progress | None = None) -> tuple[int, float]:
    """Fill the files of every plan (one list per plan, one file per shard).

    Returns the weights encoded, and the seconds of reading the source as float32 (summed over threads).

    All plans must be of one model and in one order. Any failure leaves the files to the caller, who discards them.
    """
    tensors = [entry.tensor for entry in plans[0].entries]
    for plan in plans[1:]:
        assert [entry.tensor for entry in plan.entries] == tensors, "plans of one run share their order"
    encoder = Encoder(plans, search)
    with ExitStack() as stack:
        sinks = [stack.enter_context(Sink(plan, files)) for plan, files in zip(plans, outputs, strict=True)]
        writing = Writing(sinks, encoder.recycle, progress)
        in_order(slabs(tensors), encoder.encode, writing.take, threads)
        writing.finish()
    return writing.encoded, sum(encoder.reading)


def in_order(items: Iterable[Slab], work: Callable[[Slab], Any], take: Callable[[Slab, Any], None],
             threads: int) -> None:
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


class Writing:
    """Hands slabs to all outputs. At most UNWRITTEN wait: a slow disk slows the encoders instead of filling memory."""

    def __init__(self, sinks: Sequence[Sink], recycle: Callable[[list], None], progress: Progress | None) -> None:
        self.sinks, self.recycle, self.progress = sinks, recycle, progress
        self.read = self.encoded = 0  # bytes of the source, weights of all outputs
        self._unwritten: deque[tuple[Slab, list, list[Future]]] = deque()

    def take(self, slab: Slab, results: list) -> None:
        """The next slab, one result per output. Failures of earlier ones show here."""
        futures = [sink.put(slab, data) for sink, data in zip(self.sinks, results, strict=True)]
        self._unwritten.append((slab, results, futures))
        if len(self._unwritten) > UNWRITTEN:
            self._settle()

    def finish(self) -> None:
        """Wait for the rest."""
        while self._unwritten:
            self._settle()
        for sink in self.sinks:
            sink.check()

    def _settle(self) -> None:
        slab, results, futures = self._unwritten.popleft()
        for future in futures:
            future.result()
        self.recycle(results)
        weights = (slab.stop - slab.start) * slab.tensor.columns
        self.read += weights * slab.tensor.stored.bytes // slab.tensor.stored.block
        self.encoded += weights * len(self.sinks)
        if self.progress:
            self.progress(self.read, self.encoded)


class Sink:
    """Writes one plan's slabs into its shard files (headers, data, padding) on a thread of its own, in order."""

    def __init__(self, plan: Plan, files: Sequence[OutputFile]) -> None:
        self.plan, self.files = plan, files
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="quantcli-write")

    def __enter__(self) -> Sink:
        for shard, file in zip(self.plan.shards, self.files, strict=True):
            header = shard.header()
            assert len(header) == shard.header_bytes
            file.append(header)
        return self

    def __exit__(self, *unused: object) -> None:
        self._thread.shutdown(cancel_futures=True)

    def put(self, slab: Slab, data: Any) -> Future:
        """Write ``data`` behind what was put before. The buffer has to stay as it is until then."""
        return self._thread.submit(self._write, slab, data)

    def _write(self, slab: Slab, data: Any) -> None:
        entry = self.plan.entries[slab.index]
        file = self.files[entry.shard]
        if slab.matrix == 0 and slab.start == 0:
            assert file.written == self.plan.shards[entry.shard].header_bytes + entry.offset
        file.append(data)
        if slab.last:
            file.append(bytes(-entry.bytes % ALIGNMENT))

    def check(self) -> None:
        """That every file has its planned size."""
        for shard, file in zip(self.plan.shards, self.files, strict=True):
            assert file.written == shard.file_bytes, f"{file.path}: {file.written} of {shard.file_bytes} bytes"
