"""Decoders with LayerNorm in Llama-like naming: StableLM, StarCoder2, Phi-2, Command-R, Nemotron."""

from __future__ import annotations

from dataclasses import replace

from quantcli.families import decoder
from quantcli.families.declaration import Entry, Family, TensorRule
from quantcli.families.facts import Facts
from quantcli.families.fields import count, flag, real
from quantcli.families.transforms import plus_one
from quantcli.vocab import VocabHints

BODY = decoder.PRE_NORMS + decoder.PROJECTIONS + decoder.OUT_PROJECTION
ROPE_TYPE = (Entry("rope.scaling.type", "string", "scaling_name"),)

STABLELM = Family(
    name="stablelm",
    gguf_arch="stablelm",
    hf_architectures=("StableLmForCausalLM", "StableLMEpochForCausalLM", "LlavaStableLMEpochForCausalLM"),
    model_types=("stablelm",),
    facts={
        **decoder.FACTS,
        "context": decoder.context(4096),
        "eps": decoder.layer_eps(1e-5),
        "rope_dims": decoder.partial_rotary(0.25),
        "parallel": flag("use_parallel_residual", default=False),
    },
    metadata=decoder.SIZES + decoder.ROPE_DIMS + decoder.PARALLEL_RESIDUAL + decoder.LAYER_NORM,
    tensors=decoder.TOP + BODY + decoder.GATED_MLP,
    vocab=VocabHints("stablelm"),
)

STARCODER2 = STABLELM.derive(
    "starcoder2",
    gguf_arch="starcoder2",
    hf_architectures=("Starcoder2ForCausalLM",),
    model_types=("starcoder2",),
    facts={"kv_heads": decoder.key_value_heads(2)},
    metadata=decoder.SIZES + decoder.ROPE + decoder.LAYER_NORM,
    tensors=decoder.TOP + BODY + decoder.plain_mlp("c_fc", "c_proj"),
    vocab=VocabHints("starcoder2"),
)

# One norm a layer: attention and MLP read it side by side.
PHI2 = STABLELM.derive(
    "phi2",
    gguf_arch="phi2",
    hf_architectures=("PhiForCausalLM",),
    model_types=("phi",),
    facts={
        "context": decoder.context(2048),
        "ff": decoder.four_times_hidden,
        "rope_dims": decoder.partial_rotary(0.5),
    },
    metadata=decoder.SIZES + decoder.LAYER_NORM + decoder.ROPE_DIMS,
    tensors=(
        *decoder.EMBEDDINGS,
        TensorRule("lm_head", "output", ("vocab", "hidden"), optional="headless"),
        TensorRule("final_layernorm", "output_norm", decoder.VECTOR),
        TensorRule("layers.{layer}.self_attn.dense", "blk.{layer}.attn_output", ("hidden", "q")),
        *decoder.plain_mlp("fc1", "fc2"),
        *decoder.PRE_NORMS[:1],
        *decoder.PROJECTIONS,
    ),
    vocab=VocabHints("phi2", add_bos=False),
)

COMMAND_R = STABLELM.derive(
    "cohere",
    gguf_arch="command-r",
    hf_architectures=("CohereForCausalLM",),
    model_types=("cohere",),
    facts={
        "context": count("model_max_length", *decoder.CONTEXT_NAMES, default=8192),
        "logit_scale": real("logit_scale", default=0.0625),
        "scaling_name": "none",
    },
    metadata=decoder.SIZES
    + decoder.ROPE[-1:]
    + decoder.LAYER_NORM
    + (Entry("logit_scale", "f32", "logit_scale"),)
    + ROPE_TYPE,
    tensors=decoder.EMBEDDINGS
    + decoder.FINAL_NORM
    + decoder.PRE_NORMS[:1]
    + decoder.PROJECTIONS
    + (
        TensorRule("layers.{layer}.self_attn.q_norm", "blk.{layer}.attn_q_norm", ("heads", "head_dim"), optional=True),
        TensorRule(
            "layers.{layer}.self_attn.k_norm", "blk.{layer}.attn_k_norm", ("kv_heads", "head_dim"), optional=True
        ),
    )
    + decoder.OUT_PROJECTION
    + decoder.GATED_MLP,
    vocab=VocabHints("command-r"),
)


def nemotron_scaling(facts: Facts) -> str:
    return "linear" if facts.scaling_factor else "none"


# The weight of every norm is stored as the difference to 1, its bias is not.
SHIFTED = tuple(replace(rule, transform=plus_one()) for rule in decoder.FINAL_NORM + decoder.PRE_NORMS)

NEMOTRON = STABLELM.derive(
    "nemotron",
    gguf_arch="nemotron",
    hf_architectures=("NemotronForCausalLM",),
    model_types=("nemotron",),
    facts={"rope_dims": decoder.partial_rotary(0.5), "scaling_name": nemotron_scaling},
    metadata=decoder.SIZES
    + decoder.ROPE[-1:]
    + decoder.RMS
    + decoder.LENGTHS
    + decoder.VOCAB_SIZE
    + decoder.LAYER_NORM
    + decoder.ROPE_DIMS
    + ROPE_TYPE
    + decoder.ROPE[1:2],
    tensors=decoder.EMBEDDINGS
    + decoder.HEAD
    + SHIFTED
    + decoder.PROJECTIONS
    + decoder.OUT_PROJECTION
    + decoder.GATED_MLP[1:],
    vocab=VocabHints("nemotron", ids={"padding": 0, "unknown": 1}),
)

FAMILIES = (STABLELM, STARCODER2, PHI2, COMMAND_R, NEMOTRON)
