"""A model and its planned types -> encoded tensors: transforms, then one stream or two, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy
from numpy.typing import NDArray

from quantcli.architectures.topology import Feed
from quantcli.calibration import float_stream, merging, probes, tables
from quantcli.calibration.capture import Stage
from quantcli.calibration.collect import USUAL_LENGTH
from quantcli.calibration.encoding import Settings, StageEncoder
from quantcli.calibration.evidence import Pair
from quantcli.calibration.exactness import exact_feeds
from quantcli.calibration.float_stream import LayerMoments
from quantcli.calibration.folder import COMPLETE, Folder
from quantcli.calibration.gather import Gathering
from quantcli.calibration.gradients import Gradients
from quantcli.calibration.quality import COMPENSATING, gradient_tokens
from quantcli.calibration.sequential import Result, Sequential
from quantcli.calibration.tokens import Calibration
from quantcli.ggml.tensor_types import TensorType
from quantcli.methods.compensation import QUICK, THOROUGH
from quantcli.model import Model
from quantcli.runner import settings
from quantcli.runner.arrays import Floats
from quantcli.runner.network import Network
from quantcli.runner.session import make_operations
from quantcli.runner.text import Chunks
from quantcli.runner.weights import Packed, Weights
from quantcli.transforms import rescale
from quantcli.transforms.rescale import Factors

SEARCH_TOKENS = 32_768  # that transforms look at where they have a pass of their own

Progress = Callable[[str, int, int], None]  # what, how much of it is done, of how much


@dataclass(frozen=True)
class Compensated:
    """``model`` after the transforms, ``result``: its encoded tensors by name, and what was done to each."""

    model: Model
    result: Result


def calibration_network(model: Model, threads: int | None) -> Network:
    """The model ready for chunks of the usual length: float activations and a float cache.

    Raises UnsupportedGraph and its kind.
    """
    length = min(USUAL_LENGTH, settings.read(model).context)
    return Network(model, make_operations("float", threads), length=length, kv_type="F32")


@dataclass(frozen=True)
class _AtOutputs:
    """Second moments of gradients at outputs, by tensor name: ``outputs`` and ``pairs`` of `gradients.Information`."""

    own: dict[str, Floats]
    pairs: dict[str, Floats]

    def rescale(self, name: str, rows: Floats) -> None:
        """The matrix's outputs are ``rows`` times what they were."""
        inverse = (1 / rows).astype(numpy.float32).reshape(-1)
        of_pairs = numpy.stack([numpy.ones_like(inverse), inverse], axis=1)  # the other matrix's stay
        for moments, scale in ((self.own, inverse), (self.pairs, of_pairs)):
            if name in moments:
                each = scale.reshape(moments[name].shape[1:3])
                moments[name] = moments[name] * each[:, :, None] * each[:, None]


