"""The only code that writes to a terminal: results on stdout, talk and progress on stderr.

``rich`` draws tables and the progress bar on a terminal; off a terminal everything is plain lines without colour or
cursor tricks, so that logs of CI runs stay readable. NO_COLOR is honoured (by rich). Nothing here knows about models.
"""

from __future__ import annotations

import json
import math
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Protocol, TypeAlias

from quantcli.errors import QuantcliError

if TYPE_CHECKING:  # rich takes its time, and most runs never draw
    from rich.console import Console

# Texts come from files that anyone may have made: what steers a terminal or turns the direction of writing is shown,
# not sent. Half a surrogate pair stands for a byte of a file name that is not UTF-8.
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
LEAST_TEXT = 12  # characters of a column of texts that may fold
PLAIN_INTERVAL = 10.0  # seconds between progress lines off a terminal
SILENCE = 25.0  # seconds without one at most


class Advance(Protocol):
    """What `progress` yields: report the absolute state of the work."""

    def __call__(self, done_bytes: int, weights: int = 0) -> None: ...


class Step(Protocol):
    """What `steps` yields: report how many steps are done, and what is known by now."""

    def __call__(self, done: int, known: str = "") -> None: ...


Share: TypeAlias = Callable[[int], float]
Cells = Sequence[Sequence[str]]  # of a table, line by line


