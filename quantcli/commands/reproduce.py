"""`quantcli reproduce`: make a file again from what it says of itself, and compare every byte.

A file tells its options, its version, and the hashes of the source's files, the importance matrix and the statistics.
The ingredients are compared first, so that a wrong one is named in place of a wrong byte; then the conversion is run
into a folder of its own. What the file was made with and nobody gave is recomputed: that is equal on the same machine,
and on another one only as far as its float arithmetic agrees.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from quantcli import __version__, container, places
from quantcli.calibration.quality import COMPENSATING, PAD
from quantcli.commands import convert, diff, options_record
from quantcli.commands.job import ConvertRequest
from quantcli.container import Header, Value
from quantcli.errors import UnsupportedFile, UsageError, VerificationFailed
from quantcli.output import writer
from quantcli.report import release_tables
from quantcli.report.releases import Ingredient, ReproducedFile, ReproduceResult
from quantcli.report.terminal import SILENT, Part, Reporter
from quantcli.sources import digests, ways

SOURCE = "quantcli.source.sha256."
LORA = "quantcli.lora.sha256."
COMMIT = "quantcli.source.commit"
IMATRIX, IMATRIX_NAME, STATISTICS = "quantize.imatrix.sha256", "quantize.imatrix.file", "quantcli.statistics.sha256"

Maker = Callable[..., ConvertRequest]  # texts of options -> a conversion


@dataclass(frozen=True, kw_only=True)
class ReproduceRequest:
    """``source`` and the others: what the file was made from. ``output``: a folder that keeps what is made again."""

    file: Path
    source: Path | None = None
    imatrix: Path | None = None
    statistics: Path | None = None
    calibration: tuple[Path, ...] = ()
    merge_lora: Path | None = None
    lora_base: Path | None = None
    output: Path | None = None
    threads: int | None = None


@dataclass(frozen=True)
class Recorded:
    """What a file says of how it was made."""

    headers: Sequence[Header]
    options: Mapping[str, Any]

    def text(self, key: str) -> str | None:
        value = self.headers[0].metadata.get(key)
        return value.data if value is not None and isinstance(value.data, str) else None

    def below(self, prefix: str) -> dict[str, str]:
        """The texts under keys that begin so, by what follows."""
        found = self.headers[0].metadata.items()
        return {key[len(prefix) :]: str(value.data) for key, value in found if key.startswith(prefix)}


def run(request: ReproduceRequest, make: Maker, reporter: Reporter = SILENT) -> ReproduceResult:
    """Compare the ingredients, convert again, compare the files; and show the result. Raises QuantcliError.

    ``make`` turns options, as they are typed, into a conversion.
    """
    start = time.monotonic()
    recorded = read(request.file)
    if request.output is not None:
        writer.check_folder(request.output)
    source = _source(request, recorded)
    result: ReproduceResult = {
        "schema": 1,
        "same": False,
        "exact": not _recomputed(request, recorded),
        "options": recorded.text("quantcli.options") or "",
        "made_by": recorded.text("quantcli.version") or "",
        "ingredients": ingredients(request, recorded, source),
        "files": _files(recorded, reporter),
        "problem": None,
        "seconds": 0.0,
    }
    wrong = [one["name"] for one in result["ingredients"] if not one["same"]]
    if wrong:
        result["problem"] = f"{', '.join(wrong)}: not what the file was made from"
    else:
        _make_again(request, recorded, source, make, result, reporter)
    result["seconds"] = time.monotonic() - start
    release_tables.show_reproduction(reporter, result)
    return result


def require(result: ReproduceResult) -> None:
    """Raise VerificationFailed where the bytes are not the same."""
    if result["same"]:
        return
    hint = "give what it was made from: --source, --imatrix, --statistics (the table says which)"
    if all(one["same"] for one in result["ingredients"]):
        hint = "the same ingredients gave other bytes: please report this"
        if SOURCE in (result["problem"] or ""):
            hint = "the source has files that it did not have then: give it as it was"
        if not result["exact"]:
            hint = "what was recomputed is equal on the machine that made it; elsewhere give --imatrix or --statistics"
    raise VerificationFailed(result["problem"] or "not reproduced", where=result["files"][0]["path"], hint=hint)


# ---- what the file says


def read(path: Path) -> Recorded:
    """What the file, or the set that it begins, was made from. Raises UnsupportedFile where it does not say."""
    headers = container.read_split_headers(path)
    options = headers[0].metadata.get("quantcli.options")
    if options is None or not isinstance(options.data, str):
        made = "graft" if any(key.startswith("quantcli.graft.") for key in headers[0].metadata) else None
        raise UnsupportedFile(
            "the file does not say with which options it was made"
            + (f": `quantcli {made}` made it, from two files" if made else ""),
            where=str(path),
            hint="files of `quantcli convert` do; `quantcli diff` compares two files",
        )
    try:
        parsed = json.loads(options.data)
    except (ValueError, RecursionError) as error:
        raise UnsupportedFile("quantcli.options is not JSON", where=str(path), hint="the file was changed") from error
    if not isinstance(parsed, dict) or not options_record.is_known(parsed):
        raise UnsupportedFile("quantcli.options names what convert never does", where=str(path), hint="it was changed")
    return Recorded(headers, parsed)


def _source(request: ReproduceRequest, recorded: Recorded) -> Path:
    """Where the source lies: what was given, or the commit of the hub that the file names. Raises MissingFile,
    UsageError, and what the way to it raises."""
    name = recorded.text("quantcli.source.name") or "the source"
    commit = recorded.text(COMMIT)
    if request.source is not None:
        found = ways.find(request.source)
        if not places.exists(found):
            raise ways.missing(request.source, hint=f"give {name} with --source")
        return found
    if commit is not None and "/" in name:
        return ways.find(f"hf://{name}@{commit}")
    raise UsageError(
        f"it was made from {name}, which is not given",
        where=str(request.file),
        hint=f"say where that lies: quantcli reproduce {request.file} --source {name}",
    )


def _recomputed(request: ReproduceRequest, recorded: Recorded) -> bool:
    """Whether anything is computed anew that a machine's float arithmetic decides."""
    options = recorded.options
    matrix = options.get("imatrix") == "auto" and request.imatrix is None
    runs = any(options.get(name) for name in ("like", "target_size", "target_bpw", "max_kld", "quality"))
    runs = runs or options.get("method") in COMPENSATING or bool(set(options.get("transforms", ())) - {PAD})
    return bool(matrix or (runs and request.statistics is None))


