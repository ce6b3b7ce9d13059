"""ERNIE 4.5 with experts: dense layers in front, a bias on the choice of experts, shared experts."""

from __future__ import annotations

from dataclasses import replace

from quantcli.families import decoder, mixture
from quantcli.families.declaration import Entry, Family
from quantcli.families.facts import Facts
from quantcli.families.fields import count
from quantcli.vocab import VocabHints


def stated_shared_width(facts: Facts) -> int | None:
    """What llama.cpp's converter writes as the shared experts' width: another number than their matrices have."""
    return facts.ff // facts.kv_heads if facts.shared else None


ERNIE_MOE = Family(
    name="ernie4.5-moe",
    harmless=(
        "moe_gate",
        "moe_layer_end_index",
        "moe_norm_min",
        "moe_use_aux_free",
        "num_nextn_predict_layers",
    ),
    gguf_arch="ernie4_5-moe",
    hf_architectures=("Ernie4_5_MoeForCausalLM",),
    model_types=("ernie4_5_moe",),
    facts={
        **decoder.FACTS,
        **mixture.FACTS,
        "experts": count("moe_num_experts", most=decoder.MOST_EXPERTS),
        "experts_used": count("moe_k", default=6, most=decoder.MOST_EXPERTS),
        "shared": count("moe_num_shared_experts", default=2, least=0, most=decoder.MOST_EXPERTS),
        "dense_layers": count("moe_layer_start_index", default=1, least=0),
        "step": count("moe_layer_interval", default=1),
        "stated_shared_ff": stated_shared_width,
    },
    metadata=(
        *decoder.METADATA,
        *decoder.EXPERT_COUNTS,
        Entry("interleave_moe_layer_step", "u32", "step"),
        *mixture.LEADING,
        *mixture.WIDTH,
        *mixture.SHARED,
        replace(mixture.SHARED_WIDTH[0], fact="stated_shared_ff"),
    ),
    tensors=decoder.TOP
    + decoder.PRE_NORMS
    + decoder.PROJECTIONS
    + decoder.OUT_PROJECTION
    + mixture.DENSE_MLP
    + mixture.routed(bias=None, kinds=mixture.GATE_FIRST)
    + mixture.router_bias("mlp.moe_statics.e_score_correction_bias", shape=(1, "experts")),
    prefixes=("ernie.",),
    further=("mtp_block.*", "mtp_emb_norm.*", "mtp_hidden_norm.*", "mtp_linear_proj.*"),
    vocab=VocabHints("ernie4_5-moe", prefix_from_config=True),
)

FAMILIES = (ERNIE_MOE,)
