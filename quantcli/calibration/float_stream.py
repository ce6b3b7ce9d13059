"""One pass of a text through the model as it is: the moments of every product's inputs, layer by layer.

What transforms look for, what GPTQ encodes with, and what `quantcli calibrate` keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy
from numpy.typing import NDArray

from quantcli.calibration.capture import Stage, stages_of
from quantcli.calibration.folder import Folder
from quantcli.calibration.gather import Gathering
from quantcli.calibration.moments import Moments
from quantcli.runner.arrays import Floats
from quantcli.runner.network import Network
from quantcli.runner.text import Chunks
from quantcli.transforms.rescale import Factors

TOGETHER = 4096  # tokens whose products are one term of the sums
PROBE = 8  # tokens that show in which order a layer multiplies

Progress = Callable[[int, int], None]


@dataclass
class LayerMoments:
    """Of one layer: its stages in order, and what was gathered of the tokens to fit and to check with."""

    index: int
    stages: list[Stage]
    fit: Gathering
    held_out: Gathering

    @property
    def prefix(self) -> str:
        """What the names of the layer's tensors begin with."""
        return f"blk.{self.index}."

    def rescaled(self, factors: Mapping[str, Factors]) -> LayerMoments:
        """The moments of the inputs that the matrices get once their columns are multiplied by ``factors``."""
        fit, held_out = (_rescaled(one, self.stages, factors) for one in (self.fit, self.held_out))
        return LayerMoments(self.index, self.stages, fit, held_out)


def layer_stages(network: Network, index: int, x: Floats) -> list[Stage]:
    """The stages of a layer, seen on a few positions ``x`` [1, T, H]."""
    found: list[Stage] = []
    for part in network.layer_parts(index):
        found += stages_of(network, part, x, network.new_cache(1, x.shape[1]))
    return found


def batches_of(chunks: Chunks) -> list[tuple[int, int]]:
    """(start, stop) of the chunks whose products are summed together."""
    step = max(1, TOGETHER // chunks.length)
    return [(start, min(start + step, len(chunks))) for start in range(0, len(chunks), step)]


def probe_of(network: Network, chunks: Chunks) -> Floats:
    """A few positions before layer 0, [1, T, H]."""
    return network.embed(chunks.inputs(0, 1)[:, :PROBE])


def layers(
    network: Network, fit: Chunks, held_out: Chunks | None = None, progress: Progress | None = None
) -> Iterator[LayerMoments]:
    """The moments of every layer, one after the other; each layer's weights are forgotten after it.

    Raises NonFiniteResult, as running does.
    """
    count = network.settings.layers
    streams = [
        (number, network.embed(chunks.inputs(*bounds)))
        for number, chunks in enumerate([fit, held_out])
        if chunks is not None
        for bounds in batches_of(chunks)
    ]
    probe = probe_of(network, fit)
    for index in range(count):
        gathered = Gathering(), Gathering()
        for place, (number, x) in enumerate(streams):
            with network.observed_by(gathered[number]):
                streams[place] = number, network.layer(index, x, network.new_cache(*x.shape[:2]))
        yield LayerMoments(index, layer_stages(network, index, probe), *gathered)
        network.release(index)
        if progress is not None:
            progress(index + 1, count)


def _rescaled(gathering: Gathering, stages: Sequence[Stage], factors: Mapping[str, Factors]) -> Gathering:
    result = Gathering()
    for stage in stages:
        own = factors.get(stage.names[0])
        for number in range(stage.weights[0].matrices):
            moments = gathering.moments.get((stage.names[0], number))
            if moments is None:
                continue
            largest = gathering.largest[stage.names[0], number]
            if own is not None and own.columns is not None:
                scale = own.columns[number].astype(numpy.float64)
                moments = replace(moments, hessian=moments.hessian / numpy.outer(scale, scale))
                largest = (largest / scale).astype(numpy.float32)
            for name in stage.names:
                result.moments[name, number], result.largest[name, number] = moments, largest
    return result


# ---- kept in a folder


def write(folder: Folder, layer: LayerMoments) -> None:
    """Keep a layer's moments: one file."""
    arrays: dict[str, NDArray[numpy.generic]] = {}
    for part, gathering in (("fit", layer.fit), ("held_out", layer.held_out)):
        for stage in layer.stages:
            for number in range(stage.weights[0].matrices):
                moments = gathering.moments.get((stage.names[0], number))
                if moments is not None:
                    prefix = f"{part}/{stage.names[0]}/{number}"
                    arrays[f"{prefix}/hessian"] = moments.hessian
                    arrays[f"{prefix}/largest"] = gathering.largest[stage.names[0], number]
                    arrays[f"{prefix}/tokens"] = numpy.array([moments.tokens])
    folder.write(_file(layer.index), arrays)


def read(folder: Folder, network: Network, index: int, probe: Floats) -> LayerMoments | None:
    """A layer's moments, as they were kept; None where they are not there."""
    arrays = folder.read(_file(index))
    if arrays is None:
        return None
    layer = LayerMoments(index, layer_stages(network, index, probe), Gathering(), Gathering())
    for part, gathering in (("fit", layer.fit), ("held_out", layer.held_out)):
        for stage in layer.stages:
            for number in range(stage.weights[0].matrices):
                prefix = f"{part}/{stage.names[0]}/{number}"
                if f"{prefix}/hessian" not in arrays:
                    continue
                hessian = arrays[f"{prefix}/hessian"].astype(numpy.float64)
                tokens = int(arrays[f"{prefix}/tokens"][0])
                moments = Moments(hessian, tokens=tokens, weight=float(tokens))
                for name in stage.names:
                    gathering.moments[name, number] = moments
                    gathering.largest[name, number] = arrays[f"{prefix}/largest"].astype(numpy.float32)
    network.release(index)
    return layer


def is_kept(folder: Folder, index: int) -> bool:
    """Whether a layer's moments are there."""
    return folder.has(_file(index))


def _file(index: int) -> str:
    return f"layer-{index:04}"
