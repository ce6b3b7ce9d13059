"""Dream: a Qwen2 that sees both directions and fills in masked tokens."""

from __future__ import annotations

from quantcli.families.declaration import Entry
from quantcli.families.fields import count
from quantcli.families.qwen import QWEN2

NOT_CAUSAL = (Entry("attention.causal", "boolean", "causal"),)
MASK_TOKEN = (Entry("tokenizer.ggml.mask_token_id", "u32", "mask_token"),)

DREAM = QWEN2.derive(
    "dream",
    gguf_arch="dream",
    hf_architectures=("DreamModel",),
    model_types=("Dream",),
    facts={"causal": False, "mask_token": count("mask_token_id", default=None, least=0)},
    metadata=QWEN2.metadata + NOT_CAUSAL + MASK_TOKEN,
)

FAMILIES = (DREAM,)
