"""`quantcli check`: would a GGUF file of this checkpoint read and speak as the checkpoint does?

Converts the structure without writing, and holds the vocabulary against other readers of the tokenizer, the chat
template against the checkpoint's, and, where one is given, an existing GGUF file against both. Names what is left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

from quantcli import container, families, places
from quantcli.commands import check_templates, check_tokens
from quantcli.errors import QuantcliError, UnsupportedFile, VerificationFailed
from quantcli.ggml import tensor_types
from quantcli.loader import open_models
from quantcli.model import Model
from quantcli.report import tables
from quantcli.report.results import CheckResult, CheckStep
from quantcli.report.terminal import SILENT, Reporter, size
from quantcli.runner import description
from quantcli.sources import ways
from quantcli.sources.checkpoint import Checkpoint
from quantcli.sources.gguf import open_gguf
from quantcli.vocab import references
from quantcli.vocab.tokenizer import Tokenizer

_SHOWN = 8
#: entries of a file that may be another program's own words
_OWN = ("general.", "quantcli.", "quantize.", "split.", "tokenizer.chat_template")


@dataclass(frozen=True, kw_only=True)
class CheckRequest:
    """A checkpoint folder, how to read it, and a GGUF file to hold against it."""

    source: Path
    against: Path | None = None
    architecture: str | None = None
    pre_tokenizer: str | None = None


def run(request: CheckRequest, reporter: Reporter = SILENT) -> CheckResult:
    """Check and show; `require` makes a difference an error. Raises what opening the checkpoint raises."""
    source = ways.find(request.source)
    if places.is_file(source):
        raise UnsupportedFile(
            "not a checkpoint folder",
            where=str(request.source),
            hint=f"quantcli verify {request.source}   checks a GGUF file by itself",
        )
    with open_models(source, architecture=request.architecture, pre_tokenizer=request.pre_tokenizer) as models:
        model = models.text
        checkpoint = Checkpoint(source)
        found = [_structure(model), _left_out(checkpoint, request.architecture), *_remarks(model), _runs(model)]
        metadata = model.metadata
        if request.against is not None:
            with open_gguf(request.against) as other:
                found += _file(model, other)
                metadata = other.metadata
        found += _vocabulary(metadata, checkpoint)
    result: CheckResult = {
        "schema": 1,
        "ok": all(step["verdict"] != "differs" for step in found),
        "source": ways.spelled(request.source),
        "architecture": model.architecture,
        "steps": found,
    }
    tables.show_check(reporter, result)
    return result


def require(result: CheckResult) -> None:
    """Raise VerificationFailed when a step found a difference."""
    bad = [step["name"] for step in result["steps"] if step["verdict"] == "differs"]
    if bad:
        raise VerificationFailed(f"{len(bad)} of {len(result['steps'])} checks differ: {', '.join(bad)}")


def _structure(model: Model) -> CheckStep:
    """What would be written."""
    weights = sum(prod(tensor.shape) for tensor in model.tensors)
    data = sum(tensor_types.row_bytes(tensor.type, tensor.columns) * tensor.rows for tensor in model.tensors)
    kept = f"{size(data)} in {model.default_float.name}"
    summary = f"{model.architecture}: {len(model.tensors)} tensors, {weights:,} weights, {kept}"
    return {"name": "structure", "verdict": "ok", "summary": summary, "details": []}


def _left_out(checkpoint: Checkpoint, architecture: str | None) -> CheckStep:
    """Tensors of the checkpoint that have no place, by the part of the model."""
    names = families.left_out(checkpoint, architecture)
    summary = f"{len(names)} tensors have no place in the file" if names else "every tensor has a place in the file"
    return {"name": "left out", "verdict": "note" if names else "ok", "summary": summary, "details": _parts(names)}


def _remarks(model: Model) -> list[CheckStep]:
    """What a conversion would say."""
    if not model.notes:
        return []
    summary = f"{len(model.notes)} thing{'s' * (len(model.notes) > 1)} to know of the conversion"
    return [{"name": "remarks", "verdict": "note", "summary": summary, "details": [*model.notes]}]


def _parts(names: Sequence[str]) -> list[str]:
    """Which parts of the model these tensors are of: the first two words of their names, and the layers behind them."""
    counts: Counter[str] = Counter()
    layers: dict[str, set[int]] = {}
    for name in names:
        words = name.split(".")
        part = ".".join(words[: min(2, max(1, len(words) - 2))])
        counts[part] += 1
        if words[2:] and words[2].isdigit():
            layers.setdefault(part, set()).add(int(words[2]))
    lines = [
        f"{part}{_range(layers.get(part))}: {count} tensor{'s' * (count > 1)}" for part, count in counts.most_common()
    ]
    return lines[:_SHOWN] + ([f"and {len(lines) - _SHOWN} more parts"] if len(lines) > _SHOWN else [])


def _range(numbers: set[int] | None) -> str:
    if not numbers:
        return ""
    first, last = min(numbers), max(numbers)
    return f".{first}" if first == last else f".{first} to {last}"


def _runs(model: Model) -> CheckStep:
    """Whether quantcli's runner computes this model."""
    try:
        shapes = {tensor.name: tensor.shape for tensor in model.tensors}
        settings = description.check(model.architecture, model.metadata, shapes, model.name)
    except QuantcliError as error:
        summary = f"converts only: {error.message}"
        return {"name": "runner", "verdict": "note", "summary": summary, "details": []}
    summary = "quantcli runs this model" + ("" if settings.causal else " (embed: it sees both directions)")
    return {"name": "runner", "verdict": "ok", "summary": summary, "details": []}


