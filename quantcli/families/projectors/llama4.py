"""Llama 4: a ViT with a class embedding, pixel shuffle, an adapter of two matrices and one more."""

from __future__ import annotations

from quantcli.families.declaration import TensorRule
from quantcli.families.facts import Facts
from quantcli.families.fields import real
from quantcli.families.projectors import tower
from quantcli.families.projectors.declaration import ARCHITECTURE, VOCAB, Projector

LAYER = "layers.{layer}."


def scale(facts: Facts) -> int:
    """Patches a side that are joined to one vector."""
    return int(1.0 / facts.read(real("tower.pixel_shuffle_ratio", default=0.5, least=1e-3, most=1)))


LLAMA4 = Projector(
    name="llama4-vision",
    gguf_arch=ARCHITECTURE,
    hf_architectures=("Llama4ForConditionalGeneration",),
    model_types=("llama4",),
    facts={
        **tower.SIGLIP_FACTS,
        "layers": tower.layers("num_hidden_layers", default=34),
        "ff": tower.size("intermediate_size", default=5632),
        "heads": tower.size("num_attention_heads", default=16),
        "image": tower.size("image_size", default=448),
        "patch": tower.size("patch_size", default=14),
        "positions": lambda facts: (facts.image // facts.patch) ** 2 + 1,
        "adapter_in": tower.size("projector_input_dim", default=4096),
        "adapter_out": tower.size("projector_output_dim", default=4096),
        "out": tower.size("vision_output_dim", default=7680),
        "eps": tower.eps("tower.norm_eps", 1e-5),
        "activation": tower.activation("gelu", default="gelu"),
        "projector": "llama4",
        "scale": scale,
        "text_width": tower.text_width(5120),
    },
    metadata=tower.IMAGE + tower.SCALE + tower.GELU,
    tensors=(
        TensorRule("class_embedding", "v.class_embd", tower.WIDTH, exact=True),
        TensorRule("patch_embedding.linear", "v.patch_embd", ("width", "channels*patch*patch")),
        TensorRule("positional_embedding_vlm", "v.position_embd.weight", ("positions", "width"), exact=True),
        TensorRule("layernorm_pre", "v.pre_ln", tower.WIDTH),
        TensorRule("layernorm_post", "v.post_ln", tower.WIDTH),
        TensorRule(LAYER + "input_layernorm", "v.blk.{layer}.ln1", tower.WIDTH),
        TensorRule(LAYER + "post_attention_layernorm", "v.blk.{layer}.attn_post_norm", tower.WIDTH),
        *tower.attention(LAYER + "self_attn.", "v.blk.{layer}.", "o_proj"),
        *tower.plain_mlp(LAYER + "mlp.", "fc1", "fc2"),
        TensorRule("vision_adapter.mlp.fc1", "mm.model.mlp.1", ("adapter_in", "ff")),
        TensorRule("vision_adapter.mlp.fc2", "mm.model.mlp.2", ("adapter_out", "adapter_out")),
        TensorRule("multi_modal_projector.linear_1", "mm.model.fc", ("text_width", "out")),
    ),
    vocab=VOCAB,
    prefixes=("vision_model.",),
    spellings={"positional_embedding_vlm.weight": "positional_embedding_vlm"},
    parts=("vision_model.", "multi_modal_projector."),
)

PROJECTORS = (LLAMA4,)
