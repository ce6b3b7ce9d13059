"""BitNet b1.58: a Llama with a norm before each matrix that leads back, whose matrices are made ternary."""

from __future__ import annotations

from dataclasses import replace

from quantcli.families import decoder
from quantcli.families.declaration import Family, TensorRule
from quantcli.families.transforms import ternary
from quantcli.vocab import VocabHints

BITNET = Family(
    name="bitnet",
    harmless=("input_bits", "weight_bits"),
    gguf_arch="bitnet",
    hf_architectures=("BitnetForCausalLM", "BitNetForCausalLM"),
    model_types=("bitnet",),
    facts={
        **decoder.FACTS,
        "key_length": lambda facts: facts.head_dim,
        "scaling_type": "linear",
        "scaling_factor": 1.0,
    },
    metadata=decoder.METADATA,
    tensors=decoder.EMBEDDINGS
    + decoder.FINAL_NORM
    + decoder.PRE_NORMS
    + tuple(
        replace(rule, transform=ternary()) for rule in decoder.PROJECTIONS + decoder.OUT_PROJECTION + decoder.GATED_MLP
    )
    + (
        TensorRule("layers.{layer}.self_attn.inner_attn_ln", "blk.{layer}.attn_sub_norm", decoder.VECTOR),
        TensorRule("layers.{layer}.mlp.ffn_layernorm", "blk.{layer}.ffn_sub_norm", ("ff",)),
    ),
    spellings={".attn_sub_norm.": ".inner_attn_ln.", ".ffn_sub_norm.": ".ffn_layernorm."},
    vocab=VocabHints("bitnet"),
)

FAMILIES = (BITNET,)
