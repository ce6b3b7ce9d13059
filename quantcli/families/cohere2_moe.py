"""Command A with experts: attention and experts read one LayerNorm, windows, the shared expert is averaged in."""

from __future__ import annotations

from quantcli.families import decoder, mixture, nextn
from quantcli.families.declaration import Entry, Family
from quantcli.families.facts import Facts, bad
from quantcli.families.fields import count, flag, real, text
from quantcli.vocab import VocabHints


def averaged(facts: Facts) -> bool:
    """llama.cpp knows one way of combining the shared expert with the others."""
    kind = facts.read(text("shared_expert_combination_strategy", default="average"))
    if facts.shared and kind != "average":
        raise bad("shared_expert_combination_strategy", f"is {kind!r}: the file has a place for 'average' only")
    return True


COHERE2_MOE = Family(
    name="cohere2-moe",
    harmless=("prefix_dense_sliding_window_pattern",),
    gguf_arch="cohere2moe",
    hf_architectures=("Cohere2MoeForCausalLM",),
    model_types=("cohere2_moe",),
    facts={
        **decoder.FACTS,
        **nextn.FACTS,
        **mixture.FACTS,
        "nextn_stated": lambda facts: facts.nextn or None,
        "ff": count("prefix_dense_intermediate_size", "intermediate_size", most=decoder.MOST_WIDTH),
        "expert_ff": count("intermediate_size", most=decoder.MOST_WIDTH),
        "eps": decoder.layer_eps(1e-5),
        "scaling_type": "none",
        "logit_scale": real("logit_scale", default=0.0625),
        "window": decoder.window(4096),
        "window_pattern": decoder.window_pattern(4),
        "weights_norm": flag("norm_topk_prob", default=False),
        "shared_stated": lambda facts: facts.shared or None,
        "shared_ff": lambda facts: facts.shared * facts.expert_ff or None,
        "averaged": averaged,
        "rope_dims": lambda facts: facts.head_dim,
    },
    metadata=decoder.SIZES
    + decoder.ROPE
    + decoder.LAYER_NORM
    + decoder.LENGTHS
    + mixture.COUNTS
    + decoder.WINDOW
    + decoder.WINDOW_PATTERN
    + decoder.VOCAB_SIZE
    + mixture.WIDTH
    + mixture.LEADING
    + mixture.WEIGHTS[1:]
    + mixture.SHARED_WIDTH
    + decoder.ROPE_DIMS
    + nextn.METADATA
    + (Entry("logit_scale", "f32", "logit_scale"), Entry("expert_shared_count", "u32", "shared_stated")),
    tensors=decoder.EMBEDDINGS
    + decoder.FINAL_NORM
    + decoder.PRE_NORMS[:1]
    + decoder.PROJECTIONS
    + decoder.OUT_PROJECTION
    + mixture.DENSE_MLP
    + mixture.routed(bias=None)
    + nextn.TENSORS,
    copies={"lm_head.weight": "embed_tokens.weight"},
    may_lack="predicts_further",
    vocab=VocabHints("cohere2moe"),
)

FAMILIES = (COHERE2_MOE,)
