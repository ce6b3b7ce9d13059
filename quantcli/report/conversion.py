"""The report of a conversion as one self-contained page: what was made, beside the stock recipes of its size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from quantcli.report import heat, html, picture
from quantcli.report.heat import Cell
from quantcli.report.measurements import ComparedModel
from quantcli.report.reported import MADE, SEARCH, STOCK, Report, ReportedFile, ReportedOutput
from quantcli.report.results import CompensatedTensor, ConvertResult, OutputResult

SERIES = {
    MADE: "made here",
    SEARCH: "the same types, search alone",
    STOCK: "stock recipes, ggml's search",
}
MEASURED = ("mean KLD", "to stock", "99.9 %", "PPL ratio", "same top %")
ABOUT = (
    "mean KLD: Kullback-Leibler divergence of the next token's probabilities from the model's, in nats (less is "
    "better); 99.9 %: what one prediction in a thousand exceeds; PPL ratio: perplexity over the model's; same top: how "
    "often both find the same token likeliest. ± is one standard error."
)


def render(result: ConvertResult, report: Report, version: str) -> str:
    """The page. ``report``: what `commands.reporting` found."""
    name = result["source"]["name"]
    parts = [f"<h1>{escape(name)}, quantized</h1>", *_about(result, report, version)]
    parts += _sizes(report)
    if report["unmeasured"] is None:
        parts += ["<h2>Chunk by chunk</h2>", html.pictured(picture.spread(_entries(report)))]
    outputs = {output["path"]: output for output in result["outputs"]}
    for one in report["outputs"]:
        parts += _output(one, outputs[one["path"]], report)
    return html.page(f"{name}, quantized", parts, heat.STYLE)


def _about(result: ConvertResult, report: Report, version: str) -> Iterator[str]:
    source = result["source"]
    yield (
        f'<p class="note">quantcli {escape(version)}, from {escape(source["path"])} ({escape(source["architecture"])}, '
        f"{source['bytes'] / 1e6:,.1f} MB) in {result['seconds']:,.1f} s.</p>"
    )
    if report["unmeasured"] is not None:
        yield (
            f"<p><strong>Nothing was measured, this page has sizes alone:</strong> {escape(report['unmeasured'])}</p>"
        )
        return
    yield (
        f'<p class="note">Measured on {report["tokens"]:,} tokens of calibration text that were held out (chunks of '
        f"{report['context']}, the second half of each is scored). {ABOUT} Stock recipes have the types of "
        "llama-quantize, ggml's search, and an importance matrix: the one that was given, else one of the calibration "
        "text. Text that nobody here has seen judges better: <code>quantcli compare SOURCE FILE -f TEXT</code>.</p>"
    )
    for text in result["warnings"]:
        yield f'<p class="note">Warning: {escape(text)}</p>'


# ---- size against divergence


def _entries(report: Report) -> list[ComparedModel]:
    return [one["measured"] for one in report["files"] if "measured" in one]


def _sizes(report: Report) -> Iterator[str]:
    yield "<h2>Size against divergence</h2>"
    measured = [one for one in report["files"] if "measured" in one]
    if measured:
        series = [{**one["measured"], "text": SERIES[one["kind"]]} for one in measured]
        yield html.pictured(picture.scatter(series))  # type: ignore[arg-type]  # the same keys
    yield html.rows(
        ("file", "MB", "bpw", *(MEASURED if measured else ()), "made how"),
        [_size_line(one, report) for one in report["files"]],
    )
    if measured:
        yield (
            '<p class="note">to stock: the divergence over that of the largest stock recipe above that is no larger, '
            "or of the recipe with the same types.</p>"
        )


def _size_line(one: ReportedFile, report: Report) -> list[str]:
    line = [escape(one["name"]), f"{one['bytes'] / 1e6:,.1f}", f"{one['bpw']:.3f}"]
    if "measured" not in one:
        blank = len(MEASURED) if any("measured" in other for other in report["files"]) else 0
        return [*line, *("–",) * blank, SERIES[one["kind"]]]
    found, stock = one["measured"], stock_of(one, report["files"])
    ratio = "–"
    if stock is not None and "measured" in stock and stock["measured"]["kld"]["mean"] > 0:
        ratio = f"{found['kld']['mean'] / stock['measured']['kld']['mean']:.3f}"
    return [
        *line,
        html.with_error(f"{found['kld']['mean']:.5f}", f"{found['kld']['se']:.5f}"),
        ratio,
        f"{found['kld']['p999']:.3f}",
        html.with_error(f"{found['ppl']['ratio']:.4f}", f"{found['ppl']['ratio_se']:.4f}"),
        f"{found['same_top']:.1f}",
        SERIES[one["kind"]],
    ]


def stock_of(one: ReportedFile, files: Sequence[ReportedFile]) -> ReportedFile | None:
    """The stock recipe that a file stands against: the largest that is no larger (a header's difference aside)."""
    if one["kind"] == STOCK:
        return None
    limit = one["bytes"] * 1.0005 + 4096
    return max(
        (other for other in files if other["kind"] == STOCK and other["bytes"] <= limit),
        key=lambda other: other["bytes"],
        default=None,
    )


# ---- by language


def _parts(made: ReportedFile, report: Report) -> Iterator[str]:
    """One output beside its stock recipe, language by language."""
    files = [one for one in report["files"] if "measured" in one]
    stock = stock_of(made, files)
    if not report["parts"] or made not in files or stock is None:
        return
    own, other = files.index(made), files.index(stock)
    yield "<h3>By language</h3>"
    yield '<p class="note">Which language a stretch of 64 tokens is in is guessed from its words and letters.</p>'
    lines = []
    for part in report["parts"]:
        means = [html.with_error(f"{part['kld'][one]:.4f}", f"{part['kld_se'][one]:.4f}") for one in (own, other)]
        ratio = f"{part['kld'][own] / part['kld'][other]:.3f}" if part["kld"][other] > 0 else "–"
        ratios = [f"{part['ppl_ratio'][one]:.3f}" for one in (own, other)]
        lines.append([escape(part["name"]), *means, ratio, *ratios, f"{part['scored']:,}"])
    name = escape(stock["name"])
    head = ("text", "mean KLD", f"of stock {name}", "to stock", "PPL ratio", f"of stock {name}", "predictions")
    yield html.rows(head, lines)


# ---- an output


def _output(one: ReportedOutput, output: OutputResult, report: Report) -> Iterator[str]:
    yield f"<h2>{escape(output['path'])}</h2>"
    size = f"{output['bytes']:,} bytes, {output['bpw']:.3f} bits per weight"
    yield f'<p class="note">{escape(output["type"])}, {size}.</p>'
    made = next(
        (one for one in report["files"] if one["kind"] == MADE and output["path"].endswith(f"{one['name']}.gguf")), None
    )
    if made is not None and "compensated" in output:
        yield from _stages(made, output, report)
        yield from _outcomes(output["compensated"])
    if made is not None:
        yield from _parts(made, report)
    yield "<h3>Layer by layer</h3>"
    known = any(tensor["share"] is not None for tensor in one["tensors"])
    yield (
        '<p class="note">The type of every tensor, and its share of the loss: the divergence that it alone causes, '
        "estimated before any compensation, over the sum of all.</p>"
        if known
        else '<p class="note">The type of every tensor.</p>'
    )
    cells = {
        tensor["name"]: Cell(
            tensor["type"],
            "" if tensor["share"] is None else f"{100 * tensor['share']:.1f} %",
            tensor["share"] if known else tensor["bpw"],
            f"{tensor['name']}: {tensor['type']}, {tensor['bpw']:.3f} bits per weight"
            + ("" if tensor["loss"] is None else f", loss {tensor['loss']:.5f}"),
        )
        for tensor in one["tensors"]
    }
    yield heat.table(cells)


def _stages(made: ReportedFile, output: OutputResult, report: Report) -> Iterator[str]:
    """What was gained step by step, measured."""
    if "measured" not in made:
        return
    alone = next((one for one in report["files"] if one.get("of") == output["path"]), None)
    stock = stock_of(made, report["files"])
    yield "<h3>What each stage gained</h3>"
    lines, before = [], None
    for what, one in (
        ("stock recipe: ggml's search, importance", stock),
        ("types and search of this file, nothing else", alone),
        (f"calibrated: {output.get('quality', '')}", made),
    ):
        if one is None or "measured" not in one:
            continue
        mean = one["measured"]["kld"]["mean"]
        change = "" if before is None else f"{100 * (mean / before - 1):+.1f} %"
        lines.append([what, escape(one["name"]), f"{one['bytes'] / 1e6:,.1f}", f"{mean:.5f}", change])
        before = mean
    yield html.rows(("stage", "file", "MB", "mean KLD", "change"), lines)


def _outcomes(compensated: Sequence[CompensatedTensor]) -> Iterator[str]:
    """By kind of tensor, what the encodings miss of its outputs."""
    kinds: dict[str, list[CompensatedTensor]] = {}
    for one in compensated:
        kinds.setdefault(heat.place_of(one["name"])[1], []).append(one)
    lines = []
    for kind, own in kinds.items():
        plain, made = (sum(one[key] for one in own) / len(own) for key in ("plain", "compensated"))
        kept = sum(one["method"] != "plain" for one in own)
        change = f"{100 * (made / plain - 1):+.1f} %" if plain > 0 else "–"
        lines.append([escape(kind), str(len(own)), f"{plain:.5f}", f"{made:.5f}", change, f"{kept} of {len(own)}"])
    if lines:
        yield (
            '<p class="note">Error of the outputs on held-out text relative to their mean square, without and '
            "with compensation (below 0: it makes up for errors before it); where it is no better, the plain encoding "
            "stays.</p>"
        )
        yield html.rows(("tensor", "count", "plain", "compensated", "change", "compensated kept"), lines)
