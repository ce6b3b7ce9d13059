"""What a job will be, or has been, as the result of the command: plans exact to the byte, from headers alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from quantcli.commands import checks
from quantcli.commands.job import Job
from quantcli.plan import plan
from quantcli.plan.plan import Plan
from quantcli.sources import ways

if TYPE_CHECKING:
    from quantcli.report.results import ConvertResult, OutputResult, SourceResult


def describe(job: Job) -> ConvertResult:
    """The result of a dry run: the plan of every output, exact to the byte, from headers alone."""
    model = job.parts[0].model
    source: SourceResult = {
        "path": ways.spelled(job.request.source),
        "name": model.name,
        "kind": model.kind,
        "architecture": model.architecture,
        "tensors": sum(len(part.model.tensors) for part in job.parts),
        "bytes": job.total_bytes,
    }
    result: ConvertResult = {
        "schema": 1,
        "source": source,
        "outputs": [_output(job, one, files) for one, files in zip(job.plans, job.files, strict=True)],
        "seconds": 0.0,
        "threads": job.threads,
        "search": job.request.search,
        "notes": job.notes,
        "warnings": job.warnings,
    }
    if job.request.part is not None:
        result["part"] = str(job.request.part)
    return result


def _output(job: Job, one: Plan, files: Sequence[Path]) -> OutputResult:
    made, choice = plan.to_json(one), job.request.choice
    output: OutputResult = {
        "path": str(files[0]),
        "files": [str(path) for path in files],
        "type": made["type"],
        "bytes": made["bytes"],
        "bpw": made["bpw"],
        "tensors": made["tensors"],
        "fallbacks": made["fallbacks"],
        "fallback_tensors": made["fallback_tensors"],
        "needs_imatrix": made["needs_imatrix"],
    }
    if job.request.snap != "never":
        output["carried_over"] = job.carried.get(files[0], [])
    if job.request.wish is not None:
        output["quality"] = job.request.wish.quality
        output["compensated"] = job.outcomes.get(files[0], [])
    if choice.name is not None:
        output["method"] = choice.name
        output["method_fallbacks"] = [
            {"type": type_name, "method": used, "tensors": count}
            for (type_name, used), count in checks.method_fallbacks(one, choice).items()
        ]
    return output
