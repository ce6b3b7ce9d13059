"""Trinity (AFMoE): four norms a layer, gated attention, windows, sigmoid routing with a bias, scaled embeddings."""

from __future__ import annotations

from quantcli.families import decoder, mixture
from quantcli.families.declaration import TensorRule
from quantcli.families.llama import LLAMA
from quantcli.vocab import VocabHints

AFMOE = LLAMA.derive(
    "afmoe",
    harmless=(
        "global_attn_every_n_layers",
        "mup_enabled",
    ),
    gguf_arch="afmoe",
    hf_architectures=("AfmoeForCausalLM",),
    model_types=("afmoe",),
    facts={**mixture.FACTS, "key_length": decoder.given_head_dim, "window": decoder.GIVEN_WINDOW},
    metadata=LLAMA.metadata
    + mixture.COUNTS
    + mixture.SHARED
    + mixture.WIDTH
    + mixture.LEADING
    + mixture.WEIGHTS
    + decoder.WINDOW,
    tensors=(
        *decoder.TOP,
        TensorRule("layers.{layer}.input_layernorm", "blk.{layer}.attn_norm", decoder.VECTOR),
        TensorRule("layers.{layer}.post_attention_layernorm", "blk.{layer}.post_attention_norm", decoder.VECTOR),
        TensorRule("layers.{layer}.pre_mlp_layernorm", "blk.{layer}.ffn_norm", decoder.VECTOR),
        TensorRule("layers.{layer}.post_mlp_layernorm", "blk.{layer}.post_ffw_norm", decoder.VECTOR),
        *decoder.PROJECTIONS,
        TensorRule("layers.{layer}.self_attn.gate_proj", "blk.{layer}.attn_gate", ("q", "hidden")),
        *decoder.HEAD_NORMS,
        *decoder.OUT_PROJECTION,
        *mixture.DENSE_MLP,
        *mixture.routed(router="router.gate", bias="expert_bias", kinds=mixture.GATE_FIRST),
    ),
    vocab=VocabHints("afmoe"),
    vocab_for=None,
)

FAMILIES = (AFMOE,)
