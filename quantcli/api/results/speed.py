"""Results as dataclasses. Written by `python scripts/api_results.py` from quantcli.report.speed: change that."""

from __future__ import annotations

from dataclasses import dataclass

from quantcli.api.results.base import Result


@dataclass(frozen=True, kw_only=True)
class PeakResult(Result):
    """10^9 operations per second of one core, without memory."""

    int8: float
    int16: float
    float32: float


@dataclass(frozen=True, kw_only=True)
class BandwidthResult(Result):
    """GB/s of memory, of one core and of all."""

    read_one_core: float
    read: float
    write: float


@dataclass(frozen=True, kw_only=True)
class EncoderSpeed(Result):
    """An encoder on one core, with importance."""

    type: str
    ns_per_weight: float


@dataclass(frozen=True, kw_only=True)
class ProductSpeed(Result):
    """Products on all threads: GB/s of packed weights for one token, 10^9 operations per second for a prompt."""

    type: str
    bits_per_weight: float
    one_token: float
    prompt: float


@dataclass(frozen=True, kw_only=True)
class ExpectedSpeed(Result):
    """Tokens per second of a model whose weights all have a type, from its products alone."""

    parameters: float
    type: str
    gigabytes: float
    generated: float
    prompt: float


@dataclass(frozen=True, kw_only=True)
class BenchResult(Result):
    """`quantcli bench`."""

    schema: int
    quantcli: str
    cpu: str
    instruction_set: str
    threads: int
    seconds: float
    load: float | None
    peak: PeakResult
    bandwidth: BandwidthResult
    encoders: list[EncoderSpeed]
    products: list[ProductSpeed]
    expected: list[ExpectedSpeed]
