"""`quantcli analyze MODEL`"""

from pathlib import Path
from typing import Annotated, Optional

from typer import Argument, Option

from quantcli.cli.common import AsJson, Debug, Quiet
from quantcli.cli.frame import frame
from quantcli.cli.running import Threads
from quantcli.cli.sizes import Calibration, Candidates, KeepStatistics, SampledTokens, Statistics

NAME = "analyze"


def run(
    model: Annotated[Path, Argument(metavar="MODEL", help="A checkpoint folder or GGUF file.")],
    candidates: Candidates = None,
    calibration: Calibration = None,
    sampled_tokens: SampledTokens = None,
    statistics: Statistics = None,
    keep_statistics: KeepStatistics = None,
    html: Annotated[
        Optional[Path],
        Option(metavar="FILE", readable=False, help="Write a page with maps of the model, one self-contained file."),
    ] = None,
    force: Annotated[bool, Option("--force", "-f", help="Replace an existing page.")] = False,
    threads: Threads = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Show what every type of every tensor would cost, how much the model minds, outliers, and ranges."""
    reporter = frame.start(quiet=quiet, as_json=as_json, debug=debug)
    from quantcli.cli import parse
    from quantcli.commands import analyze

    conversion = parse.convert_request(
        source=model,
        size=parse.SizeTexts(like="Q4_K_M", candidates=candidates),
        calibration=calibration or (),
        sampled_tokens=sampled_tokens,
        statistics=statistics,
        keep_statistics=keep_statistics,
        threads=threads,
    )
    frame.finish(analyze.run(analyze.AnalyzeRequest(conversion=conversion, html=html, force=force), reporter))
