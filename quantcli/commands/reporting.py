"""`convert --html`: what was made beside the stock recipes of its size, measured on held-out text.

Comes after the files are complete. A model that cannot be run gets a report of sizes alone, which says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy
from numpy.typing import NDArray

from quantcli import __version__
from quantcli.calibration import probes, quality
from quantcli.calibration.sensitivity import Found, Probing
from quantcli.commands import bounding, compensating
from quantcli.commands.compensating import Ready
from quantcli.commands.job import Job
from quantcli.commands.planning import Planning, importance_of
from quantcli.errors import QuantcliError, UnsupportedGraph
from quantcli.evaluate import divergence, languages
from quantcli.evaluate.divergence import Tally
from quantcli.evaluate.reference import ModelSource
from quantcli.ggml.tensor_types import BY_NAME, TensorType
from quantcli.methods.seam import Settings
from quantcli.methods.table import Choice
from quantcli.model import Model
from quantcli.output import writer
from quantcli.plan import plan, recipes
from quantcli.plan.options import Options
from quantcli.plan.plan import Plan
from quantcli.report import conversion
from quantcli.report.reported import (
    MADE,
    SEARCH,
    STOCK,
    Report,
    ReportedFile,
    ReportedOutput,
    ReportedPart,
    ReportedTensor,
)
from quantcli.report.results import ConvertResult
from quantcli.report.terminal import Reporter
from quantcli.runner import finite
from quantcli.runner.network import Network
from quantcli.runner.session import RunOptions, Session, make_operations, open_session
from quantcli.runner.settings import RANKS
from quantcli.runner.text import Chunks
from quantcli.statistics.imatrix import Importance
from quantcli.vocab.tokenizer import Tokenizer

TOKENS = 16_384  # held out, that judge
REAL_TOKENS = 131_072  # of calibration text, an eighth of which is held out
STRETCH = 64  # tokens whose language is guessed together
FEWEST = 32  # predictions that make a line of their own
#: recipes that anyone would make instead, by size
RECIPES = (
    *("IQ2_XXS", "IQ2_XS", "IQ2_M", "Q2_K", "IQ3_XXS", "IQ3_XS", "Q3_K_S", "IQ3_M", "Q3_K_M", "Q3_K_L", "IQ4_XS"),
    *("Q4_0", "Q4_K_S", "Q4_K_M", "Q5_K_S", "Q5_K_M", "Q6_K", "Q8_0"),
)
STOCK_SEARCH = Choice(None, Settings("ggml"))

Labels = NDArray[numpy.intp]


@dataclass(frozen=True)
class Candidate:
    """A file of the report, and the model behind it where it is no file on the disk."""

    file: ReportedFile
    plan: Plan
    choice: Choice | None = None  # that encodes the plan; None: the file at ``path`` is measured
    path: Path | None = None


def write(job: Job, result: ConvertResult, path: Path, planned: Planning | None, reporter: Reporter) -> Report:
    """Measure, and write the page. ``planned``: what planning knows of types. Raises OutputFailed."""
    report, found = _sizes(job, path), None if planned is None else planned.found
    try:
        ready = _ready(job, reporter)
        found = found or _estimated(job, ready, reporter)
        _measure(job, ready, report, importance_of(found), reporter)
    except QuantcliError as error:
        report["unmeasured"] = str(error)
        reporter.warning(f"the report has sizes alone: {error}")
    report["outputs"] = [_tensors(one, path, found) for one, path in _outputs(job)]
    writer.write_text(path, conversion.render(result, report, __version__))
    reporter.note(f"written: {path}")
    return report


def _outputs(job: Job) -> list[tuple[Plan, Path]]:
    """The language model's plans, and the first file of each."""
    part = job.parts[0]
    return [(one, files[0]) for one, files in zip(part.plans, part.files, strict=True)]


def _ready(job: Job, reporter: Reporter) -> Ready:
    part, request = job.parts[0], job.request
    if part.ready is not None:
        return _predicting(part.ready)
    texts = request.wish.texts if request.wish is not None else ()
    wish = replace(quality.planning(texts, None), tokens=REAL_TOKENS)
    return _predicting(compensating.ready(part.model, wish, job.threads, reporter))


