"""Texts of the command line become typed options, here and once. What contradicts itself is an error of usage.

The commands that run models have no texts to parse: their options are typed where they are declared. Imports what
`convert` imports, so it is imported when the command runs.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict, Unpack

from quantcli.calibration.quality import COMPENSATING, PAD, TRANSFORMS, Wish, planning
from quantcli.calibration.quality import wish as wish_of
from quantcli.cli import beside
from quantcli.commands import options_record, parting, resuming
from quantcli.commands.job import ConvertRequest
from quantcli.errors import MissingFile, UsageError
from quantcli.ggml import kernels
from quantcli.ggml.tensor_types import TensorType
from quantcli.methods import snap as snapping
from quantcli.methods.seam import Settings
from quantcli.methods.table import Choice
from quantcli.plan import division, overrides, recipes
from quantcli.plan.overrides import Override
from quantcli.plan.recipes import FileType

if TYPE_CHECKING:
    from quantcli.commands.sizing import Sizing
    from quantcli.plan.budget import Freedom, Target

TEMPLATE_LIMIT = 4 << 20  # bytes of a chat template file
NAMES = ("default", "convention")
AUTOMATIC = Path("auto")  # --imatrix auto: collect one first


class SizeTexts(NamedTuple):
    """Options of commands that choose the types for a size, as they are typed."""

    target_size: str | None = None
    target_bpw: float | None = None
    like: str | None = None
    candidates: str | None = None
    at_least: Sequence[str] = ()
    keep: Sequence[str] = ()
    same_type: Sequence[str] = ()
    max_kld: float | None = None

    @property
    def sizes(self) -> dict[str, object]:
        """The sizes that are given, by their option."""
        named = {"--target-size": self.target_size, "--target-bpw": self.target_bpw, "--like": self.like}
        named["--max-kld"] = self.max_kld
        return {option: value for option, value in named.items() if value is not None}


class PassedOn(TypedDict, total=False):
    """Options of `convert` that are what they say."""

    leave_output_tensor: bool
    pure: bool
    allow_requantize: bool
    threads: int | None
    dry_run: bool
    every_tensor: bool
    skip_existing: bool
    force: bool
    resume: bool
    keep_split: bool
    strict: bool
    allow_no_imatrix: bool
    architecture: str | None
    pre_tokenizer: str | None
    mmproj_only: bool
    image_break: bool
    lora_base: Path | None
    merge_lora: Path | None
    lora_scale: float
    checksums: Path | None
    html: Path | None
    names: str


def convert_request(
    *,
    source: Path,
    types: Sequence[str] = (),
    size: SizeTexts = SizeTexts(),  # noqa: B008 (immutable)
    output: str | Path | None = None,
    imatrix: Path | None = None,
    include_weights: Sequence[str] = (),
    exclude_weights: Sequence[str] = (),
    tensor_types: Sequence[str] = (),
    tensor_type_file: Path | None = None,
    output_tensor_type: str | None = None,
    token_embedding_type: str | None = None,
    search: str | None = None,
    method: str | None = None,
    quality: str | None = None,
    transforms: Sequence[str] = (),
    calibration: Sequence[Path] = (),
    sampled_tokens: int | None = None,
    statistics: Path | None = None,
    keep_statistics: Path | None = None,
    split_max_size: str | None = None,
    metadata: Sequence[str] = (),
    chat_template: Path | None = None,
    mmproj: str | None = None,
    snap: str | None = None,
    part: str | None = None,
    **passed_on: Unpack[PassedOn],
) -> ConvertRequest:
    """The options of `convert`, texts and all. Raises UsageError, UnknownType, BadOverride, MissingFile."""
    typed = locals() | passed_on | size._asdict()  # before anything else has a name
    calibrated = (quality, method, transforms, calibration, sampled_tokens, statistics, keep_statistics)
    sizing = parse_sizing(size, types, passed_on.get("pure", False), *calibrated)
    check_names(passed_on.get("names"))
    adapters = (beside.ADAPTER_TYPE,) * (passed_on.get("lora_base") is not None)
    file_types = parse_file_types(types or adapters) if sizing is None else ()
    rules = parse_rules(tensor_types, tensor_type_file)
    in_shards = split_max_size is not None or bool(passed_on.get("keep_split"))
    request = ConvertRequest(
        source=source,
        file_types=file_types,
        sizing=sizing,
        output=None if output is None else Path(output),
        into_folder=output is not None and is_folder_name(os.fspath(output), len(file_types), in_shards),
        choice=parse_method(None if method in COMPENSATING else method, search),
        snap=parse_snap(snap, search),
        pad=PAD in transforms,
        wish=parse_quality(*calibrated) if sizing is None else (sizing.wish if sizing.wish.encodes else None),
        overrides=rules,
        options=options_record.recorded(typed, rules, calibration),
        **parse_importance(imatrix, include_weights, exclude_weights),
        output_tensor_type=parse_tensor_type(output_tensor_type, "--output-tensor-type"),
        token_embedding_type=parse_tensor_type(token_embedding_type, "--token-embedding-type"),
        split_max_size=overrides.parse_size(split_max_size) if split_max_size else None,
        metadata=tuple(overrides.parse_setting(text) for text in metadata),
        chat_template=None if chat_template is None else read_template(chat_template),
        option_files=tuple(path for path in (tensor_type_file, chat_template) if path is not None),
        mmproj=None if mmproj is None else recipes.parse(mmproj),
        part=None if part is None else division.parse(part),
        **passed_on,
    )
    beside.check(request)
    resuming.check(request)
    parting.check(request)
    return request


def check_names(names: str | None) -> None:
    """Raises UsageError for a way to call files that does not exist."""
    if names not in (None, *NAMES):
        raise UsageError(f"there are no names {names!r}", where="--name", hint=f"known: {', '.join(NAMES)}")


class ImportanceOptions(TypedDict):
    """Which importance matrix, and for which tensors."""

    imatrix: Path | None
    collect: bool
    include_weights: tuple[str, ...]
    exclude_weights: tuple[str, ...]


def parse_importance(imatrix: Path | None, include: Sequence[str], exclude: Sequence[str]) -> ImportanceOptions:
    """--imatrix and what selects from it. Raises UsageError."""
    if imatrix is None and (include or exclude):
        raise UsageError(
            "--include-weights and --exclude-weights select from an importance matrix",
            hint="give one with --imatrix FILE",
        )
    automatic = imatrix == AUTOMATIC
    return {
        "imatrix": None if automatic else imatrix,
        "collect": automatic,
        "include_weights": tuple(include),
        "exclude_weights": tuple(exclude),
    }


def parse_file_types(names: Sequence[str]) -> tuple[FileType, ...]:
    """The file types of these names (`Q4_K_M`, or `Q4_K_M,Q8_0`), each once. Raises UsageError, UnknownType."""
    if not names:
        raise UsageError("no type given", hint="say -t Q4_K_M, for example; `quantcli formats` lists the types")
    words = [word for name in names for word in name.split(",") if word.strip()] or [*names]
    return tuple({found.name: found for found in map(recipes.parse, words)}.values())


def parse_snap(mode: str | None, search: str | None) -> snapping.Mode:
    """Whether weights on a grid are carried over; ggml's search is asked for its bytes, so there they are not.

    Raises UsageError.
    """
    for known in snapping.MODES:
        if mode == known:
            return known
    if mode is not None:
        raise UsageError(f"there is no {mode!r}", where="--snap", hint=f"known: {', '.join(snapping.MODES)}")
    return "never" if search == "ggml" else "auto"


def parse_method(method: str | None, search: str | None) -> Choice:
    """How matrices become blocks. Raises UsageError for a name that does not exist."""
    if search is not None and search not in kernels.SEARCHES:
        raise UsageError(
            f"there is no search {search!r}", where="--search", hint=f"known: {', '.join(kernels.SEARCHES)}"
        )
    return Choice(method, Settings(search))


def parse_quality(
    quality: str | None,
    method: str | None,
    transforms: Sequence[str],
    texts: Sequence[Path],
    sampled_tokens: int | None,
    statistics: Path | None,
    keep_statistics: Path | None,
) -> Wish | None:
    """How much work for quality; None for none beyond the search. Raises UsageError, MissingFile."""
    known = (*TRANSFORMS, PAD)
    unknown = [name for name in transforms if name not in known]
    if unknown:
        raise UsageError(
            f"there is no transform {unknown[0]!r}", where="--transform", hint=f"known: {', '.join(known)}"
        )
    transforms = [name for name in transforms if name != PAD]
    existing(texts, statistics)
    return wish_of(quality, method, transforms, texts, sampled_tokens, statistics, keep_statistics)


def existing(texts: Sequence[Path], statistics: Path | None = None) -> Sequence[Path]:
    """The texts, if all are there. Raises MissingFile."""
    for path in texts:
        if not path.is_file():
            raise MissingFile("is not there", where=str(path), hint="give a text file with --calibration")
    if statistics is not None and not statistics.is_dir():
        raise MissingFile("is no folder", where=str(statistics), hint="make one: quantcli calibrate MODEL -o DIR")
    return texts


def parse_sizing(
    size: SizeTexts,
    types: Sequence[str],
    pure: bool,
    quality: str | None,
    method: str | None,
    transforms: Sequence[str],
    texts: Sequence[Path],
    sampled_tokens: int | None,
    statistics: Path | None,
    keep_statistics: Path | None,
) -> Sizing | None:
    """A size in place of types, with what may be chosen; None where types are given. Raises UsageError, ..."""
    given: dict[str, object] = {"-t": types, **size.sizes, "--pure": pure and bool(size.sizes)}
    given = {option: value for option, value in given.items() if value}
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} exclude each other", hint="give one of them")
    if not size.sizes:
        for option, unused in zip(("--candidates", "--at-least", "--keep", "--same-type"), size[3:7], strict=True):
            if unused:
                raise UsageError(
                    f"{option} is for plans of a size", hint="add --like Q4_K_M, --target-size 4G or --target-bpw 4.5"
                )
        return None
    wish: Wish | None = planning(existing(texts, statistics), sampled_tokens, statistics, keep_statistics)
    if parse_quality(quality, method, transforms, (), None, None, None) is not None:
        wish = parse_quality(quality, method, transforms, texts, sampled_tokens, statistics, keep_statistics)
    assert wish is not None
    from quantcli.commands.sizing import Sizing  # most conversions are given types

    ((option, value),) = size.sizes.items()
    return Sizing(parse_target(size), parse_freedom(size), wish, f"{option} {value}")


def parse_target(size: SizeTexts) -> Target:
    """Raises UsageError, UnknownType."""
    from quantcli.plan.budget import Target

    if size.target_size is not None:
        return Target(bytes=overrides.parse_amount(size.target_size, "--target-size"))
    if size.like is not None:
        like = recipes.parse(size.like)
        if like.is_float or like.copies:
            raise UsageError(f"{like.name} is no size to plan for", where="--like", hint="for example --like Q4_K_M")
        return Target(like=like)
    return Target(bpw=size.target_bpw, max_kld=size.max_kld)


def parse_freedom(size: SizeTexts) -> Freedom:
    """What a plan may choose. Raises UnknownType, BadOverride."""
    from quantcli.plan import budget

    whole = overrides.parse_tensor_type("F16", "")
    kept, together = (
        tuple(overrides.Override(text, whole, overrides.compile_pattern(text)) for text in texts)
        for texts in (size.keep, size.same_type)
    )
    return dataclasses.replace(
        budget.parse_candidates(size.candidates),
        at_least=tuple(overrides.parse(text, "--at-least") for text in size.at_least),
        keep=kept,
        together=together,
    )


def parse_rules(texts: Sequence[str], file: Path | None) -> tuple[Override, ...]:
    """--tensor-type, then what the file says. Raises BadOverride, UnknownType, MissingFile."""
    rules = [overrides.parse(text) for text in texts]
    return (*rules, *overrides.parse_file(file)) if file is not None else tuple(rules)


def parse_tensor_type(text: str | None, option: str) -> TensorType | None:
    """The type that ``option`` names, if it was given. Raises UnknownType."""
    return None if text is None else overrides.parse_tensor_type(text, option)


def is_folder_name(text: str, count: int, in_shards: bool = False) -> bool:
    """Whether -o means a folder where nothing is yet: `name/`, or any name but a file's for several types or shards."""
    return text.endswith("/") or ((count > 1 or in_shards) and not text.lower().endswith(".gguf"))


def read_template(path: Path) -> str:
    """The text of a chat template file. Raises UsageError, MissingFile."""
    try:
        with open(path, "rb") as file:
            raw = file.read(TEMPLATE_LIMIT + 1)
        if len(raw) > TEMPLATE_LIMIT:
            raise UsageError("too large for a chat template", where=str(path))
        return raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise UsageError("not UTF-8 text", where=str(path)) from error
    except OSError as error:
        raise MissingFile(error.strerror or "cannot be read", where=str(path)) from error


def from_texts(*, sizes: Mapping[str, Any], **options: Any) -> ConvertRequest:
    """`convert_request` for options that a file tells: of a size they are ``sizes``. Raises what it raises, and
    TypeError for names that it does not know."""
    known = inspect.signature(convert_request).parameters.keys() | PassedOn.__annotations__.keys()
    unknown = [name for name in options if name not in known]
    if unknown:
        raise TypeError(f"there is no option {unknown[0]!r}")
    return convert_request(size=SizeTexts(**sizes), **options)