# ---- ingredients


def ingredients(request: ReproduceRequest, recorded: Recorded, source: Path) -> list[Ingredient]:
    """Everything that the file names by hash, beside what is given here; quantcli's version first."""
    found = [_ingredient("quantcli", recorded.text("quantcli.version"), __version__)]
    found += _of_folder(recorded.below(SOURCE), source, recorded)
    if request.merge_lora is not None or recorded.options.get("merge_lora"):
        found += _of_folder(recorded.below(LORA), _given(request.merge_lora, "--merge-lora"), recorded)
    matrix = recorded.text(IMATRIX)
    if matrix is not None and recorded.options.get("imatrix"):
        if request.imatrix is not None:
            found.append(_ingredient("importance matrix", matrix, _hash(request.imatrix)))
        elif recorded.options["imatrix"] != "auto":
            found.append(_ingredient("importance matrix", matrix, None))
    if request.statistics is not None:
        have = digests.of_folder(request.statistics) if request.statistics.is_dir() else None
        found.append(_ingredient("statistics", recorded.text(STATISTICS), have))
    for number, digest in enumerate(recorded.options.get("calibration", [])):
        path = request.calibration[number] if number < len(request.calibration) else None
        found.append(_ingredient(f"calibration text {number + 1}", str(digest), None if path is None else _hash(path)))
    return found


def _ingredient(name: str, recorded: str | None, found: str | None) -> Ingredient:
    return {"name": name, "recorded": recorded, "found": found, "same": recorded is not None and recorded == found}


def _of_folder(hashes: Mapping[str, str], place: Path, recorded: Recorded) -> list[Ingredient]:
    """Files that lie at ``place``: a folder, or of a GGUF source the first of them."""
    own = set(_weights(recorded)) if places.is_file(place) else None  # a GGUF carries the hashes of its own source on
    folder = place if own is None else place.parent
    found = []
    for name, digest in hashes.items():
        if own is None or name in own:
            path = place if own is not None and len(own) == 1 else folder / os.path.basename(name)
            found.append(_ingredient(name, digest, _hash(path)))
    return found


def _weights(recorded: Recorded) -> list[str]:
    value: Value | None = recorded.headers[0].metadata.get("quantcli.source.weights")
    return [] if value is None else list(value.data)


def _hash(path: Path) -> str | None:
    return digests.sha256([str(path)])[str(path)] if places.is_file(path) else None


def _given(path: Path | None, option: str) -> Path:
    if path is None:
        raise UsageError(f"it was made with {option}, which is not given", hint=f"add {option} DIR")
    return path


# ---- the conversion


def _files(recorded: Recorded, reporter: Reporter) -> list[ReproducedFile]:
    paths = [str(header.path) for header in recorded.headers]
    with reporter.progress("hash the file", sum(map(os.path.getsize, paths))) as advance:
        found = digests.sha256(paths, progress=advance)
    return [{"path": path, "sha256": found[path], "reproduced": None, "same": False} for path in paths]


