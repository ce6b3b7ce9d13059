"""A mounted file: its beginning and single rows are asked for as they are, tensors in blocks."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Sequence

from quantcli.errors import BadAnswer, QuantcliError
from quantcli.sources.hub.blocks import BLOCK, Block, Blocks
from quantcli.sources.hub.ranges import Ranges
from quantcli.sources.hub.sums import Sum

HEAD = 64 << 10  # bytes that are asked for first: the header of most files
POINT = 64 << 10  # fewer bytes, out of order, are asked for alone: a few rows that tell what a matrix is


class RemoteFile:
    """One file of a commit, for all who open it. `places.Elsewhere`."""

    def __init__(self, ranges: Ranges, blocks: Blocks) -> None:
        self.ranges, self.size = ranges, ranges.size
        self._blocks = blocks
        self._starts: list[int] = []  # of the tensors
        self._next: set[int] = set()  # blocks that follow upon one that was read
        self._points: dict[tuple[int, int], bytes] = {}
        self._head: bytes | None = None
        self._before: list[tuple[int, bytes]] = []  # what was read before it was known where tensors are
        self._open = 0
        self._end = threading.Event()
        self._lock = threading.RLock()
        self.sum = Sum(ranges.size, self._exact)

    @property
    def sha256(self) -> str | None:
        """What the hub announces; `check_unchanged` says whether it came so."""
        return self.ranges.sha256

    # ---- who reads

    def open(self) -> Handle:
        with self._lock:
            self._start()
            self._open += 1
        return Handle(self)

    def prepare(self) -> None:
        """Ask for the head."""
        with self._lock:
            self._start()
        if self.size and not self._blocks.has(self, 0):
            self._blocks.ahead(self, 0, min(HEAD, self.size), self.ranges.fetch, self._end, self._arrived)

    def _start(self) -> None:
        if self._end.is_set():
            self._end = threading.Event()

    def expect(self, starts: Sequence[int]) -> None:
        """With the first tensor it is known what was header, and is summed as it was read."""
        self._starts = list(starts)
        with self._lock:
            before, self._before = self._before, []
        end = max(starts[0] if starts else self.size, self._head_size)
        for start, data in sorted(before):
            if start < end:
                self.sum.offer(start, data[: end - start], _nothing, _nothing)

    def closed(self) -> None:
        """One handle less; with the last one all requests end."""
        with self._lock:
            self._open -= 1
            if self._open > 0:
                return
            self._end.set()
        self.sum.close()
        self._blocks.forget(self)
        self._points.clear()

    # ---- reading

    def read_some(self, buffer: memoryview, offset: int) -> int:
        count = min(len(buffer), self.size - offset)
        if count <= 0:
            return 0
        if offset < self._head_size:
            count = min(count, self._head_size - offset)
            buffer[:count] = self._beginning()[offset : offset + count]
            return count
        if not self._starts or offset < self._starts[0]:
            return self._header(buffer[:count], offset)
        start, stop = self._piece(offset)
        if self._single(count, offset, start, stop):
            return self._alone(buffer[:count], offset)
        self._next.add(stop)
        return self._from_block(buffer, offset, start, stop)

    def _piece(self, offset: int) -> tuple[int, int]:
        """The block with the byte ``offset``: of one tensor, counted from its beginning."""
        number = bisect_right(self._starts, offset) - 1
        begin = max(self._starts[number], self._head_size)
        end = self._starts[number + 1] if number + 1 < len(self._starts) else self.size
        start = begin + (offset - begin) // BLOCK * BLOCK
        return start, min(start + BLOCK, end)

    def _single(self, count: int, offset: int, start: int, stop: int) -> bool:
        """Whether this is a look at one place, and no reading of the tensor."""
        if count >= POINT or stop - start <= 4 * count or start in self._next or self._blocks.has(self, start):
            return False
        return start > max(self._starts[bisect_right(self._starts, offset) - 1], self._head_size)

    def _from_block(self, buffer: memoryview, offset: int, start: int, stop: int) -> int:
        block = self._blocks.take(self, start, stop, self.ranges.fetch, self._end, self._arrived)
        count = 0
        try:
            block.ready.wait()
            if block.error is not None:
                raise block.error
            count = min(len(buffer), stop - offset)
            buffer[:count] = block.data.data[offset - start : offset - start + count]
            return count
        finally:
            self._blocks.release(block, count)

    def soon(self, offset: int, count: int) -> None:
        """Ask for the blocks of these bytes, as far as there is room for them."""
        end, offset = min(offset + count, self.size), max(offset, self._head_size)
        while self._starts and offset >= self._starts[0] and count >= POINT and offset < end:
            start, stop = self._piece(offset)
            self._blocks.ahead(self, start, stop, self.ranges.fetch, self._end, self._arrived)
            offset = stop

    @property
    def _head_size(self) -> int:
        return min(HEAD, self.size)

    def _beginning(self) -> bytes:
        """The head, which is kept: every byte comes once, so that what is summed is what is used."""
        if self._head is None:
            head = bytearray(self._head_size)
            self._from_block(memoryview(head), 0, 0, len(head))
            with self._lock:
                if self._head is None:
                    self._head = bytes(head)
                    self._before.append((0, self._head))
        return self._head

    def _header(self, buffer: memoryview, offset: int) -> int:
        """What stands between the head and the tensors."""
        buffer[:] = found = self._exact(offset, offset + len(buffer))
        if not self._starts:
            self._before.append((offset, found))
        return len(buffer)

    def _alone(self, buffer: memoryview, offset: int) -> int:
        """These bytes and no others; those of single rows are kept, for they are looked at for every type."""
        key = offset, len(buffer)
        found = self._points.get(key)
        if found is None:
            found = self._exact(offset, offset + len(buffer))
            if len(found) < POINT and len(self._points) < 64:
                self._points[key] = found
        buffer[:] = found
        return len(buffer)

    def _exact(self, start: int, stop: int) -> bytes:
        data = bytearray(stop - start)
        end = self._end
        self.ranges.fetch(start, memoryview(data), end)
        if end.is_set():
            raise QuantcliError("reading was ended", where=self.ranges.where)
        return bytes(data)

    def _arrived(self, block: Block) -> None:
        """On the thread that fetched it."""
        if block.start < self._head_size:
            return
        self.sum.offer(block.start, block.data, lambda: self._blocks.hold(block), lambda: self._blocks.release(block))

    # ---- trust

    @property
    def checked(self) -> bool:
        """Whether all of it came, and has the hash that was announced."""
        return self._summed and self.sum.hexdigest() == self.ranges.sha256

    @property
    def _summed(self) -> bool:
        return self.ranges.sha256 is not None and self.sum.complete

    def check_unchanged(self) -> None:
        """A commit does not change; what came has the hash that was announced, where all of it was read in order."""
        if self._summed and not self.checked:
            raise BadAnswer(
                "what came does not have the sha256 that the hub announces: it was damaged on the way, or there",
                where=self.ranges.where,
                hint="convert again; where it stays so, the repository is damaged",
            )


class Handle:
    """An opened `RemoteFile`. `places.Bytes`."""

    def __init__(self, file: RemoteFile) -> None:
        self.file, self.size = file, file.size
        self._open = True

    def read_some(self, buffer: memoryview, offset: int) -> int:
        return self.file.read_some(buffer, offset)

    def expect(self, starts: Sequence[int]) -> None:
        self.file.expect(starts)

    @property
    def identity(self) -> str:
        return f"{self.size} bytes, {self.file.ranges.sha256 or self.file.ranges.where}"

    def soon(self, offset: int, count: int) -> None:
        self.file.soon(offset, count)

    def check_unchanged(self) -> None:
        self.file.check_unchanged()

    def close(self) -> None:
        """Once."""
        was, self._open = self._open, False
        if was:
            self.file.closed()

    def __del__(self) -> None:
        self.close()


def _nothing() -> None:
    """Bytes that belong to nobody stay what they are."""
