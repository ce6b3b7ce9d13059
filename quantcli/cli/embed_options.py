"""`quantcli embed MODEL -f LINES`"""

from pathlib import Path
from typing import Annotated, Optional

import typer

from quantcli.cli.common import AsJson, Debug, Quiet
from quantcli.cli.frame import frame
from quantcli.cli.running import Activations, Exact, Threads, use_threads

NAME = "embed"
Option = typer.Option


def run(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A GGUF file of any type, or a checkpoint folder.")],
    file: Annotated[
        Path,
        Option("--file", "-f", metavar="LINES", help="A text per line; for a ranker a query, a tab and a document."),
    ],
    pooling: Annotated[
        Optional[str],
        Option("--pooling", metavar="KIND", help="`mean`, `cls`, `last` or `rank`. Default: as the file says."),
    ] = None,
    normalize: Annotated[bool, Option("--normalize", help="Make every vector as long as 1.")] = False,
    truncate: Annotated[bool, Option("--truncate", help="Cut lines that are longer than the model's context.")] = False,
    threads: Threads = None,
    activations: Activations = None,
    exact: Exact = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Embed every line of a file; with --json the vectors are printed."""
    reporter = frame.start(quiet=quiet, as_json=as_json, debug=debug)
    use_threads(threads)
    from quantcli.commands import embed
    from quantcli.runner.session import RunOptions

    request = embed.EmbedRequest(
        model=model,
        text=file,
        pooling=pooling,
        normalize=normalize,
        truncate=truncate,
        options=RunOptions(activations=activations, exact=exact, kv_type="F32", threads=threads),
    )
    frame.finish(embed.run(request, reporter))
