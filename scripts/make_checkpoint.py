#!/usr/bin/env python3
"""Write a Hugging Face checkpoint of any size, for benchmarks: right in form, random in content.

    python scripts/make_checkpoint.py build/llama-1.1b [--gigabytes 8] [--imatrix build/imatrix.gguf]
    python scripts/make_checkpoint.py build/mamba2 --config scripts/kinds/mamba2.json

It is a Llama; without a size it has the shape of TinyLlama-1.1B: 2048 columns, 22 layers, 32,000 tokens, 2.2 GB. With
--config it is what a config.json describes, of any family that quantcli declares. The same arguments give the same
bytes. Weights are heavy-tailed and of the usual spread; they repeat after 16 million, with other signs,
so that gigabytes are written at the disk's speed. The importance matrix is log-normal, per input of each layer.
"""

from __future__ import annotations

import argparse
import json
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from math import prod
from pathlib import Path
from typing import Any

import numpy

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from quantcli.families import bind, catalogue
from quantcli.families.facts import settle

SHAPES = {"1.1b": (2048, 22, 32_000), "135m": (768, 18, 32_000), "tiny": (512, 4, 4_096)}  # columns, layers, tokens
POOL = (1 << 24) - 3  # odd, so that rows never meet the same weights again
HEAD = 64
MOST_TOKENS = 1 << 20
CHUNKS, CHUNK = 60, 512  # of the importance matrix


@dataclass(frozen=True)
class Shape:
    """Sizes of a Llama model; the feed-forward part and the grouped heads follow those of TinyLlama."""

    columns: int
    layers: int
    tokens: int

    @property
    def inner(self) -> int:
        return self.columns * 11 // 4 // 256 * 256 or 256

    @property
    def heads(self) -> int:
        return self.columns // HEAD

    @property
    def key_heads(self) -> int:
        return max(self.heads // 8, 1)

    def layer(self, number: int) -> list[tuple[str, tuple[int, ...]]]:
        """(name, torch shape) of the tensors of a layer."""
        columns, inner, keys = self.columns, self.inner, self.key_heads * HEAD
        parts = {
            "input_layernorm": (columns,),
            "mlp.down_proj": (columns, inner),
            "mlp.gate_proj": (inner, columns),
            "mlp.up_proj": (inner, columns),
            "post_attention_layernorm": (columns,),
            "self_attn.k_proj": (keys, columns),
            "self_attn.o_proj": (columns, columns),
            "self_attn.q_proj": (columns, columns),
            "self_attn.v_proj": (keys, columns),
        }
        return [(f"model.layers.{number}.{name}.weight", shape) for name, shape in parts.items()]

    def tensors(self) -> list[tuple[str, tuple[int, ...]]]:
        """All tensors in the order in which they are stored."""
        rest = [("model.norm.weight", (self.columns,)), ("lm_head.weight", (self.tokens, self.columns))]
        layers = [tensor for number in range(self.layers) for tensor in self.layer(number)]
        return [("model.embed_tokens.weight", (self.tokens, self.columns)), *layers, *rest]

    def config(self) -> dict[str, object]:
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_act": "silu",
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "rope_scaling": None,
            "max_position_embeddings": 2048,
            "attention_bias": False,
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
            "vocab_size": self.tokens,
            "hidden_size": self.columns,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.key_heads,
            "head_dim": HEAD,
            "intermediate_size": self.inner,
            "bos_token_id": self.tokens - 2,
            "eos_token_id": self.tokens - 1,
        }


class Declared:
    """What a config.json describes: names and shapes are those of its family's declaration."""

    def __init__(self, config: dict[str, Any], prefix: str = "") -> None:
        """``prefix`` of the tensors' names, but for the head's."""
        self.given, self.tokens, self.prefix = config, int(config["vocab_size"]), prefix

    def tensors(self) -> list[tuple[str, tuple[int, ...]]]:
        """All tensors, in the order of the declaration."""
        choice = catalogue.choose(self.given, None)
        family = catalogue.relative(choice.family, choice.config)
        return bind.expected(family, settle(family.facts, choice.config, lambda name: None), self.prefix)

    def config(self) -> dict[str, Any]:
        return self.given | {"bos_token_id": self.tokens - 2, "eos_token_id": self.tokens - 1}


