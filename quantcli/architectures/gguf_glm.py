"""GLM-4 (0414): gate and up fused, four norms a layer; and what llama-quantize knows of its successor."""

from __future__ import annotations

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

ARCHITECTURES = (GLM4, GLM5_NEXT)
