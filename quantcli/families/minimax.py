"""MiniMax M2: q/k norms over all heads together, sigmoid routing with a bias, part of the head rotates."""

from __future__ import annotations

from quantcli.families import decoder, mixture
from quantcli.families.declaration import Family
from quantcli.families.fields import count
from quantcli.vocab import VocabHints

MINIMAX_M2 = Family(
    name="minimax-m2",
    harmless=(
        "partial_rotary_factor",
        "attn_type_list",
        "mtp_*",
        "num_mtp_modules",
    ),
    gguf_arch="minimax-m2",
    hf_architectures=("MiniMaxM2ForCausalLM",),
    model_types=("minimax_m2",),
    facts={
        **decoder.FACTS,
        **mixture.FACTS,
        "expert_ff": lambda facts: facts.ff,
        "rope_dims": count("rotary_dim", most=decoder.MOST_WIDTH),
    },
    metadata=decoder.METADATA + mixture.COUNTS + mixture.WIDTH + decoder.ROPE_DIMS,
    tensors=decoder.TOP
    + decoder.PRE_NORMS
    + decoder.PROJECTIONS
    + decoder.FULL_NORMS
    + decoder.OUT_PROJECTION
    + mixture.routed(
        "block_sparse_moe", bias="e_score_correction_bias", kinds=mixture.NUMBERED, shared=None, layers=None
    ),
    spellings={".mlp.": ".block_sparse_moe."},
    vocab=VocabHints("minimax-m2"),
)

FAMILIES = (MINIMAX_M2,)
