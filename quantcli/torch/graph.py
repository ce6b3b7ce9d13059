"""The forward pass of Llama-like models in PyTorch, from the tensors of a GGUF model: for what needs gradients.

The runner (quantcli/runner) knows every family and no gradient; here are the families whose layers are RMS norm,
attention with rotary positions and grouped heads, and a gated MLP. Others are refused by name.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import rms_norm, scaled_dot_product_attention, silu

from quantcli.errors import UnsupportedGraph
from quantcli.model import Model
from quantcli.runner import description, llama_like
from quantcli.runner.positions import Angles
from quantcli.runner.settings import NetworkSettings
from quantcli.runner.weights import Weights


class Tensors(Protocol):
    """Where the pass takes its weights from: values by name of the tensor, None for one that is not there."""

    def __call__(self, name: str, /) -> Tensor | None: ...


class Graded:
    """One model's pass. ``length``: positions at most."""

    def __init__(self, model: Model, length: int, device: torch.device) -> None:
        """Raises UnsupportedGraph, UnknownArchitecture, ContextTooLong."""
        tensors = {tensor.name: tensor.shape for tensor in model.tensors}
        self.settings = description.check(model.architecture, model.metadata, tensors, model.name)
        _check(self.settings, model.name)
        angles = Angles(self.settings, Weights(model), length).between(False, 0, length)
        self.cosine, self.sine = (torch.from_numpy(part).to(device) for part in angles)

    def logits(self, tokens: Tensor, tensors: Tensors) -> Tensor:
        """[S, T] -> [S, T, V]."""
        settings, table = self.settings, tensors("token_embd.weight")
        assert table is not None
        x = table[tokens] * settings.embedding_scale
        for layer in range(settings.layers):
            x = x + self._attention(layer, self._norm(x, f"blk.{layer}.attn_norm", tensors), tensors) * self._share
            x = x + self._mlp(layer, self._norm(x, f"blk.{layer}.ffn_norm", tensors), tensors) * self._share
        x = self._norm(x, "output_norm", tensors)
        head = tensors("output.weight")
        return x @ (table if head is None else head).T * settings.logit_scale

    @property
    def _share(self) -> float:
        return self.settings.residual_scale

    def _norm(self, x: Tensor, name: str, tensors: Tensors) -> Tensor:
        weight = tensors(f"{name}.weight")
        assert weight is not None
        return rms_norm(x, weight.shape, weight, self.settings.eps)

    def _product(self, x: Tensor, name: str, tensors: Tensors) -> Tensor:
        weight, bias = tensors(f"{name}.weight"), tensors(f"{name}.bias")
        assert weight is not None
        return x @ weight.T if bias is None else x @ weight.T + bias

    def _attention(self, layer: int, x: Tensor, tensors: Tensors) -> Tensor:
        one, prefix, (sequences, positions) = self.settings.attention[layer], f"blk.{layer}.attn_", x.shape[:2]
        parts = []
        for name, heads, width in (("q", one.queries, one.key), ("k", one.keys, one.key), ("v", one.keys, one.value)):
            part = self._product(x, prefix + name, tensors).view(sequences, positions, heads, width)
            if tensors(f"{prefix}{name}_norm.weight") is not None:
                part = self._norm(part, f"{prefix}{name}_norm", tensors)
            turns = name != "v" and self.settings.rotates(layer)
            parts.append((self._rotated(part) if turns else part).transpose(1, 2))
        q, k, v = parts
        scale = self.settings.attention_scale
        mixed = scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=one.queries != one.keys)
        return self._product(mixed.transpose(1, 2).reshape(sequences, positions, -1), prefix + "output", tensors)

    def _rotated(self, x: Tensor) -> Tensor:
        """[S, T, heads, width]: the first elements of every head, in pairs as the family has them."""
        cosine, sine = self.cosine[: x.shape[1], None], self.sine[: x.shape[1], None]
        turned, pairs = 2 * cosine.shape[-1], cosine.shape[-1]
        if self.settings.graph.rope == "norm":
            a, b = x[..., 0:turned:2], x[..., 1:turned:2]
            front = torch.stack([a * cosine - b * sine, a * sine + b * cosine], dim=-1).flatten(-2)
        else:
            a, b = x[..., :pairs], x[..., pairs:turned]
            front = torch.cat([a * cosine - b * sine, a * sine + b * cosine], dim=-1)
        return torch.cat([front, x[..., turned:]], dim=-1)

    def _mlp(self, layer: int, x: Tensor, tensors: Tensors) -> Tensor:
        prefix = f"blk.{layer}.ffn_"
        gate = silu(self._product(x, prefix + "gate", tensors))
        return self._product(gate * self._product(x, prefix + "up", tensors), prefix + "down", tensors)


def _check(settings: NetworkSettings, where: str) -> None:
    """Raises UnsupportedGraph, naming what the family has that is not here."""
    found = llama_like.differences(settings)
    if found:
        raise UnsupportedGraph(
            f"{settings.architecture} is no Llama-like model: {', '.join(found)}",
            where=where,
            hint="`quantcli convert --quality best` takes every family that the runner knows",
        )
