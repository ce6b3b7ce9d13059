"""Slabs of rows from the source to every output: read once, encoded for each output while in cache, written in order.

Worker threads read and encode (the kernels release the interpreter's lock); the calling thread takes the slabs in their
order and gives them to one writing thread per output, which hashes as it writes. Only a few slabs are in flight, so
memory is bounded whatever the model's size, and rows are independent, so the number of threads does not change a byte.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import TypeAlias, TypeVar

import numpy

from quantcli.encode.ahead import Ahead
from quantcli.encode.prepared import Prepared
from quantcli.encode.sinks import Buffer, Buffers, Progress, Sink, Writing
from quantcli.encode.slabs import Slab, slabs
from quantcli.errors import MalformedFile, NonFiniteWeight, QuantcliError
from quantcli.ggml import kernels, tensor_types
from quantcli.ggml.tensor_types import TensorType
from quantcli.methods.seam import Blocks, Matrix, RowEncoder, Rows, Settings, Statistics
from quantcli.methods.snap import Snapping
from quantcli.methods.table import Choice
from quantcli.output.writer import OutputFile
from quantcli.plan import together
from quantcli.plan.plan import Plan
from quantcli.plan.together import Order

AHEAD = 2  # slabs in flight beyond one per thread

Source: TypeAlias = "tuple[bytes | memoryview | None, Rows | None]"  # of a slab: its stored bytes, its rows

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True, eq=False, repr=False)
class Group:
    """What is written of one model: plans that share their order of tensors, and per plan its files, one per shard."""

    plans: Sequence[Plan]
    outputs: Sequence[Sequence[OutputFile]]

    @cached_property
    def order(self) -> Order:
        """What is written, in its order."""
        found = together.order(self.plans)
        assert found is not None, "plans of one group share their order"
        return found


class Encoder:
    """Encodes slabs for the plans of every group. Thread-safe.

    ``sinks``: per group one for each plan; what they have already is not encoded again.
    """

    def __init__(
        self, groups: Sequence[Group], sinks: Sequence[Sequence[Sink]], choice: Choice, snap: Snapping
    ) -> None:
        self.plans, self.sinks = [group.plans for group in groups], sinks
        self.entries = [group.order.entries for group in groups]
        self.choice, self.snap = choice, snap
        self.reading: list[float] = []  # seconds of each slab, on any thread
        self.ahead: Ahead[Source] | None = None  # reads the slabs on threads of its own
        self._floats_read: queue.SimpleQueue[Rows] = queue.SimpleQueue()  # buffers of what was read ahead
        self._prepared = Prepared()
        self._scratch = threading.local()
        self._pool: queue.SimpleQueue[Blocks] = queue.SimpleQueue()

    def read(self, slab: Slab) -> Source:
        """The slab's stored bytes and its rows, as far as its outputs need them."""
        copied = [copy for _, copy, there in self._types(slab) if not there]
        start = time.perf_counter()
        raw = slab.tensor.reader.read_raw(slab.start, slab.stop) if any(copied) else None
        rows = None if all(copied) else self._floats(slab, raw)
        self.reading.append(time.perf_counter() - start)
        return raw, rows

    def read_ahead(self, slab: Slab) -> Source:
        """The same, and with a matrix's first rows its encoders: those look at some others, for which nobody waits."""
        found = self.read(slab)
        matrix = Matrix.of(slab.tensor, slab.matrix)
        if slab.start == slab.matrix * matrix.rows:
            for (tensor_type, copied, there), plan in zip(self._types(slab), self.plans[slab.group], strict=True):
                if not (copied or there):
                    self._encoder(slab, matrix, tensor_type, plan)
        return found

    def encode(self, slab: Slab) -> list[Buffer | None]:
        """The slab's bytes for every output of its group, None for those that have it."""
        if self.ahead is None:
            return self._outputs(slab, *self.read(slab))
        raw, rows = self.ahead.take(slab)
        results = self._outputs(slab, raw, rows)
        if rows is not None and isinstance(rows.base, numpy.ndarray):
            self._floats_read.put(rows.base)
        return results

    def _types(self, slab: Slab) -> list[tuple[TensorType, bool, bool]]:
        """For every plan the type, whether it takes the slab's bytes as they are, and whether its file has it (or never
        will)."""
        tensor, made = slab.tensor, (entries[slab.index] for entries in self.entries[slab.group])
        types = [tensor.stored if entry is None else entry.type for entry in made]
        there = [sink.has(slab) for sink in self.sinks[slab.group]]
        return [(one, tensor.raw and one is tensor.stored, has) for one, has in zip(types, there, strict=True)]

    def _outputs(self, slab: Slab, raw: bytes | memoryview | None, rows: Rows | None) -> list[Buffer | None]:
        """What several outputs want alike is encoded once."""
        tensor, plans = slab.tensor, self.plans[slab.group]
        wanted = self._types(slab)
        copied = [copy for _, copy, there in wanted if not there]
        if raw is not None and (all(copied) or tensor.stored.quantized):  # encoders look at every weight themselves
            self._check_copied(slab, raw)
        done: dict[tuple[int, int], Blocks] = {}
        results: list[Buffer | None] = []
        for (tensor_type, copy, there), plan in zip(wanted, plans, strict=True):
            key = tensor_type.id, id(plan.options.importance)
            if there:
                results.append(None)
                continue
            if copy and raw is not None:
                results.append(raw)
                continue
            if rows is not None and key not in done:
                done[key] = self._encode(slab, tensor_type, rows, plan)
            results.append(done[key])
        return results

    def recycle(self, results: Buffers) -> None:
        """Give the buffers of written results back."""
        for buffer in {id(result): result for result in results}.values():
            if isinstance(buffer, numpy.ndarray) and isinstance(buffer.base, numpy.ndarray):
                self._pool.put(buffer.base)

    def _floats(self, slab: Slab, raw: bytes | memoryview | None) -> Rows:
        """The slab's rows as float32."""
        count, columns = slab.stop - slab.start, slab.tensor.columns
        buffer = self._float_buffer(count * columns)
        out: Rows = buffer[: count * columns].reshape(count, columns)
        if raw is not None:
            return kernels.decode(slab.tensor.stored.id, raw, count, columns, out=out)
        return slab.tensor.reader.read_rows(slab.start, slab.stop, out)

    def _float_buffer(self, size: int) -> Rows:
        """The thread's own, which its next slab takes over; where slabs are read ahead, one that nobody uses."""
        buffer: Rows | None = None
        if self.ahead is None:
            buffer = getattr(self._scratch, "floats", None)
        else:
            with suppress(queue.Empty):
                buffer = self._floats_read.get_nowait()
        if buffer is None or buffer.size < size:
            buffer = numpy.empty(size, numpy.float32)
        if self.ahead is None:
            self._scratch.floats = buffer
        return buffer

    def _encode(self, slab: Slab, tensor_type: TensorType, rows: Rows, plan: Plan) -> Blocks:
        matrix = Matrix.of(slab.tensor, slab.matrix)
        width = tensor_types.row_bytes(tensor_type, matrix.columns)
        out = self._buffer(len(rows) * width).reshape(len(rows), width)
        encode = self._encoder(slab, matrix, tensor_type, plan)
        try:
            encode(rows, slab.start - slab.matrix * matrix.rows, out)
        except QuantcliError as error:
            raise _placed(error, slab) from None
        self._prepared.done(_encoder_key(slab, tensor_type, plan), len(rows))
        return out

    def _encoder(self, slab: Slab, matrix: Matrix, tensor_type: TensorType, plan: Plan) -> RowEncoder:
        """The encoder of a matrix: of the chosen method, around it what carries blocks over."""

        def make() -> RowEncoder:
            ordinary = self.choice.prepare(matrix, tensor_type, Statistics(plan.options.importance))
            return self.snap.prepare((slab.group, slab.index, tensor_type.id), matrix, tensor_type, ordinary)

        try:
            return self._prepared.get(_encoder_key(slab, tensor_type, plan), matrix.rows, make)
        except QuantcliError as error:
            raise _placed(error, slab) from None

    def _buffer(self, size: int) -> Blocks:
        try:
            buffer = self._pool.get_nowait()
        except queue.Empty:
            buffer = numpy.empty(0, numpy.uint8)
        if buffer.size < size:
            buffer = numpy.empty(max(size, 4096), numpy.uint8)
        return buffer[:size]

    @staticmethod
    def _check_copied(slab: Slab, raw: bytes | memoryview) -> None:
        stored = slab.tensor.stored
        if stored.kind == "integer":
            return
        bad = kernels.validate(stored.id, raw, slab.stop - slab.start, slab.tensor.columns)
        if bad is not None:
            float_type = stored.kind == "float"
            what = "a weight" if float_type else "the scale of a block"
            error = (NonFiniteWeight if float_type else MalformedFile)(
                f"{what} is NaN or infinite", hint="the source is damaged: get it again"
            )
            error.row, error.column = bad
            raise _placed(error, slab)


