"""The journals that lie in a folder: found, read with suspicion, and removed with the temporary files that they are of.

Anybody may have put one there. So only regular files are read, no links are followed, and what a journal says is taken
where it can be what journal.py writes; any other is as good as none.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from quantcli import system
from quantcli.errors import OutputFailed
from quantcli.output import writer

PREFIX, SUFFIX = writer.PREFIX, ".journal"
KEPT = ".resume"  # what the temporary files of a resumable run end in
VERSION = 1  # of what is written here
OF_VERSION = "the version of its journal"  # is a fact, too
PLAN = "the plan of "  # begins facts that are hashes of all others
COMPLETE = b"complete\n"
HEAD_LIMIT = 16 << 20  # bytes of the first line: 65,535 shards and 1,000 files of a source take 7 MB
LINE_LIMIT = 128  # of each other line
LARGEST = 1 << 60  # bytes of a file
SPREAD = 64 << 20  # bytes between the marks that are remembered, but for the last ones
RECENT = 64  # marks of each file that are remembered whatever their distance

_LINE = re.compile(rb"(?P<number>\d{1,6}) (?P<count>\d{1,19}) (?P<digest>[0-9a-f]{64})\n")

Mark = tuple[int, str]  # bytes of a file, sha256 of them in hex
#: what reading a file raises that is no journal: the last ones for numbers, depths and names that no journal has
UNREADABLE = (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError)


def temporary(path: Path) -> Path:
    """The name of the temporary file of a resumable run for ``path``: always the same."""
    digest = hashlib.sha256(path.name.encode(errors="surrogateescape")).hexdigest()[:8]
    return path.parent / f"{PREFIX}{writer.stem(path)}-{digest}{KEPT}"


def place(targets: Sequence[Path]) -> Path:
    """The journal of a run that writes ``targets``."""
    return temporary(targets[0]).with_suffix(SUFFIX)


class Contents(NamedTuple):
    """A journal as it was found. ``end``: bytes of it that make sense. One of another version has no names."""

    path: Path
    facts: Mapping[str, str]
    names: Sequence[str]
    sizes: Sequence[int]
    marks: Sequence[Sequence[Mark]] = ()  # of each file, in order
    complete: bool = False
    end: int = 0

    @property
    def written(self) -> int:
        """Bytes that all files have."""
        return sum(marks[-1][0] for marks in self.marks if marks)

    @property
    def shown(self) -> str:
        """Its files, for a message."""
        if not self.names:
            return "another version"
        return f"{self.names[0]} and {len(self.names) - 1} more" if len(self.names) > 1 else self.names[0]

    @property
    def at_work(self) -> bool:
        """Whether the process that writes it lives."""
        return not _if_free(self.path, lambda: None)

    def may_have_published(self, path: Path) -> bool:
        """Whether the run may have given ``path`` its name before it ended: it was complete, and the size fits."""
        if not self.complete or path.name not in self.names:
            return False
        with suppress(OSError):
            return os.stat(path).st_size == self.sizes[self.names.index(path.name)]
        return False


# ---- reading


def about(targets: Sequence[Path]) -> list[Contents]:
    """The journals of runs that wrote some of ``targets``, which lie in one folder; that of the same files first."""
    wanted = [path.name for path in targets]
    paths = _in_folder(targets[0].parent, SUFFIX) if targets else ()
    found = [read(path) for path in paths if not set(wanted).isdisjoint(_names(path) or ())]
    return sorted((one for one in found if one is not None), key=lambda one: list(one.names) != wanted)


def read(path: Path) -> Contents | None:
    """A journal; None where it cannot be read, or its first line never reached the disk (nothing behind it did)."""
    try:
        with open(system.open_regular(path), "rb") as file:
            raw = file.readline(HEAD_LIMIT)
            facts, names, sizes = _head(raw)
            marks: list[_Marks] = [_Marks() for _ in names]
            end, complete = len(raw), False
            while line := file.readline(LINE_LIMIT):
                if line == COMPLETE:
                    complete = True
                elif not _note(line, marks, sizes):
                    break  # cut in two when the machine stopped
                end += len(line)
    except UNREADABLE:
        return None
    return Contents(path, facts, names, sizes, [one.kept for one in marks], complete, end)


def unreadable(targets: Sequence[Path]) -> Path | None:
    """What lies where the journal of ``targets`` would and is none; None where nothing does, or an empty file."""
    path = place(targets) if targets else None
    if path is None or read(path) is not None:
        return None
    with suppress(OSError):
        status = os.lstat(path)
        return path if status.st_size or not stat.S_ISREG(status.st_mode) else None
    return None


def head(facts: Mapping[str, str], names: Sequence[str], sizes: Sequence[int]) -> bytes:
    """The first line of a journal."""
    said = {"journal": VERSION, "facts": dict(facts), "files": list(zip(names, sizes, strict=True))}
    return json.dumps(said, ensure_ascii=True).encode() + b"\n"


def _head(raw: bytes) -> tuple[dict[str, str], list[str], list[int]]:
    """(facts, names, sizes) of the first line. Raises what `UNREADABLE` lists."""
    said = json.loads(raw.decode("ascii"))
    version = said["journal"]
    if type(version) is not int:
        raise ValueError("no journal")
    if version != VERSION:
        return {OF_VERSION: str(version)}, [], []
    facts, pairs = said["facts"], said["files"]
    files = dict(pairs)
    good = (
        0 < len(files) == len(pairs)
        and all(_is_name(name) and type(size) is int and 0 <= size <= LARGEST for name, size in files.items())
        and isinstance(facts, dict)
        and all(isinstance(text, str) for text in facts.values())
    )
    if not good:
        raise ValueError("no journal")
    return {OF_VERSION: str(version), **facts}, list(files), list(files.values())


def _is_name(name: object) -> bool:
    """Whether it is the name of a file in the journal's own folder. Raises ValueError for half a surrogate pair."""
    if not isinstance(name, str) or name in ("", ".", ".."):
        return False
    return not {"/", "\0"} & set(name) and bool(name.encode(errors="surrogateescape"))