def _make_again(
    request: ReproduceRequest,
    recorded: Recorded,
    source: Path,
    make: Maker,
    result: ReproduceResult,
    reporter: Reporter,
) -> None:
    """Convert, and put into ``result`` what came out."""
    with _folder(request.output) as folder, tempfile.TemporaryDirectory(prefix="quantcli-") as beside:
        asked = _conversion(request, recorded, source, make, folder, Path(beside), reporter)
        written = convert.run(asked, Part(reporter))["outputs"][0]
        made = [(one["path"], one["sha256"]) for one in written.get("shards", [])]
        for file, (_, digest) in zip(result["files"], made, strict=False):
            file["reproduced"], file["same"] = digest, digest == file["sha256"]
        result["same"] = len(made) == len(result["files"]) and all(file["same"] for file in result["files"])
        if not result["same"]:
            result["problem"] = _difference(request.file, Path(made[0][0]))
        if request.output is not None:
            result["output"] = made[0][0]


@contextmanager
def _folder(output: Path | None) -> Iterator[Path]:
    """Where the file is made again: a temporary folder, or the one that keeps it."""
    if output is None:
        with tempfile.TemporaryDirectory(prefix="quantcli-") as made:
            yield Path(made)
        return
    output.mkdir(exist_ok=True)
    yield output


def _conversion(
    request: ReproduceRequest,
    recorded: Recorded,
    source: Path,
    make: Maker,
    folder: Path,
    beside: Path,
    reporter: Reporter,
) -> ConvertRequest:
    """The conversion that the file tells of; ``beside`` is a place for links and texts."""
    options = dict(recorded.options)
    given: dict[str, Any] = {"threads": request.threads, "calibration": request.calibration}
    type_name = options.pop("type", None)
    for name in ("calibration", "imatrix", "statistics", "merge_lora", "lora_base"):
        options.pop(name, None)
    linked = _linked(source, recorded.text("quantcli.source.name"), recorded.text(COMMIT), beside)
    if recorded.options.get("imatrix"):
        given["imatrix"] = _matrix(request, recorded, linked, beside, reporter)
    if recorded.options.get("statistics"):
        found = request.statistics is not None
        given |= {"statistics": request.statistics} if found else {"keep_statistics": beside / "statistics"}
    if options.pop("chat_template", None):
        given["chat_template"] = beside / "template.jinja"
        writer.write_text(given["chat_template"], recorded.text("tokenizer.chat_template") or "")
    for name in ("merge_lora", "lora_base"):
        if recorded.options.get(name):
            given[name] = _given(getattr(request, name), f"--{name.replace('_', '-')}")
    size = {name: options.pop(name) for name in list(options) if name in options_record.SIZES}
    output = folder / Path(recorded.headers[0].path).name
    if len(recorded.headers) > 1:
        output = folder / "again.gguf"
    try:
        asked = make(
            source=linked,
            types=() if type_name is None else (type_name,),
            sizes=size,
            output=output,
            **options,
            **given,
        )
    except TypeError as error:
        raise UnsupportedFile(f"quantcli.options: {error}", where=str(request.file)) from error
    return replace(asked, options=recorded.options, force=False)


def _linked(source: Path, name: str | None, commit: str | None, beside: Path) -> Path:
    """The source under the name (and commit of the hub) that it had: metadata are called after it."""
    if name is None or not source.exists() or _far(source):
        return source
    owner, _, last = name.rpartition("/")
    link = beside / os.path.basename(f"models--{owner}--{last}" if owner else last or "source")
    if commit is not None:  # as the hub's client lays it out: the commit is told as well
        link = link / "snapshots" / os.path.basename(commit)
        link.parent.mkdir(parents=True)
    link.symlink_to(os.path.abspath(source))
    return link


def _far(source: Path) -> bool:
    """Whether parts of it are mounted, which a link would hide: it has its right name then."""
    return source.is_dir() and any(not os.path.lexists(source / name) for name in places.names(source))


def _matrix(request: ReproduceRequest, recorded: Recorded, source: Path, beside: Path, reporter: Reporter) -> Path:
    """The importance matrix under the name that it had, or one that is collected as then."""
    name = os.path.basename(recorded.text(IMATRIX_NAME) or "") or "imatrix.gguf"
    path = beside / name
    if request.imatrix is not None:
        path.symlink_to(os.path.abspath(request.imatrix))
        return path
    from quantcli.commands import imatrix as collecting  # brings the runner

    if collecting.execute(collecting.ImatrixRequest(model=source, output=path), reporter)["interrupted"]:
        raise KeyboardInterrupt
    return path


def _difference(file: Path, again: Path) -> str:
    """In a few words, what is not the same."""
    found = diff.run(diff.DiffRequest(a=file, b=again, values=False))
    keys = [one["key"] for one in found["metadata"]]
    tensors = [one["name"] for one in found["tensors"] if not one["same"]]
    parts = [f"metadata differ in {', '.join(keys[:3])}"] if keys else []
    parts += [f"{len(tensors)} tensors differ, first {tensors[0]}"] if tensors else []
    return "; ".join(parts) or "the files are laid out differently"
