"""Encoding for the inputs that a model's matrices get, layer by layer.

With one stream, every matrix is encoded for the inputs that the model gives it (GPTQ). With two, for those that the
encoded matrices before it give: the streams go through the model side by side, ``x`` through the model as it is, ``x~``
through what is encoded already.
A matrix W reads a in the first and b in the second. With H = E[b b^T], C = E[(a - b) b^T] and, where its output goes
straight to the residual stream, R = E[(r - r~) b^T], the matrix that is encoded is

    W* = W + alpha (W C + R) H~^-1        (H~ is H damped)

and the encoder minimises tr((W* - Q) H~ (W* - Q)^T). The published ancestors are GPTQ (Frantar and others 2022) and
its corrections for inputs that are quantized themselves (GPTAQ, Qronos 2025). Layer-major, so that one layer and the
streams are in memory; attention and feed-forward run from their own residual stream, so that little runs twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy

from quantcli.calibration.capture import PartOf, Stage, inputs_of, stages_of
from quantcli.calibration.gather import Gathering
from quantcli.calibration.moments import Moments, excess
from quantcli.errors import NonFiniteActivations
from quantcli.ggml import kernels
from quantcli.ggml.tensor_types import TensorType
from quantcli.methods import compensation
from quantcli.methods.compensation import Metric
from quantcli.methods.plain import search_for
from quantcli.report.results import CompensatedTensor
from quantcli.runner.arrays import Bytes, Doubles, Floats
from quantcli.runner.cache import Cache
from quantcli.runner.network import Network
from quantcli.runner.text import Chunks
from quantcli.runner.weights import Packed, PackedMatrix

TOGETHER = 4096  # tokens whose products are one term of the sums
ENCODED_ROWS = 64  # rows of a matrix that one thread encodes at a time

Progress = Callable[[int, int, str], None]  # parts done, of how many, what


@dataclass(frozen=True, kw_only=True)
class Settings:
    """``alpha``: how far a matrix makes up for what went wrong before it; None: one stream, nothing is known of it."""

    alpha: float | None = 0.5
    damping: float = 0.01
    rounds: int = 3
    sweeps: int = 2
    threads: int = 1


@dataclass
class _Batch:
    """Sequences that run together: both streams [S, T, H]; ``held_out`` from the fit, for the check alone."""

    x: Floats
    other: Floats
    held_out: bool


@dataclass
class Result:
    """Encoded tensors by name, and what was done to each."""

    contents: dict[str, Packed] = field(default_factory=dict)
    outcomes: list[CompensatedTensor] = field(default_factory=list)


class Sequential:
    """One pass for one assignment of types. ``network``: float activations and a float cache."""

    def __init__(
        self,
        network: Network,
        types: Mapping[str, TensorType],
        settings: Settings,
        progress: Progress | None = None,
    ) -> None:
        """``types``: of every tensor that is to be encoded, by name; the others stay what they are."""
        self.network, self.types, self.settings, self.progress = network, types, settings, progress
        self.result = Result()
        self.quantized = network

    def run(self, chunks: Chunks, held_out: Chunks) -> Result:
        """Encode all layers. ``chunks``, ``held_out``: tokens to fit and to check with. Raises NonFiniteActivations."""
        if "token_embd.weight" in self.types:
            self._put({"token_embd.weight": self._plain(self.network.embeddings, None)})
        batches = [*self._batches(chunks, held_out=False), *self._batches(held_out, held_out=True)]
        one_part = self._part if self.settings.alpha is not None else self._part_of_one_stream
        for index in range(self.network.settings.layers):
            for number in range(len(self.network.layer_parts(index))):
                one_part(index, number, batches)
            for network in (self.network, self.quantized):
                network.release(index)
        return self.result

    def _batches(self, chunks: Chunks, *, held_out: bool) -> list[_Batch]:
        step = max(1, TOGETHER // chunks.length)
        tokens = [chunks.inputs(start, min(start + step, len(chunks))) for start in range(0, len(chunks), step)]
        other = self.quantized if self.settings.alpha is not None else self.network
        return [
            _Batch(x := self.network.embed(ids), x if other is self.network else other.embed(ids), held_out)
            for ids in tokens
        ]

    # ---- one part of a layer

    def _part(self, index: int, number: int, batches: Sequence[_Batch]) -> None:
        def parts() -> tuple[PartOf, PartOf]:
            return self.network.layer_parts(index)[number], self.quantized.layer_parts(index)[number]

        probe = batches[0].x[:1]
        stages = stages_of(self.network, parts()[0], probe, self._cache(probe))
        for stage in stages:
            if any(name in self.types for name in stage.names):
                reaches = self._reaches_stream(stage is stages[-1], index, number)
                self._encode(stage, self._moments(stage, parts(), batches, reaches))
            if self.progress is not None:
                self.progress(index, self.network.settings.layers, stage.names[0])
        own, other = parts()
        for batch in batches:
            batch.x = self._finite(own(batch.x, self._cache(batch.x)), index)
            batch.other = self._finite(other(batch.other, self._cache(batch.other)), index)

    def _part_of_one_stream(self, index: int, number: int, batches: Sequence[_Batch]) -> None:
        """Every stage's sums in one pass."""
        part = self.network.layer_parts(index)[number]
        probe = batches[0].x[:1]
        stages = stages_of(self.network, part, probe, self._cache(probe))
        gathered = {False: Gathering(), True: Gathering()}
        for batch in batches:
            with self.network.observed_by(gathered[batch.held_out]):
                batch.x = batch.other = self._finite(part(batch.x, self._cache(batch.x)), index)
        for stage in stages:
            if any(name in self.types for name in stage.names):
                first = stage.weights[0]
                self._encode(
                    stage,
                    [
                        _Pair(*(gathered[held].of(first, expert) for held in (False, True)))
                        for expert in range(first.matrices)
                    ],
                )
            if self.progress is not None:
                self.progress(index, self.network.settings.layers, stage.names[0])

    @staticmethod
    def _finite(x: Floats, index: int) -> Floats:
        if not numpy.isfinite(x).all():
            raise NonFiniteActivations("the activations overflow or are NaN", where=f"layer {index}")
        return x

    def _cache(self, x: Floats) -> Cache:
        return self.network.new_cache(x.shape[0], x.shape[1])

    def _reaches_stream(self, last: bool, index: int, number: int) -> bool:
        """Whether a stage's output is added to the residual stream as it is."""
        settings = self.network.settings
        return last and not settings.graph.post_norm and len(self.network.layer_parts(index)) > 1

    def _moments(
        self, stage: Stage, parts: tuple[PartOf, PartOf], batches: Sequence[_Batch], reaches: bool
    ) -> list[_Pair]:
        """Per matrix of the stage's tensors (one, or one per expert) the sums of both sets of tokens."""
        first = stage.weights[0]
        rows = first.rows if reaches and not stage.routed else None
        pairs = [
            _Pair(*(Moments.zero(first.columns, cross=not stage.routed, residual_rows=rows) for _ in range(2)))
            for _ in range(first.matrices)
        ]
        scale = numpy.float32(1 / self.network.settings.residual_scale)
        for batch in batches:
            found = inputs_of(self.quantized, parts[1], stage, batch.other, self._cache(batch.other))
            if stage.routed:  # the streams choose other experts for some tokens: each expert sees what is sent to it
                for expert, b in found:
                    pairs[expert].of(batch).add(b)
                continue
            ((_, a),) = inputs_of(self.network, parts[0], stage, batch.x, self._cache(batch.x))
            difference = (batch.x - batch.other).reshape(-1, batch.x.shape[-1]) * scale if rows is not None else None
            pairs[0].of(batch).add(found[0][1], a, difference)
        return pairs

    # ---- one group of matrices

    def _encode(self, stage: Stage, pairs: Sequence[_Pair]) -> None:
        contents = {}
        hessians = _shrunk(pairs) if stage.routed else [pairs[0].fit.mean_hessian()]
        metrics: dict[int, list[Metric]] = {}
        for weight in stage.weights:
            tensor_type = self.types.get(weight.name)
            if tensor_type is None:
                continue
            if not compensation.takes(tensor_type):
                contents[weight.name] = self._plain(weight, hessians)
                continue
            group = compensation.group_of(tensor_type)
            if group not in metrics:
                metrics[group] = [Metric.of(one, damping=self.settings.damping, group=group) for one in hessians]
            done = [
                self._matrix(weight, tensor_type, number, metrics[group][number], pairs[number])
                for number in range(weight.matrices)
            ]
            contents[weight.name] = Packed(tensor_type, numpy.concatenate([data for data, _ in done]))
            self.result.outcomes.append(_joined([outcome for _, outcome in done]))
        self._put(contents)

    def _matrix(
        self, weight: PackedMatrix, tensor_type: TensorType, number: int, metric: Metric, pair: _Pair
    ) -> tuple[Bytes, CompensatedTensor]:
        values = weight.decode(matrix=number)
        target = self._target(values, pair.fit, metric)
        compensated = self._in_slabs(
            lambda start, stop: compensation.encode(
                tensor_type, target[start:stop], metric, rounds=self.settings.rounds, sweeps=self.settings.sweeps
            ),
            len(target),
        )
        plain = self._search(values, tensor_type, _diagonal(metric.hessian))
        judged, method = {}, "compensated"
        hessian, pull = pair.held_out.mean_hessian(), pair.held_out.pull(values)
        for name, data in (("plain", plain), ("compensated", compensated)):
            error = kernels.decode(tensor_type.id, data, *values.shape) - values
            judged[name] = excess(error, hessian, pull)
        if pair.held_out.tokens and judged["compensated"] > judged["plain"]:
            method, compensated = "plain", plain
        whole = excess(values, hessian, numpy.zeros(values.shape)) or 1.0
        return compensated, {
            "name": weight.name,
            "type": tensor_type.name,
            "method": method,
            "plain": judged["plain"] / whole,
            "compensated": judged["compensated"] / whole,
            "damping": metric.damping,
            "tokens": pair.fit.tokens,
        }

    def _target(self, values: Floats, moments: Moments, metric: Metric) -> Floats:
        """W*, the matrix that makes up for a share alpha of what its inputs and the stream lack."""
        if not self.settings.alpha or not moments.tokens:
            return values
        pull = moments.pull(values)
        if not pull.any():
            return values
        shift: Doubles = numpy.linalg.solve(metric.hessian.astype(numpy.float64), pull.T).T
        target: Floats = (values + self.settings.alpha * shift).astype(numpy.float32)
        return target

    def _plain(self, weight: PackedMatrix, hessians: Sequence[Doubles] | None) -> Packed:
        tensor_type = self.types[weight.name]
        data = [
            self._search(weight.decode(matrix=n), tensor_type, _diagonal(hessians[n]) if hessians else None)
            for n in range(weight.matrices)
        ]
        return Packed(tensor_type, numpy.concatenate(data))

    def _search(self, values: Floats, tensor_type: TensorType, importance: Floats | None) -> Bytes:
        search = search_for(tensor_type, None)
        return self._in_slabs(
            lambda start, stop: kernels.encode(tensor_type.id, values[start:stop], importance, search=search),
            len(values),
        )

    def _in_slabs(self, encode: Callable[[int, int], Bytes], rows: int) -> Bytes:
        """Rows encoded by several threads; they are independent."""
        bounds = [(start, min(start + ENCODED_ROWS, rows)) for start in range(0, rows, ENCODED_ROWS)]
        with ThreadPoolExecutor(self.settings.threads) as pool:
            return numpy.concatenate(list(pool.map(lambda one: encode(*one), bounds)))

    def _put(self, contents: Mapping[str, Packed]) -> None:
        """From now on the second stream goes through these."""
        self.result.contents.update(contents)
        self.quantized = self.quantized.replacing(contents)