def _note(line: bytes, marks: Sequence[_Marks], sizes: Sequence[int]) -> bool:
    """Take note of a line; False for one that makes no sense."""
    match = _LINE.fullmatch(line)
    if match is None:
        return False
    number, count = int(match["number"]), int(match["count"])
    return number < len(marks) and count <= sizes[number] and marks[number].add((count, match["digest"].decode()))


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


def _names(path: Path) -> Sequence[str] | None:
    """The files that a journal is about: none of one that cannot be read, None for one of another version."""
    try:
        with open(system.open_regular(path), "rb") as file:
            return _head(file.readline(HEAD_LIMIT))[1] or None
    except UNREADABLE:
        return ()


def _in_folder(folder: Path, ending: str) -> Iterator[Path]:
    with suppress(OSError):
        for name in sorted(os.listdir(folder)):
            if name.startswith(PREFIX) and name.endswith(ending):
                yield folder / name


# ---- opening and removing


def opened(path: Path) -> int:
    """A hidden file that this run writes, made where it is missing: a descriptor. Raises OutputFailed."""
    with writer.failures(path):
        try:
            descriptor = system.open_to_write(path, follow=False)
        except OSError as error:
            if not os.path.lexists(path) or stat.S_ISREG(os.lstat(path).st_mode):
                raise
            name = shlex.quote(str(path))
            raise OutputFailed(
                "is no regular file, which a run that can be resumed keeps here",
                where=str(path),
                hint=f"move it away: mv {name} {shlex.quote(f'{path}.old')}",
            ) from error
        if os.fstat(descriptor).st_nlink == 1:
            return descriptor
        os.close(descriptor)  # somebody's file under another name: this one alone is ours
        os.unlink(path)
    return opened(path)


def lock(descriptor: int) -> bool:
    """Lock an open file; False where another process has it. On a file system without locks everybody gets it."""
    try:
        system.lock(descriptor)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def forget(targets: Sequence[Path]) -> None:
    """Remove what runs have left of ``targets``, unless they live: journals and temporary files."""
    for found in about(targets):
        _if_free(found.path, partial(_unlink_with, found))
    if targets and read(own := place(targets)) is None:
        _unlink_free(own)
    for folder in {path.parent for path in targets}:
        clean_orphans(folder)


def _unlink_with(found: Contents) -> None:
    for name in found.names:
        _unlink_free(temporary(found.path.parent / name))
    os.unlink(found.path)


def clean_orphans(folder: Path) -> None:
    """Remove temporary files of resumable runs that no journal of the folder speaks of: theirs was deleted."""
    spoken: set[str] = set()
    for path in _in_folder(folder, SUFFIX):
        names = _names(path)
        if names is None:
            return  # another version knows whose they are
        spoken |= {temporary(folder / name).name for name in names}
    for path in _in_folder(folder, KEPT):
        if path.name not in spoken:
            _unlink_free(path)


def _unlink_free(path: Path) -> None:
    _if_free(path, partial(os.unlink, path))


def _if_free(path: Path, do: Callable[[], None]) -> bool:
    """Do it under the lock of the file at ``path``; not where a process has it, nor where it is no regular file."""
    try:
        descriptor = system.open_regular(path, write=True)
    except OSError:
        return False
    try:
        free = lock(descriptor)
        if free:
            with suppress(OSError):
                do()
        return free
    finally:
        os.close(descriptor)
