"""GLM-4.5 to 4.7 and Solar Open: half of the head rotates, q/k norms where config.json says so, sigmoid routing."""

from __future__ import annotations

from quantcli.families import decoder, glm4, mixture, nextn
from quantcli.families.declaration import Family, TensorRule
from quantcli.families.fields import count, flag, real
from quantcli.vocab import VocabHints

GLM4_MOE = Family(
    name="glm4-moe",
    gguf_arch="glm4moe",
    hf_architectures=("Glm4MoeForCausalLM", "Glm4vMoeForConditionalGeneration"),
    model_types=("glm4_moe", "glm4v_moe_text"),
    facts={
        **decoder.FACTS,
        **nextn.FACTS,
        **mixture.FACTS,
        "context": decoder.context(131072),
        "kv_heads": decoder.key_value_heads(8),
        "eps": decoder.rms_eps(1e-5),
        "rope_dims": decoder.partial_rotary(0.5),
        "groups": count("n_group", default=1),
        "groups_used": count("topk_group", default=1),
        "gating": mixture.SIGMOID,
        "weights_scale": real("routed_scaling_factor", default=1.0),
        "weights_norm": flag("norm_topk_prob", default=True),
        "qk_norm": flag("use_qk_norm", default=False),
    },
    metadata=decoder.METADATA
    + mixture.COUNTS
    + decoder.ROPE_DIMS
    + mixture.WIDTH
    + mixture.SHARED
    + mixture.LEADING
    + mixture.WEIGHTS
    + nextn.METADATA,
    tensors=(
        *decoder.TOP,
        TensorRule("layers.{layer}.input_layernorm", "blk.{layer}.attn_norm", decoder.VECTOR),
        TensorRule("layers.{layer}.post_attention_layernorm", "blk.{layer}.post_attention_norm", decoder.VECTOR),
        *decoder.PROJECTIONS,
        *decoder.when(decoder.HEAD_NORMS, "qk_norm"),
        *decoder.OUT_PROJECTION,
        *mixture.DENSE_MLP,
        *mixture.routed(),
        *nextn.TENSORS,
    ),
    may_lack="predicts_further",
    vocab=VocabHints("glm4moe", pre=("glm4",), fallbacks=glm4.TOKENS),
)

SOLAR_TOKENS = {"bos": "<|startoftext|>", "eos": glm4.END, "eot": glm4.END, "unknown": "<unk>"}
SOLAR_OPEN = GLM4_MOE.derive(
    "solar-open",
    hf_architectures=("SolarOpenForCausalLM",),
    model_types=("solar_open",),
    vocab=VocabHints("glm4moe", pre=("solar-open",), fallbacks=SOLAR_TOKENS),
)

FAMILIES = (GLM4_MOE, SOLAR_OPEN)
