"""MiniCPM: a Llama with three multipliers: of embeddings, of every sum, of logits."""

from __future__ import annotations

from quantcli.families import decoder
from quantcli.families.declaration import Family
from quantcli.families.fields import count, real
from quantcli.families.granite import MULTIPLIERS
from quantcli.families.phi3 import factors
from quantcli.vocab import VocabHints

MINICPM = Family(
    name="minicpm",
    gguf_arch="minicpm",
    hf_architectures=("MiniCPMForCausalLM",),
    model_types=("minicpm",),
    facts={
        **decoder.FACTS,
        "theta": real(*decoder.THETA_NAMES, default=None, least=1e-6),
        "rope_dims": lambda facts: facts.hidden // facts.heads,
        "embedding_scale": real("scale_emb", default=1.0),
        "residual_scale": lambda facts: facts.read(real("scale_depth", default=1.0)) / facts.layers**0.5,
        "logit_scale": lambda facts: facts.hidden / facts.read(count("dim_model_base", default=facts.hidden)),
    },
    metadata=decoder.METADATA + MULTIPLIERS[1:],
    tensors=decoder.PERMUTED_TENSORS,
    extras=(factors("long"), factors("short")),
    vocab=VocabHints("minicpm"),
)

FAMILIES = (MINICPM,)
