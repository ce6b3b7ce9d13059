"""`quantcli analyze`: per tensor what every type would cost, how much the model minds, outliers, ranges."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy

from quantcli import __version__
from quantcli.calibration import observers, utilisation
from quantcli.calibration.weight_errors import Costs
from quantcli.commands import convert, targets
from quantcli.commands.job import ConvertRequest
from quantcli.commands.planning import Planning
from quantcli.ggml import kernels
from quantcli.ggml.tensor_types import BY_NAME
from quantcli.model import ModelTensor
from quantcli.output import writer
from quantcli.report import analysis, plans
from quantcli.report.plans import AnalyzedTensor, AnalyzeResult
from quantcli.report.terminal import SILENT, Reporter

READ = 1 << 22  # weights at a time
ROWS = 512  # of a tensor, evenly spread, that ranges are tried on
PROBED = ("Q3_K", "Q4_0")  # the first that fits: what probes and the formula are about
BLOCKS = "Q4_0"  # what one range per row is shown beside


@dataclass(frozen=True, kw_only=True)
class AnalyzeRequest:
    """``conversion``: one for any size. ``html``: where a page is written."""

    conversion: ConvertRequest
    html: Path | None = None
    force: bool = False


def run(request: AnalyzeRequest, reporter: Reporter = SILENT) -> AnalyzeResult:
    """Look at the model, and show what is found. Raises QuantcliError."""
    conversion = request.conversion
    assert conversion.sizing is not None
    job = convert.prepare(dataclasses.replace(conversion, dry_run=True))
    try:
        model = job.parts[0].model
        if request.html is not None:
            targets.check_targets([request.html], list(model.files), force=request.force, listed=None)
        found = convert.planned(job, conversion.sizing, reporter)
        names = found.found.losses
        tensors = [_tensor(tensor, found) for tensor in model.tensors if tensor.name in names]
        result: AnalyzeResult = {
            "schema": 1,
            "model": model.name,
            "bits": {one: BY_NAME[one].bpw for losses in names.values() for one in losses},
            "probed": next((one for one in PROBED if any(one in losses for losses in names.values())), None),
            "correlations": correlations(tensors),
            "tensors": tensors,
        }
    finally:
        job.close()
    plans.show_analysis(reporter, result)
    if request.html is not None:
        writer.write_text(request.html, analysis.render(result, __version__))
        reporter.note(f"written: {request.html}")
    return result


def correlations(tensors: list[AnalyzedTensor]) -> dict[str, float | None]:
    """Spearman's, over the matrices: what predicts the measured divergence of one type, and its error."""
    known = []
    for one in tensors:
        probed = next((one["losses"][name] for name in PROBED if name in one["losses"]), None)
        if probed is not None and one["formula"] is not None and one["qsur"] is not None and one["blocks"] is not None:
            known.append((one["qsur"], one["kurtosis"], one["formula"], one["blocks"], probed))
    qsur, kurtosis, formula, blocks, divergence = (
        (list(column) for column in zip(*known, strict=True)) if known else ([] for _ in range(5))
    )
    return {
        "QSUR with the divergence": utilisation.rank_correlation(qsur, divergence),
        "QSUR with the relative error in Q4_0": utilisation.rank_correlation(qsur, blocks),
        "kurtosis with the relative error in Q4_0": utilisation.rank_correlation(kurtosis, blocks),
        "HAWQ's formula with the divergence": utilisation.rank_correlation(formula, divergence),
    }


def _tensor(tensor: ModelTensor, found: Planning) -> AnalyzedTensor:
    peak, rms, kurtosis = _weights(tensor)
    costs = found.found.costs.get(tensor.name)
    squares = None if costs is None else costs.importance.mean(axis=0, dtype=numpy.float64)
    rows = _some_rows(tensor)
    return {
        "name": tensor.name,
        "shape": list(tensor.shape),
        "rms": rms,
        "peak": peak / rms if rms else 0.0,
        "kurtosis": kurtosis,
        "qsur": _utilisation(rows),
        "input_peak": None if squares is None else float(numpy.sqrt(squares.max() / squares.mean())),
        "kappa": found.found.kappa.get(tensor.name),
        "formula": None if costs is None else _formula(tensor, rows, costs),
        "blocks": None if costs is None else _in_blocks(rows, costs),
        "observers": {} if costs is None else _ranges(rows, costs),
        "losses": found.found.losses[tensor.name],
    }


