"""Models with states, made here from their declarations: all ways to compute them agree, whatever the cuts."""

from __future__ import annotations

from collections.abc import Sequence
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
from quantcli.errors import BadConfig, MissingTensors, ShapeMismatch, UnsupportedGraph
from quantcli.model import Model
from quantcli.runner import settings, shapes, text
from quantcli.runner.network import Network
from quantcli.runner.weights import PackedMatrix

MAMBA = {"ssm.conv_kernel": 4, "ssm.inner_size": 64, "ssm.state_size": 8, "ssm.time_step_rank": 4}
SSM = {**MAMBA, "ssm.group_count": 2}
MLP, MOE = {"ffn_down": 40}, {"ffn_gate_inp": 6, "ffn_down_exps": 24}
EVERY_SECOND = {"attention.head_count_kv": [0, 2, 0, 2]}
#: architecture -> its metadata, widths of its MLPs (of all layers, or of some)
MODELS: dict[str, tuple[dict[str, object], dict[str, int]]] = {
    "mamba": ({"attention.head_count": 0, **MAMBA, "ssm.dt_b_c_rms": True}, {}),
    "mamba2": ({"attention.head_count": 0, **SSM}, {}),
    "falcon-h1": ({"attention.head_count_kv": 2, **SSM}, MLP),
    "granitehybrid": ({**EVERY_SECOND, **SSM, **EXPERTS, "logit_scale": 2.0, "residual_scale": 0.5}, MOE),
    "nemotron_h": ({"attention.head_count_kv": [0, 2, 0, 0], "feed_forward_length": [0, 0, 40, 0], **SSM}, MLP),
    "jamba": ({**EVERY_SECOND, **MAMBA}, MLP),
    "lfm2": ({**EVERY_SECOND, "shortconv.l_cache": 3}, MLP),
    "plamo2": ({"attention.head_count": [0, 2, 0, 2], **EVERY_SECOND, **SSM, "ssm.group_count": 0}, MLP),
    "qwen3next": ({"attention.head_count_kv": 2, "attention.key_length": 8, **SSM, **EXPERTS}, MOE),
    "qwen35": ({"attention.head_count_kv": 2, "attention.key_length": 8, **SSM, "full_attention_interval": 2}, MLP),
    "kimi-linear": (
        {"attention.head_count_kv": [0, 1, 0, 1], "attention.key_length": 16, "attention.value_length": 4,
         "attention.kv_lora_rank": 12, "rope.dimension_count": 4, "attention.key_length_mla": 10,
         "attention.value_length_mla": 6, "ssm.conv_kernel": 4, "kda.head_dim": 8}, MLP,
    ),
    "rwkv6": (
        {"attention.head_count": 0, "wkv.head_size": 8, "rescale_every_n_layers": 2, "time_mix_extra_dim": 4,
         "time_decay_extra_dim": 6}, {"channel_mix_value": 40},
    ),
    "rwkv7": (
        {"attention.head_count": 0, "wkv.head_size": 8, "attention.decay_lora_rank": 4, "attention.iclr_lora_rank": 5,
         "attention.value_residual_mix_lora_rank": 6, "attention.gate_lora_rank": 7}, {"channel_mix_value": 40},
    ),
}  # fmt: skip


def made(name: str, **changes: object) -> Model:
    """A model of random weights with every tensor that its graph may read."""
    own, widths = MODELS[name]
    numbers = {**BASE, **own, **changes}
    epsilon = keys.EPSILON[architectures.find(name).graph.norm]
    metadata = {f"{name}.{key}": value(number) for key, number in numbers.items()}
    metadata[f"{name}.{epsilon}"] = container.f32(1e-5)
    known = {"token_embd.weight": (HIDDEN, ROWS)}
    for layer in range(int(numbers["block_count"])):
        feeds = numbers.get("feed_forward_length", [1] * 9)[layer]
        known |= {f"blk.{layer}.{role}.weight": (width, HIDDEN) for role, width in widths.items() if feeds}
    found = settings.read_metadata(name, metadata, (), "made")
    draw = numpy.random.default_rng(11)
    tensors = [tensor(*one[:2], draw) for one in shapes.expected(found, known)]
    skipped = ("rope_f", ".bias") if found.graph.norm == "rms" else ("rope_f",)
    tensors = [one for one in tensors if not any(part in one.name for part in skipped) or "ssm_" in one.name]
    return Model(name="made", architecture=name, metadata=metadata, tensors=tensors, default_float=None, kind="gguf")


