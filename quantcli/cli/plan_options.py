"""`quantcli plan MODEL --like T -o FILE`"""

from pathlib import Path
from typing import Annotated, Optional

from typer import Argument, Option

from quantcli.cli.common import AsJson, Debug, Quiet
from quantcli.cli.frame import frame
from quantcli.cli.running import Threads
from quantcli.cli.sizes import (
    AtLeast,
    Calibration,
    Candidates,
    Keep,
    KeepStatistics,
    Like,
    SameType,
    SampledTokens,
    Statistics,
    TargetBpw,
    TargetSize,
)

NAME = "plan"


def run(
    model: Annotated[Path, Argument(metavar="MODEL", help="A checkpoint folder or GGUF file.")],
    output: Annotated[
        Optional[Path], Option("--output", "-o", metavar="FILE", help="The --tensor-type-file to write.")
    ] = None,
    target_size: TargetSize = None,
    target_bpw: TargetBpw = None,
    like: Like = None,
    candidates: Candidates = None,
    at_least: AtLeast = None,
    keep: Keep = None,
    same_type: SameType = None,
    tensor_type: Annotated[
        Optional[list[str]], Option(metavar="REGEX=T", help="Tensors whose name matches get type T; repeatable.")
    ] = None,
    quality: Annotated[
        Optional[str], Option(metavar="NAME", help="For files of this quality (`convert --quality`). Default: fast.")
    ] = None,
    explain: Annotated[
        bool, Option("--explain", help="Show every tensor, its loss, and what other types would change.")
    ] = False,
    force: Annotated[bool, Option("--force", help="Replace an existing output.")] = False,
    calibration: Calibration = None,
    sampled_tokens: SampledTokens = None,
    statistics: Statistics = None,
    keep_statistics: KeepStatistics = None,
    threads: Threads = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Find the types that lose least in a size, as a --tensor-type-file for `convert` and llama-quantize."""
    reporter = frame.start(quiet=quiet, as_json=as_json, debug=debug)
    from quantcli.cli import parse
    from quantcli.commands import plan

    conversion = parse.convert_request(
        source=model,
        size=parse.SizeTexts(target_size, target_bpw, like, candidates, at_least or (), keep or (), same_type or ()),
        tensor_types=tensor_type or (),
        quality=quality,
        calibration=calibration or (),
        sampled_tokens=sampled_tokens,
        statistics=statistics,
        keep_statistics=keep_statistics,
        threads=threads,
    )
    request = plan.PlanRequest(conversion=conversion, output=output, explain=explain, force=force)
    frame.finish(plan.run(request, reporter))
