"""Results as dataclasses. Written by `python scripts/api_results.py` from quantcli.report.results: change that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from quantcli.api.results.base import Result
from quantcli.api.results.reported import Report


@dataclass(frozen=True, kw_only=True)
class SourceResult(Result):
    """What was converted."""

    path: str
    name: str
    kind: str
    architecture: str
    tensors: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class TensorResult(Result):
    """One tensor of an output or of a file."""

    name: str
    shape: list[int]
    type: str
    bytes: int


@dataclass(frozen=True, kw_only=True)
class FallbackResult(Result):
    """A tensor whose rows the ``wanted`` type's block does not divide."""

    name: str
    wanted: str
    type: str


@dataclass(frozen=True, kw_only=True)
class CompensatedTensor(Result):
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


@dataclass(frozen=True, kw_only=True)
class CarriedTensor(Result):
    """Blocks of a tensor that lay on the grid of its type, and those of them that are the weights to the bit."""

    name: str
    type: str
    blocks: int
    carried: int
    exact: int


@dataclass(frozen=True, kw_only=True)
class TakenOver(Result):
    """Tensors of one type that the named method does not take, and the method that does."""

    type: str
    method: str
    tensors: int


@dataclass(frozen=True, kw_only=True)
class ShardResult(Result):
    """One written file."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class OutputResult(Result):
    """One output: its files, its plan, and when it is written the hashes (``sha256``: None for several shards)."""

    type: str
    bytes: int
    bpw: float
    tensors: list[TensorResult]
    fallbacks: int
    fallback_tensors: list[FallbackResult]
    needs_imatrix: bool
    path: str
    files: list[str]
    quality: str | None = None
    compensated: list[CompensatedTensor] | None = None
    carried_over: list[CarriedTensor] | None = None
    method: str | None = None
    method_fallbacks: list[TakenOver] | None = None
    sha256: str | None = None
    shards: list[ShardResult] | None = None


@dataclass(frozen=True, kw_only=True)
class EstimateResult(Result):
    """What a conversion will need on this machine, from a second of measuring.

    ``encoding_seconds``: all cores busy; ``moving_seconds``: reading and writing at the speed of reading, None where
    that is unknown. The larger one counts. ``calibration``: what calibrates or plans comes on top and is not known.
    """

    seconds: float
    encoding_seconds: float
    moving_seconds: float | None
    nanoseconds_per_weight: float
    reading_bytes_per_second: int | None
    memory_bytes: int
    disk_bytes: int
    disk_free_bytes: int | None
    calibration: bool


@dataclass(frozen=True, kw_only=True)
class ConvertResult(Result):
    """`quantcli convert`. What a dry run does not know is missing."""

    schema: int
    source: SourceResult
    outputs: list[OutputResult]
    seconds: float
    threads: int
    search: str
    notes: list[str]
    warnings: list[str]
    estimate: EstimateResult | None = None
    part: str | None = None
    resumed_bytes: int | None = None
    reading_seconds: float | None = None
    weights_per_second: int | None = None
    report: Report | None = None


@dataclass(frozen=True, kw_only=True)
class CheckedFile(Result):
    """One file that was verified; what is unknown because of ``problem`` is None."""

    path: str
    ok: bool
    bytes: int | None
    sha256: str | None
    tensors: int | None
    problem: str | None
    remarks: list[str]


@dataclass(frozen=True, kw_only=True)
class GraftedTensor(Result):
    """One tensor that was taken over; ``before`` is the type of the one that it replaces, None where there was none."""

    name: str
    type: str
    before: str | None


@dataclass(frozen=True, kw_only=True)
class GraftResult(Result):
    """`quantcli graft`."""

    schema: int
    output: OutputResult
    grafted: list[GraftedTensor]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class TypeSummary(Result):
    """All tensors of one type."""

    type: str
    tensors: int
    weights: int
    bytes: int
    bpw: float


@dataclass(frozen=True, kw_only=True)
class MetadataResult(Result):
    """A metadata entry: ``value``, or ``length`` and the ``first`` elements of an array."""

    type: str
    value: Any | None = None
    length: int | None = None
    first: list[Any] | None = None


@dataclass(frozen=True, kw_only=True)
class GgufResult(Result):
    """`quantcli inspect` of a GGUF file. ``version`` is the format's."""

    weights: int
    tensor_bytes: int
    bpw: float
    types: list[TypeSummary]
    schema: int
    path: str
    architecture: str | None
    name: str | None
    file_type: str | None
    files: int
    bytes: int
    metadata: dict[str, MetadataResult]
    kind: Literal["gguf"]
    version: int
    tensors: list[TensorResult]


@dataclass(frozen=True, kw_only=True)
class OriginResult(Result):
    """A tensor as it would be written, and where it comes from."""

    name: str
    shape: list[int]
    type: str
    bytes: int
    origin: str
    stored: str
    grids: dict[str, float] | None = None


@dataclass(frozen=True, kw_only=True)
class CheckpointResult(Result):
    """`quantcli inspect` of a checkpoint folder."""

    weights: int
    tensor_bytes: int
    bpw: float
    types: list[TypeSummary]
    schema: int
    path: str
    architecture: str | None
    name: str | None
    file_type: str | None
    files: int
    bytes: int
    metadata: dict[str, MetadataResult]
    kind: Literal["checkpoint"]
    notes: list[str]
    tensors: list[OriginResult]


@dataclass(frozen=True, kw_only=True)
class EntryResult(Result):
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


@dataclass(frozen=True, kw_only=True)
class MatrixResult(Result):
    """`quantcli inspect` of an importance matrix."""

    schema: int
    kind: Literal["imatrix"]
    path: str
    datasets: list[str]
    chunks: int
    sha256: str
    warnings: list[str]
    entries: list[EntryResult]


@dataclass(frozen=True, kw_only=True)
class CheckStep(Result):
    """One step of `quantcli check`. ``verdict``: "ok", "note", "skipped", or "differs", which makes the whole fail."""

    name: str
    verdict: str
    summary: str
    details: list[str]


@dataclass(frozen=True, kw_only=True)
class CheckResult(Result):
    """`quantcli check`."""

    schema: int
    ok: bool
    source: str
    architecture: str
    steps: list[CheckStep]


@dataclass(frozen=True, kw_only=True)
class VerifyResult(Result):
    """`quantcli verify`."""

    schema: int
    ok: bool
    files: list[CheckedFile]


@dataclass(frozen=True, kw_only=True)
class GgmlResult(Result):
    """What `--search ggml` follows: the version of ggml, and llama.cpp's commit."""

    version: str
    commit: str


@dataclass(frozen=True, kw_only=True)
class RecipeResult(Result):
    """One file type. ``bpw`` is that of a model shaped like Llama-3-8B."""

    name: str
    number: int | None
    aliases: list[str]
    bpw: float | None
    importance: str
    purpose: str


@dataclass(frozen=True, kw_only=True)
class TypeResult(Result):
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


@dataclass(frozen=True, kw_only=True)
class FormatsResult(Result):
    """`quantcli formats`."""

    schema: int
    ggml: GgmlResult
    recipes: list[RecipeResult]
    types: list[TypeResult]
