"""The sha256 of a file that grows while its first bytes are not the last ones yet.

Nothing can be hashed before those are known. From then on a thread reads what is there out of the system's cache, and
as soon as it has come to the end, who writes hashes what it writes.
"""

from __future__ import annotations

import hashlib
import threading

from quantcli import system

PIECE = 1 << 20  # bytes that are read at a time: they are hashed while a core's cache has them


class Follower:
    """Of one open file, which `wrote` is told of from its first byte on. Thread-safe."""

    def __init__(self, descriptor: int, digest: hashlib._Hash) -> None:
        self._descriptor, self._digest = descriptor, digest
        self._lock = threading.Lock()
        self._written = 0
        self._level = self._stopped = False  # level: everything that is written is hashed
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """What was written so far stays as it is now."""
        self._thread = threading.Thread(target=self._run, name="quantcli-follow", daemon=True)
        self._thread.start()

    def wrote(self, data: memoryview) -> None:
        """``data`` was written behind the rest."""
        with self._lock:
            self._written += len(data)
            level = self._level
        if level:
            self._digest.update(data)

    def finish(self) -> None:
        """Wait until everything is hashed. Raises OSError where it could not be read."""
        if self._thread is None:
            self.start()
        assert self._thread is not None
        self._thread.join()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """The file is read no more."""
        self._stopped = True
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            self._catch_up(memoryview(bytearray(PIECE)))
        except BaseException as error:
            self._error = error

    def _catch_up(self, buffer: memoryview) -> None:
        hashed = 0
        while not self._stopped:
            with self._lock:
                left = self._written - hashed
                if not left:
                    self._level = True
                    return
            piece = buffer[: min(PIECE, left)]
            count = system.read_into(self._descriptor, piece, hashed)
            if not count:
                raise OSError(f"the file ends at byte {hashed}: another program has cut it")
            self._digest.update(piece[:count])
            hashed += count
