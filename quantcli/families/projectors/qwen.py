"""Qwen's vision towers: patches of two frames, a merger of squares of patches; 3 feeds early layers as well."""

from __future__ import annotations

import math

from quantcli.families.declaration import Entry, TensorRule
from quantcli.families.facts import Facts, bad
from quantcli.families.fields import count, real
from quantcli.families.projectors import tower
from quantcli.families.projectors.declaration import ARCHITECTURE, VOCAB, Projector
from quantcli.families.transforms import Transform, regrouped, rows, shaped

LAYER = "blocks.{layer}."
FRAMES = 2  # that a patch spans; llama.cpp's graph adds up two convolutions


def frames(facts: Facts) -> int:
    """Raises BadConfig for another number than llama.cpp computes with."""
    found: int = facts.read(count("tower.temporal_patch_size", default=FRAMES))
    if found != FRAMES:
        raise bad("vision_config.temporal_patch_size", f"is {found}", "llama.cpp has towers with patches of 2 frames")
    return found


def frame(number: int) -> Transform:
    """One frame of a convolution over time: [width, channels, frames, patch, patch] without its third axis."""
    return regrouped(("width*channels", "frames", "patch"), pick={1: (number, number + 1, 1)}) | shaped(
        "width", "channels", "patch", "patch"
    )


def window_pattern(facts: Facts) -> int:
    """Every n-th layer sees the whole image, as fullatt_block_indexes says. Raises BadConfig for another pattern."""
    given = facts.find("tower.fullatt_block_indexes")
    given = [7, 15, 23, 31] if given is None else given
    if not isinstance(given, list) or not given or not all(type(layer) is int for layer in given):
        raise bad("vision_config.fullatt_block_indexes", "is no list of layers")
    period: int = given[0] + 1
    if given != list(range(given[0], given[0] + period * len(given), period)):
        raise bad("vision_config.fullatt_block_indexes", f"{given[:8]} is not every n-th layer, which llama.cpp knows")
    return period


PATCH = ("width", "channels", "frames", "patch", "patch")
PATCHES = (
    TensorRule("patch_embed.proj.weight", "v.patch_embd.weight", PATCH, frame(0), exact=True),
    TensorRule("patch_embed.proj.weight", "v.patch_embd.weight.1", PATCH, frame(1), exact=True),
)
QKV = ("3*width", "width")
SPLIT_ATTENTION = (
    TensorRule(LAYER + "attn.qkv", "v.blk.{layer}.attn_q", QKV, rows(0, "width")),
    TensorRule(LAYER + "attn.qkv", "v.blk.{layer}.attn_k", QKV, rows("width", "2*width")),
    TensorRule(LAYER + "attn.qkv", "v.blk.{layer}.attn_v", QKV, rows("2*width", "3*width")),
)
OUT = (TensorRule(LAYER + "attn.proj", "v.blk.{layer}.attn_out", ("width", "width")),)
NORMS = (
    TensorRule(LAYER + "norm1", "v.blk.{layer}.ln1", tower.WIDTH),
    TensorRule(LAYER + "norm2", "v.blk.{layer}.ln2", tower.WIDTH),
)
MERGER = (
    TensorRule("merger.ln_q", "v.post_ln", tower.WIDTH),
    TensorRule("merger.mlp.0", "mm.0", ("merged", "merged")),
    TensorRule("merger.mlp.2", "mm.2", ("out", "merged")),
)
FACTS = {
    **tower.IMAGE_FACTS,
    "layers": tower.layers("depth", "num_hidden_layers", default=32),
    "heads": tower.size("num_heads", "num_attention_heads", default=16),
    "patch": tower.size("patch_size", default=14),
    "frames": frames,
    "merge": tower.size("spatial_merge_size", default=2),
}

QWEN2_VL = Projector(
    name="qwen2-vl-vision",
    gguf_arch=ARCHITECTURE,
    hf_architectures=("Qwen2VLForConditionalGeneration", "Qwen2VLModel"),
    model_types=("qwen2_vl",),
    facts={
        **FACTS,
        "image": tower.size("image_size", default=560),
        "width": tower.size("embed_dim", default=1280),
        # named after the settings' hidden_size, which is the width behind the merger
        "ff": tower.size("hidden_size", default=3584),
        "out": lambda facts: facts.ff,
        "mlp": lambda facts: int(facts.width * facts.read(real("tower.mlp_ratio", default=4, least=0.01, most=100))),
        "merged": lambda facts: facts.size("width*merge*merge"),
        "eps": tower.eps("rms_norm_eps", 1e-6),
        "projector": "qwen2vl_merger",
        "text_width": tower.text_width(8192),
    },
    metadata=tower.IMAGE,
    tensors=PATCHES + SPLIT_ATTENTION + OUT + NORMS + tower.plain_mlp(LAYER + "mlp.", "fc1", "fc2") + MERGER,
    vocab=VOCAB,
    prefixes=("visual.",),
    parts=("visual.",),
)

