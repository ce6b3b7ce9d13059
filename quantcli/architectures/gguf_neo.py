"""NeoBERT: an encoder built like a Llama."""

from __future__ import annotations

from quantcli.architectures.architecture import Architecture, Graph

NEO_BERT = Architecture(
    "neo-bert",
    Graph(causal=False, fused_qkv=True, mlp="fused", final_norm="enc.output_norm", classifier="tanh"),
    head="none",
)

ARCHITECTURES = (NEO_BERT,)
