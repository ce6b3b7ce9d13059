"""What `quantcli convert` is asked for, and what the file says of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from quantcli import __version__
from quantcli.calibration.quality import Used, Wish
from quantcli.container import Value, string, u32
from quantcli.ggml.tensor_types import TensorType
from quantcli.methods import plain
from quantcli.methods.table import Choice
from quantcli.model import Model
from quantcli.plan import budget
from quantcli.plan.budget import Freedom, Target
from quantcli.plan.options import Options
from quantcli.plan.overrides import Override, Setting
from quantcli.plan.recipes import FileType


@dataclass(frozen=True)
class Sizing:
    """A size in place of file types. ``wish``: what planning calibrates with; ``text``: the option, as it was given."""

    target: Target
    freedom: Freedom
    wish: Wish
    text: str

    def base(self, model: Model, options: Options) -> tuple[FileType, str]:
        """The recipe whose size is nearest, and the size as a part of a file's name."""
        size = budget.target_bytes(self.target, model, options)
        return budget.nearest(model, options, size), f"{budget.bits(size, model, options):.2f}bpw"


@dataclass(frozen=True, kw_only=True)
class ConvertRequest:
    """What the user asks for. ``imatrix`` is a file; ``collect`` makes one first, from the bundled text."""

    source: Path
    file_types: Sequence[FileType] = ()
    output: Path | None = None
    into_folder: bool = False  # `-o name/`: a folder, whether it is there yet or not
    imatrix: Path | None = None
    collect: bool = False
    include_weights: tuple[str, ...] = ()
    exclude_weights: tuple[str, ...] = ()
    overrides: tuple[Override, ...] = ()
    output_tensor_type: TensorType | None = None
    token_embedding_type: TensorType | None = None
    leave_output_tensor: bool = False
    pure: bool = False
    allow_requantize: bool = False
    choice: Choice = field(default_factory=Choice)  # of the method and its search
    wish: Wish | None = None  # calibrate and compensate
    sizing: Sizing | None = None  # choose the types for a size; no file types then
    pad: bool = False  # feed-forward layers to a multiple of 256
    threads: int | None = None
    dry_run: bool = False
    force: bool = False
    split_max_size: int | None = None  # bytes
    keep_split: bool = False
    metadata: tuple[Setting, ...] = ()
    chat_template: str | None = None
    strict: bool = False  # warnings are errors
    allow_no_imatrix: bool = False
    architecture: str | None = None
    pre_tokenizer: str | None = None
    checksums: Path | None = None
    option_files: tuple[Path, ...] = ()  # files that options were read from: an output must be none of them

    @property
    def search(self) -> str:
        """The name of the scale search."""
        return self.choice.settings.search or plain.DEFAULT_SEARCH


def provenance(request: ConvertRequest, file_type: FileType, used: Used) -> dict[str, Value]:
    """How the file was made: enough to make it again, nothing about the machine or the time."""
    made = {"quantcli.version": string(__version__)}
    if not file_type.is_float and not file_type.copies:
        made["quantcli.search"] = string(request.search)
        if request.choice.name is not None:
            made["quantcli.method"] = string(request.choice.name)
        if request.sizing is not None:
            made["quantcli.plan"] = string(request.sizing.text)
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
