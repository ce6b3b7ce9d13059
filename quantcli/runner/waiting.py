"""Hidden states of all chunks while they wait for the next layer: in a folder, so that a killed run goes on.

``states-0.f32`` and ``states-1.f32`` hold what goes into even and into odd layers, float32 [chunks, positions, width]
in the order of the text: a layer reads one and writes the other. ``layer-0007.arrays`` says that layer 7 is done, and
holds what was seen there. ``manifest.json`` says of what model, text and settings all of it is; a folder of others is
refused. Files are read and written by position: mapped pages would count as the process's memory, and a full disk
would kill it.

A killed process loses the layer that it was in. Bringing files to the disk takes longer than a small layer, so it is
done every `SYNC_SECONDS`; checksums tell what a power cut left of the last ones. A run that goes on looks at everything
that it will read before it computes anything.
"""

from __future__ import annotations

import json
import os
import shlex
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy
from numpy.typing import NDArray

from quantcli import system
from quantcli.errors import BadStates, OutputFailed, QuantcliError
from quantcli.output import locks
from quantcli.runner import sealed
from quantcli.runner.arrays import Floats
from quantcli.runner.sealed import Arrays
from quantcli.sources import jsonfile
from quantcli.sources.files import read_small

MANIFEST = "manifest.json"
SCHEMA = 2
CARRIED = "carried"
SUMS = "checksums of states"  # in a layer's file: uint32 [batches, 3], first chunk, chunks, crc32
LEFT = "left to later layers"  # likewise: names of files, as bytes of lines
PATTERNS = (MANIFEST, "states-[01].f32", "layer-*.arrays", f"{CARRIED}-*.arrays", ".*.part")
SYNC_SECONDS = 30.0

Facts = Mapping[str, str | int]

