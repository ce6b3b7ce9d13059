"""What checkpoints of dense families and encoders differ by: fused projections, zeros, positions, labels, scalings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy
import pytest

from helpers import oracles
from helpers.checkpoints import changed, read_tensors
from quantcli import families
from quantcli.errors import MissingTensors, QuantcliError
from quantcli.model import Model
from quantcli.sources.checkpoint import Checkpoint

Tensors = dict[str, tuple[str, list[int], bytes]]


def rows(model: Model, name: str) -> numpy.ndarray:
    tensor = next(tensor for tensor in model.tensors if tensor.name == name)
    return tensor.reader.read_rows(0, tensor.rows)


def entry(model: Model, key: str) -> Any:
    value = model.metadata.get(f"{model.architecture}.{key}")
    return value and value.data


def fused(tensors: Tensors) -> Tensors:
    """q, k, v and gate, up in one matrix each, as the first ERNIE checkpoints have them."""
    result = dict(tensors)
    for name in [name for name in tensors if name.endswith("q_proj.weight")]:
        layer = name.removesuffix("self_attn.q_proj.weight")
        for parts, whole in (
            (("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), "self_attn.qkv_proj"),
            (("mlp.gate_proj", "mlp.up_proj"), "mlp.up_gate_proj"),
        ):
            taken = [result.pop(f"{layer}{part}.weight") for part in parts]
            shape = [sum(one[1][0] for one in taken), taken[0][1][1]]
            result[f"{layer}{whole}.weight"] = (taken[0][0], shape, b"".join(one[2] for one in taken))
    return result


def test_projections_that_are_fused(tmp_path: Path) -> None:
    ernie = {"architectures": ["Ernie4_5_ForCausalLM"], "model_type": "ernie4_5"}
    apart = families.load_checkpoint(changed("mistral-tekken", tmp_path / "a", ernie))
    whole = families.load_checkpoint(changed("mistral-tekken", tmp_path / "b", ernie, fused))
    assert {tensor.name for tensor in whole.tensors} == {tensor.name for tensor in apart.tensors}
    for tensor in apart.tensors:
        assert numpy.array_equal(rows(whole, tensor.name), rows(apart, tensor.name)), tensor.name


@pytest.mark.parametrize("value", [0, 1])
def test_biases_without_a_place(value: int, tmp_path: Path) -> None:
    """Command R7B: zeros are left out, anything else is an error that names the tensor."""

    def with_bias(tensors: Tensors) -> Tensors:
        name = "model.layers.0.self_attn.o_proj"
        width = tensors[f"{name}.weight"][1][0]
        return {**tensors, f"{name}.bias": ("F32", [width], numpy.full(width, value, "<f4").tobytes())}

    config = {"architectures": ["Cohere2ForCausalLM"], "model_type": "cohere2", "sliding_window": 16, "rotary_pct": 1.0}
    checkpoint = changed("cohere", tmp_path, {**config, "use_qk_norm": None}, with_bias)
    if value:
        with pytest.raises(QuantcliError, match="is not zero") as caught:
            families.load_checkpoint(checkpoint)
        assert "o_proj.bias" in str(caught.value)
    else:
        assert not [t for t in families.load_checkpoint(checkpoint).tensors if t.name.endswith("attn_output.bias")]


@pytest.mark.parametrize(("padding", "skipped"), [(1, 2), ("absent", 2), (3, 4)])
def test_positions_behind_the_padding(padding: int | str, skipped: int, tmp_path: Path) -> None:
    plain = json.loads((oracles.folder("bge-reranker-xlmr") / "config.json").read_text())
    config = {"pad_token_id": None if padding == "absent" else padding}
    model = families.load_checkpoint(changed("bge-reranker-xlmr", tmp_path, config))
    stored = Checkpoint(oracles.folder("bge-reranker-xlmr")).tensors["roberta.embeddings.position_embeddings.weight"]
    positions = plain["max_position_embeddings"]
    assert entry(model, "context_length") == positions - skipped
    assert numpy.array_equal(rows(model, "position_embd.weight"), stored.read_rows(skipped, positions))


@pytest.mark.parametrize(
    ("named", "labels"),
    [
        ({"0": "LABEL_0"}, ["LABEL_0"]),
        ({"1": "no", "0": "yes"}, ["yes", "no"]),
        ({str(i): f"l{i}" for i in range(11)}, [f"l{i}" for i in range(11)]),
        ({"0": "LABEL_0", "1": "LABEL_1"}, None),
    ],
)
def test_labels(named: dict[str, str], labels: list[str] | None, tmp_path: Path) -> None:
    """In the order of their numbers; the two that transformers makes up are none."""

    def widened(tensors: Tensors) -> Tensors:
        result = dict(tensors)
        for part in ("weight", "bias"):
            dtype, shape, data = tensors[f"classifier.out_proj.{part}"]
            result[f"classifier.out_proj.{part}"] = (dtype, [len(named), *shape[1:]], data * len(named))
        return result

    config = {"id2label": named, "label2id": {label: int(number) for number, label in named.items()}}
    model = families.load_checkpoint(changed("bge-reranker-xlmr", tmp_path, config, widened))
    found = entry(model, "classifier.output_labels")
    assert (found and list(found)) == labels
    assert rows(model, "cls.output.weight").shape[0] == len(named)


def test_alpha_makes_a_larger_base(tmp_path: Path) -> None:
    """Hunyuan: base alpha^(d / (d - 2)), for "dynamic" with a context of 256k; nothing of it without scaling."""
    plain = json.loads((oracles.folder("hunyuan-dense") / "config.json").read_text())
    scaling = {**plain["rope_scaling"], "alpha": 50.0}
    model = families.load_checkpoint(changed("hunyuan-dense", tmp_path / "a", {"rope_scaling": scaling}))
    width = plain["head_dim"]
    assert entry(model, "rope.freq_base") == pytest.approx(10000 * 50 ** (width / (width - 2)), rel=1e-6)
    assert entry(model, "rope.scaling.original_context_length") == entry(model, "context_length") == 256 * 1024
    config = {"rope_scaling": None, "max_position_embeddings": 4096}
    model = families.load_checkpoint(changed("hunyuan-dense", tmp_path / "b", config))
    assert entry(model, "rope.freq_base") == 10000 and entry(model, "context_length") == 4096
    assert entry(model, "rope.scaling.type") is None and entry(model, "rope.scaling.factor") is None


def test_numbers_that_tensors_hold(tmp_path: Path) -> None:
    """Apertus: a value per layer, in the order of the layers; one that is missing is named."""
    source = read_tensors(oracles.folder("apertus"))
    model = families.load_checkpoint(Checkpoint(oracles.folder("apertus")))
    found = list(model.metadata["xielu.alpha_p"].data)
    stored = [Checkpoint(oracles.folder("apertus")).tensors[f"model.layers.{i}.mlp.act_fn.alpha_p"] for i in range(2)]
    assert found == [tensor.read_rows(0, 1).item() for tensor in stored] and len(set(found)) == 2
    assert not [tensor.name for tensor in model.tensors if "act_fn" in tensor.name]
    missing = changed(
        "apertus", tmp_path, tensors=lambda t: {k: v for k, v in t.items() if "0.mlp.act_fn.beta" not in k}
    )
    assert len(read_tensors(missing.folder)) == len(source) - 1
    with pytest.raises(MissingTensors, match=r"layers\.0\.mlp\.act_fn\.beta"):
        families.load_checkpoint(missing)


def test_names_of_jinas_bert_of_code(tmp_path: Path) -> None:
    """Other names of the MLP, norms of the whole query and key, one more norm behind attention."""

    def renamed(tensors: Tensors) -> Tensors:
        names = {"mlp.gated_layers": "mlp.up_gated_layer", "mlp.wo": "mlp.down_layer", "mlp.layernorm": "layer_norm_2"}
        result = {}
        for name, row in tensors.items():
            for old, new in names.items():
                name = name.replace(old, new)
            result[name] = row
        norm = tensors["embeddings.LayerNorm.weight"]
        for layer in range(2):
            for more in ("attention.self.layer_norm_q", "attention.self.layer_norm_k", "layer_norm_1"):
                result |= {f"encoder.layer.{layer}.{more}.{part}": norm for part in ("weight", "bias")}
        return result

    plain = families.load_checkpoint(Checkpoint(oracles.folder("jina-bert-v2")))
    model = families.load_checkpoint(changed("jina-bert-v2", tmp_path, tensors=renamed))
    names = {tensor.name for tensor in model.tensors}
    assert {f"blk.1.{role}.weight" for role in ("attn_q_norm", "attn_k_norm", "attn_norm_2")} <= names
    for tensor in plain.tensors:
        assert numpy.array_equal(rows(model, tensor.name), rows(plain, tensor.name)), tensor.name


def test_sections_of_positions(tmp_path: Path) -> None:
    """Qwen2-VL as it was published: a flat config.json, "mrope" as a type of scaling that is none."""
    config = {
        "architectures": ["Qwen2VLForConditionalGeneration"],
        "model_type": "qwen2_vl",
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
    }
    model = families.load_checkpoint(changed("qwen2", tmp_path, config))
    assert model.architecture == "qwen2vl" and list(entry(model, "rope.dimension_sections")) == [2, 3, 3, 0]
    assert entry(model, "rope.scaling.type") is None and not [note for note in model.notes if "rope_scaling" in note]


def test_three_levels(tmp_path: Path) -> None:
    """BitNet: every matrix of a layer has -1, 0 and 1 times its mean magnitude; embeddings stay."""

    def with_norms(tensors: Tensors) -> Tensors:
        result = dict(tensors)
        for name, (dtype, shape, _) in tensors.items():
            for matrix, norm in (
                ("self_attn.o_proj", "self_attn.inner_attn_ln"),
                ("mlp.down_proj", "mlp.ffn_layernorm"),
            ):
                if name.endswith(f"{matrix}.weight"):
                    ones = numpy.ones(shape[1], "<f4")
                    result[name.replace(matrix, norm)] = ("F32", [shape[1]], ones.tobytes())
                    assert dtype
        return result

    config = {"architectures": ["BitnetForCausalLM"]}
    model = families.load_checkpoint(changed("llama-spm", tmp_path, config, with_norms))
    for role in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        found = rows(model, f"blk.1.{role}.weight")
        assert len(numpy.unique(numpy.abs(found))) <= 2 and len(numpy.unique(found)) == 3, role
        again = next(t for t in model.tensors if t.name == f"blk.1.{role}.weight").reader.read_rows(1, 2)
        assert numpy.array_equal(again[0], found[1])
    assert len(numpy.unique(rows(model, "token_embd.weight"))) > 3
