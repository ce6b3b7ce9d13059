"""Roles of tensors in llama-quantize's rules: which of them a rule of a recipe speaks of."""

from __future__ import annotations

from functools import cache

from quantcli import architectures

# First match decides; "is" compares the whole name, "has" looks anywhere in it (so ffn_down_exps and ffn_down_shexp
# are "down"). "v" holds whatever carries the values: attn_v, fused attn_qkv, MLA's attn_kv_b.
ROLES = (
    ("is", "output.weight", "output"),
    ("is", "token_embd.weight", "embedding"),
    ("is", "per_layer_token_embd.weight", "embedding"),
    ("has", "attn_qkv.weight", "v"),
    ("has", "attn_kv_b.weight", "v"),
    ("has", "attn_v.weight", "v"),
    ("has", "attn_k.weight", "k"),
    ("has", "attn_q.weight", "q"),
    ("has", "attn_output.weight", "o"),
    ("has", "ffn_up", "up"),
    ("has", "ffn_gate", "gate"),
    ("has", "ffn_down", "down"),
)
ROLE_NAMES = (*dict.fromkeys(role for _, _, role in ROLES), "other", "pinned")
COUNTED = ("v", "up", "gate", "down")  # roles with a running number


@cache
def role_of(name: str, architecture: str = "") -> str:
    """The role of tensor ``name``, one of ROLE_NAMES; "pinned" is one of the architecture's own."""
    pinned = architectures.find(architecture).pinned
    if pinned and any(part in name for part in pinned):
        return "pinned"
    for how, text, role in ROLES:
        if name == text if how == "is" else text in name:
            return role
    return "other"
