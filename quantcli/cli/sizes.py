"""Options of commands that choose the types for a size."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

from typer import Option

TargetSize = Annotated[
    Optional[str],
    Option(
        metavar="SIZE",
        help=(
            "In place of -t: the mixture of types that loses least in at most this many bytes (4.0G, 700M, 3.5Gi), "
            "from what the model itself says on a calibration text (docs/plans.md)."
        ),
    ),
]
TargetBpw = Annotated[
    Optional[float], Option(metavar="N", min=0.5, max=32, help="The same for N bits of tensor data per weight.")
]
Like = Annotated[Optional[str], Option(metavar="T", help="The same for the size of file type T, such as Q4_K_M.")]
MaxKld = Annotated[
    Optional[float],
    Option(
        metavar="N",
        min=1e-6,
        help="The smallest file whose divergence, measured on held-out text, is at most N with its error.",
    ),
]
Candidates = Annotated[
    Optional[str],
    Option(
        metavar="LIST",
        help=(
            "Types that the mixture may use: `k`, `iq`, `legacy`, `all`, names of types, or several (k,iq4_xs). "
            "IQ types run slower on CPUs."
        ),
    ),
]
AtLeast = Annotated[
    Optional[list[str]],
    Option(metavar="REGEX=T", help="Tensors whose name matches get no type with fewer bits than T; repeatable."),
]
Keep = Annotated[
    Optional[list[str]], Option(metavar="REGEX", help="Tensors whose name matches stay as they are; repeatable.")
]
SameType = Annotated[
    Optional[list[str]],
    Option(metavar="REGEX", help="Tensors of one layer whose name matches get one type; repeatable."),
]
Calibration = Annotated[
    Optional[list[Path]],
    Option(metavar="TEXT", readable=False, help="Calibrate with this text, then the bundled one; repeatable."),
]
SampledTokens = Annotated[
    Optional[int],
    Option(metavar="N", min=0, help="Tokens that the model itself writes to be calibrated with."),
]
Statistics = Annotated[
    Optional[Path],
    Option(metavar="DIR", readable=False, help="Use what `quantcli calibrate` or --keep-statistics left there."),
]
KeepStatistics = Annotated[
    Optional[Path],
    Option(
        metavar="DIR",
        readable=False,
        help="Keep what the encoders were given: from it the same bytes follow on any machine, and a stopped run "
        "goes on.",
    ),
]
