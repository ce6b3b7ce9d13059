"""LoRA adapters made up for a checkpoint, as the package peft writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy
from numpy.typing import NDArray

from helpers.checkpoints import encode_tensors

Floats = NDArray[numpy.float32]
ROOT = "base_model.model."


@dataclass
class Made:
    """An adapter: ``tensors`` by the names below ``root``, the settings of adapter_config.json."""

    tensors: dict[str, Floats] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=lambda: {"peft_type": "LORA", "r": 4, "lora_alpha": 12})
    root: str = ROOT

    def matrix(self, module: str, rows: int, columns: int, rank: int = 4, infix: str = "") -> Made:
        """Factors for the module's matrix [rows, columns]."""
        self.tensors[f"{module}.lora_A{infix}.weight"] = values(f"{module} A", rank, columns)
        self.tensors[f"{module}.lora_B{infix}.weight"] = values(f"{module} B", rows, rank)
        return self

    def embedding(self, module: str, tokens: int, width: int, rank: int = 4) -> Made:
        self.tensors[f"{module}.lora_embedding_A"] = values(f"{module} A", rank, tokens)
        self.tensors[f"{module}.lora_embedding_B"] = values(f"{module} B", width, rank)
        return self

    def write(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "adapter_config.json").write_text(json.dumps(self.settings))
        rows = {self.root + name: ("F32", [*data.shape], data.tobytes()) for name, data in self.tensors.items()}
        (folder / "adapter_model.safetensors").write_bytes(encode_tensors(rows))
        return folder

    def product(self, module: str, transposed: bool = False) -> NDArray[numpy.float64]:
        """B @ A in float64, summed in the order of the rank; transposed for embeddings, too."""
        embedding = f"{module}.lora_embedding_A" in self.tensors
        kind = "lora_embedding_{}" if embedding else "lora_{}.weight"
        a, b = (self.tensors[f"{module}.{kind.format(letter)}"].astype(numpy.float64) for letter in "AB")
        total = numpy.zeros((len(b), a.shape[1]))
        for column, row in zip(b.T, a, strict=True):
            total += column[:, None] * row
        return total.T if embedding or transposed else total


def values(name: str, rows: int, columns: int) -> Floats:
    """Normal numbers that belong to a name."""
    seed = sum(name.encode()) + 1000 * len(name)
    return (numpy.random.default_rng(seed).standard_normal((rows, columns)) / 8).astype(numpy.float32)


def for_tensors(shapes: Mapping[str, tuple[int, ...]], **settings: Any) -> Made:
    """An adapter of every matrix among these tensors of a checkpoint; embeddings are adapted as such."""
    made = Made()
    made.settings |= settings
    for name, shape in shapes.items():
        module = name.removesuffix(".weight")
        if len(shape) != 2 or module == name:
            continue
        if module.endswith(("embed_tokens", "wte", "word_embeddings", "embed_in")):
            made.embedding(module, *shape)
        else:
            made.matrix(module, *(reversed(shape) if settings.get("fan_in_fan_out") else shape))
    return made
