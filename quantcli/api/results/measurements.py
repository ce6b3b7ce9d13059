"""Results as dataclasses. Written by `python scripts/api_results.py` from quantcli.report.measurements: change that."""

from __future__ import annotations

from dataclasses import dataclass

from quantcli.api.results.base import Result


@dataclass(frozen=True, kw_only=True)
class Divergence(Result):
    """KL divergence of the scored positions, in nats."""

    mean: float
    se: float
    median: float
    p90: float
    p95: float
    p99: float
    p999: float
    max: float
    min: float


@dataclass(frozen=True, kw_only=True)
class PerplexityRatio(Result):
    """Perplexity of a model and its ratio to the reference's."""

    mean: float
    se: float
    reference: float
    ratio: float
    ratio_se: float
    ln_ratio: float
    ln_ratio_se: float


@dataclass(frozen=True, kw_only=True)
class MeanError(Result):
    """A mean and its standard error."""

    mean: float
    se: float


@dataclass(frozen=True, kw_only=True)
class Difference(Result):
    """Paired differences to the first model, over chunks."""

    to: str
    kld: MeanError
    ln_ppl: MeanError


@dataclass(frozen=True, kw_only=True)
class RecordError(Result):
    """What a recorded reference misses of the divergence, measured at ``positions``."""

    positions: int
    kld: float
    relative: float


@dataclass(frozen=True, kw_only=True)
class ComparedModel(Result):
    """One model on one text. Shares are per cent."""

    name: str
    architecture: str
    bytes: int
    bpw: float
    activations: str
    kv_type: str
    exact: bool
    text: str
    chunks: int
    scored: int
    kld: Divergence
    ppl: PerplexityRatio
    same_top: float
    same_top_se: float
    rms_dp: float
    rms_dp_se: float
    per_chunk: list[float]
    difference: Difference | None = None
    record_error: RecordError | None = None


@dataclass(frozen=True, kw_only=True)
class RunnerModel(Result):
    """The model that was run, and how."""

    name: str
    architecture: str
    bytes: int
    bpw: float
    activations: str
    kv_type: str
    exact: bool


@dataclass(frozen=True, kw_only=True)
class ImatrixResult(Result):
    """`quantcli imatrix`. ``model`` is None where matrices were merged only."""

    schema: int
    output: str
    model: RunnerModel | None
    entries: int
    chunks: int
    chunk_size: int
    datasets: list[str]
    warnings: list[str]
    seconds: float
    interrupted: bool


@dataclass(frozen=True, kw_only=True)
class CalibrateResult(Result):
    """`quantcli calibrate`: real and sampled tokens, layers with moments, tensors with importance."""

    schema: int
    output: str
    tokens: int
    sampled_tokens: int
    layers: int
    entries: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class PerplexityResult(Result):
    """`quantcli perplexity`."""

    perplexity: MeanError
    text: str
    context: int
    chunks: int
    tokens: int
    scored: int
    seconds: float
    tokens_per_second: float
    per_chunk: list[float]
    interrupted: bool
    schema: int
    model: RunnerModel


@dataclass(frozen=True, kw_only=True)
class RecordedReference(Result):
    """Recorded predictions that models were compared with."""

    name: str
    kind: str
    bytes: int
    activations: str | None = None


@dataclass(frozen=True, kw_only=True)
class CompareResult(Result):
    """`quantcli compare`."""

    schema: int
    reference: RunnerModel | RecordedReference
    context: int
    models: list[ComparedModel]
    interrupted: bool


@dataclass(frozen=True, kw_only=True)
class GenerateResult(Result):
    """`quantcli generate`."""

    tokens: list[int]
    stopped: str
    prompt_tokens: int
    prompt_tokens_per_second: float
    tokens_per_second: float
    schema: int
    model: RunnerModel
    prompt: str
    text: str
    interrupted: bool


@dataclass(frozen=True, kw_only=True)
class EmbeddedLine(Result):
    """A line (counted from 1), its tokens, and the vector that they were pooled to; ``norm`` was its length before it
    was made 1. Of a model that ranks: the score of each label.
    """

    line: int
    text: str
    tokens: int
    norm: float
    embedding: list[float]


@dataclass(frozen=True, kw_only=True)
class EmbedResult(Result):
    """`quantcli embed`. ``pooling``: "mean", "cls", "last" or "rank"; ``labels`` of a model that ranks."""

    schema: int
    model: RunnerModel
    pooling: str
    normalized: bool
    labels: list[str] | None
    lines: list[EmbeddedLine]
