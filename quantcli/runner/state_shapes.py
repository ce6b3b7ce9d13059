"""The tensors of layers with a state and their shapes, GGUF order, by the kind of state; names without ``blk.N.``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from quantcli.architectures.topology import norm_tensor

if TYPE_CHECKING:
    from quantcli.runner.settings import NetworkSettings
    from quantcli.runner.states import StateSettings

Shape: TypeAlias = tuple[int, ...]


class Expected(NamedTuple):
    """One tensor that the forward pass reads; not ``needed``: where the model has it."""

    name: str
    shape: Shape
    needed: bool = True


def of(settings: NetworkSettings, layer: int, channels: int) -> Iterator[Expected]:
    """What the mixer of ``layer`` reads, and the channel mix of width ``channels`` where it has one."""
    assert settings.state is not None
    yield from _SHAPES[settings.state.kind](settings, settings.state, layer)
    if mixes_channels(settings):
        yield from _matrix("channel_mix_key", settings.hidden, channels)
        yield from _matrix("channel_mix_value", channels, settings.hidden)


def mixes_channels(settings: NetworkSettings) -> bool:
    """Whether a channel mix stands in the place of the MLP; its tensors are among those of `of`."""
    return settings.state is not None and settings.state.kind in ("rwkv6", "rwkv7")


def _matrix(name: str, columns: int, rows: int, *, needed: bool = True) -> Iterator[Expected]:
    yield Expected(f"{name}.weight", (columns, rows), needed)
    yield Expected(f"{name}.bias", (rows,), needed=False)


def _norm(s: NetworkSettings, name: str, width: int, *, needed: bool = True) -> Expected:
    return Expected(norm_tensor(s.graph, name), (width,), needed)


def _mamba(s: NetworkSettings, t: StateSettings, layer: int) -> Iterator[Expected]:
    yield from _matrix("ssm_in", s.hidden, 2 * t.inner)
    yield from _matrix("ssm_x", t.inner, t.rank + 2 * t.size)
    yield Expected("ssm_dt.weight", (t.rank, t.inner))
    yield Expected("ssm_dt.bias", (t.inner,))
    yield Expected("ssm_a", (t.size, t.inner))
    yield Expected("ssm_d", (t.inner,))
    yield from _convolution("ssm_conv1d", t.kernel, t.inner)
    for name, width in (("ssm_dt_norm", t.rank), ("ssm_b_norm", t.size), ("ssm_c_norm", t.size)):
        yield _norm(s, name, width, needed=False)
    yield from _matrix("ssm_out", t.inner, s.hidden)


def _mamba2(s: NetworkSettings, t: StateSettings, layer: int) -> Iterator[Expected]:
    mixed = t.inner + 2 * t.shared
    yield from _matrix("ssm_in", s.hidden, t.inner + mixed + t.heads)
    yield Expected("ssm_dt.bias", (t.heads,))
    yield Expected("ssm_a", (1, t.heads))
    yield Expected("ssm_d", (1, t.heads))
    yield from _convolution("ssm_conv1d", t.kernel, mixed)
    yield Expected("ssm_norm.weight", (t.inner // t.groups, t.groups), needed=False)
    yield from _matrix("ssm_out", t.inner, s.hidden)


def _plamo2(s: NetworkSettings, t: StateSettings, layer: int) -> Iterator[Expected]:
    yield from _matrix("ssm_in", s.hidden, 2 * t.inner)
    yield from _matrix("ssm_x", t.inner, t.rank + 2 * t.size)
    yield Expected("ssm_dt.weight", (t.rank, t.heads))
    yield Expected("ssm_dt.bias", (t.heads,))
    yield Expected("ssm_a", (t.heads,))
    yield Expected("ssm_d", (t.heads,))
    yield from _convolution("ssm_conv1d", t.kernel, t.inner)
    for name, width in (("ssm_dt_norm", t.rank), ("ssm_b_norm", t.size), ("ssm_c_norm", t.size)):
        yield _norm(s, name, width)
    yield from _matrix("ssm_out", t.inner, s.hidden)


def _short_convolution(s: NetworkSettings, t: StateSettings, layer: int) -> Iterator[Expected]:
    yield from _matrix("shortconv.in_proj", s.hidden, 3 * s.hidden)
    yield from _convolution("shortconv.conv", t.kernel, s.hidden)
    yield from _matrix("shortconv.out_proj", s.hidden, s.hidden)


def _delta(s: NetworkSettings, t: StateSettings, layer: int) -> Iterator[Expected]:
    yield from _matrix("attn_qkv", s.hidden, 2 * t.shared + t.inner)
    yield from _matrix("attn_gate", s.hidden, t.inner)
    if s.graph.tiled_heads:
        yield from _matrix("ssm_alpha", s.hidden, t.heads)
        yield from _matrix("ssm_beta", s.hidden, t.heads)
    else:
        yield from _matrix("ssm_ba", s.hidden, 2 * t.heads)
    yield Expected("ssm_a", (t.heads,))
    yield Expected("ssm_dt.bias", (t.heads,))
    yield Expected("ssm_conv1d.weight", (t.kernel, 2 * t.shared + t.inner))
    yield Expected("ssm_norm.weight", (t.width,))
    yield from _matrix("ssm_out", t.inner, s.hidden)


def _kimi_delta(s: NetworkSettings, t: StateSettings, layer: int) -> Iterator[Expected]:
    for part in "qkv":
        yield from _matrix(f"attn_{part}", s.hidden, t.inner)
        yield Expected(f"ssm_conv1d_{part}.weight", (t.kernel, 1, t.inner))
    for part in "fg":
        yield from _matrix(f"ssm_{part}_a", s.hidden, t.width)
        yield from _matrix(f"ssm_{part}_b", t.width, t.inner)
    yield from _matrix("ssm_beta", s.hidden, t.heads)
    yield Expected("ssm_a", (1, t.heads))
    yield Expected("ssm_dt.bias", (t.inner,))
    yield Expected("ssm_norm.weight", (t.width,))
    yield from _matrix("attn_output", t.inner, s.hidden)


def _rwkv(s: NetworkSettings, t: StateSettings, layer: int) -> Iterator[Expected]:
    for part in ("key", "receptance", "value", "output"):
        yield from _matrix(f"time_mix_{part}", s.hidden, s.hidden)
    for part in ("weight", "bias"):
        yield Expected(f"time_mix_ln.{part}", (s.hidden,))
    yield Expected("channel_mix_lerp_k.weight", (s.hidden,))


def _rwkv6(s: NetworkSettings, t: StateSettings, layer: int) -> Iterator[Expected]:
    extra, decay = t.ranks
    yield from _rwkv(s, t, layer)
    yield from _matrix("time_mix_gate", s.hidden, s.hidden)
    yield from _matrix("time_mix_w1", s.hidden, 5 * extra)
    yield Expected("time_mix_w2.weight", (extra, s.hidden, 5))
    yield from _matrix("time_mix_decay_w1", s.hidden, decay)
    yield from _matrix("time_mix_decay_w2", decay, s.hidden)
    yield Expected("time_mix_lerp_fused.weight", (s.hidden, 1, 1, 5))
    yield Expected("time_mix_first.weight", (t.size, t.heads))
    for name in ("time_mix_decay", "time_mix_lerp_x", "channel_mix_lerp_r"):
        yield Expected(f"{name}.weight", (s.hidden,))
    yield from _matrix("channel_mix_receptance", s.hidden, s.hidden)


def _rwkv7(s: NetworkSettings, t: StateSettings, layer: int) -> Iterator[Expected]:
    decay, rate, values, gate = t.ranks
    yield from _rwkv(s, t, layer)
    for letter, rank in (("w", decay), ("a", rate), ("v", values if layer else rate), ("g", gate)):
        yield from _matrix(f"time_mix_{letter}1", s.hidden, rank, needed=letter != "v" or layer > 0)
        yield from _matrix(f"time_mix_{letter}2", rank, s.hidden, needed=letter != "v" or layer > 0)
        if letter != "g":
            yield Expected(f"time_mix_{letter}0.weight", (s.hidden,), letter != "v" or layer > 0)
    for name in ("k_a", "k_k", "r_k"):
        yield Expected(f"time_mix_{name}.weight", (s.hidden,))
    yield Expected("time_mix_lerp_fused.weight", (s.hidden, 1, 1, 6))


def _convolution(name: str, kernel: int, channels: int) -> Iterator[Expected]:
    yield Expected(f"{name}.weight", (kernel, channels))
    yield Expected(f"{name}.bias", (channels,), needed=False)


_SHAPES: Mapping[str, Callable[[NetworkSettings, StateSettings, int], Iterator[Expected]]] = {
    "mamba": _mamba, "mamba2": _mamba2, "plamo2": _plamo2, "short_convolution": _short_convolution, "delta": _delta,
    "kimi_delta": _kimi_delta, "rwkv6": _rwkv6, "rwkv7": _rwkv7,
}  # fmt: skip