#: how a person calls what a manifest's keys say
WORDS = {
    "model": "another model", "text": "another text", "chunks": "another number of chunks",
    "length": "chunks of another length", "version": "another version of quantcli",
    "isa": "another instruction set", "activations": "other activations", "kv_type": "another type of the KV cache",
}  # fmt: skip


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn an OSError into OutputFailed at ``path``."""
    try:
        yield
    except OSError as error:
        hint = "free some space, or name a folder on another disk with --states"
        raise OutputFailed(f"cannot be written: {error.strerror or error}", where=str(path), hint=hint) from error


def told(path: Path) -> dict[str, object]:
    """The manifest of a folder of states; nothing where it cannot be read."""
    manifest = path / MANIFEST
    try:
        return jsonfile.parse_object(read_small(manifest, jsonfile.SMALL_JSON), str(manifest))
    except QuantcliError:
        return {}


class Waiting:
    """A folder that this process works in. `get` and `put` move states, `finish` ends a layer, `remove` the work."""

    def __init__(
        self,
        path: Path,
        facts: Facts,
        shape: tuple[int, int, int],
        layers: int,
        *,
        resume: bool = False,
        top: Path | None = None,
    ) -> None:
        """``facts``: what the states are of. ``shape``: chunks, positions, width. ``top``: the folder that the user
        named, where it is not ``path`` itself.

        Raises BadStates: the folder holds something else, an unfinished run without ``resume``, or a run with other
        facts; OutputFailed where there is no room for both files of states.
        """
        self.path, self.shape, self.layers, self.top = path, shape, layers, top or path
        self.facts: dict[str, str | int] = {"schema": SCHEMA, **facts, "width": shape[2]}
        self._files: dict[int, int] = {}
        self._sums: list[tuple[int, int, int]] = []  # of the states that were put since the last layer
        self._left: list[str] = []  # the files that were left since then
        self._unsynced: list[Path] = []
        self._synced = time.monotonic()
        self.done = -1  # layers; not known yet
        self._lock = self._taken()
        try:
            layers_there = self._there()
            self.done = len(layers_there)
            if self.done:
                self._check(resume)
                self._check_files(layers_there)
            with _writing(path):
                os.ftruncate(self._lock, 0)
                system.write_at(self._lock, json.dumps(self.facts, indent=1).encode() + b"\n", 0)
                self._open()
            self._verify()
        except BaseException:
            self.end()
            raise

    def _taken(self) -> int:
        """The folder, for this process alone: a descriptor. Raises BadStates, OutputFailed."""
        manifest = self.path / MANIFEST
        if self.path.exists() and not manifest.is_file() and not (self.path.is_dir() and not any(self.path.iterdir())):
            raise BadStates("holds something else", where=str(self.path), hint="name another folder with --states")
        with _writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            try:
                found = locks.taken(manifest)
            except OSError:
                self._remove_folder()
                raise
        if found is None:
            raise BadStates(
                "another run works in this folder",
                where=str(self.path),
                hint="wait for it, or name another folder with --states",
            )
        return found

    def _check(self, resume: bool) -> None:
        """Whether this run may go on with what is there. Raises BadStates."""
        name = shlex.quote(str(self.top))
        if not resume:
            raise BadStates(
                "holds an unfinished run",
                where=str(self.path),
                hint=f"continue it: the same command with --resume; or begin anew after: rm -r {name}",
            )
        manifest = self.path / MANIFEST
        found = jsonfile.parse_object(read_small(manifest, jsonfile.SMALL_JSON), str(manifest))
        for key in {**self.facts, **found}:
            if found.get(key) != self.facts.get(key):
                raise BadStates(
                    f"was begun with {WORDS.get(key, f'another {key}')} "
                    f"({key} {str(found.get(key))[:16]!r}, now {str(self.facts.get(key))[:16]!r})",
                    where=str(self.path),
                    hint=f"repeat the first command with --resume; or begin anew after: rm -r {name}",
                )

    def _open(self) -> None:
        size = 4 * int(numpy.prod(self.shape, dtype=numpy.int64))
        last = [self.layers % 2]  # all that a pass which is done still needs
        for number in last if self.done == self.layers else (0, 1):
            descriptor = system.open_to_write(self.path / f"states-{number}.f32", mode=0o644)
            self._files[number] = descriptor
            if os.fstat(descriptor).st_size != size:
                os.ftruncate(descriptor, size)
                system.reserve(descriptor, size)

    def _there(self) -> list[int]:
        """The layers that are done, by their files."""
        return sorted(int(path.stem.partition("-")[2]) for path in self.path.glob(f"layer-{'[0-9]' * 4}.arrays"))

    def _check_files(self, layers_there: list[int]) -> None:
        """Whether every file that will be read is there, and what was written. What the last layers left may be spoiled
        by a power cut: see `_verify`. Raises BadStates."""
        for expected, layer in enumerate(layers_there):
            if layer != expected:
                raise BadStates("is missing", where=str(self._layer(expected)), hint=self._anew())
        for layer in layers_there[:-1]:
            left = bytes(self._read(self._layer(layer)).get(LEFT, numpy.zeros(0, numpy.uint8)))
            for name in left.decode().splitlines():
                self._check_file(self.path / name)

    def _check_file(self, path: Path) -> None:
        try:
            sealed.check(path)
        except (OSError, ValueError) as error:
            raise self._unreadable(path, error) from error

    def _verify(self) -> None:
        """Go back behind the last layer whose states are what they were: a power cut may have spoiled the last one.

        Raises BadStates where the one before is spoiled too, or cannot be gone back to. Nothing is taken away then.
        """
        before = self.done - 1
        if self.done == 0 or self._intact(before):
            return
        if before == 0 or self.done == self.layers or not self._intact(before - 1):
            raise BadStates("the states are not what they were", where=str(self.path), hint=self._anew())
        self._layer(before).unlink()
        self.done = before

    def _intact(self, layer: int) -> bool:
        try:
            found = sealed.read(self._layer(layer))
            for name in bytes(found[LEFT]).decode().splitlines():
                sealed.check(self.path / name)
            return all(zlib.crc32(self.get(layer + 1, s, s + n).data) == crc for s, n, crc in found[SUMS].tolist())
        except (OSError, ValueError, KeyError):
            return False

    def _layer(self, index: int) -> Path:
        return self.path / f"layer-{index:04}.arrays"

    # ---- states

    def begin(self) -> None:
        """What is put from now on is of another layer."""
        self._sums, self._left = [], []

    def get(self, layer: int, start: int, stop: int) -> Floats:
        """What goes into ``layer`` of chunks ``start`` to ``stop``: [chunks, positions, width]. Raises BadStates."""
        found = numpy.empty((stop - start, *self.shape[1:]), numpy.float32)
        view = memoryview(found.data).cast("B")
        place, done = start * found[0].nbytes, 0
        while done < len(view):
            with _writing(self.path):
                count = system.read_into(self._files[layer % 2], view[done:], place + done)
            if not count:
                raise BadStates("ends early", where=str(self.path / f"states-{layer % 2}.f32"), hint=self._anew())
            done += count
        return found

    def put(self, layer: int, start: int, states: Floats) -> None:
        """``states`` [chunks, positions, width] of chunks ``start`` on go into ``layer``. Raises OutputFailed."""
        view = memoryview(numpy.ascontiguousarray(states, numpy.float32).data).cast("B")
        place, done = start * (len(view) // len(states)), 0
        self._sums.append((start, len(states), zlib.crc32(view)))
        with _writing(self.path):
            while done < len(view):
                done += system.write_at(self._files[layer % 2], view[done:], place + done)

    def finish(self, layer: int, arrays: Arrays) -> None:
        """All states have left ``layer``; ``arrays`` is what was seen there. From now on a new run begins behind it."""
        left = numpy.frombuffer("\n".join(self._left).encode(), numpy.uint8)
        self._write(self._layer(layer), {**arrays, SUMS: numpy.array(self._sums, numpy.uint32), LEFT: left})
        self.done = layer + 1
        if time.monotonic() - self._synced >= SYNC_SECONDS:
            self._sync(layer)

    def _sync(self, layer: int) -> None:
        """Bring everything to the disk; behind the last layer the states before it are given up."""
        with _writing(self.path):
            system.sync(self._files[(layer + 1) % 2])
            for path in self._unsynced:
                sealed.sync(path)
            if self.done == self.layers:
                os.ftruncate(self._files[layer % 2], 0)
        self._unsynced, self._synced = [], time.monotonic()

    def seen(self, layer: int) -> dict[str, NDArray[numpy.generic]]:
        """What was seen in a layer that is done. Raises BadStates."""
        found = self._read(self._layer(layer))
        del found[SUMS], found[LEFT]
        return found

    # ---- what layers leave to later ones beside the stream

    def leave(self, kind: str, layer: int, start: int, arrays: Arrays) -> None:
        """Keep what ``layer`` leaves to later ones of the chunks from ``start`` on. Raises OutputFailed."""
        name = f"{CARRIED}-{kind}-{layer:04}-{start:06}.arrays"
        self._write(self.path / name, arrays)
        self._left.append(name)

    def left(self, kind: str, layer: int, start: int) -> dict[str, NDArray[numpy.generic]]:
        """What ``layer`` left. Raises BadStates."""
        return self._read(self.path / f"{CARRIED}-{kind}-{layer:04}-{start:06}.arrays")

    def who_left(self, kind: str, before: int, start: int) -> int | None:
        """The last layer below ``before`` that left something of this kind."""
        found = (int(path.name.split("-")[2]) for path in self.path.glob(f"{CARRIED}-{kind}-*-{start:06}.arrays"))
        return max((layer for layer in found if layer < before), default=None)

    # ---- files

    def _write(self, target: Path, arrays: Arrays) -> None:
        with _writing(target):
            sealed.write(target, arrays)
        self._unsynced.append(target)

    def _read(self, path: Path) -> dict[str, NDArray[numpy.generic]]:
        try:
            return sealed.read(path)
        except (OSError, ValueError) as error:
            raise self._unreadable(path, error) from error

    def _unreadable(self, path: Path, error: Exception) -> BadStates:
        return BadStates(f"cannot be read: {error}", where=str(path), hint=self._anew())

    def _anew(self) -> str:
        return f"begin anew after: rm -r {shlex.quote(str(self.top))}"

    def close(self) -> None:
        """Let others work in the folder; what it holds stays."""
        for descriptor in (*self._files.values(), self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._files, self._lock = {}, -1

    def end(self) -> None:
        """The work is given up: what can be gone on with stays, where there is anything."""
        if self.done == 0:
            self.remove()
        else:
            self.close()

    def remove(self) -> None:
        """The work is done: take away every file of it, and the folder where nothing else is in it."""
        for pattern in PATTERNS:
            for path in self.path.glob(pattern):
                path.unlink(missing_ok=True)
        self.close()
        self._remove_folder()

    def _remove_folder(self) -> None:
        """Where nothing is in it."""
        with suppress(OSError):
            self.path.rmdir()

    def __enter__(self) -> Waiting:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()
