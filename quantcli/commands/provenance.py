"""What a file says about how it was made."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from quantcli import __version__
from quantcli.calibration.quality import UNKNOWN, Used, Wish
from quantcli.commands import options_record
from quantcli.commands.job import ConvertRequest, Job
from quantcli.container import Value, ValueType, array, string, u32
from quantcli.model import Model
from quantcli.plan.recipes import FileType
from quantcli.plan.shards import SOURCE_SHA256
from quantcli.report.terminal import Reporter
from quantcli.sources import digests
from quantcli.sources.checkpoint import hub_name

#: options that reach a projector
_OF_PROJECTORS = ("metadata", "image_break", "merge_lora", "lora_scale", "search", "method", "snap")


def of(request: ConvertRequest, model: Model, file_type: FileType, used: Used) -> dict[str, Value]:
    """How the file was made: enough to make it again (`quantcli reproduce`), nothing about the machine or the time."""
    made = {"quantcli.version": string(__version__), **request.made_by, **_source(model)}
    if not request.made_by:
        made["quantcli.options"] = string(_options(request, model, file_type))
    if not file_type.is_float and not file_type.copies:
        made["quantcli.search"] = string(request.search)
        if request.choice.name is not None:
            made["quantcli.method"] = string(request.choice.name)
        if request.sizing is not None:
            made["quantcli.plan"] = string(request.sizing.text)
        if request.snap != "auto":
            made["quantcli.snap"] = string(request.snap)
        if request.wish is not None:
            made |= _calibrated_with(request.wish, used)
    return made


def _options(request: ConvertRequest, model: Model, file_type: FileType) -> str:
    """What `convert` was told, for this file alone."""
    told = dict(request.options)
    if request.mmproj is not None and model.role == "projector":  # as if it had been asked for alone
        told = {name: value for name, value in told.items() if name in _OF_PROJECTORS} | {"mmproj_only": True}
    if request.sizing is None or model.role != "text":
        told["type"] = file_type.name
    return options_record.text(told)


def _source(model: Model) -> dict[str, Value]:
    """The files that the weights come from, by name, and their sha256: zeros until they are known."""
    names = {path: _name(path) for path in model.weight_files}
    if not names:
        return {}
    found: dict[str, Value] = {"quantcli.source.name": string(source_name(model))}
    found["quantcli.source.weights"] = array(ValueType.STRING, list(names.values()))
    for path, name in names.items():
        found[f"{SOURCE_SHA256}{name}"] = string(model.digests.get(path, digests.UNKNOWN))
    return found


def source_name(model: Model) -> str:
    """What metadata call the source after: the folder's name ("owner/name" of one that the hub's client made), or the
    file's."""
    path = Path(model.weight_files[0])
    if model.kind == "gguf":
        return _name(str(path))
    owner, name = hub_name(path.parent)
    return f"{owner}/{name}" if owner else name


def _name(path: str) -> str:
    return os.path.basename(path).encode(errors="replace").decode()


def settle(job: Job, paths: Sequence[str], reporter: Reporter) -> bool:
    """Hash some of the files that the job's weights are read from; whether there was anything to hash."""
    if not paths:
        return False
    with reporter.progress("hash the source", sum(map(digests.size, paths))) as advance:
        note(job, digests.sha256(paths, job.threads, advance))
    return True


def note(job: Job, found: Mapping[str, str]) -> None:
    """What the files of the job's weights hash to."""
    for part in job.parts:
        part.model.digests.update({path: found[path] for path in part.model.weight_files if path in found})


def with_hashes(metadata: Mapping[str, Value], model: Model) -> dict[str, Value]:
    """The same entries, with the hashes of the model's files in their places."""
    keys = {f"{SOURCE_SHA256}{_name(path)}": digest for path, digest in model.digests.items()}
    return {**metadata, **{key: string(digest) for key, digest in keys.items() if key in metadata}}


def without_hashes(metadata: Mapping[str, Value], model: Model) -> dict[str, Value]:
    """The same entries, as they are before the model's files are hashed."""
    return {**metadata, **dict.fromkeys(hash_keys(model) & metadata.keys(), string(digests.UNKNOWN))}


def hash_keys(model: Model) -> set[str]:
    """The keys that tell the hashes of the model's files."""
    return {f"{SOURCE_SHA256}{_name(path)}" for path in model.weight_files}


def _calibrated_with(wish: Wish, used: Used) -> dict[str, Value]:
    folder = wish.statistics or wish.keep
    kept = {}
    if folder is not None:
        known = used is not UNKNOWN and folder.is_dir()
        kept["quantcli.statistics.sha256"] = string(digests.of_folder(folder) if known else digests.UNKNOWN)
    return kept | {
        "quantcli.quality": string(wish.quality),
        "quantcli.compensation": string(wish.method or "none"),
        "quantcli.transforms": string(",".join(wish.transforms)),
        "quantcli.calibration.tokens": u32(used.real),
        "quantcli.calibration.sampled_tokens": u32(used.sampled),
        "quantcli.calibration.corpus": string(used.corpus),
    }
