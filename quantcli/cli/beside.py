"""What contradicts itself in a request for a projector, an adapter or a page."""

from __future__ import annotations

import math

from quantcli.commands.job import ConvertRequest
from quantcli.errors import UsageError
from quantcli.families.written import FILE_TYPES

ADAPTER_TYPE = "F32"  # of adapters, where none is named: they are small, and llama.cpp's converter writes it, too


def check(request: ConvertRequest) -> None:
    """Raises UsageError."""
    if request.mmproj is not None and request.mmproj_only:
        raise UsageError(
            "--mmproj writes the projector beside the text, --mmproj-only writes it alone",
            hint="leave one of them out; with --mmproj-only the type is that of -t",
        )
    if request.image_break and request.mmproj is None and not request.mmproj_only:
        raise UsageError("--image-break is for projectors", hint="give --mmproj T or --mmproj-only as well")
    if request.lora_base is not None:
        _check_adapter(request)
    if request.merge_lora is None and request.lora_scale != 1.0:
        raise UsageError("--lora-scale is for --merge-lora", hint="give the adapter with --merge-lora DIR")
    if not math.isfinite(request.lora_scale):
        raise UsageError("is no finite number", where="--lora-scale", hint="1 is the adapter as it was trained")
    written = request.file_types if request.mmproj_only else [request.mmproj] if request.mmproj else []
    for file_type in written:
        if file_type.name not in FILE_TYPES:
            raise UsageError(
                f"a projector cannot be written as {file_type.name}",
                where="-t" if request.mmproj_only else "--mmproj",
                hint=f"choose one of {', '.join(FILE_TYPES)}",
            )
    if request.mmproj_only:
        _refuse(request, "--mmproj-only")
    if request.html is not None and request.dry_run:
        raise UsageError("--html is about files that are there, --dry-run writes none", hint="leave one of them out")


def _check_adapter(request: ConvertRequest) -> None:
    for option, there in (
        ("--merge-lora", request.merge_lora is not None),
        ("--mmproj", request.mmproj is not None),
        ("--mmproj-only", request.mmproj_only),
    ):
        if there:
            raise UsageError(f"{option} and --lora-base exclude each other", hint="leave one of them out")
    for file_type in request.file_types:
        if file_type.name not in FILE_TYPES:
            raise UsageError(
                f"an adapter cannot be written as {file_type.name}", hint=f"choose one of {', '.join(FILE_TYPES)}"
            )
    _refuse(request, "--lora-base")


def _refuse(request: ConvertRequest, option: str) -> None:
    """What is for language models alone."""
    given = {
        "--imatrix": request.imatrix is not None or request.collect,
        "--quality, --method": request.wish is not None or request.choice.name is not None,
        "--transform pad": request.pad,
        "a size (--like, --target-size, --target-bpw)": request.sizing is not None,
        "--chat-template": request.chat_template is not None,
        "--pre-tokenizer": request.pre_tokenizer is not None,
        "--tensor-type": bool(request.overrides),
        "--html": request.html is not None,
        "--split-max-size, --keep-split": request.split_max_size is not None or request.keep_split,
    }
    for name, there in given.items():
        if there:
            raise UsageError(f"{name} is for language models: {option} writes none", hint="leave it out")
