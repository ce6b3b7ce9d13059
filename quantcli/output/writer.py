"""Finished files or none: bytes go in order into a hidden temporary file, are hashed on the way, and appear at once.

A temporary file lies in the target's folder (so that the last step is a rename) and is locked while its process lives:
what a killed run left behind is recognised by its free lock and removed by the next run into the same folder. What an
interrupt leaves between two steps is removed when the process ends.
"""

from __future__ import annotations

import atexit
import errno
import hashlib
import os
import stat
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TypeAlias

import numpy
from numpy.typing import NDArray

from quantcli import system
from quantcli.errors import OutputExists, OutputFailed, OutputIsInput, UsageError
from quantcli.output import named
from quantcli.output.follower import Follower
from quantcli.output.interrupts import deferred_interrupts

Buffer: TypeAlias = bytes | bytearray | memoryview | NDArray[numpy.generic]

PREFIX, SUFFIX = ".quantcli-", ".part"
LONGEST_STEM = 100  # bytes of the target's name in the temporary one: a name has 255, and what is added needs its own
FLUSH_BYTES = 64 << 20  # the disk starts on this much while the rest is being made, instead of all at the end

HINTS = {
    errno.ENOSPC: "free some space, or write to another disk",
    errno.EDQUOT: "your quota on this disk is used up",
    errno.EFBIG: "the file system or a limit of this shell (ulimit -f) refuses files of this size; "
    "--split-max-size helps",
    errno.EACCES: "choose a folder that you may write to",
    errno.EROFS: "choose a folder that you may write to",
    errno.ENOENT: "create the folder first, or choose another folder",
}

_unfinished: dict[Path, OutputFile] = {}  # by the temporary name
_locked = threading.local()  # its `folders`: what this thread has locked


@atexit.register
def discard_unfinished() -> None:
    """Remove every temporary file of this process: an interrupt may have hidden it from who made it."""
    for file in list(_unfinished.values()):
        file.discard()


@contextmanager
def failures(path: Path) -> Iterator[None]:
    """Turn an OSError into OutputFailed at ``path``."""
    try:
        yield
    except OSError as error:
        raise OutputFailed(
            f"cannot be written: {error.strerror or error}", where=str(path), hint=HINTS.get(error.errno or 0)
        ) from error


class OutputFile:
    """One file in the making: ``append`` bytes in order, then ``finish`` and ``publish``, or ``discard``.

    ``size`` is the planned size in bytes: the space is reserved at once, so that a full disk is an early error, and a
    file of another length is never published. Raises OutputFailed, OutputExists (see `check_place`).

    What can be resumed (resumable.py) is a file with a few other steps: ``there`` says that an earlier run has given
    it its name already.
    """

    there = False

    def __init__(self, path: Path, size: int, *, force: bool = False, late: bool = False) -> None:
        """``late``: its beginning is replaced once (`replace_head`), and nothing of it is hashed before."""
        self.path, self.size, self.force = Path(path), size, force
        self.written = 0
        self.sha256 = ""
        self._digest = hashlib.sha256()
        self._flushed = 0
        self._flush: threading.Thread | None = None
        self._flush_error: OSError | None = None
        check_place(self.path, force=force)
        with failures(self.path), deferred_interrupts():
            self._descriptor, self._temporary = self._open()
            self._follower = Follower(self._descriptor, self._digest) if late else None
            _unfinished[self._temporary] = self
            try:
                if not self.there:
                    system.reserve(self._descriptor, size)
            except BaseException:
                self.discard()
                raise

    def _open(self) -> tuple[int, Path]:
        """The descriptor and the name of the temporary file."""
        return _create(self.path)

    def mark(self) -> None:
        """Everything up to here belongs together: where a run may be resumed. Other files take no note."""

    def append(self, data: Buffer) -> None:
        """Write and hash a buffer behind what is there."""
        view = memoryview(data.data if isinstance(data, numpy.ndarray) else data).cast("B")
        with failures(self.path):
            done = 0
            while done < len(view):
                done += os.write(self._descriptor, view[done:])
        if self._follower is None:
            self._digest.update(view)
        else:
            self._follower.wrote(view)
        self.written += len(view)
        if self.written - self._flushed >= FLUSH_BYTES and not (self._flush and self._flush.is_alive()):
            self._flushed = self.written
            self._flush = threading.Thread(target=self._start_disk, args=(os.dup(self._descriptor),), daemon=True)
            self._flush.start()

    def replace_head(self, data: bytes) -> None:
        """Write over the beginning of a late file, which is hashed from now on. Others may append meanwhile."""
        assert self._follower is not None and len(data) <= self.written
        with failures(self.path):
            done = 0
            while done < len(data):
                done += system.write_at(self._descriptor, data[done:], done)
        self._follower.start()

    def _start_disk(self, descriptor: int) -> None:
        """Bring what is there to the disk. The system reports a failure once only, so it is kept for `finish`."""
        try:
            system.sync_data(descriptor)
        except OSError as error:
            self._flush_error = error
        finally:
            os.close(descriptor)

    def finish(self) -> str:
        """Bring the bytes to the disk; returns the sha256 in hex."""
        if self.written != self.size:
            raise AssertionError(f"{self.path}: {self.written} bytes written, {self.size} planned")
        if self._flush is not None:
            self._flush.join()
        with failures(self.path):
            if self._follower is not None:
                self._follower.finish()
            system.sync(self._descriptor)
            if self._flush_error is not None:
                raise self._flush_error
        self.sha256 = self._digest.hexdigest()
        return self.sha256

    def publish(self) -> None:
        """Give the file its final name, which nobody saw before it was complete."""
        with failures(self.path), deferred_interrupts():
            if self.force:
                self._keep_mode()
                os.replace(self._temporary, self.path)
            else:
                _rename_new(self._temporary, self.path)
            named.note(self.path)
            self._close()
            system.sync_folder(self.path.parent)

    def withdraw(self) -> None:
        """Take a published file away again."""
        with suppress(OSError):
            os.unlink(self.path)
        named.forget(self.path)

    def _keep_mode(self) -> None:
        """A file that is replaced keeps who may read and write it."""
        with suppress(FileNotFoundError):
            system.copy_mode(self.path, self._descriptor)

    def _close(self) -> None:
        """Once, also where a signal arrives in between: the number is forgotten before the system may give it anew."""
        descriptor, self._descriptor = self._descriptor, -1
        _unfinished.pop(self._temporary, None)
        if descriptor >= 0:
            os.close(descriptor)

    def discard(self) -> None:
        """Remove the temporary file, if it is still one."""
        if self._descriptor >= 0:
            if self._follower is not None:
                self._follower.stop()
            with suppress(FileNotFoundError):
                os.unlink(self._temporary)
            self._close()


