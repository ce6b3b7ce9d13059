"""What the forward pass has to know about one model: the numbers of its metadata beside its architecture's graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from typing import NamedTuple

import numpy

from quantcli import architectures
from quantcli.architectures import Graph, keys
from quantcli.architectures.architecture import Activation
from quantcli.architectures.topology import unread_tensors
from quantcli.container import Value
from quantcli.errors import UnknownArchitecture, UnsupportedGraph
from quantcli.model import Model
from quantcli.runner import sides, states
from quantcli.runner.schema import MISSING_KIND
from quantcli.runner.schema import Reader as _Reader
from quantcli.runner.sides import Sides
from quantcli.runner.states import StateSettings

# Graph flags that name computations which the runner lacks.
LACKING = {
    "latent": "latent attention",
    "layer_inputs": "embeddings for every layer",
    "streams": "several streams",
    "chunked": "windows of chunks",
    "attention_gate": "gated attention",
    "early_router": "early routing",
    "beside_experts": "an MLP beside experts",
}
GATING = {1: "softmax", 2: "sigmoid", 3: "softmax_chosen"}  # llama.cpp's numbers
RANKS = 4  # the pooling_type of models with a classifier
MOST_SHOWN = 10  # names in an error
XIELU = ("xielu.alpha_n", "xielu.alpha_p", "xielu.beta", "xielu.eps")
SCALINGS = ("none", "linear", "yarn", "longrope")


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary embedding of one kind of layer. ``base`` and ``scale`` (a divisor of the position), yarn's parameters."""

    base: float
    scale: float = 1.0
    kind: str = "none"  # of scaling: one of SCALINGS
    original: int = 0  # context that the unscaled model was trained with
    magnitude: float = 1.0  # cosines and sines are multiplied by it
    extrapolation: float = 1.0
    fast: float = 32.0
    slow: float = 1.0
    log_multiplier: float = 0.0  # yarn's magnitude is divided by 1 + 0.1 * log_multiplier * log(scale)


class Heads(NamedTuple):
    """The heads of one layer's attention; ``keys`` of them have keys and values. One head's width is ``key`` (q, k) or
    ``value`` (v). No queries: the layer has no attention; no keys: one matrix stands in its place."""

    queries: int
    keys: int
    key: int
    value: int

    @property
    def widths(self) -> tuple[int, int, int]:
        """Rows of queries, keys and values."""
        return self.queries * self.key, self.keys * self.key, self.keys * self.value


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """Counts and widths in elements, scales as factors. ``heads`` to ``value`` are the largest of ``attention``, which
    has those of every layer."""

    architecture: str
    graph: Graph
    layers: int
    blocks: int  # with the layers behind them that predict further tokens
    hidden: int
    heads: int
    kv_heads: int
    key: int
    value: int
    attention: tuple[Heads, ...]
    state: StateSettings | None  # of the layers that have one
    recurs: tuple[bool, ...]  # which these are
    eps: float
    context: int
    rope_dims: int
    rope: Rope
    window_rope: Rope
    window: int
    window_layers: tuple[bool, ...]
    attention_scale: float
    attention_cap: float
    alibi: float  # the largest linear bias; 0: none
    clamp: float  # queries, keys and values are cut off there; 0: nowhere
    final_cap: float
    embedding_scale: float
    residual_scale: float
    logit_scale: float  # a factor, whatever the metadata holds
    experts: int
    experts_used: int
    expert_norm: bool
    expert_scale: float
    gating: str
    parallel: bool
    turns: bool  # whether any layer has rotary positions
    rotating: tuple[bool, ...]  # per layer, where the metadata lists it
    causal: bool
    pooling: int  # how states become one vector, GGUF's number (pooling.py); 0: nobody says
    classifier_pooling: int  # the same before a classifier
    temperature: float  # late queries grow: times 1 + temperature * log(1 + floor(position / rope.original)); 0: none
    sides: Sides | None  # of an encoder-decoder
    activation_parameters: tuple[tuple[float, ...], ...]  # per layer: alpha_n, alpha_p, beta, eps of xIELU

    def rotates(self, layer: int) -> bool:
        """Whether the layer has rotary positions."""
        graph = self.graph
        skipped = bool(self.rotating) and not self.rotating[layer]
        skipped |= graph.rope_skip_period > 0 and (layer + 1) % graph.rope_skip_period == 0
        skipped |= graph.rope_in_windows and any(self.window_layers) and not self.window_layers[layer]
        return self.turns and graph.rope != "none" and graph.rope_layers in (0, self.layers) and not skipped

    @property
    def reach(self) -> int:
        """Positions of a window, the query's own and those before it."""
        return self.window // 2 + 1 if self.graph.symmetric_window else self.window

    def ahead(self, windowed: bool) -> int:
        """How many positions behind its own a query sees."""
        if self.causal:
            return 0
        return self.window // 2 if windowed and self.graph.symmetric_window else self.context

    def activation_of(self, layer: int) -> tuple[float, ...]:
        """The parameters of a layer's activation, () where it has none."""
        return self.activation_parameters[layer] if self.activation_parameters else ()


