"""Which tensor feeds which in a layer, as the graph says: what shares an input, and what may be rescaled exactly.

Names are those of GGUF without ``blk.N.`` and ``.weight``. Matrices that read the same vector can be rounded, observed
or merged together; a factor on a channel of what feeds them can be taken out of their columns (AWQ and its kind).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

from quantcli.architectures.architecture import Graph

Through = Literal["norm", "attention", "product", "activation"]


@dataclass(frozen=True, slots=True)
class Feed:
    """``matrices`` read one vector, which comes from the output channels of ``source`` (None: the residual stream).

    ``through`` is what lies between. Behind a "norm" the source is its weight (and bias): channel i is column i.
    "attention": rows of the values are mixed over positions; row i of key/value head g is column i of every head that
    shares g. "product": rows are multiplied by the activated gate. Behind an "activation" nothing can be rescaled.
    Where rows of several matrices lie in one ("attn_qkv", a fused "ffn_up"), the source is their last part.
    """

    source: str | None
    matrices: tuple[str, ...]
    through: Through

    @property
    def exact(self) -> bool:
        """Whether a factor on a channel of the source can be taken out of the matrices' columns."""
        return self.source is not None and self.through != "activation"


_FUSED, _APART = ("attn_qkv",), ("attn_q", "attn_k", "attn_v")


def attention_inputs(graph: Graph, has: Callable[[str], bool]) -> tuple[str, ...]:
    """The matrices that make queries, keys and values: in one or apart, as the layer has them."""
    return _FUSED if has(*_FUSED) or (graph.fused_qkv and not has(_APART[0])) else _APART


def mlp_inputs(graph: Graph, suffix: str = "") -> tuple[str, ...]:
    """The matrices that read the MLP's input; stacked experts ("_exps") always have both."""
    gated = graph.gated_experts if suffix == "_exps" else graph.mlp == "gated"
    return tuple(f"ffn_{kind}{suffix}" for kind in (("gate", "up") if gated else ("up",)))


def feeds(graph: Graph, has: Callable[[str], bool]) -> list[Feed]:
    """The feeds of one layer of a decoder; ``has`` says whether the layer has a tensor of this name."""
    state, mlp = _state_readers(graph, has), _mlp_readers(graph, has)
    alone = state is not None and graph.recurrent_layers != "beside"
    attention = () if alone else _attention_readers(graph, has)
    weighted = graph.pre_norm and graph.norm_weights
    first = "attn_norm" if weighted else None
    if graph.parallel and not has(graph.second_norm):
        inputs = [Feed(first, attention + mlp, "norm")]
    else:
        second = graph.second_norm if weighted and graph.second_norm not in graph.bare_norms else None
        inputs = [Feed(first, attention + (state or ()), "norm"), Feed(second, mlp, "norm")]
    inputs = [feed for feed in inputs if feed.matrices]
    mixes = (
        attention
        and "attn_kv_a_mqa" not in attention
        and (not graph.gaps or has(attention[-1]))
        and attention[-1] != "attn_output"
    )
    mixed = [Feed(attention[-1], ("attn_output",), "attention")] if mixes else []
    widths = [suffix for suffix in _suffixes(has) if has(f"ffn_down{suffix}")]
    if graph.inner_norm:
        return [*inputs, Feed("attn_sub_norm", ("attn_output",), "norm"), Feed("ffn_sub_norm", ("ffn_down",), "norm")]
    return [
        *inputs,
        *_latent_feeds(graph, has),
        *mixed,
        *(Feed(f"ffn_up{suffix}", (f"ffn_down{suffix}",), _inside(graph, suffix)) for suffix in widths),
    ]


def _suffixes(has: Callable[[str], bool]) -> tuple[str, ...]:
    return ("_exps", "_shexp") if has("ffn_gate_inp") else ("",)


_LATENT_READERS = ("attn_q_a", "attn_q", "attn_kv_a_mqa", "indexer.attn_k", "indexer.proj")  # of attention's input
_LATENT_QUERIES = ("attn_q_b", "indexer.attn_q_b")


def _latent_feeds(graph: Graph, has: Callable[[str], bool]) -> list[Feed]:
    """What reads the normed vector that queries of latent attention are made of."""
    found = tuple(name for name in _LATENT_QUERIES if graph.latent and has(name))
    return [Feed("attn_q_a_norm", found, "norm")] if found else []


_STATE_MARKS = ("ssm_out", "ssm_beta", "shortconv.out_proj", "time_mix_output")  # what only layers with a state have
_STATE_INPUTS: Mapping[str, tuple[str, ...]] = {
    "mamba": ("ssm_in",), "mamba2": ("ssm_in",), "plamo2": ("ssm_in",), "short_convolution": ("shortconv.in_proj",),
    "delta": ("attn_qkv", "attn_gate", "ssm_ba", "ssm_alpha", "ssm_beta"),
    "kimi_delta": ("attn_q", "attn_k", "attn_v", "ssm_f_a", "ssm_g_a", "ssm_beta"),
}  # fmt: skip


