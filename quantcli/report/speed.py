"""What `quantcli bench` measures, as data and as people read it."""

from __future__ import annotations

from typing import TypedDict

from quantcli.report.terminal import Reporter
from quantcli.report.texts import counted


class PeakResult(TypedDict):
    """10^9 operations per second of one core, without memory."""

    int8: float
    int16: float
    float32: float


class BandwidthResult(TypedDict):
    """GB/s of memory, of one core and of all."""

    read_one_core: float
    read: float
    write: float


class EncoderSpeed(TypedDict):
    """An encoder on one core, with importance."""

    type: str
    ns_per_weight: float


class ProductSpeed(TypedDict):
    """Products on all threads: GB/s of packed weights for one token, 10^9 operations per second for a prompt."""

    type: str
    bits_per_weight: float
    one_token: float
    prompt: float


class ExpectedSpeed(TypedDict):
    """Tokens per second of a model whose weights all have a type, from its products alone."""

    parameters: float
    type: str
    gigabytes: float
    generated: float
    prompt: float


class BenchResult(TypedDict):
    """`quantcli bench`."""

    schema: int
    quantcli: str
    cpu: str
    instruction_set: str
    threads: int
    seconds: float
    load: float | None  # of the system, just now; None where it does not say
    peak: PeakResult
    bandwidth: BandwidthResult
    encoders: list[EncoderSpeed]
    products: list[ProductSpeed]
    expected: list[ExpectedSpeed]


def show_bench(reporter: Reporter, result: BenchResult) -> None:
    """The machine, the encoders, the products, and tokens per second to expect."""
    peak, memory = result["peak"], result["bandwidth"]
    load = "" if result["load"] is None else f", load {result['load']:.1f}"
    reporter.line(f"{result['cpu']}, {result['instruction_set']}, {counted(result['threads'], 'thread')}{load}")
    reporter.line(
        f"one core: int8 {peak['int8']:.0f}, int16 {peak['int16']:.0f}, float32 {peak['float32']:.0f} GOP/s; "
        f"memory: read {memory['read']:.1f} GB/s ({memory['read_one_core']:.1f} one core), write {memory['write']:.1f}"
    )
    reporter.line("")
    reporter.table(
        ("type", "ns/weight"),
        [(row["type"], f"{row['ns_per_weight']:.2f}") for row in result["encoders"]],
        title="Encoders (default search, with importance; one core)",
        right=(1,),
    )
    reporter.line("")
    reporter.table(
        ("type", "one token, GB/s", "of read", "prompt, GOP/s"),
        [
            (
                row["type"],
                f"{row['one_token']:.1f}",
                f"{row['one_token'] / memory['read']:.0%}",
                f"{row['prompt']:.0f}",
            )
            for row in result["products"]
        ],
        title="Products (all threads)",
        right=(1, 2, 3),
    )
    reporter.line("")
    reporter.table(
        ("parameters", "type", "GB", "generated tokens/s", "prompt tokens/s"),
        [
            (
                f"{row['parameters'] / 1e9:.4g}B",
                row["type"],
                f"{row['gigabytes']:.2f}",
                f"{row['generated']:.1f}",
                f"{row['prompt']:.0f}",
            )
            for row in result["expected"]
        ],
        title="To expect of the products alone (attention and the rest come on top)",
        right=(0, 2, 3, 4),
    )
