"""The tensors of layers with latent attention and their shapes in GGUF order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from quantcli.runner.state_shapes import Expected

if TYPE_CHECKING:
    from quantcli.runner.settings import NetworkSettings


def of(s: NetworkSettings, layer: int) -> Iterator[Expected]:
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
    if latent.absorbed:
        yield Expected("attn_k_b.weight", (latent.plain, latent.rank, heads))
        yield Expected("attn_v_b.weight", (latent.rank, latent.value, heads))
    else:
        yield from _matrix("attn_kv_b", latent.rank, heads * (latent.plain + latent.value))
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