def _file(model: Model, other: Model) -> list[CheckStep]:
    """An existing GGUF file: the same tensors, and entries that say the same."""
    ours, theirs = ({tensor.name: tensor.shape for tensor in one.tensors} for one in (model, other))
    details = [f"{name} is missing" for name in ours if name not in theirs]
    details += [f"{name} is not of this checkpoint" for name in theirs if name not in ours]
    details += [f"{n} has the shape {theirs[n]}, not {s}" for n, s in ours.items() if theirs.get(n, s) != s]
    entries = [
        f"{key} is {_shown(other.metadata[key])}, not {_shown(value)}" if key in other.metadata else f"{key} is missing"
        for key, value in model.metadata.items()
        if not key.startswith(_OWN) and other.metadata.get(key) != value
    ]
    return [
        _held("tensors of the file", details, f"{len(ours)} tensors"),
        _held("entries of the file", entries, f"{sum(not key.startswith(_OWN) for key in model.metadata)} entries"),
    ]


def _shown(value: container.Value) -> str:
    text = repr(value.data) if value.element is None else f"a list of {len(value.data):,}"
    return text if len(text) <= 60 else f"{text[:57]}..."


def _held(name: str, details: list[str], what: str) -> CheckStep:
    more = [f"and {len(details) - _SHOWN} more"] if len(details) > _SHOWN else []
    summary = f"{what}, {len(details)} differ" if details else f"{what} are as they would be written"
    verdict = "differs" if details else "ok"
    return {"name": name, "verdict": verdict, "summary": summary, "details": details[:_SHOWN] + more}


def _vocabulary(metadata: dict[str, container.Value], checkpoint: Checkpoint) -> list[CheckStep]:
    """The vocabulary's steps; one that cannot run is said."""
    try:
        tokenizer = Tokenizer.from_metadata(metadata)
    except QuantcliError as error:
        return [{"name": "ids", "verdict": "skipped", "summary": error.message, "details": []}]
    found, remarks = references.find(checkpoint.folder)
    return [*check_tokens.steps(tokenizer, found, remarks), *check_templates.steps(tokenizer, checkpoint, found)]
