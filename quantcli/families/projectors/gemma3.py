"""Gemma 3: SigLIP, averaged over squares of patches, a norm and one matrix."""

from __future__ import annotations

import math

from quantcli.families.declaration import TensorRule
from quantcli.families.facts import Facts
from quantcli.families.fields import count
from quantcli.families.projectors import tower
from quantcli.families.projectors.declaration import ARCHITECTURE, VOCAB, Projector
from quantcli.families.transforms import plus_one

_USUAL_SCALE = 4  # what llama.cpp takes where the file says nothing


def scale(facts: Facts) -> int | None:
    """Patches a side that are averaged to one embedding, where it is not the released models' number."""
    tokens = facts.read(count("processor.image_seq_length", default=256))
    found: int = facts.image // facts.patch // math.isqrt(tokens)
    return found if found not in (0, _USUAL_SCALE) else None


GEMMA3 = Projector(
    name="gemma3-vision",
    gguf_arch=ARCHITECTURE,
    hf_architectures=("Gemma3ForConditionalGeneration",),
    model_types=("gemma3",),
    facts={
        **tower.SIGLIP_FACTS,
        "projector": "gemma3",
        "scale": scale,
        "text_width": tower.text_width(2304),
    },
    metadata=tower.IMAGE + tower.GELU + tower.SCALE,
    tensors=(
        TensorRule(
            "multi_modal_projector.mm_input_projection_weight",
            "mm.input_projection.weight",
            ("width", "text_width"),
            exact=True,
            type="F16",
        ),
        TensorRule("multi_modal_projector.mm_soft_emb_norm", "mm.soft_emb_norm", tower.WIDTH, plus_one()),
        *tower.SIGLIP,
    ),
    vocab=VOCAB,
    ignored=("head.*",),  # of the classifier that the tower was trained with
    prefixes=("vision_tower.", "vision_model."),
    spellings={"multimodal_projector.": "multi_modal_projector.", "projection.weight": "projection_weight"},
    parts=("vision_tower.", "vision_model.", "multi_modal_projector.", "multimodal_projector."),
)

PROJECTORS = (GEMMA3,)
