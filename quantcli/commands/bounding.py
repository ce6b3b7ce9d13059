"""`convert --max-kld`: the smallest plan whose measured divergence stays within a bound.

The estimates of a plan give the shape of the curve, measurements of files that were really encoded its height.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import sqrt

import numpy

from quantcli.calibration import probes
from quantcli.commands import compensating
from quantcli.commands.compensating import Made, Ready
from quantcli.commands.planning import Planning
from quantcli.errors import TargetTooSmall
from quantcli.ggml import tensor_types
from quantcli.ggml.tensor_types import TensorType
from quantcli.methods.seam import Matrix, RowEncoder, Statistics, matrix_count
from quantcli.methods.table import Choice
from quantcli.model import Model, ModelTensor
from quantcli.plan.plan import Plan
from quantcli.report.terminal import Reporter
from quantcli.runner.arrays import Bytes
from quantcli.runner.network import Network
from quantcli.runner.session import make_operations
from quantcli.runner.text import Chunks
from quantcli.runner.weights import Packed, holding

TOKENS = 16_384  # held out, that measure
ROUNDS = 8  # files that are encoded at most
CLOSE = 0.999  # sizes that are not worth another round
NEAR = 0.94  # of the bound: not worth another round
SIZES = 40  # halvings of an interval of sizes
SLAB = 128  # rows


@dataclass(frozen=True)
class Measured:
    """A plan that was encoded, and its divergence with its standard error (over chunks)."""

    plan: Plan
    made: Made | None
    kld: float
    error: float

    @property
    def bound(self) -> float:
        """What the divergence hardly exceeds."""
        return self.kld + 2 * self.error


def smallest(found: Planning, prepared: Ready, choice: Choice, most: float, reporter: Reporter) -> Measured:
    """The smallest plan with a `Measured.bound` of at most ``most``. Raises TargetTooSmall."""
    judge = _Judge(prepared)
    low, high = found.choosing.limits()
    known: list[tuple[float, Measured]] = []  # estimated loss, what was measured
    for _ in range(ROUNDS):
        made = found.choosing.plan(_size_for(found, _wanted(known, most), low, high))
        one = judge.measured(made, prepared, choice, reporter)
        reporter.note(f"note: {made.bpw:.3f} bits per weight: divergence {one.kld:.5f} +- {one.error:.5f}")
        known.append((found.choosing.loss(made), one))
        if one.bound <= most:
            high = min(high, made.file_bytes)
        elif made.file_bytes >= high * CLOSE:
            break
        else:
            low = max(low, made.file_bytes)
        if NEAR * most <= one.bound <= most or low >= high * CLOSE:
            break
    within = [one for _, one in known if one.bound <= most]
    best = min(within, key=lambda one: one.plan.file_bytes, default=None)
    if best is None:
        raise TargetTooSmall(
            f"no plan stays within {most} (the nearest: {min(one.bound for _, one in known):.5f})",
            where="--max-kld",
            hint="allow more, or larger types with --candidates",
        )
    return best


def _wanted(known: Sequence[tuple[float, Measured]], most: float) -> float:
    """The estimated loss at which the bound is expected just below ``most``, on a line through two measurements."""
    aim = most * (1 + NEAR) / 2
    nearest = sorted(known, key=lambda pair: abs(pair[1].bound - aim))[:2]
    if not nearest:
        return aim
    loss, one = nearest[0]
    slope = one.bound / max(loss, 1e-12)
    if len(nearest) > 1 and nearest[1][0] != loss:
        found = (nearest[1][1].bound - one.bound) / (nearest[1][0] - loss)
        slope = found if found > slope / 10 else slope
    return float(max(loss + (aim - one.bound) / max(slope, 1e-12), loss / 20))


def _size_for(found: Planning, loss: float, low: int, high: int) -> int:
    """The least size whose plan is estimated to lose at most ``loss``."""
    for _ in range(SIZES):
        if high - low <= high // 4000:
            break
        middle = (low + high) // 2
        if found.choosing.loss(found.choosing.plan(middle)) <= loss:
            high = middle
        else:
            low = middle
    return high


class _Judge:
    """Held-out text, and what the model itself says on it."""

    def __init__(self, prepared: Ready) -> None:
        self.threads = prepared.threads
        self.chunks: Chunks = probes.some_of(prepared.calibration.held_out, TOKENS)
        self.network = prepared.network

    def measured(self, one: Plan, prepared: Ready, choice: Choice, reporter: Reporter) -> Measured:
        """Encode a plan in memory and run it."""
        made: Made | None = None
        if prepared.wish.encodes:
            (made,) = compensating.run(prepared, [one], reporter)
            tensors: Mapping[str, ModelTensor] = made[1]
        else:
            tensors = encoded(one, choice, self.threads)
        means = self._divergences(with_tensors(one.model, tensors))
        spread = float(numpy.std(means, ddof=1)) if len(means) > 1 else 0.0
        return Measured(one, made, float(numpy.mean(means)), spread / sqrt(len(means)))

    def _divergences(self, model: Model) -> list[float]:
        """Per chunk, of the second half's predictions, with rounded activations as `compare` has them."""
        other = Network(model, make_operations("q8", self.threads), length=self.network.length)
        found = []
        for number in range(len(self.chunks)):
            ids = self.chunks.inputs(number, number + 1)
            first = self.chunks.first_scored
            base, own = (
                one.log_probs(one.stream(ids)[:, first:-1]).reshape(-1, self.network.vocabulary)
                for one in (self.network, other)
            )
            found.append(float(self.network.operations.divergence(base, own)[0].mean()))
        return found


def with_tensors(model: Model, tensors: Mapping[str, ModelTensor]) -> Model:
    """The model with these tensors in place of those of their names."""
    return replace(model, tensors=[tensors.get(tensor.name, tensor) for tensor in model.tensors])


def encoded(one: Plan, choice: Choice, threads: int) -> dict[str, ModelTensor]:
    """The plan's quantized tensors in memory, as the pipeline writes them."""
    statistics = Statistics(one.options.importance)
    found = {}
    with ThreadPoolExecutor(threads) as pool:
        for entry in one.entries:
            tensor, tensor_type = entry.tensor, entry.type
            if tensor_type.quantized and not (tensor.raw and tensor_type is tensor.stored):
                data = _encoded(tensor, tensor_type, choice, statistics, pool)
                found[tensor.name] = holding(tensor, Packed(tensor_type, data))
    return found


def _encoded(
    tensor: ModelTensor, tensor_type: TensorType, choice: Choice, statistics: Statistics, pool: ThreadPoolExecutor
) -> Bytes:
    width, parts = tensor_types.row_bytes(tensor_type, tensor.columns), []
    for number in range(matrix_count(tensor)):
        matrix = Matrix.of(tensor, number)
        encode = choice.prepare(matrix, tensor_type, statistics)

        def slab(start: int, matrix: Matrix = matrix, encode: RowEncoder = encode) -> Bytes:
            rows = matrix.read(start, min(start + SLAB, matrix.rows))
            return encode(rows, start, numpy.empty((len(rows), width), numpy.uint8))

        parts += list(pool.map(slab, range(0, matrix.rows, SLAB)))
    return numpy.concatenate(parts)
