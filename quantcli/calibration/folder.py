"""A folder of statistics of one model: what a calibration found out, kept for later conversions.

``manifest.json`` says of which model and from which text; the arrays lie beside it in safetensors files, each written
under a hidden name first. A folder of another model, another text or other settings is refused, never mixed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy
from numpy.typing import NDArray

from quantcli.calibration.tokens import Calibration
from quantcli.errors import BadStatistics
from quantcli.output import writer
from quantcli.runner.arrays import Ids
from quantcli.sources import jsonfile
from quantcli.sources.files import read_small

MANIFEST = "manifest.json"
WRITTEN = "written"  # the file with what the model wrote
COMPLETE = "complete"  # the record of a pass that says that all others are there
CALIBRATION, PASSES = "calibration", "passes"  # what a folder holds: moments of the model, or of encodings of it
SCHEMA = 1

Arrays = Mapping[str, NDArray[numpy.generic]]
Facts = dict[str, str | int | float]


class Folder:
    """A folder that is there, and whose manifest is ``facts``."""

    def __init__(self, path: Path, facts: Facts, *, must_exist: bool = False) -> None:
        """Open it, or make it unless it ``must_exist``. Raises BadStatistics for one with another manifest."""
        self.path, self.facts = path, {"schema": SCHEMA, **facts}
        manifest = path / MANIFEST
        if manifest.is_file():
            self._check(manifest)
            return
        if must_exist:
            raise BadStatistics("is no folder of statistics", where=str(path), hint="make one: quantcli calibrate")
        check_place(path)
        path.mkdir(parents=True, exist_ok=True)
        writer.write_bytes(manifest, json.dumps(self.facts, indent=1).encode() + b"\n")

    def _check(self, manifest: Path) -> None:
        found = read_manifest(manifest)
        other = [key for key in {**self.facts, **found} if found.get(key) != self.facts.get(key)]
        if other:
            key = other[0]
            raise BadStatistics(
                f"was made with {key} {found.get(key)!r}, this is {self.facts.get(key)!r}",
                where=str(manifest),
                hint="give another folder; statistics of different runs do not mix",
            )

    def has(self, name: str) -> bool:
        """Whether file ``name``.safetensors is there."""
        return (self.path / f"{name}.safetensors").is_file()

    def keep_text(self, written: Ids) -> None:
        """Keep the chunks that the model wrote."""
        if not self.has(WRITTEN):
            self.write(WRITTEN, {"tokens": written})

    def lacks(self, layer: int) -> BadStatistics:
        """The error of a folder that was not finished."""
        return BadStatistics(
            f"knows nothing of layer {layer}",
            where=str(self.path),
            hint=f"finish it: quantcli calibrate MODEL -o {self.path} --resume",
        )

    def read(self, name: str) -> dict[str, NDArray[numpy.generic]] | None:
        """The arrays of file ``name``.safetensors; None where it is not there. Raises BadStatistics."""
        return arrays_of(self.path / f"{name}.safetensors")

    def write(self, name: str, arrays: Arrays) -> None:
        """Put arrays into file ``name``.safetensors, complete or not at all."""
        from safetensors import SafetensorError
        from safetensors.numpy import save_file

        target = self.path / f"{name}.safetensors"
        part = self.path / f".{name}.{os.getpid()}.part"
        try:
            save_file({key: numpy.ascontiguousarray(value) for key, value in arrays.items()}, part)
            part.replace(target)
        except (OSError, SafetensorError) as error:
            raise BadStatistics(str(error), where=str(target)) from error
        finally:
            part.unlink(missing_ok=True)


def arrays_of(path: Path) -> dict[str, NDArray[numpy.generic]] | None:
    """The arrays of a safetensors file; None where it is not there. Raises BadStatistics."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if not path.is_file():
        return None
    try:
        loaded: dict[str, NDArray[numpy.generic]] = load_file(path)
    except (OSError, SafetensorError, ValueError) as error:
        raise BadStatistics(str(error), where=str(path), hint="delete the folder: it is made again") from error
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
    found = arrays_of(path / f"{WRITTEN}.safetensors")
    if found is None or "tokens" not in found:
        return None
    return found["tokens"].astype(numpy.int32)


def read_manifest(path: Path) -> Facts:
    """What a manifest says. Raises BadStatistics."""
    found = jsonfile.parse_object(read_small(path, jsonfile.SMALL_JSON), str(path))
    return {key: value for key, value in found.items() if isinstance(value, str | int | float)}


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
