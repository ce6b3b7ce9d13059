"""Falcon-H1: attention and a Mamba 2 mixer side by side in every layer; multipliers are folded into the weights."""

from __future__ import annotations

from dataclasses import replace

from quantcli.families import decoder
from quantcli.families.declaration import Family, TensorRule
from quantcli.families.facts import Facts, bad
from quantcli.families.fields import count, real
from quantcli.families.mamba2 import MIXER_FACTS, MIXER_METADATA, mixer
from quantcli.families.transforms import joined, rows, scaled
from quantcli.vocab import VocabHints


def _item(field: str, index: int, length: int) -> object:
    """One number of a list of multipliers; 1 where config.json has none."""

    def multiplier(facts: Facts) -> float:
        given = facts.find(field)
        if given is None:
            return 1.0
        if not isinstance(given, list) or len(given) != length or not all(type(one) in (int, float) for one in given):
            raise bad(field, f"is no list of {length} numbers")
        return float(given[index])

    return multiplier


# Rows of in_proj -> the multiplier of its own that each part has, after the common one.
_PARTS = ("gate", "x", "b", "c", "dt")
_BOUNDS = ("0", "inner", "2*inner", "2*inner+groups*state", "inner+conv", "inner+conv+ssm_heads")
SCALE_IN = joined(
    *(
        rows(start, stop) | scaled("ssm_in", part)
        for part, start, stop in zip(_PARTS, _BOUNDS, _BOUNDS[1:], strict=False)
    )
)
SCALES = {
    "embed_tokens": ("embedding",), "lm_head": ("head",), "self_attn.q_proj": ("attention_in",),
    "self_attn.k_proj": ("key", "attention_in"), "self_attn.v_proj": ("attention_in",),
    "self_attn.o_proj": ("attention_out",), "feed_forward.gate_proj": ("mlp_gate",),
    "feed_forward.down_proj": ("mlp_down",),
}  # fmt: skip


def _scaled(rule: TensorRule) -> TensorRule:
    factors = SCALES.get(rule.source.removeprefix("layers.{layer}."))
    return replace(rule, transform=scaled(*factors)) if factors else rule


FALCON_H1 = Family(
    name="falcon-h1",
    harmless=("mamba_rms_norm",),
    gguf_arch="falcon-h1",
    hf_architectures=("FalconH1ForCausalLM",),
    model_types=("falcon_h1",),
    facts={
        **decoder.FACTS,
        "context": decoder.context(8192),
        "eps": decoder.rms_eps(1e-5),
        "theta": decoder.theta(100000.0),
        "kv_heads": decoder.key_value_heads(8),
        "key_length": decoder.head_dim,
        "inner": count("mamba_d_ssm", default=1024, most=decoder.MOST_WIDTH),
        "state": count("mamba_d_state", default=256, most=decoder.MOST_WIDTH),
        "kernel": count("mamba_d_conv", default=4, most=1024),
        "groups": count("mamba_n_groups", default=1, most=decoder.MOST_HEADS),
        "ssm_width": count("mamba_d_head", default=64, most=decoder.MOST_WIDTH),
        "ssm_heads": lambda facts: facts.quotient("inner", "ssm_width", ("mamba_d_ssm", "mamba_d_head")),
        **MIXER_FACTS,
        "embedding": real("embedding_multiplier", default=1.0),
        "head": real("lm_head_multiplier", default=1.0),
        "attention_in": real("attention_in_multiplier", default=1.0),
        "attention_out": real("attention_out_multiplier", default=1.0),
        "key": real("key_multiplier", default=1.0),
        "ssm_in": real("ssm_in_multiplier", default=1.0),
        "ssm_out": real("ssm_out_multiplier", default=1.0),
        "mlp_gate": _item("mlp_multipliers", 0, 2),
        "mlp_down": _item("mlp_multipliers", 1, 2),
        **{part: _item("ssm_multipliers", index, 5) for index, part in enumerate(_PARTS)},
    },
    metadata=decoder.without_entries(decoder.METADATA, "rope.scaling.type", "rope.scaling.factor")
    + MIXER_METADATA
    + decoder.VOCAB_SIZE,
    tensors=tuple(
        _scaled(rule)
        for rule in (
            *decoder.EMBEDDINGS,
            *decoder.HEAD,
            TensorRule("final_layernorm", "output_norm", decoder.VECTOR),
            decoder.PRE_NORMS[0],
            TensorRule("layers.{layer}.pre_ff_layernorm.weight", "blk.{layer}.ffn_norm", decoder.VECTOR, exact=True),
            *decoder.PROJECTIONS,
            *decoder.OUT_PROJECTION,
            *(replace(one, source=one.source.replace(".mlp.", ".feed_forward.")) for one in decoder.GATED_MLP),
        )
    )
    + mixer("mamba", scale_in=SCALE_IN, scale_out=scaled("ssm_out"), normed=True),
    vocab=VocabHints("falcon-h1"),
)

FAMILIES = (FALCON_H1,)
