"""`quantcli reproduce FILE.gguf --source DIR`"""

from pathlib import Path
from typing import Annotated, Optional

import typer

from quantcli.cli.common import AsJson, Debug, Quiet
from quantcli.cli.frame import frame

NAME = "reproduce"
Option = typer.Option


def run(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE.gguf", readable=False, help="A file of `convert` (the first shard)."),
    ],
    source: Annotated[
        Optional[Path],
        Option(metavar="DIR", readable=False, help="What it was made from: a folder or GGUF."),
    ] = None,
    imatrix: Annotated[
        Optional[Path],
        Option(metavar="FILE", readable=False, help="Its importance matrix. Default: collected anew, where it was."),
    ] = None,
    statistics: Annotated[
        Optional[Path],
        Option(metavar="DIR", readable=False, help="Its statistics (--keep-statistics). Default: computed anew."),
    ] = None,
    calibration: Annotated[
        Optional[list[Path]], Option(metavar="TEXT", readable=False, help="Its calibration texts, in their order.")
    ] = None,
    merge_lora: Annotated[
        Optional[Path], Option(metavar="DIR", readable=False, help="The adapter that was merged into it.")
    ] = None,
    lora_base: Annotated[
        Optional[Path], Option(metavar="DIR", readable=False, help="The base model of the adapter that it is.")
    ] = None,
    output: Annotated[
        Optional[Path], Option("--output", "-o", metavar="DIR", help="Keep what is made again in this folder.")
    ] = None,
    threads: Annotated[Optional[int], Option(metavar="N", min=1, help="Worker threads. Default: all cores.")] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Make a file again from what it says of itself, and compare every byte."""
    reporter = frame.start(quiet=quiet, as_json=as_json, debug=debug)
    from quantcli.cli import parse
    from quantcli.commands import reproduce

    request = reproduce.ReproduceRequest(
        file=file,
        source=source,
        imatrix=imatrix,
        statistics=statistics,
        calibration=tuple(calibration or ()),
        merge_lora=merge_lora,
        lora_base=lora_base,
        output=output,
        threads=threads,
    )
    result = reproduce.run(request, parse.from_texts, reporter)
    frame.finish(result)
    if as_json and not result["same"]:
        raise typer.Exit(1)  # the object says why
    reproduce.require(result)
