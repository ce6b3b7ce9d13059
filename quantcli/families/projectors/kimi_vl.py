"""Kimi-VL: MoonViT, whose positions are a square of vectors; squares of patches joined, a norm and two matrices."""

from __future__ import annotations

from quantcli.families.declaration import TensorRule
from quantcli.families.projectors import tower
from quantcli.families.projectors.declaration import ARCHITECTURE, VOCAB, Projector
from quantcli.families.transforms import rows, shaped

LAYER, BLOCK, QKV = "encoder.blocks.{layer}.", "v.blk.{layer}.", ("3*width", "width")
IMAGE_SIDE = 64 * 14  # pixels; the tower takes images of any size, llama.cpp's converter writes this

KIMI_VL = Projector(
    name="kimi-vl-vision",
    gguf_arch=ARCHITECTURE,
    hf_architectures=("KimiVLForConditionalGeneration",),
    model_types=("kimi_vl",),
    facts={
        **tower.IMAGE_FACTS,
        "layers": tower.layers("num_hidden_layers", default=27),
        "width": tower.size("hidden_size", default=1152),
        "ff": tower.size("intermediate_size", default=4304),
        "mlp": lambda facts: facts.ff,
        "heads": tower.size("num_attention_heads", default=16),
        "image": IMAGE_SIDE,
        "patch": tower.size("patch_size", default=14),
        "height": tower.size("init_pos_emb_height", default=64),
        "across": tower.size("init_pos_emb_width", default=64),
        "scale": 2,
        "merged": lambda facts: facts.size("width*scale*scale"),
        "eps": tower.eps("tower.layer_norm_eps", 1e-5),
        "gelu": True,
        "projector": "kimivl",
        "text_width": tower.text_width(2048),
    },
    metadata=tower.IMAGE + tower.GELU + tower.SCALE,
    tensors=(
        TensorRule("patch_embed.proj", "v.patch_embd", ("width", "channels", "patch", "patch")),
        TensorRule(
            "patch_embed.pos_emb",
            "v.position_embd",
            ("height", "across", "width"),
            shaped("height*across", "width"),
            bias="none",
        ),
        TensorRule(LAYER + "norm0", BLOCK + "ln1", tower.WIDTH),
        TensorRule(LAYER + "norm1", BLOCK + "ln2", tower.WIDTH),
        TensorRule(LAYER + "wqkv", BLOCK + "attn_q", QKV, rows(0, "width")),
        TensorRule(LAYER + "wqkv", BLOCK + "attn_k", QKV, rows("width", "2*width")),
        TensorRule(LAYER + "wqkv", BLOCK + "attn_v", QKV, rows("2*width", "3*width")),
        TensorRule(LAYER + "wo", BLOCK + "attn_out", ("width", "width")),
        *tower.plain_mlp(LAYER + "mlp.", "fc0", "fc1"),
        TensorRule("encoder.final_layernorm", "v.post_ln", tower.WIDTH),
        TensorRule("multi_modal_projector.pre_norm", "mm.input_norm", tower.WIDTH),
        TensorRule("multi_modal_projector.linear_1", "mm.1", ("merged", "merged")),
        TensorRule("multi_modal_projector.linear_2", "mm.2", ("text_width", "merged")),
    ),
    vocab=VOCAB,
    prefixes=("vision_tower.",),
    parts=("vision_tower.", "multi_modal_projector."),
)

PROJECTORS = (KIMI_VL,)
