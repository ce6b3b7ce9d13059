"""Checkpoints whose config.json or tensors are odd, wrong, wrapped or in another layout: converted, or an error."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy
import pytest

from helpers import oracles
from helpers.checkpoints import changed, read_tensors, stored, write_tensors
from quantcli import families
from quantcli.errors import (
    BadConfig,
    MissingTensors,
    QuantcliError,
    ShapeMismatch,
    UnknownArchitecture,
    UnknownTensors,
    UnsupportedFile,
)
from quantcli.model import Model
from quantcli.sources.checkpoint import Checkpoint

BAD_CONFIGS = [
    ("num_hidden_layers", 10**9, "num_hidden_layers"),
    ("num_hidden_layers", 0, "num_hidden_layers"),
    ("num_hidden_layers", -2, "num_hidden_layers"),
    ("num_hidden_layers", 2.0, "num_hidden_layers"),
    ("num_hidden_layers", "2", "num_hidden_layers"),
    ("num_hidden_layers", True, "num_hidden_layers"),
    ("num_hidden_layers", None, "num_hidden_layers"),
    ("num_hidden_layers", 10**400, "num_hidden_layers"),
    ("hidden_size", None, "hidden_size"),
    ("hidden_size", [64], "hidden_size"),
    ("num_attention_heads", 7, "num_key_value_heads"),
    ("num_key_value_heads", 3, "num_key_value_heads"),
    ("head_dim", 0, "head_dim"),
    ("num_experts_per_tok", 2**40, "num_experts_per_tok"),
    ("num_local_experts", 10**6, "num_local_experts"),
    ("moe_intermediate_size", -1, "moe_intermediate_size"),
    ("rms_norm_eps", math.nan, "rms_norm_eps"),
    ("rms_norm_eps", "small", "rms_norm_eps"),
    ("rope_theta", math.inf, "rope_theta"),
    ("rope_theta", 0, "rope_theta"),
    ("rope_scaling", "linear", "rope_scaling"),
    ("rope_scaling", {"type": "linear"}, "rope_scaling.factor"),
    ("rope_scaling", {"type": "yarn", "factor": "4"}, "rope_scaling.factor"),
    ("rope_scaling", {"type": 7}, "rope_scaling.type"),
    ("tie_word_embeddings", "yes", "tie_word_embeddings"),
    ("vocab_size", 2**31, "vocab_size"),
    ("architectures", "Qwen3MoeForCausalLM", "architectures"),
    ("architectures", [3], "architectures"),
    ("quantization_config", "gptq", "quantization_config"),
]


@pytest.mark.parametrize(("field", "value", "named"), BAD_CONFIGS)
def test_absurd_config(field: str, value: Any, named: str, tmp_path: Path) -> None:
    checkpoint = changed("qwen3-moe", tmp_path, {field: value})
    with pytest.raises(BadConfig, match=named) as caught:
        families.load_checkpoint(checkpoint)
    assert caught.value.where.endswith("config.json") and caught.value.hint


def test_heads_that_do_not_divide(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="hidden_size 64 is no multiple of num_attention_heads 5"):
        families.load_checkpoint(changed("llama-quirks", tmp_path, {"num_attention_heads": 5}))


def test_a_head_that_cannot_rotate(tmp_path: Path) -> None:
    """64 query rows as 64 heads of one: nothing to pair."""
    config = {"num_attention_heads": 64, "num_key_value_heads": 64}
    with pytest.raises(ShapeMismatch, match="64 rows cannot be seen as") as caught:
        families.load_checkpoint(changed("llama-quirks", tmp_path, config))
    assert "self_attn" in caught.value.where and caught.value.hint


DISAGREEING: list[tuple[str, dict[str, Any], type[QuantcliError], str]] = [
    ("llama-quirks", {"hidden_size": 128}, ShapeMismatch, "config.json asks for"),
    ("llama-quirks", {"intermediate_size": 48}, ShapeMismatch, "mlp.*48"),
    ("llama-quirks", {"vocab_size": 415}, ShapeMismatch, "415"),
    ("llama-quirks", {"num_key_value_heads": 2}, ShapeMismatch, "32, 64"),
    ("llama-quirks", {"num_hidden_layers": 512}, MissingTensors, "missing: model.layers.2"),
    ("llama-quirks", {"num_hidden_layers": 1}, UnknownTensors, "model.layers.1"),
    ("qwen3-moe", {"num_local_experts": 1024}, ShapeMismatch, "1024"),
    ("qwen3-moe", {"num_local_experts": 3}, ShapeMismatch, "3, 64"),
    ("phi3", {"architectures": ["LlamaForCausalLM"]}, UnknownTensors, "qkv_proj"),
    ("llama-tied-bias", {"tie_word_embeddings": False}, MissingTensors, "lm_head.weight"),
    ("llama-quirks", {"architectures": ["LlammaForCausalLM"]}, UnknownArchitecture, "LlammaForCausalLM"),
]


@pytest.mark.parametrize(("name", "config", "error", "words"), DISAGREEING)
def test_config_against_tensors(name: str, config: dict, error: type, words: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=words) as caught:
        families.load_checkpoint(changed(name, tmp_path, config))
    assert caught.value.where and caught.value.hint


def test_unknown_architecture_names_the_nearest(tmp_path: Path) -> None:
    checkpoint = changed("llama-quirks", tmp_path, {"architectures": ["LlammaForCausalLM"]})
    with pytest.raises(UnknownArchitecture) as caught:
        families.load_checkpoint(checkpoint)
    assert "LlamaForCausalLM" in caught.value.hint and "--architecture" in caught.value.hint
    for name in ("llama", "LLAMA", "llamaforcausallm"):
        assert families.load_checkpoint(checkpoint, architecture=name).architecture == "llama"
    with pytest.raises(UnknownArchitecture, match="'nothing'"):
        families.load_checkpoint(checkpoint, architecture="nothing")


def test_missing_and_unknown_tensors_are_counted(tmp_path: Path) -> None:
    def without_mlp(tensors: dict) -> dict:
        return {name: row for name, row in tensors.items() if "mlp." not in name}

    with pytest.raises(MissingTensors, match="6 tensors are missing: model.layers.0.mlp"):
        families.load_checkpoint(changed("llama-quirks", tmp_path / "a", tensors=without_mlp))

    def with_strangers(tensors: dict) -> dict:
        return {**tensors, **{f"model.layers.0.extra.{i}.weight": ("F16", [1], b"\0\0") for i in range(25)}}

    with pytest.raises(UnknownTensors, match="25 tensors .*extra.0.weight.* and 15 more"):
        families.load_checkpoint(changed("llama-quirks", tmp_path / "b", tensors=with_strangers))


def test_falcon_with_two_norms(tmp_path: Path) -> None:
    """The newer layout: two groups of two query heads with a k and a v each, and a norm of its own for the MLP."""
    folder = tmp_path / "falcon"
    shutil.copytree(oracles.folder("falcon"), folder)
    fields = json.loads((folder / "config.json").read_text())
    fields |= {"new_decoder_architecture": True, "num_kv_heads": 2}
    (folder / "config.json").write_text(json.dumps(fields))
    tensors = {}
    for name, row in read_tensors(folder).items():
        if "query_key_value" in name:
            row = ("BF16", [128, 64], numpy.arange(128 * 64, dtype="<u2").tobytes())
        if "input_layernorm" in name:
            tensors[name.replace("input_layernorm", "ln_mlp")] = row
            name = name.replace("input_layernorm", "ln_attn")
        tensors[name] = row
    write_tensors(folder, tensors)
    model = families.load_checkpoint(Checkpoint(folder))
    found = {tensor.name: tensor for tensor in model.tensors}
    assert model.metadata["falcon.attention.head_count_kv"].data == 2
    assert {"blk.1.attn_norm.weight", "blk.1.attn_norm_2.weight", "blk.1.attn_norm_2.bias"} <= set(found)
    groups = numpy.arange(128 * 64, dtype="<u2").reshape(2, 4, 16, 64)  # q q k v of each group
    wanted = numpy.concatenate([part.reshape(-1, 64) for part in (groups[:, :2], groups[:, 2], groups[:, 3])])
    assert bytes(found["blk.0.attn_qkv.weight"].reader.read_raw(0, 128)) == wanted.tobytes()


def test_two_spellings_of_a_name(tmp_path: Path) -> None:
    def twice(tensors: dict) -> dict:
        return {**tensors, "norm.weight": tensors["model.norm.weight"]}

    with pytest.raises(UnknownTensors, match="norm.weight"):
        families.load_checkpoint(changed("llama-quirks", tmp_path, tensors=twice))


@pytest.mark.parametrize("dtype", ["I16", "F8_E4M3"])
def test_not_floats(dtype: str, tmp_path: Path) -> None:
    def as_integers(tensors: dict) -> dict:
        tensors["lm_head.weight"] = (dtype, [416, 64], bytes(416 * 64 * (2 if dtype == "I16" else 1)))
        return tensors

    with pytest.raises(UnsupportedFile, match=dtype):
        families.load_checkpoint(changed("llama-quirks", tmp_path, tensors=as_integers))


def test_a_bias_that_only_some_layers_have(tmp_path: Path) -> None:
    def halved(tensors: dict) -> dict:
        return {name: row for name, row in tensors.items() if name != "model.layers.1.self_attn.q_proj.bias"}

    with pytest.raises(MissingTensors, match="1 tensors are missing: model.layers.1.self_attn.q_proj.bias"):
        families.load_checkpoint(changed("llama-tied-bias", tmp_path, tensors=halved))


@pytest.mark.parametrize("layout", ["language_model.model.", "model.language_model."])
def test_wrapped_language_model(layout: str, tmp_path: Path) -> None:
    def wrapped(tensors: dict) -> dict:
        renamed = {layout + name.removeprefix("model."): row for name, row in tensors.items()}
        for i in range(3):
            renamed[f"vision_tower.vision_model.layers.{i}.weight"] = ("F32", [2], bytes(8))
        return {**renamed, "multi_modal_projector.mm_input_projection_weight": ("F32", [2], bytes(8))}

    text = json.loads((oracles.folder("gemma3") / "config.json").read_text())
    del text["architectures"]
    top = {"architectures": ["Gemma3ForConditionalGeneration"], "text_config": text, "vision_config": {}}
    top |= dict.fromkeys(text.keys() - {"bos_token_id", "eos_token_id", "pad_token_id"})
    model = families.load_checkpoint(changed("gemma3", tmp_path, top, wrapped))
    same = families.load_checkpoint(Checkpoint(oracles.folder("gemma3")))
    assert model.architecture == "gemma3" and "4 tensors of vision" in " ".join(model.notes)
    assert contents(model) == contents(same)
    own = "quantcli.source."
    assert {k: v for k, v in model.metadata.items() if not k.startswith(own)} == {
        k: v for k, v in same.metadata.items() if not k.startswith(own)
    }


def contents(model: Model) -> dict[str, bytes]:
    return {tensor.name: stored(tensor, tensor.type.name, 64) for tensor in model.tensors}


def test_defaults_of_the_config_class(tmp_path: Path) -> None:
    """Released gemma 3 files leave out what equals the default: here everything that can be."""
    config = dict.fromkeys(("rope_theta", "rope_local_base_freq", "rms_norm_eps", "tie_word_embeddings"))
    config |= {"max_position_embeddings": None, "sliding_window": None, "final_logit_softcapping": 30.0}
    model = families.load_checkpoint(changed("gemma3", tmp_path, config))
    keys = ("context_length", "rope.freq_base", "attention.sliding_window")
    found = {key: model.metadata[f"gemma3.{key}"].data for key in keys}
    assert found == {"context_length": 131072, "rope.freq_base": 1e6, "attention.sliding_window": 4096}
    assert model.metadata["gemma3.final_logit_softcapping"].data == 30.0


def test_yarn(tmp_path: Path) -> None:
    settings = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "beta_fast": 32}
    settings |= {"attention_factor": 1.25}
    model = families.load_checkpoint(changed("llama-quirks", tmp_path, {"rope_scaling": settings}))
    prefix = "llama.rope.scaling."
    found = {key.removeprefix(prefix): value.data for key, value in model.metadata.items() if key.startswith(prefix)}
    assert found == {
        "type": "yarn", "factor": 4.0, "original_context_length": 64, "yarn_beta_fast": 32.0, "yarn_attn_factor": 1.25,
    }  # fmt: skip


def test_an_unknown_scaling_is_said(tmp_path: Path) -> None:
    checkpoint = changed("llama-quirks", tmp_path, {"rope_scaling": {"type": "dynamic", "factor": 2.0}})
    assert "'dynamic'" in " ".join(families.load_checkpoint(checkpoint).notes)


def test_longrope(tmp_path: Path) -> None:
    settings = {"type": "longrope", "long_factor": [1.0 + i / 3 for i in range(8)], "short_factor": [1.0] * 8}
    config = {"rope_scaling": settings, "max_position_embeddings": 4096}
    model = families.load_checkpoint(changed("phi3", tmp_path / "good", config))
    tables = {tensor.name: tensor for tensor in model.tensors[:2]}
    long = tables["rope_factors_long.weight"]
    assert long.type.name == "F32" and long.shape == (8,)
    assert bytes(long.reader.read_raw(0, 1)) == numpy.asarray(settings["long_factor"], "<f4").tobytes()
    factor = math.sqrt(1 + math.log(4096 / 256) / math.log(256))
    assert model.metadata["phi3.rope.scaling.attn_factor"].data == pytest.approx(factor, rel=1e-7)
    for number, table in enumerate(([1.0] * 7, ["1"] * 8, [-1.0] * 8, None)):
        config = {"rope_scaling": settings | {"long_factor": table}}
        with pytest.raises(BadConfig, match="long_factor"):
            families.load_checkpoint(changed("phi3", tmp_path / str(number), config))