def layers_for(columns: int, tokens: int, size: float) -> int:
    """Layers that bring the checkpoint closest to ``size`` bytes."""
    empty, one = (sum(2 * prod(s) for _, s in Shape(columns, n, tokens).tensors()) for n in (0, 1))
    return max(1, round((size - empty) / (one - empty)))


# ---- weights


class Weights:
    """Random BF16 bits: pieces of a pool of weights, each from another place and with other signs."""

    def __init__(self, seed: int) -> None:
        self.random = numpy.random.default_rng(seed)
        pool = self.random.standard_normal(POOL, numpy.float32)
        pool *= 0.02 * (1 + 0.5 * numpy.abs(self.random.standard_normal(POOL, numpy.float32)))  # heavier tails
        self.pool = bfloat16(pool)

    def pieces(self, count: int) -> Iterator[numpy.ndarray]:
        """``count`` weights as uint16, a part at a time."""
        while count:
            start = int(self.random.integers(POOL - 1))
            part = self.pool[start : start + count]
            yield part ^ numpy.uint16(self.random.integers(2) << 15)
            count -= len(part)


def bfloat16(values: numpy.ndarray) -> numpy.ndarray:
    """Float32 rounded to nearest even, as the upper 16 bits."""
    bits = values.view(numpy.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(numpy.uint16)


def header_of(tensors: list[tuple[str, tuple[int, ...]]]) -> bytes:
    """What a safetensors file of BF16 tensors begins with, its length first; the tensors follow in this order."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, shape in tensors:
        end = position + 2 * prod(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [position, end]}
        position = end
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    return struct.pack("<Q", len(raw)) + raw


def write_shard(path: Path, tensors: list[tuple[str, tuple[int, ...]]], weights: Weights) -> None:
    """One safetensors file; norms are ones with a little noise."""
    with open(path, "wb") as file:
        file.write(header_of(tensors))
        for _, shape in tensors:
            if len(shape) == 1:
                noise = weights.random.standard_normal(shape[0], numpy.float32)
                file.write(bfloat16(1 + numpy.float32(0.05) * noise).tobytes())
                continue
            for part in weights.pieces(prod(shape)):
                file.write(memoryview(part).cast("B"))


def into_shards(tensors: list[tuple[str, tuple[int, ...]]], count: int) -> list[list[tuple[str, tuple[int, ...]]]]:
    """Consecutive groups of about the same size."""
    total = sum(prod(shape) for _, shape in tensors)
    groups: list[list[tuple[str, tuple[int, ...]]]] = [[] for _ in range(count)]
    done = 0
    for tensor in tensors:
        groups[min(done * count // total, count - 1)].append(tensor)
        done += prod(tensor[1])
    return [group for group in groups if group]


# ---- tokenizer


def tokenizer(tokens: int) -> tuple[dict[str, object], dict[str, object]]:
    """(tokenizer.json, tokenizer_config.json): byte-level BPE whose merges are pairs of bytes, then triples."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in printable]
    alphabet = [chr(byte) for byte in printable] + [chr(256 + index) for index in range(len(rest))]
    if not 256 + 2 < tokens <= MOST_TOKENS:
        raise SystemExit(f"--tokens {tokens}: between 259 and {MOST_TOKENS}")
    pairs = ((a, b) for a in alphabet for b in alphabet)
    triples = ((a + b, c) for a in alphabet for b in alphabet for c in alphabet)
    merges = list(islice(chain(pairs, triples), tokens - 258))
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    special = [
        {"id": tokens - 2 + index, "content": text, **plain, "special": True}
        for index, text in enumerate(("<|begin|>", "<|end|>"))
    ]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    model = {
        "type": "BPE",
        **dict.fromkeys(("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix")),
        "fuse_unk": False,
        "byte_fallback": False,
        "vocab": {text: index for index, text in enumerate([*alphabet, *(a + b for a, b in merges)])},
        "merges": [f"{a} {b}" for a, b in merges],
    }
    whole = {
        "version": "1.0",
        **dict.fromkeys(("truncation", "padding")),
        "added_tokens": special,
        "normalizer": None,
        "pre_tokenizer": level,
        "post_processor": None,
        "decoder": level | {"add_prefix_space": True},
        "model": model,
    }
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|begin|>",
        "eos_token": "<|end|>",
        "model_max_length": 2048,
        "clean_up_tokenization_spaces": False,
    }
    return whole, config


