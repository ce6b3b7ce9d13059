"""`quantcli compare REFERENCE MODEL... -f TEXT`"""

from pathlib import Path
from typing import Annotated, Optional

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

NAME = "compare"
Option = typer.Option


def run(
    reference: Annotated[
        Path,
        typer.Argument(
            metavar="REFERENCE",
            help=(
                "A GGUF file or checkpoint folder; or recorded predictions: llama.cpp's base logits, "
                "a --reference-cache."
            ),
        ),
    ],
    models: Annotated[list[Path], typer.Argument(metavar="MODEL...", help="What to compare with it.")],
    file: Annotated[
        Optional[list[Path]],
        Option("--file", "-f", metavar="TEXT", help=("A text that no model was calibrated on; repeatable.")),
    ] = None,
    ctx: Context = 512,
    chunks: ChunkLimit = None,
    threads: Threads = None,
    activations: Activations = None,
    reference_activations: Annotated[
        Optional[str], Option(metavar="KIND", help=("The same for the reference. Default: float."))
    ] = None,
    exact: Exact = False,
    kv_type: KvType = None,
    parse_special: ParseSpecial = False,
    html: Annotated[
        Optional[Path], Option(metavar="FILE", help="Write a report with pictures, one self-contained page.")
    ] = None,
    svg: Annotated[Optional[Path], Option(metavar="FILE", help="Write the picture of size against divergence.")] = None,
    reference_cache: Annotated[
        Optional[Path],
        Option(
            metavar="FILE",
            help=("Record the reference's predictions (likeliest tokens, mass of the rest); used where FILE exists."),
        ),
    ] = None,
    top: Annotated[
        Optional[int],
        Option("--reference-top", metavar="N", min=1, help=("Tokens of each recorded position. Default: 512.")),
    ] = None,
    reference_states: Annotated[
        Optional[Path],
        Option(
            metavar="FILE",
            help=(
                "Keep what leaves the reference's last layer: exact, and small. Used where FILE exists: the reference "
                "is not run again."
            ),
        ),
    ] = None,
    layerwise: ByLayer = False,
    states: States = None,
    resume: Resume = False,
    engine: OnEngine = None,
    force: Annotated[bool, Option("--force", help="Replace existing reports and pictures.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Measure how far models are from a reference: KL divergence, perplexity ratio, agreement."""
    reporter = frame.start(quiet=quiet, as_json=as_json, debug=debug)
    use_threads(threads)
    from quantcli.commands import compare, layer_major
    from quantcli.runner.session import RunOptions

    request = compare.CompareRequest(
        reference=reference,
        models=models,
        texts=tuple(file or ()),
        length=ctx,
        chunks=chunks,
        parse_special=parse_special,
        options=RunOptions(activations=activations, exact=exact, kv_type=kv_type, threads=threads, length=ctx),
        reference_activations=reference_activations,
        record=reference_cache,
        top=top,
        states=reference_states,
        engine=engine,
        layerwise=layer_major.wish(
            layer_major.folder_beside(reference, "compare"),
            layerwise=layerwise,
            states=states,
            resume=resume,
            engine=engine,
        ),
        html=html,
        svg=svg,
        force=force,
    )
    frame.finish(compare.run(request, reporter))
