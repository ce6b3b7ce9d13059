"""The model card of a folder of GGUF files: a table of files with what they lose, which to take, how they were made."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantcli import __version__, container
from quantcli.container import Header
from quantcli.errors import MalformedFile, MissingFile, OutputExists, QuantcliError
from quantcli.ggml import tensor_types
from quantcli.output import writer
from quantcli.output.checksums import Checksums
from quantcli.plan import recipes
from quantcli.publishing import advice
from quantcli.publishing.advice import Measured
from quantcli.report import card_text, picture
from quantcli.report.releases import CardFile, CardResult, Measurements
from quantcli.report.terminal import SILENT, Reporter

NAME, PICTURE, RAW, SUMS = "README.md", "divergence.svg", "measurements.json", "SHA256SUMS"


@dataclass(frozen=True)
class Listed:
    """A model in the folder: its first file, all its headers."""

    path: Path
    headers: Sequence[Header]

    @property
    def header(self) -> Header:
        return self.headers[0]

    @property
    def bytes(self) -> int:
        return sum(header.file_size for header in self.headers)

    @property
    def type(self) -> str:
        value = self.header.metadata.get("general.file_type")
        known = {one.number: one.name for one in recipes.FILE_TYPES.values() if one.selectable}
        return known.get(value.data, "?") if value is not None else "?"

    @property
    def bpw(self) -> float:
        tensors = [one for header in self.headers for one in header.tensors]
        return 8 * sum(one.bytes for one in tensors) / max(sum(one.elements for one in tensors), 1)


def run(
    folder: Path, reporter: Reporter = SILENT, *, force: bool = False, fields: Mapping[str, Any] | None = None
) -> CardResult:
    """Write README.md (and a picture, where there are measurements) into ``folder``; ``fields`` go before what the
    files say, in the front matter. Raises MissingFile, OutputExists, MalformedFile."""
    if not folder.is_dir():
        raise MissingFile("no such folder", where=str(folder), hint="give the folder that holds the GGUF files")
    target = folder / NAME
    writer.check_targets([target], [], force=True)
    if target.exists() and not force and card_text.MARK not in target.read_text("utf-8", "replace"):
        raise OutputExists("exists already, and is no card of ours", where=str(target), hint="--force replaces it")
    listed = models(folder)
    if not listed:
        raise MissingFile("no GGUF model lies here", where=str(folder), hint="convert one first, with -o FOLDER/")
    measured = measurements(folder)
    files = table(folder, listed, measured)
    drawn = None
    if measured is not None and measured["results"]:
        drawn = folder / PICTURE
        writer.write_text(drawn, picture.standalone(joined(measured)))
    writer.write_text(target, card_text.render(_facts(listed, fields or {}), files, measured, drawn is not None))
    reporter.table(("file", "type", "bytes", "KLD", "note"), [_line(one) for one in files], right=(2, 3))
    reporter.note(f"written: {target}")
    return {"schema": 1, "output": str(target), "picture": None if drawn is None else str(drawn), "files": files}


def _line(one: CardFile) -> tuple[str, ...]:
    kld = "" if one["kld"] is None else f"{one['kld']:.4f}"
    return one["file"], one["type"], f"{one['bytes']:,}", kld, one["note"].replace("**", "")


def models(folder: Path) -> list[Listed]:
    """The language models in the folder, largest first: first shards, no importance matrices, projectors, adapters."""
    found = []
    for path in sorted(folder.glob("*.gguf")):
        try:
            header = container.read_header(path)
            kind = header.metadata.get("general.type")
            if (kind is not None and kind.data != "model") or "general.architecture" not in header.metadata:
                continue
            if container.is_first_of_several(header):
                found.append(Listed(path, container.read_split_headers(path)))
            elif container.first_of_set(header) is None:
                found.append(Listed(path, [header]))
        except QuantcliError as error:
            error.hint = "remove it, or convert it again"
            raise
    return sorted(found, key=lambda one: -one.bytes)


def measurements(folder: Path) -> Measurements | None:
    """What measurements.json says. Raises MalformedFile."""
    path = folder / RAW
    if not path.exists():
        return None
    try:
        found: Measurements = json.loads(path.read_bytes())
        if found["schema"] == 1 and all("models" in one for one in found["results"]):
            return found
    except (ValueError, OSError, KeyError, TypeError, RecursionError) as error:
        raise MalformedFile(f"no measurements: {error!r}"[:200], where=str(path), hint="remove it") from error
    raise MalformedFile("no measurements, or of another version", where=str(path), hint="remove it")


def joined(measured: Measurements) -> Any:
    """All results as one comparison: every model on every text."""
    first = measured["results"][0]
    return {**first, "models": [model for one in measured["results"] for model in _models(one)]}


def _models(result: Mapping[str, object]) -> list[dict[str, Any]]:
    found = result["models"]
    return found if isinstance(found, list) else []


def table(folder: Path, listed: Sequence[Listed], measured: Measurements | None) -> list[CardFile]:
    """The lines of the table, from the largest file to the smallest. Figures of files that changed are left out."""
    sums = _sums(folder)
    figures: dict[str, list[float]] = {}
    for result in measured["results"] if measured is not None else []:
        for model in _models(result):
            figures.setdefault(f"{model['name']}.gguf", []).append(float(model["kld"]["mean"]))
    known = {}
    for one in listed:
        name = one.path.name
        digest, then = sums.get(name), (measured or {"files": {}})["files"].get(name)
        klds = figures.get(name, []) if digest is None or then is None or digest == then else []
        known[name] = Measured(name, one.type, one.bytes, sum(klds) / len(klds) if klds else None)
    every, best = list(known.values()), advice.recommended(list(known.values()))
    return [
        {
            "file": one.path.name,
            "type": one.type,
            "files": len(one.headers),
            "bytes": one.bytes,
            "bpw": one.bpw,
            "sha256": sums.get(one.path.name) if len(one.headers) == 1 else None,
            "kld": known[one.path.name].kld,
            "recommended": known[one.path.name] is best,
            "publish": advice.better(known[one.path.name], every) is None,
            "note": advice.note(known[one.path.name], every),
        }
        for one in listed
    ]


def _sums(folder: Path) -> dict[str, str]:
    path = folder / SUMS
    if not path.exists():
        return {}
    return {os.path.basename(name): digest for name, digest in Checksums(path).sums.items()}


def _facts(listed: Sequence[Listed], fields: Mapping[str, Any]) -> card_text.Facts:
    header = listed[0].header
    entries = {key: value.data for key, value in header.metadata.items()}
    texts = {key: data for key, data in entries.items() if isinstance(data, str)}
    general = {key: data for key, data in entries.items() if key.startswith("general.") and _is_list(data)}
    lists = {key: [str(one) for one in data] for key, data in general.items()}
    return card_text.Facts(
        version=__version__,
        texts=texts,
        lists=lists,
        options={one.path.name: _text(one, "quantcli.options") for one in listed},
        fields=dict(fields),
        types=sorted({tensor_types.BY_ID[info.type_id].name for one in listed for info in one.header.tensors}),
    )


def _is_list(data: object) -> bool:
    return not isinstance(data, str | int | float) and hasattr(data, "__len__")


def _text(one: Listed, key: str) -> str:
    value = one.header.metadata.get(key)
    return value.data if value is not None and isinstance(value.data, str) else ""
