"""A folder of statistics of one model: what a calibration found out, kept for later conversions.

``manifest.json`` says of which model and from which text, and has the sha256 of every file and of itself; the arrays
lie beside it in safetensors files, each written under a hidden name first and listed once it is there. A folder of
another model, another text or other settings is refused, never mixed; so is a file that is not what was written. What
is not listed was never finished, and counts as not there.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy
from numpy.typing import NDArray

from quantcli.calibration.tokens import Calibration
from quantcli.errors import BadStatistics, MalformedFile
from quantcli.output import writer
from quantcli.runner.arrays import Ids
from quantcli.sources import digests, jsonfile
from quantcli.sources.files import read_small

MANIFEST = "manifest.json"
WRITTEN = "written"  # the file with what the model wrote
COMPLETE = "complete"  # the record of a pass that says that all others are there
CALIBRATION, PASSES = "calibration", "passes"  # what a folder holds: moments of the model, or of encodings of it
SCHEMA = 2  # 1 had no checksums
FILES, SUM = "files", "sha256"  # in the manifest, beside the facts: hashes by file name, and that of all before it
BEGINNING = b'{\n "schema": '  # of every manifest

Arrays = Mapping[str, NDArray[numpy.generic]]
Facts = dict[str, str | int | float]
T = TypeVar("T")


@dataclass(frozen=True)
class Manifest:
    """``facts`` of the ``folder``, and the sha256 (hex) of its files by their names."""

    folder: Path
    facts: Facts
    files: Mapping[str, str]

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Raises MissingFile, BadStatistics: it is damaged, or of an earlier version."""
        path = folder / MANIFEST
        raw = read_small(path, jsonfile.SMALL_JSON)
        unknown = cls(folder, {}, {})
        hint = unknown.again() if raw.startswith(BEGINNING) else "give a new folder, or one that quantcli made"
        try:
            found = jsonfile.parse_object(raw, str(path))
        except MalformedFile as error:
            raise BadStatistics(f"is damaged: {error.message}", where=error.where, hint=hint) from error
        if found.get("schema") == 1:
            raise BadStatistics("is of an earlier version, without checksums", where=str(folder), hint=hint)
        files = found.get(FILES)
        facts = {key: one for key, one in found.items() if isinstance(one, str | int | float) and key != SUM}
        made = cls(folder, facts, files if isinstance(files, dict) else {})
        if made.encoded() != raw:  # whatever is another byte
            raise BadStatistics("is damaged: it has another checksum", where=str(path), hint=hint)
        return made

    def encoded(self) -> bytes:
        """The file's bytes."""
        content: dict[str, object] = {**self.facts, FILES: dict(sorted(self.files.items()))}
        digest = hashlib.sha256(json.dumps(content, indent=1).encode()).hexdigest()
        return json.dumps({**content, SUM: digest}, indent=1).encode() + b"\n"

    def write(self) -> None:
        """Replace the file in one step. Raises OutputFailed."""
        writer.write_bytes(self.folder / MANIFEST, self.encoded())

    def has(self, name: str) -> bool:
        """Whether the file is there, and whole when it was written."""
        return name in self.files and (self.folder / name).is_file()

    def check(self, name: str) -> None:
        """Hold a file that is there against its sha256. Nothing is hashed twice. Raises BadStatistics."""
        path = self.folder / name
        if digests.sha256([str(path)])[str(path)] != self.files[name]:
            raise BadStatistics("is damaged: it has another checksum", where=str(path), hint=self.again(name))

    def again(self, name: str | None = None) -> str:
        """How to make the folder again, or one file of it, in a line that can be pasted."""
        folder, whole = shlex.quote(str(self.folder)), "one whole run of the same command"
        alone = name is not None and f"{COMPLETE}.safetensors" not in self.files
        remove = f"rm {shlex.quote(str(self.folder / str(name)))}" if alone else f"rm -r {folder}"
        if (self.folder.parent / MANIFEST).is_file():  # of one output: the folder around it says of which run
            then = whole
        elif name is None:
            then = f"what made it: quantcli calibrate MODEL -o {folder}, or {whole} with --keep-statistics {folder}"
        elif self.facts.get("kind") == CALIBRATION:
            then = f"quantcli calibrate MODEL -o {folder} --resume, and the same command"
        else:
            then = whole
        return f"make it again: {remove}; then {then}"


def check_all(path: Path) -> None:
    """Hold every file in and below a folder of statistics against its manifest. Raises BadStatistics."""
    for manifest in sorted(path.rglob(MANIFEST)):
        found = Manifest.read(manifest.parent)
        for name in found.files:
            if found.has(name):
                found.check(name)


def _steady(path: Path, look: Callable[[], T]) -> T:
    """What ``look`` finds in a folder; it looks again, alone, where another run was just putting a file there."""
    try:
        return look()
    except BadStatistics:
        with writer.locked_folders([path]):
            return look()


