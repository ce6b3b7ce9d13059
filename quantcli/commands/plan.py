"""`quantcli plan`: the types for a size alone, as a --tensor-type-file; why each tensor got its type."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path

from quantcli.calibration.quality import PLANNING_TOKENS, QUALITIES
from quantcli.commands import convert, targets
from quantcli.commands.job import ConvertRequest
from quantcli.commands.planning import Planning
from quantcli.commands.sizing import Sizing
from quantcli.errors import UsageError
from quantcli.ggml.tensor_types import BY_NAME
from quantcli.output import writer
from quantcli.plan.plan import Plan
from quantcli.report import plans
from quantcli.report.plans import PlannedTensor, PlanningResult
from quantcli.report.terminal import SILENT, Reporter


@dataclass(frozen=True, kw_only=True)
class PlanRequest:
    """``conversion``: the one that would be made, with a size. ``output``: the file of types, if one is wanted."""

    conversion: ConvertRequest
    output: Path | None = None
    explain: bool = False
    force: bool = False


def run(request: PlanRequest, reporter: Reporter = SILENT) -> PlanningResult:
    """Find the plan, write it, show it. Raises QuantcliError."""
    sizing = request.conversion.sizing
    if sizing is None:
        raise UsageError("a plan is made for a size", hint="say --like Q4_K_M, --target-size 4G or --target-bpw 4.5")
    conversion = dataclasses.replace(request.conversion, dry_run=True, sizing=_with_little_text(sizing))
    if request.output is not None:
        targets.check_targets([request.output], [str(conversion.source)], force=request.force, listed=None)
    job = convert.prepare(conversion)
    try:
        found = convert.choose_types(job, reporter)
        assert found is not None
        made = job.parts[0].plans[0]
    finally:
        job.close()
    if request.output is not None:
        writer.write_bytes(request.output, as_text(made).encode())
    result = describe(made, found, sizing.text, request.output)
    plans.show_plan(reporter, result, explain=request.explain)
    return result


def _with_little_text(sizing: Sizing) -> Sizing:
    """A plan needs less than what its quality calibrates with, unless a folder says with what."""
    wish = sizing.wish
    if wish.statistics is not None or wish.keep is not None:
        return sizing
    usual = QUALITIES[wish.quality]
    sampled = 0 if wish.sampled == usual.sampled else wish.sampled
    return dataclasses.replace(
        sizing, wish=dataclasses.replace(wish, tokens=min(wish.tokens, PLANNING_TOKENS), sampled=sampled)
    )


def as_text(made: Plan) -> str:
    """A --tensor-type-file of all tensors that are quantized, as llama-quantize and quantcli read it."""
    lines = [
        f"^{re.escape(entry.tensor.name).replace(chr(92) + '-', '-')}$={entry.type.name.lower()}\n"
        for entry in made.entries
        if entry.type.quantized or entry.tensor.name in made.assignment
    ]
    return "".join(lines)


def describe(made: Plan, found: Planning, target: str, output: Path | None) -> PlanningResult:
    """The command's result."""
    losses, kappa = found.found.losses, found.found.kappa
    chosen = {name for group in found.choosing.groups for name in group}
    total = found.choosing.loss(made) or 1.0
    tensors: list[PlannedTensor] = []
    for entry in made.entries:
        name = entry.tensor.name
        if not entry.type.quantized:
            continue
        loss = losses.get(name, {}).get(entry.type.name)
        tensors.append(
            {
                "name": name,
                "type": entry.type.name,
                "bytes": entry.bytes,
                "chosen": name in chosen,
                "loss": loss,
                "share": None if loss is None or name not in chosen else loss / total,
                "kappa": kappa.get(name),
                "losses": losses.get(name, {}),
            }
        )
    return {
        "schema": 1,
        "output": None if output is None else str(output),
        "target": target,
        "type": made.file_type.name,
        "bytes": made.file_bytes,
        "bpw": made.bpw,
        "loss": found.choosing.loss(made),
        "bits": {name: BY_NAME[name].bpw for one in tensors for name in (one["type"], *one["losses"])},
        "tensors": tensors,
    }
