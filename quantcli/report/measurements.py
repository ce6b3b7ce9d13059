"""What the commands that run a model find out, as types: the objects that --json prints.

Times are in seconds. A figure that cannot be a number (NaN, infinity) is printed as null.
"""

from typing import NotRequired, TypeAlias, TypedDict


class RunnerModel(TypedDict):
    """The model that was run, and how."""

    name: str
    architecture: str
    bytes: int
    bpw: float
    activations: str
    kv_type: str
    exact: bool


class MeanError(TypedDict):
    """A mean and its standard error."""

    mean: float
    se: float


class ImatrixResult(TypedDict):
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


class CalibrateResult(TypedDict):
    """`quantcli calibrate`: real and sampled tokens, layers with moments, tensors with importance."""

    schema: int
    output: str
    tokens: int
    sampled_tokens: int
    layers: int
    entries: int
    seconds: float


class LikelihoodResult(TypedDict):
    """Perplexity of a text. ``tokens`` were run, ``scored`` of them predicted; ``per_chunk``: mean negative
    log-likelihoods."""

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


class PerplexityResult(LikelihoodResult):
    """`quantcli perplexity`."""

    schema: int
    model: RunnerModel


class GenerationResult(TypedDict):
    """Ids, counts and speeds of a generated text. ``stopped``: "length", "end" or "context"."""

    tokens: list[int]
    stopped: str
    prompt_tokens: int
    prompt_tokens_per_second: float
    tokens_per_second: float


class GenerateResult(GenerationResult):
    """`quantcli generate`."""

    schema: int
    model: RunnerModel
    prompt: str
    text: str
    interrupted: bool


class EmbeddedLine(TypedDict):
    """A line (counted from 1), its tokens, and the vector that they were pooled to; ``norm`` was its length before it
    was made 1. Of a model that ranks: the score of each label."""

    line: int
    text: str
    tokens: int
    norm: float
    embedding: list[float]


class EmbedResult(TypedDict):
    """`quantcli embed`. ``pooling``: "mean", "cls", "last" or "rank"; ``labels`` of a model that ranks."""

    schema: int
    model: RunnerModel
    pooling: str
    normalized: bool
    labels: list[str] | None
    lines: list[EmbeddedLine]


class Divergence(MeanError):
    """KL divergence of the scored positions, in nats."""

    median: float
    p90: float
    p95: float
    p99: float
    p999: float
    max: float
    min: float


class PerplexityRatio(MeanError):
    """Perplexity of a model and its ratio to the reference's."""

    reference: float
    ratio: float
    ratio_se: float
    ln_ratio: float
    ln_ratio_se: float


class Difference(TypedDict):
    """Paired differences to the first model, over chunks."""

    to: str
    kld: MeanError
    ln_ppl: MeanError


class RecordError(TypedDict):
    """What a recorded reference misses of the divergence, measured at ``positions``."""

    positions: int
    kld: float
    relative: float


class ComparedModel(RunnerModel):
    """One model on one text. Shares are per cent."""

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
    difference: NotRequired[Difference]
    record_error: NotRequired[RecordError]


class RecordedReference(TypedDict):
    """Recorded predictions that models were compared with."""

    name: str
    kind: str
    bytes: int
    activations: NotRequired[str]


Reference: TypeAlias = RunnerModel | RecordedReference


class CompareResult(TypedDict):
    """`quantcli compare`."""

    schema: int
    reference: Reference
    context: int
    models: list[ComparedModel]
    interrupted: bool