def read(model: Model) -> NetworkSettings:
    """The settings of ``model``. Raises UnknownArchitecture, UnsupportedGraph, BadConfig."""
    return read_metadata(model.architecture, model.metadata, (tensor.name for tensor in model.tensors), model.name)


def read_metadata(
    architecture: str, metadata: Mapping[str, Value], tensors: Iterable[str], where: str
) -> NetworkSettings:
    """The settings that ``metadata`` say, of a model with the tensors named; ``where`` is for errors, see `read`."""
    declared, reader, tensors = architectures.find(architecture), _Reader(architecture, metadata), tuple(tensors)
    graph = declared.graph
    if graph is None:
        raise UnknownArchitecture(
            f"the architecture {architecture!r} cannot be run",
            where=where,
            hint="`quantcli convert`, `inspect` and `verify` take it",
        )
    lacking = [what for flag, what in LACKING.items() if getattr(graph, flag)]
    if lacking:
        hint = MISSING_KIND.format(what=lacking[0])
        raise UnsupportedGraph(f"{architecture} needs {lacking[0]}", where=where, hint=hint)
    reader.check_arrays()
    absent = next((key for key in declared.needs if key not in reader.entries), None)
    if absent:
        raise reader.unsupported(absent, "is missing", f"what llama.cpp takes instead of {absent}")
    unread = [f"{architecture}.{key}" for key in keys.unread(declared, reader.entries)]
    layers, blocks = layers_run(reader), reader.whole("block_count")
    read = (name for name in tensors if runs(name, layers, blocks))
    refuse_unread(architecture, unread + unread_tensors(graph, read), where)
    reader.check()
    graph = _said(reader, graph, tensors)
    return replace(_read(reader, graph), activation_parameters=_xielu(reader, graph, metadata))


ACTIVATIONS: Mapping[str, Activation] = {"gelu": "gelu", "silu": "silu", "relu": "relu"}


def _said(reader: _Reader, graph: Graph, tensors: Sequence[str]) -> Graph:
    """The graph with what the file says of it: the activation function, sections (with which halves rotate), and the
    MLP of the first T5."""
    if graph.encoder_decoder and "enc.blk.0.ffn_gate.weight" not in tensors:
        return replace(graph, mlp="plain", activation="relu")
    name = reader.text("hidden_activation", "")
    if name and name not in ACTIVATIONS:
        raise reader.unsupported("hidden_activation", f"is {name[:60]!r}", "this activation function")
    sections = reader.entries.get("rope.dimension_sections")
    turned = graph.rope == "norm" and isinstance(sections, (list, numpy.ndarray)) and sum(map(bool, sections[:2])) == 2
    return replace(graph, activation=ACTIVATIONS.get(name, graph.activation), rope="neox" if turned else graph.rope)


