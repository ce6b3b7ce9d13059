"""Steps that an interrupt must not cut in two."""

from __future__ import annotations

import _thread
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from quantcli.system import INTERRUPTS, send_itself

MOMENT = 0.01  # seconds


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


def deliver_again() -> None:
    """An interrupt that arrives inside a finalizer or a callback, where Python prints exceptions and forgets them,
    arrives once more a moment later, and nothing is printed."""
    before = sys.unraisablehook

    def lost(what: sys.UnraisableHookArgs) -> None:
        if isinstance(what.exc_value, KeyboardInterrupt):
            # In the main thread the handler would run at once, inside the hook; nothing is imported here, for the
            # callback may be one of an import.
            _thread.start_new_thread(_later, (_number_of(what.exc_value),))
        else:
            before(what)

    sys.unraisablehook = lost


def _number_of(error: KeyboardInterrupt) -> int:
    """The signal that `terminate` named, SIGINT where Python raised it itself."""
    return signal.Signals[error.args[0]] if error.args else signal.SIGINT


def _later(number: int) -> None:
    time.sleep(MOMENT)
    send_itself(number)


def terminate(number: int, _frame: FrameType | None) -> None:
    """A handler that ends the program as Ctrl-C does."""
    raise KeyboardInterrupt(signal.Signals(number).name)


def act_by_default() -> None:
    """What is left of the process is cleaning up: an interrupt ends it at once, and silently."""
    for number in INTERRUPTS:
        if signal.getsignal(number) not in (None, signal.SIG_IGN):
            signal.signal(number, signal.SIG_DFL)
