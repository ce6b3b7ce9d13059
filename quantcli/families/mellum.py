"""Mellum 2: a Qwen3 with experts and windows, which rotate with a base of their own."""

from __future__ import annotations

from quantcli.families import decoder
from quantcli.families.facts import Facts
from quantcli.families.fields import flag
from quantcli.families.qwen import QWEN3_MOE
from quantcli.vocab import VocabHints


def used_window(facts: Facts) -> int | None:
    """The window, unless config.json says that it is not used."""
    return facts.read(decoder.GIVEN_WINDOW) if facts.read(flag("use_sliding_window", default=True)) else None


MELLUM = QWEN3_MOE.derive(
    "mellum",
    harmless=(
        "mlp_layer_types",
        "mtp_*",
        "num_nextn_predict_layers",
    ),
    gguf_arch="mellum",
    hf_architectures=("MellumForCausalLM",),
    model_types=("mellum",),
    facts={
        "local_theta": decoder.LOCAL_THETA,
        "window": used_window,
        "window_pattern": decoder.window_pattern(4),
        "own_base": lambda facts: facts.window and facts.local_theta not in (None, facts.theta),
    },
    remarks=(("own_base", "llama.cpp rotates layers with a window by the base of the others"),),
    metadata=(
        *QWEN3_MOE.metadata,
        *decoder.LOCAL_ROPE,
        *decoder.WINDOWS,
    ),
    vocab=VocabHints("mellum"),
)

FAMILIES = (MELLUM,)