class Reporter:
    """Where a command's output goes. ``quiet`` silences talk and progress, ``as_json`` leaves stdout to one object.

    ``raw``: texts that come bit by bit are written as they are. All else is escaped, also off a terminal: what goes
    through a pipe may end on one.
    """

    def __init__(self, *, quiet: bool = False, as_json: bool = False, raw: bool = False) -> None:
        self.quiet = quiet
        self.as_json = as_json
        self.raw = raw
        self._consoles: dict[bool, Console] = {}

    # ---- results (stdout)

    def line(self, text: str) -> None:
        """One line of the result."""
        if not self.as_json:
            print(printable(text), flush=True)

    def text(self, piece: str) -> None:
        """A piece of a text that comes bit by bit, of whole characters: an escape sequence that two pieces share is
        harmless without its first one."""
        if not self.as_json:
            sys.stdout.write(piece if self.raw else printable(piece))
            sys.stdout.flush()

    def result(self, value: Mapping[str, object]) -> None:
        """The result as one JSON object, when --json was given."""
        if self.as_json:
            plain = not (sys.stdout.encoding or "").lower().startswith("utf")
            indent = 1 if sys.stdout.isatty() else None
            try:
                text = json.dumps(value, ensure_ascii=plain, indent=indent, allow_nan=False)
            except ValueError:
                text = json.dumps(_finite(value), ensure_ascii=plain, indent=indent, allow_nan=False)
            print(_STEERING.sub(_json_escape, text), flush=True)  # JSON itself escapes those below U+0020 only

    def table(
        self,
        columns: Sequence[str],
        lines: Iterable[Sequence[object]],
        *,
        title: str | None = None,
        right: Sequence[int] = (),
        spare: Sequence[int] = (),
    ) -> None:
        """A table of the result; ``right`` holds the indices of right-aligned columns.

        ``spare``: columns that a narrow terminal is spared, the first of them first; what is left out is said.
        """
        if self.as_json:
            return
        cells = [[printable(str(cell)).replace("\n", "\\n") for cell in line] for line in lines]
        title = None if title is None else printable(title)
        if sys.stdout.isatty():
            kept = _kept(columns, cells, spare, self._console(stderr=False).width)
            names = [column for i, column in enumerate(columns) if i not in kept]
            self._rich_table(
                [columns[i] for i in kept],
                [[line[i] for i in kept] for line in cells],
                title,
                [place for place, i in enumerate(kept) if i in right],
            )
            if names:
                self.note(f"not shown at this width: {', '.join(names)}; --json has them, a wider terminal, too")
        else:
            _plain_table(columns, cells, title, right)

    def _rich_table(self, columns: Sequence[str], cells: Cells, title: str | None, right: Sequence[int]) -> None:
        console = self._console(stderr=False)
        for part in _fitting(columns, cells, right, console.width):
            self._rich_part(
                [columns[i] for i in part],
                [[line[i] for i in part] for line in cells],
                title,
                [place for place, i in enumerate(part) if i in right],
            )
            title = None

    def _rich_part(self, columns: Sequence[str], cells: Cells, title: str | None, right: Sequence[int]) -> None:
        from rich.table import Table
        from rich.text import Text

        table = Table(
            title=None if title is None else Text(title),
            title_justify="left",
            box=None,
            pad_edge=False,
            header_style="bold",
        )
        for index, column in enumerate(columns):
            whole = index in right or index == 0  # figures and names stay in one piece, so that they can be copied
            table.add_column(column, justify="right" if index in right else "left", overflow="fold", no_wrap=whole)
        for line in cells:
            table.add_row(*map(Text, line))
        least, console = _least_width(columns, cells, right), self._console(stderr=False)
        if least > console.width:  # the terminal folds what is too long for it, and knows it as one line
            from rich.console import Console

            console = Console(width=least, highlight=False)
        console.print(table)

    # ---- talk (stderr)

    def note(self, text: str) -> None:
        """Something worth knowing; silenced by --quiet."""
        if not self.quiet:
            self._talk(text, None)

    def warning(self, text: str) -> None:
        """Something that may be a mistake. Shown even with --quiet."""
        self._talk(f"warning: {text}", "yellow")

    def warnings(self, texts: Iterable[str]) -> None:
        """One after the other."""
        for text in texts:
            self.warning(text)

    def error(self, error: QuantcliError) -> None:
        """What, where; then what to do. With --json also the object {"schema", "error"}."""
        self._talk(f"error: {error}", "bold red")
        if error.hint:
            self._talk(f"  {error.hint}", None)
        self.result(
            {
                "schema": 1,
                "error": {"code": error.code, "message": error.message, "where": error.where, "hint": error.hint},
            }
        )

    def _talk(self, text: str, style: str | None) -> None:
        text = printable(text)
        if sys.stderr.isatty():
            from rich.text import Text

            self._console(stderr=True).print(Text(text, style=style or ""), soft_wrap=True)
        else:
            say(text)

    def _console(self, *, stderr: bool) -> Console:
        if stderr not in self._consoles:
            from rich.console import Console

            self._consoles[stderr] = Console(stderr=stderr, highlight=False)
        return self._consoles[stderr]

    # ---- progress (stderr)

    @contextmanager
    def progress(self, label: str, total_bytes: int, begun: int = 0, share: Share | None = None) -> Iterator[Advance]:
        """Yield a function that takes (bytes done, weights done); shows bytes, weights/s and the time left.

        ``begun``: bytes that were done before; ``share``: bytes done -> the part of the work (0 to 1) that they are,
        where not every byte takes the same time.
        """
        part = share or (lambda done: done / max(total_bytes, 1))
        label = printable(label)
        if self.quiet:
            yield lambda done_bytes, weights=0: None
        elif sys.stderr.isatty():
            with self._bar(label, total_bytes, begun, part) as advance:
                yield advance
        else:
            with _Lines(label) as lines:
                yield _plain_progress(lines, total_bytes, begun, part)

    @contextmanager
    def steps(self, label: str, total: int) -> Iterator[Step]:
        """Yield a function that takes (steps done, what is known so far); shows both and the time left."""
        label = printable(label)
        if self.quiet:
            yield lambda done, known="": None
        elif sys.stderr.isatty():
            with self._step_bar(label, total) as advance:
                yield advance
        else:
            with _Lines(label) as lines:
                yield _plain_steps(lines, total)

    @contextmanager
    def _step_bar(self, label: str, total: int) -> Iterator[Step]:
        from rich import progress as widgets

        columns = (
            widgets.TextColumn("{task.description}", markup=False),
            widgets.BarColumn(),
            widgets.MofNCompleteColumn(),
            widgets.TextColumn("{task.fields[known]}", markup=False),
            widgets.TextColumn("{task.fields[left]}"),
        )
        start = time.monotonic()
        with widgets.Progress(*columns, console=self._console(stderr=True), transient=True) as bar:
            task = bar.add_task(label, total=max(total, 1), known="", left="")

            def advance(done: int, known: str = "") -> None:
                # rich's own estimate wants several steps; a step may take minutes here
                left = f"{duration(time_left(start, done, total))} left" if 0 < done < total else ""
                bar.update(task, completed=done, known=known, left=left)

            yield advance

    @contextmanager
    def _bar(self, label: str, total_bytes: int, begun: int, share: Share) -> Iterator[Advance]:
        from rich import progress as widgets

        columns = (
            widgets.TextColumn("{task.description}", markup=False),
            widgets.BarColumn(),
            widgets.DownloadColumn(),
            widgets.TextColumn("{task.fields[speed]}"),
            widgets.TextColumn("{task.fields[left]}"),
        )
        start = time.monotonic()
        with widgets.Progress(*columns, console=self._console(stderr=True), transient=True) as bar:
            task = bar.add_task(label, total=max(total_bytes, 1), completed=begun, speed="", left="")

            def advance(done_bytes: int, weights: int = 0) -> None:
                left = work_left(start, share(done_bytes), share(begun))
                speed = weights_per_second(weights, time.monotonic() - start)
                bar.update(task, completed=done_bytes, speed=speed, left=left)

            yield advance


