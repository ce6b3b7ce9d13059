"""Two words to the allocator of glibc; others do well by themselves."""

from __future__ import annotations

import ctypes
from functools import cache

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
MOST = 1 << 30  # bytes


@cache
def keep_freed() -> None:
    """Use the memory of freed arrays again: fresh pages for every result take a fifth of a prompt's time."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, MOST)
        mallopt(M_TRIM_THRESHOLD, MOST)


def give_back() -> None:
    """Return what is free to the system: after work whose many small pieces no array will fit into."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
