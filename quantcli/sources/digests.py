"""sha256 of the files that weights are read from.

They go into the header of every output, which is written first, so the files are hashed before the conversion reads
them: one thread per file, as fast as the processor's instructions for it are. A file that did not change since is not
hashed again by the same process.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeAlias

from quantcli import places
from quantcli.sources.files import SourceFile

PIECE = 4 << 20  # bytes that are read at a time
UNKNOWN = "0" * 64  # before the files are hashed: takes as many bytes in a header

Progress: TypeAlias = Callable[[int], None]  # bytes of all files
_known: dict[tuple[object, ...], str] = {}  # by what tells a version of a file from others


def sha256(paths: Sequence[str], threads: int = 1, progress: Progress | None = None) -> dict[str, str]:
    """Path -> sha256 (hex) of its file. Raises MissingFile, MalformedFile where one ends while it is read."""
    lock, done = threading.Lock(), 0

    def tell(count: int) -> None:
        nonlocal done
        with lock:
            done += count
            if progress is not None:
                progress(done)

    with ThreadPoolExecutor(max(1, min(threads, len(paths))), thread_name_prefix="quantcli-hash") as pool:
        found = list(pool.map(lambda path: _of(path, tell), paths))
    return dict(zip(paths, found, strict=True))


def size(path: str) -> int:
    """Bytes of the file, wherever it lies."""
    far = places.elsewhere(path)
    return os.path.getsize(path) if far is None else far.size


def _of(path: str, tell: Progress) -> str:
    far = places.elsewhere(path)
    if far is not None and far.sha256 is not None:  # it is checked when the bytes have come
        tell(far.size)
        return far.sha256
    with SourceFile(path) as file:
        if far is not None:
            return _hashed(file, tell)
        try:
            status = os.stat(path)
        except OSError:
            file.check_unchanged()  # it says what became of the file
            raise
        key = (os.path.realpath(path), status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev)
        if key in _known:
            tell(file.size)
            return _known[key]
        _known[key] = _hashed(file, tell)
    return _known[key]


def _hashed(file: SourceFile, tell: Progress) -> str:
    digest, buffer = hashlib.sha256(), bytearray(min(PIECE, max(file.size, 1)))
    for start in range(0, file.size, len(buffer)):
        piece = memoryview(buffer)[: min(len(buffer), file.size - start)]
        file.read_into(piece, start)
        digest.update(piece)
        tell(len(piece))
    file.check_unchanged()
    return digest.hexdigest()


def of_folder(folder: Path) -> str:
    """One sha256 of all files below ``folder``: of their names and contents, in the order of the names."""
    digest = hashlib.sha256()
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    for path, found in sha256([str(path) for path in files]).items():
        digest.update(f"{found}  {os.path.relpath(path, folder)}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()
