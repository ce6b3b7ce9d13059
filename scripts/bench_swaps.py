#!/usr/bin/env python3
"""Do swaps of two tensors' types, accepted on measured divergence, improve a plan? One line a round, then the texts.

    python scripts/bench_swaps.py [MODEL] [--like Q4_K_M] [--pairs 12] [--rounds 6] [--chunks 24] [--threads 2]

The plan is `quantcli convert MODEL --like RECIPE --quality fast`'s. Each round measures the pairs (one tensor larger,
another smaller, at most as many bytes) whose estimated loss changes least, on held-out chunks of the calibration text,
and takes the best one if it gains more than two standard errors, paired over chunks. A round that takes none ends it.
The plan and what became of it are then compared on three texts that nothing was chosen on.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]
from literature import LENGTH, TEXTS, predictions
from quantcli.calibration import probes
from quantcli.cli.parse import SizeTexts, convert_request
from quantcli.commands import bounding, convert
from quantcli.commands.planning import Planning
from quantcli.ggml.tensor_types import TensorType
from quantcli.model import ModelTensor
from quantcli.plan.plan import Plan
from quantcli.report.terminal import SILENT
from quantcli.runner.network import Network
from quantcli.runner.session import make_operations
from quantcli.runner.text import Chunks, chunks_of
from quantcli.vocab.tokenizer import Tokenizer

Types = dict[str, TensorType]


@dataclass(frozen=True)
class Swap:
    """The new types of two groups of tensors, bytes more, and the estimated loss more."""

    types: Types
    bytes: int
    loss: float

    @property
    def key(self) -> str:
        """The same for the same types."""
        return " ".join(f"{name}={one.name}" for name, one in sorted(self.types.items()))


class Bench:
    """A job with its planning, and what was encoded so far."""

    def __init__(self, given: argparse.Namespace) -> None:
        request = convert_request(
            source=given.model, size=SizeTexts(like=given.like), quality="fast", threads=given.threads, dry_run=True
        )
        self.job = convert.prepare(request)
        self.threads = given.threads
        found = convert.choose_types(self.job, SILENT)
        ready = self.job.parts[0].ready
        assert found is not None and ready is not None
        self.planning: Planning = found
        self.network: Network = ready.network
        held_out = ready.calibration.held_out
        self.held_out = probes.some_of(held_out, given.chunks * held_out.length)
        self.plan: Plan = self.job.parts[0].plans[0]
        self.kept: dict[tuple[str, str], ModelTensor] = {}
        self.base: dict[str, list[numpy.ndarray]] = {}

    # ---- measuring

    def made(self, plan: Plan) -> Network:
        """The plan's model, each tensor encoded once per type."""
        wanted = {(entry.tensor.name, entry.type.name): entry for entry in plan.entries if entry.type.quantized}
        fresh = [entry for key, entry in wanted.items() if key not in self.kept]
        encoded = bounding.encoded(replace(plan, entries=fresh), self.job.request.choice, self.threads)
        self.kept |= {(entry.tensor.name, entry.type.name): encoded[entry.tensor.name] for entry in fresh}
        tensors: Mapping[str, ModelTensor] = {key[0]: self.kept[key] for key in wanted}
        model = bounding.with_tensors(plan.model, tensors)
        return Network(model, make_operations("float", self.threads), length=LENGTH)

    def divergences(self, network: Network, chunks: Chunks) -> numpy.ndarray:
        """Of every chunk, the second half's mean."""
        if chunks.name not in self.base:
            self.base[chunks.name] = predictions(self.network, chunks)
        own = predictions(network, chunks)
        pairs = zip(self.base[chunks.name], own, strict=True)
        return numpy.array([float(network.operations.divergence(base, one)[0].mean()) for base, one in pairs])

    # ---- swaps

    def swaps(self, plan: Plan, budget: int) -> list[Swap]:
        """Pairs that fit, those first whose estimated loss changes least."""
        choosing = self.planning.choosing
        shapes = {entry.tensor.name: entry.tensor.shape for entry in plan.entries}
        now = {entry.tensor.name: entry.type for entry in plan.entries}
        changes = []
        for group in choosing.groups:
            item, types = choosing._item(group, shapes), choosing.types[group[0]]
            useful = item.efficient()
            place = useful.index(types.index(now[group[0]]))
            for option in (*useful[max(place - 1, 0) : place], *useful[place + 1 : place + 2]):
                more = item.bytes[option] - item.bytes[useful[place]], item.loss[option] - item.loss[useful[place]]
                changes.append((group, types[option], *more))
        slack = budget - plan.file_bytes
        found = [
            Swap({**dict.fromkeys(a[0], a[1]), **dict.fromkeys(b[0], b[1])}, a[2] + b[2], a[3] + b[3])
            for a in changes
            for b in changes
            if a[2] > 0 > b[2] and a[0] != b[0] and a[2] + b[2] <= slack
        ]
        return sorted(found, key=lambda one: one.loss)

    def with_types(self, plan: Plan, types: Types) -> Plan:
        now = {name: entry.type for entry in plan.entries for name in [entry.tensor.name] if entry.type.quantized}
        return self.planning.choosing.make({**now, **types})


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?", default=ROOT.parent / "shared" / "models" / "mid")
    parser.add_argument("--like", default="Q4_K_M")
    parser.add_argument("--pairs", type=int, default=12, help="measured a round")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--chunks", type=int, default=24, help="held out, that measure")
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def improved(bench: Bench, given: argparse.Namespace) -> Plan:
    """The plan after all rounds."""
    plan, budget = bench.plan, bench.plan.file_bytes
    now = bench.divergences(bench.made(plan), bench.held_out)
    print(f"plan: {plan.file_bytes:,} bytes, divergence on held-out text {now.mean():.5f}", flush=True)
    tried: set[str] = set()  # a pair that did not gain is not measured again
    for number in range(given.rounds):
        best: tuple[float, float, Plan, numpy.ndarray] | None = None
        fresh = [one for one in bench.swaps(plan, budget) if one.key not in tried]
        for swap in fresh[: given.pairs]:
            other = bench.with_types(plan, swap.types)
            if other.file_bytes > budget:
                continue
            own = bench.divergences(bench.made(other), bench.held_out)
            change = own - now
            error = float(change.std(ddof=1)) / math.sqrt(len(change))
            said = ", ".join(f"{name} {one.name}" for name, one in swap.types.items())
            print(f"  {said}: {100 * change.mean() / now.mean():+.2f} % +- {100 * error / now.mean():.2f}", flush=True)
            if change.mean() + 2 * error < 0 and (best is None or change.mean() < best[0]):
                best = float(change.mean()), error, other, own
            tried.add(swap.key)
        if best is None:
            print(f"round {number + 1}: no swap gains more than two errors")
            break
        plan, now = best[2], best[3]
        print(f"round {number + 1}: taken, {now.mean():.5f}", flush=True)
    return plan


def main() -> None:
    given = arguments()
    start = time.monotonic()
    bench = Bench(given)
    print(f"planned in {time.monotonic() - start:.0f} s", flush=True)
    plan = improved(bench, given)
    print(f"swapped in {time.monotonic() - start:.0f} s")
    tokenizer = Tokenizer.from_metadata(bench.plan.model.metadata)
    for name, file in TEXTS.items():
        chunks = chunks_of(tokenizer, given.shared / "text" / file, LENGTH, chunks=given.chunks)
        before, after = (bench.divergences(bench.made(one), chunks) for one in (bench.plan, plan))
        change = after - before
        error = float(change.std(ddof=1)) / math.sqrt(len(change))
        print(
            f"{name}: {before.mean():.5f} -> {after.mean():.5f}, "
            f"{100 * change.mean() / before.mean():+.2f} % +- {100 * error / before.mean():.2f}"
        )


if __name__ == "__main__":
    main()
