"""Jais: GPT-2 with linear biases and a gated MLP; the maximal update's factors are multiplied into the weights."""

from __future__ import annotations

from quantcli.families import decoder
from quantcli.families.declaration import Entry, TensorRule
from quantcli.families.facts import Facts, bad
from quantcli.families.fields import real
from quantcli.families.older import GPT2, NO_KV_HEADS
from quantcli.families.transforms import scaled, transposed
from quantcli.vocab import VocabHints


def head_factor(facts: Facts) -> float:
    """What the output matrix is multiplied by."""
    alpha, width = (facts.read(real(name, default=None)) for name in ("mup_output_alpha", "mup_width_scale"))
    if alpha is not None and width is not None:
        return float(alpha * width)
    plain: float | None = facts.read(real("width_scale", default=None))
    if plain is None:
        raise bad("width_scale", "is missing (or mup_output_alpha and mup_width_scale)")
    return plain


FACTORS = {"token_embd": scaled("embedding_factor"), "output": scaled("head_factor")}

JAIS = GPT2.derive(
    "jais",
    gguf_arch="jais",
    hf_architectures=("JAISLMHeadModel",),
    model_types=("jais",),
    facts={
        "ff": decoder.FEED_FORWARD,
        "alibi": 8.0,
        "embedding_factor": real("mup_embeddings_scale", "embeddings_scale"),
        "head_factor": head_factor,
    },
    metadata=(*NO_KV_HEADS, *decoder.LAYER_NORM, Entry("attention.max_alibi_bias", "f32", "alibi")),
    tensors=(
        *(
            TensorRule(rule.source, rule.target, rule.shape, FACTORS.get(rule.target, rule.transform),
                       bias=rule.bias, bias_axis=rule.bias_axis)
            for rule in GPT2.tensors
            if rule.target != "position_embd"
        ),
        TensorRule("h.{layer}.mlp.c_fc2", "blk.{layer}.ffn_gate", ("hidden", "ff"), transposed(), bias_axis=-1),
    ),
    ignored=("h.*.attn.bias", "relative_pe.slopes"),
    vocab=VocabHints("jais"),
)  # fmt: skip

FAMILIES = (JAIS,)
