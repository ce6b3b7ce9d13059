"""Progress off a terminal: plain lines, not too many and never none for long, so that logs stay readable."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol, TypeAlias

from quantcli.report.texts import duration, say, size, speed, time_left, work_left

PLAIN_INTERVAL = 10.0  # seconds between progress lines off a terminal
SILENCE = 25.0  # seconds without one at most

Share: TypeAlias = Callable[[int], float]  # bytes done -> the part of the work (0 to 1) that they are


class Advance(Protocol):
    """What `progress` yields: report the absolute state of the work."""

    def __call__(self, done_bytes: int, weights: int = 0) -> None: ...


class Step(Protocol):
    """What `steps` yields: report how many steps are done, and what is known by now."""

    def __call__(self, done: int, known: str = "") -> None: ...


class Lines:
    """Progress off a terminal: a line every PLAIN_INTERVAL seconds at most, and one every SILENCE at least, so that
    nobody takes long work for one that hangs."""

    def __init__(self, label: str) -> None:
        self.label, self.known = label, "begun"
        self.start = self._last = time.monotonic()
        self._lock, self._end = threading.Lock(), threading.Event()
        self._beat = threading.Thread(target=self._keep_talking, name="quantcli-progress", daemon=True)

    def __enter__(self) -> Lines:
        self._beat.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self._end.set()
        self._beat.join()

    def due(self) -> bool:
        """Whether it is time for another line."""
        return time.monotonic() - self._last >= PLAIN_INTERVAL

    def tell(self, known: str) -> None:
        """Say what is known by now."""
        with self._lock:
            self.known, self._last = known, time.monotonic()
            say(f"{self.label}: {known}")

    def _keep_talking(self) -> None:
        while not self._end.wait(max(self._last + SILENCE - time.monotonic(), 0.05)):
            with self._lock:
                if time.monotonic() - self._last >= SILENCE:
                    self._last = time.monotonic()
                    say(f"{self.label}: {duration(self._last - self.start)} so far; at last: {self.known}")


def plain_progress(lines: Lines, total_bytes: int, begun: int, share: Share) -> Advance:
    def advance(done_bytes: int, weights: int = 0) -> None:
        if not lines.due() or not begun < done_bytes < total_bytes:
            return
        lines.tell(
            f"{100 * done_bytes / total_bytes:.0f} %, {size(done_bytes)} of {size(total_bytes)}, "
            f"{speed(weights, done_bytes - begun, time.monotonic() - lines.start)}, "
            f"{work_left(lines.start, share(done_bytes), share(begun))}"
        )

    return advance


def plain_steps(lines: Lines, total: int) -> Step:
    def advance(done: int, known: str = "") -> None:
        if lines.due() and 0 < done < total:
            middle = f"{known}, " if known else ""
            lines.tell(f"{done} of {total}, {middle}{duration(time_left(lines.start, done, total))} left")

    return advance
