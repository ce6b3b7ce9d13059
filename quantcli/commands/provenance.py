"""What a file says about how it was made."""

from __future__ import annotations

from quantcli import __version__
from quantcli.calibration.quality import Used, Wish
from quantcli.commands.job import ConvertRequest
from quantcli.container import Value, string, u32
from quantcli.plan.recipes import FileType


def of(request: ConvertRequest, file_type: FileType, used: Used) -> dict[str, Value]:
    """How the file was made: enough to make it again, nothing about the machine or the time."""
    made = {"quantcli.version": string(__version__), **request.made_by}
    if not file_type.is_float and not file_type.copies:
        made["quantcli.search"] = string(request.search)
        if request.choice.name is not None:
            made["quantcli.method"] = string(request.choice.name)
        if request.sizing is not None:
            made["quantcli.plan"] = string(request.sizing.text)
        if request.snap != "auto":
            made["quantcli.snap"] = string(request.snap)
        if request.wish is not None:
            made |= _calibrated_with(request.wish, used)
    return made


def _calibrated_with(wish: Wish, used: Used) -> dict[str, Value]:
    return {
        "quantcli.quality": string(wish.quality),
        "quantcli.compensation": string(wish.method or "none"),
        "quantcli.transforms": string(",".join(wish.transforms)),
        "quantcli.calibration.tokens": u32(used.real),
        "quantcli.calibration.sampled_tokens": u32(used.sampled),
        "quantcli.calibration.corpus": string(used.corpus),
    }
