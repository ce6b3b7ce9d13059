"""Granite: a Llama with four multipliers; the logits are divided by ``logits_scaling``."""

from __future__ import annotations

from quantcli.families import decoder, mixture
from quantcli.families.declaration import Entry, TensorRule
from quantcli.families.facts import Facts
from quantcli.families.fields import count, real
from quantcli.families.llama import LLAMA
from quantcli.families.transforms import Transform, rows

MULTIPLIERS = (
    Entry("attention.scale", "f32", "attention_scale"),
    Entry("embedding_scale", "f32", "embedding_scale"),
    Entry("residual_scale", "f32", "residual_scale"),
    Entry("logit_scale", "f32", "logit_scale"),
)

GRANITE = LLAMA.derive(
    "granite",
    gguf_arch="granite",
    hf_architectures=("GraniteForCausalLM",),
    model_types=("granite",),
    facts={
        "key_length": decoder.given_head_dim,
        "attention_scale": real("attention_multiplier", default=1.0),
        "embedding_scale": real("embedding_multiplier", default=1.0),
        "residual_scale": real("residual_multiplier", default=1.0),
        "logit_scale": real("logits_scaling", default=1.0, least=1e-6),
    },
    metadata=LLAMA.metadata + MULTIPLIERS,
)


def shared_mlp(source: str, role: str, part: Transform | None = None) -> TensorRule:
    """One matrix of the expert that all tokens take; gate and up lie in one."""
    shape = ("hidden", "shared_ff") if part is None else ("2*shared_ff", "hidden")
    source, target = f"layers.{{layer}}.shared_mlp.{source}", f"blk.{{layer}}.ffn_{role}_shexp"
    return TensorRule(source, target, shape, part, when="shared_ff")


SHARED = (
    shared_mlp("input_linear", "gate", rows(0, "shared_ff")),
    shared_mlp("input_linear", "up", rows("shared_ff", "2*shared_ff")),
    shared_mlp("output_linear", "down"),
)


def windows(facts: Facts) -> list[bool] | None:
    """Whether each layer has a window: as ``layer_types`` says, else all but the first of every four."""
    stated = decoder.window_pattern(4)(facts) if facts.config.get("layer_types") else None
    return stated or [layer % 4 != 0 for layer in range(facts.layers)]


# Windows and sinks; which layers rotate may be listed.
GRANITE_SWA = GRANITE.derive(
    "granite-swa",
    gguf_arch="granite_swa",
    hf_architectures=("GraniteSWAForCausalLM",),
    model_types=("granite_swa",),
    facts={
        "window": count("sliding_window", default=128),
        "window_pattern": windows,
        "rotating": lambda facts: [bool(layer) for layer in facts.config.get("no_rope_layers") or ()] or None,
    },
    metadata=GRANITE.metadata
    + decoder.WINDOW
    + decoder.WINDOW_PATTERN
    + (Entry("attention.rope_pattern", "booleans", "rotating"),),
    tensors=(
        *GRANITE.tensors,
        TensorRule("layers.{layer}.self_attn.sinks", "blk.{layer}.attn_sinks.weight", ("heads",), exact=True),
    ),
)

# Stored as stacks, gate above up: ``input_linear`` and ``output_linear`` (experts.py).
GRANITE_MOE = GRANITE.derive(
    "granite-moe",
    gguf_arch="granitemoe",
    hf_architectures=("GraniteMoeForCausalLM", "GraniteMoeSharedForCausalLM"),
    model_types=("granitemoe", "granitemoeshared"),
    facts={
        **decoder.EXPERT_FACTS,
        "expert_ff": lambda facts: facts.ff,
        "shared_ff": count("shared_intermediate_size", default=None, most=decoder.MOST_WIDTH),
    },
    metadata=decoder.METADATA
    + decoder.EXPERT_COUNTS
    + decoder.VOCAB_SIZE
    + decoder.ROPE_DIMS
    + MULTIPLIERS
    + mixture.SHARED_WIDTH,
    tensors=decoder.TOP
    + decoder.PRE_NORMS
    + decoder.PERMUTED_PROJECTIONS
    + decoder.OUT_PROJECTION
    + decoder.router("block_sparse_moe.router.layer")
    + decoder.experts("block_sparse_moe.experts", *decoder.EXPERT_KINDS)
    + SHARED,
    spellings={".mlp.experts.": ".block_sparse_moe.experts."},
)

# Gate and up of experts stay in one tensor, those of the shared one too.
EXPERT_BLOCK, SHARED_BLOCK = "layers.{layer}.block_sparse_moe.", "layers.{layer}.shared_mlp."
GRANITE_MOE_SWA = GRANITE_SWA.derive(
    "granite-moe-swa",
    hf_architectures=("GraniteMoeSWAForCausalLM",),
    model_types=("granitemoe_swa", "granite_moe_swa"),
    facts={
        **decoder.EXPERT_FACTS,
        "shared_ff": count("shared_intermediate_size", default=None, least=0, most=decoder.MOST_WIDTH),
    },
    metadata=(
        *GRANITE_SWA.metadata,
        *decoder.EXPERT_COUNTS,
        Entry("expert_shared_feed_forward_length", "u32", "shared_ff"),
    ),
    tensors=(
        *(rule for rule in GRANITE_SWA.tensors if rule not in decoder.GATED_MLP),
        *decoder.router("block_sparse_moe.router.layer"),
        *(
            TensorRule(EXPERT_BLOCK + source, f"blk.{{layer}}.ffn_{target}_exps.weight", shape, exact=True)
            for source, target, shape in (
                ("experts.gate_up_proj", "gate_up", ("experts", "2*ff", "hidden")),
                ("experts.down_proj", "down", ("experts", "hidden", "ff")),
            )
        ),
        TensorRule(
            SHARED_BLOCK + "input_linear", "blk.{layer}.ffn_up_shexp", ("2*shared_ff", "hidden"), when="shared_ff"
        ),
        TensorRule(
            SHARED_BLOCK + "output_linear", "blk.{layer}.ffn_down_shexp", ("hidden", "shared_ff"), when="shared_ff"
        ),
    ),
    spellings={
        ".block_sparse_moe.input_linear.weight": ".block_sparse_moe.experts.gate_up_proj",
        ".block_sparse_moe.output_linear.weight": ".block_sparse_moe.experts.down_proj",
    },
)

FAMILIES = (GRANITE, GRANITE_SWA, GRANITE_MOE_SWA, GRANITE_MOE)
