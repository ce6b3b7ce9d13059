"""`quantcli bench`"""

from typing import Annotated, Optional

from typer import Option

from quantcli.cli.common import AsJson, Debug
from quantcli.cli.frame import frame

NAME = "bench"


def run(
    parameters: Annotated[
        Optional[list[str]],
        Option("--parameters", metavar="N", help="Size of a model to estimate for (8B, 600M); repeatable. 1B and 8B."),
    ] = None,
    threads: Annotated[Optional[int], Option(min=1, max=256, help="Threads of products; default: all cores.")] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Measure this machine in ten to twenty seconds: multiplications, memory, encoders, tokens per second to expect."""
    reporter = frame.start(as_json=as_json, debug=debug)
    from quantcli.cli import parse_parameters
    from quantcli.commands import bench

    frame.finish(bench.run(parse_parameters.parse(parameters or ["1B", "8B"]), threads, reporter))
