"""`quantcli graft`: tensors of one GGUF file put into another, byte for byte; a new file, neither is changed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from quantcli.commands import convert
from quantcli.commands.job import ConvertRequest
from quantcli.errors import UsageError
from quantcli.loader import open_model
from quantcli.plan.overrides import compile_pattern
from quantcli.plan.recipes import FILE_TYPES
from quantcli.report import tables
from quantcli.report.results import GraftedTensor, GraftResult
from quantcli.report.terminal import SILENT, Reporter
from quantcli.transforms import graft


@dataclass(frozen=True, kw_only=True)
class GraftRequest:
    """``tensors`` is a regular expression, found anywhere in the names of the donor's tensors."""

    model: Path
    donor: Path
    tensors: str
    output: Path
    dry_run: bool = False
    force: bool = False


def run(request: GraftRequest, reporter: Reporter = SILENT) -> GraftResult:
    """Graft, and show the result. Raises QuantcliError; nothing is written then."""
    pattern = compile_pattern(request.tensors, "--tensors")
    for path in (request.model, request.donor):
        if path.is_dir():
            raise UsageError("a folder: graft takes GGUF files", where=str(path), hint="convert it first")
    with open_model(request.model) as model, open_model(request.donor) as donor:
        grafted = graft.graft(model, donor, pattern)
        wanted = ConvertRequest(
            source=request.model,
            file_types=(FILE_TYPES["COPY"],),
            output=request.output,
            force=request.force,
            dry_run=request.dry_run,
            made_by=graft.provenance(grafted, donor, pattern),
        )
        job = convert.prepare_models(wanted, [grafted.model], reporter=reporter)
        changes = Counter((old.type.name, new.type.name) for new, old in grafted.replaced if new.type is not old.type)
        for (before, after), count in changes.items():
            reporter.note(f"note: {count} tensor{'s' * (count > 1)} of {before} became {after}")
        if request.dry_run:
            result = convert.describe(job)
        else:
            with reporter.progress(f"graft {model.name}", job.total_bytes) as advance:
                result = convert.execute(job, advance)
    tables.show_conversion(reporter, result, tensors=request.dry_run)
    taken: list[GraftedTensor] = [
        {"name": new.name, "type": new.type.name, "before": old.type.name} for new, old in grafted.replaced
    ]
    taken += [{"name": new.name, "type": new.type.name, "before": None} for new in grafted.added]
    return {"schema": 1, "output": result["outputs"][0], "grafted": taken, "seconds": result["seconds"]}
