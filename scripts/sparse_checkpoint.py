#!/usr/bin/env python3
"""Write a checkpoint of a very large model whose weights are holes: right in form, takes no disk, good for plans.

    python scripts/sparse_checkpoint.py build/one-trillion [--shape 1t] [--shards 128] [--imatrix FILE]
    python scripts/sparse_checkpoint.py build/eight --real 8 [--imatrix FILE]

The shapes are those of published models: `1t` has 61 layers of 384 experts (1.03 * 10^12 weights, 2 TB), `744b` 78
layers of 256 experts, `70b` is a dense Llama. Configuration, headers, tokenizer are whole; every weight reads as zero.
`--real` writes a Llama-shaped checkpoint of that many gigabytes with real weights instead (make_checkpoint.py).
"""

from __future__ import annotations

import argparse
import json
import struct
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import NamedTuple

import make_checkpoint

Tensor = tuple[str, tuple[int, ...]]  # name, torch shape
BYTES = 2  # of a weight: BF16


class Large(NamedTuple):
    """Sizes of a model with latent attention and experts (DeepSeek V3 and its like); without experts a Llama."""

    hidden: int
    layers: int
    tokens: int
    heads: int
    inner: int  # of a dense feed-forward part
    key_heads: int = 0  # of a Llama
    experts: int = 0
    expert_inner: int = 0
    dense: int = 0  # layers in front that have no experts
    query_rank: int = 0
    key_rank: int = 0
    plain: int = 0  # of a head's key, what is not rotated
    rotated: int = 0
    value: int = 0

    def mlp(self, prefix: str, inner: int) -> list[Tensor]:
        up, down = (inner, self.hidden), (self.hidden, inner)
        shapes = {"down_proj": down, "gate_proj": up, "up_proj": up}
        return [(f"{prefix}.{name}.weight", shape) for name, shape in shapes.items()]

    def latent(self, prefix: str) -> list[Tensor]:
        heads, key = self.heads, self.plain + self.rotated
        shapes: dict[str, tuple[int, ...]] = {
            "kv_a_layernorm": (self.key_rank,),
            "kv_a_proj_with_mqa": (self.key_rank + self.rotated, self.hidden),
            "kv_b_proj": (heads * (self.plain + self.value), self.key_rank),
            "o_proj": (self.hidden, heads * self.value),
            "q_a_layernorm": (self.query_rank,),
            "q_a_proj": (self.query_rank, self.hidden),
            "q_b_proj": (heads * key, self.query_rank),
        }
        return [(f"{prefix}.{name}.weight", shape) for name, shape in shapes.items()]

    def grouped(self, prefix: str) -> list[Tensor]:
        head = self.hidden // self.heads
        shapes = {
            "k_proj": (self.key_heads * head, self.hidden),
            "o_proj": (self.hidden, self.hidden),
            "q_proj": (self.hidden, self.hidden),
            "v_proj": (self.key_heads * head, self.hidden),
        }
        return [(f"{prefix}.{name}.weight", shape) for name, shape in shapes.items()]

    def layer(self, number: int) -> Iterator[Tensor]:
        prefix = f"model.layers.{number}"
        yield f"{prefix}.input_layernorm.weight", (self.hidden,)
        if number < self.dense or not self.experts:
            yield from self.mlp(f"{prefix}.mlp", self.inner)
        else:
            for expert in range(self.experts):
                yield from self.mlp(f"{prefix}.mlp.experts.{expert}", self.expert_inner)
            yield f"{prefix}.mlp.gate.e_score_correction_bias", (self.experts,)
            yield f"{prefix}.mlp.gate.weight", (self.experts, self.hidden)
            yield from self.mlp(f"{prefix}.mlp.shared_experts", self.expert_inner)
        yield f"{prefix}.post_attention_layernorm.weight", (self.hidden,)
        yield from (self.latent if self.key_rank else self.grouped)(f"{prefix}.self_attn")

    def every(self) -> Iterator[Tensor]:
        """All tensors in the order in which they are stored."""
        yield "model.embed_tokens.weight", (self.tokens, self.hidden)
        for number in range(self.layers):
            yield from self.layer(number)
        yield "model.norm.weight", (self.hidden,)
        yield "lm_head.weight", (self.tokens, self.hidden)

    def config(self) -> dict[str, object]:
        common = {
            "architectures": ["DeepseekV3ForCausalLM" if self.key_rank else "LlamaForCausalLM"],
            "model_type": "deepseek_v3" if self.key_rank else "llama",
            "hidden_act": "silu",
            "rms_norm_eps": 1e-6,
            "rope_theta": 50000.0,
            "max_position_embeddings": 131072,
            "attention_bias": False,
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
            "vocab_size": self.tokens,
            "hidden_size": self.hidden,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.key_heads or self.heads,
            "intermediate_size": self.inner,
            "bos_token_id": self.tokens - 2,
            "eos_token_id": self.tokens - 1,
        }
        if not self.key_rank:
            return common
        return common | {
            "q_lora_rank": self.query_rank,
            "kv_lora_rank": self.key_rank,
            "qk_nope_head_dim": self.plain,
            "qk_rope_head_dim": self.rotated,
            "v_head_dim": self.value,
            "moe_intermediate_size": self.expert_inner,
            "n_routed_experts": self.experts,
            "n_shared_experts": 1,
            "num_experts_per_tok": 8,
            "first_k_dense_replace": self.dense,
            "n_group": 1,
            "topk_group": 1,
            "norm_topk_prob": True,
            "routed_scaling_factor": 2.5,
            "scoring_func": "sigmoid",
            "topk_method": "noaux_tc",
        }


