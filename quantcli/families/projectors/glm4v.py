"""GLM-4.1V, GLM-4.5V and GLM-OCR: a ViT with learned positions and a rotation, a convolution, a gated MLP."""

from __future__ import annotations

from quantcli.families.declaration import TensorRule
from quantcli.families.projectors import qwen, tower
from quantcli.families.projectors.declaration import ARCHITECTURE, VOCAB, Projector

LAYER, BLOCK = qwen.LAYER, "v.blk.{layer}."

GLM4V = Projector(
    name="glm4v-vision",
    gguf_arch=ARCHITECTURE,
    hf_architectures=(
        "Glm4vForConditionalGeneration", "Glm4vMoeForConditionalGeneration", "GlmOcrForConditionalGeneration",
    ),
    model_types=("glm4v", "glm4v_moe", "glm_ocr"),
    facts={
        **qwen.FACTS,
        "layers": tower.layers("depth", "num_hidden_layers", default=24),
        "width": tower.size("hidden_size", default=1536),
        "heads": tower.size("num_heads", "num_attention_heads", default=12),
        "image": tower.size("image_size", default=336),
        "ff": tower.size("intermediate_size", default=13696),  # of the merger; the layers' MLP is as wide as the output
        "head": tower.whole_part("width", "heads"),
        "out": tower.size("out_hidden_size", default=4096),
        "positions": lambda facts: (facts.image // facts.patch) ** 2,
        "eps": tower.eps("tower.rms_norm_eps", 1e-5),
        "activation": tower.activation("gelu", "silu", default="silu"),
        "gelu": lambda facts: True if facts.activation == "gelu" else None,
        "silu": lambda facts: True if facts.activation == "silu" else None,
        "projector": "glm4v",
        "text_width": tower.text_width(4096),
    },
    metadata=tower.IMAGE + tower.GELU + tower.SILU,
    tensors=(
        *qwen.PATCHES,
        TensorRule("patch_embed.proj.bias", "v.patch_embd.bias", tower.WIDTH, exact=True, optional=True),
        TensorRule("embeddings.position_embedding", "v.position_embd", ("positions", "width"), optional=True),
        TensorRule("post_conv_layernorm", "v.norm_embd", tower.WIDTH, optional=True),
        TensorRule(LAYER + "attn.qkv", BLOCK + "attn_qkv", qwen.QKV),
        TensorRule(LAYER + "attn.q_norm", BLOCK + "attn_q_norm", ("head",), optional=True),
        TensorRule(LAYER + "attn.k_norm", BLOCK + "attn_k_norm", ("head",), optional=True),
        *qwen.OUT,
        *qwen.NORMS,
        TensorRule(LAYER + "mlp.gate_proj", BLOCK + "ffn_gate", ("out", "width")),
        TensorRule(LAYER + "mlp.up_proj", BLOCK + "ffn_up", ("out", "width")),
        TensorRule(LAYER + "mlp.down_proj", BLOCK + "ffn_down", ("width", "out")),
        TensorRule("post_layernorm", "v.post_ln", tower.WIDTH),
        TensorRule("downsample", "mm.patch_merger", ("out", "width", "merge", "merge")),
        TensorRule("merger.proj", "mm.model.fc", ("out", "out")),
        TensorRule("merger.post_projection_norm", "mm.post_norm", ("out",)),
        TensorRule("merger.gate_proj", "mm.gate", ("ff", "out")),
        TensorRule("merger.up_proj", "mm.up", ("ff", "out")),
        TensorRule("merger.down_proj", "mm.down", ("out", "ff")),
    ),
    vocab=VOCAB,
    prefixes=("visual.",),
    parts=("visual.",),
)  # fmt: skip

PROJECTORS = (GLM4V,)
