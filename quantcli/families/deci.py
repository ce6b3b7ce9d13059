"""DeciLM (key/value heads per layer) and Nemotron NAS: layers without attention, with a matrix in its place, or without
MLP, as a search has found them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from quantcli.families import decoder
from quantcli.families.declaration import Entry, TensorRule
from quantcli.families.facts import EachLayer, Facts, bad
from quantcli.families.llama import LLAMA
from quantcli.families.starcoder import rounded_up
from quantcli.vocab import VocabHints


def kv_heads_of_layers(facts: Facts) -> int | EachLayer:
    """One number, or those of every layer."""
    if facts.find("num_key_value_heads_per_layer") is None:
        one: int = facts.read(decoder.KV_HEADS)
        return one
    found = decoder.layer_list(facts, "num_key_value_heads_per_layer", "numbers of heads")
    if not all(isinstance(heads, int) and 0 < heads <= facts.heads for heads in found):
        raise bad("num_key_value_heads_per_layer", "holds something that is no number of heads")
    return EachLayer(found)


DECI = LLAMA.derive(
    "deci",
    gguf_arch="deci",
    hf_architectures=("DeciLMForCausalLM",),
    model_types=("deci",),
    relative=lambda config: "nemotron-nas" if "block_configs" in config else None,
    facts={
        "key_length": decoder.given_head_dim,
        "kv_heads": kv_heads_of_layers,
        "kv": lambda facts: EachLayer(
            heads * facts.head_dim
            for heads in (facts.kv_heads if isinstance(facts.kv_heads, tuple) else [facts.kv_heads] * facts.layers)
        ),
    },
    metadata=tuple(replace(entry, type="counts") if entry.fact == "kv_heads" else entry for entry in decoder.METADATA)
    + decoder.VOCAB_SIZE
    + decoder.ROPE_DIMS,
    vocab=VocabHints("deci"),
    vocab_for=None,
)


def blocks(facts: Facts) -> list[tuple[int, float]]:
    """Of every layer: query heads per key/value head (0: none; -1: a matrix in their place), the MLP's multiplier."""
    found = []
    for block in decoder.layer_list(facts, "block_configs", "blocks"):
        attention, feed = (block.get(part) if isinstance(block, Mapping) else None for part in ("attention", "ffn"))
        if not isinstance(attention, Mapping) or not isinstance(feed, Mapping):
            raise bad("block_configs", "holds something that is no block")
        group, width = attention.get("n_heads_in_group"), feed.get("ffn_mult")
        known = isinstance(width or 0, (int, float)) and isinstance(group or 0, int)
        if not known or feed.get("replace_with_linear"):
            raise bad("block_configs", "holds a block of another kind")
        heads = group or (-1 if attention.get("replace_with_linear") else 0)
        found.append((heads, width or 0.0))
    return found


NEMOTRON_NAS = DECI.derive(
    "nemotron-nas",
    hf_architectures=(),
    model_types=("nemotron-nas",),
    relative=None,
    harmless=("no_op",),
    facts={
        "all_heads": decoder.HEADS,
        "blocks": blocks,
        "heads": lambda facts: EachLayer(facts.all_heads if group else 0 for group, _ in facts.blocks),
        "kv_heads": lambda facts: EachLayer(facts.all_heads // group if group > 0 else 0 for group, _ in facts.blocks),
        "head_dim": lambda facts: facts.quotient("hidden", "all_heads", ("hidden_size", "num_attention_heads")),
        "key_length": lambda facts: facts.head_dim,
        "q": lambda facts: facts.all_heads * facts.head_dim,
        "kv": lambda facts: EachLayer(heads * facts.head_dim for heads in facts.kv_heads),
        "ff": lambda facts: EachLayer(rounded_up(int(2 * wide * facts.hidden / 3), 256) for _, wide in facts.blocks),
        "attends": lambda facts: lambda layer: facts.kv_heads[layer] > 0,
        "linear": lambda facts: lambda layer: facts.blocks[layer][0] < 0,
        "mixes": lambda facts: lambda layer: facts.heads[layer] > 0,
        "feeds": lambda facts: lambda layer: facts.ff[layer] > 0,
    },
    metadata=(
        *decoder.ROPE,
        Entry("attention.head_count_kv", "i32s", "kv_heads"),
        Entry("attention.head_count", "i32s", "heads"),
        Entry("feed_forward_length", "i32s", "ff"),
        *decoder.SIZES[:3],
        *decoder.RMS,
        *decoder.LENGTHS,
        *decoder.VOCAB_SIZE,
        *decoder.ROPE_DIMS,
    ),
    tensors=(
        *decoder.TOP,
        replace(decoder.PRE_NORMS[0], layers="mixes"),
        replace(decoder.PRE_NORMS[1], layers="feeds"),
        *(replace(rule, layers="attends") for rule in decoder.PERMUTED_PROJECTIONS + decoder.OUT_PROJECTION),
        TensorRule(
            "layers.{layer}.self_attn.linear_attn", "blk.{layer}.attn_output", ("hidden", "hidden"), layers="linear"
        ),
        *(replace(rule, layers="feeds") for rule in decoder.GATED_MLP),
    ),
)  # fmt: skip

FAMILIES = (DECI, NEMOTRON_NAS)
