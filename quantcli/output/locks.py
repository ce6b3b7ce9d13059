"""A file as the sign that somebody works in its folder: the sign goes with its process, however that ends."""

from __future__ import annotations

import os
from pathlib import Path

from quantcli import system


def taken(path: Path) -> int | None:
    """Take the lock of the file at ``path``, which is made where it is missing: a descriptor, to be closed at the end
    of the work; None where another process has it. On a file system without locks everybody gets it. Raises OSError.
    """
    descriptor = system.open_to_write(path, mode=0o644)
    try:
        system.lock(descriptor)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:
        return descriptor
    return descriptor
