"""RWKV 6 and 7: time mix and channel mix instead of attention and MLP; no positions, no limit of the context."""

from __future__ import annotations

from collections.abc import Callable

from quantcli.families import decoder
from quantcli.families.declaration import Entry, Family, TensorRule
from quantcli.families.facts import Facts
from quantcli.families.fields import count, real
from quantcli.families.transforms import scaled, shaped, transposed
from quantcli.vocab import VocabHints

MIX = "layers.{layer}.attention."
CHANNEL = "layers.{layer}.feed_forward."
TIME = "blk.{layer}.time_mix_"
ROW = (1, 1, "hidden")
SQUARE = ("hidden", "hidden")

FACTS = {
    "layers": decoder.LAYERS,
    "context": 2**20,
    "hidden": decoder.HIDDEN,
    "zero": 0,
    "vocab": decoder.VOCAB,
}
METADATA = (
    Entry("context_length", "u32", "context"),
    Entry("embedding_length", "u32", "hidden"),
    Entry("block_count", "u32", "layers"),
    Entry("feed_forward_length", "u32", "ff"),
    Entry("attention.layer_norm_epsilon", "f32", "eps"),
    Entry("wkv.head_size", "u32", "head_size"),
    Entry("attention.head_count", "u32", "zero"),
)


def blocks(norm_1: str, norm_2: str, first: str) -> tuple[TensorRule, ...]:
    """The norms of all layers and of the embeddings."""
    return (
        TensorRule("layers.{layer}." + norm_1, "blk.{layer}.attn_norm", decoder.VECTOR),
        TensorRule("layers.{layer}." + norm_2, "blk.{layer}.attn_norm_2", decoder.VECTOR),
        TensorRule(f"layers.0.{first}", "token_embd_norm", decoder.VECTOR),
    )


# ---- RWKV 6

SIX = "layers.{layer}.attention.time_"


