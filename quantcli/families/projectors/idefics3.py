"""Idefics 3 and SmolVLM: SigLIP, squares of patches joined to one vector (pixel shuffle), one matrix."""

from __future__ import annotations

from quantcli.families.declaration import Entry, TensorRule
from quantcli.families.fields import count
from quantcli.families.projectors import tower
from quantcli.families.projectors.declaration import ARCHITECTURE, VOCAB, Projector

IDEFICS3 = Projector(
    name="idefics3-vision",
    gguf_arch=ARCHITECTURE,
    hf_architectures=("Idefics3ForConditionalGeneration", "SmolVLMForConditionalGeneration"),
    model_types=("idefics3", "smolvlm"),
    facts={
        **tower.SIGLIP_FACTS,
        "width": tower.size("hidden_size", default=1152),
        "heads": tower.size("num_attention_heads", default=16),
        "patch": tower.size("patch_size", default=32),
        "projector": "idefics3",
        "scale": count("scale_factor", default=2, most=64),
        "processed": count("processor.size.longest_edge", default="=image", most=tower.MOST_PIXELS),
        "text_width": tower.text_width(4096),
    },
    metadata=(
        *tower.IMAGE,
        *tower.SCALE,
        *tower.GELU,
        Entry("vision.preproc_image_size", "u32", "processed"),
    ),
    tensors=(
        TensorRule("connector.modality_projection.proj", "mm.model.fc", ("text_width", "width*scale*scale")),
        *tower.SIGLIP,
    ),
    vocab=VOCAB,
    prefixes=("vision_model.", "vision_tower."),
    parts=("vision_model.", "vision_tower.", "connector."),
)

PROJECTORS = (IDEFICS3,)
