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
    """``peak``: largest weight over the root mean square; ``input_peak``: the same of its inputs' columns.

    ``losses``: what every type costs, by the probe (kappa times the error of its outputs); ``formula``: the same type's
    by HAWQ's kind of formula, mean curvature times squared error of the weights. ``qsur``: mean over blocks of 32
    columns of its d-th root; ``blocks``: relative error of the outputs in Q4_0; ``observers``: with four bits and one
    range per row, as each observer finds it. None: of tensors whose inputs were not seen.
    """

    name: str
    shape: list[int]
    rms: float
    peak: float
    kurtosis: float
    qsur: float | None
    input_peak: float | None
    kappa: float | None
    formula: float | None
    blocks: float | None
    observers: dict[str, float]
    losses: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class AnalyzeResult(Result):
    """`quantcli analyze`. ``bits``: bits per weight of every type; ``probed``: the type that ``formula`` is about.

    ``correlations``: Spearman's rank correlation over the matrices, by what is compared; None where it says nothing.
    """

    schema: int
    model: str
    bits: dict[str, float]
    probed: str | None
    correlations: dict[str, float | None]
    tensors: list[AnalyzedTensor]
