"""Text part of Qwen3-VL with experts: a Qwen3 with three-part positions; images enter after the first layers."""

from __future__ import annotations

from quantcli.families.declaration import Entry
from quantcli.families.facts import Facts
from quantcli.families.qwen import QWEN3_MOE
from quantcli.vocab import VocabHints


def deepstack(facts: Facts) -> int:
    """Layers behind which parts of an image are added."""
    indexes = facts.find("vision_config.deepstack_visual_indexes")
    return len(indexes) if isinstance(indexes, list) else 0


# Released stacks of experts are transposed; their shapes say so (experts.py).
QWEN3_VL_MOE = QWEN3_MOE.derive(
    "qwen3-vl-moe",
    gguf_arch="qwen3vlmoe",
    hf_architectures=("Qwen3VLMoeForConditionalGeneration",),
    model_types=("qwen3_vl_moe_text",),
    facts={"deepstack": deepstack},
    metadata=(*QWEN3_MOE.metadata, Entry("n_deepstack_layers", "u32", "deepstack")),
    vocab=VocabHints("qwen3vlmoe"),
)

END = "<|im_end|>"

# No image enters behind the first layers of Qwen3-Omni; its texts begin and end alike.
QWEN3_OMNI_MOE = QWEN3_VL_MOE.derive(
    "qwen3-omni-moe",
    hf_architectures=("Qwen3OmniMoeForConditionalGeneration",),
    model_types=("qwen3_omni_moe_text",),
    facts={"deepstack": 0},
    vocab=VocabHints("qwen3vlmoe", texts={"bos": END, "eos": END}),
)

FAMILIES = (QWEN3_VL_MOE, QWEN3_OMNI_MOE)
