"""`quantcli perplexity MODEL -f TEXT`"""

from pathlib import Path
from typing import Annotated

import typer

from quantcli.cli.common import AsJson, Debug, Quiet
from quantcli.cli.frame import frame
from quantcli.cli.running import (
    Activations,
    ByLayer,
    ChunkLimit,
    Context,
    Exact,
    KvType,
    OnEngine,
    ParseSpecial,
    Resume,
    States,
    Threads,
    use_threads,
)

NAME = "perplexity"


def run(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A GGUF file of any type, or a checkpoint folder.")],
    file: Annotated[Path, typer.Option("--file", "-f", metavar="TEXT", help="The text, for example wiki.test.raw.")],
    ctx: Context = 512,
    chunks: ChunkLimit = None,
    threads: Threads = None,
    activations: Activations = None,
    exact: Exact = False,
    kv_type: KvType = None,
    parse_special: ParseSpecial = False,
    layerwise: ByLayer = False,
    states: States = None,
    resume: Resume = False,
    engine: OnEngine = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Measure the perplexity of a text, as llama.cpp defines it."""
    reporter = frame.start(quiet=quiet, as_json=as_json, debug=debug)
    use_threads(threads)
    from quantcli.commands import layer_major, perplexity
    from quantcli.runner.session import RunOptions

    request = perplexity.PerplexityRequest(
        model=model,
        text=file,
        length=ctx,
        chunks=chunks,
        parse_special=parse_special,
        engine=engine,
        layerwise=layer_major.wish(
            layer_major.folder_beside(model, "perplexity"),
            layerwise=layerwise,
            states=states,
            resume=resume,
            engine=engine,
        ),
        options=RunOptions(activations=activations, exact=exact, kv_type=kv_type, threads=threads, length=ctx),
    )
    frame.finish(perplexity.run(request, reporter))
