"""`quantcli assemble FOLDER`"""

from pathlib import Path
from typing import Annotated, Optional

import typer

from quantcli.cli.common import AsJson, Debug, Quiet
from quantcli.cli.frame import frame

NAME = "assemble"


def run(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", readable=False, help="The folder that all parts were written to.")
    ],
    checksums: Annotated[
        Optional[Path],
        typer.Option(
            metavar="SHA256SUMS", readable=False, help="Write the sums of all files to this list when all is well."
        ),
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Check the shards that the parts of a conversion made: all there, whole, of one plan."""
    reporter = frame.start(quiet=quiet, as_json=as_json, debug=debug)
    from quantcli.commands import assemble

    result = assemble.run(folder, reporter, listed=checksums)
    frame.finish(result)
    if as_json and not result["ok"]:
        raise typer.Exit(1)  # the object says why
    assemble.require(result)
