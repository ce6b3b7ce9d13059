"""gpt-oss: attention sinks, windows on every other layer, experts with gate and up rows interleaved (even, odd).

The released weights pack the experts as MXFP4 (sources/packed/mxfp4.py); they are copied without loss.
"""

from __future__ import annotations

from quantcli.families import decoder
from quantcli.families.declaration import Entry, Family, TensorRule
from quantcli.families.fields import count
from quantcli.families.transforms import Transform, regrouped, shaped, transposed
from quantcli.vocab import VocabHints

EXPERTS = "layers.{layer}.mlp.experts."


def every_second(first: int) -> Transform:
    """Even rows are gate, odd rows are up."""
    return regrouped(("experts", "expert_ff", 2), pick={2: (first, first + 1, 1)})


def gate_or_up(kind: str, first: int) -> tuple[TensorRule, ...]:
    """Weight [in, 2 * out] and bias of gate or up, which share their tensors."""
    weight, bias = f"blk.{{layer}}.ffn_{kind}_exps.weight", f"blk.{{layer}}.ffn_{kind}_exps.bias"
    return (
        TensorRule(
            EXPERTS + "gate_up_proj", weight, ("experts", "hidden", "2*expert_ff"),
            transposed() | every_second(first) | shaped("experts", "expert_ff", "hidden"), exact=True,
        ),
        TensorRule(
            EXPERTS + "gate_up_proj_bias", bias, ("experts", "2*expert_ff"),
            shaped("experts*2*expert_ff", 1) | every_second(first) | shaped("experts", "expert_ff"), exact=True,
        ),
    )  # fmt: skip


DOWN = (
    TensorRule(
        EXPERTS + "down_proj", "blk.{layer}.ffn_down_exps.weight", ("experts", "expert_ff", "hidden"),
        transposed(), exact=True,
    ),
    TensorRule(EXPERTS + "down_proj_bias", "blk.{layer}.ffn_down_exps.bias", ("experts", "hidden"), exact=True),
)  # fmt: skip

GPT_OSS = Family(
    name="gpt-oss",
    harmless=(
        "initial_context_length",
        "truncate",
        "swiglu_alpha",
    ),
    gguf_arch="gpt-oss",
    hf_architectures=("GptOssForCausalLM",),
    model_types=("gpt_oss",),
    facts={
        **decoder.FACTS,
        "context": decoder.context(131072),
        "kv_heads": decoder.key_value_heads(8),
        "eps": decoder.rms_eps(1e-5),
        "theta": decoder.theta(150000.0),
        "head_dim": count("head_dim", default=64, most=decoder.MOST_WIDTH),
        "key_length": lambda facts: facts.head_dim,
        **decoder.EXPERT_FACTS,
        "expert_ff": lambda facts: facts.ff,
        "window": count("sliding_window", default=128),
    },
    metadata=decoder.METADATA
    + decoder.EXPERT_COUNTS
    + decoder.WINDOW
    + (Entry("expert_feed_forward_length", "u32", "expert_ff"),),
    tensors=(
        *decoder.TOP,
        TensorRule("layers.{layer}.input_layernorm", "blk.{layer}.attn_norm", decoder.VECTOR),
        TensorRule("layers.{layer}.post_attention_layernorm", "blk.{layer}.post_attention_norm", decoder.VECTOR),
        TensorRule("layers.{layer}.self_attn.sinks", "blk.{layer}.attn_sinks.weight", ("heads",), exact=True),
        *decoder.PROJECTIONS,
        *decoder.OUT_PROJECTION,
        *decoder.router("mlp.router"),
        *DOWN,
        *gate_or_up("gate", 0),
        *gate_or_up("up", 1),
    ),
    vocab=VocabHints("gpt-oss"),
)

FAMILIES = (GPT_OSS,)
