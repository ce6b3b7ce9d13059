"""`quantcli convert SRC -t TYPE...`"""

from pathlib import Path
from typing import Annotated, Optional

from typer import Argument, Option

from quantcli.cli.common import AsJson, Debug, Quiet, complete_types
from quantcli.cli.fleet import Part, Resume
from quantcli.cli.frame import frame
from quantcli.cli.running import OnEngine
from quantcli.cli.sizes import (
    AtLeast,
    Calibration,
    Candidates,
    Keep,
    KeepStatistics,
    Like,
    MaxKld,
    SameType,
    SampledTokens,
    Statistics,
    TargetBpw,
    TargetSize,
)

NAME = "convert"


def run(
    source: Annotated[
        Path,
        Argument(metavar="SRC", readable=False, help="Checkpoint folder or GGUF file (the first shard of several)."),
    ],
    types: Annotated[
        Optional[list[str]],
        Option(
            "--type",
            "-t",
            metavar="T",
            help=(
                "File type: Q4_K_M, Q8_0, BF16 ... in any case, or its number; repeat -t, or put commas between types, "
                "for several files from one read. `quantcli formats` lists them."
            ),
            autocompletion=complete_types,
        ),
    ] = None,
    target_size: TargetSize = None,
    target_bpw: TargetBpw = None,
    like: Like = None,
    max_kld: MaxKld = None,
    candidates: Candidates = None,
    at_least: AtLeast = None,
    keep: Keep = None,
    same_type: SameType = None,
    output: Annotated[
        Optional[str],
        Option(
            "--output",
            "-o",
            metavar="FILE|DIR",
            help=("Where to write; `name/` is a folder. Default: <name>-<TYPE>.gguf in the current folder."),
        ),
    ] = None,
    imatrix: Annotated[
        Optional[Path],
        Option(
            metavar="FILE",
            readable=False,
            help=("Importance matrix (GGUF or legacy); `auto` collects one from the bundled text first."),
        ),
    ] = None,
    include_weights: Annotated[
        Optional[list[str]],
        Option(metavar="NAME", help="Use the importance matrix only for tensors whose name holds NAME."),
    ] = None,
    exclude_weights: Annotated[
        Optional[list[str]], Option(metavar="NAME", help="Don't use it for tensors whose name holds NAME.")
    ] = None,
    tensor_type: Annotated[
        Optional[list[str]],
        Option(metavar="REGEX=T", help="Tensors whose name matches get type T; repeatable, first match wins."),
    ] = None,
    tensor_type_file: Annotated[
        Optional[Path],
        Option(
            metavar="FILE", readable=False, help="More REGEX=T, one per line; or a GGUF file: types as it has them."
        ),
    ] = None,
    output_tensor_type: Annotated[Optional[str], Option(metavar="T", help="Type of output.weight.")] = None,
    token_embedding_type: Annotated[Optional[str], Option(metavar="T", help="Type of the token embeddings.")] = None,
    leave_output_tensor: Annotated[bool, Option("--leave-output-tensor", help="Don't quantize output.weight.")] = False,
    pure: Annotated[bool, Option("--pure", help="No mixture: the recipe's base type everywhere.")] = False,
    allow_requantize: Annotated[
        bool, Option("--allow-requantize", help="Accept a quantized source, and its double loss.")
    ] = False,
    search: Annotated[
        Optional[str],
        Option(
            metavar="NAME",
            help=(
                "Scale search: `best`, or `ggml` for the bytes that llama.cpp's tools write (IQ1 to IQ3: only its "
                "error weights). Default: the best there is."
            ),
        ),
    ] = None,
    method: Annotated[
        Optional[str],
        Option(
            metavar="NAME",
            help=(
                "How a matrix becomes blocks: `plain` or `weighted`, the search without and with importance; "
                "`hqq`, small errors to the power of 3/4; `gptq`, `sequential`, calibrated (docs/methods.md). "
                "Default: the search, weighted where there is importance."
            ),
        ),
    ] = None,
    snap: Annotated[
        Optional[str],
        Option(
            metavar="MODE",
            help=(
                "Carry over weights that already lie on the grid of their type (QAT, GPTQ, AWQ, BitNet): `auto`, "
                "`always` or `never` (docs/sources.md). Default: auto; never with --search ggml."
            ),
        ),
    ] = None,
    quality: Annotated[
        Optional[str],
        Option(
            metavar="NAME",
            help=(
                "`fast`, the search alone; `good`, calibrated in one pass (AWQ, GPTQ); `best`, every matrix encoded "
                "for the inputs that the encoded ones before it give: minutes for small models, hours for large ones "
                "(docs/fidelity.md). Default: fast."
            ),
        ),
    ] = None,
    transform: Annotated[
        Optional[list[str]],
        Option(
            metavar="NAME",
            help=(
                "Rewrite the model exactly: `awq`, `smoothquant`, `equalize` rescale channels; `pad` widens "
                "feed-forward layers to a multiple of 256, which k- and IQ types need. Repeatable."
            ),
        ),
    ] = None,
    calibration: Calibration = None,
    sampled_tokens: SampledTokens = None,
    statistics: Statistics = None,
    keep_statistics: KeepStatistics = None,
    threads: Annotated[Optional[int], Option(metavar="N", min=1, help="Worker threads. Default: all cores.")] = None,
    dry_run: Annotated[bool, Option("--dry-run", help="Show the plan and the exact sizes; write nothing.")] = False,
    tensors: Annotated[
        bool, Option("--tensors", help="With --dry-run: every tensor, also for several types.", show_default=False)
    ] = False,
    force: Annotated[bool, Option("--force", help="Replace existing outputs.")] = False,
    skip_existing: Annotated[bool, Option("--skip-existing", help="Keep existing outputs, make the others.")] = False,
    resume: Resume = False,
    split_max_size: Annotated[
        Optional[str], Option(metavar="N", help="Split into shards of at most N bytes (suffixes M and G).")
    ] = None,
    part: Part = None,
    engine: OnEngine = None,
    keep_split: Annotated[bool, Option("--keep-split", help="One output shard for each shard of the source.")] = False,
    metadata: Annotated[
        Optional[list[str]],
        Option(
            metavar="KEY=VALUE",
            help=(
                "Set a metadata entry; KEY=TYPE:VALUE names the type (u32, i32, f32, bool, str). "
                "Keys of lists (general.tags) take A,B."
            ),
        ),
    ] = None,
    chat_template: Annotated[
        Optional[Path], Option(metavar="FILE", readable=False, help="Chat template to store.")
    ] = None,
    strict: Annotated[
        bool,
        Option(
            "--strict",
            help=(
                "Make every warning of the conversion an error before any work: chat templates that do not compile, "
                "tensors that the importance matrix lacks or their rows keep from their type or method."
            ),
        ),
    ] = False,
    allow_no_imatrix: Annotated[
        bool, Option("--allow-no-imatrix", help="Quantize without importance what llama.cpp refuses to.")
    ] = False,
    architecture: Annotated[
        Optional[str],
        Option(metavar="NAME", help="Read the checkpoint as this architecture (class name of config.json)."),
    ] = None,
    pre_tokenizer: Annotated[
        Optional[str],
        Option(metavar="NAME", help="llama.cpp's name of the BPE pre-tokenizer, when it is not recognised."),
    ] = None,
    mmproj: Annotated[
        Optional[str],
        Option(
            metavar="T",
            help=(
                "Write the projector (vision, audio) as well, as mmproj-<name>-<T>.gguf beside the text: F16, BF16, "
                "F32 or Q8_0."
            ),
        ),
    ] = None,
    mmproj_only: Annotated[
        bool, Option("--mmproj-only", help="Write the projector and nothing else, in the type of -t.")
    ] = False,
    image_break: Annotated[
        bool,
        Option(
            "--image-break",
            help="Pixtral's projector with the embedding of [IMG_BREAK], without which llama.cpp does not load it.",
        ),
    ] = False,
    lora_base: Annotated[
        Optional[Path],
        Option(
            metavar="DIR",
            readable=False,
            help="SRC is a LoRA adapter (peft) of this model: write a GGUF adapter. Its config.json is enough.",
        ),
    ] = None,
    merge_lora: Annotated[
        Optional[Path],
        Option(metavar="DIR", readable=False, help="Merge this LoRA adapter (peft) into the model first."),
    ] = None,
    lora_scale: Annotated[
        float, Option(metavar="X", help="Multiply what --merge-lora changes by X.", show_default=False)
    ] = 1.0,
    checksums: Annotated[
        Optional[Path], Option(metavar="FILE", readable=False, help="Add the files' sha256 to this list.")
    ] = None,
    html: Annotated[
        Optional[Path],
        Option(
            metavar="FILE",
            readable=False,
            help=(
                "Write a page about what was made: size and divergence beside the stock recipes of that size, on "
                "held-out text; by language; layer by layer. Runs the model."
            ),
        ),
    ] = None,
    name: Annotated[
        str,
        Option(
            "--name",
            metavar="HOW",
            help="How files are called: `default`, after the source; `convention`, GGUF's, from the metadata.",
        ),
    ] = "default",
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Convert a checkpoint or GGUF file to quantized GGUF files, in one pass."""
    reporter = frame.start(quiet=quiet, as_json=as_json, debug=debug)
    from quantcli.cli import parse
    from quantcli.commands import fleet
    from quantcli.errors import UsageError

    size = parse.SizeTexts(
        target_size, target_bpw, like, candidates, at_least or (), keep or (), same_type or (), max_kld
    )
    if not types and lora_base is None and not size.sizes:  # as Typer says it of options that are always needed
        raise UsageError(
            "Missing option '--type' / '-t'.", hint="for example -t Q4_K_M, or a size: --like Q4_K_M, --target-size 4G"
        )

    request = parse.convert_request(
        source=source,
        types=types or (),
        size=size,
        output=output,
        imatrix=imatrix,
        include_weights=include_weights or (),
        exclude_weights=exclude_weights or (),
        tensor_types=tensor_type or (),
        tensor_type_file=tensor_type_file,
        output_tensor_type=output_tensor_type,
        token_embedding_type=token_embedding_type,
        leave_output_tensor=leave_output_tensor,
        pure=pure,
        allow_requantize=allow_requantize,
        search=search,
        method=method,
        snap=snap,
        quality=quality,
        transforms=transform or (),
        calibration=calibration or (),
        sampled_tokens=sampled_tokens,
        statistics=statistics,
        keep_statistics=keep_statistics,
        threads=threads,
        dry_run=dry_run,
        every_tensor=tensors,
        force=force,
        skip_existing=skip_existing,
        resume=resume,
        split_max_size=split_max_size,
        part=part,
        keep_split=keep_split,
        metadata=metadata or (),
        chat_template=chat_template,
        strict=strict,
        allow_no_imatrix=allow_no_imatrix,
        architecture=architecture,
        pre_tokenizer=pre_tokenizer,
        mmproj=mmproj,
        mmproj_only=mmproj_only,
        image_break=image_break,
        lora_base=lora_base,
        merge_lora=merge_lora,
        lora_scale=lora_scale,
        checksums=checksums,
        html=html,
        names=name,
    )
    frame.finish(fleet.run(request, engine, reporter))
