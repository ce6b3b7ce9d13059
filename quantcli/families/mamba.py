"""Mamba: no attention; the state matrix is stored as a logarithm."""

from __future__ import annotations

from quantcli.families import decoder
from quantcli.families.declaration import Entry, Family, TensorRule
from quantcli.families.facts import Facts
from quantcli.families.fields import count
from quantcli.families.transforms import negative_exp, shaped
from quantcli.vocab import VocabHints

MIXER = "layers.{layer}.mixer."


def step_rank(facts: Facts) -> int:
    """Width of the step-size projection; "auto" is ceil(hidden / 16)."""
    if facts.config.get("time_step_rank", "auto") == "auto":
        return -(-facts.size("hidden") // 16)
    rank: int = facts.read(count("time_step_rank", most=decoder.MOST_WIDTH))
    return rank


MAMBA = Family(
    name="mamba",
    gguf_arch="mamba",
    hf_architectures=("MambaForCausalLM", "FalconMambaForCausalLM"),
    model_types=("mamba",),
    facts={
        "layers": decoder.LAYERS,
        "context": 2**20,
        "hidden": count("hidden_size", "d_model", most=decoder.MOST_WIDTH),
        "zero": 0,
        "vocab": decoder.VOCAB,
        "tokens": lambda facts: -(-facts.vocab // 8) * 8,
        "eps": decoder.layer_eps(1e-5),
        "twice": lambda facts: 2 * facts.hidden,
        "inner": count("intermediate_size", "d_inner", default="=twice", most=decoder.MOST_WIDTH),
        "state": count("state_size", "d_state", default=16, most=decoder.MOST_WIDTH),
        "kernel": count("conv_kernel", "d_conv", default=4, most=1024),
        "rank": step_rank,
        "normed": lambda facts: facts.config.get("model_type") == "falcon_mamba",
    },
    metadata=(
        Entry("context_length", "u32", "context"),
        Entry("embedding_length", "u32", "hidden"),
        Entry("feed_forward_length", "u32", "zero"),
        Entry("attention.head_count", "u32", "zero"),
        Entry("block_count", "u32", "layers"),
        Entry("ssm.conv_kernel", "u32", "kernel"),
        Entry("ssm.inner_size", "u32", "inner"),
        Entry("ssm.state_size", "u32", "state"),
        Entry("ssm.time_step_rank", "u32", "rank"),
        *decoder.RMS,
        Entry("ssm.dt_b_c_rms", "boolean", "normed"),
    ),
    tensors=(
        TensorRule("embeddings", "token_embd", ("vocab", "hidden"), bias="none"),
        TensorRule("lm_head", "output", ("vocab", "hidden"), bias="none", optional=True),
        TensorRule("norm_f", "output_norm", decoder.VECTOR, bias="none"),
        TensorRule("layers.{layer}.norm", "blk.{layer}.attn_norm", decoder.VECTOR, bias="none"),
        TensorRule(MIXER + "A_log", "blk.{layer}.ssm_a", ("inner", "state"), negative_exp(), exact=True),
        TensorRule(MIXER + "D", "blk.{layer}.ssm_d", ("inner",), exact=True),
        TensorRule(
            MIXER + "conv1d",
            "blk.{layer}.ssm_conv1d",
            ("inner", 1, "kernel"),
            shaped("inner", "kernel"),
            bias="required",
        ),
        TensorRule(MIXER + "dt_proj", "blk.{layer}.ssm_dt", ("inner", "rank"), bias="required"),
        TensorRule(MIXER + "in_proj", "blk.{layer}.ssm_in", ("2*inner", "hidden")),
        TensorRule(MIXER + "out_proj", "blk.{layer}.ssm_out", ("hidden", "inner")),
        TensorRule(MIXER + "x_proj", "blk.{layer}.ssm_x", ("rank+2*state", "inner")),
    ),
    copies={"lm_head.weight": "embeddings.weight"},
    prefixes=("backbone.",),
    vocab=VocabHints("mamba"),
)

FAMILIES = (MAMBA,)
