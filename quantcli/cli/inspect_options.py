"""`quantcli inspect FILE_OR_DIR`"""

from pathlib import Path
from typing import Annotated

import typer

from quantcli.cli.common import AsJson, Debug, Quiet
from quantcli.cli.frame import frame

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

    frame.finish(inspect.run(path, reporter, tensors=tensors))
