"""InternVL: InternViT with a class embedding and scaled residuals, pixel shuffle, a norm and two matrices."""

from __future__ import annotations

from quantcli.families.declaration import Entry, TensorRule
from quantcli.families.facts import Facts, bad
from quantcli.families.fields import count, real
from quantcli.families.projectors import tower
from quantcli.families.projectors.declaration import ARCHITECTURE, VOCAB, Projector
from quantcli.families.transforms import rows

LAYER, BLOCK, QKV = "encoder.layers.{layer}.", "v.blk.{layer}.", ("3*width", "width")


def side(field: str, default: int) -> object:
    """A length in pixels, which may be a list of two. Raises BadConfig."""

    def pixels(facts: Facts) -> int:
        found = facts.find(f"tower.{field}")
        found = found[0] if isinstance(found, list) and found else found
        if found is None:
            return default
        if type(found) is not int or not 0 < found <= tower.MOST_PIXELS:
            raise bad(f"vision_config.{field}", "is no number of pixels")
        return found

    return pixels


INTERNVL = Projector(
    name="internvl-vision",
    gguf_arch=ARCHITECTURE,
    hf_architectures=("InternVLChatModel", "InternVisionModel"),
    model_types=("internvl_chat",),
    facts={
        **tower.IMAGE_FACTS,
        "layers": tower.layers("num_hidden_layers", default=24),
        "width": tower.size("hidden_size", default=1024),
        "ff": tower.size("intermediate_size", default=4096),
        "mlp": lambda facts: facts.ff,
        "heads": tower.size("num_attention_heads", default=16),
        "image": side("image_size", 448),
        "patch": side("patch_size", 14),
        "positions": lambda facts: (facts.image // facts.patch) ** 2 + 1,
        "eps": tower.eps("tower.layer_norm_eps", 1e-6),
        "activation": tower.activation("gelu", "silu", default="gelu"),
        "gelu": lambda facts: True if facts.activation == "gelu" else None,
        "silu": lambda facts: True if facts.activation == "silu" else None,
        "projector": "internvl",
        "scale": lambda facts: int(1.0 / facts.read(real("downsample_ratio", default=0.5, least=1e-3, most=1))),
        "least_tiles": lambda facts: facts.read(count("min_dynamic_patch", default=0, least=0)) or None,
        "most_tiles": lambda facts: facts.read(count("max_dynamic_patch", default=0, least=0)) or None,
        "text_width": tower.text_width(4096),
    },
    metadata=(
        *tower.IMAGE,
        *tower.GELU,
        *tower.SILU,
        *tower.SCALE,
        Entry("vision.preproc_min_tiles", "u32", "least_tiles"),
        Entry("vision.preproc_max_tiles", "u32", "most_tiles"),
    ),
    tensors=(
        TensorRule("embeddings.class_embedding", "v.class_embd", (1, 1, "width"), exact=True),
        TensorRule("embeddings.patch_embedding", "v.patch_embd", ("width", "channels", "patch", "patch")),
        TensorRule("embeddings.position_embedding", "v.position_embd.weight", (1, "positions", "width"), exact=True),
        TensorRule(LAYER + "norm1", BLOCK + "ln1", tower.WIDTH),
        TensorRule(LAYER + "norm2", BLOCK + "ln2", tower.WIDTH),
        TensorRule(LAYER + "attn.qkv", BLOCK + "attn_q", QKV, rows(0, "width")),
        TensorRule(LAYER + "attn.qkv", BLOCK + "attn_k", QKV, rows("width", "2*width")),
        TensorRule(LAYER + "attn.qkv", BLOCK + "attn_v", QKV, rows("2*width", "3*width")),
        TensorRule(LAYER + "attn.q_norm", BLOCK + "attn_q_norm", tower.WIDTH, optional=True),
        TensorRule(LAYER + "attn.k_norm", BLOCK + "attn_k_norm", tower.WIDTH, optional=True),
        TensorRule(LAYER + "attn.proj", BLOCK + "attn_out", ("width", "width")),
        *tower.plain_mlp(LAYER + "mlp.", "fc1", "fc2"),
        TensorRule(LAYER + "ls1", BLOCK + "ls1.weight", tower.WIDTH, exact=True),
        TensorRule(LAYER + "ls2", BLOCK + "ls2.weight", tower.WIDTH, exact=True),
        TensorRule("mlp1.0", "mm.model.mlp.0", ("width*scale*scale",)),
        TensorRule("mlp1.1", "mm.model.mlp.1", ("text_width", "width*scale*scale")),
        TensorRule("mlp1.3", "mm.model.mlp.3", ("text_width", "text_width")),
    ),
    vocab=VOCAB,
    prefixes=("vision_model.",),
    parts=("vision_model.", "mlp1."),
)

PROJECTORS = (INTERNVL,)
