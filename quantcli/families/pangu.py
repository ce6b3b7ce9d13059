"""openPangu-Embedded: a Llama with biases, rotating halves."""

from __future__ import annotations

from quantcli.families import decoder
from quantcli.families.declaration import Family
from quantcli.vocab import VocabHints

PANGU_EMBEDDED = Family(
    name="pangu-embedded",
    gguf_arch="pangu-embedded",
    hf_architectures=("PanguEmbeddedForCausalLM",),
    model_types=("PanguEmbedded",),
    facts={
        **decoder.FACTS,
        "theta": decoder.stated_theta,
        "key_length": lambda facts: facts.head_dim,
        "rope_dims": lambda facts: facts.head_dim,
    },
    metadata=decoder.METADATA + decoder.VOCAB_SIZE + decoder.ROPE_DIMS,
    tensors=decoder.TENSORS,
    vocab=VocabHints("pangu-embedded", prefix_from_config=True),
)

FAMILIES = (PANGU_EMBEDDED,)
