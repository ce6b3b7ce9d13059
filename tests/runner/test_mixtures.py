"""Latent attention, indexers, chunks, shared keys and streams, in models made here from their declarations: all ways
to compute them agree, whatever the cuts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy
import pytest

from helpers.made_models import (
    BASE,
    EXPERTS,
    HIDDEN,
    LENGTH,
    ROWS,
    all_ways_agree,
    layer_by_layer_agrees,
    logits,
    tensor,
    value,
)
from quantcli import architectures, container
from quantcli.architectures import keys
from quantcli.errors import BadConfig, MissingTensors, QuantcliError, ShapeMismatch, UnsupportedGraph
from quantcli.ggml import tensor_types
from quantcli.model import Model, ModelTensor
from quantcli.runner import choice, indexer, settings, shapes, text
from quantcli.runner.network import Network
from quantcli.runner.products import Products
from quantcli.runner.routing import Routing
from quantcli.runner.weights import Packed, holding

LATENT = {
    "attention.head_count_kv": 1, "attention.q_lora_rank": 10, "attention.kv_lora_rank": 12, "rope.dimension_count": 4,
    "attention.key_length": 16, "attention.value_length": 12, "attention.key_length_mla": 10,
    "attention.value_length_mla": 6,
}  # fmt: skip
CHOSEN = {"attention.indexer.head_count": 3, "attention.indexer.key_length": 8, "attention.indexer.top_k": 4}
MLP, MOE, BOTH = {"ffn_down": 40}, {"ffn_down_exps": 24}, {"ffn_down": 40, "ffn_down_exps": 24}
WINDOWS = {"attention.sliding_window": 4, "attention.sliding_window_pattern": [1, 0, 1, 0]}
SHARED = {**WINDOWS, "attention.shared_kv_layers": 2, "embedding_length_per_layer_input": 8, "vocab_size": ROWS,
          "attention.head_count_kv": 2}  # fmt: skip
#: architecture -> its metadata, widths of its MLPs
MODELS: dict[str, tuple[dict[str, object], dict[str, int]]] = {
    "deepseek2": ({**LATENT, **EXPERTS, "expert_group_count": 3, "expert_group_used_count": 2}, MOE),
    "minicpm3": ({**LATENT, "attention.key_length": 10, "attention.head_count_kv": 4}, MLP),
    "glm-dsa": ({**LATENT, **CHOSEN, **EXPERTS}, MOE),
    "llama4": ({"attention.head_count_kv": 2, "rope.dimension_count": 8, **EXPERTS}, MOE),
    "gemma3n": ({**SHARED, "altup.num_inputs": 4, "altup.active_idx": 0}, MLP),
    "gemma4": ({**SHARED, **EXPERTS}, BOTH),
    "afmoe": ({**WINDOWS, **EXPERTS}, MOE),
    "smallthinker": ({**WINDOWS, **EXPERTS}, MOE),
    "grok": ({**EXPERTS, "attention.output_scale": 0.25}, BOTH),
    "dbrx": ({**EXPERTS, "attention.clamp_kqv": 8.0}, MOE),
}
UNTURNED = {"minicpm3": ("attention.key_length_mla", "attention.value_length_mla")}


def made(name: str, **changes: object) -> Model:
    """A model of random weights with every tensor that its graph may read."""
    own, widths = MODELS[name]
    numbers = {**BASE, **own, **changes}
    numbers = {key: number for key, number in numbers.items() if key not in UNTURNED.get(name, ())}
    epsilon = keys.EPSILON[architectures.find(name).graph.norm]
    metadata = {f"{name}.{key}": value(number) for key, number in numbers.items()}
    metadata[f"{name}.{epsilon}"] = container.f32(1e-5)
    known: dict[str, tuple[int, ...]] = {"token_embd.weight": (HIDDEN, ROWS)}
    for layer in range(int(numbers["block_count"])):
        for role, width in widths.items():
            stack = (6,) if role == "ffn_down_exps" else ()
            known[f"blk.{layer}.{role}.weight"] = (width, HIDDEN, *stack)
        known |= {f"blk.{layer}.ffn_gate_inp.weight": (HIDDEN, 6)} if "ffn_down_exps" in widths else {}
        known |= {f"blk.{layer}.laurel_l.weight": (HIDDEN, 8)} if name == "gemma3n" else {}
    found = settings.read_metadata(name, metadata, (), "made")
    draw = numpy.random.default_rng(11)
    skipped = ("rope_f", "ffn_gate_up_exps", *((".bias",) if found.graph.norm == "rms" else ()))
    tensors = [
        tensor(one.name, one.shape, draw)
        for one in shapes.expected(found, known)
        if not any(part in one.name for part in skipped) or one.name.endswith("indexer.k_norm.bias")
    ]
    return Model(name="made", architecture=name, metadata=metadata, tensors=tensors, default_float=None, kind="gguf")


@pytest.mark.parametrize("name", MODELS)
def test_all_ways_agree(name: str) -> None:
    all_ways_agree(made, name)


@pytest.mark.parametrize("name", MODELS)
def test_layer_by_layer_is_the_same(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys and values that later layers read, and choices that they take over, wait on disk like the stream."""
    monkeypatch.setattr(text, "BATCH", 2 * LENGTH)
    left = layer_by_layer_agrees(made(name), tmp_path)
    kinds = {path.split("-")[1] for path in left}
    assert kinds == {"gemma3n": {"store"}, "gemma4": {"store"}, "glm-dsa": {"chosen"}}.get(name, set())


