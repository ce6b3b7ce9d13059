"""The pieces that projectors are put together from: facts, metadata and tensors that towers share.

Sources: the towers' modeling files in transformers 4.57 (sizes, defaults), ``MmprojModel`` in llama.cpp's converter
(metadata).
"""

from __future__ import annotations

from quantcli.families import decoder
from quantcli.families.declaration import Entry, TensorRule
from quantcli.families.facts import Facts, bad
from quantcli.families.fields import count, real, text

MOST_PIXELS = 2**16

# ---- facts ---------------------------------------------------------------------------------------------------


def size(*names: str, default: int) -> object:
    """A width or a count of the tower's settings."""
    return count(*(f"tower.{name}" for name in names), default=default, most=decoder.MOST_WIDTH)


def layers(*names: str, default: int) -> object:
    return count(*(f"tower.{name}" for name in names), default=default, most=decoder.MOST_LAYERS)


def text_width(default: int) -> object:
    """Width of the language model, which is what a projector projects to."""
    return count("text.hidden_size", "text.n_embd", default=default, most=decoder.MOST_WIDTH)


def eps(name: str, default: float) -> object:
    return real(name, default=default, least=0, most=1)


def pixels(field: str) -> object:
    """Mean or deviation of the pixels, one number a channel, as the processor's settings say. Raises BadConfig."""

    def numbers(facts: Facts) -> list[float]:
        found = facts.find(f"processor.{field}")
        if not isinstance(found, list) or not all(type(x) in (int, float) and abs(x) < 1e30 for x in found):
            raise bad(
                f"{field} of preprocessor_config.json",
                "is missing" if found is None else "is no list of numbers",
                "get preprocessor_config.json of the checkpoint: a vision tower cannot be used without it",
            )
        return found

    return numbers


def activation(*known: str, default: str) -> object:
    """The tower's activation, which has to be one that its graph in llama.cpp knows. Raises BadConfig."""

    def name(facts: Facts) -> str:
        found: str = facts.read(text("tower.hidden_act", "tower.activation_function", default=default))
        if found not in known:
            raise bad(
                f"hidden_act {found!r} of the tower",
                f"is not known: {', '.join(known)}",
                "llama.cpp computes this tower with another activation; convert the text part alone, without --mmproj",
            )
        return found

    return name


def whole_part(whole: str, part: str) -> object:
    """How many times fact ``part`` goes into fact ``whole``."""
    return lambda facts: facts[whole] // facts[part]


IMAGE_FACTS = {
    "vision": True,
    "channels": count("tower.num_channels", "tower.in_channels", "tower.in_chans", default=3, most=2**10),
    "mean": pixels("image_mean"),
    "deviation": pixels("image_std"),
}
SOUND_FACTS = {
    "audio": True,
    "layers": layers("num_hidden_layers", "encoder_layers", default=32),
    "width": size("hidden_size", "d_model", default=1280),
    "ff": size("intermediate_size", "encoder_ffn_dim", default=5120),
    "heads": size("num_attention_heads", "encoder_attention_heads", default=20),
    "mels": size("num_mel_bins", default=128),
    "positions": size("max_source_positions", default=1500),
    "eps": eps("tower.layer_norm_eps", 1e-5),
    "text_width": text_width(4096),
}

# ---- metadata ------------------------------------------------------------------------------------------------


def _sizes(modality: str) -> tuple[Entry, ...]:
    return (
        Entry(f"{modality}.projection_dim", "u32", "text_width"),
        Entry(f"{modality}.embedding_length", "u32", "width"),
        Entry(f"{modality}.feed_forward_length", "u32", "ff"),
        Entry(f"{modality}.block_count", "u32", "layers"),
        Entry(f"{modality}.attention.head_count", "u32", "heads"),
        Entry(f"{modality}.attention.layer_norm_epsilon", "f32", "eps"),
        Entry("projector_type", "string", "projector"),
    )


IMAGE = (
    Entry("has_vision_encoder", "boolean", "vision"),
    Entry("vision.image_size", "u32", "image"),
    Entry("vision.patch_size", "u32", "patch"),
    *_sizes("vision"),
    Entry("vision.image_mean", "f32s", "mean"),
    Entry("vision.image_std", "f32s", "deviation"),
)
SOUND = (
    Entry("has_audio_encoder", "boolean", "audio"),
    *_sizes("audio"),
    Entry("audio.num_mel_bins", "u32", "mels"),
)
GELU = (Entry("use_gelu", "boolean", "gelu"),)
SILU = (Entry("use_silu", "boolean", "silu"),)
SCALE = (Entry("vision.projector.scale_factor", "u32", "scale"),)
MERGE = (Entry("vision.spatial_merge_size", "u32", "merge"),)

# ---- tensors -------------------------------------------------------------------------------------------------

WIDTH = ("width",)


def attention(block: str, target: str, out: str) -> tuple[TensorRule, ...]:
    """q, k and v, and the projection called ``out`` behind them."""
    square = ("width", "width")
    return (
        *(TensorRule(f"{block}{kind}_proj", f"{target}attn_{kind}", square) for kind in "qkv"),
        TensorRule(block + out, target + "attn_out", square),
    )


def plain_mlp(block: str, up: str, down: str) -> tuple[TensorRule, ...]:
    """Two matrices with biases, in the vision tower."""
    return (
        TensorRule(block + up, "v.blk.{layer}.ffn_up", ("mlp", "width")),
        TensorRule(block + down, "v.blk.{layer}.ffn_down", ("width", "mlp")),
    )


SIGLIP_LAYER = "encoder.layers.{layer}."
SIGLIP = (
    TensorRule("embeddings.patch_embedding", "v.patch_embd", ("width", "channels", "patch", "patch"), type="F32"),
    TensorRule("embeddings.position_embedding", "v.position_embd", ("positions", "width"), bias="none"),
    TensorRule(SIGLIP_LAYER + "layer_norm1", "v.blk.{layer}.ln1", WIDTH),
    TensorRule(SIGLIP_LAYER + "layer_norm2", "v.blk.{layer}.ln2", WIDTH),
    *attention(SIGLIP_LAYER + "self_attn.", "v.blk.{layer}.", "out_proj"),
    *plain_mlp(SIGLIP_LAYER + "mlp.", "fc1", "fc2"),
    TensorRule("post_layernorm", "v.post_ln", WIDTH),
)
SIGLIP_FACTS = {
    **IMAGE_FACTS,
    "layers": layers("num_hidden_layers", default=12),
    "width": size("hidden_size", default=768),
    "ff": size("intermediate_size", default=3072),
    "mlp": lambda facts: facts.ff,
    "heads": size("num_attention_heads", default=12),
    "image": size("image_size", default=224),
    "patch": size("patch_size", default=16),
    "positions": lambda facts: (facts.image // facts.patch) ** 2,
    "eps": eps("tower.layer_norm_eps", 1e-6),
    "gelu": True,
}
