"""What the operating system is asked for and each answers in its own way: the file that a port to another one changes.

Here for POSIX (Linux, macOS): opening, reading and writing by position, the disk, locks, signals, limits of a process,
what the machine has. Everything else of the package uses what Python has on all systems
(`tests/house/test_system.py` asserts it, and that nothing else is open to a type checker for Windows).

It imports the standard library alone: the interpreter of chat templates loads it by its place.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import resource
import signal
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

PathLike: TypeAlias = str | os.PathLike[str]

APPLE = sys.platform == "darwin"
_STATM = Path("/proc/self/statm")  # where the kernel says what a process holds (Linux)
_CPUINFO = Path("/proc/cpuinfo")
_PIECE = 4 << 20  # bytes that are read at a time where there is no preadv
_AS_IT_IS = os.O_NOFOLLOW | os.O_NONBLOCK  # what opens neither what a link leads to, nor waits for a pipe's other end

# ---- the library of kernels

LIBRARY_SUFFIX = ".dylib" if APPLE else ".so"
LIBRARY_FLAGS = os.RTLD_NOW | os.RTLD_NODELETE  # its threads may outlive all references to it


# ---- files by their descriptors: no process that is started has them (PEP 446)


def open_to_read(path: PathLike) -> int:
    """A descriptor for the bytes of a file. Raises OSError."""
    return os.open(path, os.O_RDONLY)


def open_regular(path: PathLike, *, write: bool = False) -> int:
    """A descriptor to read (and write) a regular file that is there: no link, and no pipe, for which one would wait.
    Raises OSError."""
    return _regular(os.open(path, (os.O_RDWR if write else os.O_RDONLY) | _AS_IT_IS))


def open_to_write(path: PathLike, *, new: bool = False, follow: bool = True, mode: int = 0o666) -> int:
    """A descriptor to read and write a file, made where it is missing; ``new``: it must be; without ``follow`` it is
    a regular file and no link. Raises OSError."""
    flags = os.O_RDWR | os.O_CREAT | (os.O_EXCL if new else 0)
    return os.open(path, flags, mode) if follow else _regular(os.open(path, flags | _AS_IT_IS, mode))


def open_existing(path: PathLike) -> int:
    """A descriptor to read and write a file that is there, and no link. Raises OSError."""
    return os.open(path, os.O_RDWR | os.O_NOFOLLOW)


def _regular(descriptor: int) -> int:
    """The same descriptor. Raises OSError for one of a pipe, a device or a folder."""
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "not a regular file")


def read_at(descriptor: int, count: int, offset: int) -> bytes:
    """At most ``count`` bytes from ``offset`` on; the descriptor's own place stays. Raises OSError."""
    return os.pread(descriptor, count, offset)


def read_into(descriptor: int, buffer: memoryview, offset: int) -> int:
    """Fill ``buffer`` from ``offset`` on; returns how many bytes came. Raises OSError."""
    if hasattr(os, "preadv"):  # macOS has it since 11
        return os.preadv(descriptor, [buffer], offset)
    piece = os.pread(descriptor, min(len(buffer), _PIECE), offset)
    buffer[: len(piece)] = piece
    return len(piece)


def write_at(descriptor: int, data: bytes | memoryview, offset: int) -> int:
    """Write at ``offset``; returns how many bytes went. Raises OSError."""
    return os.pwrite(descriptor, data, offset)


# ---- the disk


def sync(descriptor: int) -> None:
    """Bring a file to the disk. Raises OSError."""
    os.fsync(descriptor)


def sync_data(descriptor: int) -> None:
    """Bring its bytes to the disk, though not when it was changed. Raises OSError."""
    getattr(os, "fdatasync", os.fsync)(descriptor)


