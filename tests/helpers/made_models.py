"""Models of random weights, made from their declarations: what the tests of several kinds of layers share."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy

from quantcli import container
from quantcli.calibration import collect
from quantcli.ggml import tensor_types
from quantcli.model import Model, ModelTensor
from quantcli.runner import layerwise
from quantcli.runner.network import Network
from quantcli.runner.operations import Operations
from quantcli.runner.products import Products
from quantcli.runner.replay import Stepper
from quantcli.runner.session import RunOptions, Session
from quantcli.runner.text import Chunks
from quantcli.runner.weights import Packed, holding

HIDDEN, ROWS, LENGTH = 32, 48, 11
BASE = {"block_count": 4, "context_length": 64, "embedding_length": HIDDEN, "attention.head_count": 4}
EXPERTS = {"expert_count": 6, "expert_used_count": 2}


def value(number: object) -> container.Value:
    if isinstance(number, list):
        return container.array(container.ValueType.INT32, number)
    kinds = {bool: container.boolean, int: container.u32, float: container.f32}
    return kinds[type(number)](number)


def tensor(name: str, shape: tuple[int, ...], draw: numpy.random.Generator) -> ModelTensor:
    """Small numbers; norms and scales around 1, rates of decay below 0."""
    values = draw.standard_normal(tuple(reversed(shape))).astype(numpy.float32) / 4
    if "norm" in name or "scale" in name:
        values = 1 + values
    elif name.endswith("ssm_a"):
        values = -numpy.exp(values)
    f32 = tensor_types.BY_NAME["F32"]
    empty = ModelTensor(name, shape, f32, f32, True, None, "made")
    return holding(empty, Packed.of(values.reshape(-1, shape[0])))


def logits(network: Network, ids: numpy.ndarray, *pieces: int) -> numpy.ndarray:
    """Of sequences ``ids`` [S, T], fed in the pieces that end at ``pieces``."""
    cache, found, start = network.new_cache(len(ids), ids.shape[1]), [], 0
    for stop in (*pieces, ids.shape[1]):
        found.append(network.forward(ids[:, start:stop], cache))
        start = stop
    return numpy.concatenate(found, axis=1)


def all_ways_agree(made: Callable[[str], Model], name: str) -> None:
    """Whole, in pieces, alone, by numpy, token after token."""
    ids = numpy.random.default_rng(2).integers(0, ROWS, (2, LENGTH))
    network = Network(made(name), Products("float", 2), kv_type="F32")
    whole = logits(network, ids)
    spread = whole.std()
    assert numpy.isfinite(whole).all() and spread > 1e-3
    for pieces in ((1,), (2, 3), (LENGTH - 1,), tuple(range(1, LENGTH))):
        assert numpy.abs(logits(network, ids, *pieces) - whole).max() < 1e-4 * spread, pieces
    assert numpy.abs(logits(network, ids[1:]) - whole[1:]).max() < 1e-4 * spread, "sequences by themselves"
    reference = Network(made(name), Operations("float"), kv_type="F32")
    assert numpy.abs(logits(reference, ids) - whole).max() < 1e-4 * spread
    cache = network.new_cache(1, LENGTH)
    network.forward(ids[:1, :4], cache)
    step = Stepper(network, cache)
    stepped = [step(int(token)).copy() for token in ids[0, 4:]]
    assert numpy.abs(numpy.stack(stepped) - whole[0, 4:]).max() < 1e-4 * spread, "token after token"


def layer_by_layer_agrees(model: Model, folder: Path) -> list[str]:
    """Streams and sums of squares are the same to the bit, chunk by chunk and layer by layer; also where the work is
    cut behind every layer. Returns the files of what layers left to later ones."""
    vocabulary = Network(model).vocabulary
    ids = numpy.random.default_rng(4).integers(0, vocabulary, (5, LENGTH)).astype(numpy.int32)
    chunks = Chunks("t", ids, None)

    def session() -> Session:
        network = Network(model, Products("float", 1), kv_type="F32")
        return Session(model, network, "float", folder / "made.gguf", RunOptions())

    whole = session()
    wanted, _ = collect.collect(whole, chunks)
    with layerwise.waiting(session(), chunks, folder / "at once", "test") as states:
        found = collect.collect_by_layer(session(), chunks, states)
        left = [path.name for path in states.path.glob("carried-*")]
        streams = layerwise.final(whole.network, states, 0, len(chunks))
    assert numpy.array_equal(streams, numpy.concatenate([whole.network.stream(ids[a:b]) for a, b in chunks.batches()]))
    layers = whole.network.settings.layers
    for stop in range(1, layers):
        with suppress(_Cut), layerwise.waiting(session(), chunks, folder / "cut", "test", resume=stop > 1) as states:
            collect.collect_by_layer(session(), chunks, states, progress=_cut_behind(len(chunks)))
        assert states.done == stop
    with layerwise.waiting(session(), chunks, folder / "cut", "test", resume=True) as states:
        resumed = collect.collect_by_layer(session(), chunks, states)
    for other in (found, resumed):
        assert wanted.sums.keys() == other.sums.keys() and len(wanted.sums) > layers
        for name in wanted.sums:
            assert numpy.array_equal(wanted.sums[name], other.sums[name]), name
            assert numpy.array_equal(wanted.counts[name], other.counts[name]), name
    return left


class _Cut(Exception):
    """The end of a run in the middle of its work."""


def _cut_behind(layer: int) -> Callable[[int, str], None]:
    """Progress that ends the run in the layer behind the first ``layer`` steps."""

    def told(done: int, known: str) -> None:
        if done > layer:
            raise _Cut

    return told
