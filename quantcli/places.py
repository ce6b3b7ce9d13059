"""Where bytes lie: in files of this machine, or elsewhere, under a folder as if they lay there.

A source that is far away (the hub) *mounts* its large files under the folder that holds its small ones. Whoever looks
for a file or opens one asks here, and is given the real file where there is one, else what is mounted under its path.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

from quantcli import system
from quantcli.errors import MissingFile, SourceChanged, UnsupportedFile

BEGINNING = 4096  # bytes that are looked at again in the end

PathLike: TypeAlias = str | os.PathLike[str]


class Bytes(Protocol):
    """An open file of ``size`` bytes that is read by position. Threads may read from it at the same time."""

    @property
    def size(self) -> int: ...

    @property
    def identity(self) -> str:
        """What tells the file from another version of it, in words, also after a restart of the machine."""
        ...

    def read_some(self, buffer: memoryview, offset: int) -> int:
        """Fill ``buffer`` or a first part of it from byte ``offset`` on; how many bytes, 0 at the end. Raises
        MissingFile, and what the place raises."""
        ...

    def expect(self, starts: Sequence[int]) -> None:
        """The pieces that the file consists of begin at these bytes (ascending): they are what is read as a whole."""
        ...

    def soon(self, offset: int, count: int) -> None:
        """These bytes are read next, in pieces: a good moment to ask for all of them."""
        ...

    def check_unchanged(self) -> None:
        """Raises SourceChanged where the file is not any more what it was when it was opened, BadAnswer where what
        came is not what was promised."""
        ...

    def close(self) -> None:
        """Reading ends here, also in other threads."""
        ...


class Elsewhere(Protocol):
    """A file that is mounted. ``sha256``: what is announced of its content, None where nothing is."""

    @property
    def size(self) -> int: ...

    @property
    def checked(self) -> bool:
        """Whether all of it came, and had the hash that was announced."""
        ...

    @property
    def sha256(self) -> str | None: ...

    def open(self) -> Bytes: ...

    def prepare(self) -> None:
        """It will be opened soon: a good moment to ask for its beginning."""
        ...


@dataclass(frozen=True, eq=False, repr=False)
class _Mount:
    """Files that lie elsewhere, by their path below the folder, and how the folder is called in messages."""

    shown: str
    files: Mapping[str, Elsewhere]


_mounts: dict[Path, _Mount] = {}  # by absolute folder


def mount(folder: Path, shown: str, files: Mapping[str, Elsewhere]) -> None:
    """``files``, by their names relative to the absolute ``folder``, are there from now on. In messages the folder is
    called ``shown``."""
    _mounts[folder] = _Mount(shown, dict(files))


def unmount(folder: Path) -> None:
    """Forget what is mounted there."""
    _mounts.pop(folder, None)


def _under(path: PathLike) -> Iterable[tuple[_Mount, str]]:
    """The mounts above ``path``, and its name there."""
    if not _mounts:
        return
    whole = Path(os.path.abspath(path))
    for folder, mounted in _mounts.items():
        if whole.is_relative_to(folder):
            yield mounted, whole.relative_to(folder).as_posix()


def elsewhere(path: PathLike) -> Elsewhere | None:
    """What is mounted as ``path``; None where a real file is there, or nothing."""
    if not _mounts or os.path.lexists(path):
        return None
    return next((m.files[name] for m, name in _under(path) if name in m.files), None)


def exists(path: PathLike) -> bool:
    """Whether there is something, be it a link to nothing."""
    return os.path.lexists(path) or elsewhere(path) is not None or is_folder(path)


def is_folder(path: PathLike) -> bool:
    """Whether it is a folder, maybe one that holds mounted files only."""
    return os.path.isdir(path) or any(
        any(name == "." or file.startswith(f"{name}/") for file in m.files) for m, name in _under(path)
    )


def is_file(path: PathLike) -> bool:
    return os.path.isfile(path) or elsewhere(path) is not None


def names(folder: PathLike) -> list[str]:
    """The names of files and folders in ``folder``, sorted. Raises OSError."""
    found = {
        file.removeprefix(f"{name}/").split("/")[0]
        for m, name in _under(folder)
        for file in m.files
        if name == "." or file.startswith(f"{name}/")
    }
    return sorted(found | set(os.listdir(folder) if os.path.isdir(folder) or not found else ()))


def size(path: PathLike) -> int:
    """Bytes of the file. Raises OSError."""
    found = elsewhere(path)
    return os.path.getsize(path) if found is None else found.size


def prepare(paths: Iterable[PathLike]) -> None:
    """These files will be opened soon, all of them."""
    for path in paths if _mounts else ():
        found = elsewhere(path)
        if found is not None:
            found.prepare()


def shown(text: str) -> str:
    """``text`` with mounted folders as the user knows them."""
    for folder, mounted in _mounts.items():
        text = text.replace(str(folder), mounted.shown)
    return text


def beginning(path: PathLike, count: int) -> bytes:
    """The first bytes of a regular file, at most ``count``; nothing where it cannot be read."""
    found = elsewhere(path)
    if found is not None:
        file = found.open()
        try:
            buffer = bytearray(min(count, file.size))
            return bytes(buffer[: file.read_some(memoryview(buffer), 0)])
        finally:
            file.close()
    try:
        with open(path, "rb") as opened:
            return opened.read(count) if os.path.isfile(path) else b""
    except OSError:
        return b""


def check_regular(path: PathLike) -> int:
    """The size of the file at ``path``. Raises MissingFile, or UnsupportedFile for a pipe, a device or a folder."""
    found = elsewhere(path)
    if found is not None:
        return found.size
    try:
        status = os.stat(path)
    except OSError as error:
        if os.path.islink(path) and error.errno == errno.ENOENT:  # the Hugging Face cache is made of links
            raise MissingFile(
                f"is a link to {os.readlink(path)!r}, which is not there",
                where=str(path),
                hint="download the file again",
            ) from error
        raise MissingFile(error.strerror or "cannot be opened", where=str(path)) from error
    except ValueError as error:  # a zero byte in the name
        raise MissingFile(str(error), where=ascii(str(path))) from error
    if not stat.S_ISREG(status.st_mode):  # a pipe would block, a device never end
        raise UnsupportedFile("not a regular file", where=str(path))
    return status.st_size


def open_bytes(path: PathLike) -> Bytes:
    """The file at ``path``, open. Raises MissingFile, UnsupportedFile, and what the place raises."""
    found = elsewhere(path)
    return Descriptor(path) if found is None else found.open()


class Descriptor:
    """A file of this machine. Mapped pages would count as resident memory, so it is read with ``pread``."""

    def __init__(self, path: PathLike) -> None:
        self._path = path
        self.size = check_regular(path)
        self._number = -1
        try:
            self._number = system.open_to_read(path)
        except OSError as error:
            hint = "raise the limit with `ulimit -n`" if error.errno == errno.EMFILE else None
            raise MissingFile(error.strerror or "cannot be opened", where=str(path), hint=hint) from error
        self._identity = self._looks()

    def _looks(self) -> tuple[int, int, int, int, bytes]:
        """What tells a file from another one: the file behind the name, and what its header begins with."""
        status = os.stat(self._path)
        first = system.read_at(self._number, BEGINNING, 0)
        return status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev, first

    @property
    def identity(self) -> str:
        import hashlib  # the program starts without it

        size, changed, *_, first = self._identity
        return f"{size} bytes changed at {changed} ns, beginning {hashlib.sha256(first).hexdigest()[:16]}"

    def expect(self, starts: Sequence[int]) -> None:
        """The system knows what it does."""

    def soon(self, offset: int, count: int) -> None:
        """It reads ahead as it likes."""

    def check_unchanged(self) -> None:
        try:
            same = self._looks() == self._identity
        except OSError:
            same = False
        if not same:
            raise SourceChanged(
                "the file changed while it was read: what was read of it may be of two versions",
                where=str(self._path),
                hint="wait until it is complete, then convert again",
            )

    def read_some(self, buffer: memoryview, offset: int) -> int:
        try:
            return system.read_into(self._number, buffer, offset)
        except OSError as error:
            raise MissingFile(f"reading failed: {error.strerror}", where=f"{self._path}: byte {offset}") from error

    def close(self) -> None:
        """Once, also where a signal arrives in between: the number is forgotten before the system may give it anew."""
        number, self._number = self._number, -1
        if number >= 0:
            os.close(number)

    def __del__(self) -> None:
        if getattr(self, "_number", -1) >= 0:
            self.close()
