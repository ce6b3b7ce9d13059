"""Options of work that takes hours, or several machines."""

from __future__ import annotations

from typing import Annotated

from typer import Option

Resume = Annotated[
    bool,
    Option(
        "--resume",
        help=(
            "Keep what is written when the run is killed or stops, and go on with it when the same command runs again: "
            "the same bytes. Give it the first time, too; without it nothing is kept (docs/scale.md)."
        ),
    ),
]
