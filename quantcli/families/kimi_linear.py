"""Kimi Linear: delta attention with a decay per channel in most layers, latent attention in the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from quantcli.families import decoder, mixture
from quantcli.families.declaration import Entry, Family, TensorRule
from quantcli.families.deepseek import DEEPSEEK2
from quantcli.families.facts import Facts, bad
from quantcli.families.fields import count, real
from quantcli.families.transforms import negative_exp, shaped
from quantcli.vocab import VocabHints

ATTENTION = "layers.{layer}.self_attn."
EXPERTS = "block_sparse_moe."


def attends(facts: Facts) -> Callable[[int], bool]:
    """The layers with latent attention; config.json counts from 1."""
    listed = facts.find("linear_attn_config.full_attn_layers")
    if not isinstance(listed, list):
        raise bad("linear_attn_config.full_attn_layers", "is no list of layers")
    return lambda layer: layer + 1 in listed


def conv(part: str) -> TensorRule:
    target = f"blk.{{layer}}.ssm_conv1d_{part}"
    return TensorRule(f"{ATTENTION}{part}_conv1d", target, ("inner", 1, "kernel"), shaped(1, "inner", 1, "kernel"))


KDA = (
    TensorRule(ATTENTION + "A_log", "blk.{layer}.ssm_a", (1, 1, "kda_heads", 1), negative_exp(), exact=True),
    TensorRule(ATTENTION + "dt_bias", "blk.{layer}.ssm_dt.bias", ("inner",), exact=True),
    TensorRule(ATTENTION + "b_proj", "blk.{layer}.ssm_beta", ("kda_heads", "hidden")),
    *(TensorRule(f"{ATTENTION}{part}_a_proj", f"blk.{{layer}}.ssm_{part}_a", ("kda_dim", "hidden")) for part in "fg"),
    *(TensorRule(f"{ATTENTION}{part}_b_proj", f"blk.{{layer}}.ssm_{part}_b", ("inner", "kda_dim")) for part in "fg"),
    TensorRule(ATTENTION + "o_norm", "blk.{layer}.ssm_norm", ("kda_dim",)),
    TensorRule(ATTENTION + "o_proj", "blk.{layer}.attn_output", ("hidden", "inner")),
    *(TensorRule(f"{ATTENTION}{part}_proj", f"blk.{{layer}}.attn_{part}", ("inner", "hidden")) for part in "qkv"),
    *map(conv, "qkv"),
)

FACTS = {
    **{name: fact for name, fact in decoder.CORE_FACTS.items() if name not in decoder.ROPE_FACTS},
    "context": count("model_max_length", *decoder.CONTEXT_NAMES),
    "one": 1,
    "kv_heads": 1,
    "attends": attends,
    "recurs": lambda facts: lambda layer: not facts.attends(layer),
    "kv_layers": decoder.key_values_in("attends"),
    "head_dim": decoder.given_head_dim,
    "theta": real("rope_theta", default=None, least=1e-6),
    "kda_heads": count("linear_attn_config.num_heads", most=decoder.MOST_HEADS),
    "kda_dim": count("linear_attn_config.head_dim", most=decoder.MOST_WIDTH),
    "kernel": count("linear_attn_config.short_conv_kernel_size", most=1024),
    "inner": lambda facts: facts.kda_heads * facts.kda_dim,
    **{name: DEEPSEEK2.facts[name] for name in (
        "q_rank", "q_direct", "kv_rank", "nope", "rope_dims", "value", "key", "key_length",
    )},
    **mixture.FACTS,
}  # fmt: skip

KIMI_LINEAR = Family(
    name="kimi-linear", harmless=(
        "layer_types", "kda_layers", "linear_*", "mlp_layer_types", "moe_renormalize", "num_expert_group",
    ),
    gguf_arch="kimi-linear",
    hf_architectures=("KimiLinearForCausalLM",),
    model_types=("kimi_linear",),
    facts=FACTS,
    metadata=decoder.with_entries(
        tuple(entry for entry in DEEPSEEK2.metadata if entry.fact in FACTS),
        decoder.KV_HEADS_BY_LAYER,
        Entry("attention.value_length", "u32", "head_dim"),
        Entry("ssm.conv_kernel", "u32", "kernel"),
        Entry("kda.head_dim", "u32", "kda_dim"),
    ),
    tensors=decoder.TOP
    + decoder.PRE_NORMS
    + decoder.only_in("attends", tuple(rule for rule in DEEPSEEK2.tensors if rule.source.startswith(ATTENTION)))
    + decoder.only_in("recurs", KDA)
    + decoder.only_in("dense", decoder.GATED_MLP)
    + decoder.router(EXPERTS + "gate", layers="sparse")
    + tuple(
        replace(rule, source=rule.source.replace("mlp.", EXPERTS))
        for rule in DEEPSEEK2.tensors
        if rule.target.endswith("exp_probs_b.bias")
    )
    + decoder.experts(EXPERTS + "experts", ("w1", "gate"), ("w2", "down"), ("w3", "up"), layers="sparse")
    + decoder.shared_experts(EXPERTS + "shared_experts", when="shared", layers="sparse"),
    vocab=VocabHints("kimi-linear"),
)  # fmt: skip

FAMILIES = (KIMI_LINEAR,)
