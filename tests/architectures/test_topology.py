"""What the topology says is held against the forward pass: rescaling along every exact feed changes no logit."""

from __future__ import annotations

from dataclasses import replace

import numpy
import pytest

from helpers import oracles
from quantcli import architectures
from quantcli.architectures import topology
from quantcli.errors import UnsupportedGraph
from quantcli.ggml.tensor_types import BY_NAME
from quantcli.loader import open_model
from quantcli.model import Model, ModelTensor
from quantcli.runner import settings
from quantcli.runner.network import Network
from quantcli.runner.session import make_operations
from quantcli.views.computed import Generated

BUNDLED = ("exaone4", "gemma3", "llama-quirks", "llama-tied-bias", "olmo3", "phi3", "qwen3-moe")
OTHERS = ("cohere", "falcon", "glm4", "gpt-neox", "gpt-oss", "gpt2", "granite-moe", "nemotron", "qwen2-moe", "stablelm")


class Changed:
    """Rows of a tensor in memory."""

    def __init__(self, values: numpy.ndarray) -> None:
        self.values = values

    def read_rows(self, start: int, stop: int, out: numpy.ndarray | None = None) -> numpy.ndarray:
        found = self.values[start:stop].copy()
        if out is None:
            return found
        out[:] = found
        return out


class Rescaler:
    """A model's tensors as float32 [matrices, rows, columns], to be multiplied by powers of two."""

    def __init__(self, model: Model) -> None:
        self.model, self.changed = model, {}
        self.tensors = {tensor.name: tensor for tensor in model.tensors}
        self.random = numpy.random.default_rng(4)

    def values(self, name: str) -> numpy.ndarray:
        if name not in self.changed:
            tensor = self.tensors[name]
            columns, rows, matrices = (*tensor.shape, 1, 1)[:3]
            values = tensor.reader.read_rows(0, tensor.rows)
            self.changed[name] = values.reshape(matrices, rows, columns).copy()
        return self.changed[name]

    def factors(self, count: int) -> numpy.ndarray:
        return numpy.exp2(self.random.integers(-2, 3, count)).astype(numpy.float32)

    def rescale(self, feed: topology.Feed, prefix: str, group: int, width: int) -> None:
        """``group`` heads of ``width`` share a key/value head."""
        inputs = self.values(f"{prefix}{feed.matrices[0]}.weight").shape[-1]
        channels = inputs // group if feed.through == "attention" else inputs
        factors, source = self.factors(channels), f"{prefix}{feed.source}"
        for name in (f"{source}.weight", f"{source}.bias"):
            if name in self.tensors and (feed.through == "norm" or name.endswith(".bias")):
                self.values(name)[..., -channels:] *= factors
            elif name in self.tensors:
                self.values(name)[:, -channels:] *= factors[:, None]
        columns = factors.reshape(-1, 1, width).repeat(group, 1).ravel() if feed.through == "attention" else factors
        for matrix in feed.matrices:
            self.values(f"{prefix}{matrix}.weight")[...] /= columns

    def finish(self) -> None:
        f32 = BY_NAME["F32"]
        for number, tensor in enumerate(self.model.tensors):
            if tensor.name in self.changed:
                values = self.changed[tensor.name]
                reader = Changed(values.reshape(-1, values.shape[-1]))
                self.model.tensors[number] = replace(tensor, type=f32, stored=f32, raw=False, reader=reader)


def logits(model: Model) -> numpy.ndarray:
    network = Network(model, make_operations("float", 1), kv_type="F32")
    ids = numpy.random.default_rng(5).integers(3, 300, (1, 40))
    return network.forward(ids, network.new_cache(1, 40))


@pytest.mark.parametrize("name", BUNDLED + OTHERS)
def test_exact_feeds_are_exact(name: str) -> None:
    with open_model(oracles.folder(name)) as model:
        plain, known = logits(model), settings.read(model)
        rescaler = Rescaler(model)
        done = []
        for layer in range(known.layers):
            prefix = f"blk.{layer}."
            found = topology.feeds(known.graph, lambda role: f"{prefix}{role}.weight" in rescaler.tensors)  # noqa: B023
            for feed in found:
                if feed.exact:
                    rescaler.rescale(feed, prefix, known.heads // known.kv_heads, known.value)
                    done.append(feed)
        rescaler.finish()
        assert done and {"attention"} <= {feed.through for feed in done}
        assert numpy.abs(logits(model) - plain).max() < 2e-5 * plain.std()


@pytest.mark.parametrize("name", BUNDLED)
def test_every_matrix_of_a_layer_has_a_feed(name: str) -> None:
    with open_model(oracles.folder(name)) as model:
        names = {tensor.name.removesuffix(".weight") for tensor in model.tensors if tensor.name.startswith("blk.1.")}
        graph = architectures.find(model.architecture).graph
        found = topology.feeds(graph, lambda role: f"blk.1.{role}" in names)
        read = [matrix for feed in found for matrix in feed.matrices]
        matrices = {
            tensor.name.removeprefix("blk.1.").removesuffix(".weight")
            for tensor in model.tensors
            if tensor.name.startswith("blk.1.") and len(tensor.shape) > 1
        }
        assert sorted(read) == sorted(matrices)


def test_feeds_of_llama() -> None:
    graph = architectures.find("llama").graph
    dense = {"attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"}
    assert topology.feeds(graph, dense.__contains__) == [
        topology.Feed("attn_norm", ("attn_q", "attn_k", "attn_v"), "norm"),
        topology.Feed("ffn_norm", ("ffn_gate", "ffn_up"), "norm"),
        topology.Feed("attn_v", ("attn_output",), "attention"),
        topology.Feed("ffn_up", ("ffn_down",), "product"),
    ]


def test_tensors_that_would_be_passed_over() -> None:
    """A second norm, a scale beside a matrix, a head of another kind: the graph of this file is another one."""
    with open_model(oracles.folder("llama-quirks")) as model:
        settings.read(model)
        strangers = ("blk.0.attn_norm_2.weight", "blk.1.attn_q.scale", "cls.output.weight", "attn_norm.weight.x")
        f32 = BY_NAME["F32"]
        for name in strangers:
            extra = ModelTensor(name, (4,), f32, f32, True, Generated([1.0] * 4), "made")
            with pytest.raises(UnsupportedGraph, match=f"{name}: the forward pass of llama"):
                settings.read(replace(model, tensors=[*model.tensors, extra]))
