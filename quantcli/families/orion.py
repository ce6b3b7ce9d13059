"""Orion: a Llama with LayerNorm, whose epsilon config.json calls that of an RMS norm."""

from __future__ import annotations

from quantcli.families import decoder
from quantcli.families.baichuan import LAYOUT
from quantcli.families.declaration import Family
from quantcli.families.fields import count
from quantcli.vocab import VocabHints

ORION = Family(
    name="orion",
    gguf_arch="orion",
    hf_architectures=("OrionForCausalLM",),
    model_types=("orion",),
    facts={
        **decoder.FACTS,
        "layout": "Meta AI original pth",
        "context": count("max_sequence_length", "max_position_embeddings", "model_max_length"),
    },
    metadata=LAYOUT + decoder.SIZES + decoder.LAYER_NORM,
    tensors=decoder.TENSORS,
    vocab=VocabHints("orion"),
)

FAMILIES = (ORION,)
