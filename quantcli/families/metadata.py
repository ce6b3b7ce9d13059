"""Facts -> GGUF metadata: the architecture's entries, and what a file says about itself under ``general.``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING

from quantcli import container
from quantcli.families.declaration import Entry, Family
from quantcli.families.facts import Fact, Facts
from quantcli.families.naming import HUB, name_parts, title

if TYPE_CHECKING:
    from quantcli.container import Value
    from quantcli.model import ModelTensor
    from quantcli.sources.checkpoint import Checkpoint

# generation_config.json -> general.sampling.*; a value of another kind than stated is passed over
_SAMPLING = (
    ("top_k", "top_k", "i32"),
    ("top_p", "top_p", "f32"),
    ("min_p", "min_p", "f32"),
    ("temperature", "temp", "f32"),
    ("repetition_penalty", "penalty_repeat", "f32"),
)
# What sentence-transformers' files say, for every family.
POOLING = Entry("pooling_type", "u32", "pooling")
# What config.json says of any decoder that sees both directions.
CAUSAL = Entry("attention.causal", "boolean", "stated_causal")


# Keys that no architecture's name stands before.
WHOLE = ("tokenizer.", "xielu.", "diffusion.")

# How a fact becomes a GGUF value, by ``Entry.type``.
WRITERS: Mapping[str, Callable[[Fact], Value]] = {
    "u32": container.u32,
    "f32": container.f32,
    "i32": container.i32,
    "counts": lambda found: container.u32(found) if isinstance(found, int) else WRITERS["i32s"](found),
    "i32s": lambda numbers: container.array(container.ValueType.INT32, numbers),
    "f32s": lambda numbers: container.array(container.ValueType.FLOAT32, numbers),
    "boolean": container.boolean,
    "booleans": lambda flags: container.array(container.ValueType.BOOL, flags),
    "string": container.string,
    "strings": container.strings,
}


def architecture(family: Family, facts: Facts, text: bool = True) -> dict[str, Value]:
    """``<arch>.*`` as the family declares it, and for models of ``text`` what any of them may have.

    Entries whose fact is None are left out.
    """
    found = {}
    for entry in (CAUSAL, *family.metadata, POOLING) if text else family.metadata:
        value = facts[entry.fact]
        if value is not None:
            key = entry.key if entry.key.startswith(WHOLE) else f"{family.gguf_arch}.{entry.key}"
            found[key] = WRITERS[entry.type](value)
    return found


def general(
    family: Family, checkpoint: Checkpoint, tensors: Sequence[ModelTensor], kind: str = "model"
) -> dict[str, Value]:
    """``general.*``: names and size from folder and tensors, license and base from the card; ``kind`` is general.type.

    A model that writes text has sampling defaults.
    """
    found = {"general.architecture": container.string(family.gguf_arch), "general.type": container.string(kind)}
    found |= sampling(checkpoint.json("generation_config.json")) if kind == "model" else {}
    names: dict[str, str | None] = {"general.name": title(checkpoint.name), **name_parts(checkpoint.name)}
    names["general.organization"] = title(checkpoint.owner) if checkpoint.owner else None
    names["general.size_label"] = size_label(tensors)
    if checkpoint.owner:
        names["general.source.repo_url"] = f"{HUB}{checkpoint.owner}/{checkpoint.name}"
    found |= {key: container.string(text) for key, text in names.items() if text}
    fields = checkpoint.card
    if fields:
        from quantcli.families.card import card  # most folders have none

        found |= card(fields)
    return found


def provenance(digests: Mapping[str, str]) -> dict[str, Value]:
    """sha256 of the small files that the metadata was made from, by their names; never a path."""
    return {f"quantcli.source.sha256.{name}": container.string(digest) for name, digest in digests.items()}


def sampling(settings: object) -> dict[str, Value]:
    """``general.sampling.*`` from generation_config.json."""
    found = {}
    for field, key, kind in _SAMPLING:
        value = settings.get(field) if isinstance(settings, Mapping) else None
        if isinstance(value, bool) or not isinstance(value, (int, float) if kind == "f32" else int):
            continue
        if abs(value) < (1e30 if kind == "f32" else 2**31):
            found[f"general.sampling.{key}"] = WRITERS[kind](value)
    return found


def size_label(tensors: Sequence[ModelTensor]) -> str:
    """ "135M", or "8x7B" with experts: weights without and per expert, as llama.cpp's naming convention counts."""
    shared = expert = experts = 0
    for tensor in tensors:
        weights = prod(tensor.shape)
        if tensor.name.endswith("_exps.weight"):
            experts = max(experts, tensor.shape[-1])
            expert += weights // tensor.shape[-1]
        else:
            shared += weights
    return (f"{experts}x" if experts else "") + _rounded(shared + expert)


def _rounded(count: int) -> str:
    """At least two digits, with a suffix."""
    scale, suffix = next(((s, x) for s, x in ((1e12, "T"), (1e9, "B"), (1e6, "M")) if count > s), (1e3, "K"))
    digits = len(str(round(count / scale)).lstrip("0"))
    return f"{count / scale:.{max(2 - digits, 0)}f}{suffix}"
