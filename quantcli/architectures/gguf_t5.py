"""T5: an encoder beside the decoder; ffn_gate decides between its gated GELU and the plain ReLU of the first T5."""

from __future__ import annotations

from quantcli.architectures.architecture import Architecture, Graph

T5 = Architecture("t5", Graph(rope="none", attention_scale="one", activation="gelu_tanh", encoder_decoder=True))
T5_ENCODER = Architecture("t5encoder", T5.graph)

ARCHITECTURES = (T5, T5_ENCODER)
