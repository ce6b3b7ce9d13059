"""`quantcli compare REFERENCE MODEL... -f TEXT`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from quantcli import __version__
from quantcli.cli.common import AsJson, Debug, Quiet
from quantcli.cli.frame import frame
from quantcli.cli.running import (
    Activations,
    ChunkLimit,
    Context,
    Exact,
    KvType,
    ParseSpecial,
    Threads,
    finish,
    use_threads,
)
from quantcli.report.terminal import Reporter

NAME = "compare"
Option = typer.Option


def run(
    reference: Annotated[
        Path,
        typer.Argument(
            metavar="REFERENCE",
            help=(
                "A GGUF file or checkpoint folder; or recorded predictions: llama.cpp's base logits, a --reference-cache."
            ),
        ),
    ],
    models: Annotated[list[Path], typer.Argument(metavar="MODEL...", help="What to compare with it.")],
    file: Annotated[
        Optional[list[Path]],
        Option("--file", "-f", metavar="TEXT", help=("A text that no model was calibrated on; repeatable.")),
    ] = None,
    ctx: Context = 512,
    chunks: ChunkLimit = None,
    threads: Threads = None,
    activations: Activations = None,
    reference_activations: Annotated[
        Optional[str], Option(metavar="KIND", help=("The same for the reference. Default: float."))
    ] = None,
    exact: Exact = False,
    kv_type: KvType = None,
    parse_special: ParseSpecial = False,
    html: Annotated[
        Optional[Path], Option(metavar="FILE", help="Write a report with pictures, one self-contained page.")
    ] = None,
    svg: Annotated[Optional[Path], Option(metavar="FILE", help="Write the picture of size against divergence.")] = None,
    reference_cache: Annotated[
        Optional[Path],
        Option(
            metavar="FILE",
            help=("Record the reference's predictions (likeliest tokens, mass of the rest); used where FILE exists."),
        ),
    ] = None,
    top: Annotated[
        Optional[int],
        Option("--reference-top", metavar="N", min=1, help=("Tokens of each recorded position. Default: 512.")),
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Measure how far models are from a reference: KL divergence, perplexity ratio, agreement."""
    reporter = frame.start(quiet=quiet, as_json=as_json, debug=debug)
    use_threads(threads)
    from quantcli.commands import compare
    from quantcli.runner.session import RunOptions

    request = compare.Request(
        reference=reference,
        models=models,
        texts=tuple(file or ()),
        length=ctx,
        chunks=chunks,
        parse_special=parse_special,
        options=RunOptions(activations=activations, exact=exact, kv_type=kv_type, threads=threads, length=ctx),
        reference_activations=reference_activations,
        record=reference_cache,
        top=top,
    )
    job = compare.prepare(request)
    try:
        for text in job.warnings:
            reporter.warning(text)
        result = compare.execute(job, lambda name, total: reporter.steps(f"compare on {name}", total))
    finally:
        job.close()
    _show(reporter, result)
    _draw(reporter, result, html, svg)
    finish(reporter, result)


def _draw(reporter: Reporter, result: dict[str, Any], html: Path | None, svg: Path | None) -> None:
    if html is None and svg is None:
        return
    from quantcli.output.writer import write_text
    from quantcli.report.html import render
    from quantcli.report.picture import standalone

    for path, make in ((html, lambda: render(result, __version__)), (svg, lambda: standalone(result))):
        if path is not None:
            write_text(path, make())
            reporter.note(f"written: {path}")


def _show(reporter: Reporter, result: dict[str, Any]) -> None:
    columns = (
        "model",
        "text",
        "MB",
        "bpw",
        "act",
        "KLD",
        "same top %",
        "RMS dp %",
        "PPL ratio",
        "median",
        "90 %",
        "95 %",
        "99 %",
        "99.9 %",
        "max",
        "KLD - first",
    )
    rows = []
    for e in result["models"]:
        kld, ppl = e["kld"], e["ppl"]
        paired = e["difference"]["kld"] if "difference" in e else None
        rows.append(
            (
                e["name"],
                e["text"],
                f"{e['bytes'] / 1e6:.1f}",
                f"{e['bpw']:.2f}",
                e["activations"],
                f"{kld['mean']:.6f} +- {kld['se']:.6f}",
                f"{e['same_top']:.2f}",
                f"{e['rms_dp']:.3f}",
                f"{ppl['ratio']:.5f} +- {ppl['ratio_se']:.5f}",
                *(f"{kld[key]:.4f}" for key in ("median", "p90", "p95", "p99", "p999", "max")),
                f"{paired['mean']:+.6f} +- {paired['se']:.6f}" if paired else "-",
            )
        )
    reporter.table(columns, rows, right=range(2, len(columns)))
    reporter.note(
        f"act: rounding of activations; that of the reference: {result['reference'].get('activations', 'as recorded')}"
    )
    for e in result["models"]:
        if "record_error" in e:
            found = e["record_error"]
            missed = f"{100 * found['relative']:.2g} %"
            reporter.note(
                f"{e['name']}, {e['text']}: the record misses {missed} of the divergence "
                f"(measured at {found['positions']} positions)"
            )
