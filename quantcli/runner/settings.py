"""What the forward pass has to know about one model: the numbers of its metadata beside its architecture's graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, sqrt
from typing import Any, NamedTuple

import numpy

from quantcli import architectures
from quantcli.architectures import Graph, keys
from quantcli.architectures.architecture import Activation
from quantcli.architectures.topology import unread_tensors
from quantcli.container import Value
from quantcli.errors import UnknownArchitecture, UnsupportedGraph
from quantcli.model import Model
from quantcli.runner import ropes, routing, sides, states
from quantcli.runner.latent_sizes import IndexerSizes, LatentSizes, read_indexer, read_latent, stretched
from quantcli.runner.ropes import Rope
from quantcli.runner.routing import Routing
from quantcli.runner.schema import Reader as _Reader
from quantcli.runner.sides import Sides
from quantcli.runner.states import StateSettings

MOST_SHOWN = 10  # names in an error
STREAMS = 4  # of Gemma 3n
RANKS = 4  # the pooling_type of models with a classifier
XIELU = ("xielu.alpha_n", "xielu.alpha_p", "xielu.beta", "xielu.eps")


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
    window_rope_dims: int
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
    routing: Routing | None  # of models with experts
    parallel: bool
    latent: LatentSizes | None
    indexer: IndexerSizes | None
    value_scale: float  # of what attention gives
    layer_width: int  # of every layer's own input; 0: none
    active: int  # stream, where there are several
    sparsity: tuple[float, ...]  # of each layer's MLP: standard deviations that a gate has to exceed the mean by
    limits: tuple[tuple[float, ...], tuple[float, ...]]  # per layer: of experts, of other MLPs; 0: none
    sources: tuple[int, ...]  # the layer whose keys and values each layer reads
    turns: bool  # whether any layer has rotary positions
    rotating: tuple[bool, ...]  # per layer, where the metadata lists it
    rotating_layers: int  # in front, which rotate whatever their window
    causal: bool
    pooling: int  # how states become one vector, GGUF's number (pooling.py); 0: nobody says
    classifier_pooling: int  # the same before a classifier
    temperature: float  # late queries grow: times 1 + temperature * log(1 + floor(position / rope.original)); 0: none
    sides: Sides | None  # of an encoder-decoder
    activation_parameters: tuple[tuple[float, ...], ...]  # per layer: alpha_n, alpha_p, beta, eps of xIELU

    @property
    def stream_width(self) -> int:
        """What layers change of the residual stream; each layer's own input may lie behind it."""
        return self.hidden * (STREAMS if self.graph.streams else 1)

    @property
    def experts(self) -> int:
        """Of a layer that has any; 0: none has."""
        return self.routing.experts if self.routing else 0

    @property
    def experts_used(self) -> int:
        """Of them, by one token."""
        return self.routing.used if self.routing else 0

    @property
    def by_position(self) -> bool:
        """Whether which steps a position takes depends on where it stands: keys that are chosen, windows that begin
        anew, queries that grow."""
        return self.indexer is not None or bool(self.graph.chunked) or self.graph.temperature is not None

    @property
    def divisors(self) -> int:
        """Numbers in a table of divisors of frequencies; a layer uses as many as it has pairs."""
        return (self.window_rope_dims if self.graph.rope_share < 1 else self.rope_dims) // 2

    def rotates(self, layer: int) -> bool:
        """Whether the layer has rotary positions."""
        graph = self.graph
        skipped = bool(self.rotating) and not self.rotating[layer]
        skipped |= graph.rope_skip_period > 0 and (layer + 1) % graph.rope_skip_period == 0
        if graph.rope_in_windows and any(self.window_layers) and layer >= self.rotating_layers:
            skipped |= not self.window_layers[layer] and graph.rope_all_layers != self.layers
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
    recurs = _recurs(reader, graph, layers)
    window = _window(reader, graph)
    window_layers = _window_layers(reader, graph, layers, window)
    latent = read_latent(reader, graph)
    attention = _narrowed(reader, _heads(reader, graph, layers, hidden, recurs), window_layers)
    if latent is not None:
        attention = tuple(one._replace(value=latent.mixed) for one in attention)
    heads, kv_heads, key, value = (max(numbers) for numbers in zip(*attention, strict=True))
    constants = graph.constant_scales or (1.0, sqrt(layers), hidden)
    scale = reader.real("logit_scale", constants[2] / hidden)
    turns = ropes.read(reader, graph, key)
    rope, stretch = stretched(reader, turns.full) if graph.latent else (turns.full, 1.0)
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
        rope_dims=turns.dims,
        window_rope_dims=turns.window_dims,
        rope=rope,
        window_rope=turns.windowed,
        window=window,
        window_layers=window_layers,
        attention_scale=_attention_scale(reader, graph, layers, hidden, heads, latent.key if latent else key) * stretch,
        attention_cap=reader.real("attn_logit_softcapping", 0.0),
        alibi=_alibi(reader, graph, layers),
        clamp=reader.real("attention.clamp_kqv", 0.0),
        final_cap=reader.real("final_logit_softcapping", 0.0),
        embedding_scale=sqrt(hidden)
        if graph.embedding_scale == "sqrt_hidden"
        else reader.real("embedding_scale", constants[0]),
        residual_scale=reader.real("residual_scale", constants[1] / sqrt(layers)),
        logit_scale=1 / scale if graph.logit_scale == "divide" and scale else scale or 1.0,
        routing=routing.read(reader, graph, layers, reader.whole("vocab_size", 0)),
        latent=latent,
        indexer=read_indexer(reader, graph, layers),
        value_scale=reader.real("attention.value_scale", 1.0) or 1.0,
        layer_width=reader.whole("embedding_length_per_layer_input", 0),
        active=_active_stream(reader, graph),
        sparsity=_sparsity(reader, graph, layers),
        limits=(_limits(reader, "swiglu_clamp_exp", layers), _limits(reader, "swiglu_clamp_shexp", layers)),
        sources=_sources(reader, graph, window_layers),
        rotating=_rotating(reader),
        rotating_layers=reader.whole("leading_dense_block_count", 0) if graph.rope_in_dense else 0,
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


