"""LLaDA: a Llama that sees both directions and fills in masked tokens, in OLMo's naming."""

from __future__ import annotations

from quantcli.families import decoder
from quantcli.families.declaration import Entry, TensorRule
from quantcli.families.dream import NOT_CAUSAL
from quantcli.families.fields import count
from quantcli.families.llama import LLAMA
from quantcli.families.transforms import permuted
from quantcli.vocab import VocabHints

BLOCK = "transformer.blocks.{layer}."

LLADA = LLAMA.derive(
    "llada",
    harmless=("block_type", "embedding_size", "mlp_ratio", "rope"),
    gguf_arch="llada",
    hf_architectures=("LLaDAModelLM",),
    model_types=("llada",),
    facts={
        "context": count("max_sequence_length", default=4096),
        "hidden": count("hidden_size", "d_model", most=decoder.MOST_WIDTH),
        "ff": count("intermediate_size", "mlp_hidden_size", most=decoder.MOST_WIDTH),
        "key_length": decoder.given_head_dim,
        "causal": False,
        "shift": False,
    },
    metadata=LLAMA.metadata + NOT_CAUSAL + (Entry("diffusion.shift_logits", "boolean", "shift"),),
    tensors=(
        TensorRule("transformer.wte", "token_embd", ("vocab", "hidden"), bias="none"),
        TensorRule("transformer.ff_out", "output", ("vocab", "hidden"), optional="may_tie"),
        TensorRule("transformer.ln_f", "output_norm", decoder.VECTOR),
        TensorRule(BLOCK + "attn_norm", "blk.{layer}.attn_norm", decoder.VECTOR),
        TensorRule(BLOCK + "ff_norm", "blk.{layer}.ffn_norm", decoder.VECTOR),
        TensorRule(BLOCK + "q_proj", "blk.{layer}.attn_q", ("q", "hidden"), permuted("heads")),
        TensorRule(BLOCK + "k_proj", "blk.{layer}.attn_k", ("kv", "hidden"), permuted("kv_heads")),
        TensorRule(BLOCK + "v_proj", "blk.{layer}.attn_v", ("kv", "hidden")),
        TensorRule(BLOCK + "attn_out", "blk.{layer}.attn_output", ("hidden", "q")),
        TensorRule(BLOCK + "ff_proj", "blk.{layer}.ffn_gate", ("ff", "hidden")),
        TensorRule(BLOCK + "up_proj", "blk.{layer}.ffn_up", ("ff", "hidden")),
        TensorRule(BLOCK + "ff_out", "blk.{layer}.ffn_down", ("hidden", "ff")),
    ),
    vocab=VocabHints("llada", add_bos=True),
    vocab_for=None,
    extras=(),
)

FAMILIES = (LLADA,)
