"""K-EXAONE: EXAONE 4's windows and rotation, norms before attention and MLP, experts behind a dense layer."""

from __future__ import annotations

from quantcli.families import decoder, mixture, nextn
from quantcli.families.exaone import EXAONE4
from quantcli.families.fields import flag, real
from quantcli.vocab import VocabHints

ATTENTION = decoder.PRE_NORMS + decoder.PROJECTIONS + decoder.HEAD_NORMS + decoder.OUT_PROJECTION

EXAONE_MOE = EXAONE4.derive(
    "exaone-moe",
    remarks=(),
    harmless=(
        "mlp_layer_types",
        "topk_method",
    ),
    gguf_arch="exaone-moe",
    hf_architectures=("ExaoneMoeForCausalLM", "ExaoneMoEForCausalLM"),
    model_types=("exaone_moe",),
    facts={
        **nextn.FACTS,
        **mixture.FACTS,
        "nextn_stated": lambda facts: facts.nextn,
        "weights_scale": real("routed_scaling_factor"),
        "weights_norm": flag("norm_topk_prob"),
        "scaling_type": "none",
        "sparse": lambda facts: lambda layer: facts.dense_layers <= layer < facts.main_layers,
    },
    metadata=EXAONE4.metadata
    + mixture.COUNTS
    + mixture.WIDTH
    + mixture.SHARED
    + mixture.SHARED_WIDTH
    + mixture.WEIGHTS
    + mixture.LEADING
    + nextn.METADATA,
    tensors=decoder.TOP
    + decoder.only_in("own", ATTENTION)
    + mixture.DENSE_MLP
    + mixture.routed(bias="e_score_correction_bias")
    + nextn.behind(ATTENTION + decoder.GATED_MLP),
    may_lack="predicts_further",
    vocab=VocabHints("exaone-moe"),
)

FAMILIES = (EXAONE_MOE,)
