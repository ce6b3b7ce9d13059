"""Results as dataclasses. Written by `python scripts/api_results.py` from quantcli.report.reported: change that."""

from __future__ import annotations

from dataclasses import dataclass

from quantcli.api.results.base import Result
from quantcli.api.results.measurements import ComparedModel


@dataclass(frozen=True, kw_only=True)
class ReportedFile(Result):
    """A file that was made, the same types by the search alone, or a stock recipe. ``kind``: one of these three.

    ``of``: the output (its path) that a search alone is about. ``measured``: on held-out text; absent where the model
    was not run.
    """

    kind: str
    name: str
    bytes: int
    bpw: float
    of: str | None = None
    measured: ComparedModel | None = None


@dataclass(frozen=True, kw_only=True)
class ReportedPart(Result):
    """Predictions in one language (a guess). ``kld``, ``kld_se``, ``ppl_ratio``: per file, in the files' order."""

    name: str
    scored: int
    kld: list[float]
    kld_se: list[float]
    ppl_ratio: list[float]


@dataclass(frozen=True, kw_only=True)
class ReportedTensor(Result):
    """One tensor of an output. ``loss``: the divergence that it alone causes, estimated before compensation."""

    name: str
    type: str
    bpw: float
    loss: float | None
    share: float | None


@dataclass(frozen=True, kw_only=True)
class ReportedOutput(Result):
    """The tensors of one output that are quantized."""

    path: str
    tensors: list[ReportedTensor]


@dataclass(frozen=True, kw_only=True)
class Report(Result):
    """``unmeasured``: why the model was not run, None where it was. ``tokens``: of held-out text, with ``context``."""

    path: str
    unmeasured: str | None
    tokens: int
    context: int
    files: list[ReportedFile]
    parts: list[ReportedPart]
    outputs: list[ReportedOutput]
