"""ChatGLM 3 and 4 in their own naming, and GLM-4 as transformers has it (GGUF architecture "chatglm")."""

from __future__ import annotations

from quantcli.families import decoder
from quantcli.families.declaration import Family, TensorRule
from quantcli.families.facts import Facts
from quantcli.families.fields import count, real
from quantcli.families.glm4 import END
from quantcli.vocab import VocabHints


def rope_dims(facts: Facts) -> int:
    """The part of a head that rotates; its width is read as llama.cpp's converter reads it, never from head_dim."""
    width = facts.read(count("attention_dim", default=facts.hidden // facts.heads, most=decoder.MOST_WIDTH))
    return int(width * facts.read(real("partial_rotary_factor", default=0.5, least=0, most=1)))


GLM = Family(
    name="glm",
    gguf_arch="chatglm",
    hf_architectures=("GlmForCausalLM",),
    model_types=("glm",),
    facts={
        **decoder.FACTS,
        "kv_heads": decoder.key_value_heads(2),
        "head_dim": count("head_dim", default=128, most=decoder.MOST_WIDTH),
        # llama.cpp's converter reads these two by ChatGLM's names alone: the epsilon of GlmForCausalLM is lost there
        "context": lambda facts: facts.read(count("seq_length", default=None)) or facts.read(decoder.HIDDEN),
        "eps": real("layernorm_epsilon", default=1e-5, least=0, most=1),
        "rope_dims": rope_dims,
        "theta": lambda facts: facts.read(decoder.theta()) * facts.read(real("rope_ratio", default=1.0, least=1e-6)),
    },
    metadata=decoder.SIZES + decoder.RMS + decoder.ROPE_DIMS + decoder.ROPE[-1:],
    tensors=decoder.TOP + decoder.PRE_NORMS + decoder.PROJECTIONS + decoder.OUT_PROJECTION + decoder.FUSED_MLP,
    harmless=("rms_norm_eps",),
    vocab=VocabHints("chatglm", texts={"eos": END, "unknown": END, "eot": "<|user|>"}, add_bos=False),
)

CHATGLM = GLM.derive(
    "chatglm",
    harmless=(
        "apply_query_key_layer_scaling",
        "fp32_residual_connection",
        "multi_query_attention",
        "original_rope",
        "post_layer_norm",
        "rmsnorm",
    ),
    hf_architectures=("ChatGLMModel", "ChatGLMForConditionalGeneration"),
    model_types=("chatglm",),
    facts={
        "ff": count("ffn_hidden_size", most=decoder.MOST_WIDTH),
        "kv_heads": count("multi_query_group_num", default="=heads", most=decoder.MOST_HEADS),
        "head_dim": count("kv_channels", default=128, most=decoder.MOST_WIDTH),
        "vocab": count("padded_vocab_size", "vocab_size", most=decoder.MOST_WIDTH),
    },
    tensors=(
        TensorRule("embedding.word_embeddings", "token_embd", ("vocab", "hidden"), bias="none"),
        TensorRule("output_layer", "output", ("vocab", "hidden"), bias="none"),
        TensorRule("encoder.final_layernorm", "output_norm", decoder.VECTOR),
        TensorRule("encoder.layers.{layer}.input_layernorm", "blk.{layer}.attn_norm", decoder.VECTOR),
        TensorRule("encoder.layers.{layer}.post_attention_layernorm", "blk.{layer}.ffn_norm", decoder.VECTOR),
        TensorRule(
            "encoder.layers.{layer}.self_attention.query_key_value", "blk.{layer}.attn_qkv", ("q+2*kv", "hidden")
        ),
        TensorRule("encoder.layers.{layer}.self_attention.dense", "blk.{layer}.attn_output", ("hidden", "q")),
        TensorRule("encoder.layers.{layer}.mlp.dense_h_to_4h", "blk.{layer}.ffn_up", ("2*ff", "hidden")),
        TensorRule("encoder.layers.{layer}.mlp.dense_4h_to_h", "blk.{layer}.ffn_down", ("hidden", "ff")),
    ),
    prefixes=("transformer.",),
)

FAMILIES = (GLM, CHATGLM)
