"""What a run that can be resumed leaves beside its temporary files: what it makes of what, and how far each file is.

A text file: a first line of JSON (the facts of the run, its files), then a line per piece that was written: number of
the file, bytes of it so far, sha256 of these bytes. Nothing of it is trusted: what is there is hashed again when a run
is resumed, and goes as far as the sums agree. So no order of writes to the disk matters, and a machine that lost power
loses only what had not reached its disk. The journal is locked while its process lives.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from quantcli import system
from quantcli.errors import ResumeRefused
from quantcli.output import named, writer

PREFIX, SUFFIX = writer.PREFIX, ".journal"
KEPT = ".resume"  # what the temporary files of a resumable run end in
SCHEMA = 1
COMPLETE = b"complete\n"
HEAD_LIMIT = 64 << 20  # bytes of the first line
SPREAD = 64 << 20  # bytes between the marks that are remembered, but for the last ones
RECENT = 64  # marks of each file that are remembered whatever their distance
SHOWN = 3  # differences in a message

Mark = tuple[int, str]  # bytes of a file, sha256 of them in hex


def temporary(path: Path) -> Path:
    """The name of the temporary file of a resumable run for ``path``: always the same."""
    digest = hashlib.sha256(path.name.encode(errors="surrogateescape")).hexdigest()[:8]
    return path.parent / f"{PREFIX}{writer.stem(path)}-{digest}{KEPT}"


def place(targets: Sequence[Path]) -> Path:
    """The journal of a run that writes ``targets``."""
    return temporary(targets[0]).with_suffix(SUFFIX)


class Contents(NamedTuple):
    """A journal as it was found. ``end``: bytes of it that make sense."""

    path: Path
    facts: Mapping[str, str]
    names: Sequence[str]
    sizes: Sequence[int]
    marks: Sequence[Sequence[Mark]]  # of each file, in order
    complete: bool
    end: int

    @property
    def written(self) -> int:
        """Bytes that all files have."""
        return sum(marks[-1][0] for marks in self.marks if marks)

    def may_have_published(self, path: Path) -> bool:
        """Whether the run may have given ``path`` its name before it ended: it was complete, and the size fits."""
        if not self.complete or path.name not in self.names:
            return False
        with suppress(OSError):
            return os.stat(path).st_size == self.sizes[self.names.index(path.name)]
        return False


def find(targets: Sequence[Path]) -> Contents | None:
    """The journal of a run that wrote some of ``targets``; they lie in one folder."""
    wanted = {path.name for path in targets}
    for path in _in_folder(targets[0].parent, SUFFIX):
        if wanted & set(_names(path)):
            return read(path)
    return None


def read(path: Path) -> Contents | None:
    """A journal; None where its first line never reached the disk (nothing behind it did then)."""
    try:
        with open(path, "rb") as file:
            raw = file.readline(HEAD_LIMIT)
            facts, names, sizes = _head(raw)
            marks: list[_Marks] = [_Marks() for _ in names]
            end, complete = len(raw), False
            for line in file:
                if line == COMPLETE:
                    complete = True
                elif not _note(line, marks, sizes):
                    break  # cut in two when the machine stopped
                end += len(line)
    except (OSError, ValueError, TypeError):
        return None
    return Contents(path, facts, names, sizes, [one.kept for one in marks], complete, end)


def _head(raw: bytes) -> tuple[dict[str, str], list[str], list[int]]:
    """(facts, names, sizes) of the first line. Raises ValueError, TypeError."""
    head = json.loads(raw)
    if not isinstance(head, dict) or head.get("journal") != SCHEMA or not isinstance(head.get("facts"), dict):
        raise ValueError("no journal")
    files = head.get("files")
    if not isinstance(files, list):
        raise ValueError("no journal")
    names, sizes = [str(name) for name, _ in files], [int(size) for _, size in files]
    return {str(key): str(value) for key, value in head["facts"].items()}, names, sizes


def _note(line: bytes, marks: Sequence[_Marks], sizes: Sequence[int]) -> bool:
    """Take note of a line; False for one that makes no sense."""
    parts = line.split()
    if len(parts) != 3 or not line.endswith(b"\n") or len(parts[2]) != 64:
        return False
    try:
        number, count = int(parts[0]), int(parts[1])
        return 0 <= number < len(marks) and count <= sizes[number] and marks[number].add((count, parts[2].decode()))
    except ValueError:
        return False


@dataclass(eq=False, repr=False)
class _Marks:
    """The marks of one file: those far apart, and the last ones. A file of 600 GB has two million."""

    kept: list[Mark] = field(default_factory=list)

    def add(self, mark: Mark) -> bool:
        """False where it does not lie behind the last one."""
        if self.kept and mark[0] <= self.kept[-1][0]:
            return False
        self.kept.append(mark)
        old = len(self.kept) - 1 - RECENT
        if old >= 1 and self.kept[old][0] - self.kept[old - 1][0] < SPREAD:
            del self.kept[old]
        return True


class Journal:
    """The journal of this run, locked. Thread-safe."""

    def __init__(self, targets: Sequence[Path], sizes: Sequence[int], facts: Mapping[str, str]) -> None:
        """Begin one, or go on with the one that an earlier run has left. Raises ResumeRefused, OutputFailed."""
        self.targets = list(targets)
        earlier = find(targets)
        self.path = place(targets) if earlier is None else earlier.path
        self._lock = threading.Lock()
        with writer.failures(self.path):
            self._descriptor = _locked(self.path)
        try:
            self.earlier = None if earlier is None else self._continue(earlier, facts)
            if self.earlier is None:
                self._begin(sizes, facts)
        except BaseException:
            self.close()
            raise
        named.keep(self.path, kept=True)
        self.marks: Sequence[Sequence[Mark]] = self.earlier.marks if self.earlier else [[] for _ in targets]

    def _continue(self, earlier: Contents, facts: Mapping[str, str]) -> Contents | None:
        again = read(earlier.path)  # under the lock now
        if again is None:
            return None
        differences = compare(again.facts, facts)
        if differences:
            more = f" and {len(differences) - SHOWN} more" if len(differences) > SHOWN else ""
            raise ResumeRefused(
                f"an unfinished conversion of {_shown(again.names)} lies here, and this is another one: "
                f"{'; '.join(differences[:SHOWN])}{more}",
                where=str(self.path),
                hint=f"give it the same command and source, or begin anew: rm '{self.path}'",
            )
        with writer.failures(self.path):
            os.ftruncate(self._descriptor, again.end)
            os.lseek(self._descriptor, again.end, os.SEEK_SET)
        return again

    def _begin(self, sizes: Sequence[int], facts: Mapping[str, str]) -> None:
        files = [[path.name, size] for path, size in zip(self.targets, sizes, strict=True)]
        head = json.dumps({"journal": SCHEMA, "facts": dict(facts), "files": files}, ensure_ascii=True)
        with writer.failures(self.path):
            os.ftruncate(self._descriptor, 0)
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            self._write(head.encode() + b"\n")
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
    """The journal, opened and locked. Raises ResumeRefused where another process has it, OSError."""
    while True:
        descriptor = system.open_to_write(path)
        try:
            system.lock(descriptor)
        except BlockingIOError:
            os.close(descriptor)
            raise ResumeRefused(
                "another run is at work on these files", where=str(path), hint="wait for it, or end it first"
            ) from None
        except OSError:  # a file system without locks
            return descriptor
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        os.close(descriptor)  # the run that had it has finished and taken it away


def compare(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """What differs, in words."""
    lacks = "nothing"
    keys = dict.fromkeys((*before, *now))
    return [
        f"{key} was {before.get(key, lacks)}, is {now.get(key, lacks)}"
        for key in keys
        if before.get(key) != now.get(key)
    ]


def _shown(names: Sequence[str]) -> str:
    return f"{names[0]} and {len(names) - 1} more" if len(names) > 1 else names[0]


def _in_folder(folder: Path, ending: str) -> Iterator[Path]:
    with suppress(OSError):
        for name in sorted(os.listdir(folder)):
            if name.startswith(PREFIX) and name.endswith(ending):
                yield folder / name


def forget(found: Contents) -> bool:
    """Remove a journal and its temporary files, unless its process lives; whether that was done."""
    try:
        descriptor = _locked(found.path)
    except (ResumeRefused, OSError):
        return False
    try:
        for name in found.names:
            with suppress(OSError):
                os.unlink(temporary(found.path.parent / name))
        with suppress(OSError):
            os.unlink(found.path)
    finally:
        os.close(descriptor)
    return True


def clean_orphans(folder: Path, own: Iterable[Path] = ()) -> None:
    """Remove temporary files of resumable runs that no journal of the folder speaks of: theirs was deleted."""
    spoken = {temporary(folder / name).name for path in _in_folder(folder, SUFFIX) for name in _names(path)}
    spoken |= {temporary(path).name for path in own}
    for path in _in_folder(folder, KEPT):
        if path.name not in spoken:
            with suppress(OSError):
                os.unlink(path)


def _names(path: Path) -> Sequence[str]:
    """The files that a journal is about."""
    try:
        with open(path, "rb") as file:
            return _head(file.readline(HEAD_LIMIT))[1]
    except (OSError, ValueError, TypeError):
        return ()
