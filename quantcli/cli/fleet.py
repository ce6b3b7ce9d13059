"""Options of work that takes hours, or several machines."""

from __future__ import annotations

from typing import Annotated, Optional

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

Part = Annotated[
    Optional[str],
    Option(
        metavar="K/N",
        help=(
            "Write only the shards of worker K of N: whole shards that take about the same time. Workers need nothing "
            "of each other; `quantcli assemble` checks what they made."
        ),
    ),
]