# ---- a sample of rows


def _some_rows(tensor: ModelTensor) -> observers.Floats:
    """At most `ROWS`, evenly spread over all matrices of the tensor."""
    places = numpy.unique(numpy.linspace(0, tensor.rows - 1, min(tensor.rows, ROWS)).astype(int))
    return numpy.concatenate([tensor.reader.read_rows(place, place + 1) for place in places.tolist()])


def _utilisation(rows: observers.Floats) -> float | None:
    if len(rows) < 2 * utilisation.BLOCK or rows.shape[1] < utilisation.BLOCK:
        return None
    return float(utilisation.per_dimension(rows).mean())


def _formula(tensor: ModelTensor, rows: observers.Floats, costs: Costs) -> float | None:
    """Mean of the Hessian's diagonal times the squared error of the weights: HAWQ-V2 with H of the inputs."""
    tensor_type = next((BY_NAME[name] for name in PROBED if rows.shape[1] % BY_NAME[name].block == 0), None)
    if tensor_type is None:
        return None
    blocks = kernels.encode(tensor_type.id, rows, None)
    errors = numpy.square(kernels.decode(tensor_type.id, blocks, *rows.shape) - rows, dtype=numpy.float64)
    return float(costs.importance.mean(dtype=numpy.float64) * errors.sum() * tensor.rows / len(rows))


def _in_blocks(rows: observers.Floats, costs: Costs) -> float | None:
    """Error of the outputs (their columns taken for independent) relative to their mean square."""
    if rows.shape[1] % BY_NAME[BLOCKS].block:
        return None
    importance = _importance(costs)
    blocks = kernels.encode(BY_NAME[BLOCKS].id, rows, importance)
    errors = kernels.decode(BY_NAME[BLOCKS].id, blocks, *rows.shape) - rows
    return _relative(numpy.square(errors, dtype=numpy.float64) @ importance, rows, importance)


def _ranges(rows: observers.Floats, costs: Costs) -> dict[str, float]:
    """The same with four bits and one range per row, by observer."""
    importance = _importance(costs)
    return {
        name: _relative(observers.loss(rows, find(rows, importance), importance), rows, importance)
        for name, find in observers.OBSERVERS.items()
    }


def _importance(costs: Costs) -> observers.Floats:
    mean: observers.Floats = costs.importance.mean(axis=0, dtype=numpy.float64).astype(numpy.float32)
    return mean


def _relative(lost: observers.Doubles, rows: observers.Floats, importance: observers.Floats) -> float:
    whole = float((numpy.square(rows, dtype=numpy.float64) @ importance).sum())
    return float(lost.sum()) / whole if whole else 0.0


def _weights(tensor: ModelTensor) -> tuple[float, float, float]:
    """Largest magnitude, root mean square and kurtosis (3: normal) of a tensor."""
    step, peak, second, fourth = max(1, READ // max(tensor.columns, 1)), 0.0, 0.0, 0.0
    for start in range(0, tensor.rows, step):
        values = tensor.reader.read_rows(start, min(start + step, tensor.rows)).astype(numpy.float64)
        squares = numpy.square(values)
        peak = max(peak, float(numpy.abs(values).max(initial=0.0)))
        second, fourth = second + float(squares.sum()), fourth + float(numpy.square(squares).sum())
    count = max(tensor.rows * tensor.columns, 1)
    mean = second / count
    return peak, float(numpy.sqrt(mean)), fourth / count / mean**2 if mean else 0.0
