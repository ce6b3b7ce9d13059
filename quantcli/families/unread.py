"""Keys of config.json that the family did not read: harmless, unknown (a warning), or such that the model would
compute something else than its GGUF architecture does (an error).

Which keys a family reads follows from what it asked of `Config`. ``HARMLESS`` are patterns of keys that change no
tensor and no logit; a family adds its own. ``CHANGING`` are keys that do, each with a test whether its value says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from quantcli import architectures
from quantcli.architectures import Graph
from quantcli.errors import UnsupportedConfig
from quantcli.families.config import Config
from quantcli.families.declaration import Family
from quantcli.families.facts import Facts

MOST_SHOWN = 12  # names in a message

# ---- harmless -----------------------------------------------------------------------------------------------------

HARMLESS = (
    # words about the file, and who wrote it
    "architectures", "model_type", "torch_dtype", "dtype", "transformers_version", "_name_or_path", "auto_map",
    "name", "*_version", "version", "tokenizer_class", "task_specific_params", "problem_type", "custom_pipelines",
    "pipeline_tag", "sentence_transformers*", "prompts", "unsloth*", "axolotl*", "_commit_hash",
    "_attn_implementation*", "language", "quantization_config", "compression_config", "*_quantization_config",
    # training
    "*init*range*", "*initializer*", "*dropout*", "*_pdrop", "*_drop", "*loss*", "*jitter*", "gradient_*",
    "pretraining_*", "training_*", "init_*", "*_init_*", "use_cache", "*_checkpointing",
    "rescale_prenorm_residual", "embedding_fraction", "embedding_initializer_range", "ep_size", "*_seed", "seed",
    "z_loss*", "sparse_pred*", "finetuning_task",
    # how transformers runs it, not what it computes
    "attn_implementation", "attn_impl", "*kernel*_impl*", "use_flash*", "use_fused*", "use_*kernels",
    "use_mambapy", "use_associative_scan", "*chunk_size", "attn_mode", "*_in_fp32", "*_fp32_*", "*_dtype",
    "reorder_and_upcast_attn", "deterministic*", "slow_but_exact", "num_logits_to_keep", "logits_to_keep",
    "output_*", "return_dict", "torchscript", "pruned_heads", "use_bfloat16", "tf_legacy_loss", "fuse_*",
    "fused_*", "bias_dropout_fusion", "*_overlap", "use_cuda*", "softmax_in_fp32", "attn_uses_sequence_id",
    "cache_implementation", "use_liger*", "disable_*", "*_parallel_size", "enable_*_combine",
    # generation
    "max_length", "min_length", "do_sample", "num_beams*", "early_stopping", "temperature", "top_k", "top_p",
    "typical_p", "repetition_penalty", "length_penalty", "no_repeat_ngram_size", "bad_words_ids",
    "num_return_sequences", "diversity_*", "encoder_no_repeat_ngram_size", "forced_*", "remove_invalid_values",
    "exponential_decay*", "suppress_tokens", "begin_suppress_tokens", "prefix", "sep_token", "generation_config",
    "stop_*",
    # tokens: the vocabulary reads them from its own files
    "*_token_id", "*_token_ids", "*_token_index", "*_token_type_id", "*_tokens", "vocab_size", "padded_vocab_size",
    "pad_vocab_size*", "max_tokenizer_truncation", "num_labels", "id2label", "label2id", "max_trained_positions",
    # towers and projectors beside the language model
    "*vision*", "*visual*", "*image*", "*audio*", "*video*", "*speech*", "*_config", "projector*", "multimodal_*",
    "mm_*", "spatial_*", "select_layer", "downsample_ratio", "ps_version", "*dynamic*patch*", "use_thumbnail",
    "template", "scale_factor", "*talker*", "deepstack*", "*processor*", "connector*",
    # whether a tensor is there: the tensors say it
    "*bias", "add_bias_linear", "bias", "no_bias", "*qk_norm*", "qk_layernorm", "qk_ln", "norm_elementwise_affine",
    "learned_pos_emb", "*_affine", "use_*_norm",
    # state-space models: how weights were first drawn
    "time_step_min", "time_step_max", "time_step_floor", "time_step_scale", "time_step_init_scheme",
    "time_step_rank",
    # sizes that tensors have, or other names of what is read
    "n_inner", "expand", "mamba_expand", "expansion_ratio", "num_key_value_heads", "num_attention_heads",
    "multi_query", "group_query_attention", "qk_head_dim", "_sliding_window_pattern", "chunk_size_feed_forward",
    "attn_type", "norm_type", "*_n_heads", "mamba_d_head", "rope_scaling.rope_theta",
    "rope_scaling.partial_rotary_factor", "*hidden_size*", "*intermediate_size*", "head_dim", "max_window_layers",
    "num_hidden_layers", "num_layers", "layer_num", "max_position_embeddings", "seq_length", "model_max_length",
    "n_ctx", "rope_parameters", "is_encoder_decoder", "pooling", "classifier_*", "summary_*", "tie_*",
    "weight_tying", "is_decoder", "*max_context*", "kv_channels",
)  # fmt: skip

# ---- what would change the computation ------------------------------------------------------------------------------

# Names of activation functions -> `Graph.activation`'s, as far as the result differs: llama.cpp has one GELU.
ACTIVATIONS = {
    **dict.fromkeys(("silu", "swish", "swiglu", "silu_and_mul"), "silu"),
    **dict.fromkeys(("gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "gelu_python", "gelu_tanh"), "gelu"),
    "geglu": "gelu", "relu": "relu", "relu2": "relu2", "relu_squared": "relu2", "sqrelu": "relu2", "xielu": "xielu",
}  # fmt: skip
SAME = {"gelu_tanh": "gelu", "swiglu_oai": "silu"}  # of the graph's


class Change(NamedTuple):
    """A key that says something about the computation. ``matters(value, facts, graph)``: whether this value does."""

    key: str
    matters: Callable[[object, Facts, Graph], bool]
    what: str


def _unless(*values: object) -> Callable[[object, Facts, Graph], bool]:
    """Any other value than null and these."""
    return lambda value, facts, graph: value is not None and value not in values


def _other_activation(value: object, facts: Facts, graph: Graph) -> bool:
    named = ACTIVATIONS.get(value) if isinstance(value, str) else None
    return value is not None and named != SAME.get(graph.activation, graph.activation)


def _other_normalization(value: object, facts: Facts, graph: Graph) -> bool:
    return isinstance(value, bool) and value != graph.expert_norm and graph.expert_gating != "softmax_chosen"


def _other_query_scale(value: object, facts: Facts, graph: Graph) -> bool:
    width = facts["hidden"] / facts["heads"] if facts["layers"] == graph.wide_query_layers else facts["head_dim"]
    return isinstance(value, (int, float)) and value != width


def _other_rotating_layers(value: object, facts: Facts, graph: Graph) -> bool:
    period = graph.rope_skip_period
    return isinstance(value, list) and [bool(layer) for layer in value] != [
        not period or (layer + 1) % period != 0 for layer in range(len(value))
    ]


def _kinds_of_layers(value: object, facts: Facts, graph: Graph) -> bool:
    return isinstance(value, list) and any(kind not in ("full_attention", "sliding_attention") for kind in value)


def _other_epsilon(value: object, facts: Facts, graph: Graph) -> bool:
    return isinstance(value, (int, float)) and "eps" in facts and value != facts["eps"]


def _several(value: object, facts: Facts, graph: Graph) -> bool:
    """Not the same rotation in all layers."""
    return isinstance(value, list) and any(base != facts["theta"] for base in value)


_ONE, _OFF = _unless(1, 1.0), _unless(False, 0, 0.0)
WINDOWS = ("sliding_window", "attention_window_size")
ACTIVATION_KEYS = (
    "hidden_act",
    "mlp_hidden_act",
    "dense_act_fn",
    "hidden_activation",
    "activation_function",
    "activation",
    "activation_type",
)

CHANGING = (
    *(Change(key, _other_activation, "the activation function") for key in ACTIVATION_KEYS),
    *(
        Change(key, _ONE, "a factor of the stream")
        for key in ("embedding_multiplier", "residual_multiplier", "scale_emb")
    ),
    *(Change(key, _ONE, "a factor of the logits") for key in ("logits_scaling", "logit_scale", "lm_head_multiplier")),
    *(Change(key, _ONE, "a factor of the scores") for key in ("attention_multiplier", "attention_value_scale")),
    *(
        Change(key, _OFF, "a cap on scores or logits")
        for key in ("attn_logit_softcapping", "final_logit_softcapping", "router_logit_softcapping")
    ),
    *(
        Change(key, _other_epsilon, "the epsilon of the norms")
        for key in ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_eps", "norm_epsilon")
    ),
    Change("routed_scaling_factor", _ONE, "a factor of the experts"),
    Change("moe_layer_freq", _unless(1), "layers without experts"),
    Change("time_step_limit", _unless([0.0, math.inf]), "steps that are cut off"),
    Change("head_size_divisor", _unless(8), "the epsilon of the norms"),
    Change("mamba_norm_before_gate", _OFF, "where the norms are"),
    Change("relative_attention_max_distance", _unless(128), "positions that are told apart"),
    Change(
        "no_rope_layer_interval",
        lambda value, facts, graph: value not in (None, graph.rope_skip_period),
        "which layers rotate",
    ),
    Change("clip_qkv", _OFF, "queries, keys and values that are cut off"),
    Change("query_pre_attn_scalar", _other_query_scale, "the scale of the scores"),
    Change("scale_attn_weights", _unless(True), "scores that are not scaled"),
    Change("scale_attn_by_inverse_layer_idx", _OFF, "scores that are scaled by the layer"),
    Change(
        "mup_scale_qk_dot_by_d",
        lambda value, facts, graph: (value is False) == (graph.attention_scale == "inverse"),
        "the scale of the scores",
    ),
    Change("attn_config.softmax_scale", _unless(), "the scale of the scores"),
    Change("attn_config.prefix_lm", _OFF, "a prefix that sees both ways"),
    Change("alibi", _OFF, "linear biases"),
    Change(
        "position_embedding_type", lambda value, facts, graph: str(value).startswith("relative_"), "relative positions"
    ),
    Change("partial_rotary_factor", _ONE, "the part of a head that rotates"),
    Change("rotary_pct", _ONE, "the part of a head that rotates"),
    Change(
        "rope_interleave", lambda value, facts, graph: value is False and graph.latent, "which elements rotate together"
    ),
    Change("rotary_emb_interleaved", _OFF, "which elements rotate together"),
    Change("layer_rope_theta", _several, "a rotation of its own in some layers"),
    Change("no_rope_layers", _other_rotating_layers, "which layers rotate"),
    Change("layer_types", _kinds_of_layers, "layers of other kinds"),
    Change("attention_chunk_size", _unless(), "attention in chunks"),
    Change(
        "use_bidirectional_attention", lambda value, facts, graph: value is True and graph.causal, "attention both ways"
    ),
    Change("add_cross_attention", _OFF, "attention to an encoder"),
    Change("parallel_attn", _unless(True), "attention and MLP one after the other"),
    Change("use_parallel_block", _unless(True), "attention and MLP one after the other"),
    Change("apply_residual_connection_post_layernorm", _OFF, "where the stream is added"),
    Change("prenorm", _OFF, "where the norms are"),
    Change("mlp_only_layers", _unless([]), "layers without experts"),
    Change("decoder_sparse_step", _unless(1), "layers without experts"),
    Change(
        "norm_topk_prob", _other_normalization, "whether the weights of the chosen experts are divided by their sum"
    ),
    Change(
        "swiglu_limit",
        lambda value, facts, graph: value not in ((7.0,) if graph.activation == "swiglu_oai" else (None, 0)),
        "the cut of the gated unit",
    ),
    Change("norm_head", _OFF, "an output matrix that is normed"),
)


_SAID_ELSEWHERE = ("rope_scaling.rope_type", "tie_word_embeddings")
KNOWN = {*(change.key for change in CHANGING), *WINDOWS, "use_sliding_window"}


def check(family: Family, facts: Facts, where: str) -> list[str]:
    """Remarks on the keys that ``family`` did not read. Raises UnsupportedConfig for those that matter."""
    graph = architectures.find(family.gguf_arch).graph
    unread = dict(facts.config.unread()) if isinstance(facts.config, Config) else {}
    harmless = (*family.harmless, *_idle(facts))
    unread = {key: value for key, value in unread.items() if not _is_harmless(key, harmless)}
    if graph is not None:
        free = {key: value for key, value in unread.items() if key not in family.fixed}
        changing = [*_changing(free, facts, graph), *_not_fixed(family, unread)]
        if changing:
            raise UnsupportedConfig(
                "; ".join(f"{key} is {value!r}: {what}" for key, value, what in changing[:MOST_SHOWN]),
                where=where,
                hint=f"llama.cpp computes {family.gguf_arch} without it, so the file would give other results; "
                "remove the key where it is a leftover",
            )
    notes = _windows(family, facts, unread)
    strange = sorted(key for key in unread if key not in {*KNOWN, *family.fixed} and not _is_harmless(key, HARMLESS))
    if not strange:
        return notes
    shown = ", ".join(strange[:MOST_SHOWN]) + (f" and {len(strange) - MOST_SHOWN} more" * (len(strange) > MOST_SHOWN))
    return [*notes, f"config.json says something that quantcli does not know, and nothing was made of it: {shown}"]


def assumed(family: Family, facts: Facts, stated: object) -> list[str]:
    """What reading a checkpoint of the class ``stated``, which nobody declares, as ``family`` takes for granted."""
    graph = architectures.find(family.gguf_arch).graph
    defaults = [f"{key} = {value}" for key, value in facts.assumed.items() if key not in _SAID_ELSEWHERE]
    taken = f"config.json lacks, and quantcli takes, {', '.join(defaults)}; " if defaults else ""
    if graph is None:
        return [f"{stated} is read as {family.name}: {taken}all else as a file of {family.gguf_arch} computes"]
    rotation = {"norm": "neighbours rotate", "neox": "halves rotate", "none": "no rotation"}[graph.rope]
    return [
        f"{stated} is read as {family.name}: {taken}it is assumed to compute as llama.cpp computes {family.gguf_arch} "
        f"({graph.norm} norms, {rotation}, {graph.mlp} MLP with {graph.activation})"
    ]


def _idle(facts: Facts) -> tuple[str, ...]:
    """The settings of a rope scaling that is not used, or not known (which has a remark of its own)."""
    scales = facts.get("scaling") in ("linear", "yarn", "llama3", "longrope")
    return () if scales else ("rope_scaling.*",)


def _is_harmless(key: str, patterns: Iterable[str]) -> bool:
    """Whether a pattern is that of the dotted name, or of its last part."""
    last = key.rpartition(".")[2]
    return any(_fits(key, pattern) or _fits(last, pattern) for pattern in patterns)


def _fits(text: str, pattern: str) -> bool:
    """Whether ``text`` is ``pattern``, in which * is any text. (fnmatch compiles each: that takes longer.)"""
    first, *others = pattern.split("*")
    if not others:
        return text == pattern
    *middle, last = others
    place = len(first)
    if not text.startswith(first) or not text.endswith(last):
        return False
    for part in middle:
        place = text.find(part, place) + len(part)
        if place < len(part):
            return False
    return place + len(last) <= len(text)


def _windows(family: Family, facts: Facts, unread: Mapping[str, object]) -> list[str]:
    """A remark on windows that llama.cpp does not have."""
    sizes = [size for key in WINDOWS if isinstance(size := unread.get(key), int)]
    used = facts.config.get("use_sliding_window") is not False
    if not sizes or not used or sizes[0] >= (facts.get("context") or 0):
        return []
    text = f"layers see {sizes[0]} positions; llama.cpp has no windows for {family.gguf_arch}: longer texts differ"
    return [text]


def _not_fixed(family: Family, unread: Mapping[str, object]) -> Iterator[tuple[str, object, str]]:
    """Settings that are constants of the GGUF architecture."""
    for key, values in family.fixed.items():
        value = unread.get(key)
        if value is not None and value not in values:
            yield key, value, f"llama.cpp computes with {values[0]!r}"


def _changing(unread: Mapping[str, object], facts: Facts, graph: Graph) -> Iterator[tuple[str, object, str]]:
    for change in CHANGING:
        if change.key in unread and change.matters(unread[change.key], facts, graph):
            yield change.key, unread[change.key], change.what