def _predicting(ready: Ready) -> Ready:
    """Raises UnsupportedGraph for a model that predicts no next tokens."""
    settings = ready.network.settings
    if not settings.causal or settings.pooling == RANKS:
        raise UnsupportedGraph(
            "predicts no next tokens, there is no divergence to measure", where=ready.network.model.name
        )
    return ready


# ---- what there is to compare


def _sizes(job: Job, path: Path) -> Report:
    """The report of a model that is not run."""
    files = [one.file for one in _candidates(job, None)]
    return {
        "path": str(path),
        "unmeasured": None,
        "tokens": 0,
        "context": 0,
        "files": files,
        "parts": [],
        "outputs": [],
    }


def _candidates(job: Job, importance: Importance | None) -> list[Candidate]:
    """What was made, each with its types by the search alone where it is more than that, and the stock recipes."""
    found: list[Candidate] = []
    part, request = job.parts[0], job.request
    for one, path in _outputs(job):
        found.append(Candidate(_file(MADE, path.name.removesuffix(".gguf"), one), one, path=path))
        if request.wish is not None:
            types = {entry.tensor.name: entry.type for entry in one.entries if entry.type.quantized}
            alone = plan.make(part.model, _plain(one, importance), types)
            file = _file(SEARCH, f"{path.name.removesuffix('.gguf')}, search alone", one)
            found.append(Candidate({**file, "of": str(path)}, alone, Choice()))
    return found + _stock(part.model, [one for one, _ in _outputs(job)], importance)


def _plain(one: Plan, importance: Importance | None) -> Options:
    """The options of a plan with nothing about us in the header, and one file."""
    given = one.options.importance or importance
    return replace(
        one.options, provenance={}, importance=given, imatrix=True, split_max_size=None, keep_split=False, metadata=()
    )


def _stock(model: Model, made: Sequence[Plan], importance: Importance | None) -> list[Candidate]:
    """Of every output the recipe that it has, or the largest of at most its size, and the next larger one."""
    named = {one.file_type.name for one in made if not one.assignment}
    plans = {}
    for name in dict.fromkeys([*RECIPES, *named]):
        row = recipes.parse(name)
        if row.is_float or row.copies:
            continue
        own = replace(_plain(made[0], importance), file_type=row, overrides=(), pure=False, output_tensor_type=None)
        plans[name] = plan.make(model, replace(own, token_embedding_type=None, leave_output_tensor=False))
    order = sorted(plans, key=lambda name: plans[name].file_bytes)
    wanted: list[str] = []
    for one in made:  # headers say more of us than of a stock recipe: tensors are compared
        smaller = [name for name in order if plans[name].tensor_bytes <= one.tensor_bytes]
        larger = [name for name in order if plans[name].tensor_bytes > one.tensor_bytes]
        wanted += [one.file_type.name] if one.file_type.name in named & set(plans) else smaller[-1:]
        wanted += larger[:1] + smaller[-2:-1]
    return [
        Candidate(_file(STOCK, name, plans[name]), plans[name], STOCK_SEARCH)
        for name in sorted(set(wanted), key=order.index)
    ]


def _file(kind: str, name: str, one: Plan) -> ReportedFile:
    return {"kind": kind, "name": name, "bytes": one.file_bytes, "bpw": one.bpw}


# ---- shares of the loss


