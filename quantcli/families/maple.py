"""Maple: experts whose gates are bounded, windows in layers that rotate and no rotation in the others."""

from __future__ import annotations

from quantcli.families import decoder
from quantcli.families.declaration import Entry
from quantcli.families.fields import count
from quantcli.families.qwen import QWEN3_MOE
from quantcli.vocab import VocabHints

LIMIT = 7.0  # of every layer, in its own code: config.json does not say it

MAPLE = QWEN3_MOE.derive(
    "maple",
    gguf_arch="maple",
    hf_architectures=("MapleForCausalLM",),
    model_types=("maple",),
    fixed={"num_shared_experts": (0, None), "norm_topk_prob": (True, None), "nope_on_global_attention": (True,)},
    facts={
        "kv_heads": decoder.key_value_heads(),
        "local_theta": decoder.LOCAL_THETA,
        "window": count("sliding_window"),
        "window_pattern": decoder.window_pattern(1),
        "rope_dims": decoder.partial_rotary(1.0),
        "limits": lambda facts: [LIMIT] * facts.layers,
    },
    metadata=(
        *QWEN3_MOE.metadata,
        *decoder.LOCAL_ROPE,
        *decoder.VOCAB_SIZE,
        *decoder.ROPE_DIMS,
        *decoder.WINDOWS,
        Entry("swiglu_clamp_exp", "f32s", "limits"),
    ),
    vocab=VocabHints("maple"),
)

FAMILIES = (MAPLE,)
