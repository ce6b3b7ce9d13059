"""Where encoded slabs go: one writing thread per output, which hashes as it writes, in the order of the plan."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from typing import TypeAlias

import numpy
from numpy.typing import NDArray

from quantcli.container import padded
from quantcli.encode.slabs import Slab
from quantcli.output.writer import OutputFile
from quantcli.plan.plan import Plan
from quantcli.plan.shards import ALIGNMENT, PlannedTensor

UNWRITTEN = 2  # slabs that wait for their writers

Progress: TypeAlias = Callable[[int, int], None]  # (bytes of the source read, weights encoded)
Buffer: TypeAlias = NDArray[numpy.uint8] | memoryview | bytes  # a slab's bytes for one output
Buffers: TypeAlias = Sequence[Buffer | None]  # for every output of its group; None where it is written already


class Writing:
    """Hands slabs to all outputs. At most UNWRITTEN wait: a slow disk slows the encoders instead of filling memory."""

    def __init__(
        self, sinks: Sequence[Sequence[Sink]], recycle: Callable[[Buffers], None], progress: Progress | None
    ) -> None:
        """``sinks``: one list per group, one sink per output of the group's model."""
        self.sinks, self.recycle, self.progress = sinks, recycle, progress
        self.read = self.encoded = 0  # bytes of the source, weights of all outputs
        self._unwritten: deque[tuple[Slab, Buffers, list[Future[None]]]] = deque()

    def take(self, slab: Slab, results: Buffers) -> None:
        """The next slab, one result per output of its group. Failures of earlier ones show here."""
        futures = [sink.put(slab, data) for sink, data in zip(self.sinks[slab.group], results, strict=True)]
        self._unwritten.append((slab, results, futures))
        if len(self._unwritten) > UNWRITTEN:
            self._settle()

    def finish(self) -> None:
        """Wait for the rest."""
        while self._unwritten:
            self._settle()
        for sink in chain.from_iterable(self.sinks):
            sink.check()

    def _settle(self) -> None:
        slab, results, futures = self._unwritten.popleft()
        for future in futures:
            future.result()
        self.recycle(results)
        self.passed(slab)
        self.encoded += weights_of(slab) * sum(result is not None for result in results)
        if self.progress:
            self.progress(self.read, self.encoded)

    def passed(self, slab: Slab) -> None:
        """Another slab of the source is done with."""
        self.read += weights_of(slab) * slab.tensor.stored.bytes // slab.tensor.stored.block


def weights_of(slab: Slab) -> int:
    """Weights of a slab."""
    return (slab.stop - slab.start) * slab.tensor.columns


class Sink:
    """Writes one plan's slabs into its shard files (headers, data, padding) on a thread of its own, in order.

    ``entries``: what the plan makes of each tensor that comes, None for those that are others' alone.
    """

    def __init__(self, plan: Plan, files: Sequence[OutputFile], entries: Sequence[PlannedTensor | None]) -> None:
        self.plan, self.files, self.entries = plan, files, entries
        self.there = [file.written for file in files]  # bytes that an earlier run has left
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="quantcli-write")

    def __enter__(self) -> Sink:
        for shard, file in zip(self.plan.shards, self.files, strict=True):
            if file.written:
                continue
            header = shard.header()
            assert len(header) == shard.header_bytes
            file.append(header)
            file.mark()
        return self

    def __exit__(self, *unused: object) -> None:
        self._thread.shutdown(cancel_futures=True)

    def has(self, slab: Slab) -> bool:
        """Whether an earlier run has written it, or the plan does not."""
        entry = self.entries[slab.index]
        if entry is None:
            return True
        there = self.there[entry.shard]
        if not there:
            return False
        rows = slab.tensor.rows
        size = padded(entry.bytes) if slab.last else entry.bytes // rows * slab.stop
        return self.plan.shards[entry.shard].header_bytes + entry.offset + size <= there

    def put(self, slab: Slab, data: Buffer | None) -> Future[None]:
        """Write ``data`` behind what was put before; None: it is there. The buffer has to stay as it is until then."""
        return self._thread.submit(self._write, slab, data)

    def _write(self, slab: Slab, data: Buffer | None) -> None:
        entry = self.entries[slab.index]
        if data is None or entry is None:
            return
        file = self.files[entry.shard]
        if slab.matrix == 0 and slab.start == 0:
            assert file.written == self.plan.shards[entry.shard].header_bytes + entry.offset
        file.append(data)
        if slab.last:
            file.append(bytes(-entry.bytes % ALIGNMENT))
        file.mark()

    def check(self) -> None:
        """That every file has its planned size."""
        for shard, file in zip(self.plan.shards, self.files, strict=True):
            assert file.written == shard.file_bytes, f"{file.path}: {file.written} of {shard.file_bytes} bytes"
