"""What a conversion is asked for, and what it will be: requests, parts, jobs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from quantcli import places
from quantcli.calibration.quality import Wish
from quantcli.container import Value
from quantcli.ggml import tensor_types
from quantcli.ggml.tensor_types import TensorType
from quantcli.methods import plain
from quantcli.methods.snap import Mode
from quantcli.methods.table import Choice
from quantcli.model import Model, ModelTensor
from quantcli.plan import shards
from quantcli.plan.division import Division
from quantcli.plan.overrides import Override, Setting
from quantcli.plan.plan import Plan
from quantcli.plan.recipes import FileType

if TYPE_CHECKING:  # they bring what most conversions do without, the runner above all
    from quantcli.commands.compensating import Made, Ready
    from quantcli.commands.sizing import Sizing
    from quantcli.report.results import CarriedTensor, CompensatedTensor


@dataclass(frozen=True, kw_only=True, repr=False)
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
    snap: Mode = "auto"  # carry over weights that lie on the grid of their type
    wish: Wish | None = None  # calibrate and compensate
    sizing: Sizing | None = None  # choose the language model's types for a size; there are no file types then
    pad: bool = False  # feed-forward layers to a multiple of 256
    threads: int | None = None
    dry_run: bool = False
    skip_existing: bool = False
    kept: frozenset[Path] = frozenset()  # files that are there and stay
    every_tensor: bool = False  # of a dry run of several types, in the table
    force: bool = False
    part: Division | None = None  # only this part of the shards
    resume: bool = False  # keep what is needed to go on after a kill, and go on with what an earlier run has left
    split_max_size: int | None = None  # bytes
    keep_split: bool = False
    metadata: tuple[Setting, ...] = ()
    chat_template: str | None = None
    strict: bool = False  # warnings are errors
    allow_no_imatrix: bool = False
    architecture: str | None = None
    pre_tokenizer: str | None = None
    mmproj: FileType | None = None  # write the projector, too
    mmproj_only: bool = False  # write the projector, in the file types, and nothing else
    image_break: bool = False  # with the embedding that ends each row of an image
    lora_base: Path | None = None  # the source is an adapter of this model
    merge_lora: Path | None = None  # an adapter that is merged into the source
    lora_scale: float = 1.0
    options: Mapping[str, object] = field(default_factory=dict)  # those that decide bytes, as they were typed
    names: str = "default"  # how outputs are called: after the source, or by the "convention" of GGUF
    made_by: Mapping[str, Value] = field(default_factory=dict)  # what another verb says about its outputs
    checksums: Path | None = None
    html: Path | None = None  # a page about what was made
    option_files: tuple[Path, ...] = ()  # files that options were read from: an output must be none of them

    def types_for(self, model: Model) -> Sequence[FileType]:
        """The file types that a model of this source is written in."""
        return (self.mmproj,) if self.mmproj is not None and model.role == "projector" else self.file_types

    @property
    def search(self) -> str:
        """The name of the scale search."""
        return self.choice.settings.search or plain.DEFAULT_SEARCH


@dataclass(eq=False, repr=False)
class Part:
    """One model of a job: per type its plan, and the path of its output (shards get numbers)."""

    model: Model
    plans: list[Plan]
    targets: list[Path]
    ready: Ready | None = None  # once it runs
    made: Sequence[Made] | None = None  # per plan, what calibration made, once it is known

    @property
    def files(self) -> list[list[Path]]:
        """The files of every plan."""
        return [_files(path, one) for path, one in zip(self.targets, self.plans, strict=True)]

    @property
    def source_bytes(self) -> int:
        """Bytes of the tensors that are read, as they are stored: all of the model's, or what a part needs of them."""
        if self.plans and not any(one.whole for one in self.plans):
            return _stored_bytes(self.model.tensors)
        return _stored_bytes({id(entry.tensor): entry.tensor for one in self.plans for entry in one.entries}.values())


def _stored_bytes(tensors: Iterable[ModelTensor]) -> int:
    return sum(tensor_types.tensor_bytes(one.stored, one.shape) for one in tensors)


def _files(path: Path, one: Plan) -> list[Path]:
    """The files of a plan, or of a part of one."""
    if one.whole is None:
        return shards.file_names(path, len(one.shards))
    names = shards.file_names(path, len(one.whole.shards))
    return [names[number] for number in one.numbers]


@dataclass(eq=False, repr=False)
class Job:
    """A request that is known to be possible. The first part is the model that a result is about."""

    request: ConvertRequest
    parts: list[Part]
    threads: int
    outcomes: dict[Path, list[CompensatedTensor]] = field(default_factory=dict)  # by an output's first file
    carried: dict[Path, list[CarriedTensor]] = field(default_factory=dict)  # likewise: what was snapped
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def plans(self) -> list[Plan]:
        return [one for part in self.parts for one in part.plans]

    @property
    def files(self) -> list[list[Path]]:
        """The files of every plan."""
        return [files for part in self.parts for files in part.files]

    @property
    def written(self) -> list[Path]:
        """Every file that the job makes, the page about it included."""
        paths = [path for files in self.files for path in files]
        return paths if self.request.html is None else [*paths, self.request.html]

    @property
    def total_bytes(self) -> int:
        """Bytes of the sources' tensors."""
        return sum(part.source_bytes for part in self.parts)

    @property
    def far(self) -> bool:
        """Whether weights are read from elsewhere than this machine."""
        return any(places.elsewhere(name) for part in self.parts for name in part.model.weight_files)

    def close(self) -> None:
        """Close the sources."""
        for part in self.parts:
            part.model.close()
