"""The numbers of an encoder-decoder beyond those of a decoder."""

from __future__ import annotations

from typing import NamedTuple

from quantcli.architectures import Graph
from quantcli.runner.schema import Reader


class Sides(NamedTuple):
    """Layers of the decoder (0: there is none), buckets of distances, and the token that the decoder begins with."""

    decoder_layers: int
    buckets: int
    start: int


def read(reader: Reader, graph: Graph) -> Sides | None:
    """None for a model of one side. Raises BadConfig."""
    if not graph.encoder_decoder:
        return None
    layers = reader.whole("decoder_block_count", reader.whole("block_count")) if graph.decodes else 0
    return Sides(layers, reader.whole("attention.relative_buckets_count"), reader.whole("decoder_start_token_id", 0))