@pytest.mark.parametrize("name", MODELS)
def test_all_ways_agree(name: str) -> None:
    all_ways_agree(made, name)


@pytest.mark.parametrize("name", MODELS)
def test_layer_by_layer_is_the_same(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What RWKV 7 keeps of its first layer waits on disk like the stream."""
    monkeypatch.setattr(text, "BATCH", 2 * LENGTH)
    left = layer_by_layer_agrees(made(name), tmp_path)
    assert {path.split("-")[1] for path in left} == ({"passed"} if name == "rwkv7" else set())


@pytest.mark.parametrize("name", MODELS)
def test_what_is_missing_or_misshapen_is_named(name: str) -> None:
    model = made(name)
    states = [one for one in model.tensors if any(part in one.name for part in ("ssm_", "shortconv", "time_mix"))]
    assert states
    for broken in states:
        others = [one for one in model.tensors if one is not broken]
        wrong = replace(broken, shape=(broken.shape[0] + 1, *broken.shape[1:]))
        with pytest.raises(ShapeMismatch, match=broken.name):
            Network(replace(model, tensors=[*others, wrong]))
    needed = states[0]
    with pytest.raises(MissingTensors, match=needed.name):
        Network(replace(model, tensors=[one for one in model.tensors if one is not needed]))


@pytest.mark.parametrize(
    ("name", "key", "number"),
    [
        ("mamba2", "ssm.time_step_rank", 5),
        ("mamba2", "ssm.group_count", 3),
        ("mamba2", "ssm.state_size", 1 << 30),
        ("mamba", "ssm.conv_kernel", 1),
        ("lfm2", "shortconv.l_cache", 1 << 20),
        ("rwkv7", "wkv.head_size", 5),
        ("qwen35", "full_attention_interval", 0),
        ("qwen35", "nextn_predict_layers", 4),
        ("granitehybrid", "attention.head_count_kv", [0, 3, 0, 2]),
    ],
)
def test_numbers_that_cannot_be_are_named(name: str, key: str, number: object) -> None:
    with pytest.raises(BadConfig, match=key.replace(".", r"\.")):
        made(name, **{key: number})


def test_layers_that_predict_further_tokens_are_passed_over() -> None:
    ids = numpy.arange(5)[None]
    plain, longer = made("qwen35"), made("qwen35")
    longer.metadata |= {"qwen35.block_count": container.u32(5), "qwen35.nextn_predict_layers": container.u32(1)}
    longer.tensors.append(tensor("blk.4.nextn.eh_proj.weight", (64, 32), numpy.random.default_rng(1)))
    one, other = (Network(model, kv_type="F32") for model in (plain, longer))
    assert numpy.array_equal(logits(one, ids), logits(other, ids))
    longer.metadata["qwen35.nextn_predict_layers"] = container.u32(0)
    with pytest.raises(UnsupportedGraph, match=r"nextn\.eh_proj"):
        Network(longer)


class Names:
    """An observer that keeps the names of what is multiplied, and how many rows were seen."""

    def __init__(self) -> None:
        self.rows: dict[str, int] = {}

    def see(self, inputs: numpy.ndarray, weights: Sequence[PackedMatrix], expert: int | None) -> None:
        for weight in weights:
            self.rows[weight.name] = self.rows.get(weight.name, 0) + len(inputs)


def test_who_observes_sees_the_layers_that_predict_further_tokens() -> None:
    ids, names = numpy.arange(7)[None], Names()
    longer = made("qwen35", block_count=6, **{"attention.recurrent_layers": [1, 0, 1, 0, 0, 0]})
    numbers = {"block_count": 6, "nextn_predict_layers": 2}
    longer.metadata |= {f"qwen35.{key}": container.u32(number) for key, number in numbers.items()}
    draw = numpy.random.default_rng(1)
    for block in (4, 5):
        vectors = [tensor(f"blk.{block}.nextn.{name}.weight", (32,), draw) for name in ("enorm", "hnorm")]
        longer.tensors += [tensor(f"blk.{block}.nextn.eh_proj.weight", (64, 32), draw), *vectors]
    watched = Network(longer, kv_type="F32", observers=[names])
    assert numpy.array_equal(logits(watched, ids), logits(Network(longer, kv_type="F32"), ids))
    for block, rows in ((4, 6), (5, 5)):
        for name in ("nextn.eh_proj", "attn_q", "attn_output", "ffn_gate", "ffn_down"):
            assert names.rows[f"blk.{block}.{name}.weight"] == rows, name
