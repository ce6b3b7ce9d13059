"""Which factors a transform puts on which channels of a layer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy

from quantcli.architectures.topology import Feed
from quantcli.calibration.exactness import feeds_of, heads_of
from quantcli.calibration.float_stream import LayerMoments
from quantcli.calibration.gather import Gathering
from quantcli.errors import UnsupportedTransform
from quantcli.ggml.tensor_types import TensorType
from quantcli.methods.seam import Matrix, matrix_count
from quantcli.model import Model
from quantcli.runner.arrays import Doubles, Floats
from quantcli.runner.settings import NetworkSettings
from quantcli.transforms import awq, equalize, rescale
from quantcli.transforms.rescale import Factors, Heads


def check(transforms: Sequence[str], model: Model, settings: NetworkSettings) -> None:
    """Raises UnsupportedTransform where no layer of such a model has anything that can be rescaled exactly."""
    tensors = {tensor.name: tensor for tensor in model.tensors}
    if transforms and not any(feeds_of(settings, layer, tensors) for layer in range(settings.layers)):
        raise UnsupportedTransform(
            f"nothing can be rescaled exactly in a model of architecture {model.architecture}",
            where=f"--transform {transforms[0]}",
            hint="leave the option out",
        )


class Merging:
    """Finds factors of a model, for one assignment of types."""

    def __init__(
        self, model: Model, settings: NetworkSettings, types: Mapping[str, TensorType], exact: Collection[Feed]
    ) -> None:
        """``exact``: the feeds that may be rescaled (exactness.py)."""
        self.settings, self.types, self.exact = settings, types, exact
        self.heads = Heads(0, 0, 0)  # of the layer at hand
        self.tensors = {tensor.name: tensor for tensor in model.tensors}

    def layer(self, transform: str, layer: LayerMoments) -> dict[str, Factors]:
        """Factors by tensor name."""
        prefix, found = layer.prefix, dict[str, Factors]()
        self.heads = heads_of(self.settings, layer.index)
        for feed in feeds_of(self.settings, layer.index, self.tensors):
            names = [f"{prefix}{role}.weight" for role in feed.matrices]
            if feed not in self.exact or not any(name in self.types for name in names):
                continue
            scale = FINDERS[transform](self, feed, names, layer.fit)
            for name, factors in rescale.factors_of(feed, prefix, scale, self.tensors, self.heads).items():
                found[name] = found.get(name, Factors()).times(factors)
        return found

    # ---- what the transforms ask for

    def values(self, name: str, expert: int = 0) -> Floats:
        """One matrix, float32 [rows, columns]."""
        matrix = Matrix.of(self.tensors[name], expert)
        return matrix.read(0, matrix.rows)

    def encoded(self, names: Sequence[str]) -> list[str]:
        """Those of the tensors that are to be encoded to a type with blocks."""
        return [name for name in names if name in self.types]


Finder = Callable[[Merging, Feed, Sequence[str], Gathering], Floats]


def _by_error(merging: Merging, feed: Feed, names: Sequence[str], gathering: Gathering) -> Floats:
    """AWQ, per expert where the experts' inputs are their own."""
    scales = []
    for expert in range(matrix_count(merging.tensors[names[0]]) if feed.through == "product" else 1):
        moments = gathering.moments.get((names[0], expert))
        hessian = moments.mean_hessian() if moments else numpy.eye(merging.tensors[names[0]].columns)
        sizes = rescale.shared(awq.magnitudes(hessian), feed, merging.heads)
        readers = [
            awq.Reader(merging.values(name, number), merging.types[name])
            for name in merging.encoded(names)
            for number in ([expert] if feed.through == "product" else _some(matrix_count(merging.tensors[name])))
        ]
        scales.append(awq.best_scale(readers, hessian, sizes)[0])
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
        rows: Floats = numpy.abs(merging.values(source, expert)).max(axis=1)
        columns = merging.tensors[names[0]].columns
        if feed.through == "attention":
            heads = merging.heads
            own = rows[len(rows) - heads.kv_heads * heads.value :].reshape(heads.kv_heads, 1, heads.value)
            spread: Floats = numpy.repeat(own, heads.heads // heads.kv_heads, axis=1)
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
    for expert in range(matrix_count(merging.tensors[names[0]]) if feed.through == "product" else 1):
        found = ranges(expert)
        if found is None:
            found = numpy.ones(merging.tensors[names[0]].columns, numpy.float32)
        readers = [
            merging.values(name, number)
            for name in merging.encoded(names)
            for number in ([expert] if feed.through == "product" else _some(matrix_count(merging.tensors[name])))
        ]
        scale = rescale.shared(formula(readers, found.astype(numpy.float64)), feed, merging.heads)
        scales.append(scale.astype(numpy.float32))
    return numpy.stack(scales)


#: by the names of quality.TRANSFORMS
FINDERS: dict[str, Finder] = {"awq": _by_error, "smoothquant": _by_inputs, "equalize": _by_ranges}