def divisor(facts: Facts) -> Callable[[int], float]:
    every = facts.rescale
    return lambda layer: 2.0 ** -(layer // every) if every else 1.0


RWKV6 = Family(
    name="rwkv6",
    gguf_arch="rwkv6",
    hf_architectures=("Rwkv6ForCausalLM",),
    model_types=("rwkv6",),
    facts={
        **FACTS,
        "eps": decoder.layer_eps(1e-5),
        "head_size": count("head_size", most=decoder.MOST_WIDTH),
        "heads": lambda facts: facts.quotient("hidden", "head_size", ("hidden_size", "head_size")),
        "usual_ff": lambda facts: int(facts.hidden * 3.5) // 32 * 32,
        "ff": count("intermediate_size", default="=usual_ff", most=decoder.MOST_WIDTH),
        "rescale": count("rescale_every", default=6, least=0),
        "divisor": divisor,
        "extra": lambda facts: 64 if facts.hidden == 4096 else 32,
        "decay": lambda facts: 128 if facts.hidden == 4096 else 64,
    },
    metadata=(
        *METADATA,
        Entry("rescale_every_n_layers", "u32", "rescale"),
        Entry("time_mix_extra_dim", "u32", "extra"),
        Entry("time_decay_extra_dim", "u32", "decay"),
    ),
    tensors=(
        TensorRule("head", "output", ("vocab", "hidden"), bias="none"),
        TensorRule("embeddings", "token_embd", ("vocab", "hidden"), bias="none"),
        TensorRule("ln_out", "output_norm", decoder.VECTOR),
        *blocks("ln1", "ln2", "pre_ln"),
        *(TensorRule(MIX + part, TIME + part, SQUARE) for part in ("gate", "key", "receptance", "value")),
        TensorRule(MIX + "output", TIME + "output", SQUARE, scaled("divisor")),
        TensorRule(MIX + "ln_x", TIME + "ln", decoder.VECTOR),
        TensorRule(SIX + "decay", TIME + "decay.weight", ROW, shaped("hidden"), exact=True),
        TensorRule(SIX + "decay_w1", TIME + "decay_w1.weight", ("hidden", "decay"), transposed(), exact=True),
        TensorRule(SIX + "decay_w2", TIME + "decay_w2.weight", ("decay", "hidden"), transposed(), exact=True),
        TensorRule(SIX + "faaaa", TIME + "first.weight", ("heads", "head_size"), exact=True),
        TensorRule(SIX + "maa_x", TIME + "lerp_x.weight", ROW, shaped("hidden"), exact=True),
        TensorRule(SIX + "maa_{part}", TIME + "lerp_fused.weight", ROW, shaped(1, 1, "hidden"), exact=True,
                   parts=tuple("wkvrg")),
        TensorRule(SIX + "maa_w1", TIME + "w1.weight", ("hidden", "5*extra"), transposed(), exact=True),
        TensorRule(SIX + "maa_w2", TIME + "w2.weight", (5, "extra", "hidden"), transposed(), exact=True),
        TensorRule(CHANNEL + "key", "blk.{layer}.channel_mix_key", ("ff", "hidden")),
        TensorRule(CHANNEL + "receptance", "blk.{layer}.channel_mix_receptance", SQUARE),
        TensorRule(CHANNEL + "value", "blk.{layer}.channel_mix_value", ("hidden", "ff"), scaled("divisor")),
        *(
            TensorRule(CHANNEL + f"time_maa_{part}", f"blk.{{layer}}.channel_mix_lerp_{part}.weight", ROW,
                       shaped("hidden"), exact=True)
            for part in "kr"
        ),
    ),
    prefixes=("rwkv.",),
    spellings={"blocks.": "layers."},
    vocab=VocabHints("rwkv6"),
)  # fmt: skip

# ---- RWKV 7

ATTENTION = "layers.{layer}.attn."


def rank(names: tuple[str, str], exponent: float, factor: float) -> Callable[[Facts], int]:
    """Width of a low-rank projection; null is a multiple of 32 near factor * hidden ^ exponent."""

    def width(facts: Facts) -> int:
        usual = max(1, round(facts.hidden**exponent * factor / 32)) * 32
        found: int = facts.read(count(*names, default=usual, most=decoder.MOST_WIDTH))
        return found

    return width


def low_rank(
    letter: str, width: str, source: str, layers: str | None = None, bias: bool = True
) -> tuple[TensorRule, ...]:
    """The factors and the offset of one low-rank projection ``source``, written as ``letter`` 1, 2 and 0."""
    place = f"{ATTENTION}{source}_lora.lora."
    offset = TensorRule(place + "2.bias", f"{TIME}{letter}0.weight", ("hidden",), exact=True, layers=layers)
    return (
        TensorRule(place + "0", f"{TIME}{letter}1", (width, "hidden"), bias="none", layers=layers),
        TensorRule(place + "2", f"{TIME}{letter}2", ("hidden", width), bias="none", layers=layers),
    ) + ((offset,) if bias else ())


RWKV7 = Family(
    name="rwkv7",
    harmless=(
        "hidden_act",
        "attn",
        "hidden_ratio",
        "norm_first",
        "num_heads",
    ),
    gguf_arch="rwkv7",
    hf_architectures=("RWKV7ForCausalLM", "Rwkv7ForCausalLM"),
    model_types=("rwkv7",),
    facts={
        **FACTS,
        "eps": real("layer_norm_epsilon", "norm_eps", default=1e-5, least=0, most=1),
        "head_size": count("head_size", "head_dim", most=decoder.MOST_WIDTH),
        "heads": lambda facts: facts.quotient("hidden", "head_size", ("hidden_size", "head_dim")),
        "usual_ff": lambda facts: 4 * facts.hidden,
        "ff": count("intermediate_size", default="=usual_ff", most=decoder.MOST_WIDTH),
        "decay": rank(("lora_rank_decay", "decay_low_rank_dim"), 0.5, 1.8),
        "rate": rank(("lora_rank_iclr", "a_low_rank_dim"), 0.5, 1.8),
        "values": rank(("lora_rank_value_residual_mix", "v_low_rank_dim"), 0.5, 1.3),
        "gate": rank(("lora_rank_gate", "gate_low_rank_dim"), 0.8, 0.6),
        "first_layer": lambda facts: lambda layer: layer == 0,
        "later_layers": lambda facts: lambda layer: layer > 0,
    },
    metadata=(
        *METADATA,
        Entry("attention.decay_lora_rank", "u32", "decay"),
        Entry("attention.iclr_lora_rank", "u32", "rate"),
        Entry("attention.value_residual_mix_lora_rank", "u32", "values"),
        Entry("attention.gate_lora_rank", "u32", "gate"),
    ),
    tensors=(
        TensorRule("lm_head", "output", ("vocab", "hidden"), bias="none"),
        TensorRule("embeddings", "token_embd", ("vocab", "hidden"), bias="none"),
        TensorRule("norm", "output_norm", decoder.VECTOR),
        *blocks("attn_norm", "ffn_norm", "pre_norm"),
        *low_rank("v", "rate", "a", "first_layer"),  # never used, but the loader wants them
        *low_rank("v", "values", "v", "later_layers"),
        *low_rank("a", "rate", "a"),
        *low_rank("w", "decay", "w"),
        *low_rank("g", "gate", "g", bias=False),
        TensorRule(ATTENTION + "g_norm", TIME + "ln", decoder.VECTOR),
        TensorRule(ATTENTION + "k_a", TIME + "k_a.weight", ("hidden",), exact=True),
        TensorRule(ATTENTION + "k_k", TIME + "k_k.weight", ("hidden",), exact=True),
        TensorRule(ATTENTION + "r_k", TIME + "r_k.weight", ("heads", "head_size"), shaped("hidden"), exact=True),
        TensorRule(ATTENTION + "r_proj", TIME + "receptance", SQUARE),
        TensorRule(ATTENTION + "k_proj", TIME + "key", SQUARE),
        TensorRule(ATTENTION + "v_proj", TIME + "value", SQUARE),
        TensorRule(ATTENTION + "o_proj", TIME + "output", SQUARE),
        TensorRule(ATTENTION + "x_{part}", TIME + "lerp_fused.weight", ROW, exact=True, parts=tuple("rwkvag")),
        TensorRule("layers.{layer}.ffn.key", "blk.{layer}.channel_mix_key", ("ff", "hidden")),
        TensorRule("layers.{layer}.ffn.value", "blk.{layer}.channel_mix_value", ("hidden", "ff")),
        TensorRule("layers.{layer}.ffn.x_k", "blk.{layer}.channel_mix_lerp_k.weight", ("hidden",), exact=True),
    ),
    ignored=("layers.0.attn.v_lora.*",),
    vocab=VocabHints("rwkv7"),
)

FAMILIES = (RWKV6, RWKV7)
