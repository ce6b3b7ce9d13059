"""Tensors that keep a type whatever the target: llama.cpp's converter writes some as F32, its quantizer skips some."""

from __future__ import annotations

import re
from functools import cache

from quantcli import architectures

_TIME_MIX = tuple(f"time_mix_{part}.weight" for part in ("first", "w1", "w2", "decay_w1", "decay_w2", "lerp_fused"))
# The quantizer keeps all small factors of RWKV 7 too.
_FACTORS = tuple(f"time_mix_{part}.weight" for part in ("w0", "v0", "v1", "v2", "a0", "a1", "a2", "g1", "g2"))

# ---- the converter ---------------------------------------------------------------------------------------------

# Parts of names that llama.cpp's converter writes as F32 whatever --outtype says (besides vectors and names that do
# not end in .weight).
_FLOAT32 = (
    "_norm.weight", "ffn_gate_inp", "position_embd", "token_types", "ssm_conv1d", "shortconv.conv", "indexer.proj",
    "altup_correct_coef", "altup_predict_coef", *_TIME_MIX,
)  # fmt: skip
_FLOAT32_PARTS = re.compile("|".join(map(re.escape, _FLOAT32)))


def stays_float32(name: str, dimensions: int) -> bool:
    """Whether the converter writes tensor ``name`` as F32 for every --outtype."""
    return dimensions < 2 or not name.endswith(".weight") or _FLOAT32_PARTS.search(name) is not None


# ---- the quantizer ---------------------------------------------------------------------------------------------

# Parts of names that llama-quantize never touches: norms, routers, small or sensitive tables.
_KEPT = (
    "_norm.weight", "ffn_gate_inp.weight", "ffn_gate_tid2eid.weight", "altup", "laurel", "per_layer_model_proj",
    "ssm_conv1d", "shortconv.conv.weight", "indexer.k_proj.weight", "indexer.q_proj.weight", "attn_rel_b.weight",
    ".position_embd", "sam.pos_embd", "sam.neck.", "sam.net_", ".rel_pos", ".patch_embd", ".patch_merger",
    "a.rvq.codebook", "mm.a.code_embd", *_TIME_MIX, *_FACTORS,
)  # fmt: skip
_KEPT_PARTS = re.compile("|".join(map(re.escape, _KEPT)))
_KEPT_NAMES = ("position_embd.weight", "token_types.weight")


def is_matrix(shape: tuple[int, ...]) -> bool:
    """Whether a shape in GGUF order has more than one row."""
    return any(extent != 1 for extent in shape[1:])


@cache
def quantizable(name: str, shape: tuple[int, ...], architecture: str) -> bool:
    """Whether llama-quantize gives this tensor (shape in GGUF order) a target type; otherwise it keeps its own."""
    if not (name.endswith("weight") and is_matrix(shape)) or name in _KEPT_NAMES or _KEPT_PARTS.search(name):
        return False
    kept = architectures.find(architecture).kept
    return not (kept and any(part in name for part in kept))
