"""Maincoder: a Llama with a norm for each head."""

from __future__ import annotations

from quantcli.families import decoder
from quantcli.families.declaration import Entry, Family
from quantcli.vocab import VocabHints

MAINCODER = Family(
    name="maincoder",
    gguf_arch="maincoder",
    hf_architectures=("MaincoderForCausalLM",),
    model_types=("maincoder",),
    facts={**decoder.FACTS, "theta": decoder.stated_theta, "key_length": decoder.given_head_dim},
    metadata=(*decoder.METADATA, Entry("rope.dimension_count", "u32", "key_length")),
    tensors=decoder.TENSORS + decoder.HEAD_NORMS,
    vocab=VocabHints("maincoder"),
)

FAMILIES = (MAINCODER,)
