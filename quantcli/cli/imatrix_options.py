"""`quantcli imatrix MODEL -o FILE`"""

from pathlib import Path
from typing import Annotated, Optional

import typer

from quantcli.cli.common import AsJson, Debug, Quiet
from quantcli.cli.frame import frame
from quantcli.cli.running import (
    Activations,
    ByLayer,
    ChunkLimit,
    Exact,
    OnEngine,
    ParseSpecial,
    States,
    Threads,
    use_threads,
)

NAME = "imatrix"
Option = typer.Option


def run(
    model: Annotated[
        Optional[Path],
        typer.Argument(
            metavar="[MODEL]",
            help=("A GGUF file or checkpoint folder. Without one, the --in-file matrices are merged."),
        ),
    ] = None,
    file: Annotated[
        Optional[Path],
        Option(
            "--file", "-f", metavar="TEXT", help=("The calibration text. Default: the one that comes with quantcli.")
        ),
    ] = None,
    output: Annotated[
        Path,
        Option(
            "--output",
            "-o",
            metavar="FILE",
            help=("Where to write: GGUF, or the legacy format where the name ends in .dat."),
        ),
    ] = Path("imatrix.gguf"),
    ctx: Annotated[
        Optional[int],
        Option(
            "--ctx", "-c", metavar="N", min=4, help="Tokens of a chunk. Default: 512, or the model's context if less."
        ),
    ] = None,
    chunks: ChunkLimit = None,
    from_chunk: Annotated[int, Option(metavar="N", min=0, help="Skip the first N chunks.")] = 0,
    in_file: Annotated[Optional[list[Path]], Option(metavar="FILE", help="Add an earlier matrix; repeatable.")] = None,
    output_frequency: Annotated[int, Option(metavar="N", min=0, help="Save every N chunks (0: only at the end).")] = 10,
    resume: Annotated[
        bool, Option("--resume", help="Continue the interrupted run that wrote the output file.")
    ] = False,
    process_output: Annotated[bool, Option("--process-output", help="Collect for output.weight too.")] = False,
    layerwise: ByLayer = False,
    low_memory: Annotated[bool, Option("--low-memory", hidden=True)] = False,  # its former name
    states: States = None,
    engine: OnEngine = None,
    threads: Threads = None,
    activations: Activations = None,
    exact: Exact = False,
    parse_special: ParseSpecial = False,
    force: Annotated[bool, Option("--force", help="Replace an existing output.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Collect an importance matrix from a text."""
    reporter = frame.start(quiet=quiet, as_json=as_json, debug=debug)
    use_threads(threads)
    from quantcli.commands import layer_major
    from quantcli.commands.imatrix import ImatrixRequest
    from quantcli.commands.imatrix import run as collect
    from quantcli.runner.session import RunOptions

    by_layer = layer_major.wish(
        output.with_name(f"{output.name}.states"),
        layerwise=layerwise or low_memory,
        states=states,
        resume=resume and (layerwise or low_memory),
        engine=engine,
    )
    request = ImatrixRequest(
        model=model,
        text=file,
        output=output,
        length=ctx,
        chunks=chunks,
        first=from_chunk,
        earlier=tuple(in_file or ()),
        frequency=output_frequency,
        resume=resume,
        process_output=process_output,
        layerwise=by_layer,
        engine=engine,
        parse_special=parse_special,
        force=force,
        options=RunOptions(activations=activations or "float", exact=exact, threads=threads, length=ctx),
    )
    frame.finish(collect(request, reporter), "the file holds the complete chunks; --resume continues")
