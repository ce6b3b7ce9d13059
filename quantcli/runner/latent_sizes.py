"""The sizes of latent attention and of its indexer, read from metadata and checked against one another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import log
from typing import TYPE_CHECKING

from quantcli.architectures import Graph
from quantcli.runner.schema import Reader
from quantcli.runner.state_shapes import Expected

if TYPE_CHECKING:
    from quantcli.runner.settings import NetworkSettings, Rope


@dataclass(frozen=True, slots=True)
class LatentSizes:
    """Widths in elements. A head's query is ``plain`` elements for the latent's keys and ``rotated`` ones for the key
    that all heads share; its values are ``value`` elements."""

    rank: int  # of the latent that keys and values of all heads are made of
    query_rank: int  # of what queries are made of; 0: of the stream itself
    plain: int
    rotated: int
    value: int

    @property
    def key(self) -> int:
        """One head's query."""
        return self.plain + self.rotated

    @property
    def stored(self) -> int:
        """What the cache holds of a position: the latent, then the shared key."""
        return self.rank + self.rotated


@dataclass(frozen=True, slots=True)
class IndexerSizes:
    """``heads`` of ``width`` elements score the positions; a query sees the ``most`` best. ``full``: which layers
    have an indexer of their own."""

    heads: int
    width: int
    most: int
    full: tuple[bool, ...]


def read_latent(reader: Reader, graph: Graph) -> LatentSizes | None:
    """None for other attention. Raises BadConfig."""
    if not graph.latent:
        return None
    rank, rotated = reader.whole("attention.kv_lora_rank"), reader.whole("rope.dimension_count")
    key = reader.whole("attention.key_length_mla")
    if key <= rotated:
        raise reader.bad("attention.key_length_mla", f"is {key}: {rotated} elements of it rotate, some must not")
    for name, given, wanted in (
        ("key_length", reader.whole("attention.key_length"), rank + rotated),
        ("value_length", reader.whole("attention.value_length"), rank),
    ):
        if given != wanted:
            raise reader.bad(f"attention.{name}", f"is {given}, its parts are {wanted}")
    return LatentSizes(
        rank=rank,
        query_rank=reader.whole("attention.q_lora_rank", 0),
        plain=key - rotated,
        rotated=rotated,
        value=reader.whole("attention.value_length_mla"),
    )


def stretched(reader: Reader, rope: Rope) -> tuple[Rope, float]:
    """The rotation of latent attention under yarn, and the factor of its scores: the model's own factor of long
    contexts (``mscale_all_dim``, a tenth of it in the file) counts in the scores instead of the rotation.

    As llama.cpp computes it from what its converter writes.
    """
    if rope.kind != "yarn" or rope.extrapolation == 0 or rope.scale <= 1:
        return rope, 1.0
    everywhere = reader.real("rope.scaling.yarn_log_multiplier", 0.0) / 0.1
    length = log(rope.scale)

    def growth(multiplier: float) -> float:
        return 1 + 0.1 * multiplier * length

    turned = everywhere if reader.architecture == "deepseek2" and everywhere not in (0.0, 1.0) else 1.0
    magnitude = rope.magnitude * growth(turned) / growth(everywhere)
    # positions.py multiplies by growth(1)
    return replace(rope, magnitude=magnitude / growth(1)), (magnitude * growth(everywhere)) ** 2


def read_indexer(reader: Reader, graph: Graph, layers: int) -> IndexerSizes | None:
    """None where no indexer chooses keys. Raises BadConfig."""
    if not graph.indexer:
        return None
    types = reader.value("attention.indexer.types", None)
    full = tuple(map(bool, types))[:layers] if isinstance(types, list) else (True,) * layers
    if not full[0]:
        raise reader.bad("attention.indexer.types", "begins with a layer that takes over the choice of one before it")
    found = IndexerSizes(
        heads=reader.whole("attention.indexer.head_count"),
        width=reader.whole("attention.indexer.key_length"),
        most=reader.whole("attention.indexer.top_k"),
        full=full,
    )
    if found.width < reader.whole("rope.dimension_count"):
        raise reader.bad("attention.indexer.key_length", f"is {found.width}: more elements of it rotate")
    return found


def shapes(s: NetworkSettings, layer: int) -> Iterator[Expected]:
    """The tensors of a layer with latent attention, names without ``blk.N.``."""
    latent, heads = s.latent, s.attention[layer].queries
    assert latent is not None
    if latent.query_rank:
        yield from _matrix("attn_q_a", s.hidden, latent.query_rank)
        yield Expected("attn_q_a_norm.weight", (latent.query_rank,))
        yield from _matrix("attn_q_b", latent.query_rank, heads * latent.key)
    else:
        yield from _matrix("attn_q", s.hidden, heads * latent.key)
    yield from _matrix("attn_kv_a_mqa", s.hidden, latent.stored)
    yield Expected("attn_kv_a_norm.weight", (latent.rank,))
    yield Expected("attn_k_b.weight", (latent.plain, latent.rank, heads))
    yield Expected("attn_v_b.weight", (latent.rank, latent.value, heads))
    yield from _matrix("attn_output", heads * latent.value, s.hidden)
    if s.indexer is not None:
        own, needed = s.indexer, s.indexer.full[layer]
        yield from _matrix("indexer.attn_q_b", latent.query_rank, own.heads * own.width, needed)
        yield from _matrix("indexer.attn_k", s.hidden, own.width, needed)
        yield from _matrix("indexer.proj", s.hidden, own.heads, needed)
        yield Expected("indexer.k_norm.weight", (own.width,), needed)
        yield Expected("indexer.k_norm.bias", (own.width,), needed)


def _matrix(name: str, columns: int, rows: int, needed: bool = True) -> Iterator[Expected]:
    yield Expected(f"{name}.weight", (columns, rows), needed)
    yield Expected(f"{name}.bias", (rows,), needed=False)
