"""What plan and analyze find out, as types (the objects that --json prints) and as people read it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

from quantcli.report.terminal import Reporter


class PlannedTensor(TypedDict):
    """One tensor of a plan. ``chosen``: its type was free. ``loss``: estimated divergence that it alone causes."""

    name: str
    type: str
    bytes: int
    chosen: bool
    loss: float | None
    share: float | None  # of the loss of all that were chosen
    kappa: float | None  # divergence per squared error of its outputs
    losses: Mapping[str, float]  # in every type


class PlanningResult(TypedDict):
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


class AnalyzedTensor(TypedDict):
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
    observers: Mapping[str, float]
    losses: Mapping[str, float]


class AnalyzeResult(TypedDict):
    """`quantcli analyze`. ``bits``: bits per weight of every type; ``probed``: the type that ``formula`` is about.

    ``correlations``: Spearman's rank correlation over the matrices, by what is compared; None where it says nothing.
    """

    schema: int
    model: str
    bits: dict[str, float]
    probed: str | None
    correlations: dict[str, float | None]
    tensors: list[AnalyzedTensor]


def show_plan(reporter: Reporter, result: PlanningResult, *, explain: bool) -> None:
    """The types and what they add up to; with ``explain`` what the next smaller and larger type would change."""
    if reporter.as_json:
        return
    if explain:
        columns = ("tensor", "type", "bytes", "loss", "share", "one smaller", "one larger")
        reporter.table(columns, [_explained(one, result["bits"]) for one in result["tensors"]], right=(2, 3, 4))
        reporter.line("")
    counts: dict[str, int] = {}
    for one in result["tensors"]:
        counts[one["type"]] = counts.get(one["type"], 0) + 1
    order = sorted(counts, key=result["bits"].__getitem__)
    mix = ", ".join(f"{counts[name]} {name}" for name in order)
    reporter.line(f"{result['target']}: {result['bytes']:,} bytes, {result['bpw']:.3f} bits per weight: {mix}")
    if result["output"] is not None:
        made = f"llama-quantize --tensor-type-file {result['output']} MODEL.gguf OUT.gguf {result['type']}"
        reporter.note(f"use it with `quantcli convert MODEL -t {result['type']} --tensor-type-file {result['output']}`")
        reporter.note(f"or with `{made}`")


def _explained(one: PlannedTensor, bits: Mapping[str, float]) -> tuple[str, ...]:
    if one["loss"] is None or not one["chosen"]:
        return one["name"], one["type"], f"{one['bytes']:,}", "-", "-", "pinned", ""
    own = bits[one["type"]]
    smaller = max((name for name in one["losses"] if bits[name] < own), key=bits.__getitem__, default=None)
    larger = min((name for name in one["losses"] if bits[name] > own), key=bits.__getitem__, default=None)
    share = 0.0 if one["share"] is None else one["share"]
    return (
        one["name"],
        one["type"],
        f"{one['bytes']:,}",
        f"{one['loss']:.5f}",
        f"{100 * share:.1f} %",
        _step(one, smaller, bits),
        _step(one, larger, bits),
    )


def _step(one: PlannedTensor, other: str | None, bits: Mapping[str, float]) -> str:
    """Another type, and how the loss and the bytes would change."""
    if other is None or one["loss"] is None:
        return "-"
    size = one["bytes"] * (bits[other] / bits[one["type"]] - 1)
    return f"{other} {one['losses'][other] - one['loss']:+.5f}, {size / 1000:+,.0f} kB"


def show_analysis(reporter: Reporter, result: AnalyzeResult) -> None:
    """A line per tensor."""
    types = sorted(result["bits"], key=result["bits"].__getitem__)
    names = list(dict.fromkeys(name for one in result["tensors"] for name in one["observers"]))
    columns = ("tensor", "shape", "peak", "kurtosis", "QSUR", "input peak", "kappa", *types)
    lines = [
        (
            one["name"],
            " x ".join(map(str, one["shape"])),
            f"{one['peak']:.1f}",
            f"{one['kurtosis']:.1f}",
            number(one["qsur"]),
            number(one["input_peak"]),
            number(one["kappa"]),
            *(number(one["losses"].get(name)) for name in types),
        )
        for one in result["tensors"]
    ]
    reporter.table(columns, lines, right=range(2, len(columns)))
    reporter.note("types: the divergence (KL) that the tensor alone causes, estimated, before any compensation")
    if reporter.as_json:
        return
    reporter.line("")
    seen = [one for one in result["tensors"] if one["observers"]]
    ranges = [(one["name"], number(one["blocks"]), *(number(one["observers"][n]) for n in names)) for one in seen]
    reporter.table(("tensor", "Q4_0", *names), ranges, right=range(1, len(names) + 2))
    reporter.note(
        "relative error of the outputs: Q4_0's blocks of 32, and four bits with one range per row, by observer"
    )
    for what, value in result["correlations"].items():
        reporter.line(f"rank correlation of {what}: {number(value)}")


def number(value: float | None) -> str:
    """Three digits, or a dash."""
    return "-" if value is None else f"{value:.3g}"
