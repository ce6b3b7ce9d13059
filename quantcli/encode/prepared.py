"""Encoders of the matrices in work: each prepared once, by the thread that comes first, dropped after its last row."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from quantcli.methods.seam import RowEncoder


@dataclass(slots=True, eq=False, repr=False)
class _Entry:
    """The encoder of one matrix for one type, once it is made."""

    rows: int  # still to be encoded
    encoder: RowEncoder | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


class Prepared:
    """Thread-safe. Threads that need an encoder in the making wait for it."""

    def __init__(self) -> None:
        self._entries: dict[Hashable, _Entry] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable, rows: int, make: Callable[[], RowEncoder]) -> RowEncoder:
        """The encoder of ``key``, whose matrix has ``rows`` rows; ``make`` prepares it."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                entry = self._entries[key] = _Entry(rows)
        with entry.lock:
            if entry.encoder is None:
                entry.encoder = make()
            return entry.encoder

    def done(self, key: Hashable, rows: int) -> None:
        """``rows`` more of the matrix are encoded."""
        with self._lock:
            entry = self._entries[key]
            entry.rows -= rows
            if entry.rows <= 0:
                del self._entries[key]
