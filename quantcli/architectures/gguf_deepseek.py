"""DeepSeek V1, V2, V3 and V3.2: latent attention, stacked and shared experts."""

from __future__ import annotations

from quantcli.architectures import keys
from quantcli.architectures.architecture import Architecture, Graph

DEEPSEEK2 = Architecture(
    "deepseek2",
    Graph(latent=True, expert_norm=False, guessed_sigmoid=(154880, 47, 48)),
    reads=keys.EXPERTS + keys.ROUTING,
)
DEEPSEEK32 = Architecture(
    "deepseek32",
    Graph(latent=True, indexer=True, indexer_rope="neox", expert_norm=False),
    reads=keys.EXPERTS + keys.ROUTING,
)
DEEPSEEK = Architecture("deepseek", Graph(expert_norm=False), reads=keys.EXPERTS + keys.ROUTING)
# Plain attention, in which whole heads rotate: llama.cpp does not read the window, nor how much rotates.
DEEPSEEK_OCR = Architecture(
    "deepseek2-ocr",
    Graph(rope="neox", expert_norm=False),
    reads=keys.EXPERTS + keys.ROUTING,
    harmless=("attention.sliding_window",),
)

ARCHITECTURES = (DEEPSEEK, DEEPSEEK2, DEEPSEEK_OCR, DEEPSEEK32)
