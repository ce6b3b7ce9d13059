"""The only code that writes to a terminal: results on stdout, talk and progress on stderr.

``rich`` draws tables and the progress bar on a terminal; off a terminal everything is plain lines without colour or
cursor tricks, so that logs of CI runs stay readable. NO_COLOR is honoured (by rich). Nothing here knows about models.
"""

from __future__ import annotations

import math
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from quantcli.errors import QuantcliError
from quantcli.report.lines import Advance as Advance
from quantcli.report.lines import Lines, plain_progress, plain_steps
from quantcli.report.lines import Share as Share
from quantcli.report.lines import Step as Step
from quantcli.report.texts import STEERING, speed, time_left, work_left
from quantcli.report.texts import duration as duration
from quantcli.report.texts import printable as printable
from quantcli.report.texts import say as say
from quantcli.report.texts import size as size

if TYPE_CHECKING:  # rich takes its time, and most runs never draw
    from rich.console import Console

LEAST_TEXT = 12  # characters of a column of texts that may fold
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
            import json  # the program starts without it

            plain = not (sys.stdout.encoding or "").lower().startswith("utf")
            indent = 1 if sys.stdout.isatty() else None
            try:
                text = json.dumps(value, ensure_ascii=plain, indent=indent, allow_nan=False)
            except ValueError:
                text = json.dumps(_finite(value), ensure_ascii=plain, indent=indent, allow_nan=False)
            print(STEERING.sub(_json_escape, text), flush=True)  # JSON itself escapes those below U+0020 only

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
            with Lines(label) as lines:
                yield plain_progress(lines, total_bytes, begun, part)

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
            with Lines(label) as lines:
                yield plain_steps(lines, total)

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
                now = speed(weights, done_bytes - begun, time.monotonic() - start)
                bar.update(task, completed=done_bytes, speed=now, left=left)

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


class Part(Silent):
    """For work that is a part of another's: its talk and progress are shown by ``whole``, its result is not."""

    def __init__(self, whole: Reporter) -> None:
        super().__init__()
        self.whole = whole

    def note(self, text: str) -> None:
        self.whole.note(text)

    def warning(self, text: str) -> None:
        self.whole.warning(text)

    @contextmanager
    def progress(self, label: str, total_bytes: int, begun: int = 0, share: Share | None = None) -> Iterator[Advance]:
        with self.whole.progress(label, total_bytes, begun, share) as advance:
            yield advance

    @contextmanager
    def steps(self, label: str, total: int) -> Iterator[Step]:
        with self.whole.steps(label, total) as advance:
            yield advance


def _plain_table(columns: Sequence[str], cells: Cells, title: str | None, right: Sequence[int]) -> None:
    if title:
        print(title)
    lines = [list(columns), *cells]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    for line in lines:
        parts = (c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True)))
        print("  ".join(parts).rstrip())
    sys.stdout.flush()


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


# ---- texts of JSON


def _json_escape(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def _finite(value: object) -> object:
    """The same for JSON, which has neither NaN nor infinities: null."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
