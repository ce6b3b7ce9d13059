"""Pixtral, alone under LLaVA's class and with a patch merger in Mistral 3: a ViT with RMS norms and a rotation."""

from __future__ import annotations

from quantcli.families.declaration import TensorRule
from quantcli.families.facts import Facts, bad
from quantcli.families.fields import count, text
from quantcli.families.projectors import tower
from quantcli.families.projectors.declaration import ARCHITECTURE, VOCAB, Projector, TokenRow
from quantcli.families.transforms import permuted

LAYER = "transformer.layers.{layer}."
SQUARE, MLP = ("width", "width"), ("ff", "width")


def feature_layers(facts: Facts) -> int:
    """How many layers' outputs are laid side by side for the projector."""
    chosen = facts.find("vision_feature_layer")
    return len(chosen) if isinstance(chosen, list) and chosen else 1


def kind(facts: Facts) -> str:
    """Raises BadConfig where LLaVA's class has another tower."""
    found: str = facts.read(text("tower.model_type", default="pixtral"))
    if found != "pixtral":
        raise bad("vision_config.model_type", f"is {found!r}", "of LLaVA's towers pixtral is known")
    return found


PIXTRAL = Projector(
    name="pixtral-vision",
    gguf_arch=ARCHITECTURE,
    hf_architectures=("LlavaForConditionalGeneration",),
    model_types=("llava",),
    facts={
        **tower.IMAGE_FACTS,
        "kind": kind,
        "layers": tower.layers("num_hidden_layers", default=24),
        "width": tower.size("hidden_size", default=1024),
        "ff": tower.size("intermediate_size", default=4096),
        "heads": tower.size("num_attention_heads", default=16),
        "image": tower.size("image_size", default=1024),
        "patch": tower.size("patch_size", default=16),
        "eps": tower.eps("tower.layer_norm_eps", 1e-5),
        "activation": tower.activation("gelu", "silu", default="gelu"),
        "gelu": lambda facts: True if facts.activation == "gelu" else None,
        "silu": lambda facts: True if facts.activation == "silu" else None,
        "projector": "pixtral",
        "merge": count("spatial_merge_size", default=None, most=64),
        "merger": False,
        "features": feature_layers,
        "text_width": tower.text_width(4096),
    },
    metadata=tower.IMAGE + tower.GELU + tower.SILU + tower.MERGE,
    tensors=(
        TensorRule("patch_conv", "v.patch_embd", ("width", "channels", "patch", "patch")),
        TensorRule("ln_pre", "v.pre_ln", tower.WIDTH),
        TensorRule(LAYER + "attention_norm", "v.blk.{layer}.ln1", tower.WIDTH),
        TensorRule(LAYER + "ffn_norm", "v.blk.{layer}.ln2", tower.WIDTH),
        TensorRule(LAYER + "attention.q_proj", "v.blk.{layer}.attn_q", SQUARE, permuted("heads")),
        TensorRule(LAYER + "attention.k_proj", "v.blk.{layer}.attn_k", SQUARE, permuted("heads")),
        TensorRule(LAYER + "attention.v_proj", "v.blk.{layer}.attn_v", SQUARE),
        TensorRule(LAYER + "attention.o_proj", "v.blk.{layer}.attn_out", SQUARE),
        TensorRule(LAYER + "feed_forward.gate_proj", "v.blk.{layer}.ffn_gate", MLP),
        TensorRule(LAYER + "feed_forward.up_proj", "v.blk.{layer}.ffn_up", MLP),
        TensorRule(LAYER + "feed_forward.down_proj", "v.blk.{layer}.ffn_down", ("width", "ff")),
        TensorRule("multi_modal_projector.norm", "mm.input_norm", tower.WIDTH, when="merger"),
        TensorRule(
            "multi_modal_projector.patch_merger.merging_layer",
            "mm.patch_merger",
            ("width", "width*merge*merge"),
            when="merger",
        ),
        TensorRule("multi_modal_projector.linear_1", "mm.1", ("text_width", "width*features")),
        TensorRule("multi_modal_projector.linear_2", "mm.2", ("text_width", "text_width")),
    ),
    vocab=VOCAB,
    prefixes=("vision_tower.",),
    parts=("vision_tower.", "multi_modal_projector."),
    row=TokenRow("[IMG_BREAK]", "v.token_embd.img_break"),  # ends each row of patches
)

MISTRAL3 = PIXTRAL.derive(
    "mistral3-vision",
    hf_architectures=("Mistral3ForConditionalGeneration",),
    model_types=("mistral3",),
    facts={"merge": count("spatial_merge_size", default=2, most=64), "merger": True},
)

PROJECTORS = (PIXTRAL, MISTRAL3)
