"""Relatives of GPT-2 for code: SantaCoder and StarCoder (one key/value head), CodeShell (rotation), Refact (ALiBi)."""

from __future__ import annotations

from quantcli.families import decoder
from quantcli.families.declaration import Entry, TensorRule
from quantcli.families.facts import Facts
from quantcli.families.fields import count
from quantcli.families.older import GPT2
from quantcli.vocab import VocabHints

BLOCK = "h.{layer}."


def rounded_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def gated_width(facts: Facts) -> int:
    """Two thirds of the usual width, in steps of 256."""
    return rounded_up(int(2 * 4 * facts.hidden / 3), 256)


GPT_BIGCODE = GPT2.derive(
    "gpt-bigcode",
    gguf_arch="starcoder",
    hf_architectures=("GPTBigCodeForCausalLM",),
    model_types=("gpt_bigcode",),
    facts={"kv_heads": 1, "kv": lambda facts: facts.head_dim},
    metadata=decoder.SIZES + decoder.LAYER_NORM,
    tensors=tuple(
        TensorRule(rule.source, rule.target, shape, bias=rule.bias)
        for rule in GPT2.tensors
        for shape in [
            {"attn_qkv": ("hidden+2*kv", "hidden"), "ffn_up": ("ff", "hidden"), "ffn_down": ("hidden", "ff")}.get(
                rule.target.removeprefix("blk.{layer}."), rule.shape
            )
        ]
        if rule not in decoder.HEAD
    )
    + decoder.HEAD,
    vocab=VocabHints("starcoder"),
)

CODESHELL = GPT_BIGCODE.derive(
    "codeshell",
    gguf_arch="codeshell",
    hf_architectures=("CodeShellForCausalLM",),
    model_types=("codeshell",),
    facts={
        "kv_heads": count("num_query_groups", most=decoder.MOST_HEADS),
        "kv": decoder.key_value_width,
        "theta": 10000.0,
        "scaling_type": "linear",
        "scaling_factor": 1.0,
    },
    metadata=decoder.SIZES + decoder.LAYER_NORM + decoder.ROPE,
    tensors=tuple(rule for rule in GPT_BIGCODE.tensors if rule.target != "position_embd"),
    vocab=VocabHints("codeshell"),
)

REFACT = GPT_BIGCODE.derive(
    "refact",
    gguf_arch="refact",
    hf_architectures=("GPTRefactForCausalLM",),
    model_types=("gpt_refact",),
    facts={"ff": gated_width, "kv": lambda facts: facts.head_dim},
    metadata=(*decoder.SIZES, Entry("attention.layer_norm_rms_epsilon", "f32", "eps")),
    tensors=(
        TensorRule("wte", "token_embd", ("vocab", "hidden"), bias="none"),
        *decoder.HEAD,
        TensorRule("ln_f", "output_norm", decoder.VECTOR),
        TensorRule(BLOCK + "ln_1", "blk.{layer}.attn_norm", decoder.VECTOR),
        TensorRule(BLOCK + "attn.q", "blk.{layer}.attn_q", ("q", "hidden")),
        *decoder.divided(
            BLOCK + "attn.kv",
            ("2*kv", "hidden"),
            ("blk.{layer}.attn_k", "0", "kv", None),
            ("blk.{layer}.attn_v", "kv", "2*kv", None),
        ),
        TensorRule(BLOCK + "attn.c_proj", "blk.{layer}.attn_output", ("hidden", "q")),
        TensorRule(BLOCK + "ln_2", "blk.{layer}.ffn_norm", decoder.VECTOR),
        *decoder.divided(
            BLOCK + "mlp.gate_up_proj",
            ("2*ff", "hidden"),
            ("blk.{layer}.ffn_gate", "0", "ff", None),
            ("blk.{layer}.ffn_up", "ff", "2*ff", None),
        ),
        TensorRule(BLOCK + "mlp.c_proj", "blk.{layer}.ffn_down", ("hidden", "ff")),
    ),
    vocab=VocabHints("refact"),
)

FAMILIES = (GPT_BIGCODE, CODESHELL, REFACT)
