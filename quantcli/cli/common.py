"""Options that several commands take, declared once."""

from __future__ import annotations

from typing import Annotated

import typer


def complete_types(incomplete: str) -> list[str]:
    """What a shell offers for -t: recipes that begin like the last word between commas."""
    from quantcli.plan import recipes

    given, _, last = incomplete.rpartition(",")
    names = [name for name, one in recipes.FILE_TYPES.items() if one.selectable and name.startswith(last.upper())]
    return [f"{given},{name}" if given else name for name in names]


AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes, only warnings and errors.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
