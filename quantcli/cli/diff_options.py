"""`quantcli diff A.gguf B.gguf`"""

from pathlib import Path
from typing import Annotated, Optional

import typer

from quantcli.cli.common import AsJson, Debug, Quiet
from quantcli.cli.frame import frame

NAME = "diff"


def run(
    a: Annotated[Path, typer.Argument(metavar="A.gguf", readable=False, help="A GGUF file or checkpoint folder.")],
    b: Annotated[Path, typer.Argument(metavar="B.gguf", readable=False, help="The one that is compared with it.")],
    tensor: Annotated[Optional[str], typer.Option("--tensor", metavar="NAME", help="Compare this tensor only.")] = None,
    bytes_only: Annotated[
        bool, typer.Option("--bytes", help="Compare bytes only: decode nothing, compute no errors.")
    ] = False,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 1 when anything is not the same.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Show what two GGUF files do not share: metadata, types, bytes, and how far their values are apart."""
    reporter = frame.start(quiet=quiet, as_json=as_json, debug=debug)
    from quantcli.commands import diff

    result = diff.run(diff.DiffRequest(a=a, b=b, tensor=tensor, values=not bytes_only), reporter)
    frame.finish(result)
    if exit_code and not result["same"]:
        raise typer.Exit(1)
