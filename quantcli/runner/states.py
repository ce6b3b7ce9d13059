"""The sizes of layers with a state, read from metadata and checked against one another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from quantcli.architectures import Graph
from quantcli.runner.schema import Reader

MOST_STATE = 1 << 26  # numbers of one layer's state


@dataclass(frozen=True, slots=True)
class StateSettings:
    """Sizes in elements. ``heads`` of ``width`` values make ``inner``; each has ``size`` numbers of state per value."""

    kind: str  # `Graph.recurrent`
    kernel: int = 0  # positions that the convolution sees
    inner: int = 0
    size: int = 0
    heads: int = 0
    groups: int = 1  # of heads that share keys and queries
    rank: int = 0  # of the projection that makes the step or the decay
    ranks: tuple[int, ...] = ()  # RWKV: of the low-rank projections
    normed: bool = False  # step, key and query are normed without weights
    rescale: int = 0  # the residual stream is halved behind every so many layers

    @property
    def width(self) -> int:
        return self.inner // self.heads

    @property
    def shared(self) -> int:
        """Keys of all groups."""
        return self.groups * self.size


def read(reader: Reader, graph: Graph, hidden: int) -> StateSettings | None:
    """What the metadata say; None for a model without such layers. Raises BadConfig."""
    if graph.recurrent is None:
        return None
    found = _READERS[graph.recurrent](reader, graph, hidden)
    if found.inner * found.size > MOST_STATE:
        raise reader.bad("ssm.state_size", f"is {found.size}: a state of {found.inner * found.size} numbers")
    return found


def _mamba(reader: Reader, graph: Graph, hidden: int) -> StateSettings:
    inner = reader.whole("ssm.inner_size")
    return StateSettings(
        kind=str(graph.recurrent),
        kernel=reader.whole("ssm.conv_kernel"),
        inner=inner,
        size=reader.whole("ssm.state_size"),
        heads=inner,
        rank=reader.whole("ssm.time_step_rank"),
        normed=reader.flag("ssm.dt_b_c_rms", False),
    )


def _heads(reader: Reader, graph: Graph, hidden: int) -> StateSettings:
    """Mamba 2 and the delta rule: heads, and groups of them."""
    inner = reader.whole("ssm.inner_size")
    heads = _divisor(reader, "ssm.time_step_rank", reader.whole("ssm.time_step_rank"), inner)
    return StateSettings(
        kind=str(graph.recurrent),
        kernel=reader.whole("ssm.conv_kernel"),
        inner=inner,
        size=reader.whole("ssm.state_size"),
        heads=heads,
        groups=_divisor(reader, "ssm.group_count", reader.whole("ssm.group_count"), heads),
        rank=max(64, hidden // 16),  # of Plamo 2
    )


def _short_convolution(reader: Reader, graph: Graph, hidden: int) -> StateSettings:
    return StateSettings(str(graph.recurrent), reader.whole("shortconv.l_cache"), hidden, heads=1)


def _kimi(reader: Reader, graph: Graph, hidden: int) -> StateSettings:
    width = reader.whole("kda.head_dim")
    heads = int(max(reader.each("attention.head_count", reader.whole("block_count"))))
    kernel = reader.whole("ssm.conv_kernel")
    return StateSettings(str(graph.recurrent), kernel, heads * width, width, heads, heads, width)


def _rwkv(reader: Reader, graph: Graph, hidden: int) -> StateSettings:
    width = reader.whole("wkv.head_size")
    heads = hidden // _divisor(reader, "wkv.head_size", width, hidden)
    six = graph.recurrent == "rwkv6"
    ranks = tuple(reader.whole(key) for key in (_RANKS_6 if six else _RANKS_7))
    rescale = reader.whole("rescale_every_n_layers", 0) if six else 0
    return StateSettings(str(graph.recurrent), 2, hidden, width, heads, heads, ranks=ranks, rescale=rescale)


_RANKS_6 = ("time_mix_extra_dim", "time_decay_extra_dim")
_RANKS_7 = (
    "attention.decay_lora_rank", "attention.iclr_lora_rank", "attention.value_residual_mix_lora_rank",
    "attention.gate_lora_rank",
)  # fmt: skip
_READERS: Mapping[str, Callable[[Reader, Graph, int], StateSettings]] = {
    "mamba": _mamba, "mamba2": _heads, "plamo2": _heads, "delta": _heads, "kimi_delta": _kimi,
    "short_convolution": _short_convolution, "rwkv6": _rwkv, "rwkv7": _rwkv,
}  # fmt: skip


def _divisor(reader: Reader, key: str, number: int, whole: int) -> int:
    """A count of parts, 0 where there is one."""
    if number and whole % number:
        raise reader.bad(key, f"is {number}: {whole} is no multiple of it")
    return number or 1
