"""`quantcli check SOURCE`"""

from pathlib import Path
from typing import Annotated, Optional

import typer

from quantcli.cli.common import AsJson, Debug, Quiet
from quantcli.cli.frame import frame

NAME = "check"


def run(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", readable=False, help="Checkpoint folder.")],
    against: Annotated[
        Optional[Path],
        typer.Option(metavar="FILE", readable=False, help="Hold this GGUF file of the model against the checkpoint."),
    ] = None,
    architecture: Annotated[
        Optional[str], typer.Option(metavar="NAME", help="Read the checkpoint as this architecture.")
    ] = None,
    pre_tokenizer: Annotated[
        Optional[str], typer.Option(metavar="NAME", help="llama.cpp's name of the BPE pre-tokenizer.")
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Compare token ids and chat template of a would-be GGUF file with the checkpoint's; write nothing."""
    reporter = frame.start(quiet=quiet, as_json=as_json, debug=debug)
    from quantcli.commands import check

    request = check.CheckRequest(source=source, against=against, architecture=architecture, pre_tokenizer=pre_tokenizer)
    result = check.run(request, reporter)
    frame.finish(result)
    if as_json and not result["ok"]:
        raise typer.Exit(1)  # the object says why
    check.require(result)
