"""DeepSeek V2 and V3: latent attention, a few dense layers, then stacked and shared experts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from quantcli.families import decoder
from quantcli.families.declaration import Entry, Family, TensorRule
from quantcli.families.facts import Facts, bad
from quantcli.families.fields import count, flag, real, text
from quantcli.families.transforms import regrouped, shaped, transposed
from quantcli.vocab import VocabHints

ATTENTION = "layers.{layer}.self_attn."
GATING = {"softmax": 1, "sigmoid": 2}


def gating(facts: Facts) -> int:
    kind = facts.read(text("scoring_func", default="softmax"))
    if kind not in GATING:
        raise bad("scoring_func", f"{kind!r} is unknown")
    return GATING[kind]


def log_multiplier(facts: Facts) -> float | None:
    return 0.1 * facts.mscale_all if facts.mscale_all and facts.scaling == "yarn" else None


def is_dense(facts: Facts) -> Callable[[int], bool]:
    return lambda layer: layer < facts.dense_layers


def is_sparse(facts: Facts) -> Callable[[int], bool]:
    return lambda layer: layer >= facts.dense_layers


# kv_b holds per head the rows that make k (without its rotated part), then those that make v.
KV_B_GRID = ("heads", "nope+value", "kv_rank")
KEY_PART = regrouped((*KV_B_GRID[:2], 1), pick={1: (0, "nope", 1)}) | shaped("heads", "nope", "kv_rank") | transposed()
VALUE_PART = regrouped((*KV_B_GRID[:2], 1), pick={1: ("nope", "nope+value", 1)}) | shaped("heads", "value", "kv_rank")

DEEPSEEK2 = Family(
    name="deepseek2",
    gguf_arch="deepseek2",
    hf_architectures=("DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM"),
    model_types=("deepseek_v2", "deepseek_v3"),
    facts={
        **decoder.CORE_FACTS,
        "mscale_all": real("rope_scaling.mscale_all_dim", default=None),
        "log_multiplier": log_multiplier,
        "tied": flag("tie_word_embeddings", default=False),
        "one": 1,
        "q_rank": count("q_lora_rank", default=None, most=decoder.MOST_WIDTH),
        "q_direct": lambda facts: facts.q_rank is None,
        "kv_rank": count("kv_lora_rank", most=decoder.MOST_WIDTH),
        "nope": count("qk_nope_head_dim", most=decoder.MOST_WIDTH),
        "rope_dims": count("qk_rope_head_dim", most=decoder.MOST_WIDTH),
        "value": count("v_head_dim", most=decoder.MOST_WIDTH),
        "key": lambda facts: facts.nope + facts.rope_dims,
        "key_length": lambda facts: facts.kv_rank + facts.rope_dims,
        **decoder.EXPERT_FACTS,
        "groups": count("n_group", default=None),
        "groups_used": count("topk_group", default=None),
        "gating": gating,
        "expert_ff": count("moe_intermediate_size", most=decoder.MOST_WIDTH),
        "shared": count("n_shared_experts", default=0, least=0, most=decoder.MOST_EXPERTS),
        "shared_ff": lambda facts: facts.shared * facts.expert_ff,
        "weights_scale": real("routed_scaling_factor", default=1.0),
        "weights_norm": lambda facts: facts.read(flag("norm_topk_prob", default=False)) or None,
        "dense_layers": count("first_k_dense_replace", default=0, least=0),
        "dense": is_dense,
        "sparse": is_sparse,
    },
    metadata=tuple(replace(entry, fact="one") if entry.fact == "kv_heads" else entry for entry in decoder.SIZES)
    + decoder.ROPE
    + decoder.RMS
    + decoder.EXPERT_COUNTS
    + (
        Entry("expert_group_count", "u32", "groups"),
        Entry("expert_group_used_count", "u32", "groups_used"),
        Entry("expert_gating_func", "u32", "gating"),
        Entry("attention.key_length", "u32", "key_length"),
        Entry("attention.value_length", "u32", "kv_rank"),
        Entry("leading_dense_block_count", "u32", "dense_layers"),
        *decoder.VOCAB_SIZE,
        Entry("attention.q_lora_rank", "u32", "q_rank"),
        Entry("attention.kv_lora_rank", "u32", "kv_rank"),
        Entry("attention.key_length_mla", "u32", "key"),
        Entry("attention.value_length_mla", "u32", "value"),
        Entry("expert_feed_forward_length", "u32", "expert_ff"),
        Entry("expert_shared_count", "u32", "shared"),
        Entry("expert_weights_scale", "f32", "weights_scale"),
        Entry("expert_weights_norm", "boolean", "weights_norm"),
        *decoder.ROPE_DIMS,
        Entry("rope.scaling.yarn_log_multiplier", "f32", "log_multiplier"),
    ),
    tensors=decoder.TOP
    + decoder.PRE_NORMS
    + (
        TensorRule(ATTENTION + "q_proj", "blk.{layer}.attn_q", ("heads*key", "hidden"), when="q_direct"),
        TensorRule(ATTENTION + "q_a_proj", "blk.{layer}.attn_q_a", ("q_rank", "hidden"), when="q_rank"),
        TensorRule(ATTENTION + "q_a_layernorm", "blk.{layer}.attn_q_a_norm", ("q_rank",), when="q_rank"),
        TensorRule(ATTENTION + "q_b_proj", "blk.{layer}.attn_q_b", ("heads*key", "q_rank"), when="q_rank"),
        TensorRule(ATTENTION + "kv_a_proj_with_mqa", "blk.{layer}.attn_kv_a_mqa", ("kv_rank+rope_dims", "hidden")),
        TensorRule(ATTENTION + "kv_a_layernorm", "blk.{layer}.attn_kv_a_norm", ("kv_rank",)),
        TensorRule(ATTENTION + "kv_b_proj", "blk.{layer}.attn_k_b", ("heads*nope+heads*value", "kv_rank"), KEY_PART),
        TensorRule(ATTENTION + "kv_b_proj", "blk.{layer}.attn_v_b", ("heads*nope+heads*value", "kv_rank"), VALUE_PART),
        TensorRule(ATTENTION + "o_proj", "blk.{layer}.attn_output", ("hidden", "heads*value")),
    )
    + tuple(replace(rule, layers="dense") for rule in decoder.GATED_MLP)
    + decoder.router("mlp.gate", layers="sparse")
    + (
        TensorRule(
            "layers.{layer}.mlp.gate.e_score_correction_bias", "blk.{layer}.exp_probs_b.bias", ("experts",),
            exact=True, optional=True, layers="sparse",
        ),
    )
    + decoder.experts("mlp.experts", *decoder.EXPERT_KINDS, layers="sparse")
    + decoder.shared_experts("mlp.shared_experts", when="shared", layers="sparse"),
    ignored_if=(("lm_head.weight", "tied"),),
    skip_layers_beyond=True,  # heads that predict further tokens
    vocab=VocabHints("deepseek2"),
)  # fmt: skip

FAMILIES = (DEEPSEEK2,)
