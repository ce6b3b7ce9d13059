"""What the forward pass has to know about one model: the numbers of its metadata beside its architecture's graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import sqrt

import numpy

from quantcli import architectures
from quantcli.architectures import Architecture, Graph, keys
from quantcli.architectures.topology import unread_tensors
from quantcli.errors import BadConfig, UnknownArchitecture, UnsupportedGraph
from quantcli.model import Model

# Graph flags that name computations which the runner lacks.
LACKING = {
    "latent": "latent attention",
    "recurrent": "recurrent layers",
    "encoder_decoder": "an encoder beside the decoder",
}
MISSING_KIND = "{what}: not in this runner; convert, inspect and verify take the model"
GATING = {1: "softmax", 2: "sigmoid", 3: "softmax_chosen"}  # llama.cpp's numbers
MOST_SHOWN = 10  # names in an error
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


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """Counts and widths in elements, scales as factors. One head's width is ``key`` (q, k) or ``value`` (v)."""

    architecture: str
    graph: Graph
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    key: int
    value: int
    eps: float
    context: int
    rope_dims: int
    rope: Rope
    window_rope: Rope
    window: int
    window_layers: tuple[bool, ...]
    attention_scale: float
    attention_cap: float
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

    def rotates(self, layer: int) -> bool:
        """Whether the layer has rotary positions."""
        graph = self.graph
        skipped = graph.rope_skip_period and (layer + 1) % graph.rope_skip_period == 0
        skipped = skipped or (graph.rope_in_windows and any(self.window_layers) and not self.window_layers[layer])
        return graph.rope != "none" and not skipped


class _Reader:
    """Typed access to ``<architecture>.<key>``; what has no value per layer may not differ between layers."""

    def __init__(self, model: Model) -> None:
        prefix = f"{model.architecture}."
        self.architecture = model.architecture
        self.entries: dict[str, object] = {
            key.removeprefix(prefix): value.data for key, value in model.metadata.items() if key.startswith(prefix)
        }

    def number(self, key: str, default: float | None = None, least: float = 0.0, most: float = 2.0**31) -> float:
        value = self.entries.get(key, default)
        if isinstance(value, numpy.ndarray):
            if len(set(value.tolist())) != 1:
                raise self.unsupported(key, "differs between layers", "layers of different kinds")
            value = value.tolist()[0]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
            problem = "is missing" if value is None else f"is {value!r}"
            raise self.bad(key, problem)
        return value

    def count(self, key: str, default: int | None = None, least: int = 1) -> int:
        return int(self.number(key, default, least))

    def real(self, key: str, default: float | None = None) -> float:
        return float(self.number(key, default, -1e30, 1e30))

    def flag(self, key: str, default: bool) -> bool:
        return bool(self.entries.get(key, default))

    def bad(self, key: str, problem: str) -> BadConfig:
        where = f"{self.architecture}.{key}"
        return BadConfig(f"{key} {problem}", where=where, hint="the file does not describe its model")

    def unsupported(self, key: str, problem: str, what: str) -> UnsupportedGraph:
        where = f"{self.architecture}.{key}"
        return UnsupportedGraph(f"{key} {problem}", where=where, hint=MISSING_KIND.format(what=what))


def read(model: Model) -> NetworkSettings:
    """The settings of ``model``. Raises UnknownArchitecture, UnsupportedGraph, BadConfig."""
    architecture, reader = architectures.find(model.architecture), _Reader(model)
    graph = architecture.graph
    if graph is None:
        raise UnknownArchitecture(
            f"the architecture {model.architecture!r} cannot be run",
            where=model.name,
            hint="`quantcli convert`, `inspect` and `verify` take it",
        )
    for flag, what in LACKING.items():
        if getattr(graph, flag):
            raise UnsupportedGraph(
                f"{model.architecture} needs {what}", where=model.name, hint=MISSING_KIND.format(what=what)
            )
    if not graph.causal:
        raise UnsupportedGraph(
            f"{model.architecture} is no causal language model",
            where=model.name,
            hint=MISSING_KIND.format(what="encoders"),
        )
    _refuse_unread(architecture, graph, reader, model)
    return _read(reader, graph, model)


def _refuse_unread(architecture: Architecture, graph: Graph, reader: _Reader, model: Model) -> None:
    """Raises UnsupportedGraph where metadata or tensors say something about the computation that is not read here."""
    unread = [f"{architecture.name}.{key}" for key in keys.unread(architecture, reader.entries)]
    unread += unread_tensors(graph, (tensor.name for tensor in model.tensors))
    if unread:
        names = ", ".join(unread[:MOST_SHOWN]) + (f" and {len(unread) - MOST_SHOWN} more" * (len(unread) > MOST_SHOWN))
        raise UnsupportedGraph(
            f"{names}: the forward pass of {architecture.name} does not read this, so its logits would be wrong",
            where=model.name,
            hint="convert, inspect and verify take the model; llama.cpp may know how to run it",
        )