def _state_readers(graph: Graph, has: Callable[[str], bool]) -> tuple[str, ...] | None:
    """What reads the normed stream in a layer with a state (nothing as it is in RWKV); None in others."""
    if graph.recurrent is None or not any(map(has, _STATE_MARKS)):
        return None
    return tuple(name for name in _STATE_INPUTS.get(graph.recurrent, ()) if has(name))


def _attention_readers(graph: Graph, has: Callable[[str], bool]) -> tuple[str, ...]:
    """Everything that reads attention's input: one matrix in its place, or nothing, in layers with a gap."""
    if graph.latent and has("attn_kv_a_mqa"):
        return tuple(name for name in _LATENT_READERS if has(name))
    found = attention_inputs(graph, has)
    if (graph.gaps or graph.recurrent) and not has(found[-1]):
        return ("attn_output",) if has("attn_output") else ()
    return (*(["attn_gate"] if graph.attention_gate and has("attn_gate") else []), *found)


def _mlp_readers(graph: Graph, has: Callable[[str], bool]) -> tuple[str, ...]:
    """Everything that reads the MLP's input, router first."""
    names = ("ffn_gate_inp_shexp",) if graph.early_router else ("ffn_gate_inp", "ffn_gate_inp_shexp")
    routers = tuple(name for name in names if has(name))
    return routers + tuple(name for suffix in _suffixes(has) for name in mlp_inputs(graph, suffix) if has(name))


def _inside(graph: Graph, suffix: str) -> Through:
    """What lies between the MLP's upper matrix and the lower one."""
    single = not graph.gated_experts if suffix == "_exps" else graph.mlp == "plain"
    return "activation" if single or graph.activation == "swiglu_oai" else "product"


# ---- what is read at all ---------------------------------------------------------------------------------------

_SCAN = ("ssm_in.weight", "ssm_conv1d.weight", "ssm_conv1d.bias", "ssm_a", "ssm_d", "ssm_dt.bias", "ssm_out.weight")
_STEP = ("ssm_x.weight", "ssm_dt.weight", "ssm_dt_norm.weight", "ssm_b_norm.weight", "ssm_c_norm.weight")
_MIXED = ("key.weight", "receptance.weight", "value.weight", "output.weight", "ln.weight", "ln.bias", "w1.weight",
          "w2.weight", "lerp_fused.weight")  # fmt: skip
_RWKV = (*(f"time_mix_{name}" for name in _MIXED), "channel_mix_key.weight", "channel_mix_value.weight",
         "channel_mix_lerp_k.weight")  # fmt: skip
_KIMI = tuple(f"ssm_{name}.weight" for name in (
    "conv1d_q", "conv1d_k", "conv1d_v", "f_a", "f_b", "g_a", "g_b", "beta", "norm",
))  # fmt: skip
#: tensors of layers with a state, by `Graph.recurrent`
STATES: Mapping[str, tuple[str, ...]] = {
    "mamba": (*_SCAN, *_STEP),
    "mamba2": (*_SCAN, "ssm_norm.weight"),
    "plamo2": (*_SCAN, *_STEP),
    "short_convolution": ("shortconv.conv.weight", "shortconv.in_proj.weight", "shortconv.out_proj.weight"),
    "delta": (
        "attn_qkv.weight", "attn_gate.weight", "ssm_ba.weight", "ssm_alpha.weight", "ssm_beta.weight", "ssm_a",
        "ssm_dt.bias", "ssm_conv1d.weight", "ssm_norm.weight", "ssm_out.weight",
    ),
    "kimi_delta": (*_KIMI, "ssm_a", "ssm_dt.bias"),
    "rwkv6": (
        *_RWKV, "time_mix_gate.weight", "time_mix_decay.weight", "time_mix_decay_w1.weight",
        "time_mix_decay_w2.weight", "time_mix_first.weight", "time_mix_lerp_x.weight", "channel_mix_receptance.weight",
        "channel_mix_lerp_r.weight",
    ),
    "rwkv7": (*_RWKV, *(f"time_mix_{name}.weight" for name in (
        "w0", "a0", "a1", "a2", "v0", "v1", "v2", "g1", "g2", "k_a", "k_k", "r_k",
    ))),
}  # fmt: skip

