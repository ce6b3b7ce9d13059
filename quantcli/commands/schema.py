"""`quantcli schema`: the JSON schema of what a command prints."""

from __future__ import annotations

import json

from quantcli.errors import UsageError
from quantcli.report import schemas
from quantcli.report.terminal import SILENT, Reporter


def run(command: str | None, reporter: Reporter = SILENT) -> schemas.Json:
    """The schema of one command, or of all by their names; printed as JSON in any case. Raises UsageError."""
    if command is not None and command not in schemas.RESULTS:
        raise UsageError(
            f"no command {command!r} prints a result",
            hint=f"`quantcli schema NAME`, one of {', '.join(schemas.RESULTS)}",
        )
    found = {name: schemas.schema(name) for name in schemas.RESULTS} if command is None else schemas.schema(command)
    reporter.line(json.dumps(found, indent=1))
    return found