@pytest.mark.parametrize("name", MODELS)
def test_misshapen_tensors_are_named(name: str) -> None:
    model = made(name)
    for broken in model.tensors:
        others = [one for one in model.tensors if one is not broken]
        wrong = replace(broken, shape=(broken.shape[0] + 1, *broken.shape[1:]))
        with pytest.raises((ShapeMismatch, MissingTensors)):
            Network(replace(model, tensors=[*others, wrong]))


@pytest.mark.parametrize(
    ("name", "key", "number"),
    [
        ("deepseek2", "attention.key_length_mla", 4),
        ("deepseek2", "attention.key_length", 17),
        ("deepseek2", "attention.kv_lora_rank", 1 << 31),
        ("deepseek2", "expert_group_count", 4),
        ("glm-dsa", "attention.indexer.key_length", 2),
        ("glm-dsa", "attention.indexer.top_k", 0),
        ("gemma3n", "altup.num_inputs", 3),
        ("gemma3n", "altup.active_idx", 4),
        ("gemma4", "attention.shared_kv_layers", 4),
        ("gemma4", "attention.shared_kv_layers", 3),
        ("afmoe", "expert_used_count", 7),
    ],
)
def test_numbers_that_cannot_be_are_named(name: str, key: str, number: object) -> None:
    with pytest.raises(QuantcliError) as found:
        made(name, **{key: number})
    assert isinstance(found.value, BadConfig) and key.rsplit(".", 1)[-1][:10] in str(found.value)


