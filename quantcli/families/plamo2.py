"""Plamo 2: every second layer is Mamba 2 with the projections of Mamba 1, the others have attention; four norms."""

from __future__ import annotations

from collections.abc import Callable

from quantcli.families import decoder
from quantcli.families.declaration import Entry, Family, TensorRule
from quantcli.families.facts import Facts
from quantcli.families.fields import count, flag
from quantcli.families.mamba2 import MIXER_METADATA
from quantcli.families.transforms import negative_exp, plus, shaped
from quantcli.vocab import VocabHints

LAYER = "layers.layers.{layer}."
MIXER = LAYER + "mixer."
VECTORS = (("D", "d", "ssm_heads"), ("dt_bias", "dt.bias", "ssm_heads"), ("dt_norm_weight", "dt_norm", "step_rank"),
           ("B_norm_weight", "b_norm", "state"), ("C_norm_weight", "c_norm", "state"))  # fmt: skip


def attends(facts: Facts) -> Callable[[int], bool]:
    """One layer of each period has attention; of few layers the last."""
    step, half = facts.step, facts.step // 2
    if facts.layers <= half:
        return lambda layer: not facts.enabled or layer == facts.layers - 1
    return lambda layer: not facts.enabled or layer % step == half


def in_attention(fact: str) -> Callable[[Facts], list[int]]:
    return lambda facts: [facts[fact] if facts.attends(layer) else 0 for layer in range(facts.layers)]


PLAMO2 = Family(
    name="plamo2", harmless=("full_attention_idx",),
    gguf_arch="plamo2",
    hf_architectures=("Plamo2ForCausalLM", "PLaMo2ForCausalLM"),
    model_types=("plamo2",),
    facts={
        "layers": decoder.LAYERS,
        "context": decoder.context(2048),
        "hidden": count("hidden_size", default=4096, most=decoder.MOST_WIDTH),
        "ff": count("intermediate_size", default=13312, most=decoder.MOST_WIDTH),
        "heads": count("num_attention_heads", default=32, most=decoder.MOST_HEADS),
        "kv_heads": count("num_key_value_heads", default=4, most=decoder.MOST_HEADS),
        "head_dim": count("hidden_size_per_head", default=128, most=decoder.MOST_WIDTH),
        "key_length": lambda facts: facts.head_dim,
        "vocab": decoder.VOCAB,
        "eps": decoder.rms_eps(1e-6),
        "theta": decoder.theta(10000.0),
        "q": lambda facts: facts.heads * facts.head_dim,
        "kv": lambda facts: facts.kv_heads * facts.head_dim,
        "step": count("mamba_step", default=2),
        "enabled": flag("mamba_enabled", default=True),
        "attends": attends,
        "scans": lambda facts: lambda layer: not facts.attends(layer),
        "head_layers": in_attention("heads"),
        "kv_layers": in_attention("kv_heads"),
        "state": count("mamba_d_state", default=64, most=decoder.MOST_WIDTH),
        "kernel": count("mamba_d_conv", default=4, most=1024),
        "ssm_heads": count("mamba_num_heads", default=64, most=decoder.MOST_HEADS),
        "inner": lambda facts: facts.ssm_heads * facts.head_dim,
        "step_rank": lambda facts: max(64, facts.hidden // 16),
        "groups": 0,
    },
    metadata=decoder.with_entries(
        decoder.SIZES + decoder.RMS + decoder.LENGTHS,
        Entry("attention.head_count", "i32s", "head_layers"),
        decoder.KV_HEADS_BY_LAYER,
        Entry("rope.freq_base", "f32", "theta"),
        *decoder.VOCAB_SIZE,
        *MIXER_METADATA,
    ),
    tensors=(
        *decoder.EMBEDDINGS,
        TensorRule("lm_head", "output", ("vocab", "hidden"), optional=True),
        TensorRule("norm", "output_norm", decoder.VECTOR, plus(1)),
        TensorRule(LAYER + "pre_mixer_norm", "blk.{layer}.attn_norm", decoder.VECTOR, plus(1)),
        TensorRule(LAYER + "post_mixer_norm.weight", "blk.{layer}.post_attention_norm", decoder.VECTOR, plus(1 / 5),
                   exact=True),
        TensorRule(LAYER + "pre_mlp_norm", "blk.{layer}.ffn_norm", decoder.VECTOR, plus(1)),
        TensorRule(LAYER + "post_mlp_norm.weight", "blk.{layer}.post_ffw_norm", decoder.VECTOR, plus(1 / 5**1.5),
                   exact=True),
        TensorRule(LAYER + "mlp.gate_up_proj", "blk.{layer}.ffn_up", ("2*ff", "hidden")),
        TensorRule(LAYER + "mlp.down_proj", "blk.{layer}.ffn_down", ("hidden", "ff")),
        *decoder.only_in("attends", (
            TensorRule(MIXER + "qkv_proj", "blk.{layer}.attn_qkv", ("q+2*kv", "hidden")),
            TensorRule(MIXER + "o_proj", "blk.{layer}.attn_output", ("hidden", "q")),
            TensorRule(MIXER + "q_weight", "blk.{layer}.attn_q_norm.weight", ("heads", "head_dim"), exact=True),
            TensorRule(MIXER + "k_weight", "blk.{layer}.attn_k_norm.weight", ("kv_heads", "head_dim"), exact=True),
        )),
        *decoder.only_in("scans", (
            TensorRule(MIXER + "A_log", "blk.{layer}.ssm_a", ("ssm_heads",), negative_exp(), exact=True),
            *(TensorRule(MIXER + source, f"blk.{{layer}}.ssm_{target}", (size,), exact=True)
              for source, target, size in VECTORS),
            TensorRule(MIXER + "bcdt_proj", "blk.{layer}.ssm_x", ("2*state+step_rank", "inner")),
            TensorRule(MIXER + "dt_proj", "blk.{layer}.ssm_dt", ("ssm_heads", "step_rank")),
            TensorRule(MIXER + "conv1d", "blk.{layer}.ssm_conv1d", ("inner", 1, "kernel"), shaped("inner", "kernel")),
            TensorRule(MIXER + "in_proj", "blk.{layer}.ssm_in", ("2*inner", "hidden")),
            TensorRule(MIXER + "out_proj", "blk.{layer}.ssm_out", ("hidden", "inner")),
        )),
    ),
    vocab=VocabHints("plamo2"),
)  # fmt: skip

FAMILIES = (PLAMO2,)
