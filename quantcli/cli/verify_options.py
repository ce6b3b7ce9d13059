"""`quantcli verify FILE...`"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Optional

import typer

from quantcli.cli.common import AsJson, Debug, Quiet
from quantcli.cli.frame import frame

NAME = "verify"


def run(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", readable=False, help="GGUF files (of a split model, all shards).")
    ],
    checksums: Annotated[
        Optional[Path],
        typer.Option(metavar="SHA256SUMS", readable=False, help="Compare with this list, as sha256sum writes it."),
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Check structure, offsets, finite scales in every block, and the sha256 of GGUF files."""
    reporter = frame.start(quiet=quiet, as_json=as_json, debug=debug)
    from quantcli.commands import verify
    from quantcli.report.terminal import size

    total = sum(os.path.getsize(path) for path in files if os.path.isfile(path))
    with reporter.progress("verify", total) as advance:
        result = verify.verify(files, checksums=checksums, progress=advance)
    if as_json:
        reporter.object(result)
    for entry in result["files"]:
        if entry["ok"]:
            reporter.line(
                f"ok    {entry['path']}  {entry['tensors']} tensors, {size(entry['bytes'])}, sha256 {entry['sha256']}"
            )
        else:
            reporter.line(f"FAIL  {entry['path']}  {entry['problem']}")
    if not result["ok"] and as_json:
        raise typer.Exit(1)
    verify.require(result)
