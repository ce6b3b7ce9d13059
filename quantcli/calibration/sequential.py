"""Encoding for the inputs that a model's matrices get, layer by layer.

Every matrix is encoded for the inputs that the encoded matrices before it give. Two streams go through the model side
by side, ``x`` through the model as it is, ``x~`` through what is encoded already.

A matrix W reads a in the first and b in the second. With H = E[b b^T], C = E[(a - b) b^T] and, where its output goes
straight to the residual stream, R = E[(r - r~) b^T], the matrix that is encoded is

    W* = W + alpha (W C + R) H~^-1        (H~ is H damped)

and the encoder minimises tr((W* - Q) H~ (W* - Q)^T). The published ancestors are GPTQ (Frantar and others 2022) and
its corrections for inputs that are quantized themselves (GPTAQ, Qronos 2025). Layer-major, so that one layer and the
streams are in memory; attention and feed-forward run from their own residual stream, so that little runs twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy

from quantcli.calibration import token_weights
from quantcli.calibration.capture import PartOf, Stage, inputs_and_output, inputs_of, stages_of
from quantcli.calibration.encoding import Settings, StageEncoder
from quantcli.calibration.evidence import Pair
from quantcli.calibration.float_stream import batches_of, probe_of
from quantcli.calibration.folder import COMPLETE, Folder
from quantcli.calibration.moments import Moments
from quantcli.ggml.tensor_types import TensorType
from quantcli.report.results import CompensatedTensor
from quantcli.runner import finite
from quantcli.runner.arrays import Floats
from quantcli.runner.cache import Cache
from quantcli.runner.network import Network
from quantcli.runner.text import Chunks
from quantcli.runner.weights import Packed

Progress = Callable[[int, int, str], None]  # layers done, of how many, what


@dataclass
class _Batch:
    """Sequences that run together: both streams [S, T, H]; ``held_out`` from the fit, for the check alone.

    ``ahead``: ``x`` is what the part that is worked on makes of it already.
    """

    x: Floats
    other: Floats
    held_out: bool
    ahead: bool = False


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
        store: Folder | None = None,
    ) -> None:
        """``types``: of every tensor that is to be encoded, by name; the others stay what they are.

        ``store`` keeps what every stage was encoded with; what it holds already is used instead of computed.
        """
        self.network, self.quantized, self.settings = network, network, settings
        self.encoder = StageEncoder(types, settings)
        self.progress, self.store = progress, store
        self.result = Result()

    def run(self, chunks: Chunks, held_out: Chunks) -> Result:
        """Encode all layers. ``chunks``, ``held_out``: tokens to fit and to check with.

        Raises NonFiniteResult, BadStatistics.
        """
        self._put(self.encoder.embeddings(self.network.embeddings))
        batches: list[_Batch] = []
        if self.store is None or not self.store.has(COMPLETE):
            batches = [*self._batches(chunks, held_out=False), *self._batches(held_out, held_out=True)]
        probe = probe_of(self.network, chunks)
        for index in range(self.network.settings.layers):
            for number in range(len(self.network.layer_parts(index))):
                part = self.network.layer_parts(index)[number]
                stages = stages_of(self.network, part, probe, self._cache(probe))
                self._part(index, number, stages, batches)
            for network in (self.network, self.quantized):
                network.release(index)
        if self.store is not None and batches:
            self.store.write(COMPLETE, {"layers": numpy.array([self.network.settings.layers])})
        return self.result

    def _batches(self, chunks: Chunks, *, held_out: bool) -> list[_Batch]:
        found = []
        for bounds in batches_of(chunks):
            ids = chunks.inputs(*bounds)
            found.append(_Batch(self.network.embed(ids), self.quantized.embed(ids), held_out))
        return found

    # ---- one part of a layer

    def _part(self, index: int, number: int, stages: Sequence[Stage], batches: Sequence[_Batch]) -> None:
        """Two streams: every stage sees what the stages before it left of the second."""
        for stage in stages:
            parts, last = self._parts(index, number), stage is stages[-1]
            sums = partial(self._sums, stage, parts, batches, last)
            contents, outcomes = self.encoder.encode_kept(stage, self.store, sums)
            self.result.outcomes += outcomes
            self._put(contents)
            self._tell(index, stage)
        own, other = self._parts(index, number)
        for batch in batches:
            if not batch.ahead:
                batch.x = own(batch.x, self._cache(batch.x))
            batch.other, batch.ahead = other(batch.other, self._cache(batch.other)), False
            for stream in (batch.x, batch.other):
                finite.check(stream, f"layer {index}", f"{self.network.model.name}: blk.{index}")

    def _parts(self, index: int, number: int) -> tuple[PartOf, PartOf]:
        """The part in the model, and in what is encoded so far."""
        return self.network.layer_parts(index)[number], self.quantized.layer_parts(index)[number]

    def _tell(self, index: int, stage: Stage) -> None:
        if self.progress is not None:
            self.progress(index, self.network.settings.layers, stage.names[0])

    def _cache(self, x: Floats) -> Cache:
        return self.network.new_cache(x.shape[0], x.shape[1])

    def _sums(self, stage: Stage, parts: tuple[PartOf, PartOf], batches: Sequence[_Batch], last: bool) -> list[Pair]:
        """The sums of both sets of tokens: one pair; one per expert; or one per tensor, where tokens count
        differently in them."""
        first, settings = stage.weights[0], self.network.settings
        reaches = last and not settings.graph.post_norm and not settings.parallel  # its output is added as it is
        narrow = len(stage.weights) == 1 and first.rows < first.columns  # W C is smaller than C, and all that is needed
        rows = first.rows if (reaches or narrow) and not stage.routed else None
        cross = not stage.routed and not narrow
        weigh = token_weights.of_stage(self.network, stage)
        pairs = [
            Pair(*(Moments.zero(first.columns, cross=cross, residual_rows=rows) for _ in range(2)))
            for _ in range(first.matrices if weigh is None else len(stage.weights))
        ]
        scale = numpy.float32(1 / settings.residual_scale)
        for batch in batches:
            found = inputs_of(self.quantized, parts[1], stage, batch.other, self._cache(batch.other))
            into = [pair.held_out if batch.held_out else pair.fit for pair in pairs]
            if stage.routed:  # the streams choose other experts for some tokens: each expert sees what is sent to it
                for expert, b in found:
                    into[expert].add(b)
                continue
            b, difference = found[0][1], batch.x - batch.other
            a = self._own(stage, parts[0], batch, last)
            terms = [difference.reshape(-1, difference.shape[-1]) * scale] if reaches else []
            if narrow:
                terms += self.network.operations.multiply(a - b, replace(first, bias=None))
            residual = sum(terms[1:], terms[0]) if terms else None
            weights = [None] if weigh is None else weigh(b, batch.other.reshape(-1, batch.other.shape[-1]))
            for sums, counts in zip(into, weights, strict=True):
                sums.add(b, None if narrow else a, residual, counts)
        return pairs

    def _own(self, stage: Stage, part: PartOf, batch: _Batch, last: bool) -> Floats:
        """What the stage reads in the model as it is; behind the last stage the stream goes on at once."""
        cache = self._cache(batch.x)
        if not last:
            ((_, a),) = inputs_of(self.network, part, stage, batch.x, cache)
            return a
        ((_, a),), batch.x = inputs_and_output(self.network, part, stage, batch.x, cache)
        batch.ahead = True
        return a

    def _put(self, contents: Mapping[str, Packed]) -> None:
        """From now on the second stream goes through these."""
        self.result.contents.update(contents)
        self.quantized = self.quantized.replacing(contents)
