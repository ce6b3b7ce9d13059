"""Room for weights in large pages, where the system has them.

One token reads every weight once. With pages of 4 KiB the addresses cost up to half of the memory's speed (16 GB/s
against 30 of one core of a Zen 4 in a virtual machine), and allocators give large pages to large blocks alone, from the
first aligned byte on. So matrices lie side by side in chunks that are asked for in large pages.
"""

from __future__ import annotations

import threading
import weakref

import numpy

from quantcli import system
from quantcli.runner.arrays import Bytes

PAGE = 2 << 20
CHUNK = 16 * PAGE
ALIGNMENT = 64

_lock = threading.Lock()
_chunk: weakref.ref[Bytes] | None = None  # the last one, as long as a matrix lies in it
_used = 0  # bytes of it


def room(rows: int, width: int) -> Bytes:
    """An array uint8 [rows, width] of any contents, for whoever reads it again and again."""
    size = rows * width
    if not size:
        return numpy.empty((rows, width), numpy.uint8)
    return (_mapped(size)[:size] if size > CHUNK // 2 else _part(size)).reshape(rows, width)


def _part(size: int) -> Bytes:
    """``size`` bytes of the last chunk, or of a new one."""
    global _chunk, _used
    with _lock:
        chunk = _chunk() if _chunk is not None else None
        if chunk is None or _used + size > CHUNK:
            chunk, _used = _mapped(CHUNK), 0
            _chunk = weakref.ref(chunk)
        start, _used = _used, -(-(_used + size) // ALIGNMENT) * ALIGNMENT
        return chunk[start : start + size]


def _mapped(size: int) -> Bytes:
    """At least ``size`` bytes in pages of their own, which go back to the system with the last array in them."""
    whole = -(-size // PAGE) * PAGE
    memory = system.memory_in_large_pages(whole + PAGE)
    if memory is None:
        return numpy.empty(size, numpy.uint8)
    start = -numpy.frombuffer(memory, numpy.uint8, 1).ctypes.data % PAGE
    return numpy.frombuffer(memory, numpy.uint8, whole, start)