def sync_folder(folder: PathLike) -> None:
    """Bring the names of a folder to the disk, on file systems that can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def reserve(descriptor: int, size: int) -> None:
    """Take ``size`` bytes of the disk, or where that is not possible at least look whether they are free.

    Raises OSError: ENOSPC says how many bytes are needed, and how many there are.
    """
    if not size:
        return
    there = os.fstat(descriptor).st_blocks * 512  # of a file that is gone on with
    disk = os.fstatvfs(descriptor)
    free = disk.f_bavail * disk.f_frsize
    full = OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: {size:,} bytes are needed, {free:,} are free")
    try:
        os.posix_fallocate(descriptor, 0, size)
        return
    except AttributeError:  # macOS
        pass
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise full from error
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise
    if free < size - there:
        raise full


def try_folder(folder: PathLike, name: str) -> None:
    """Whether files can be made in a folder: by one that has no name or, on systems and disks without such files, is
    called ``name`` for a moment. Raises OSError where they cannot: permissions alone do not tell (/proc, a quota)."""
    with suppress(AttributeError, OSError):  # macOS; file systems that have none
        os.close(os.open(folder, os.O_TMPFILE | os.O_RDWR))
        return
    path = Path(folder, name)
    os.close(open_to_write(path, new=True))
    os.unlink(path)


def forget_pages(descriptor: int, offset: int, count: int) -> None:
    """What memory holds of these bytes is to be read from the disk again, where the system takes such advice."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, offset, count, os.POSIX_FADV_DONTNEED)


def copy_mode(path: PathLike, descriptor: int) -> None:
    """Who may read and write ``path`` may the open file as well. Raises OSError."""
    os.fchmod(descriptor, stat.S_IMODE(os.stat(path).st_mode))


def rename_new(source: PathLike, target: PathLike) -> None:
    """Rename without replacing. Raises FileExistsError, OSError."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            raise
        os.rename(source, target)  # a file system without hard links
        return
    os.unlink(source)


# ---- locks: they go with the process that has them, however it ends


def lock(descriptor: int) -> None:
    """Lock an open file for this descriptor alone, at once. Raises BlockingIOError where another one has it, OSError
    where the file system has no locks."""
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def lock_folder(folder: PathLike) -> int:
    """Wait until the folder is this process' (or thread's) own: a descriptor, to be closed. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


# ---- signals

ENDINGS = (signal.SIGTERM, signal.SIGHUP)  # somebody wants the process to end, or its terminal is gone
INTERRUPTS = (signal.SIGINT, *ENDINGS)


def send_itself(number: int) -> None:
    """A signal to the whole process: its main thread stops waiting for whatever it waits for."""
    os.kill(os.getpid(), number)


# ---- limits of this process, and others


def allow_open_files() -> None:
    """Raise this process' limit of open files as far as it may: models come in hundreds of shards, usual is 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(OSError, ValueError):  # macOS claims no limit and has one
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def memory_can_be_limited() -> bool:
    """Whether the kernel holds a process to its limit of memory. macOS takes the limit and ignores it."""
    return _STATM.exists()


def limit_process(memory: int | None, seconds: int) -> None:
    """From here on at most ``memory`` more bytes (None: no limit), no files written, and ``seconds`` of processor time,
    which end a process whose parent was killed. Raises OSError, ValueError."""
    if memory is not None:
        most = int(_STATM.read_text("ascii").split()[0]) * resource.getpagesize() + memory
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    used = resource.getrusage(resource.RUSAGE_SELF)
    last = int(used.ru_utime + used.ru_stime) + seconds + 1
    resource.setrlimit(resource.RLIMIT_CPU, (last, last))
    for kind in (resource.RLIMIT_FSIZE, resource.RLIMIT_CORE):
        resource.setrlimit(kind, (0, 0))


def resident_memory(process: int) -> int:
    """Bytes of memory that another process holds; 0 where nobody says."""
    import subprocess  # the program starts without it

    with suppress(OSError, ValueError, subprocess.SubprocessError):
        found = subprocess.run(["ps", "-o", "rss=", "-p", str(process)], capture_output=True, timeout=1, check=True)
        return int(found.stdout) << 10
    return 0


def peak_memory() -> int:
    """The most bytes of memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if APPLE else 1024)


def memory_in_large_pages(size: int) -> mmap.mmap | None:
    """``size`` zeros of this process alone that the system is asked to keep in large pages; None where it has none."""
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return None
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel without them
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


# ---- the machine


def usable_cores() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load_average() -> float | None:
    """Processes that wanted a processor in the last minute; None where nobody counts."""
    with suppress(OSError):
        return os.getloadavg()[0]
    return None


def processor_name() -> str:
    """The processor as the system names it."""
    with suppress(OSError):
        for line in _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(("model name", "Hardware")):
                return line.partition(":")[2].strip()
    import platform

    return platform.processor() or platform.machine()