def _read(reader: _Reader, graph: Graph, model: Model) -> NetworkSettings:
    layers, hidden, heads = (reader.count(key) for key in ("block_count", "embedding_length", "attention.head_count"))
    key = reader.count("attention.key_length", max(hidden // heads, 1))
    scale = reader.real("logit_scale", 1.0)
    window = reader.count("attention.sliding_window", 0, least=0) if graph.window_period else 0
    experts = reader.count("expert_count", 0, least=0)
    kv_heads = reader.count("attention.head_count_kv", heads)
    if heads % kv_heads:
        raise BadConfig(f"{heads} heads are no multiple of {kv_heads} key/value heads", where=model.name)
    return NetworkSettings(
        architecture=model.architecture,
        graph=graph,
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=kv_heads,
        key=key,
        value=reader.count("attention.value_length", key),
        eps=reader.real(f"attention.layer_norm_{'rms_' if graph.norm == 'rms' else ''}epsilon"),
        context=reader.count("context_length"),
        rope_dims=reader.count("rope.dimension_count", key),
        rope=_rope(reader),
        window_rope=_window_rope(reader, graph),
        window=window,
        window_layers=_window_layers(reader, graph, layers, window),
        attention_scale=_attention_scale(reader, graph, layers, hidden, heads, key),
        attention_cap=reader.real("attn_logit_softcapping", 0.0),
        final_cap=reader.real("final_logit_softcapping", 0.0),
        embedding_scale=sqrt(hidden) if graph.embedding_scale == "sqrt_hidden" else reader.real("embedding_scale", 1.0),
        residual_scale=reader.real("residual_scale", 1.0),
        logit_scale=1 / scale if graph.logit_scale == "divide" and scale else scale or 1.0,
        experts=experts,
        experts_used=reader.count("expert_used_count") if experts else 0,
        expert_norm=reader.flag("expert_weights_norm", graph.expert_norm),
        expert_scale=reader.real("expert_weights_scale", 1.0) or 1.0,
        gating=_gating(reader, graph),
        parallel=reader.flag("use_parallel_residual", graph.parallel),
    )


def _attention_scale(reader: _Reader, graph: Graph, layers: int, hidden: int, heads: int, key: int) -> float:
    """What the products of queries and keys are multiplied by."""
    if graph.attention_scale == "one":
        return 1.0
    width = hidden / heads if graph.wide_query_layers and layers == graph.wide_query_layers else key
    return reader.real("attention.scale", 0.0) or 1 / sqrt(width)


def _gating(reader: _Reader, graph: Graph) -> str:
    """How the scores of experts become weights; number 0 leaves it to the architecture."""
    number = reader.count("expert_gating_func", 0, least=0)
    if number and number not in GATING:
        raise reader.unsupported("expert_gating_func", f"is {number}", "routing of this kind")
    return GATING.get(number, graph.expert_gating)


def _window_layers(reader: _Reader, graph: Graph, layers: int, window: int) -> tuple[bool, ...]:
    """Which layers see ``window`` positions only."""
    if not window:
        return (False,) * layers
    pattern = reader.entries.get("attention.sliding_window_pattern", graph.window_period)
    if isinstance(pattern, numpy.ndarray):
        return _flags(reader, pattern.tolist(), layers)
    period = reader.count("attention.sliding_window_pattern", graph.window_period, least=0) or 1
    return tuple(period == 1 or i % period < period - 1 for i in range(layers))


def _flags(reader: _Reader, pattern: Sequence[object], layers: int) -> tuple[bool, ...]:
    if not pattern:
        raise reader.bad("attention.sliding_window_pattern", "is empty")
    return tuple(bool(pattern[i % len(pattern)]) for i in range(layers))


def _rope(reader: _Reader) -> Rope:
    kind = reader.entries.get("rope.scaling.type", "linear")
    if not isinstance(kind, str) or kind not in SCALINGS:
        raise reader.unsupported("rope.scaling.type", f"is {kind!r}", "rope scaling of this kind")
    factor = reader.real("rope.scaling.factor", 0.0) or 1.0
    base = reader.real("rope.freq_base", 10000.0)
    magnitude = reader.real("rope.scaling.attn_factor", 1.0)
    original = reader.count("rope.scaling.original_context_length", 0, least=0) or reader.count("context_length")
    if kind != "yarn":
        return Rope(base, factor if kind == "linear" else 1.0, kind, original, magnitude)
    return Rope(
        base,
        factor,
        kind,
        original,
        reader.real("rope.scaling.yarn_attn_factor", 1.0) * magnitude,
        reader.real("rope.scaling.yarn_ext_factor", 1.0),
        reader.real("rope.scaling.yarn_beta_fast", 32.0),
        reader.real("rope.scaling.yarn_beta_slow", 1.0),
    )


def _window_rope(reader: _Reader, graph: Graph) -> Rope:
    """The rotation of layers with a window: the same, unless the architecture has another base or no scaling there."""
    full = _rope(reader)
    base = reader.real("rope.freq_base_swa", graph.window_rope_base or full.base)
    return replace(full, base=base) if graph.scaled_window_rope else Rope(base)
