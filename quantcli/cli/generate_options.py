"""`quantcli generate MODEL -p PROMPT`"""

from pathlib import Path
from typing import Annotated, Optional

import typer

from quantcli.cli.common import AsJson, Debug, Quiet
from quantcli.cli.frame import frame
from quantcli.cli.running import Activations, Exact, KvType, Threads, use_threads

NAME = "generate"
Option = typer.Option


def run(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A GGUF file or checkpoint folder.")],
    prompt: Annotated[
        str, Option("--prompt", "-p", metavar="TEXT", help="The beginning of the text, or the question.")
    ],
    count: Annotated[int, Option("--tokens", "-n", metavar="N", min=1, help="Generate at most N tokens.")] = 64,
    chat: Annotated[bool, Option("--chat", help="Put the prompt into the model's chat template.")] = False,
    system: Annotated[Optional[str], Option(metavar="TEXT", help="System message, with --chat.")] = None,
    temperature: Annotated[float, Option(metavar="X", min=0, help="0 takes the likeliest token; above, draw.")] = 0.0,
    top_k: Annotated[int, Option(metavar="N", min=0, help="Draw from the N likeliest (0: all).")] = 40,
    top_p: Annotated[float, Option(metavar="P", min=0, max=1, help="Draw from the likeliest that sum to P.")] = 0.95,
    min_p: Annotated[
        float, Option(metavar="P", min=0, max=1, help="Leave out what is less than P times the likeliest.")
    ] = 0.05,
    seed: Annotated[Optional[int], Option(metavar="N", min=0, help="The same seed draws the same text.")] = None,
    ctx: Annotated[
        Optional[int],
        Option("--ctx", "-c", metavar="N", min=4, help=("Most tokens of prompt and text. Default: what is needed.")),
    ] = None,
    ignore_eos: Annotated[bool, Option("--ignore-eos", help="Go on after the model ends its text.")] = False,
    raw: Annotated[
        bool,
        Option(
            "--raw",
            help=(
                "Write the text as it is, for files and pipes. Without it control characters (all but line ends and "
                "tabs) and what turns the direction of writing are escaped, on terminals and in pipes."
            ),
        ),
    ] = False,
    threads: Threads = None,
    activations: Activations = None,
    exact: Exact = False,
    kv_type: KvType = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Continue a text, or answer a question."""
    reporter = frame.start(quiet=quiet, as_json=as_json, debug=debug, raw=raw)
    use_threads(threads)
    from quantcli.commands import generate
    from quantcli.runner.sampling import Sampling
    from quantcli.runner.session import RunOptions

    request = generate.GenerateRequest(
        model=model,
        prompt=prompt,
        count=count,
        chat=chat,
        system=system,
        sampling=Sampling(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, seed=seed),
        ignore_end=ignore_eos,
        options=RunOptions(activations=activations, exact=exact, kv_type=kv_type, threads=threads, length=ctx),
    )
    frame.finish(generate.run(request, reporter), "the text ends here")
