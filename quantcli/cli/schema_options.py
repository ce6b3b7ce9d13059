"""`quantcli schema COMMAND`"""

from typing import Annotated, Optional

import typer

from quantcli.cli.common import AsJson, Debug
from quantcli.cli.frame import frame

NAME = "schema"


def run(
    command: Annotated[
        Optional[str], typer.Argument(metavar="[COMMAND]", help="A command, or `error`. Without one: all of them.")
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Print the JSON schema of what a command prints with --json."""
    reporter = frame.start(as_json=as_json, debug=debug)
    from quantcli.commands import schema

    frame.finish(schema.run(command, reporter))
