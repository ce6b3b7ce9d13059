"""Ling: fused q/k/v; version 1 is split and permuted like Llama, version 2 stays fused and routes by sigmoid."""

from __future__ import annotations

from dataclasses import replace

from quantcli.families import decoder, mixture, nextn
from quantcli.families.declaration import Family, TensorRule
from quantcli.families.fields import count, flag, real
from quantcli.families.transforms import centred, column_normed, permuted, rows
from quantcli.vocab import VocabHints

FUSED, SIZES = "layers.{layer}.attention.query_key_value", ("q+2*kv", "hidden")
BODY = (
    TensorRule("word_embeddings", "token_embd", ("vocab", "hidden"), bias="none"),
    *decoder.FINAL_NORM,
    *decoder.PRE_NORMS,
    TensorRule("layers.{layer}.attention.dense", "blk.{layer}.attn_output", ("hidden", "q")),
    *mixture.DENSE_MLP,
    *mixture.routed(bias="gate.expert_bias"),
)

BAILING_MOE = Family(
    name="bailing-moe",
    harmless=("norm_softmax",),
    gguf_arch="bailingmoe",
    hf_architectures=("BailingMoeForCausalLM",),
    model_types=("bailing_moe",),
    facts={
        **decoder.FACTS,
        **mixture.FACTS,
        "rope_dims": lambda facts: facts.head_dim,
        "weights_scale": 1.0,
        "norm_head": flag("norm_head", default=False),
        "plain_head": lambda facts: not facts.norm_head,
    },
    metadata=decoder.METADATA
    + decoder.EXPERT_COUNTS
    + decoder.ROPE_DIMS
    + mixture.LEADING
    + decoder.VOCAB_SIZE
    + mixture.WIDTH
    + mixture.SHARED
    + mixture.WEIGHTS,
    tensors=(
        *BODY,
        *decoder.when(decoder.HEAD, "plain_head"),
        TensorRule("lm_head", "output", ("vocab", "hidden"), column_normed(1e-7), when="norm_head"),
        TensorRule(FUSED, "blk.{layer}.attn_q", SIZES, rows(0, "q") | permuted("heads")),
        TensorRule(FUSED, "blk.{layer}.attn_k", SIZES, rows("q", "q+kv") | permuted("kv_heads")),
        TensorRule(FUSED, "blk.{layer}.attn_v", SIZES, rows("q+kv", "q+2*kv")),
    ),
    vocab=VocabHints("bailingmoe"),
)

SHARED_FF = count("moe_shared_expert_intermediate_size", default=None)

BAILING_MOE2 = BAILING_MOE.derive(
    "bailing-moe-v2",
    harmless=("use_rmsnorm",),
    gguf_arch="bailingmoe2",
    hf_architectures=("BailingMoeV2ForCausalLM",),
    model_types=("bailing_moe_v2",),
    facts={
        **nextn.FACTS,
        "rope_dims": decoder.partial_rotary(0.5),
        "weights_scale": real("routed_scaling_factor"),
        "shared_ff": lambda facts: facts.read(SHARED_FF) or facts.shared * facts.expert_ff,
    },
    metadata=BAILING_MOE.metadata + mixture.GROUPS + mixture.GATING_ENTRY + mixture.SHARED_WIDTH + nextn.METADATA,
    tensors=(
        *BODY,
        *decoder.HEAD,
        TensorRule(FUSED, "blk.{layer}.attn_qkv", SIZES),
        TensorRule("layers.{layer}.attention.query_layernorm", "blk.{layer}.attn_q_norm", ("head_dim",)),
        TensorRule("layers.{layer}.attention.key_layernorm", "blk.{layer}.attn_k_norm", ("head_dim",)),
        TensorRule("layers.{layer}.final_layernorm", "blk.{layer}.layer_output_norm", decoder.VECTOR, optional=True),
        *nextn.TENSORS,
    ),
    may_lack="predicts_further",
    vocab=VocabHints("bailingmoe2"),
)

# The whole head rotates, and the experts' biases have the mean 0.
SARVAM_MOE = BAILING_MOE2.derive(
    "sarvam-moe",
    hf_architectures=("SarvamMoEForCausalLM", "modeling_sarvam_moe.SarvamMoEForCausalLM"),
    model_types=("sarvam_moe",),
    facts={"rope_dims": lambda facts: facts.head_dim},
    tensors=tuple(
        replace(rule, transform=centred()) if rule.source.endswith("gate.expert_bias") else rule
        for rule in BAILING_MOE2.tensors
    ),
    vocab=VocabHints("bailingmoe2", pre=("sarvam-moe",)),
)

FAMILIES = (BAILING_MOE, BAILING_MOE2, SARVAM_MOE)