def layers_run(reader: _Reader) -> int:
    """Layers of the forward pass: those behind them predict further tokens. Raises BadConfig."""
    blocks, further = reader.whole("block_count"), reader.whole("nextn_predict_layers", 0)
    if further >= blocks:
        raise reader.bad("nextn_predict_layers", f"is {further}: the model has {blocks} layers")
    return blocks - further


def runs(tensor: str, layers: int, blocks: int) -> bool:
    """Whether the forward pass has a use for a tensor: it is in none of the blocks from ``layers`` to ``blocks``."""
    number = tensor.split(".", 2)[1] if tensor.startswith("blk.") else ""
    return not (number.isascii() and number.isdigit() and len(number) < 8 and layers <= int(number) < blocks)


def refuse_unread(architecture: str, unread: Sequence[str], where: str) -> None:
    """Raises UnsupportedGraph where metadata or tensors say something about the computation that is not read here."""
    if unread:
        names = ", ".join(unread[:MOST_SHOWN]) + (f" and {len(unread) - MOST_SHOWN} more" * (len(unread) > MOST_SHOWN))
        raise UnsupportedGraph(
            f"{names}: the forward pass of {architecture} does not read this, so its logits would be wrong",
            where=where,
            hint="convert, inspect and verify take the model; llama.cpp may know how to run it",
        )


def _read(reader: _Reader, graph: Graph) -> NetworkSettings:
    layers, hidden = layers_run(reader), reader.whole("embedding_length")
    recurs, turning = _recurs(reader, graph, layers), graph.rope != "none"
    attention = _heads(reader, graph, layers, hidden, recurs)
    heads, kv_heads, key, value = (max(numbers) for numbers in zip(*attention, strict=True))
    scale = reader.real("logit_scale", 1.0)
    window = reader.whole("attention.sliding_window", 0) if graph.window_period else 0
    experts = reader.whole("expert_count", 0)
    return NetworkSettings(
        architecture=reader.architecture,
        graph=graph,
        layers=layers,
        blocks=reader.whole("block_count"),
        hidden=hidden,
        heads=heads,
        kv_heads=kv_heads,
        key=key,
        value=value,
        attention=attention,
        state=states.read(reader, graph, hidden),
        recurs=recurs,
        eps=reader.real(keys.EPSILON[graph.norm]),
        context=reader.whole("context_length"),
        rope_dims=_rope_dims(reader, graph, key) if turning else 0,
        rope=_rope(reader) if turning else Rope(1.0),
        window_rope=_window_rope(reader, graph) if turning else Rope(1.0),
        window=window,
        window_layers=_window_layers(reader, graph, layers, window),
        attention_scale=_attention_scale(reader, graph, layers, hidden, heads, key),
        attention_cap=reader.real("attn_logit_softcapping", 0.0),
        alibi=_alibi(reader, graph, layers),
        clamp=reader.real("attention.clamp_kqv", 0.0),
        final_cap=reader.real("final_logit_softcapping", 0.0),
        embedding_scale=sqrt(hidden) if graph.embedding_scale == "sqrt_hidden" else reader.real("embedding_scale", 1.0),
        residual_scale=reader.real("residual_scale", 1.0),
        logit_scale=1 / scale if graph.logit_scale == "divide" and scale else scale or 1.0,
        experts=experts,
        experts_used=_experts_used(reader, experts),
        expert_norm=reader.flag("expert_weights_norm", graph.expert_norm),
        expert_scale=reader.real("expert_weights_scale", 1.0) or 1.0,
        gating=_gating(reader, graph),
        rotating=_rotating(reader),
        parallel=reader.flag("use_parallel_residual", graph.parallel),
        turns=not graph.rope_switch or reader.flag("rope.scaling.finetuned", True),
        causal=reader.flag("attention.causal", graph.causal),
        pooling=_pooling(reader, graph),
        classifier_pooling=reader.whole("classifier.pooling_type", 0),
        temperature=reader.real("attention.temperature_scale", 0.0),
        sides=sides.read(reader, graph),
        activation_parameters=(),
    )


