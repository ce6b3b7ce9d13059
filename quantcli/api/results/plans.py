"""Results as dataclasses. Written by `python scripts/api_results.py` from quantcli.report.plans: change that."""

from __future__ import annotations

from dataclasses import dataclass

from quantcli.api.results.base import Result


@dataclass(frozen=True, kw_only=True)
class PlannedTensor(Result):
    """One tensor of a plan. ``chosen``: its type was free. ``loss``: estimated divergence that it alone causes."""

    name: str
    type: str
    bytes: int
    chosen: bool
    loss: float | None
    share: float | None
    kappa: float | None
    losses: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class PlanningResult(Result):
    """`quantcli plan`. ``loss``: the estimates' sum, before any compensation; ``bits``: bits per weight of types."""

    schema: int
    output: str | None
    target: str
    type: str
    bytes: int
    bpw: float
    loss: float
    bits: dict[str, float]
    tensors: list[PlannedTensor]


@dataclass(frozen=True, kw_only=True)
class AnalyzedTensor(Result):
    """``peak``: largest weight over the root mean square; ``input_peak``: the same of its inputs' columns."""

    name: str
    shape: list[int]
    rms: float
    peak: float
    kurtosis: float
    input_peak: float | None
    kappa: float | None
    losses: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class AnalyzeResult(Result):
    """`quantcli analyze`. ``bits``: bits per weight of every type."""

    schema: int
    model: str
    bits: dict[str, float]
    tensors: list[AnalyzedTensor]
