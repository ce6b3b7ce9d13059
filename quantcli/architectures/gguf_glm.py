"""GLM-4 (0414): gate and up fused, four norms a layer; and what llama-quantize knows of its successor."""

from __future__ import annotations

from quantcli.architectures import keys
from quantcli.architectures.architecture import Architecture, Graph

GLM4 = Architecture("glm4", Graph(post_norm=True, mlp="fused"))
GLM5_NEXT = Architecture(
    "glm5-next",
    kept=(
        "hc_", "indexer.attn_q_b", "indexer.attn_k", "indexer.proj", "indexer_compressor_gate",
        "indexer_compressor_ape", "ssm_f_a.weight", "ssm_f_b.weight", "ssm_g_a.weight", "ssm_g_b.weight",
        "ssm_beta.weight", "attn_kv_a_mqa.weight", "attn_k_b.weight", "attn_v_b.weight",
    ),
    pinned=("attn_q_a", "attn_q_b", "nextn.eh_proj"),  # of its recurrent part
)  # fmt: skip

GLM4_MOE = Architecture(
    "glm4moe",
    Graph(rope="neox", qk_norm="head", second_norm="post_attention_norm", expert_norm=False),
    reads=keys.EXPERTS + keys.ROUTING,
)
GLM_DSA = Architecture(
    "glm-dsa",
    Graph(latent=True, indexer=True, expert_norm=False),
    reads=keys.EXPERTS + keys.ROUTING,
)

ARCHITECTURES = (GLM4, GLM4_MOE, GLM_DSA, GLM5_NEXT)