@dataclass(frozen=True, kw_only=True)
class Compensation:
    """One job for one assignment of types.

    ``required``: a model that knows none of the transforms is an error.
    ``method``: "gptq", "sequential" (quality.py) or None; ``known``: what `quantcli calibrate` kept, ``store``: where
    this run keeps what it encodes with, or has kept it before. ``gradients``: where other outputs ask for them too.
    """

    network: Network
    types: Mapping[str, TensorType]
    calibration: Calibration
    method: str | None
    transforms: Sequence[str] = ()
    required: bool = True
    threads: int = 1
    known: Folder | None = None
    store: Folder | None = None
    progress: Progress | None = None
    gradients: Gradients | None = None

    def run(self) -> Compensated:
        """Raises NonFiniteResult, UnsupportedTransform, BadStatistics, and what running raises."""
        if self.required:
            merging.check(self.transforms, self.network.model, self.network.settings)
        if self.method == "sequential":
            return self._two_streams()
        return self._one_stream()

    def _settings(self, contents: Mapping[str, Packed] | None = None, outputs: _AtOutputs | None = None) -> Settings:
        known = outputs or _AtOutputs({}, {})
        if self.method is None:
            return Settings(threads=self.threads, tables=contents or {})
        method = COMPENSATING[self.method]
        return Settings(
            alpha=method.alpha,
            work=THOROUGH if method.thorough else QUICK,
            threads=self.threads,
            tables=contents or {},
            outputs=known.own,
            pairs=known.pairs,
        )

    @cached_property
    def _gradients(self) -> Gradients:
        return self.gradients or Gradients(self.network, self.calibration.fit, gradient_tokens(self.method))

    def _outputs(self) -> _AtOutputs:
        """Of the model as it is, those of the matrices that get a type; none where the store knows all."""
        if self._is_kept() or self._gradients.found is None:
            return _AtOutputs({}, {})
        found = self._gradients.found
        own, pairs = (
            {name: one for name, one in some.items() if name in self.types} for some in (found.outputs, found.pairs)
        )
        return _AtOutputs(own, pairs)

    def _tables(self) -> dict[str, Packed]:
        """Embeddings and output matrix, which no layer reads; of an encoder, which predicts nothing, none."""
        if not self.network.settings.causal:
            return {}
        told = self._tell("embeddings")
        if told is not None:
            told(0, 1)
        encoder = StageEncoder(self.types, self._settings())
        return tables.encode(self.network, self.calibration, encoder, self._gradients, self.store)

    def _tell(self, what: str) -> Callable[[int, int], None] | None:
        progress = self.progress
        return None if progress is None else lambda done, total: progress(what, done, total)

    # ---- transforms

    def _layers(self, tokens: Chunks, held_out: Chunks | None, what: str) -> Iterator[LayerMoments]:
        """The moments of every layer: kept ones, those of a pass over ``tokens``, or none where the store knows all."""
        if self.known is None and not self._is_kept():
            yield from float_stream.layers(self.network, tokens, held_out, self._tell(what))
            return
        probe = float_stream.probe_of(self.network, self.calibration.fit)
        for index in range(self.network.settings.layers):
            if self._is_kept():
                stages = float_stream.layer_stages(self.network, index, probe)
                self.network.release(index)
                yield LayerMoments(index, stages, Gathering(), Gathering())
                continue
            assert self.known is not None
            kept = float_stream.read(self.known, self.network, index, probe)
            if kept is None:
                raise self.known.lacks(index)
            yield kept

    def _is_kept(self) -> bool:
        """Whether the store has all that an earlier run encoded with."""
        return self.store is not None and self.store.has(COMPLETE)

    @cached_property
    def _exact(self) -> frozenset[Feed]:
        return exact_feeds(self.network)

    def _merging(self, model: Model) -> merging.Merging:
        return merging.Merging(model, self.network.settings, self.types, self._exact)

    def _merged(
        self, model: Model, layer: LayerMoments, outputs: _AtOutputs | None = None
    ) -> tuple[Model, LayerMoments]:
        """With the transforms of one layer, kept in the store. ``outputs`` follow their rows' factors."""
        moved = layer
        for number, transform in enumerate(self.transforms):
            name = f"factors-{layer.index:04}-{number}"
            stored = self.store.read(name) if self.store is not None else None
            if stored is not None:
                factors = _factors(stored)
            else:
                factors = self._merging(model).layer(transform, moved)
                if self.store is not None:
                    self.store.write(name, _arrays(factors))
            model, moved = rescale.apply(model, factors), moved.rescaled(factors)
            for name, one in factors.items():
                if outputs is not None and one.rows is not None:
                    outputs.rescale(name, one.rows)
        return model, moved

    def _transformed(self, outputs: _AtOutputs | None = None) -> Model:
        """The model with all transforms, found in a pass over some of the text. ``outputs`` follow."""
        model = self.network.model
        if not self.transforms:
            return model
        for layer in self._layers(probes.some_of(self.calibration.fit, SEARCH_TOKENS), None, "+".join(self.transforms)):
            model, _ = self._merged(model, layer, outputs)
        return model

    # ---- encoding

    def _two_streams(self) -> Compensated:
        encoded, outputs, told = self._tables(), self._outputs(), self._tell("sequential")
        model = self._transformed(outputs)
        network = Network(model, self.network.operations, length=self.network.length, kv_type=self.network.kv_type)
        watch = None if told is None else lambda done, total, what: told(done, total)
        made = Sequential(network, self.types, self._settings(encoded, outputs), watch, self.store)
        result = made.run(self.calibration.fit, self.calibration.held_out)
        result.contents.update(encoded)
        return Compensated(model, result)

    def _one_stream(self) -> Compensated:
        """Transforms and GPTQ from the same moments."""
        model, result = self.network.model, Result()
        if self.method is None:
            return Compensated(self._transformed(), result)
        encoded, outputs = self._tables(), self._outputs()
        encoder = StageEncoder(self.types, self._settings(encoded, outputs))
        for layer in self._layers(self.calibration.fit, self.calibration.held_out, "gptq"):
            model, moved = self._merged(model, layer, outputs)
            weights = Weights(model)
            for stage in moved.stages:
                contents, outcomes = encoder.encode_kept(
                    _refreshed(stage, weights), self.store, partial(_pairs, stage, moved)
                )
                result.contents.update(contents)
                result.outcomes += outcomes
        if self.store is not None and not self._is_kept():
            self.store.write(COMPLETE, {"layers": numpy.array([self.network.settings.layers])})
        result.contents |= {**encoder.embeddings(self.network.embeddings), **encoded}
        return Compensated(model, result)


def _pairs(stage: Stage, layer: LayerMoments) -> list[Pair]:
    """What was gathered of a stage's matrices: of the tokens to fit, and of those held out."""
    first = stage.weights[0]
    return [Pair(layer.fit.of(first, number), layer.held_out.of(first, number)) for number in range(first.matrices)]


def _refreshed(stage: Stage, weights: Weights) -> Stage:
    """The same stage of a model with other contents."""
    found = [
        weights.matrix(one.name.removesuffix(".weight"), one.columns, one.rows, one.matrices) for one in stage.weights
    ]
    return replace(stage, weights=tuple(found))


def _arrays(factors: Mapping[str, Factors]) -> dict[str, NDArray[numpy.generic]]:
    found: dict[str, NDArray[numpy.generic]] = {}
    for name, one in factors.items():
        for kind, values in (("rows", one.rows), ("columns", one.columns)):
            if values is not None:
                found[f"{name}/{kind}"] = values
    return found


def _factors(arrays: Mapping[str, NDArray[numpy.generic]]) -> dict[str, Factors]:
    found: dict[str, Factors] = {}
    for key, values in arrays.items():
        name, _, kind = key.rpartition("/")
        own = values.astype(numpy.float32)
        found[name] = found.get(name, Factors()).times(Factors(rows=own) if kind == "rows" else Factors(columns=own))
    return found