def _pooling(reader: _Reader, graph: Graph) -> int:
    """How states become one vector: none, mean, first or last token; 4 ranks, with a classifier."""
    number = reader.whole("pooling_type", 0)
    if number > RANKS or (number == RANKS and graph.classifier is None):
        raise reader.unsupported("pooling_type", f"is {number}", "pooling of this kind")
    return number


def _xielu(reader: _Reader, graph: Graph, metadata: Mapping[str, Value]) -> tuple[tuple[float, ...], ...]:
    """alpha_n, alpha_p, beta and eps of every layer's activation, from arrays without the architecture's name."""
    if graph.activation != "xielu":
        return ()
    layers = reader.whole("block_count")
    columns = [reader.reals(key, metadata.get(key), layers) for key in XIELU]
    return tuple(zip(*columns, strict=True))


def _recurs(reader: _Reader, graph: Graph, layers: int) -> tuple[bool, ...]:
    """Which layers have a state."""
    if graph.recurrent is None:
        return (False,) * layers
    if graph.recurrent_layers in ("all", "beside"):
        return (True,) * layers
    if graph.recurrent_layers == "listed":
        listed = reader.value("attention.recurrent_layers", None)
        period = reader.whole("full_attention_interval", 4)
        return tuple(map(bool, listed))[:layers] if isinstance(listed, list) else _all_but_last(period, layers)
    heads = reader.each("attention.head_count_kv", layers, reader.each("attention.head_count", layers))
    feeds = reader.each("feed_forward_length", layers, [0] * layers) if graph.gaps else [0] * layers
    return tuple(not count and not width for count, width in zip(heads, feeds, strict=True))


def _all_but_last(period: int, layers: int) -> tuple[bool, ...]:
    return tuple((layer + 1) % period != 0 for layer in range(layers))


