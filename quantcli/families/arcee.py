"""Arcee (AFM): a Llama with squared ReLU and no gate."""

from __future__ import annotations

from quantcli.families import decoder
from quantcli.families.llama import LLAMA

ARCEE = LLAMA.derive(
    "arcee",
    harmless=("mscale",),
    gguf_arch="arcee",
    hf_architectures=("ArceeForCausalLM",),
    model_types=("arcee",),
    facts={"context": decoder.context(4096), "eps": decoder.rms_eps(1e-5)},
    tensors=decoder.PERMUTED_TENSORS[:-3] + decoder.GATED_MLP[1:],
)

FAMILIES = (ARCEE,)
