"""The sizes of latent attention and of its indexer, read from metadata and checked against one another."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import log

from quantcli.architectures import Graph
from quantcli.runner.ropes import Rope
from quantcli.runner.schema import Reader


@dataclass(frozen=True, slots=True)
class LatentSizes:
    """Widths in elements. A head's query is ``plain`` elements for the latent's keys and ``rotated`` ones for the key
    that all heads share; its values are ``value`` elements.

    ``absorbed``: the matrices that make keys and values of the latent are apart in the file, and the cache holds
    latents; else they are one, and it holds each head's keys and values.
    """

    rank: int  # of the latent that keys and values of all heads are made of
    query_rank: int  # of what queries are made of; 0: of the stream itself
    plain: int
    rotated: int
    value: int
    absorbed: bool = True

    @property
    def key(self) -> int:
        """One head's query."""
        return self.plain + self.rotated

    @property
    def mixed(self) -> int:
        """What attention mixes of a position, for one head."""
        return self.rank if self.absorbed else self.value

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
    absorbed = "attention.key_length_mla" in reader.entries
    length, width = reader.whole("attention.key_length"), reader.whole("attention.value_length", 0)
    key = reader.whole("attention.key_length_mla") if absorbed else length
    if key <= rotated:
        raise reader.bad("attention.key_length", f"is {key}: {rotated} elements of it rotate, some must not")
    if absorbed and length != rank + rotated:
        raise reader.bad("attention.key_length", f"is {length}: not {rank + rotated}")
    if not absorbed and not width:
        width = max(reader.whole("embedding_length") // max(reader.whole("attention.head_count"), 1), 1)
    return LatentSizes(
        rank=rank,
        query_rank=reader.whole("attention.q_lora_rank", 0),
        plain=key - rotated,
        rotated=rotated,
        value=reader.whole("attention.value_length_mla") if absorbed else width,
        absorbed=absorbed,
    )


def stretched(reader: Reader, rope: Rope) -> tuple[Rope, float]:
    """The rotation of latent attention under yarn, and the factor of its scores: the model's own factor of long
    contexts (``mscale_all_dim``, a tenth of it in the file) counts in the scores instead of the rotation.

    As llama.cpp computes it from what its converter writes.
    """
    if rope.kind != "yarn" or rope.extrapolation == 0 or rope.scale <= 1:
        return rope, 1.0
    everywhere = rope.log_multiplier / 0.1
    length = log(rope.scale)

    def growth(multiplier: float) -> float:
        return 1 + 0.1 * multiplier * length

    turned = everywhere if reader.architecture == "deepseek2" and everywhere not in (0.0, 1.0) else 1.0
    magnitude = rope.magnitude * growth(turned) / growth(everywhere)
    # positions.py multiplies by growth(1)
    return replace(rope, magnitude=magnitude / growth(1), log_multiplier=0.0), (magnitude * growth(everywhere)) ** 2


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