def stem(path: Path) -> str:
    """What of the target's name is in a temporary one: whole characters, of as many bytes as it may have."""
    raw = os.fsencode(path.name)
    return path.name if len(raw) <= LONGEST_STEM else raw[:LONGEST_STEM].decode("utf-8", "ignore")


def _create(path: Path) -> tuple[int, Path]:
    """A new locked temporary file for ``path``."""
    while True:
        name = f"{PREFIX}{stem(path)}-{os.getpid()}-{os.urandom(4).hex()}{SUFFIX}"
        temporary = path.parent / name
        descriptor = system.open_to_write(temporary, new=True)
        try:
            system.lock(descriptor)
            if os.fstat(descriptor).st_nlink:
                return descriptor, temporary
        except BlockingIOError:
            pass
        except OSError:  # a file system without locks: nobody will take this file for a stale one either
            return descriptor, temporary
        os.close(descriptor)  # a cleaning run caught the file between creation and lock: take another


def _rename_new(temporary: Path, path: Path) -> None:
    """Rename without replacing: another run may have finished the same file meanwhile."""
    try:
        system.rename_new(temporary, path)
    except FileExistsError:
        raise OutputExists(
            "appeared while this run was at work", where=str(path), hint="--force replaces existing files"
        ) from None


def clean_stale(folder: Path) -> list[str]:
    """Remove the temporary files of runs that no longer live; returns their names."""
    removed: list[str] = []
    try:
        names = [name for name in os.listdir(folder) if name.startswith(PREFIX) and name.endswith(SUFFIX)]
    except OSError:
        return removed
    for name in names:
        try:
            descriptor = system.open_existing(folder / name)
        except OSError:
            continue
        try:
            system.lock(descriptor)
            os.unlink(folder / name)
            removed.append(name)
        except OSError:
            pass  # its process lives
        finally:
            os.close(descriptor)
    return removed


def check_place(path: Path, *, force: bool) -> None:
    """Refuse a device, a pipe or a link that leads nowhere: a file that appears by renaming would take its place; and a
    name that no file can have."""
    _check_name(path)
    try:
        mode = os.stat(path).st_mode
    except OSError:
        if not force and os.path.islink(path):
            raise OutputExists(
                "exists already, a link that leads nowhere", where=str(path), hint="--force replaces it"
            ) from None
        return
    if not stat.S_ISREG(mode):
        what = "is a folder" if stat.S_ISDIR(mode) else "not a regular file"
        raise OutputFailed(what, where=str(path), hint="choose another name")