def _heads(reader: _Reader, graph: Graph, layers: int, hidden: int, recurs: tuple[bool, ...]) -> tuple[Heads, ...]:
    """Of every layer; a state may stand in the place of attention."""
    counts = reader.each("attention.head_count", layers)
    keys_of = reader.each("attention.head_count_kv", layers, counts)
    if graph.recurrent is not None and graph.recurrent_layers != "beside":
        absent = [state or (not count and graph.gaps) for state, count in zip(recurs, keys_of, strict=True)]
        counts = [0 if one else count for one, count in zip(absent, counts, strict=True)]
        keys_of = [0 if one else count for one, count in zip(absent, keys_of, strict=True)]
    for name, numbers in (("head_count", counts), ("head_count_kv", keys_of)):
        missing = any(not number and not state for number, state in zip(numbers, recurs, strict=True))
        if missing and not (graph.gaps and (any(numbers) or any(recurs))):
            raise reader.bad(f"attention.{name}", "is 0, it has to lie from 1 to 2147483647")
    key = reader.whole("attention.key_length", max(hidden // max([*counts, 1]), 1))
    value = reader.whole("attention.value_length", key)
    for heads, kv_heads in zip(counts, keys_of, strict=True):
        if kv_heads and (heads < kv_heads or heads % kv_heads):
            raise reader.bad("attention.head_count_kv", f"is {kv_heads}: {heads} heads are no multiple of it")
    return tuple(Heads(heads, kv_heads, key, value) for heads, kv_heads in zip(counts, keys_of, strict=True))


def _rope_dims(reader: _Reader, graph: Graph, key: int) -> int:
    """How many elements of a head rotate, in pairs."""
    dims = reader.whole("rope.dimension_count", key)
    if graph.rope != "none" and (dims % 2 or dims > key):
        raise reader.bad("rope.dimension_count", f"is {dims}: no even part of a head's {key} elements")
    return dims


def _experts_used(reader: _Reader, experts: int) -> int:
    used = reader.whole("expert_used_count") if experts else 0
    if experts and not 1 <= used <= experts:
        raise reader.bad("expert_used_count", f"is {used}: the model has {experts} experts")
    return used


def _attention_scale(reader: _Reader, graph: Graph, layers: int, hidden: int, heads: int, key: int) -> float:
    """What the products of queries and keys are multiplied by."""
    if graph.attention_scale == "one":
        return 1.0
    if graph.attention_scale == "inverse":
        return reader.real("attention.scale", 0.0) or 1 / key
    width = hidden / heads if graph.wide_query_layers and layers == graph.wide_query_layers else key
    return reader.real("attention.scale", 0.0) or 1 / sqrt(width)


def _rotating(reader: _Reader) -> tuple[bool, ...]:
    """Which layers rotate, where the file lists them."""
    pattern = reader.value("attention.rope_pattern", None)
    return tuple(map(bool, pattern)) if isinstance(pattern, list) else ()


def _alibi(reader: _Reader, graph: Graph, layers: int) -> float:
    """The largest linear bias."""
    if graph.alibi is None or (graph.alibi_layers and layers != graph.alibi_layers):
        return 0.0
    return reader.real("attention.max_alibi_bias", graph.alibi)


def _gating(reader: _Reader, graph: Graph) -> str:
    """How the scores of experts become weights; number 0 leaves it to the architecture."""
    number = reader.whole("expert_gating_func", 0)
    if number and number not in GATING:
        raise reader.unsupported("expert_gating_func", f"is {number}", "routing of this kind")
    return GATING.get(number, graph.expert_gating)


def _window_layers(reader: _Reader, graph: Graph, layers: int, window: int) -> tuple[bool, ...]:
    """Which layers see ``window`` positions only."""
    if not window or graph.window_depth not in (0, layers):
        return (False,) * layers
    pattern = reader.value("attention.sliding_window_pattern", graph.window_period)
    if isinstance(pattern, list):  # one for every layer
        return tuple(map(bool, pattern))
    period = reader.whole("attention.sliding_window_pattern", graph.window_period) or 1
    if not graph.window_last_full:
        return tuple(period == 1 or i % period > 0 for i in range(layers))
    return tuple(period == 1 or i % period < period - 1 for i in range(layers))


def _rope(reader: _Reader) -> Rope:
    kind = reader.text("rope.scaling.type", "linear")
    if kind not in SCALINGS:
        raise reader.unsupported("rope.scaling.type", f"is {kind[:60]!r}", "rope scaling of this kind")
    factor = reader.real("rope.scaling.factor", 0.0) or 1.0
    base = reader.real("rope.freq_base", 10000.0)
    magnitude = reader.real("rope.scaling.attn_factor", 1.0)
    original = reader.whole("rope.scaling.original_context_length", 0) or reader.whole("context_length")
    if kind != "yarn":
        return Rope(base, factor if kind == "linear" else 1.0, kind, original, magnitude)
    return Rope(
        _above_one(reader, "rope.freq_base", base),
        factor,
        kind,
        original,
        reader.real("rope.scaling.yarn_attn_factor", 1.0) * magnitude,
        reader.real("rope.scaling.yarn_ext_factor", 1.0),
        reader.real("rope.scaling.yarn_beta_fast", 32.0),
        reader.real("rope.scaling.yarn_beta_slow", 1.0),
        reader.real("rope.scaling.yarn_log_multiplier", 0.0),
    )


def _above_one(reader: _Reader, key: str, base: float) -> float:
    """A base that yarn can divide by the logarithm of."""
    if base <= 1:
        raise reader.bad(key, f"is {base:g}: yarn needs more than 1")
    return base


def _window_rope(reader: _Reader, graph: Graph) -> Rope:
    """The rotation of layers with a window: the same, unless the architecture has another base or no scaling there."""
    full = _rope(reader)
    base = reader.real("rope.freq_base_swa", graph.window_rope_base or full.base)
    if not graph.scaled_window_rope:
        return Rope(base)
    return replace(full, base=_above_one(reader, "rope.freq_base_swa", base) if full.kind == "yarn" else base)
