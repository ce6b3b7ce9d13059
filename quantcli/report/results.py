"""What convert, inspect, verify and formats find out, as types: the objects that --json prints.

Shapes are in GGUF order (columns first), sizes in bytes, times in seconds. A result that cannot be a number (NaN,
infinity) is printed as null.
"""

from collections.abc import Sequence
from typing import Literal, NotRequired, TypedDict

from quantcli.report.reported import Report

# ---- convert


class TensorResult(TypedDict):
    """One tensor of an output or of a file."""

    name: str
    shape: list[int]
    type: str
    bytes: int


class FallbackResult(TypedDict):
    """A tensor whose rows the ``wanted`` type's block does not divide."""

    name: str
    wanted: str
    type: str


class PlanResult(TypedDict):
    """The plan of one output. ``type`` is the file type, ``bpw`` bits of tensor data per weight."""

    type: str
    bytes: int
    bpw: float
    tensors: Sequence[TensorResult]
    fallbacks: int
    fallback_tensors: list[FallbackResult]
    needs_imatrix: bool


class TakenOver(TypedDict):
    """Tensors of one type that the named method does not take, and the method that does."""

    type: str
    method: str
    tensors: int


class ShardResult(TypedDict):
    """One written file."""

    path: str
    bytes: int
    sha256: str


class CompensatedTensor(TypedDict):
    """What calibration did to one tensor.

    ``plain``, ``compensated``: what each encoding misses of the tensor's outputs on held-out text, relative to the
    outputs' mean square; below 0 where the encoding makes up for errors before it. ``method``: the better one.
    ``tokens``: the fewest that one of its matrices saw. ``damping``: what was taken from the Hessian off its diagonal.
    """

    name: str
    type: str
    method: str
    plain: float
    compensated: float
    damping: float
    tokens: int


class CarriedTensor(TypedDict):
    """Blocks of a tensor that lay on the grid of its type, and those of them that are the weights to the bit."""

    name: str
    type: str
    blocks: int
    carried: int
    exact: int


class OutputResult(PlanResult):
    """One output: its files, its plan, and when it is written the hashes (``sha256``: None for several shards)."""

    path: str
    files: list[str]
    quality: NotRequired[str]  # where it was calibrated
    compensated: NotRequired[list[CompensatedTensor]]
    carried_over: NotRequired[list[CarriedTensor]]  # tensors of which blocks were snapped; absent where that is off
    method: NotRequired[str]  # where one was named
    method_fallbacks: NotRequired[list[TakenOver]]
    sha256: NotRequired[str | None]
    shards: NotRequired[list[ShardResult]]


class SourceResult(TypedDict):
    """What was converted."""

    path: str
    name: str
    kind: str
    architecture: str
    tensors: int
    bytes: int


class EstimateResult(TypedDict):
    """What a conversion will need on this machine, from a second of measuring.

    ``encoding_seconds``: all cores busy; ``moving_seconds``: reading and writing at the speed of reading, None where
    that is unknown. The larger one counts. ``calibration``: what calibrates or plans comes on top and is not known.
    """

    seconds: float
    encoding_seconds: float
    moving_seconds: float | None
    nanoseconds_per_weight: float  # of one core
    reading_bytes_per_second: int | None
    memory_bytes: int
    disk_bytes: int
    disk_free_bytes: int | None
    calibration: bool


class ConvertResult(TypedDict):
    """`quantcli convert`. What a dry run does not know is missing."""

    schema: int
    source: SourceResult
    outputs: list[OutputResult]
    seconds: float
    threads: int
    search: str
    notes: list[str]
    warnings: list[str]
    estimate: NotRequired[EstimateResult]  # of a dry run
    part: NotRequired[str]  # with --part: "3/16"
    resumed_bytes: NotRequired[int]  # with --resume: of the outputs, that an earlier run had written
    reading_seconds: NotRequired[float]
    weights_per_second: NotRequired[int]
    report: NotRequired[Report]  # with --html


# ---- graft


class GraftedTensor(TypedDict):
    """One tensor that was taken over; ``before`` is the type of the one that it replaces, None where there was none."""

    name: str
    type: str
    before: str | None


