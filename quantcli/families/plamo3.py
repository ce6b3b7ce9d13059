"""Plamo 3: attention in every layer, with windows that rotate by a base of their own; Plamo 2's four norms."""

from __future__ import annotations

from dataclasses import replace

from quantcli.families import decoder
from quantcli.families.declaration import Entry, TensorRule
from quantcli.families.fields import count, real
from quantcli.families.plamo2 import MIXER, PLAMO2
from quantcli.families.transforms import plus
from quantcli.vocab import VocabHints

PLAMO3 = PLAMO2.derive(
    "plamo3",
    gguf_arch="plamo3",
    hf_architectures=("Plamo3ForCausalLM", "PLaMo3ForCausalLM"),
    model_types=("plamo3",),
    facts={
        **decoder.FACTS,
        "head_dim": count("head_dim", "hidden_size_per_head", default=128, most=decoder.MOST_WIDTH),
        "local_theta": decoder.LOCAL_THETA,
        "scaling": None,
        "factor": real("rope_scaling_factor", default=1.0, least=1e-6),
        "scaling_type": lambda facts: "yarn" if facts.factor != 1 else None,
        "scaling_factor": lambda facts: facts.factor if facts.scaling_type else None,
        "scaling_context": lambda facts: facts.read(count("initial_context_length")) if facts.scaling_type else None,
        "yarn_fast": lambda facts: 32.0 if facts.scaling_type else None,
        "yarn_slow": lambda facts: 1.0 if facts.scaling_type else None,
        "window": count("window_size", "sliding_window", default=None),
        "period": lambda facts: facts.window and facts.read(count("sliding_window_pattern", default=8)),
    },
    metadata=(
        *decoder.METADATA,
        *decoder.LOCAL_ROPE,
        *decoder.VOCAB_SIZE,
        *decoder.WINDOW,
        Entry("attention.sliding_window_pattern", "u32", "period"),
    ),
    tensors=(
        *(replace(rule, layers=None) for rule in PLAMO2.tensors if (rule.layers != "scans" and not rule.exact)
          or "post_" in rule.source),
        TensorRule(MIXER + "q_norm", "blk.{layer}.attn_q_norm", ("head_dim",), plus(1)),
        TensorRule(MIXER + "k_norm", "blk.{layer}.attn_k_norm", ("head_dim",), plus(1)),
    ),
    vocab=VocabHints("plamo3"),
)  # fmt: skip

FAMILIES = (PLAMO3,)
