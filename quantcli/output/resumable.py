"""Output files that outlive a run which was killed: kept under a fixed hidden name, and gone on with where they end.

`continue_from_disk` hashes what an earlier run has left as far as the journal agrees; the file goes on behind that. A
file that has its name already (the run died between two names) is hashed as well, and then counts as published.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from quantcli import system
from quantcli.errors import OutputExists
from quantcli.output import journals, named, writer
from quantcli.output.interrupts import deferred_interrupts
from quantcli.output.journal import Journal
from quantcli.output.writer import OutputFile

PIECE = 8 << 20  # bytes that are hashed at a time


class ResumableFile(OutputFile):
    """File ``number`` of a journal. After `continue_from_disk` ``written`` bytes of it are there: 0 for a new one.

    `discard` closes it and keeps what is there; `withdraw` gives it back its hidden name.
    """

    def __init__(self, path: Path, size: int, journal: Journal, number: int, *, force: bool = False) -> None:
        self.journal, self.number = journal, number
        super().__init__(path, size, force=force)

    def _open(self) -> tuple[int, Path]:
        hidden = journals.temporary(self.path)
        earlier = self.journal.earlier
        if earlier is not None and earlier.may_have_published(self.path) and self._is_published(hidden):
            self.there = True
            return system.open_to_read(self.path), hidden
        descriptor = journals.opened(hidden)
        journals.lock(descriptor)  # for those that clean up; the journal's lock is what counts
        if os.fstat(descriptor).st_size > self.size:
            os.ftruncate(descriptor, self.size)
        return descriptor, hidden

    def continue_from_disk(self, told: Callable[[int], None]) -> None:
        """Hash what is there up to the last mark that agrees; ``told`` gets the bytes of every piece.

        Raises OutputFailed; OutputExists where the file that has the name is another one.
        """
        marks = self.journal.marks[self.number]
        with writer.failures(self.path):
            digest, good, position = self._digest, self._digest.copy(), 0
            for count, expected in marks:
                while position < count:
                    piece = system.read_at(self._descriptor, min(PIECE, count - position), position)
                    if not piece:
                        break
                    digest.update(piece)
                    position += len(piece)
                    told(len(piece))
                if position < count or digest.hexdigest() != expected:
                    break
                good, self.written = digest.copy(), count
            self._digest, self._flushed = good, self.written
            if self.there and self.written != self.size:
                raise OutputExists(
                    "is not the file that the earlier run gave this name",
                    where=str(self.path),
                    hint=f"move it away, or begin anew: rm {shlex.quote(str(self.journal.path))}",
                )
            os.lseek(self._descriptor, self.written, os.SEEK_SET)

    def mark(self) -> None:
        self.journal.note(self.number, self.written, self._digest.hexdigest())

    def _start_disk(self, descriptor: int) -> None:
        super()._start_disk(descriptor)
        with suppress(Exception):  # a failure shows when the journal is written the next time
            self.journal.sync()

    def publish(self) -> None:
        if not self.there:
            super().publish()
            return
        with suppress(FileNotFoundError):
            os.unlink(self._temporary)  # of the same bytes
        named.note(self.path)
        self._close()

    def withdraw(self) -> None:
        if self.there:
            return
        with deferred_interrupts(), suppress(OSError):
            os.replace(self.path, self._temporary)
        named.forget(self.path)

    def discard(self) -> None:
        """Close it. What is there stays for the next run."""
        if self._descriptor >= 0:
            self._close()

    def _is_published(self, hidden: Path) -> bool:
        """Whether the file that has the name counts as published. One that is the hidden file as well got the first of
        two steps: the second follows. Where it is another one, which nobody wants replaced, its bytes decide."""
        try:
            status = os.lstat(hidden)
        except OSError:
            return True
        with suppress(OSError):
            if os.path.samestat(status, os.stat(self.path)):
                os.unlink(hidden)
                return True
        return not self.force