def test_the_absorbed_form_is_the_expanded_one() -> None:
    """Matrices of keys and values apart or in one: the same attention."""
    absorbed = made("deepseek2")
    ids = numpy.arange(9)[None]
    wanted = logits(Network(absorbed, Products("float", 1), kv_type="F32"), ids)
    gone = ("attn_k_b", "attn_v_b")
    expanded = replace(
        absorbed, tensors=[one for one in absorbed.tensors if not any(part in one.name for part in gone)]
    )
    whole = {one.name: one for one in absorbed.tensors}
    for layer in range(4):
        keys_of, values_of = (whole[f"blk.{layer}.{role}.weight"] for role in gone)
        k = keys_of.reader.read_rows(0, 4 * 12).reshape(4, 12, 6).transpose(0, 2, 1)  # [h, n, rank]
        v = values_of.reader.read_rows(0, 4 * 6).reshape(4, 6, 12)
        both = numpy.ascontiguousarray(numpy.concatenate([k, v], axis=1).reshape(48, 12))
        f32 = tensor_types.BY_NAME["F32"]
        empty = ModelTensor(f"blk.{layer}.attn_kv_b.weight", (12, 48), f32, f32, True, None, "made")
        expanded.tensors.append(holding(empty, Packed.of(both)))
    expanded.metadata = {key: one for key, one in absorbed.metadata.items() if not key.endswith("_mla")}
    for key, number in (("key_length", 10), ("value_length", 6), ("head_count_kv", 4)):
        expanded.metadata[f"deepseek2.attention.{key}"] = container.u32(number)
    found = logits(Network(expanded, Products("float", 1), kv_type="F32"), ids)
    assert numpy.abs(found - wanted).max() < 1e-4 * wanted.std()


def test_layers_that_depend_on_others_are_not_run_alone() -> None:
    for name, layer in (("gemma4", 3), ("gemma3n", 2)):
        network = Network(made(name), kv_type="F32")
        x = network.embed(numpy.arange(6)[None])
        with pytest.raises(UnsupportedGraph, match="a later layer"):
            network.layer(layer, x, network.new_cache(1, 6))


def test_chunks_begin_anew() -> None:
    """What lies before the multiple of a chunk's length is not seen; elsewhere it is."""
    model = made("llama4", **{"attention.head_count_kv": 2})
    graph = architectures.find("llama4").graph
    assert graph.chunked
    network = Network(model, Products("float", 1), kv_type="F32")
    object.__setattr__(network.engine.settings, "window", 4)  # instead of thousands
    ids = numpy.random.default_rng(3).integers(0, ROWS, (1, LENGTH))
    attention = network._layer(0).attention
    x = network.embed(ids)
    whole = attention.forward(x, network.new_cache(1, LENGTH))
    alone = numpy.concatenate([attention_from(network, x, start) for start in (0, 4, 8)], axis=1)
    assert numpy.abs(whole - alone).max() < 1e-4 * whole.std()


def attention_from(network: Network, x: numpy.ndarray, start: int) -> numpy.ndarray:
    """The chunk at ``start``, with keys before it that would change everything if they were seen."""
    cache, attention = network.new_cache(1, LENGTH), network._layer(0).attention
    attention.forward(1 - 3 * x[:, :start], cache) if start else None
    return attention.forward(x[:, start : start + 4], cache)


def test_the_best_positions() -> None:
    draw = numpy.random.default_rng(5)
    queries, weights, stored = (
        draw.standard_normal(shape).astype(numpy.float32) for shape in ((5, 3, 8), (5, 3), (9, 8))
    )
    found = indexer.best(queries, weights, stored, 4, 3)
    for query, places in enumerate(found):
        scores = (numpy.maximum(queries[query] @ stored.T, 0) * weights[query][:, None]).sum(axis=0)[: 5 + query]
        assert sorted(places) == sorted(numpy.argsort(-scores)[:3])


@pytest.mark.parametrize("gating", ["softmax", "sigmoid", "root_softplus"])
def test_routing(gating: str) -> None:
    draw = numpy.random.default_rng(6)
    scores, bias = draw.standard_normal((7, 8)).astype(numpy.float32), draw.standard_normal(8).astype(numpy.float32)
    known = settings.read(made("deepseek2")).routing
    assert isinstance(known, Routing)
    routing = replace(known, experts=8, used=3, groups=4, groups_used=2, gating=gating)
    chosen, share = choice.choose(routing, scores, bias)
    assert chosen.shape == share.shape == (7, 3) and (share > 0).all()
    assert all(len({int(expert) // 2 for expert in row}) <= 2 for row in chosen), "two groups at most"
    free, _ = choice.choose(replace(routing, groups=1, groups_used=1), scores, None)
    assert (free[:, 0] == scores.argmax(axis=1)).all()
