"""`quantcli analyze`: per tensor what every type would cost, how much the model minds, and outliers."""

from __future__ import annotations

import dataclasses

import numpy

from quantcli.commands import convert
from quantcli.commands.job import ConvertRequest
from quantcli.commands.planning import Planning
from quantcli.ggml.tensor_types import BY_NAME
from quantcli.model import ModelTensor
from quantcli.report import plans
from quantcli.report.plans import AnalyzedTensor, AnalyzeResult
from quantcli.report.terminal import SILENT, Reporter

READ = 1 << 22  # weights at a time


def run(request: ConvertRequest, reporter: Reporter = SILENT) -> AnalyzeResult:
    """Look at the model, and show what is found. ``request``: a conversion for any size. Raises QuantcliError."""
    assert request.sizing is not None
    job = convert.prepare(dataclasses.replace(request, dry_run=True))
    try:
        found = convert.planned(job, request.sizing, reporter)
        model = job.parts[0].model
        names = found.found.losses
        result: AnalyzeResult = {
            "schema": 1,
            "model": model.name,
            "bits": {one: BY_NAME[one].bpw for losses in names.values() for one in losses},
            "tensors": [_tensor(tensor, found) for tensor in model.tensors if tensor.name in names],
        }
    finally:
        job.close()
    plans.show_analysis(reporter, result)
    return result


def _tensor(tensor: ModelTensor, found: Planning) -> AnalyzedTensor:
    peak, rms, kurtosis = _weights(tensor)
    costs = found.found.costs.get(tensor.name)
    squares = None if costs is None else costs.importance.mean(axis=0, dtype=numpy.float64)
    return {
        "name": tensor.name,
        "shape": list(tensor.shape),
        "rms": rms,
        "peak": peak / rms if rms else 0.0,
        "kurtosis": kurtosis,
        "input_peak": None if squares is None else float(numpy.sqrt(squares.max() / squares.mean())),
        "kappa": found.found.kappa.get(tensor.name),
        "losses": found.found.losses[tensor.name],
    }


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
