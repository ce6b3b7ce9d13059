"""Whose an importance matrix is, and what an interrupted collection has left: `imatrix --resume` goes on with its own.

A matrix says in its metadata (`quantcli.imatrix.*`) of what model, text and settings it is, and of how many chunks.
While it is collected, what whole batches have summed up waits beside it in `<output>.unfinished`: in float64, with the
same facts and a checksum. So a run that goes on ends with the bytes of one that nobody stopped, in both formats.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy
from numpy.typing import NDArray

from quantcli.calibration.collect import OUTPUT, Sums
from quantcli.errors import ResumeRefused
from quantcli.output import named, writer
from quantcli.runner import layerwise, sealed, waiting
from quantcli.runner.arrays import Doubles
from quantcli.runner.session import Session
from quantcli.runner.text import Chunks
from quantcli.statistics import imatrix
from quantcli.statistics.imatrix import Importance

SUFFIX = ".unfinished"
LONGEST_NAME = 255  # bytes that a file system takes
FACTS, OWN, BASE = "facts", "own", "base"  # in the file: JSON as bytes; arrays by one of the others, kind and name
HASHES = ("model", "added")  # facts that say nothing to a person

Facts = Mapping[str, str | int]

#: how a person calls what the facts say, beside those of hidden states
WORDS = {
    **waiting.WORDS,
    "first": "another --from-chunk", "output": "another --process-output", "added": "other matrices of --in-file",
}  # fmt: skip


@dataclass(frozen=True)
class Origin:
    """What a collection is of: ``settings`` decide what is computed, ``chunks`` are all that it is asked for.
    ``version``: of quantcli, which only sums that wait must share; a matrix does not change its bytes with it.
    """

    settings: Facts
    version: Facts
    chunks: Chunks

    def at(self, done: int) -> dict[str, str | int]:
        """The facts of a matrix of the first ``done`` chunks."""
        return {**self.settings, "text": self.chunks.sha256(done), "chunks": done}

    def done(self, found: Facts, where: Path) -> int:
        """How many chunks a matrix with the facts ``found`` has. Raises ResumeRefused: it is not of this collection."""
        settings = self.settings if "own" not in found else {**self.settings, **self.version}
        done = found.get("chunks")
        if "model" not in found or not isinstance(done, int):
            raise ResumeRefused(
                "does not say of what model and text it is",
                where=str(where),
                hint=_anew("--in-file adds it to another"),
            )
        others = [_difference(key, found.get(key), now) for key, now in settings.items() if found.get(key) != now]
        if not others and done <= len(self.chunks) and found.get("text") != self.chunks.sha256(done):
            others = [WORDS["text"]]
        if others:
            raise ResumeRefused(
                f"was collected with {', '.join(others)}", where=str(where), hint=_anew("repeat the first command")
            )
        if done > len(self.chunks):
            raise ResumeRefused(
                f"holds {done} chunks, this run has {len(self.chunks)}",
                where=str(where),
                hint=_anew(f"ask for more with --chunks {done}"),
            )
        return done


def _anew(otherwise: str) -> str:
    return f"{otherwise}; or begin anew: the same command with --force"


def _difference(key: str, was: object, now: object) -> str:
    words = WORDS.get(key, f"another {key}")
    return words if key in HASHES else f"{words} ({was}, now {now})"


def of(session: Session, chunks: Chunks, *, first: int, output: bool, added: Sequence[Importance]) -> Origin:
    """``first``: how many chunks of the text were skipped. ``output``: whether the output matrix is collected.
    ``added``: matrices that are added in the end."""
    settings = layerwise.settings(session, chunks) | {
        "first": first,
        "output": "yes" if output and OUTPUT in session.network.weights else "no",
        "added": " ".join(one.sha256 for one in added),
    }
    return Origin(settings, {"version": settings.pop("version")}, chunks)


@dataclass
class Begun:
    """What earlier runs have done of a collection: ``done`` chunks. The last ``chunks`` of them are those of ``sums``,
    in whole batches; the others are in ``base``, a complete matrix that is gone on from."""

    done: int = 0
    sums: Sums = field(default_factory=Sums)
    chunks: int = 0
    base: Importance | None = None


def beside(output: Path) -> Path:
    """Where the sums of an unfinished collection wait: under a name of its own, also where that of the output leaves no
    room for more."""
    name = output.name + SUFFIX
    if len(os.fsencode(name)) > LONGEST_NAME:
        name = hashlib.sha256(os.fsencode(output.name)).hexdigest() + SUFFIX
    return output.with_name(name)


def check_place(output: Path) -> None:
    """Whether they can lie there. Raises OutputFailed."""
    writer.check_place(beside(output), force=True)


def keep(output: Path, origin: Origin, done: int, found: Importance, base: Importance | None) -> None:
    """Put the sums ``found`` beside the ``output``, with the complete matrix that they are added to: of the first
    ``done`` chunks together. Raises OutputFailed."""
    told = {**origin.at(done), **origin.version, "own": found.chunks, "base": 0, "datasets": "[]"}
    arrays = _packed(OWN, found)
    if base is not None:
        arrays |= _packed(BASE, base)
        told |= {"base": base.chunks, "datasets": json.dumps(list(base.datasets))}
    arrays[FACTS] = numpy.frombuffer(json.dumps(told).encode(), numpy.uint8)
    path = beside(output)
    writer.write_bytes(path, *sealed.pieces(arrays))
    named.forget(path)  # it is no result


def _packed(role: str, matrix: Importance) -> dict[str, NDArray[numpy.generic]]:
    kinds = (("sums", matrix.sums), ("counts", matrix.counts))
    return {f"{role}/{kind}/{name}": array for kind, arrays in kinds for name, array in arrays.items()}


def kept(output: Path, origin: Origin) -> Begun | None:
    """What was kept beside the output, None where nothing was. Raises ResumeRefused: it is damaged, or of something
    else."""
    path = beside(output)
    if not path.exists():
        return None
    try:
        arrays = dict(sealed.read(path))
        told = json.loads(arrays.pop(FACTS).tobytes())
        own, base = (_unpacked(role, arrays) for role in (OWN, BASE))
        texts, chunks, earlier = json.loads(told["datasets"]), int(told["own"]), int(told["base"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        delete = f"rm {shlex.quote(str(path))}"
        raise ResumeRefused(
            f"cannot be read: {error}", where=str(path), hint=_anew(f"go on from {output.name} alone after: {delete}")
        ) from error
    begun = Begun(origin.done(told, path), Sums(*own), chunks)
    if earlier:
        begun.base = Importance(output.name, *base, texts, earlier, origin.chunks.length)
    return begun


def _unpacked(role: str, arrays: Mapping[str, NDArray[numpy.generic]]) -> tuple[dict[str, Doubles], dict[str, Doubles]]:
    """(sums, counts) by name."""
    found: dict[str, dict[str, Doubles]] = {"sums": {}, "counts": {}}
    for key, array in arrays.items():
        whose, kind, name = key.split("/", 2)
        if whose == role:
            found[kind][name] = array.astype(numpy.float64)
    return found["sums"], found["counts"]


def complete(output: Path, origin: Origin) -> Begun | None:
    """The complete matrix that lies there, None where nothing does. Raises ResumeRefused: it is of something else, or
    does not say of what; and what `imatrix.read` does."""
    if not output.exists():
        return None
    base = imatrix.read(output)
    return Begun(origin.done(base.origin, output), base=base)


def forget(output: Path) -> None:
    """The collection is done: nothing waits any more. Raises OutputFailed."""
    with writer.failures(beside(output)):
        beside(output).unlink(missing_ok=True)
