"""What the forward pass has to know about one model: the numbers of its metadata beside its family's graph flags."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Any

from quantcli import families
from quantcli.errors import BadConfig, UnknownArchitecture, UnsupportedGraph
from quantcli.families.declaration import Graph
from quantcli.model import Model

# Graph flags that name computations which the runner lacks.
LACKING = {
    "latent": "latent attention",
    "recurrent": "recurrent layers",
    "encoder_decoder": "an encoder beside the decoder",
}
MISSING_KIND = "{what}: not in this runner; convert, inspect and verify take the model"


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary embedding of one kind of layer. ``base`` and ``scale`` (a divisor of the position), yarn's parameters."""

    base: float
    scale: float = 1.0
    kind: str = "none"  # of scaling: "none", "linear", "yarn", "longrope"
    original: int = 0  # context that the unscaled model was trained with
    magnitude: float = 1.0  # cosines and sines are multiplied by it
    extrapolation: float = 1.0
    fast: float = 32.0
    slow: float = 1.0


@dataclass(frozen=True, slots=True)
class Settings:
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
    logit_scale: float  # a factor, whatever the family writes
    experts: int
    experts_used: int
    expert_norm: bool
    expert_scale: float
    gating: str
    parallel: bool

    def rotates(self, layer: int) -> bool:
        """Whether the layer has rotary positions."""
        period = self.graph.rope_skip_period
        return self.graph.rope != "none" and not (period and (layer + 1) % period == 0)


class _Reader:
    """Typed access to ``<architecture>.<key>``; what has no value per layer may not differ between layers."""

    def __init__(self, model: Model) -> None:
        self.metadata, self.architecture = model.metadata, model.architecture

    def get(self, key: str, default: Any = None) -> Any:
        value = self.metadata.get(f"{self.architecture}.{key}")
        return default if value is None else value.data

    def number(self, key: str, default: float | None = None, least: float = 0.0, most: float = 2.0**31) -> float:
        value = self.get(key, default)
        if hasattr(value, "__len__") and not isinstance(value, str):
            if len(set(value)) != 1:
                raise UnsupportedGraph(
                    f"{key} differs between layers",
                    where=f"{self.architecture}.{key}",
                    hint=MISSING_KIND.format(what="layers of different kinds"),
                )
            value = value[0]
        if value is None or isinstance(value, (str, bool)) or not least <= value <= most:
            problem = "is missing" if value is None else f"is {value!r}"
            raise BadConfig(
                f"{key} {problem}", where=f"{self.architecture}.{key}", hint="the file does not describe its model"
            )
        return value

    def count(self, key: str, default: int | None = None, least: int = 1) -> int:
        return int(self.number(key, default, least))

    def real(self, key: str, default: float | None = None) -> float:
        return float(self.number(key, default, -1e30, 1e30))


def read(model: Model, *, length: int | None = None) -> Settings:
    """The settings of ``model``; ``length`` is the context it will be run with (longrope chooses by it).

    Raises UnknownArchitecture, UnsupportedGraph, BadConfig.
    """
    graph = families.graph(model.architecture)
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
    return _read(_Reader(model), graph, model, length)


def _read(reader: _Reader, graph: Graph, model: Model, length: int | None) -> Settings:
    layers, hidden, heads = (reader.count(key) for key in ("block_count", "embedding_length", "attention.head_count"))
    key = reader.count("attention.key_length", max(hidden // heads, 1))
    scale = reader.real("logit_scale", 1.0)
    window = reader.count("attention.sliding_window", 0, least=0) if graph.window_period else 0
    experts = reader.count("expert_count", 0, least=0)
    kv_heads = reader.count("attention.head_count_kv", heads)
    if heads % kv_heads:
        raise BadConfig(f"{heads} heads are no multiple of {kv_heads} key/value heads", where=model.name)
    return Settings(
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
        expert_norm=bool(reader.get("expert_weights_norm", graph.expert_norm)),
        expert_scale=reader.real("expert_weights_scale", 1.0) or 1.0,
        gating={1: "softmax", 2: "sigmoid"}.get(reader.get("expert_gating_func"), graph.expert_gating),
        parallel=bool(reader.get("use_parallel_residual", graph.parallel)),
    )


def _attention_scale(reader: _Reader, graph: Graph, layers: int, hidden: int, heads: int, key: int) -> float:
    """What the products of queries and keys are multiplied by."""
    if graph.attention_scale == "one":
        return 1.0
    width = hidden / heads if graph.wide_query_layers and layers == graph.wide_query_layers else key
    return reader.real("attention.scale", 0.0) or 1 / sqrt(width)


def _window_layers(reader: _Reader, graph: Graph, layers: int, window: int) -> tuple[bool, ...]:
    """Which layers see ``window`` positions only."""
    pattern = reader.get("attention.sliding_window_pattern", graph.window_period)
    if not window:
        return (False,) * layers
    if hasattr(pattern, "__len__"):
        return tuple(bool(pattern[i % len(pattern)]) for i in range(layers))
    period = max(int(pattern), 1)
    return tuple(period == 1 or i % period < period - 1 for i in range(layers))


def _rope(reader: _Reader) -> Rope:
    kind = reader.get("rope.scaling.type", "linear")
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
    """The rotation of layers with a window: the same, unless the family has another base or no scaling there."""
    full = _rope(reader)
    base = reader.real("rope.freq_base_swa", graph.window_rope_base or full.base)
    if graph.scaled_window_rope:
        return Rope(
            base, full.scale, full.kind, full.original, full.magnitude, full.extrapolation, full.fast, full.slow
        )
    return Rope(base)
