"""Metadata below an architecture's name: what a forward pass reads, what changes nothing, what must not be there.

The converter copies every entry of a file; the runner computes only what it reads. So an entry that no declaration
mentions is refused instead of being passed over: the result would look plausible and be wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from quantcli.architectures.architecture import Architecture, Graph

# ---- what is read, by the part of the graph that reads it. "Experts" and below are stated by the architectures.

SIZES = (
    "block_count", "context_length", "embedding_length", "attention.head_count", "attention.head_count_kv",
    "attention.key_length", "attention.value_length", "attention.causal", "pooling_type", "feed_forward_length",
    "nextn_predict_layers",
)  # fmt: skip
EPSILON = {"rms": "attention.layer_norm_rms_epsilon", "layer": "attention.layer_norm_epsilon"}
ROPE = (
    "rope.dimension_count", "rope.freq_base", "rope.scaling.type", "rope.scaling.factor", "rope.scaling.attn_factor",
    "rope.scaling.original_context_length", "rope.scaling.yarn_ext_factor", "rope.scaling.yarn_attn_factor",
    "rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow",
)  # fmt: skip
WINDOW = ("attention.sliding_window", "attention.sliding_window_pattern")
WINDOW_ROPE = ("rope.freq_base_swa",)
EXPERTS = ("expert_count", "expert_used_count", "leading_dense_block_count")
ROUTING = (
    "expert_gating_func", "expert_weights_norm", "expert_weights_scale", "expert_group_count",
    "expert_group_used_count",
)  # fmt: skip
LATENT = (
    "attention.q_lora_rank", "attention.kv_lora_rank", "attention.key_length_mla", "attention.value_length_mla",
    "rope.dimension_count", "rope.scaling.yarn_log_multiplier",
)  # fmt: skip
INDEXER = tuple(f"attention.indexer.{part}" for part in ("head_count", "key_length", "top_k", "types"))
LAYER_INPUTS = (
    "embedding_length_per_layer_input", "attention.shared_kv_layers", "attention.key_length_swa",
    "attention.value_length_swa", "rope.dimension_count_swa",
)  # fmt: skip
LIMITS = ("swiglu_clamp_exp", "swiglu_clamp_shexp")
STREAMS = ("altup.num_inputs", "altup.active_idx", "activation_sparsity_scale")
MULTIPLIERS = ("attention.scale", "embedding_scale", "residual_scale", "logit_scale")
SOFT_CAPS = ("attn_logit_softcapping", "final_logit_softcapping")
PARALLEL_RESIDUAL = ("use_parallel_residual",)
_HEADS = ("ssm.conv_kernel", "ssm.inner_size", "ssm.state_size", "ssm.time_step_rank", "ssm.group_count")
STATES: Mapping[str, tuple[str, ...]] = {
    "mamba": (*_HEADS[:4], "ssm.dt_b_c_rms"),
    "mamba2": _HEADS,
    "plamo2": _HEADS,
    "delta": _HEADS,
    "short_convolution": ("shortconv.l_cache",),
    "kimi_delta": ("ssm.conv_kernel", "kda.head_dim"),
    "rwkv6": ("wkv.head_size", "rescale_every_n_layers", "time_mix_extra_dim", "time_decay_extra_dim"),
    "rwkv7": (
        "wkv.head_size", "attention.decay_lora_rank", "attention.iclr_lora_rank",
        "attention.value_residual_mix_lora_rank", "attention.gate_lora_rank",
    ),
}  # fmt: skip
LISTED = ("attention.recurrent_layers", "full_attention_interval")
CLAMP = ("attention.clamp_kqv",)
LOG_MULTIPLIER = ("rope.scaling.yarn_log_multiplier",)
TEMPERATURE = ("attention.temperature_scale",)
CLASSIFIER = ("classifier.pooling_type",)
ALIBI = ("attention.max_alibi_bias",)

# ---- what changes no logit: sizes that the tensors have too, and words about how the file was made.

HARMLESS = (
    "vocab_size", "expert_feed_forward_length", "expert_shared_feed_forward_length",
    "expert_shared_count", "tensor_data_layout", "classifier.output_labels",
    "rope.dimension_sections",  # every position of a text is the same in all sections
)  # fmt: skip

# Values that turn off what their key is about: there the entry says no more than its absence.
OFF: Mapping[str, tuple[object, ...]] = {
    "attention.clamp_kqv": (0.0,),
    "attention.max_alibi_bias": (0.0,),
    "attention.sliding_window": (0,),
    "attn_logit_softcapping": (0.0,),
    "final_logit_softcapping": (0.0,),
    "expert_count": (0,),
    "expert_used_count": (0,),
    "expert_group_count": (0, 1),
    "expert_group_used_count": (0, 1),
    "leading_dense_block_count": (0,),
    "nextn_predict_layers": (0,),
    "rope.scaling.finetuned": (True,),
}


@cache
def read_by(architecture: Architecture) -> frozenset[str]:
    """The keys that the forward pass of ``architecture`` reads; none where it has no graph."""
    graph = architecture.graph
    return frozenset(architecture.reads + _implied(graph)) if graph else frozenset()


def _implied(graph: Graph) -> tuple[str, ...]:
    """What the graph's own flags read."""
    rope = ROPE if graph.rope != "none" else ()
    window = WINDOW + (WINDOW_ROPE if rope else ()) if graph.window_period else ()
    classifier = CLASSIFIER if graph.classifier else ()
    alibi = ALIBI if graph.alibi is not None else ()
    states = STATES[graph.recurrent] if graph.recurrent else ()
    listed = LISTED if graph.recurrent_layers == "listed" else ()
    switch = ("rope.scaling.finetuned",) if graph.rope_switch else ()
    parts = (
        (graph.latent, LATENT),
        (graph.indexer, INDEXER),
        (graph.layer_inputs, LAYER_INPUTS),
        (graph.streams, STREAMS),
        (bool(graph.limited), LIMITS),
    )
    more = (key for there, own in parts if there for key in own)
    return (*SIZES, EPSILON[graph.norm], *rope, *window, *classifier, *alibi, *states, *listed, *switch, *more)


def unread(architecture: Architecture, entries: Mapping[str, object]) -> list[str]:
    """Those of ``entries`` (key without the architecture's name -> value) that may change what is computed and that
    its forward pass does not read."""
    known = read_by(architecture) | {*HARMLESS, *architecture.harmless}
    return [key for key, value in entries.items() if key not in known and not _off(key, value)]


def _off(key: str, value: object) -> bool:
    """Whether the entry says what its absence would; numbers of arrays do not."""
    return isinstance(value, (bool, int, float)) and value in OFF.get(key, ())
