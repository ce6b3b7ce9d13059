"""Granite 4 H and Bamba: layers of Mamba 2 or of attention, each with an MLP or experts behind it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from quantcli.families import decoder
from quantcli.families.declaration import Entry, TensorRule
from quantcli.families.facts import Facts
from quantcli.families.fields import count
from quantcli.families.granite import GRANITE_MOE, MULTIPLIERS
from quantcli.families.mamba2 import MIXER_FACTS, MIXER_METADATA, mixer
from quantcli.families.transforms import rows
from quantcli.vocab import VocabHints

SHARED = "layers.{layer}.shared_mlp."


def attends(facts: Facts) -> Callable[[int], bool]:
    """Which layers have attention: the kinds that are listed, the indices, or a period with an offset."""
    if facts.find("layer_types"):
        return decoder.layers_of(facts, "attention")
    listed = facts.find("attn_layer_indices")
    if isinstance(listed, list):
        return lambda layer: layer in listed
    period = facts.read(count("attn_layer_period", default=None))
    offset = facts.read(count("attn_layer_offset", default=0, least=0))
    return lambda layer: period is not None and layer % period == offset


def scans(facts: Facts) -> Callable[[int], bool]:
    """The other layers: those with a recurrent state."""
    return lambda layer: not facts.attends(layer)


MIXER = {
    "attends": attends,
    "scans": scans,
    "kv_layers": decoder.key_values_in("attends"),
    "expand": count("mamba_expand", default=2, most=1024),
    "inner": lambda facts: facts.expand * facts.hidden,
    "state": count("mamba_d_state", default=256, most=decoder.MOST_WIDTH),
    "kernel": count("mamba_d_conv", default=4, most=1024),
    "groups": count("mamba_n_groups", default=1, most=decoder.MOST_HEADS),
    "ssm_heads": count("mamba_n_heads", default=128, most=decoder.MOST_HEADS),
    **MIXER_FACTS,
    "tokens": lambda facts: -(-facts.vocab // 8) * 8,
    "rope_dims": count("attn_rotary_emb", default="=head_dim", most=decoder.MOST_WIDTH),
}
HYBRID = (decoder.KV_HEADS_BY_LAYER, *MIXER_METADATA, *decoder.VOCAB_SIZE, *decoder.ROPE_DIMS)
ATTENTION = decoder.only_in("attends", decoder.PERMUTED_PROJECTIONS + decoder.OUT_PROJECTION)


def feed(names: str, when: str) -> tuple[TensorRule, ...]:
    """The MLP that all tokens take: gate and up are stored one above the other."""
    return (
        TensorRule(SHARED + "input_linear", f"blk.{{layer}}.ffn_gate{names}", ("2*shared_ff", "hidden"),
                   rows(0, "shared_ff"), bias="none", when=when),
        TensorRule(SHARED + "input_linear", f"blk.{{layer}}.ffn_up{names}", ("2*shared_ff", "hidden"),
                   rows("shared_ff", "2*shared_ff"), bias="none", when=when),
        TensorRule(SHARED + "output_linear", f"blk.{{layer}}.ffn_down{names}", ("hidden", "shared_ff"), bias="none",
                   when=when),
    )  # fmt: skip


def _without_scan(config: Mapping[str, object]) -> str | None:
    """Granite 4 in its plain form: the same class, attention in all layers."""
    kinds = config.get("layer_types")
    plain = isinstance(kinds, list) and all(kind == "attention" for kind in kinds)
    return None if not plain else "granite-4-moe" if config.get("num_experts_per_tok") else "granite-4"


GRANITE_HYBRID = GRANITE_MOE.derive(
    "granite-4-h",
    gguf_arch="granitehybrid",
    hf_architectures=("GraniteMoeHybridForCausalLM",),
    model_types=("granitemoehybrid",),
    relative=_without_scan,
    vocab=VocabHints("granitehybrid"),
    facts={
        **MIXER,
        "context": 2**20,
        "turns": False,
        "experts": count("num_local_experts", default=8, least=0, most=decoder.MOST_EXPERTS),
        "experts_used": count("num_experts_per_tok", default=2, least=0, most=decoder.MOST_EXPERTS),
        "dense": lambda facts: not facts.experts,
        "shared_ff": count("shared_intermediate_size", default=1024, most=decoder.MOST_WIDTH),
    },
    metadata=decoder.with_entries(
        GRANITE_MOE.metadata,
        Entry("expert_shared_feed_forward_length", "u32", "shared_ff"),
        Entry("rope.scaling.finetuned", "boolean", "turns"),
        *HYBRID,
    ),
    tensors=decoder.TOP
    + decoder.PRE_NORMS
    + ATTENTION
    + mixer("mamba", "scans")
    + tuple(replace(rule, when="experts") for rule in GRANITE_MOE.tensors if "block_sparse_moe" in rule.source)
    + feed("_shexp", "experts")
    + feed("", "dense"),
)
# What is left of it without a scan: one more architecture name, and positions that rotate.
PLAIN = {"context": decoder.context(2048), "turns": True, "tokens": lambda facts: facts.vocab}
GRANITE_4 = GRANITE_HYBRID.derive("granite-4", gguf_arch="granite", hf_architectures=(), model_types=(), relative=None,
                                  facts=PLAIN, vocab=GRANITE_MOE.vocab)  # fmt: skip
GRANITE_4_MOE = GRANITE_4.derive("granite-4-moe", gguf_arch="granitemoe")

BAMBA = GRANITE_HYBRID.derive(
    "bamba",
    harmless=("partial_rotary_factor",),
    hf_architectures=("BambaForCausalLM",),
    model_types=("bamba",),
    relative=None,
    facts={
        "context": decoder.context(262144),
        "eps": decoder.rms_eps(1e-5),
        "kv_heads": decoder.key_value_heads(8),
        "turns": True,
        "experts": 0,
        "experts_used": None,
        "turned_in_part": lambda facts: facts.rope_dims != facts.head_dim,
    },
    remarks=(
        ("turned_in_part", "llama.cpp turns other elements of these heads than transformers, which turns a part"),
    ),
    metadata=decoder.without_entries(
        GRANITE_HYBRID.metadata, "expert_count", "expert_shared_feed_forward_length", *(one.key for one in MULTIPLIERS)
    ),
    tensors=(
        *decoder.EMBEDDINGS,
        *decoder.HEAD,
        TensorRule("final_layernorm", "output_norm", decoder.VECTOR),
        decoder.PRE_NORMS[0],
        TensorRule("layers.{layer}.pre_ff_layernorm", "blk.{layer}.ffn_norm", decoder.VECTOR),
        *ATTENTION,
        *mixer("mamba", "scans"),
        *(replace(rule, source=rule.source.replace(".mlp.", ".feed_forward.")) for rule in decoder.GATED_MLP),
    ),
)

FAMILIES = (GRANITE_HYBRID, GRANITE_4, GRANITE_4_MOE, BAMBA)