def _encoder_key(slab: Slab, tensor_type: TensorType, plan: Plan) -> Hashable:
    """What one encoder serves: a matrix, its type, and what is known of its inputs."""
    return slab.group, slab.index, slab.matrix, tensor_type.id, id(plan.options.importance)


def _placed(error: QuantcliError, slab: Slab) -> QuantcliError:
    """Name tensor and row: kernels count from the start of the slab."""
    error.where = f"{slab.tensor.origin}: tensor {slab.tensor.name}"
    if error.row >= 0:
        error.where += f", row {slab.start + error.row}, column {error.column}"
    return error


# ---- the run


def run(
    groups: Sequence[Group],
    *,
    threads: int,
    search: str | None,
    method: str | None = None,
    progress: Progress | None = None,
    snap: Snapping | None = None,
    cancel: Callable[[], None] | None = None,
) -> tuple[int, float]:
    """Fill the files of every group, one model after the other, through the same threads.

    ``cancel``: the sources are far away, so that slabs are read ahead, and it ends all waiting for them.

    ``method`` is a name of methods/table.py, ``search`` one of kernels.SEARCHES; None: the default. ``snap`` says which
    weights are carried over (None: none), and has counted them in the end, by (group, tensor, type).
    Returns the weights encoded, and the seconds of reading the sources as float32 (summed over threads). Any failure
    leaves the files to the caller, who discards them.
    """
    with ExitStack() as stack:
        sinks = [
            [
                stack.enter_context(Sink(plan, files, entries))
                for plan, files, entries in zip(group.plans, group.outputs, group.order.entries, strict=True)
            ]
            for group in groups
        ]
        encoder = Encoder(groups, sinks, Choice(method, Settings(search)), snap or Snapping())
        writing = Writing(sinks, encoder.recycle, progress)
        every = chain.from_iterable(slabs(group.order.tensors, number) for number, group in enumerate(groups))
        work = _unwritten(every, sinks, writing)
        if cancel is None:
            in_order(work, encoder.encode, writing.take, threads)
        else:
            ahead = encoder.ahead = Ahead(encoder.read_ahead, cancel)
            stack.callback(ahead.stop)
            in_order(ahead.through(work), encoder.encode, writing.take, threads, ahead.stop)
        writing.finish()
    return writing.encoded, sum(encoder.reading)


def _unwritten(every: Iterable[Slab], sinks: Sequence[Sequence[Sink]], writing: Writing) -> Iterator[Slab]:
    """The slabs that some output lacks."""
    for slab in every:
        if all(sink.has(slab) for sink in sinks[slab.group]):
            writing.passed(slab)
        else:
            yield slab


def in_order(
    items: Iterable[_Item],
    work: Callable[[_Item], _Result],
    take: Callable[[_Item, _Result], None],
    threads: int,
    cancel: Callable[[], None] | None = None,
) -> None:
    """``work`` on threads, ``take`` its results here and in order, with a bounded number of items in between.

    Where something fails, ``cancel`` wakes the threads that wait for what will not come.
    """
    pending: deque[tuple[_Item, Future[_Result]]] = deque()
    stop = threading.Event()

    def guarded(item: _Item) -> _Result:
        if stop.is_set():
            raise CancelledError
        return work(item)

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
            if cancel is not None:
                cancel()
            for _, future in pending:
                future.cancel()
            raise
