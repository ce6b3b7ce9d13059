"""`quantcli inspect FILE_OR_DIR`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from quantcli.cli.common import AsJson, Debug, Quiet
from quantcli.cli.frame import frame
from quantcli.report.terminal import Reporter, size

NAME = "inspect"


def run(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="FILE_OR_DIR", readable=False, help="A GGUF file, a checkpoint folder or an importance matrix."
        ),
    ],
    tensors: Annotated[bool, typer.Option("--tensors", help="List every tensor.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Show metadata, tensors, types and bits per weight, from headers alone."""
    reporter = frame.start(quiet=quiet, as_json=as_json, debug=debug)
    from quantcli.commands import inspect

    result = inspect.inspect(path)
    reporter.object(result)
    if not as_json:
        (_show_imatrix if result["kind"] == "imatrix" else _show_model)(reporter, result, tensors)


def _show_model(reporter: Reporter, result: dict[str, Any], tensors: bool) -> None:
    from quantcli.commands.inspect import one_line

    what = {"gguf": f"GGUF version {result.get('version')}", "checkpoint": "checkpoint"}[result["kind"]]
    reporter.line(
        f"{result['path']}: {what}, architecture {result['architecture']}, name {result['name']!r}"
        + (f", file type {result['file_type']}" if result["file_type"] else "")
    )
    for note in result.get("notes", ()):
        reporter.note(f"note: {note}")
    reporter.line("")
    reporter.table(
        ("metadata", "type", "value"),
        [(key, entry["type"], one_line(entry)) for key, entry in result["metadata"].items()],
    )
    reporter.line("")
    rows = [
        (t["type"], t["tensors"], f"{t['weights']:,}", size(t["bytes"]), f"{t['bpw']:.3f}") for t in result["types"]
    ]
    total = (
        "all",
        len(result["tensors"]),
        f"{result['weights']:,}",
        size(result["tensor_bytes"]),
        f"{result['bpw']:.3f}",
    )
    reporter.table(("type", "tensors", "weights", "size", "bpw"), [*rows, total], right=(1, 2, 3, 4))
    if tensors:
        reporter.line("")
        reporter.table(
            ("tensor", "shape", "type", "bytes"),
            [(t["name"], " x ".join(map(str, t["shape"])), t["type"], f"{t['bytes']:,}") for t in result["tensors"]],
            right=(3,),
        )


def _show_imatrix(reporter: Reporter, result: dict[str, Any], tensors: bool) -> None:
    entries = result["entries"]
    reporter.line(
        f"{result['path']}: importance matrix, {len(entries)} entries, {result['chunks']} chunks, "
        f"from {', '.join(result['datasets']) or 'an unnamed text'}"
    )
    for warning in result["warnings"]:
        reporter.warning(warning)
    reporter.line("")
    shown = entries if tensors else entries[:20]
    columns = list(entries[0]) if entries else []
    reporter.table(columns, [[_cell(entry[c]) for c in columns] for entry in shown], right=range(1, len(columns)))
    if len(shown) < len(entries):
        reporter.line(f"... and {len(entries) - len(shown)} more (--tensors shows all)")


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "-" if value is None else str(value)
