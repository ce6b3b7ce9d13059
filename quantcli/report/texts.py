"""Texts and numbers as people read them, and the one way to say a line beside the results."""

from __future__ import annotations

import re
import sys
import time
from contextlib import suppress

# Texts come from files that anyone may have made: what steers a terminal or turns the direction of writing is shown,
# not sent. Half a surrogate pair stands for a byte of a file name that is not UTF-8.
STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """``text`` with control characters escaped, but for tabs and line ends."""
    return STEERING.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def say(text: str) -> None:
    """One line on stderr. That nobody listens any more is no reason to stop the work."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def work_left(start: float, share: float, begun: float) -> str:
    """The time that the rest will take: ``share`` of the work is done, ``begun`` of it was at ``start``."""
    if share <= begun:
        return ""
    return f"{duration((time.monotonic() - start) * (1 - share) / (share - begun))} left"


def time_left(start: float, done: int, total: int) -> float:
    """Seconds that the rest will take at the speed since ``start`` (of time.monotonic)."""
    return (time.monotonic() - start) * (total - done) / done


def counted(count: int, name: str) -> str:
    """1 file, 2 files."""
    return f"{count:,} {name}{'s' * (count != 1)}"


def size(count: int) -> str:
    """Bytes in decimal units: 1.23 GB."""
    value, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 999.5 or unit == "TB":
            break
        value /= 1000
    return f"{count} B" if unit == "B" else f"{value:.3g} {unit}" if value < 999.5 else f"{value:.0f} {unit}"


def duration(seconds: float) -> str:
    """1.2 s, 3 min 05 s, 2 h 10 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def speed(weights: int, read: int, seconds: float) -> str:
    """Millions of weights encoded per second, all outputs counted; bytes read where nothing is encoded."""
    seconds = max(seconds, 1e-9)
    return f"{weights / seconds / 1e6:.1f} M weights/s" if weights else f"{size(round(read / seconds))}/s"
