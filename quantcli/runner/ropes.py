"""Rotary embeddings as metadata describe them: of layers without a window and of those with one."""

from __future__ import annotations

from dataclasses import dataclass, replace

from quantcli.architectures import Graph
from quantcli.runner.schema import Reader

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


@dataclass(frozen=True, slots=True)
class Ropes:
    """The rotations of a model, and how many elements of a head rotate, without window and with one."""

    dims: int
    window_dims: int
    full: Rope
    windowed: Rope


def read(reader: Reader, graph: Graph, key: int) -> Ropes:
    """What the metadata say of heads of ``key`` elements. Raises BadConfig, UnsupportedGraph."""
    if graph.rope == "none":
        return Ropes(0, 0, Rope(1.0), Rope(1.0))
    dims, full = _dimensions(reader, key, "rope.dimension_count"), _full(reader)
    windowed = _window_dimensions(reader, graph, dims), _windowed(reader, graph, full)
    return Ropes(int(dims * graph.rope_share) // 2 * 2, windowed[0], full, windowed[1])


def _dimensions(reader: Reader, key: int, name: str) -> int:
    """How many elements of a head rotate, in pairs."""
    dims = reader.whole(name, 0) or key
    if dims % 2 or dims > key:
        raise reader.bad(name, f"is {dims}: no even part of a head's {key} elements")
    return dims


def _window_dimensions(reader: Reader, graph: Graph, full: int) -> int:
    """The same in layers with a window, where they have a number of their own."""
    if graph.window_period == 0 or "rope.dimension_count_swa" not in reader.entries:
        return full
    key = reader.whole("attention.key_length_swa", 0) or reader.whole("attention.key_length", full)
    return _dimensions(reader, key, "rope.dimension_count_swa")


def _full(reader: Reader) -> Rope:
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


def _above_one(reader: Reader, key: str, base: float) -> float:
    """A base that yarn can divide by the logarithm of."""
    if base <= 1:
        raise reader.bad(key, f"is {base:g}: yarn needs more than 1")
    return base


def _windowed(reader: Reader, graph: Graph, full: Rope) -> Rope:
    """The rotation of layers with a window: the same, unless the architecture has another base or no scaling there."""
    own = graph.window_rope_base or full.base
    base = reader.real("rope.freq_base_swa", own) if graph.own_window_base else own
    if not graph.scaled_window_rope:
        return Rope(base)
    return replace(full, base=_above_one(reader, "rope.freq_base_swa", base) if full.kind == "yarn" else base)
