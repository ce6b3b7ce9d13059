"""`quantcli graft A.gguf B.gguf --tensors REGEX -o C.gguf`"""

from pathlib import Path
from typing import Annotated

import typer

from quantcli.cli.common import AsJson, Debug, Quiet
from quantcli.cli.frame import frame

NAME = "graft"


def run(
    model: Annotated[Path, typer.Argument(metavar="A.gguf", readable=False, help="The file that gets tensors.")],
    donor: Annotated[Path, typer.Argument(metavar="B.gguf", readable=False, help="The file that they are taken from.")],
    tensors: Annotated[
        str, typer.Option("--tensors", metavar="REGEX", help="Those of B in whose names this is found.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The new file.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be written; write nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing output.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Put tensors of one GGUF file into another of the same architecture, byte for byte."""
    reporter = frame.start(quiet=quiet, as_json=as_json, debug=debug)
    from quantcli.commands import graft

    request = graft.GraftRequest(model=model, donor=donor, tensors=tensors, output=output, dry_run=dry_run, force=force)
    frame.finish(graft.run(request, reporter))
