"""Apertus: a Llama whose MLP has no gate; the parameters of its activation (xIELU) are tensors of each layer."""

from __future__ import annotations

from quantcli.families import decoder
from quantcli.families.declaration import Entry
from quantcli.families.llama import LLAMA

PARAMETERS = ("alpha_n", "alpha_p", "beta", "eps")

APERTUS = LLAMA.derive(
    "apertus",
    gguf_arch="apertus",
    hf_architectures=("ApertusForCausalLM",),
    model_types=("apertus",),
    facts={
        "context": decoder.context(65536),
        "theta": decoder.theta(12e6),
        "eps": decoder.rms_eps(1e-5),
        "key_length": decoder.given_head_dim,
    },
    numbers={f"xielu_{name}": f"layers.{{layer}}.mlp.act_fn.{name}" for name in PARAMETERS},
    metadata=LLAMA.metadata + tuple(Entry(f"xielu.{name}", "f32s", f"xielu_{name}") for name in PARAMETERS),
    tensors=decoder.TENSORS[:-3] + decoder.GATED_MLP[1:] + decoder.HEAD_NORMS,
    spellings={".attention_layernorm.": ".input_layernorm.", ".feedforward_layernorm.": ".post_attention_layernorm."},
)

FAMILIES = (APERTUS,)
