"""`quantcli convert SRC -t TYPE...`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

from typer import Argument, Option

from quantcli.cli.common import AsJson, Debug, Quiet
from quantcli.cli.frame import frame
from quantcli.report.terminal import Reporter, duration, size

NAME = "convert"
FALLBACKS_SHOWN = 8


def run(
    source: Annotated[
        Path,
        Argument(metavar="SRC", readable=False, help="Checkpoint folder or GGUF file (the first shard of several)."),
    ],
    types: Annotated[
        list[str],
        Option(
            "--type",
            "-t",
            metavar="T",
            help=(
                "File type: Q4_K_M, Q8_0, BF16 ... in any case, or its number; repeat for several files from one read. "
                "`quantcli formats` lists them."
            ),
        ),
    ],
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
        Optional[Path], Option(metavar="FILE", readable=False, help="More REGEX=T, one per line.")
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
                "Scale search: `best`, or `ggml` for the bytes that llama.cpp's tools write (IQ1 to IQ3: only its error weights). "
                "Default: the best there is."
            ),
        ),
    ] = None,
    method: Annotated[
        Optional[str],
        Option(
            metavar="NAME",
            help=(
                "How a matrix becomes blocks: `plain` or `weighted`, the search without and with importance; "
                "`hqq`, small errors to the power of 3/4 (docs/methods.md). "
                "Default: the search, weighted where there is importance."
            ),
        ),
    ] = None,
    threads: Annotated[Optional[int], Option(metavar="N", min=1, help="Worker threads. Default: all cores.")] = None,
    dry_run: Annotated[bool, Option("--dry-run", help="Show the plan and the exact sizes; write nothing.")] = False,
    force: Annotated[bool, Option("--force", "-f", help="Replace existing outputs.")] = False,
    split_max_size: Annotated[
        Optional[str], Option(metavar="N", help="Split into shards of at most N bytes (suffixes M and G).")
    ] = None,
    keep_split: Annotated[bool, Option("--keep-split", help="One output shard for each shard of the source.")] = False,
    metadata: Annotated[
        Optional[list[str]],
        Option(
            metavar="KEY=VALUE", help="Set a metadata entry; KEY=TYPE:VALUE names the type (u32, i32, f32, bool, str)."
        ),
    ] = None,
    chat_template: Annotated[
        Optional[Path], Option(metavar="FILE", readable=False, help="Chat template to store.")
    ] = None,
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
    checksums: Annotated[
        Optional[Path], Option(metavar="FILE", readable=False, help="Add the files' sha256 to this list.")
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Convert a checkpoint or GGUF file to quantized GGUF files, in one pass."""
    reporter = frame.start(quiet=quiet, as_json=as_json, debug=debug)
    from quantcli.commands import convert

    request = convert.Request(
        source=source,
        types=tuple(types),
        output=None if output is None else Path(output),
        imatrix=imatrix,
        into_folder=output is not None and output.endswith("/"),
        include_weights=tuple(include_weights or ()),
        exclude_weights=tuple(exclude_weights or ()),
        tensor_types=tuple(tensor_type or ()),
        tensor_type_file=tensor_type_file,
        output_tensor_type=output_tensor_type,
        token_embedding_type=token_embedding_type,
        leave_output_tensor=leave_output_tensor,
        pure=pure,
        allow_requantize=allow_requantize,
        search=search,
        method=method,
        threads=threads,
        dry_run=dry_run,
        force=force,
        split_max_size=split_max_size,
        keep_split=keep_split,
        metadata=tuple(metadata or ()),
        chat_template=chat_template,
        allow_no_imatrix=allow_no_imatrix,
        architecture=architecture,
        pre_tokenizer=pre_tokenizer,
        checksums=checksums,
    )
    result = _run(reporter, convert, request)
    reporter.object(result)
    if not as_json:
        (_show_plan if dry_run else _show_files)(reporter, result)


def _run(reporter: Reporter, convert, request) -> dict[str, Any]:
    collected = convert.calibrated(request, lambda name, total: reporter.steps(f"imatrix {name}", total))
    if collected.imatrix != request.imatrix:
        reporter.note(f"note: the importance matrix is kept as {collected.imatrix}")
    job = convert.prepare(collected)
    for text in job.notes:
        reporter.note(f"note: {text}")
    for text in job.warnings:
        reporter.warning(text)
    if request.dry_run:
        return convert.describe(job)
    with reporter.progress(f"convert {job.model.name}", job.total_bytes) as advance:
        return convert.execute(job, progress=advance)


def _show_plan(reporter: Reporter, result: dict[str, Any]) -> None:
    for output in result["outputs"]:
        reporter.table(
            ("tensor", "shape", "type", "bytes"),
            [(t["name"], " x ".join(map(str, t["shape"])), t["type"], f"{t['bytes']:,}") for t in output["tensors"]],
            title=f"{output['path']} ({output['type']})",
            right=(3,),
        )
        reporter.line("")
    _show_files(reporter, result)


def _show_files(reporter: Reporter, result: dict[str, Any]) -> None:
    from quantcli.commands.inspect import summary

    rows = []
    for output in result["outputs"]:
        mix = ", ".join(f"{t['tensors']} {t['type']}" for t in summary(output["tensors"])["types"])
        rows.append((output["path"], output["type"], f"{output['bytes']:,}", f"{output['bpw']:.3f}", mix))
    reporter.table(("file", "type", "bytes", "bpw", "tensors"), rows, right=(2, 3))
    for output in result["outputs"]:
        _show_fallbacks(reporter, output)
    if result.get("weights_per_second"):
        speed = result["weights_per_second"] / 1e6
        reporter.note(
            f"done in {duration(result['seconds'])}: read {size(result['source']['bytes'])}, {speed:.1f} M weights/s"
        )


def _show_fallbacks(reporter: Reporter, output: dict[str, Any]) -> None:
    """Never silent: a file that is not what its recipe says."""
    groups: dict[tuple[str, str], int] = {}
    for entry in output["fallback_tensors"]:
        key = entry["wanted"], entry["type"]
        groups[key] = groups.get(key, 0) + 1
    if groups:
        text = ", ".join(f"{count} {wanted} -> {got}" for (wanted, got), count in groups.items())
        count = sum(groups.values())
        reporter.warning(
            f"{output['type']}: {count} of {len(output['tensors'])} tensors have rows that their type's block "
            f"does not divide and fall back: {text}"
        )
