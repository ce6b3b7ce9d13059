"""The sha256 of a file whose bytes come roughly in order: what comes too early waits, while there is room for it."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from typing import TypeAlias

import numpy
from numpy.typing import NDArray

WAITING = 48 << 20  # bytes that may wait for those before them: what is asked for at once
GAP = 4 << 20  # bytes that nobody asked for, and that are fetched for the sum's sake

_Bytes: TypeAlias = "bytes | NDArray[numpy.uint8]"


class Sum:
    """Of a file of ``size`` bytes. ``given_up``: it was read in another order. Thread-safe.

    ``fill(start, stop)`` fetches bytes that nobody asks for. ``keep`` and ``let_go`` are told of bytes that wait.
    """

    def __init__(self, size: int, fill: Callable[[int, int], bytes]) -> None:
        self.size, self.given_up = size, False
        self._fill = fill
        self._digest = hashlib.sha256()
        self._position = self._waiting = 0
        self._early: dict[int, tuple[_Bytes, Callable[[], None]]] = {}
        self._lock = threading.RLock()  # a file may be let go by the collector in the middle of it

    @property
    def complete(self) -> bool:
        return self._position == self.size

    def hexdigest(self) -> str:
        return self._digest.hexdigest()

    def offer(self, start: int, data: _Bytes, keep: Callable[[], None], let_go: Callable[[], None]) -> None:
        """``data``, bytes of the file from ``start`` on, which stay what they are between ``keep`` and ``let_go``."""
        with self._lock:
            if self.given_up or start + len(data) <= self._position:
                return
            if start > self._position:
                if start not in self._early:
                    keep()
                    self._early[start] = data, let_go
                    self._waiting += len(data)
                if self._waiting <= WAITING or not self._close_gap():
                    return
            else:
                self._take(start, data)
            self._take_early()

    def _take(self, start: int, data: _Bytes) -> None:
        piece = memoryview(data)[self._position - start :]  # type: ignore[arg-type]  # an array is a buffer
        self._digest.update(piece)
        self._position = start + len(data)

    def _take_early(self) -> None:
        for start in sorted(self._early):
            data, let_go = self._early[start]
            if start > self._position:
                return
            if start + len(data) > self._position:
                self._take(start, data)
            del self._early[start]
            self._waiting -= len(data)
            let_go()

    def _close_gap(self) -> bool:
        """Fetch what is missing before the early bytes, where that is little; else there will be no sum."""
        first = min(self._early)
        if first - self._position <= GAP:
            self._take(self._position, self._fill(self._position, first))
            return True
        self.drop()
        return False

    def drop(self) -> None:
        """There will be no sum."""
        self.given_up = True
        for _, let_go in self._early.values():
            let_go()
        self._early.clear()

    def close(self) -> None:
        """Nothing more comes for now: what waits goes, what was summed stays."""
        with self._lock:
            for _, let_go in self._early.values():
                let_go()
            self._early.clear()
            self._waiting = 0
