"""Lists of checksums as `sha256sum` writes and checks them: read one, add lines to one.

Three spellings are read: `<hex>  name`, `<hex> *name` and the BSD one, `SHA256 (name) = <hex>`. A backslash in front
says that backslashes and line ends of the name are escaped.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from quantcli.errors import MalformedFile, MissingFile
from quantcli.output import writer
from quantcli.output.interrupts import deferred_interrupts

LIMIT = 16 << 20  # bytes of a list
_LINE = re.compile(
    r"(?P<escaped>\\?)(?:(?P<digest>[0-9a-fA-F]{64}) [ *](?P<name>[^\n\0]+)"
    r"|SHA256 \((?P<tagged>[^\n\0]+)\) = (?P<after>[0-9a-fA-F]{64}))"
)
_ESCAPES = {"\\\\": "\\", "\\n": "\n", "\\r": "\r"}


class Checksums:
    """A list at ``path``: ``sums`` has file names as written -> sha256 in lower-case hex.

    Raises MissingFile, MalformedFile with the line.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.folder = path, path.parent
        entries = [one for one in _entries(path) if one.name]
        self.sums = {one.name: one.digest for one in entries}
        self._leading: dict[str, list[Entry]] = {}  # by the file that a line leads to
        self._called: dict[str, list[Entry]] = {}  # by the last part of the name
        for one in entries:
            self._leading.setdefault(os.path.realpath(self.folder / one.name), []).append(one)
            self._called.setdefault(os.path.basename(one.name), []).append(one)

    def find(self, path: Path) -> str | None:
        """The sum of the file at ``path``: the lines that lead there from the list's folder; else the one line (or
        equal lines) with the file's name, for files that were moved. None where no line is meant.

        Raises MalformedFile where the list contradicts itself about the file, as `sha256sum -c` fails then.
        """
        here = self._leading.get(os.path.realpath(path))
        if here is not None:
            return self._agreed(here, path)
        moved: dict[str, list[Entry]] = {}
        for one in self._called.get(path.name, ()):
            moved.setdefault(one.name, []).append(one)
        same = {self._agreed(entries, path) for entries in moved.values()}
        return same.pop() if len(same) == 1 else None

    def _agreed(self, entries: Sequence[Entry], path: Path) -> str:
        first = entries[0]
        other = next((one for one in entries if one.digest != first.digest), None)
        if other is not None:
            raise MalformedFile(
                f"lines {first.number} and {other.number} contradict each other about {first.name}",
                where=str(self.path),
                hint=f"remove the wrong one; sha256sum {shlex.quote(str(path))}",
            )
        return first.digest


class Entry(NamedTuple):
    """A line (its number from 1); ``name`` and ``digest`` are empty for blank lines and comments."""

    number: int
    line: str
    name: str
    digest: str


def _entries(path: Path) -> list[Entry]:
    """Every line."""
    found = []
    for number, line in enumerate(_lines(path), 1):
        match = _LINE.fullmatch(line)
        if match:
            name = match["name"] or match["tagged"]
            if match["escaped"]:
                name = re.sub(r"\\[\\nr]", lambda escape: _ESCAPES[escape[0]], name)
            found.append(Entry(number, line, name, (match["digest"] or match["after"]).lower()))
        elif not line.strip() or line.startswith("#"):
            found.append(Entry(number, line, "", ""))
        else:
            raise MalformedFile(
                "not a line of sha256sum (64 hex digits, two blanks, name)", where=f"{path}: line {number}"
            )
    return found


def _lines(path: Path) -> list[str]:
    try:
        with open(path, "rb") as file:
            raw = file.read(LIMIT + 1)
    except OSError as error:
        raise MissingFile(error.strerror or "cannot be opened", where=str(path)) from error
    if len(raw) > LIMIT:
        raise MalformedFile("too large for a list of checksums", where=str(path))
    text = raw.decode("utf-8", "surrogateescape").removeprefix("\ufeff").removesuffix("\n")
    return [line.removesuffix("\r") for line in text.split("\n")] if text else []


def add(path: Path, new: Mapping[Path, str]) -> None:
    """Add a line for every file of ``new`` (its sha256), replacing those of the same names; names are relative to the
    list's folder. All other lines stay as they are.

    The list is replaced in one step, and runs that end together wait for each other.
    """
    with writer.failures(path), writer.locked_folders([path.parent]), deferred_interrupts():
        prepare(path, new).publish()


def prepare(path: Path, new: Mapping[Path, str]) -> writer.OutputFile:
    """The list that `add` makes, on the disk but without its name: for who has locked its folder."""
    names = {os.path.relpath(file, path.parent): digest for file, digest in new.items()}
    kept = [one.line for one in (_entries(path) if path.exists() else []) if one.name not in names]
    text = "".join(f"{line}\n" for line in (*kept, *map(_line, names, names.values())))
    return writer.complete(path, text.encode(errors="surrogateescape"))


def _line(name: str, digest: str) -> str:
    escaped = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    mark = "\\" if escaped != name else ""
    return f"{mark}{digest}  {escaped}"