def _narrowed(reader: _Reader, heads: tuple[Heads, ...], windows: tuple[bool, ...]) -> tuple[Heads, ...]:
    """The heads with widths of their own in layers with a window, where the file has them."""
    key = reader.whole("attention.key_length_swa", 0)
    value = reader.whole("attention.value_length_swa", key)
    if not key:
        return heads
    return tuple(
        one._replace(key=key, value=value) if windowed else one for one, windowed in zip(heads, windows, strict=True)
    )


def _attention_scale(reader: _Reader, graph: Graph, layers: int, hidden: int, heads: int, key: int) -> float:
    """What the products of queries and keys are multiplied by."""
    if graph.attention_scale == "one":
        return 1.0
    if graph.attention_scale == "inverse":
        return reader.real("attention.scale", 0.0) or 1 / key
    width = hidden / heads if graph.wide_query_layers and layers == graph.wide_query_layers else key
    return reader.real("attention.scale", 0.0) or reader.real("attention.output_scale", 0.0) or 1 / sqrt(width)


def _rotating(reader: _Reader) -> tuple[bool, ...]:
    """Which layers rotate, where the file lists them."""
    pattern = reader.value("attention.rope_pattern", None)
    return tuple(map(bool, pattern)) if isinstance(pattern, list) else ()


def _alibi(reader: _Reader, graph: Graph, layers: int) -> float:
    """The largest linear bias."""
    if graph.alibi is None or (graph.alibi_layers and layers != graph.alibi_layers):
        return 0.0
    return reader.real("attention.max_alibi_bias", graph.alibi)


def _window(reader: _Reader, graph: Graph) -> int:
    """Positions that a layer with a window sees; some architectures have a number of their own, and 0 for none."""
    given = reader.whole("attention.sliding_window", graph.chunked) if graph.window_period else 0
    return (graph.chunked or graph.window_size or given) if given else 0


def _window_layers(reader: _Reader, graph: Graph, layers: int, window: int) -> tuple[bool, ...]:
    """Which layers see ``window`` positions only."""
    if not window or graph.window_depth not in (0, layers):
        return (False,) * layers
    pattern = reader.value("attention.sliding_window_pattern", graph.window_period)
    if isinstance(pattern, list):  # one for every layer
        return tuple(map(bool, pattern))[:layers]
    period = reader.whole("attention.sliding_window_pattern", graph.window_period) or 1
    full = period - 1 if graph.window_last_full else 0
    return tuple(period == 1 or i % period != full for i in range(layers))


def _sources(reader: _Reader, graph: Graph, windows: tuple[bool, ...]) -> tuple[int, ...]:
    """The last layers may read the keys and values of the last one before them that is of their kind."""
    layers = len(windows)
    shared = reader.whole("attention.shared_kv_layers", 0)
    own = layers - shared
    last = {windows[layer]: layer for layer in range(max(own, 0))}
    if shared and (own < 1 or set(windows) != set(last)):
        raise reader.bad("attention.shared_kv_layers", f"is {shared}: the layers before do not have all kinds of keys")
    return tuple(layer if layer < own else last[windows[layer]] for layer in range(layers))


def _active_stream(reader: _Reader, graph: Graph) -> int:
    """Of Gemma 3n's."""
    if not graph.streams:
        return 0
    if reader.whole("altup.num_inputs") != STREAMS:
        raise reader.bad("altup.num_inputs", f"is not {STREAMS}")
    return reader.whole("altup.active_idx", 0)


def _limits(reader: _Reader, key: str, layers: int) -> tuple[float, ...]:
    """Per layer; one number stands for all of them."""
    found = reader.value(key, 0.0)
    numbers: list[Any] = found if isinstance(found, list) else [found] * layers
    return tuple(float(one) for one in numbers)[:layers]


def _sparsity(reader: _Reader, graph: Graph, layers: int) -> tuple[float, ...]:
    """Per layer; minus infinity for none."""
    found = reader.value("activation_sparsity_scale", None) if graph.streams else None
    return tuple(float(one) for one in found)[:layers] if isinstance(found, list) else (-inf,) * layers
