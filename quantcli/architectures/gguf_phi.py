"""Phi-2 (one norm a layer, attention and MLP side by side) and Phi-3 (q/k/v and gate/up fused)."""

from __future__ import annotations

from quantcli.architectures import keys
from quantcli.architectures.architecture import Architecture, Graph

PHI2 = Architecture(
    "phi2", Graph(norm="layer", rope="neox", parallel=True, mlp="plain", activation="gelu_tanh"), head="required"
)
# llama.cpp reads the window of Phi-3 and does not use it.
PHI3 = Architecture("phi3", Graph(rope="neox", fused_qkv=True, mlp="fused"), harmless=("attention.sliding_window",))
PHI_MOE = Architecture(
    "phimoe",
    Graph(rope="neox", norm_bias=True),  # llama.cpp's norms are RMS norms, though the model's are not
    reads=keys.EXPERTS,
    harmless=("attention.sliding_window",),
)

ARCHITECTURES = (PHI2, PHI3, PHI_MOE)