# ---- the importance matrix


def importance(shape: Shape, seed: int) -> bytes:
    """A GGUF importance matrix that fits: log-normal inputs, the same for weights that share them."""
    from quantcli.statistics.imatrix import Importance, to_gguf_bytes

    random = numpy.random.default_rng(seed + 1)
    inputs = {"attn_q": 0, "attn_k": 0, "attn_v": 0, "attn_output": 1, "ffn_gate": 2, "ffn_up": 2, "ffn_down": 3}
    sums: dict[str, numpy.ndarray] = {}
    for layer in range(shape.layers):
        sizes = (shape.columns, shape.columns, shape.columns, shape.inner)
        drawn = [random.lognormal(-3, 1.2, size) * CHUNKS * CHUNK for size in sizes]
        sums |= {f"blk.{layer}.{name}.weight": drawn[index][None] for name, index in inputs.items()}
    counts = {name: numpy.array([CHUNKS * CHUNK], numpy.float64) for name in sums}
    return to_gguf_bytes(Importance("imatrix.gguf", sums, counts, ["random.txt"], CHUNKS, CHUNK))


# ---- all of it


def make(folder: Path, shape: Shape | Declared, shards: int = 0, seed: int = 1, imatrix: Path | None = None) -> int:
    """Write the checkpoint, and the matrix to ``imatrix``; returns the bytes of its tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = shape.tensors()
    total = sum(2 * prod(sizes) for _, sizes in tensors)
    groups = into_shards(tensors, shards or max(1, round(total / 1e9)))
    weights = Weights(seed)
    places = {}
    for index, group in enumerate(groups):
        name = f"model-{index + 1:05d}-of-{len(groups):05d}.safetensors" if len(groups) > 1 else "model.safetensors"
        write_shard(folder / name, group, weights)
        places |= {tensor: name for tensor, _ in group}
    whole, config = tokenizer(shape.tokens)
    files = {"config.json": shape.config(), "tokenizer.json": whole, "tokenizer_config.json": config}
    if len(groups) > 1:
        files["model.safetensors.index.json"] = {"metadata": {"total_size": total}, "weight_map": places}
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=1), encoding="utf-8")
    if imatrix is not None and isinstance(shape, Shape):
        imatrix.write_bytes(importance(shape, seed))
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path, help="where the checkpoint goes (created)")
    parser.add_argument("--shape", choices=SHAPES, default="1.1b", help="columns, layers and tokens to start from")
    parser.add_argument("--gigabytes", type=float, help="choose the number of layers for this size (10^9 bytes)")
    parser.add_argument("--columns", type=int, help="hidden size, a multiple of 64")
    parser.add_argument("--tokens", type=int, help="size of the vocabulary")
    parser.add_argument("--shards", type=int, default=0, help="number of safetensors files (default: one per GB)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--imatrix", type=Path, metavar="FILE", help="also write an importance matrix that fits")
    parser.add_argument("--config", type=Path, metavar="FILE", help="a config.json to follow, instead of a shape")
    given = parser.parse_args()
    if given.config:
        if given.imatrix or given.gigabytes or given.columns or given.tokens:
            parser.error("--config says every size, and there is no importance matrix for it")
        total = make(given.folder, Declared(json.loads(given.config.read_text())), given.shards, given.seed)
        print(f"{given.folder}: {total / 1e9:.2f} GB, {total // 2 / 1e6:.0f} million weights")
        return
    columns, layers, tokens = SHAPES[given.shape]
    columns, tokens = given.columns or columns, given.tokens or tokens
    if columns < HEAD or columns % HEAD:
        parser.error(f"--columns has to be a multiple of {HEAD}")
    if given.gigabytes:
        layers = layers_for(columns, tokens, given.gigabytes * 1e9)
    shape = Shape(columns, layers, tokens)
    total = make(given.folder, shape, given.shards, given.seed, given.imatrix)
    print(f"{given.folder}: {total / 1e9:.2f} GB, {shape.layers} layers of {shape.columns} columns")


if __name__ == "__main__":
    main()
