"""T5: an encoder beside the decoder; ffn_gate decides between its gated GELU and the plain ReLU of the first T5."""

from __future__ import annotations

from dataclasses import replace

from quantcli.architectures import keys
from quantcli.architectures.architecture import Architecture, Graph

T5_GRAPH = Graph(
    rope="none",
    attention_scale="one",
    activation="gelu_tanh",
    encoder_decoder=True,
    final_norm="dec.output_norm",
)
READS = ("attention.relative_buckets_count", "decoder_block_count", "decoder_start_token_id")
HARMLESS = (keys.EPSILON["layer"],)

T5 = Architecture("t5", T5_GRAPH, reads=READS, harmless=HARMLESS)
T5_ENCODER = Architecture(
    "t5encoder",
    replace(T5_GRAPH, decodes=False, final_norm="enc.output_norm"),
    reads=READS,
    harmless=HARMLESS,
    head="none",
)

ARCHITECTURES = (T5, T5_ENCODER)
