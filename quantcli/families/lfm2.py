"""LFM2: short gated convolutions in most layers, attention in the others, an MLP or experts behind each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from quantcli.families import decoder
from quantcli.families.declaration import Entry, Family, TensorRule
from quantcli.families.facts import Facts
from quantcli.families.fields import count, flag, real
from quantcli.families.mixture import is_dense, is_sparse
from quantcli.families.transforms import shaped
from quantcli.vocab import VocabHints

CONV = "layers.{layer}.conv."


def convolves(facts: Facts) -> Callable[[int], bool]:
    """The layers without attention; older configs list those that have it."""
    listed = facts.find("full_attn_idxs")
    if facts.find("layer_types") is None:
        return lambda layer: isinstance(listed, list) and layer not in listed
    return decoder.layers_of(facts, "conv")


def adjusted_width(facts: Facts) -> int:
    """The MLP's width: two thirds of what config.json says, times a factor, rounded up, where it asks for that."""
    width: int = facts.read(count("block_ff_dim", "intermediate_size", default=12288, most=decoder.MOST_WIDTH))
    if not facts.read(flag("block_auto_adjust_ff_dim", default=True)):
        return width
    factor = facts.read(real("block_ffn_dim_multiplier", default=1.0, least=0, most=1024))
    multiple: int = facts.read(count("block_multiple_of", default=256, most=decoder.MOST_WIDTH))
    return -(-int(factor * int(2 * width / 3)) // multiple) * multiple


def feed_forward(layers: str | None = None) -> tuple[TensorRule, ...]:
    """The MLP under its three numbered names."""
    block = "layers.{layer}.feed_forward."
    return (
        TensorRule(block + "w1", "blk.{layer}.ffn_gate", ("ff", "hidden"), layers=layers),
        TensorRule(block + "w2", "blk.{layer}.ffn_down", ("hidden", "ff"), layers=layers),
        TensorRule(block + "w3", "blk.{layer}.ffn_up", ("ff", "hidden"), layers=layers),
    )


_NAMES = {"o_proj": "out_proj", "q_norm": "q_layernorm", "k_norm": "k_layernorm"}
ATTENTION = tuple(
    replace(rule, source=".".join([*rule.source.split(".")[:-1], _NAMES.get(last, last)]))
    for rule in decoder.PROJECTIONS + decoder.OUT_PROJECTION + decoder.HEAD_NORMS
    for last in (rule.source.rpartition(".")[2],)
)
COMMON = (
    *decoder.EMBEDDINGS,
    *decoder.HEAD,
    TensorRule("embedding_norm", "token_embd_norm", decoder.VECTOR),
    TensorRule("layers.{layer}.operator_norm", "blk.{layer}.attn_norm", decoder.VECTOR),
    TensorRule("layers.{layer}.ffn_norm", "blk.{layer}.ffn_norm", decoder.VECTOR),
    *decoder.only_in("attends", ATTENTION),
    *decoder.only_in(
        "convolves",
        (
            TensorRule(
                CONV + "conv", "blk.{layer}.shortconv.conv", ("hidden", 1, "kernel"), shaped("hidden", "kernel")
            ),
            TensorRule(CONV + "in_proj", "blk.{layer}.shortconv.in_proj", ("3*hidden", "hidden")),
            TensorRule(CONV + "out_proj", "blk.{layer}.shortconv.out_proj", ("hidden", "hidden")),
        ),
    ),
)

LFM2 = Family(
    name="lfm2",
    harmless=("block_*",),
    gguf_arch="lfm2",
    hf_architectures=("Lfm2ForCausalLM", "LFM2ForCausalLM"),
    model_types=("lfm2",),
    facts={
        **decoder.FACTS,
        "context": decoder.context(128000),
        "ff": adjusted_width,
        "kv_heads": decoder.key_value_heads(8),
        "eps": real("norm_eps", "block_norm_eps", default=1e-5, least=0, most=1),
        "theta": decoder.theta(1000000.0),
        "kernel": count("conv_L_cache", default=3, most=1024),
        "convolves": convolves,
        "attends": lambda facts: lambda layer: not facts.convolves(layer),
        "kv_layers": decoder.key_values_in("attends"),
    },
    metadata=decoder.with_entries(
        decoder.METADATA,
        decoder.KV_HEADS_BY_LAYER,
        *decoder.VOCAB_SIZE,
        Entry("shortconv.l_cache", "u32", "kernel"),
    ),
    tensors=COMMON + feed_forward(),
    vocab=VocabHints("lfm2"),
)

LFM2_MOE = LFM2.derive(
    "lfm2-moe",
    gguf_arch="lfm2moe",
    hf_architectures=("Lfm2MoeForCausalLM",),
    model_types=("lfm2_moe",),
    facts={
        "ff": count("intermediate_size", default=7168, most=decoder.MOST_WIDTH),
        **decoder.EXPERT_FACTS,
        "expert_ff": count("moe_intermediate_size", default=1792, most=decoder.MOST_WIDTH),
        "dense_layers": count("num_dense_layers", default=2, least=0),
        "dense": is_dense,
        "sparse": is_sparse,
        "sigmoid": 2,
    },
    metadata=LFM2.metadata
    + decoder.EXPERT_COUNTS
    + (
        Entry("expert_feed_forward_length", "u32", "expert_ff"),
        Entry("leading_dense_block_count", "u32", "dense_layers"),
        Entry("expert_gating_func", "u32", "sigmoid"),
    ),
    tensors=COMMON
    + feed_forward("dense")
    + decoder.router("feed_forward.gate", layers="sparse")
    + decoder.experts("feed_forward.experts", ("w1", "gate"), ("w2", "down"), ("w3", "up"), layers="sparse")
    + (
        TensorRule(
            "layers.{layer}.feed_forward.expert_bias", "blk.{layer}.exp_probs_b.bias", ("experts",), exact=True,
            optional=True, layers="sparse",
        ),
    ),
)  # fmt: skip

LFM2_EMBEDDING = LFM2.derive(
    "lfm2-bidirectional",
    hf_architectures=("Lfm2BidirectionalModel",),
    model_types=(),
    facts={"causal": False},
    metadata=(*LFM2.metadata, Entry("attention.causal", "boolean", "causal")),
)

FAMILIES = (LFM2, LFM2_MOE, LFM2_EMBEDDING)
