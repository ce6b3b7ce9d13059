"""LFM2-VL: SigLIP 2 over patches that are given as vectors, squares of patches joined, a norm and two matrices."""

from __future__ import annotations

from dataclasses import replace

from quantcli.families.declaration import TensorRule
from quantcli.families.facts import Facts, bad
from quantcli.families.fields import count
from quantcli.families.projectors import tower
from quantcli.families.projectors.declaration import ARCHITECTURE, VOCAB, Projector
from quantcli.families.transforms import regrouped, shaped

IMAGE_SIDE = 256  # pixels; the tower takes images of any size, llama.cpp's converter writes this
# a patch is stored as [height, width, channels]; a convolution has its channels first
CONVOLUTION = (
    shaped("width*channels*patch*patch", 1)
    | regrouped(("width", "patch", "patch", "channels"), order=(0, 3, 1, 2))
    | shaped("width", "channels", "patch", "patch")
)


def used_layers(facts: Facts) -> int:
    """The layers up to the one whose output is taken. Raises BadConfig."""
    chosen = facts.find("vision_feature_layer")
    chosen = -1 if chosen is None else chosen
    if type(chosen) is not int or not -facts.layers <= chosen < 0:
        raise bad("vision_feature_layer", f"is no layer -{facts.layers} to -1")
    found: int = facts.layers + chosen + 1
    return found


LFM2_VL = Projector(
    name="lfm2-vl-vision",
    gguf_arch=ARCHITECTURE,
    hf_architectures=("Lfm2VlForConditionalGeneration",),
    model_types=("lfm2_vl",),
    facts={
        **tower.SIGLIP_FACTS,
        "image": IMAGE_SIDE,
        "positions": tower.size("num_patches", default=256),
        "used": used_layers,
        "scale": count("downsample_factor", default=2, most=64),
        "merged": lambda facts: facts.size("width*scale*scale"),
        "hidden": count("projector_hidden_size", default=2560, most=2**24),
        "projector": "lfm2",
        "text_width": tower.text_width(2560),
    },
    metadata=(
        *(replace(entry, fact="used") if entry.fact == "layers" else entry for entry in tower.IMAGE),
        *tower.SCALE,
        *tower.GELU,
    ),
    tensors=(
        TensorRule("embeddings.patch_embedding", "v.patch_embd", ("width", "channels*patch*patch"), CONVOLUTION),
        *tower.SIGLIP[1:],
        TensorRule("multi_modal_projector.layer_norm", "mm.input_norm", ("merged",), optional=True),
        TensorRule("multi_modal_projector.linear_1", "mm.1", ("hidden", "merged")),
        TensorRule("multi_modal_projector.linear_2", "mm.2", ("text_width", "hidden")),
    ),
    vocab=VOCAB,
    prefixes=("vision_tower.", "vision_model."),
    parts=("vision_tower.", "multi_modal_projector."),
)

PROJECTORS = (LFM2_VL,)