def _check_name(path: Path) -> None:
    """Refuse a name that no file can have: too long, in a circle of links, with a zero byte. Raises OutputFailed."""
    hint = "choose another name"
    try:
        os.stat(path)
    except ValueError as error:
        raise OutputFailed(f"no name of a file: {error}", where=ascii(str(path)), hint=hint) from error
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            raise OutputFailed(f"no name of a file: {error.strerror}", where=str(path), hint=hint) from error


def check_targets(paths: Iterable[Path], inputs: Iterable[str], *, force: bool) -> None:
    """Refuse, before any work, targets that cannot or must not be written.

    Raises OutputIsInput (same file, through any link), OutputExists, OutputFailed, UsageError (two with one name).
    """
    sources = {_identity(Path(name)): name for name in inputs}
    seen: set[str] = set()
    folders: set[Path] = set()
    for path in paths:
        if os.fspath(path) == "-":
            raise UsageError(
                "an output is a file, it cannot go to stdout",
                where=os.fspath(path),
                hint="give it the name of a file",
            )
        real = os.path.realpath(path)
        if real in seen:
            raise UsageError(f"two outputs would be the same file {path}")
        seen.add(real)
        identity = _identity(path)
        if identity is not None and identity in sources:
            raise OutputIsInput("the output is a file of the input", where=str(path), hint="choose another name")
        check_place(path, force=force)
        if identity is not None and not force:
            raise OutputExists("exists already", where=str(path), hint="--force replaces it")
        if path.parent not in folders:
            _check_folder(path.parent)
            folders.add(path.parent)


def check_folder(path: Path) -> None:
    """Refuse, before any work, a folder that is to be filled and is none, or cannot be made with those above it.
    Raises OutputFailed."""
    _check_name(path)
    there = next(one for one in (path, *path.absolute().parents) if os.path.lexists(one))
    _check_folder(there)


def _check_folder(folder: Path) -> None:
    """Whether files can be made there. Raises OutputFailed."""
    if not os.path.isdir(folder):
        if os.path.exists(folder):
            raise OutputFailed("not a folder", where=str(folder), hint="choose another folder")
        raise OutputFailed("the folder does not exist", where=str(folder), hint=HINTS[errno.ENOENT])
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputFailed("no permission to write here", where=str(folder), hint=HINTS[errno.EACCES])
    try:
        system.try_folder(folder, f"{PREFIX}{os.getpid()}-{os.urandom(4).hex()}{SUFFIX}")
    except OSError as error:
        raise OutputFailed(
            f"no file can be made here: {error.strerror or error}", where=str(folder), hint=HINTS[errno.EACCES]
        ) from error


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


@contextmanager
def locked_folders(folders: Iterable[Path]) -> Iterator[None]:
    """One process (or thread) at a time, among those that ask. No lock file is left; without locks on the disk, no
    waiting. Who has a folder may ask for it again, but not for others."""
    held: dict[tuple[int, int], int] = getattr(_locked, "folders", {})
    wanted = {identity: folder for folder in folders if (identity := _identity(folder)) not in (None, *held)}
    with ExitStack() as stack:
        for _, folder in sorted(wanted.items()):  # all in one order, so that nobody waits in a circle
            with suppress(OSError):  # also a folder that may be written to, but not read
                stack.callback(os.close, system.lock_folder(folder))
        _locked.folders = {**held, **dict.fromkeys(wanted, 0)}
        try:
            yield
        finally:
            _locked.folders = held


def write_text(path: Path, text: str) -> None:
    """Replace a small text file in one step. Surrogates stand for bytes that are not UTF-8."""
    write_bytes(path, text.encode(errors="surrogateescape"))


def write_bytes(path: Path, *pieces: bytes, force: bool = True) -> str:
    """Write (or, with ``force``, replace) a file in one step; returns its sha256. Interrupts wait."""
    with deferred_interrupts():
        output = complete(path, *pieces, force=force)
        try:
            output.publish()
        finally:
            output.discard()
        return output.sha256


def complete(path: Path, *pieces: bytes, force: bool = True) -> OutputFile:
    """A small file on the disk that has no name yet."""
    output = OutputFile(path, sum(map(len, pieces)), force=force)
    try:
        for piece in pieces:
            output.append(piece)
        output.finish()
    except BaseException:
        output.discard()
        raise
    return output
