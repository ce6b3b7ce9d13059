"""T5: encoder and decoder, positions as a bias on the attention of the first layer of each."""

from __future__ import annotations

from collections.abc import Callable

from quantcli.families import decoder
from quantcli.families.declaration import Entry, Family, TensorRule
from quantcli.families.facts import Facts
from quantcli.families.fields import count, flag, text
from quantcli.vocab import VocabHints


def attention(source: str, target: str, depth: str) -> tuple[TensorRule, ...]:
    """The four projections of one attention."""
    inner, outer = ("inner", "hidden"), ("hidden", "inner")
    return tuple(
        TensorRule(f"{source}.{name}", f"{target}_{name}", outer if name == "o" else inner, bias="none", depth=depth)
        for name in "qkvo"
    )


def feed_forward(source: str, target: str, depth: str) -> tuple[TensorRule, ...]:
    wide, back = ("ff", "hidden"), ("hidden", "ff")
    return (
        TensorRule(f"{source}.DenseReluDense.wi", f"{target}.ffn_up", wide, bias="none", depth=depth, when="plain"),
        TensorRule(f"{source}.DenseReluDense.wi_0", f"{target}.ffn_gate", wide, bias="none", depth=depth, when="gated"),
        TensorRule(f"{source}.DenseReluDense.wi_1", f"{target}.ffn_up", wide, bias="none", depth=depth, when="gated"),
        TensorRule(f"{source}.DenseReluDense.wo", f"{target}.ffn_down", back, bias="none", depth=depth),
    )


def stack(side: str, short: str, depth: str) -> tuple[TensorRule, ...]:
    """Self-attention, position bias and norms of one side."""
    block, target = f"{side}.block.{{layer}}.layer", f"{short}.blk.{{layer}}"
    own = f"{block}.0.SelfAttention"
    return (
        *attention(own, f"{target}.attn", depth),
        TensorRule(
            f"{own}.relative_attention_bias", f"{target}.attn_rel_b", ("buckets", "heads"),
            bias="none", depth=depth, layers="first",
        ),
        TensorRule(f"{block}.0.layer_norm", f"{target}.attn_norm", decoder.VECTOR, bias="none", depth=depth),
        TensorRule(f"{side}.final_layer_norm", f"{short}.output_norm", decoder.VECTOR, bias="none"),
    )  # fmt: skip


def positioned(facts: Facts) -> Callable[[int], bool]:
    """The blocks with a table of positions: the first one of each side; all of UMT5."""
    every = facts.config.get("model_type") == "umt5"
    return lambda layer: every or layer == 0


ENCODER, DECODER = "encoder.block.{layer}.layer", "decoder.block.{layer}.layer"

T5 = Family(
    name="t5",
    harmless=("is_gated_act", "dense_act_fn", "scale_decoder_outputs",),
    gguf_arch="t5",
    hf_architectures=(
        "T5ForConditionalGeneration",
        "T5WithLMHeadModel",
        "UMT5ForConditionalGeneration",
        "MT5ForConditionalGeneration",
    ),
    model_types=("t5", "umt5", "mt5"),
    facts={
        "context": count("n_positions", default=512),
        "hidden": count("d_model", most=decoder.MOST_WIDTH),
        "ff": count("d_ff", most=decoder.MOST_WIDTH),
        "layers": count("num_layers", most=decoder.MOST_LAYERS),
        "decoder_layers": count("num_decoder_layers", default="=layers", most=decoder.MOST_LAYERS),
        "heads": count("num_heads", most=decoder.MOST_HEADS),
        "key_length": count("d_kv", most=decoder.MOST_WIDTH),
        "inner": lambda facts: facts.heads * facts.key_length,
        "vocab": decoder.VOCAB,
        "eps": decoder.layer_eps(1e-6),
        "buckets": count("relative_attention_num_buckets", default=32, most=2**16),
        "start": count("decoder_start_token_id", default=0, least=0),
        "gated": lambda facts: facts.read(text("feed_forward_proj", default="relu")).startswith("gated-"),
        "plain": lambda facts: not facts.gated,
        "first": positioned,
        "may_tie": decoder.CORE_FACTS["may_tie"],
        "tied": flag("tie_word_embeddings", default=True),
    },
    metadata=(
        Entry("context_length", "u32", "context"),
        Entry("embedding_length", "u32", "hidden"),
        Entry("feed_forward_length", "u32", "ff"),
        Entry("block_count", "u32", "layers"),
        Entry("decoder_block_count", "u32", "decoder_layers"),
        Entry("attention.head_count", "u32", "heads"),
        *decoder.LENGTHS,
        *decoder.LAYER_NORM,
        Entry("attention.relative_buckets_count", "u32", "buckets"),
        *decoder.RMS,
        Entry("decoder_start_token_id", "u32", "start"),
    ),
    remarks=(
        ("tied", "transformers divides the states by the root of d_model before a tied head, llama.cpp does not"),
    ),
    tensors=(
        TensorRule("shared", "token_embd", ("vocab", "hidden"), bias="none"),
        *decoder.HEAD,
        *stack("encoder", "enc", "layers"),
        *stack("decoder", "dec", "decoder_layers"),
        *attention(f"{DECODER}.1.EncDecAttention", "dec.blk.{layer}.cross_attn", "decoder_layers"),
        TensorRule(  # in the first T5 checkpoints; llama.cpp keeps it and does not use it
            f"{DECODER}.1.EncDecAttention.relative_attention_bias", "dec.blk.{layer}.cross_attn_rel_b",
            ("buckets", "heads"), bias="none", depth="decoder_layers", layers="first", optional=True,
        ),
        TensorRule(
            f"{DECODER}.1.layer_norm", "dec.blk.{layer}.cross_attn_norm", decoder.VECTOR,
            bias="none", depth="decoder_layers",
        ),
        *feed_forward(f"{ENCODER}.1", "enc.blk.{layer}", "layers"),
        TensorRule(f"{ENCODER}.1.layer_norm", "enc.blk.{layer}.ffn_norm", decoder.VECTOR, bias="none"),
        *feed_forward(f"{DECODER}.2", "dec.blk.{layer}", "decoder_layers"),
        TensorRule(
            f"{DECODER}.2.layer_norm", "dec.blk.{layer}.ffn_norm", decoder.VECTOR,
            bias="none", depth="decoder_layers",
        ),
    ),
    same={"encoder.embed_tokens.weight": "shared.weight", "decoder.embed_tokens.weight": "shared.weight"},
    vocab=VocabHints("t5"),
)  # fmt: skip

# The encoder alone; llama.cpp knows it as an architecture of its own.
T5_ENCODER = T5.derive(
    "t5-encoder",
    remarks=(),
    gguf_arch="t5encoder",
    hf_architectures=("T5EncoderModel", "UMT5EncoderModel"),
    model_types=(),
    metadata=tuple(entry for entry in T5.metadata if entry.fact not in ("decoder_layers", "start")),
    tensors=tuple(rule for rule in T5.tensors if not rule.target.startswith("dec.") and rule.target != "output"),
)

FAMILIES = (T5, T5_ENCODER)
