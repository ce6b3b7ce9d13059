"""Llama 4: q/k not permuted, windows of chunks, some layers without positions, one routed and one shared expert."""

from __future__ import annotations

from collections.abc import Callable

from quantcli.families import decoder, mixture
from quantcli.families.declaration import Entry
from quantcli.families.facts import Facts, bad
from quantcli.families.fields import count
from quantcli.families.llama import LLAMA
from quantcli.vocab import VocabHints


def no_window(facts: Facts) -> int | None:
    """0 where no layer sees chunks only; llama.cpp takes 8192 where the file says nothing."""
    if facts.find("layer_types") is None:
        return None
    kinds = decoder.layer_list(facts, "layer_types", "kinds of layers")
    return None if any(kind != "full_attention" for kind in kinds) else 0


def is_dense(facts: Facts) -> Callable[[int], bool]:
    """The layers with a plain MLP: every ``step``-th has experts. Other patterns have no place in the file."""
    listed, step = facts.find("moe_layers"), facts.step
    regular = [layer for layer in range(facts.layers) if step and (layer + 1) % step == 0]
    if isinstance(listed, list) and listed != regular:
        raise bad("moe_layers", f"is not every {step}-th layer: the file cannot say so")
    return lambda layer: not step or (layer + 1) % step != 0


LLAMA4 = LLAMA.derive(
    "llama4",
    fixed={
        "attention_chunk_size": (8192,),
        "attn_scale": (0.1,),
        "floor_scale": (8192,),
        "attn_temperature_tuning": (True, 4),
    },
    gguf_arch="llama4",
    hf_architectures=("Llama4ForConditionalGeneration", "Llama4ForCausalLM"),
    model_types=("llama4_text",),
    facts={
        **decoder.EXPERT_FACTS,
        "ff": count("intermediate_size_mlp", most=decoder.MOST_WIDTH),
        "expert_ff": count("intermediate_size", most=decoder.MOST_WIDTH),
        "shared": 1,
        "shared_ff": lambda facts: facts.expert_ff,
        "step": count("interleave_moe_layer_step", default=1, least=0),
        "dense": is_dense,
        "sparse": mixture.is_sparse,
        "window": no_window,
    },
    metadata=(
        *LLAMA.metadata,
        *decoder.EXPERT_COUNTS,
        Entry("interleave_moe_layer_step", "u32", "step"),
        *mixture.WIDTH,
        *decoder.WINDOW,
    ),
    tensors=decoder.TOP
    + decoder.PRE_NORMS
    + decoder.PROJECTIONS
    + decoder.OUT_PROJECTION
    + mixture.routed("mlp", router="router", bias=None, shared="shared_expert")
    + mixture.DENSE_MLP,
    spellings={".feed_forward.": ".mlp."},
    vocab=VocabHints("llama4"),
    vocab_for=None,
)

FAMILIES = (LLAMA4,)
