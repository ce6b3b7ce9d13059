"""Steps that an interrupt must not cut in two."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from quantcli.system import INTERRUPTS


@contextmanager
def deferred_interrupts() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP wait until the block is done. Only the main thread can; elsewhere nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        arrived.append(number)

    kept = {number: signal.getsignal(number) for number in INTERRUPTS}
    kept = {number: handler for number, handler in kept.items() if handler not in (None, signal.SIG_IGN)}
    try:
        for number in kept:
            signal.signal(number, note)
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
        for waiting in dict.fromkeys(arrived):
            signal.raise_signal(waiting)


def act_by_default() -> None:
    """What is left of the process is cleaning up: an interrupt ends it at once, and silently."""
    for number in INTERRUPTS:
        if signal.getsignal(number) not in (None, signal.SIG_IGN):
            signal.signal(number, signal.SIG_DFL)
