"""What `quantcli analyze` finds out, as one self-contained page."""

from __future__ import annotations

from html import escape

from quantcli.report import heat, html
from quantcli.report.heat import Cell
from quantcli.report.plans import AnalyzeResult, number

NOTE = (
    "QSUR: how much of the cube around its values a tensor uses (mean over blocks of 32 columns, d-th root; more is "
    "better). peak: the largest weight over the root mean square. kappa: divergence per squared error of the outputs. "
    "Types: the divergence (KL, nats) that the tensor alone causes in that type, estimated, before any compensation."
)


def render(result: AnalyzeResult, version: str) -> str:
    """The page: maps of one type's cost and of the tensors' shapes, then all figures."""
    name, types = result["model"], sorted(result["bits"], key=result["bits"].__getitem__)
    parts = [
        f"<h1>{escape(name)}: what types cost</h1>",
        f'<p class="note">quantcli {escape(version)}. {NOTE}</p>',
    ]
    shown = result["probed"]
    if shown is not None:
        parts += [f"<h2>Divergence in {escape(shown)}, tensor by tensor</h2>", _losses(result, shown)]
    parts += [
        "<h2>Outliers and QSUR</h2>",
        '<p class="note">QSUR, and beneath it the peak; the colour is the kurtosis beyond 3.</p>',
        _shapes(result),
        "<h2>Ranges</h2>",
        '<p class="note">Error of the outputs relative to their mean square (columns taken for independent): blocks of '
        "32 (Q4_0), and four bits with one range per row as each observer finds it.</p>",
        _ranges(result),
        "<h2>Rank correlations</h2>",
        html.rows(
            ("of", "Spearman"), [[escape(what), number(value)] for what, value in result["correlations"].items()]
        ),
        "<h2>All figures</h2>",
        html.rows(("tensor", "peak", "kurtosis", "QSUR", "kappa", *types), _lines(result, types)),
    ]
    return html.page(f"{name}: what types cost", parts, heat.STYLE)


def _lines(result: AnalyzeResult, types: list[str]) -> list[list[str]]:
    return [
        [
            escape(one["name"]),
            f"{one['peak']:.1f}",
            f"{one['kurtosis']:.1f}",
            number(one["qsur"]),
            number(one["kappa"]),
            *(number(one["losses"].get(each)) for each in types),
        ]
        for one in result["tensors"]
    ]


def _losses(result: AnalyzeResult, shown: str) -> str:
    found = {one["name"]: one["losses"].get(shown) for one in result["tensors"]}
    total = sum(loss for loss in found.values() if loss is not None) or 1.0
    return heat.table(
        {
            name: Cell(number(loss), "" if loss is None else f"{100 * loss / total:.1f} %", loss, f"{name} in {shown}")
            for name, loss in found.items()
        }
    )


def _shapes(result: AnalyzeResult) -> str:
    return heat.table(
        {
            one["name"]: Cell(
                number(one["qsur"]),
                f"{one['peak']:.1f}",
                max(one["kurtosis"] - 3, 0.0),
                f"{one['name']}: kurtosis {one['kurtosis']:.1f}",
            )
            for one in result["tensors"]
        }
    )


def _ranges(result: AnalyzeResult) -> str:
    seen = [one for one in result["tensors"] if one["observers"]]
    names = list(dict.fromkeys(name for one in seen for name in one["observers"]))
    lines = [
        [escape(one["name"]), number(one["blocks"]), *(number(one["observers"].get(name)) for name in names)]
        for one in seen
    ]
    return html.rows(("tensor", "Q4_0", *names), lines)