@dataclass
class _Pair:
    """The sums of one matrix's inputs over the tokens to fit and the tokens to check with."""

    fit: Moments
    held_out: Moments

    def of(self, batch: _Batch) -> Moments:
        return self.held_out if batch.held_out else self.fit


def _diagonal(hessian: Floats | Doubles) -> Floats:
    """Importance of every column."""
    return numpy.ascontiguousarray(numpy.diagonal(hessian), numpy.float32)


def _shrunk(pairs: Sequence[_Pair]) -> list[Doubles]:
    """Hessians of experts, each drawn towards that of all as if it had seen as many tokens more as it has columns."""
    total = sum((pair.fit.hessian for pair in pairs), numpy.zeros_like(pairs[0].fit.hessian))
    common = total / max(sum(pair.fit.tokens for pair in pairs), 1)
    added = len(common)
    return [(pair.fit.hessian + added * common) / (pair.fit.tokens + added) for pair in pairs]


def _joined(outcomes: Sequence[CompensatedTensor]) -> CompensatedTensor:
    """One outcome for a tensor of several matrices."""
    methods = {outcome["method"] for outcome in outcomes}
    return {
        "name": outcomes[0]["name"],
        "type": outcomes[0]["type"],
        "method": methods.pop() if len(methods) == 1 else "mixed",
        "plain": sum(outcome["plain"] for outcome in outcomes) / len(outcomes),
        "compensated": sum(outcome["compensated"] for outcome in outcomes) / len(outcomes),
        "damping": max(outcome["damping"] for outcome in outcomes),
        "tokens": min(outcome["tokens"] for outcome in outcomes),
    }