QWEN25_VL = QWEN2_VL.derive(
    "qwen2.5-vl-vision",
    hf_architectures=("Qwen2_5_VLForConditionalGeneration", "Qwen2_5_VLModel"),
    model_types=("qwen2_5_vl",),
    facts={
        "width": tower.size("hidden_size", default=1280),
        "ff": tower.size("intermediate_size", default=3420),
        "out": tower.size("out_hidden_size", default=3584),
        "window_pattern": window_pattern,
        "silu": True,
        "projector": "qwen2.5vl_merger",
    },
    metadata=(*tower.IMAGE, *tower.SILU, Entry("vision.n_wa_pattern", "u32", "window_pattern")),
    tensors=PATCHES
    + SPLIT_ATTENTION
    + OUT
    + NORMS
    + (
        TensorRule(LAYER + "mlp.gate_proj", "v.blk.{layer}.ffn_gate", ("ff", "width")),
        TensorRule(LAYER + "mlp.up_proj", "v.blk.{layer}.ffn_up", ("ff", "width")),
        TensorRule(LAYER + "mlp.down_proj", "v.blk.{layer}.ffn_down", ("width", "ff")),
    )
    + MERGER,
)


# ---- Qwen 3 --------------------------------------------------------------------------------------------------


def deepstack(facts: Facts) -> list[int]:
    """The layers whose outputs are merged on their own, for the first layers of the language model."""
    given = facts.find("tower.deepstack_visual_indexes")
    if given is None:  # the settings' class of Qwen3-VL has a default, that of Qwen3.5 has none
        given = [8, 16, 24] if str(facts.find("model_type")).startswith("qwen3_vl") and facts.layers > 24 else []
    if not isinstance(given, list) or not all(type(layer) is int and 0 <= layer < facts.layers for layer in given):
        raise bad("vision_config.deepstack_visual_indexes", f"is no list of layers 0 to {facts.layers - 1}")
    return given


MERGED = "deepstack_merger_list.{layer}."
STACK = "v.deepstack.{layer}."
QWEN3_VL = Projector(
    name="qwen3-vl-vision",
    gguf_arch=ARCHITECTURE,
    hf_architectures=(
        "Qwen3VLForConditionalGeneration",
        "Qwen3VLMoeForConditionalGeneration",
        "Qwen3_5ForConditionalGeneration",
        "Qwen3_5MoeForConditionalGeneration",
    ),
    model_types=("qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe"),
    facts={
        **FACTS,
        "layers": tower.layers("depth", "num_hidden_layers", default=27),
        "width": tower.size("hidden_size", default=1152),
        "ff": tower.size("intermediate_size", default=4304),
        "mlp": lambda facts: facts.ff,
        "out": tower.size("out_hidden_size", default=3584),
        "patch": tower.size("patch_size", default=16),
        "positions": tower.size("num_position_embeddings", default=2304),
        "computed": lambda facts: int(math.sqrt(facts.positions) * facts.patch),
        "image": count("tower.image_size", default="=computed", most=tower.MOST_PIXELS),
        "merged": lambda facts: facts.size("width*merge*merge"),
        "deepstack": deepstack,
        "stacks": lambda facts: len(facts.deepstack),
        "is_deepstack": lambda facts: [layer in facts.deepstack for layer in range(facts.layers)],
        "eps": tower.eps("text_config.rms_norm_eps", 1e-6),
        "gelu": True,
        "projector": "qwen3vl_merger",
        "text_width": tower.text_width(4096),
    },
    metadata=(
        *tower.IMAGE,
        *tower.GELU,
        *tower.MERGE,
        Entry("vision.is_deepstack_layers", "booleans", "is_deepstack"),
    ),
    tensors=(
        *PATCHES,
        TensorRule("patch_embed.proj.bias", "v.patch_embd.bias", tower.WIDTH, exact=True),
        TensorRule("pos_embed", "v.position_embd", ("positions", "width"), bias="none"),
        TensorRule(LAYER + "attn.qkv", "v.blk.{layer}.attn_qkv", QKV),
        *OUT,
        *NORMS,
        *tower.plain_mlp(LAYER + "mlp.", "linear_fc1", "linear_fc2"),
        TensorRule(MERGED + "norm", STACK + "norm", ("merged",), depth="stacks", places="deepstack"),
        TensorRule(MERGED + "linear_fc1", STACK + "fc1", ("merged", "merged"), depth="stacks", places="deepstack"),
        TensorRule(MERGED + "linear_fc2", STACK + "fc2", ("out", "merged"), depth="stacks", places="deepstack"),
        TensorRule("merger.norm", "v.post_ln", tower.WIDTH),
        TensorRule("merger.linear_fc1", "mm.0", ("merged", "merged")),
        TensorRule("merger.linear_fc2", "mm.2", ("out", "merged")),
    ),
    vocab=VOCAB,
    prefixes=("visual.",),
    parts=("visual.",),
)

PROJECTORS = (QWEN2_VL, QWEN25_VL, QWEN3_VL)
