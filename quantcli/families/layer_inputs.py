"""What Gemma 3n and Gemma 4 share: embeddings for every layer, four norms, keys that later layers use again."""

from __future__ import annotations

from quantcli.families import decoder
from quantcli.families.declaration import TensorRule
from quantcli.families.fields import count
from quantcli.families.transforms import zero_padded


def layer_rule(source: str, target: str, *shape: str, layers: str | None = None) -> TensorRule:
    return TensorRule(f"layers.{{layer}}.{source}", f"blk.{{layer}}.{target}", shape, bias="none", layers=layers)


FACTS = {
    "layer_vocab": count("vocab_size_per_layer_input", default="=vocab", most=decoder.MOST_WIDTH),
    "keeps_keys": lambda facts: lambda layer: layer < facts.layers - facts.shared_layers,
}

# Gemma 3n has fewer rows than tokens; llama.cpp adds zeros.
PER_LAYER = (
    TensorRule(
        "embed_tokens_per_layer", "per_layer_token_embd", ("layer_vocab", "layers*per_layer"), zero_padded("vocab"),
    ),
    TensorRule("per_layer_model_projection", "per_layer_model_proj", ("layers*per_layer", "hidden")),
    TensorRule("per_layer_projection_norm", "per_layer_proj_norm", ("per_layer",)),
    layer_rule("per_layer_input_gate", "inp_gate", "per_layer", "hidden"),
    layer_rule("per_layer_projection", "proj", "hidden", "per_layer"),
    layer_rule("post_per_layer_input_norm", "post_norm", "hidden"),
)  # fmt: skip
FOUR_NORMS = (
    layer_rule("input_layernorm", "attn_norm", "hidden"),
    layer_rule("post_attention_layernorm", "post_attention_norm", "hidden"),
    layer_rule("pre_feedforward_layernorm", "ffn_norm", "hidden"),
    layer_rule("post_feedforward_layernorm", "post_ffw_norm", "hidden"),
)
# The last layers use keys and values of earlier ones.
SHARED_KEYS = (
    layer_rule("self_attn.q_proj", "attn_q", "heads*head_dim", "hidden"),
    layer_rule("self_attn.q_norm", "attn_q_norm", "head_dim"),
    layer_rule("self_attn.o_proj", "attn_output", "hidden", "heads*head_dim"),
    layer_rule("self_attn.k_proj", "attn_k", "kv_heads*head_dim", "hidden", layers="keeps_keys"),
    layer_rule("self_attn.k_norm", "attn_k_norm", "head_dim", layers="keeps_keys"),
)
