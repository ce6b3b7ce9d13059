"""The text parts of Qwen2-VL, Qwen2.5-VL, Qwen2.5-Omni and Qwen3-VL: Qwen2 and Qwen3 with m-rope."""

from __future__ import annotations

from quantcli.families.declaration import Entry
from quantcli.families.facts import Facts
from quantcli.families.qwen import QWEN2, QWEN3

QWEN2_VL = QWEN2.derive(
    "qwen2-vl",
    gguf_arch="qwen2vl",
    hf_architectures=("Qwen2VLForConditionalGeneration", "Qwen2_5_VLForConditionalGeneration", "Qwen2_5OmniModel"),
    model_types=("qwen2_vl", "qwen2_vl_text", "qwen2_5_vl", "qwen2_5_vl_text", "qwen2_5_omni_text"),
)


def deepstack_layers(facts: Facts) -> int:
    """How many layers take in what the vision tower sends past its end."""
    for place in ("thinker_config.vision_config", "vision_config"):
        if isinstance(indexes := facts.find(f"{place}.deepstack_visual_indexes"), list):
            return len(indexes)
    return 0


DEEPSTACK = (Entry("n_deepstack_layers", "u32", "deepstack"),)

QWEN3_VL = QWEN3.derive(
    "qwen3-vl",
    gguf_arch="qwen3vl",
    hf_architectures=("Qwen3VLForConditionalGeneration",),
    model_types=("qwen3_vl", "qwen3_vl_text"),
    facts={"deepstack": deepstack_layers},
    metadata=QWEN3.metadata + DEEPSTACK,
    variants=(),
)

FAMILIES = (QWEN2_VL, QWEN3_VL)
