"""`quantcli calibrate MODEL -o DIR`"""

from pathlib import Path
from typing import Annotated, Optional

import typer

from quantcli.calibration.quality import QUALITIES
from quantcli.cli.common import AsJson, Debug, Quiet
from quantcli.cli.frame import frame
from quantcli.cli.running import Threads

NAME = "calibrate"
BEST = QUALITIES["best"]
Option = typer.Option


def run(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A checkpoint folder or GGUF file.")],
    output: Annotated[Path, Option("--output", "-o", metavar="DIR", help="The folder to fill.")],
    calibration: Annotated[
        Optional[list[Path]],
        Option(metavar="TEXT", readable=False, help="A text to use before the bundled one; repeatable."),
    ] = None,
    tokens: Annotated[int, Option(metavar="N", min=8192, help="Tokens of text at most.")] = BEST.tokens,
    sampled_tokens: Annotated[
        int, Option(metavar="N", min=0, help="Tokens that the model itself writes.")
    ] = BEST.sampled,
    resume: Annotated[bool, Option("--resume", help="Continue in a folder that an interrupted run left.")] = False,
    threads: Threads = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Collect what `convert --quality good|best --statistics DIR` needs: moments, importance, sampled text."""
    reporter = frame.start(quiet=quiet, as_json=as_json, debug=debug)
    from quantcli.commands import calibrate

    request = calibrate.CalibrateRequest(
        model=model,
        output=output,
        texts=tuple(calibration or ()),
        tokens=tokens,
        sampled=sampled_tokens,
        resume=resume,
        threads=threads,
    )
    frame.finish(calibrate.run(request, reporter))
