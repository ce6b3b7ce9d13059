"""Which factors a transform puts on which channels of a model: one float pass over text, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy

from quantcli.architectures.topology import Feed, feeds
from quantcli.calibration.gather import Gathering
from quantcli.errors import UnsupportedTransform
from quantcli.ggml.tensor_types import TensorType
from quantcli.model import Model
from quantcli.runner.arrays import Doubles, Floats
from quantcli.runner.network import Network
from quantcli.runner.text import Chunks
from quantcli.transforms import awq, equalize, rescale
from quantcli.transforms.rescale import Factors, Heads

TOGETHER = 4096  # tokens that run together


class Merging:
    """Finds the factors of one transform for one assignment of types."""

    def __init__(self, network: Network, types: Mapping[str, TensorType]) -> None:
        """``network``: float activations; ``types``: of the tensors that are to be encoded, by name."""
        self.network, self.types = network, types
        settings = network.settings
        self.heads = Heads(settings.heads, settings.kv_heads, settings.value)
        self.tensors = {tensor.name: tensor for tensor in network.model.tensors}
        self.factors: dict[str, Factors] = {}
        self.alphas: dict[str, float] = {}  # per feed, by the name of its first matrix

    def run(self, transform: str, chunks: Chunks, progress: Callable[[int, int], None] | None = None) -> Model:
        """The model with the transform ("awq", "smoothquant", "equalize") merged. Raises UnsupportedTransform."""
        find = _FINDERS[transform]
        step = max(1, TOGETHER // chunks.length)
        streams = [
            self.network.embed(chunks.inputs(start, min(start + step, len(chunks))))
            for start in range(0, len(chunks), step)
        ]
        layers = self.network.settings.layers
        for index in range(layers):
            gathering = Gathering()
            with self.network.observed_by(gathering):
                for number, x in enumerate(streams):
                    cache = self.network.new_cache(x.shape[0], x.shape[1])
                    streams[number] = self.network.layer(index, x, cache)
            self._layer(f"blk.{index}.", gathering, find)
            self.network.release(index)
            if progress is not None:
                progress(index + 1, layers)
        if not self.factors:
            raise UnsupportedTransform(
                f"{transform} finds nothing to rescale in a model of architecture {self.network.model.architecture}",
                where="--transform",
                hint="leave the option out",
            )
        return rescale.apply(self.network.model, self.factors)

    def _layer(self, prefix: str, gathering: Gathering, find: Finder) -> None:
        for feed in feeds(self.network.settings.graph, lambda role: f"{prefix}{role}.weight" in self.tensors):
            names = [f"{prefix}{role}.weight" for role in feed.matrices]
            if not feed.exact or not any(name in self.types for name in names):
                continue
            seen = sorted(key for key in gathering.moments if key[0] == names[0])
            if not seen:
                continue
            scale = find(self, feed, names, gathering)
            for name, factors in rescale.factors_of(feed, prefix, scale, self.tensors, self.heads).items():
                self.factors[name] = self.factors.get(name, Factors()).times(factors)

    # ---- what the transforms ask for

    def values(self, name: str, expert: int = 0) -> Floats:
        """One matrix, float32 [rows, columns]."""
        tensor = self.tensors[name]
        rows = tensor.shape[1] if len(tensor.shape) > 1 else 1
        return tensor.reader.read_rows(expert * rows, (expert + 1) * rows)

    def experts(self, name: str) -> int:
        """How many matrices a tensor holds."""
        shape = self.tensors[name].shape
        return shape[2] if len(shape) > 2 else 1

    def encoded(self, names: Sequence[str]) -> list[str]:
        """Those of the tensors that are to be encoded to a type with blocks."""
        return [name for name in names if name in self.types]


Finder = Callable[[Merging, Feed, Sequence[str], Gathering], Floats]


def _by_error(merging: Merging, feed: Feed, names: Sequence[str], gathering: Gathering) -> Floats:
    """AWQ, per expert where the experts' inputs are their own."""
    scales = []
    for expert in range(merging.experts(names[0]) if feed.through == "product" else 1):
        moments = gathering.moments.get((names[0], expert))
        hessian = moments.mean_hessian() if moments else numpy.eye(merging.tensors[names[0]].columns)
        sizes = rescale.shared(awq.magnitudes(hessian), feed, merging.heads)
        readers = [
            awq.Reader(merging.values(name, number), merging.types[name])
            for name in merging.encoded(names)
            for number in ([expert] if feed.through == "product" else _some(merging.experts(name)))
        ]
        scale, alpha = awq.best_scale(readers, hessian, sizes)
        merging.alphas.setdefault(names[0], alpha)
        scales.append(scale)
    return numpy.stack(scales)


def _some(experts: int) -> list[int]:
    """A few of the experts stand for all where they read one input."""
    return sorted({int(n) for n in numpy.linspace(0, experts - 1, min(experts, 8))})


def _by_inputs(merging: Merging, feed: Feed, names: Sequence[str], gathering: Gathering) -> Floats:
    return _by_maxima(
        merging, feed, names, lambda expert: gathering.largest.get((names[0], expert)), equalize.smoothquant_scale
    )


def _by_ranges(merging: Merging, feed: Feed, names: Sequence[str], gathering: Gathering) -> Floats:
    """Equalization needs no inputs: the source's rows against the readers' columns."""

    def source_ranges(expert: int) -> Floats:
        source = f"{names[0].rpartition('.')[0].rpartition('.')[0]}.{feed.source}.weight"
        if feed.through == "norm":
            return numpy.abs(merging.values(source)).reshape(-1)
        rows = numpy.abs(merging.values(source, expert)).max(axis=1)
        columns = merging.tensors[names[0]].columns
        if feed.through == "attention":
            heads = merging.heads
            own = rows[len(rows) - heads.kv_heads * heads.value :].reshape(heads.kv_heads, 1, heads.value)
            spread = numpy.repeat(own, heads.heads // heads.kv_heads, axis=1)
            return spread.reshape(-1)
        return rows[len(rows) - columns :]

    return _by_maxima(merging, feed, names, source_ranges, equalize.equalized_scale)


def _by_maxima(
    merging: Merging,
    feed: Feed,
    names: Sequence[str],
    ranges: Callable[[int], Floats | None],
    formula: Callable[[Sequence[Floats], Doubles], Doubles],
) -> Floats:
    scales = []
    for expert in range(merging.experts(names[0]) if feed.through == "product" else 1):
        found = ranges(expert)
        if found is None:
            found = numpy.ones(merging.tensors[names[0]].columns, numpy.float32)
        readers = [
            merging.values(name, number)
            for name in merging.encoded(names)
            for number in ([expert] if feed.through == "product" else _some(merging.experts(name)))
        ]
        scale = rescale.shared(formula(readers, found.astype(numpy.float64)), feed, merging.heads)
        scales.append(scale.astype(numpy.float32))
    return numpy.stack(scales)


_FINDERS: dict[str, Finder] = {"awq": _by_error, "smoothquant": _by_inputs, "equalize": _by_ranges}