def _estimated(job: Job, ready: Ready, reporter: Reporter) -> Found:
    """What the types of the outputs cost, where no plan has asked already."""
    types: dict[str, dict[str, TensorType]] = {}
    for one, _ in _outputs(job):
        for entry in one.entries:
            if entry.type.quantized:
                types.setdefault(entry.tensor.name, {})[entry.type.name] = entry.type
    with reporter.steps("report: sensitivities", 100) as step:
        return Probing(
            network=ready.network,
            calibration=ready.calibration,
            compensates=False,
            threads=ready.threads,
            known=ready.kept.known,
            progress=lambda what, done, total: step(100 * done // max(total, 1), what),
        ).find({name: list(own.values()) for name, own in types.items()})


def _tensors(one: Plan, path: Path, found: Found | None) -> ReportedOutput:
    losses = {} if found is None else found.losses
    known = [
        (entry, losses.get(entry.tensor.name, {}).get(entry.type.name))
        for entry in one.entries
        if entry.type.quantized or len(entry.tensor.shape) > 1
    ]
    total = sum(loss for _, loss in known if loss is not None) or 1.0
    tensors: list[ReportedTensor] = [
        {
            "name": entry.tensor.name,
            "type": entry.type.name,
            "bpw": BY_NAME[entry.type.name].bpw,
            "loss": loss,
            "share": None if loss is None else loss / total,
        }
        for entry, loss in known
    ]
    return {"path": str(path), "tensors": tensors}


# ---- measuring


def _measure(job: Job, ready: Ready, report: Report, importance: Importance, reporter: Reporter) -> None:
    """Run everything on the held-out text, one model after the other beside the reference."""
    chunks = probes.some_of(ready.calibration.held_out, TOKENS)
    report["tokens"], report["context"] = chunks.tokens.size, chunks.length
    candidates = _candidates(job, importance)
    tallies: list[Tally] = []
    with reporter.steps("report: measure", len(candidates)) as step:
        for number, one in enumerate(candidates):
            tallies.append(_tally(job, ready, chunks, one))
            step(number + 1, one.file["name"])
    report["files"] = []
    for one, tally in zip(candidates, tallies, strict=True):
        entry = divergence.report(tally, tallies[0], "held-out text")
        finite.require_figures(entry, one.file["name"])
        entry["name"], entry["bytes"], entry["bpw"] = one.file["name"], one.file["bytes"], one.file["bpw"]
        report["files"].append({**one.file, "measured": entry})
    report["parts"] = _parts(ready, chunks, tallies)


def _tally(job: Job, ready: Ready, chunks: Chunks, one: Candidate) -> Tally:
    """One candidate, opened or encoded, and forgotten afterwards."""
    network = ready.network
    reference = Session(network.model, network, "float", Path(network.model.name), RunOptions(exact=True))
    source = ModelSource(reference, chunks)
    if one.path is not None:
        with open_session(one.path, RunOptions(threads=ready.threads, length=network.length)) as session:
            return divergence.measure(source, [session])[0][0]
    assert one.choice is not None
    tensors = bounding.encoded(one.plan, one.choice, ready.threads)
    model = bounding.with_tensors(one.plan.model, tensors)
    own = Network(model, make_operations("q8", ready.threads), length=network.length, beyond=True)
    return divergence.measure(source, [Session(model, own, "q8", Path(one.file["name"]), RunOptions())])[0][0]


def _parts(ready: Ready, chunks: Chunks, tallies: Sequence[Tally]) -> list[ReportedPart]:
    """By language, the most frequent first; what is rare is put together."""
    tokenizer = Tokenizer.from_metadata(ready.network.model.metadata)
    names, labels = _languages(tokenizer, chunks)
    counts = numpy.bincount(labels, minlength=len(names))
    rare = [number for number in range(len(names)) if counts[number] < FEWEST]
    groups = [([number], names[number]) for number in numpy.argsort(-counts, kind="stable") if number not in rare]
    if rare:
        groups.append((rare, f"{len(rare)} more"))
    return [_part(name, numpy.isin(labels, own), tallies) for own, name in groups]


def _languages(tokenizer: Tokenizer, chunks: Chunks) -> tuple[list[str], Labels]:
    """Names, and which of them every scored target has, in the order of the chunks."""
    names: dict[str, int] = {}
    first = chunks.first_scored + 1
    found = []
    for tokens in chunks.tokens:
        for start in range(first, chunks.length, STRETCH):
            stop = min(start + STRETCH, chunks.length)
            name = languages.guess(tokenizer.decode(tokens[start:stop].tolist()))
            found += [names.setdefault(name, len(names))] * (stop - start)
    return list(names), numpy.array(found, numpy.intp)


def _part(name: str, chosen: NDArray[numpy.bool_], tallies: Sequence[Tally]) -> ReportedPart:
    divergences, ratios = [], []
    for tally in tallies:
        values = tally.values
        nll, base, kld = (numpy.concatenate(one)[chosen] for one in (values.nll, values.base, values.kld))
        divergences.append((float(kld.mean()), float(kld.std() / math.sqrt(len(kld)))))
        ratios.append(math.exp(min(float((nll - base).mean(dtype=numpy.float64)), 700.0)))
    return {
        "name": name,
        "scored": int(chosen.sum()),
        "kld": [mean for mean, _ in divergences],
        "kld_se": [error for _, error in divergences],
        "ppl_ratio": ratios,
    }
