"""What a run that can be resumed leaves beside its temporary files: what it makes of what, and how far each file is.

A text file: a first line of JSON (the facts of the run, its files), then a line per piece that was written: number of
the file, bytes of it so far, sha256 of these bytes. Nothing of it is trusted: what is there is hashed again when a run
is resumed, and goes as far as the sums agree. So no order of writes to the disk matters, and a machine that lost power
loses only what had not reached its disk. The journal is locked while its process lives.
"""

from __future__ import annotations

import os
import shlex
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from quantcli import system
from quantcli.errors import ResumeRefused
from quantcli.output import journals, named, writer
from quantcli.output.journals import COMPLETE, OF_VERSION, PLAN, VERSION, Contents, Mark
from quantcli.output.journals import KEPT as KEPT
from quantcli.output.journals import SUFFIX as SUFFIX

SHOWN = 3  # differences in a message, and conversions
LONGEST = 80  # characters of what differs, in a message
BEFORE = 20  # of them in front of the first difference

Way = Callable[[Mapping[str, str]], str]  # the facts of an earlier run -> what goes on with it, for a hint


def same_command(earlier: Mapping[str, str]) -> str:
    """A `Way`."""
    return "give it the same command and source"


class Journal:
    """The journal of this run, locked. Thread-safe. ``replaced``: something lay in its place that was no journal."""

    def __init__(
        self, targets: Sequence[Path], sizes: Sequence[int], facts: Mapping[str, str], way: Way = same_command
    ) -> None:
        """Begin one, or go on with the one that an earlier run has left. Raises ResumeRefused, OutputFailed."""
        self.targets, self.sizes = list(targets), list(sizes)
        self.facts, self._way = {OF_VERSION: str(VERSION), **facts}, way
        self._lock = threading.Lock()
        self.path = self._place()
        self._descriptor = _locked(self.path)
        try:
            self.earlier = self._continue()
            self.replaced = self.earlier is None and os.fstat(self._descriptor).st_size > 0
            if self.earlier is None:
                self._begin()
        except BaseException:
            self.close()
            raise
        named.keep(self.path, kept=True)
        self.marks: Sequence[Sequence[Mark]] = self.earlier.marks if self.earlier else [[] for _ in targets]

    @property
    def _names(self) -> list[str]:
        return [path.name for path in self.targets]

    def _place(self) -> Path:
        """Where it lies, or will. Raises ResumeRefused where runs that write other files as well have begun these."""
        found = journals.about(self.targets)
        others = [one for one in found if list(one.names) != self._names]
        for one in others:
            if one.at_work:
                raise _at_work(one.path)
        if len(others) == len(found):
            if found:
                raise self._refused(found)
            return journals.place(self.targets)
        return found[0].path

    def _continue(self) -> Contents | None:
        """What an earlier run has left, under the lock. Raises ResumeRefused where it was another one."""
        found = journals.read(self.path)
        if found is None:
            return None
        if self._differences(found):
            raise self._refused([found])
        with writer.failures(self.path):
            os.ftruncate(self._descriptor, found.end)
            os.lseek(self._descriptor, found.end, os.SEEK_SET)
        return found

    def _differences(self, found: Contents) -> list[str]:
        before, now = _files(found.names, found.sizes), _files(self._names, self.sizes)
        return compare(found.facts, self.facts) or compare(before, now)

    def _refused(self, found: Sequence[Contents]) -> ResumeRefused:
        first, *more = found
        names = ", of ".join(one.shown for one in found[:SHOWN])
        names += f" and {len(found) - SHOWN} others" if len(found) > SHOWN else ""
        lie = "unfinished conversions of {} lie here" if more else "an unfinished conversion of {} lies here"
        way = "finish each with its own command" if more else self._way(first.facts)
        return ResumeRefused(
            f"{lie.format(names)}, and this is another one: {told(self._differences(first))}",
            where=str(first.path),
            hint=f"{way}, or begin anew: rm {' '.join(shlex.quote(str(one.path)) for one in found)}",
        )

    def _begin(self) -> None:
        with writer.failures(self.path):
            os.ftruncate(self._descriptor, 0)
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            self._write(journals.head(self.facts, self._names, self.sizes))
            system.sync(self._descriptor)

    @property
    def complete(self) -> bool:
        """Whether an earlier run had all bytes of all files, and died while they got their names."""
        return self.earlier is not None and self.earlier.complete

    def note(self, number: int, count: int, digest: str) -> None:
        """File ``number`` has ``count`` bytes, whose sha256 is ``digest``."""
        self._write(f"{number} {count} {digest}\n".encode())

    def note_complete(self) -> None:
        """All files are on the disk."""
        if not self.complete:
            self._write(COMPLETE)
        self.sync()

    def _write(self, line: bytes) -> None:
        with self._lock, writer.failures(self.path):
            done = 0
            while done < len(line):
                done += os.write(self._descriptor, line[done:])

    def sync(self) -> None:
        """Bring what was noted to the disk."""
        with writer.failures(self.path):
            system.sync(self._descriptor)

    def remove(self) -> None:
        """All files have their names: nothing is left to resume."""
        with writer.failures(self.path), suppress(FileNotFoundError):
            os.unlink(self.path)
        named.keep(self.path, kept=False)

    def close(self) -> None:
        """Once."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def _locked(path: Path) -> int:
    """The journal, opened and locked. Raises ResumeRefused where another process has it, OutputFailed."""
    while True:
        descriptor = journals.opened(path)
        if not journals.lock(descriptor):
            os.close(descriptor)
            raise _at_work(path)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.lstat(path)):
                return descriptor
        os.close(descriptor)  # the run that had it has finished and taken it away


def _at_work(path: Path) -> ResumeRefused:
    return ResumeRefused("another run is at work on these files", where=str(path), hint="wait for it, or end it first")


# ---- what differs


def _files(names: Sequence[str], sizes: Sequence[int]) -> dict[str, str]:
    return {f"file {n}": f"{name}, {size} bytes" for n, (name, size) in enumerate(zip(names, sizes, strict=True), 1)}


def compare(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """What differs, in words; plans where nothing else does."""
    keys = [key for key in dict.fromkeys((*now, *before)) if before.get(key) != now.get(key)]
    found = []
    for key in [key for key in keys if not key.startswith(PLAN)] or keys:
        was, is_ = before.get(key, "nothing"), now.get(key, "nothing")
        same = next((n for n, (a, b) in enumerate(zip(was, is_, strict=False)) if a != b), 0)
        start = max(same - BEFORE, 0)
        found.append(f"{_cut(key, 0)} was {_cut(was, start)}, is {_cut(is_, start)}")
    return found


def _cut(text: str, start: int) -> str:
    """A text for a message: of a long one what lies around ``start``."""
    if len(text) <= LONGEST:
        return text
    more = "..." if start + LONGEST < len(text) else ""
    return ("..." if start else "") + text[start : start + LONGEST] + more


def told(differences: Sequence[str]) -> str:
    """The first of them, for a message."""
    more = f" and {len(differences) - SHOWN} more" if len(differences) > SHOWN else ""
    return "; ".join(differences[:SHOWN]) + more
