"""`quantcli verify FILE...`"""

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

    result = verify.run(files, reporter, checksums=checksums)
    frame.finish(result)
    if as_json and not result["ok"]:
        raise typer.Exit(1)  # the object says why
    verify.require(result)
