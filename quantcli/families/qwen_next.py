"""Qwen3-Next and Qwen3.5: gated delta rule in most layers, gated attention in every fourth, heads that predict further
tokens behind the last."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from quantcli.families import decoder
from quantcli.families.declaration import Entry, Family, TensorRule
from quantcli.families.facts import Facts
from quantcli.families.fields import count, real
from quantcli.families.qwen import QWEN2_MOE
from quantcli.families.transforms import Transform, joined, negative_exp, on_columns, plus_one, regrouped, rows, shaped
from quantcli.vocab import VocabHints

LINEAR = "layers.{layer}.linear_attn."
_PREDICTING = re.compile(r"(?:model\.)?mtp\.layers\.(\d{1,4})\.")


def recurs(facts: Facts) -> Callable[[int], bool]:
    """The layers with a recurrent state: as listed, or all but the last of each period."""
    if facts.find("layer_types") is not None:
        return decoder.layers_of(facts, "linear_attention")
    return lambda layer: (layer + 1) % facts.interval != 0


def predicting_layers(facts: Facts) -> int:
    """Layers that predict further tokens: no config of Qwen3-Next counts them, and fine-tunes leave them out."""
    return max((int(found[1]) + 1 for name in facts.stored if (found := _PREDICTING.match(name))), default=0)


def sections(facts: Facts) -> list[int]:
    """Pairs that rotate by time, height, width and nothing."""
    return decoder.sections(facts) or [11, 11, 10, 0]


def rotated(facts: Facts) -> int:
    factor: float = facts.read(real("partial_rotary_factor", default=0.25, least=0, most=1))
    return int(facts.head_dim * factor)


FACTS = {
    **decoder.FACTS,
    "head_dim": decoder.head_dim,
    "key_length": lambda facts: facts.head_dim,
    "rope_dims": rotated,
    "interval": count("full_attention_interval", default=4),
    "recurs": recurs,
    "attends": lambda facts: lambda layer: not facts.recurs(layer),
    "predicting": predicting_layers,
    "predicts": lambda facts: facts.predicting or None,
    "all_layers": lambda facts: facts.layers + facts.predicting,
    "recurrent": lambda facts: [layer < facts.layers and facts.recurs(layer) for layer in range(facts.all_layers)],
    "kernel": count("linear_conv_kernel_dim", most=1024),
    "state": count("linear_key_head_dim", most=decoder.MOST_WIDTH),
    "value": count("linear_value_head_dim", most=decoder.MOST_WIDTH),
    "groups": count("linear_num_key_heads", most=decoder.MOST_HEADS),
    "ssm_heads": count("linear_num_value_heads", most=decoder.MOST_HEADS),
    "per_group": lambda facts: facts.quotient(
        "ssm_heads", "groups", ("linear_num_value_heads", "linear_num_key_heads")
    ),
    "inner": lambda facts: facts.ssm_heads * facts.value,
    "conv": lambda facts: facts.size("2*groups*state+inner"),
    "z": lambda facts: facts.per_group * facts.value,
}
METADATA = decoder.with_entries(
    decoder.METADATA,
    Entry("block_count", "u32", "all_layers"),
    Entry("nextn_predict_layers", "u32", "predicts"),
    Entry("ssm.conv_kernel", "u32", "kernel"),
    Entry("ssm.state_size", "u32", "state"),
    Entry("ssm.group_count", "u32", "groups"),
    Entry("ssm.time_step_rank", "u32", "ssm_heads"),
    Entry("ssm.inner_size", "u32", "inner"),
    Entry("attention.recurrent_layers", "booleans", "recurrent"),
    Entry("full_attention_interval", "u32", "interval"),
    *decoder.ROPE_DIMS,
)


def with_offset(rules: tuple[TensorRule, ...]) -> tuple[TensorRule, ...]:
    """Norms are stored as the difference to 1."""
    return tuple(replace(one, transform=plus_one()) if one.target.endswith("norm") else one for one in rules)


NORMS = (decoder.PRE_NORMS[0], decoder.POST_NORMS[0])
ATTENTION = with_offset((
    TensorRule("layers.{layer}.self_attn.q_proj", "blk.{layer}.attn_q", ("2*q", "hidden")),  # queries, then their gate
    *decoder.PROJECTIONS[1:],
    *decoder.OUT_PROJECTION,
    *decoder.HEAD_NORMS,
))  # fmt: skip
# Rows of each key head: q, k, v of its value heads, their z.
KEY_HEADS = ("groups", "2*state+2*z", 1)


def _part(start: str, stop: str) -> Transform:
    return regrouped(KEY_HEADS, pick={1: (start, stop, 1)})


def tiled(width: str | int) -> Transform:
    """Rows of value heads, stored key head by key head: the first of every key head, then the second of every one."""
    return regrouped(("groups", "per_group", width), order=(1, 0, 2))


# The same of the value heads behind all q and k.
TILED_BEHIND = joined(rows(0, "2*groups*state"), rows("2*groups*state", "conv") | tiled("value"))
IN = (("2*groups*state+2*inner", "hidden"), ("conv", "hidden"), ("inner", "hidden"), ("ssm_heads", "hidden"))
STATE = (
    TensorRule(LINEAR + "A_log", "blk.{layer}.ssm_a", ("ssm_heads",), negative_exp(), exact=True),
    TensorRule(LINEAR + "conv1d", "blk.{layer}.ssm_conv1d", ("conv", 1, "kernel"), shaped("conv", "kernel")),
    TensorRule(LINEAR + "dt_bias", "blk.{layer}.ssm_dt.bias", ("ssm_heads",), exact=True),
    TensorRule(LINEAR + "norm", "blk.{layer}.ssm_norm", ("value",)),
    TensorRule(LINEAR + "out_proj", "blk.{layer}.ssm_out", ("hidden", "inner")),
)
INTERLEAVED = (
    TensorRule(LINEAR + "in_proj_ba", "blk.{layer}.ssm_ba", ("2*ssm_heads", "hidden")),
    TensorRule(LINEAR + "in_proj_qkvz", "blk.{layer}.attn_qkv", IN[0],
               joined(_part("0", "state"), _part("state", "2*state"), _part("2*state", "2*state+z"))),
    TensorRule(LINEAR + "in_proj_qkvz", "blk.{layer}.attn_gate", IN[0], _part("2*state+z", "2*state+2*z")),
    *STATE,
)  # fmt: skip
_TILINGS = {"A_log": tiled(1) | negative_exp(), "conv1d": shaped("conv", "kernel") | TILED_BEHIND, "dt_bias": tiled(1),
            "out_proj": on_columns(tiled("value"))}  # fmt: skip
APART = (
    TensorRule(LINEAR + "in_proj_a", "blk.{layer}.ssm_alpha", IN[3], tiled(1)),
    TensorRule(LINEAR + "in_proj_b", "blk.{layer}.ssm_beta", IN[3], tiled(1)),
    TensorRule(LINEAR + "in_proj_qkv", "blk.{layer}.attn_qkv", IN[1], TILED_BEHIND),
    TensorRule(LINEAR + "in_proj_z", "blk.{layer}.attn_gate", IN[2], tiled("value")),
    *(replace(one, transform=_TILINGS.get(one.source.removeprefix(LINEAR), one.transform)) for one in STATE),
)
EXPERTS = tuple(rule for rule in QWEN2_MOE.tensors if ".mlp." in rule.source)


def layers(linear: tuple[TensorRule, ...], feed_forward: tuple[TensorRule, ...]) -> tuple[TensorRule, ...]:
    """All tensors: of the model, and of the layers behind it."""
    every = with_offset(NORMS) + feed_forward
    predicting = with_offset(
        (
            TensorRule("mtp.fc", "blk.{layer}.nextn.eh_proj", ("hidden", "2*hidden"), bias="none"),
            TensorRule("mtp.norm", "blk.{layer}.nextn.shared_head_norm", decoder.VECTOR),
            TensorRule("mtp.pre_fc_norm_embedding", "blk.{layer}.nextn.enorm", decoder.VECTOR),
            TensorRule("mtp.pre_fc_norm_hidden", "blk.{layer}.nextn.hnorm", decoder.VECTOR),
        )
    ) + tuple(replace(one, source=f"mtp.{one.source}", depth="predicting") for one in every + ATTENTION)
    return (
        *with_offset(decoder.TOP),
        *every,
        *decoder.only_in("attends", ATTENTION),
        *decoder.only_in("recurs", linear),
        *(replace(one, when="predicts", first="layers") for one in predicting),
    )  # fmt: skip


QWEN3_NEXT = Family(
    name="qwen3-next",
    harmless=(
        "attn_output_gate",
        "mtp_*",
    ),
    gguf_arch="qwen3next",
    hf_architectures=("Qwen3NextForCausalLM",),
    model_types=("qwen3_next",),
    facts={
        **FACTS,
        **{name: QWEN2_MOE.facts[name] for name in ("experts", "experts_used", "expert_ff", "shared_ff")},
        "context": decoder.context(32768),
        "head_dim": count("head_dim", default=256, most=decoder.MOST_WIDTH),
        "kv_heads": decoder.key_value_heads(2),
        "ff": count("intermediate_size", default=5632, most=decoder.MOST_WIDTH),
        "kernel": count("linear_conv_kernel_dim", default=4, most=1024),
        "state": count("linear_key_head_dim", default=128, most=decoder.MOST_WIDTH),
        "value": count("linear_value_head_dim", default=128, most=decoder.MOST_WIDTH),
        "groups": count("linear_num_key_heads", default=16, most=decoder.MOST_HEADS),
        "ssm_heads": count("linear_num_value_heads", default=32, most=decoder.MOST_HEADS),
    },
    metadata=METADATA + decoder.EXPERT_COUNTS + QWEN2_MOE.metadata[-2:],
    tensors=layers(INTERLEAVED, EXPERTS),
    vocab=VocabHints("qwen3next"),
)
QWEN35 = QWEN3_NEXT.derive(
    "qwen3.5",
    gguf_arch="qwen35",
    hf_architectures=("Qwen3_5ForCausalLM", "Qwen3_5ForConditionalGeneration"),
    model_types=("qwen3_5", "qwen3_5_text"),
    facts={
        **FACTS,
        "experts": 0,
        "experts_used": 0,
        "expert_ff": None,
        "shared_ff": None,
        "sections": sections,
    },
    metadata=METADATA,
    tensors=layers(APART, decoder.GATED_MLP),
)
QWEN35_MOE = QWEN35.derive(
    "qwen3.5-moe",
    gguf_arch="qwen35moe",
    hf_architectures=("Qwen3_5MoeForCausalLM", "Qwen3_5MoeForConditionalGeneration"),
    model_types=("qwen3_5_moe", "qwen3_5_moe_text"),
    facts={
        "ff": count("intermediate_size", default=None, most=decoder.MOST_WIDTH),
        **{name: QWEN2_MOE.facts[name] for name in ("experts", "experts_used", "expert_ff", "shared_ff")},
    },
    metadata=QWEN35.metadata + decoder.EXPERT_COUNTS + QWEN2_MOE.metadata[-2:],
    tensors=layers(APART, EXPERTS),
)

# The layers that predict further tokens are not converted.
MINICPM_V = QWEN35.derive(
    "minicpm-v-4.6",
    hf_architectures=("MiniCPMV4_6ForConditionalGeneration",),
    model_types=("minicpmv4_6",),
    facts={"predicting": 0},
    ignored=("mtp.*", "merger.*"),
)

FAMILIES = (QWEN3_NEXT, QWEN35, QWEN35_MOE, MINICPM_V)
