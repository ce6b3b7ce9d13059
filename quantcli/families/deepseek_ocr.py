"""Text part of DeepSeek-OCR and Unlimited-OCR: DeepSeek's experts with plain attention (``use_mla`` false)."""

from __future__ import annotations

from quantcli.families import decoder, mixture
from quantcli.families.declaration import Family
from quantcli.families.facts import Facts
from quantcli.families.fields import count, flag
from quantcli.vocab import VocabHints

TEMPLATE = "{% for m in messages %}{{m['content']}}{% endfor %}"
WINDOWS = (count("sliding_window_size", default=0, least=0), count("sliding_window", default=0, least=0))


def window(facts: Facts) -> int | None:
    """Written and not used by llama.cpp: the first of two names that is not 0."""
    return facts.read(WINDOWS[0]) or facts.read(WINDOWS[1]) or None


DEEPSEEK_OCR = Family(
    name="deepseek-ocr",
    gguf_arch="deepseek2-ocr",
    hf_architectures=("DeepseekOCRForCausalLM", "UnlimitedOCRForCausalLM"),
    model_types=("deepseekocr",),
    facts={
        **decoder.FACTS,
        **mixture.FACTS,
        "weights_norm": lambda facts: facts.read(flag("norm_topk_prob", default=False)) or None,
        "rope_dims": count("qk_rope_head_dim", default=0, least=0, most=decoder.MOST_WIDTH),
        "window": window,
    },
    metadata=decoder.METADATA
    + mixture.COUNTS
    + mixture.LEADING
    + decoder.VOCAB_SIZE
    + mixture.WIDTH
    + mixture.SHARED
    + mixture.WEIGHTS
    + decoder.ROPE_DIMS
    + decoder.WINDOW,
    tensors=decoder.TOP
    + decoder.PRE_NORMS
    + decoder.PROJECTIONS
    + decoder.OUT_PROJECTION
    + mixture.DENSE_MLP
    + mixture.routed(),
    ignored=("sam_model.*", "qwen2_model.*", "view_seperator", "image_newline"),
    vocab=VocabHints("deepseek2-ocr"),
)

FAMILIES = (DEEPSEEK_OCR,)