class GraftResult(TypedDict):
    """`quantcli graft`."""

    schema: int
    output: OutputResult
    grafted: list[GraftedTensor]
    seconds: float


# ---- inspect, verify, formats


class TypeSummary(TypedDict):
    """All tensors of one type."""

    type: str
    tensors: int
    weights: int
    bytes: int
    bpw: float


class Summary(TypedDict):
    """All tensors; the types from the largest to the smallest."""

    weights: int
    tensor_bytes: int
    bpw: float
    types: list[TypeSummary]


class MetadataResult(TypedDict):
    """A metadata entry: ``value``, or ``length`` and the ``first`` elements of an array."""

    type: str
    value: NotRequired[object]
    length: NotRequired[int]
    first: NotRequired[list[object]]


class OriginResult(TensorResult):
    """A tensor as it would be written, and where it comes from."""

    origin: str
    stored: str
    grids: NotRequired[dict[str, float]]  # share of a sample's blocks on the grid of each type, where there are any


class ModelResult(Summary):
    """What `quantcli inspect` says of every model."""

    schema: int
    path: str
    architecture: str | None
    name: str | None
    file_type: str | None
    files: int
    bytes: int
    metadata: dict[str, MetadataResult]


class GgufResult(ModelResult):
    """`quantcli inspect` of a GGUF file. ``version`` is the format's."""

    kind: Literal["gguf"]
    version: int
    tensors: Sequence[TensorResult]


class CheckpointResult(ModelResult):
    """`quantcli inspect` of a checkpoint folder."""

    kind: Literal["checkpoint"]
    notes: list[str]
    tensors: Sequence[OriginResult]


class EntryResult(TypedDict):
    """Of all values (sum / count) of all matrices of one entry of an importance matrix.

    ``deviation``: standard deviation; ``active``: share above 1e-5; ``entropy`` in bits of the values as a
    distribution, ``evenness``: its ratio to log2 of their number; ``outliers``: share with a z-score above 1;
    ``cosine``: similarity of the sums with the same weight's in the previous layer, None without one.
    """

    name: str
    matrices: int
    columns: int
    tokens: int
    sum: float
    min: float
    max: float
    mean: float
    deviation: float
    active: float
    entropy: float
    evenness: float
    outliers: float
    cosine: float | None


class MatrixResult(TypedDict):
    """`quantcli inspect` of an importance matrix."""

    schema: int
    kind: Literal["imatrix"]
    path: str
    datasets: list[str]
    chunks: int
    sha256: str
    warnings: list[str]
    entries: Sequence[EntryResult]


class CheckedFile(TypedDict):
    """One file that was verified; what is unknown because of ``problem`` is None."""

    path: str
    ok: bool
    bytes: int | None
    sha256: str | None
    tensors: int | None
    problem: str | None
    remarks: list[str]  # that make no file unsound


class VerifyResult(TypedDict):
    """`quantcli verify`."""

    schema: int
    ok: bool
    files: list[CheckedFile]


class CheckStep(TypedDict):
    """One step of `quantcli check`. ``verdict``: "ok", "note", "skipped", or "differs", which makes the whole fail."""

    name: str
    verdict: str
    summary: str
    details: list[str]


class CheckResult(TypedDict):
    """`quantcli check`."""

    schema: int
    ok: bool
    source: str
    architecture: str
    steps: list[CheckStep]


class RecipeResult(TypedDict):
    """One file type. ``bpw`` is that of a model shaped like Llama-3-8B."""

    name: str
    number: int | None
    aliases: list[str]
    bpw: float | None
    importance: str
    purpose: str


class TypeResult(TypedDict):
    """One tensor type. ``searches`` are those that can encode it."""

    name: str
    id: int
    bpw: float
    block: int
    bytes: int
    importance: str
    fallback: str | None
    purpose: str
    searches: list[str]


class GgmlResult(TypedDict):
    """What `--search ggml` follows: the version of ggml, and llama.cpp's commit."""

    version: str
    commit: str


class FormatsResult(TypedDict):
    """`quantcli formats`."""

    schema: int
    ggml: GgmlResult
    recipes: list[RecipeResult]
    types: list[TypeResult]
