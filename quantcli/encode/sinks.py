"""Where encoded slabs go: one writing thread per output, which hashes as it writes, in the order of the plan."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from quantcli.encode.slabs import Slab
from quantcli.output.writer import OutputFile
from quantcli.plan.plan import Plan
from quantcli.plan.shards import ALIGNMENT

UNWRITTEN = 2  # slabs that wait for their writers

Progress = Callable[[int, int], None]  # (bytes of the source read, weights encoded)


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