class Silent(Reporter):
    """For callers from Python, who get the result and want no talk."""

    def __init__(self) -> None:
        super().__init__(quiet=True, as_json=True)

    def result(self, value: Mapping[str, object]) -> None:
        """Nobody reads it."""

    def _talk(self, text: str, style: str | None) -> None:
        """Nobody listens."""


SILENT = Silent()


def _plain_table(columns: Sequence[str], cells: Cells, title: str | None, right: Sequence[int]) -> None:
    if title:
        print(title)
    lines = [list(columns), *cells]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    for line in lines:
        parts = (c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True)))
        print("  ".join(parts).rstrip())
    sys.stdout.flush()


class _Lines:
    """Progress off a terminal: a line every PLAIN_INTERVAL seconds at most, and one every SILENCE at least, so that
    nobody takes long work for one that hangs."""

    def __init__(self, label: str) -> None:
        self.label, self.known = label, "begun"
        self.start = self._last = time.monotonic()
        self._lock, self._end = threading.Lock(), threading.Event()
        self._beat = threading.Thread(target=self._keep_talking, name="quantcli-progress", daemon=True)

    def __enter__(self) -> _Lines:
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


def _plain_progress(lines: _Lines, total_bytes: int, begun: int, share: Share) -> Advance:
    def advance(done_bytes: int, weights: int = 0) -> None:
        if not lines.due() or not begun < done_bytes < total_bytes:
            return
        lines.tell(
            f"{100 * done_bytes / total_bytes:.0f} %, {size(done_bytes)} of {size(total_bytes)}, "
            f"{weights_per_second(weights, time.monotonic() - lines.start)}, "
            f"{work_left(lines.start, share(done_bytes), share(begun))}"
        )

    return advance


def _plain_steps(lines: _Lines, total: int) -> Step:
    def advance(done: int, known: str = "") -> None:
        if lines.due() and 0 < done < total:
            middle = f"{known}, " if known else ""
            lines.tell(f"{done} of {total}, {middle}{duration(time_left(lines.start, done, total))} left")

    return advance


def work_left(start: float, share: float, begun: float) -> str:
    """The time that the rest will take: ``share`` of the work is done, ``begun`` of it was at ``start``."""
    if share <= begun:
        return ""
    return f"{duration((time.monotonic() - start) * (1 - share) / (share - begun))} left"


def time_left(start: float, done: int, total: int) -> float:
    """Seconds that the rest will take at the speed since ``start`` (of time.monotonic)."""
    return (time.monotonic() - start) * (total - done) / done


def _fitting(columns: Sequence[str], cells: Cells, right: Sequence[int], width: int) -> list[list[int]]:
    """Columns of one table, or of several where a line of figures is wider than the terminal: the leading names come
    again in each. Tables with texts in other places are left whole; their texts fold."""
    every = list(range(len(columns)))
    names = [i for i in every if i not in right]
    sizes = [2 + max(len(line[i]) for line in (columns, *cells)) for i in every]
    if sum(sizes) - 2 <= width or names != every[: len(names)]:
        return [every]
    parts = [list(names)]
    for i in every[len(names) :]:
        if len(parts[-1]) > len(names) and sum(sizes[j] for j in (*parts[-1], i)) - 2 > width:
            parts.append(list(names))
        parts[-1].append(i)
    return parts


def _kept(columns: Sequence[str], cells: Cells, spare: Sequence[int], width: int) -> list[int]:
    """The columns that are shown: all, or without the first ones of ``spare`` until the rest fits."""
    kept, waiting = list(range(len(columns))), list(spare)
    sizes = [2 + max(len(line[i]) for line in (columns, *cells)) for i in kept]
    while waiting and sum(sizes[i] for i in kept) - 2 > width:
        kept.remove(waiting.pop(0))
    return kept


def _least_width(columns: Sequence[str], cells: Cells, right: Sequence[int]) -> int:
    """Characters that a table needs at least: names and figures whole, other texts folded."""
    whole = [i for i in range(len(columns)) if i in right or i == 0]
    sizes = [max(len(line[i]) for line in (columns, *cells)) for i in whole]
    return sum(sizes) + LEAST_TEXT * (len(columns) - len(whole)) + 2 * (len(columns) - 1)


def say(text: str) -> None:
    """One line on stderr. That nobody listens any more is no reason to stop the work."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


# ---- texts and numbers as people read them


def printable(text: str) -> str:
    """``text`` with control characters escaped, but for tabs and line ends."""
    return _STEERING.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def _json_escape(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def _finite(value: object) -> object:
    """The same for JSON, which has neither NaN nor infinities: null."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


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


def weights_per_second(weights: int, seconds: float) -> str:
    """Millions of weights encoded per second, all outputs counted."""
    return f"{weights / max(seconds, 1e-9) / 1e6:.1f} M weights/s"
