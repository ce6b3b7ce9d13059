"""`quantcli card OUT/`"""

from pathlib import Path
from typing import Annotated

import typer

from quantcli.cli.common import AsJson, Debug, Quiet
from quantcli.cli.frame import frame

NAME = "card"


def run(
    folder: Annotated[Path, typer.Argument(metavar="DIR", readable=False, help="The folder with the GGUF files.")],
    force: Annotated[bool, typer.Option("--force", help="Replace a README.md that is no card of quantcli's.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write the model card of a folder of GGUF files: table, picture, how they were made and how to check them."""
    reporter = frame.start(quiet=quiet, as_json=as_json, debug=debug)
    from quantcli.publishing import card

    frame.finish(card.run(folder, reporter, force=force))
