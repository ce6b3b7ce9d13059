"""Slabs that are read on threads of their own, ahead of those who encode them: for sources whose answers take long.

A source on this machine is read where it is encoded, while it is in cache. One that is far away keeps many requests in
flight, and the encoders find their rows ready. Many more slabs are asked for than read: bytes that wait take less
memory than numbers, and a link that is never idle makes up for what waits until the middle row of a matrix has told
whether it lies on a grid.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Generic, Protocol, TypeVar, runtime_checkable

from quantcli.encode.slabs import Slab

SLABS = 10  # read ahead, each by a thread that mostly waits: at two bytes per weight 10 MiB, and twice that as float32
FURTHER = 30  # asked for before these: their bytes wait where they arrive, and the link has always something to bring

_Read = TypeVar("_Read")


@runtime_checkable
class Announcing(Protocol):
    """Rows that can be asked for before they are read."""

    def soon(self, start: int, stop: int) -> None: ...


class Ahead(Generic[_Read]):
    """``through`` passes slabs on while their rows are read; ``take`` waits for those of one. ``stop`` ends all."""

    def __init__(
        self, read: Callable[[Slab], _Read], cancel: Callable[[], None], count: int = SLABS, further: int = FURTHER
    ) -> None:
        """``cancel`` wakes those who wait for a source."""
        self._read, self._cancel, self._count, self._further = read, cancel, count, further
        self._futures: dict[tuple[int, int, int], Future[_Read]] = {}
        self._stopped = threading.Event()
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="quantcli-ahead")

    def through(self, slabs: Iterable[Slab]) -> Iterator[Slab]:
        """The same slabs in their order, ``count`` of them being read when one is given, ``further`` asked for."""
        waiting: deque[Slab] = deque()
        for slab in self._announced(slabs):
            self._futures[_key(slab)] = self._pool.submit(self._guarded, slab)
            waiting.append(slab)
            if len(waiting) > self._count:
                yield waiting.popleft()
        yield from waiting

    def _announced(self, slabs: Iterable[Slab]) -> Iterator[Slab]:
        waiting: deque[Slab] = deque()
        for slab in slabs:
            if isinstance(slab.tensor.reader, Announcing):
                slab.tensor.reader.soon(slab.start, slab.stop)
            waiting.append(slab)
            if len(waiting) > self._further:
                yield waiting.popleft()
        yield from waiting

    def _guarded(self, slab: Slab) -> _Read:
        if self._stopped.is_set():
            raise CancelledError
        return self._read(slab)

    def take(self, slab: Slab) -> _Read:
        """What reading the slab gave. Raises what it raised."""
        return self._futures.pop(_key(slab)).result()

    def stop(self) -> None:
        """Read nothing more; whoever waits for a slab is told."""
        if not self._stopped.is_set():
            self._stopped.set()
            if self._futures:
                self._cancel()
            self._pool.shutdown(wait=False, cancel_futures=True)


def _key(slab: Slab) -> tuple[int, int, int]:
    return slab.group, slab.index, slab.start