BIAS_NAMES = ("exp_probs_b.bias", "exp_probs_b")  # of the router's bias
_LATENT = tuple(f"{name}.weight" for name in (
    "attn_q_a", "attn_q_a_norm", "attn_q_b", "attn_q", "attn_kv_a_mqa", "attn_kv_a_norm", "attn_k_b", "attn_v_b",
    "attn_kv_b",
))  # fmt: skip
_INDEXER = (*(f"indexer.{name}.weight" for name in ("attn_q_b", "attn_k", "proj", "k_norm")), "indexer.k_norm.bias")
_LAYER_INPUTS = tuple(f"{name}.weight" for name in (
    "per_layer_token_embd", "per_layer_model_proj", "per_layer_proj_norm", "inp_gate", "proj", "post_norm",
    "layer_output_scale", "post_ffw_norm_1", "post_ffw_norm_2", "pre_ffw_norm_2",
))  # fmt: skip
_STREAMS = tuple(f"{name}.weight" for name in (
    "altup_proj", "altup_unembd_proj", "altup_router", "altup_router_norm", "altup_predict_coef", "altup_correct_coef",
    "altup_correct_scale", "laurel_l", "laurel_r", "laurel_post_norm",
))  # fmt: skip
HARMLESS = ("attn_rot_embd.weight",)  # tables of angles in old files: computed anew


@cache
def tensors_read(graph: Graph) -> frozenset[str]:
    """Names (in a layer without ``blk.N.``) of all tensors that the forward pass of this graph may read."""
    matrices = [*_FUSED, *_APART, "attn_output", "ffn_gate_inp", "output"]
    matrices += [name for suffix in ("", "_exps", "_shexp") for name in mlp_inputs(graph, suffix)]
    matrices += [f"ffn_down{suffix}" for suffix in ("", "_exps", "_shexp")]
    norms = [graph.final_norm] if graph.norm_weights and graph.final_norm else []
    norms += ["token_embd_norm"] if graph.embedding_norm else []
    norms += ["attn_norm", graph.second_norm] if graph.pre_norm and graph.norm_weights else []
    norms += [graph.attention_post_norm, "post_ffw_norm"] if graph.post_norm else []
    norms += ["attn_output_norm", "attn_norm_2", "layer_output_norm"] if graph.sum_norm else []
    norms += ["attn_sub_norm", "ffn_sub_norm"] if graph.inner_norm else []
    norms += ["attn_q_norm", "attn_k_norm"] if graph.qk_norm else []
    found = {"token_embd.weight", *BIAS_NAMES, *HARMLESS}
    matrices += ["cls", "cls.output"] if graph.classifier else []
    norms += ["cls.norm"] if graph.classifier else []
    found |= {f"{name}.weight" for name in matrices + norms}
    found |= {f"{name}.bias" for name in (matrices + norms if graph.norm == "layer" or graph.norm_bias else matrices)}
    tables = {
        "position_embd.weight": graph.learned_positions,
        "token_types.weight": graph.token_types,
        "attn_sinks.weight": graph.sinks,
        "attn_gate.weight": graph.attention_gate is not None,
        "ffn_gate_up_exps.weight": graph.layer_inputs,
        "ffn_gate_inp.scale": graph.layer_inputs,
        "ffn_down_exps.scale": graph.layer_inputs,
        "ffn_gate_inp_shexp.weight": graph.shared_expert_gate,
        "rope_freqs.weight": graph.rope != "none",
        "rope_factors_long.weight": graph.rope != "none",
        "rope_factors_short.weight": graph.rope != "none",
    }
    parts = (
        (graph.latent, _LATENT),
        (graph.indexer, _INDEXER),
        (graph.layer_inputs, _LAYER_INPUTS),
        (graph.streams, _STREAMS),
    )
    found |= {name for there, names in parts if there for name in names}
    states = STATES[graph.recurrent] if graph.recurrent else ()
    found |= {*states, *(name.replace(".weight", ".bias") for name in states)}
    if graph.encoder_decoder:
        sides = [f"{kind}_{part}" for kind in ("attn", "cross_attn") for part in ("q", "k", "v", "o", "rel_b", "norm")]
        found |= {f"{name}.weight" for name in (*sides, "ffn_gate", "enc.output_norm")}
    return frozenset(found | set(graph.bare_norms) | {name for name, read in tables.items() if read})


def norm_tensor(graph: Graph, name: str) -> str:
    """The tensor with the weights of a norm."""
    return name if name.rpartition(".")[2] in graph.bare_norms else f"{name}.weight"


def unread_tensors(graph: Graph, names: Iterable[str]) -> list[str]:
    """Those of the tensors ``names`` that the forward pass would pass over: the graph is then not this model's."""
    known = tensors_read(graph)
    return [name for name in names if _in_layer(name) not in known]


def _in_layer(name: str) -> str:
    name = name.removeprefix("enc.").removeprefix("dec.") if name.startswith(("enc.blk.", "dec.blk.")) else name
    return name.split(".", 2)[2] if name.startswith("blk.") and name.count(".") > 1 else name
