"""EuroBERT: a Llama that sees both directions and has no head."""

from __future__ import annotations

from quantcli.families import decoder, pooling
from quantcli.families.declaration import Family
from quantcli.families.dream import NOT_CAUSAL
from quantcli.families.layernorm import ROPE_TYPE
from quantcli.vocab import VocabHints

EUROBERT = Family(
    name="eurobert",
    gguf_arch="eurobert",
    hf_architectures=("EuroBertModel", "JinaEmbeddingsV5Model"),
    model_types=("eurobert",),
    facts={
        **decoder.FACTS,
        "context": decoder.context(8192),
        "eps": decoder.rms_eps(1e-5),
        "theta": decoder.theta(250000.0),
        "causal": False,
        "scaling_name": "none",
        "classifier_pooling": pooling.of_classifier,
    },
    metadata=decoder.SIZES
    + decoder.ROPE[-1:]
    + decoder.RMS
    + decoder.LENGTHS
    + NOT_CAUSAL
    + ROPE_TYPE
    + pooling.CLASSIFIER,
    tensors=tuple(rule for rule in decoder.TENSORS if rule.target != "output"),
    ignored=("lm_head.*", "classifier.*", "dense.*"),
    vocab=VocabHints("eurobert"),
)

FAMILIES = (EUROBERT,)