# fmt: off
SHAPES = {
    "1t":   Large(7168, 61, 163_840, 64, 18432, experts=384, expert_inner=2048, dense=1,
                  query_rank=1536, key_rank=512, plain=128, rotated=64, value=128),
    "744b": Large(6144, 78, 154_880, 64, 12288, experts=256, expert_inner=2048, dense=3,
                  query_rank=2048, key_rank=512, plain=192, rotated=64, value=256),
    "70b":  Large(8192, 80, 128_256, 64, 28672, key_heads=8),
    "tiny": Large(256, 3, 600, 4, 512, experts=8, expert_inner=256, dense=1,
                  query_rank=64, key_rank=256, plain=32, rotated=32, value=32),
}
# fmt: on


def into_shards(tensors: list[Tensor], count: int) -> list[list[Tensor]]:
    """Consecutive groups of about the same size."""
    return make_checkpoint.into_shards(tensors, count)


def write_shard(path: Path, tensors: list[Tensor]) -> None:
    """A safetensors file whose data is one hole."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, shape in tensors:
        end = position + BYTES * prod(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [position, end]}
        position = end
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.truncate(8 + len(raw) + position)


def make(folder: Path, shape: Large, shards: int = 128) -> tuple[int, int]:
    """Write the checkpoint; returns (weights, tensors)."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = list(shape.every())
    groups = into_shards(tensors, shards)
    places = {}
    for index, group in enumerate(groups):
        name = f"model-{index + 1:05d}-of-{len(groups):05d}.safetensors"
        write_shard(folder / name, group)
        places |= {tensor: name for tensor, _ in group}
    weights = sum(prod(sizes) for _, sizes in tensors)
    whole, config = make_checkpoint.tokenizer(shape.tokens)
    index_file = {"metadata": {"total_size": BYTES * weights}, "weight_map": places}
    for name, content in {
        "config.json": shape.config(),
        "tokenizer.json": whole,
        "tokenizer_config.json": config,
        "model.safetensors.index.json": index_file,
    }.items():
        (folder / name).write_text(json.dumps(content, indent=1), encoding="utf-8")
    return weights, len(tensors)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the checkpoint goes (created)")
    parser.add_argument("--shape", choices=SHAPES, default="1t")
    parser.add_argument("--shards", type=int, default=128, help="number of safetensors files")
    parser.add_argument("--real", type=float, metavar="GB", help="a Llama-shaped one with real weights instead")
    parser.add_argument("--imatrix", type=Path, metavar="FILE", help="with --real: also an importance matrix")
    given = parser.parse_args()
    if given.real:
        columns, _, tokens = make_checkpoint.SHAPES["1.1b"]
        layers = make_checkpoint.layers_for(columns, tokens, given.real * 1e9)
        total = make_checkpoint.make(
            given.folder, make_checkpoint.Shape(columns, layers, tokens), imatrix=given.imatrix
        )
        print(f"{given.folder}: {total / 1e9:.2f} GB, {layers} layers of {columns} columns")
        return
    if given.imatrix:
        parser.error("--imatrix goes with --real")
    weights, tensors = make(given.folder, SHAPES[given.shape], given.shards)
    print(
        f"{given.folder}: {weights / 1e9:,.1f} * 10^9 weights in {tensors:,} tensors, {BYTES * weights / 1e12:.2f} TB"
    )


if __name__ == "__main__":
    main()
