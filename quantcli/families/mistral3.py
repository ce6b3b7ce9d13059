"""Mistral Small 3.1 and Ministral 3, the text part of both; Ministral 3 scales late queries."""

from __future__ import annotations

from quantcli.families.declaration import Entry
from quantcli.families.fields import real
from quantcli.families.llama import MISTRAL


def of_ministral(name: str) -> object:
    """A field of the rope settings that counts for the text model "ministral3" alone."""
    field = real(f"rope_scaling.{name}")
    return lambda facts: facts.read(field) if facts.find("model_type") == "ministral3" else None


MISTRAL3 = MISTRAL.derive(
    "mistral3",
    harmless=("mscale",),
    gguf_arch="mistral3",
    hf_architectures=("Mistral3ForConditionalGeneration", "Ministral3ForCausalLM"),
    model_types=("mistral3", "ministral3"),
    facts={
        "log_multiplier": of_ministral("mscale_all_dim"),
        "temperature_scale": of_ministral("llama_4_scaling_beta"),
    },
    metadata=(
        *MISTRAL.metadata,
        Entry("rope.scaling.yarn_log_multiplier", "f32", "log_multiplier"),
        Entry("attention.temperature_scale", "f32", "temperature_scale"),
    ),
)

FAMILIES = (MISTRAL3,)