class Folder:
    """A folder that is there, and whose manifest is ``facts``."""

    def __init__(self, path: Path, facts: Facts, *, must_exist: bool = False) -> None:
        """Open it, or make it unless it ``must_exist``. Raises BadStatistics for one with another manifest, or with a
        file that is not what was written."""
        self.path, self.facts = path, {"schema": SCHEMA, **facts}
        if (path / MANIFEST).is_file():
            self._check()
            return
        if must_exist:
            raise BadStatistics("is no folder of statistics", where=str(path), hint="make one: quantcli calibrate")
        check_place(path)
        path.mkdir(parents=True, exist_ok=True)
        Manifest(path, self.facts, {}).write()

    def _check(self) -> None:
        found = self._manifest().facts
        other = [key for key in {**self.facts, **found} if found.get(key) != self.facts.get(key)]
        if other:
            key = other[0]
            raise BadStatistics(
                f"was made with {key} {found.get(key)!r}, this is {self.facts.get(key)!r}",
                where=str(self.path / MANIFEST),
                hint="give another folder; statistics of different runs do not mix",
            )
        _steady(self.path, lambda: check_all(self.path))

    def _manifest(self) -> Manifest:
        """As it is now: other runs may fill the folder as well."""
        return Manifest.read(self.path)

    def has(self, name: str) -> bool:
        """Whether file ``name``.safetensors is there."""
        return self._manifest().has(f"{name}.safetensors")

    def keep_text(self, written: Ids) -> None:
        """Keep the chunks that the model wrote."""
        if not self.has(WRITTEN):
            self.write(WRITTEN, {"tokens": written})

    def lacks(self, layer: int) -> BadStatistics:
        """The error of a folder that was not finished."""
        return BadStatistics(
            f"knows nothing of layer {layer}",
            where=str(self.path),
            hint=f"finish it: quantcli calibrate MODEL -o {shlex.quote(str(self.path))} --resume",
        )

    def lost(self, name: str) -> BadStatistics:
        """The error of a finished folder in which file ``name``.safetensors is missing."""
        return BadStatistics(f"lacks {name}", where=str(self.path), hint=self.again(name))

    def again(self, name: str) -> str:
        """How to make file ``name``.safetensors again."""
        return self._manifest().again(f"{name}.safetensors")

    def read(self, name: str) -> dict[str, NDArray[numpy.generic]] | None:
        """The arrays of file ``name``.safetensors; None where it is not there. Raises BadStatistics."""
        return _steady(self.path, lambda: _arrays_of(self.path, name))

    def write(self, name: str, arrays: Arrays) -> None:
        """Put arrays into file ``name``.safetensors, complete or not at all. Raises BadStatistics, OutputFailed."""
        from safetensors import SafetensorError
        from safetensors.numpy import save_file

        target = self.path / f"{name}.safetensors"
        part = self.path / f".{name}.{os.getpid()}-{os.urandom(4).hex()}.part"  # threads share a process
        try:
            save_file({key: numpy.ascontiguousarray(value) for key, value in arrays.items()}, part)
            with writer.locked_folders([self.path]):
                part.replace(target)
                self._list(target, digests.sha256([str(target)])[str(target)])
        except (OSError, SafetensorError) as error:
            raise BadStatistics(str(error), where=str(target)) from error
        finally:
            part.unlink(missing_ok=True)

    def put(self, name: str, data: bytes) -> None:
        """Keep a file of another format, ``name`` with its ending. Raises OutputFailed."""
        with writer.locked_folders([self.path]):
            self._list(self.path / name, writer.write_bytes(self.path / name, data))

    def _list(self, target: Path, digest: str) -> None:
        """A file is there: from now on it is held against its sha256."""
        found = self._manifest()
        replace(found, files={**found.files, target.name: digest}).write()


def _arrays_of(folder: Path, name: str) -> dict[str, NDArray[numpy.generic]] | None:
    """The arrays of a file of the folder; None where it is not there. Raises BadStatistics."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    manifest, file = Manifest.read(folder), f"{name}.safetensors"
    if not manifest.has(file):
        return None
    manifest.check(file)
    try:
        loaded: dict[str, NDArray[numpy.generic]] = load_file(folder / file)
    except (OSError, SafetensorError, ValueError) as error:
        raise BadStatistics(str(error), where=str(folder / file), hint=manifest.again(file)) from error
    return loaded


def facts_of(kind: str, model: str, length: int, calibration: Calibration) -> Facts:
    """The facts of a folder: of which model (its fingerprint) and from which tokens."""
    used = calibration.used
    return {
        "kind": kind,
        "model": model,
        "chunk": length,
        "corpus": used.corpus,
        "tokens": used.real,
        "sampled_tokens": used.sampled,
    }


def written_text(path: Path) -> Ids | None:
    """The chunks that the model wrote when a folder was made; None where there is no such folder yet."""
    if not (path / MANIFEST).is_file():
        return None
    found = _steady(path, lambda: _arrays_of(path, WRITTEN))
    if found is None or "tokens" not in found:
        return None
    return found["tokens"].astype(numpy.int32)


def read_manifest(path: Path) -> Facts:
    """What the manifest at ``path`` says. Raises MissingFile, BadStatistics."""
    return Manifest.read(path.parent).facts


def check_place(path: Path) -> None:
    """Whether a folder of statistics may be made at ``path``, or is there. Raises BadStatistics, OutputFailed."""
    if path.is_dir() or not path.exists():
        writer.check_folder(path)
    if (path / MANIFEST).is_file() or not path.exists():
        return
    if not path.is_dir() or any(path.iterdir()):
        raise BadStatistics(
            "holds something else", where=str(path), hint="give a new folder, or one that quantcli made"
        )
