"""Names of checkpoint tensors as people have them -> the names that families declare.

Wrappers and base classes differ by prefixes alone, so any of them may stand in front, in any order. Historic endings,
buffers and tensors of other modalities are known for every family.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

# What a wrapper, a class with a head or a training tool puts before the names of the language model; a family adds
# its own.
_WRAPPERS = ("model.", "thinker.", "base_model.", "module.", "_orig_mod.")
_PREFIXES = (*_WRAPPERS, "language_model.", "text_model.")
# LayerNorm's parameters as TensorFlow called them.
_ENDINGS = {".gamma": ".weight", ".beta": ".bias"}
# Computed, not learned: old and new checkpoints carry them at different levels.
_BUFFERS = (
    "*rotary_emb.*inv_freq", "*rotary_pos_emb.inv_freq", "*rotary_emb.*_cached", "*.attention.bias",
    "*.attention.masked_bias", "*.attn.masked_bias", "*position_ids",
)  # fmt: skip
_OTHER_MODALITIES = (
    "*vision*", "*visual*", "*audio*", "*multi_modal*", "*multimodal*", "*projector*", "*image*",
    "*patch_embed*", "*patch_merger*", "*connector.*", "*speech_embeddings*", "talker.*", "token2wav.*",
    "code2wav.*", "mlp[0-9].*", "*aligner.*", "*vqmodel.*", "*generation_embeddings.*", "*generation_head.*",
    "vit.*", "vpm.*", "merger.*", "resampler.*", "conformer.*",
)  # fmt: skip


def plain(name: str, prefixes: Sequence[str]) -> tuple[str, str]:
    """The name of a tensor below all prefixes (the family's ``prefixes`` and the wrappers'), and what stood before."""
    found = _in_front((*prefixes, *_PREFIXES))(name)
    rest = name[found.end() :] if found else name
    for historic, ending in _ENDINGS.items():
        rest = rest.removesuffix(historic) + ending if rest.endswith(historic) else rest
    return rest, name[: len(name) - len(rest)] if name.endswith(rest) else ""


@lru_cache
def _in_front(prefixes: tuple[str, ...]) -> Callable[[str], re.Match[str] | None]:
    """Finds all prefixes in front of a name, in any order and as often as they come."""
    return re.compile(f"(?:{'|'.join(map(re.escape, prefixes))})+").match


def unwrapped(name: str) -> str:
    """The name of a tensor below what wrappers put before all of their parts, the language model's own names aside."""
    while prefix := next((prefix for prefix in _WRAPPERS if name.startswith(prefix)), ""):
        name = name[len(prefix) :]
    return name


def respelled(name: str, spellings: Mapping[str, str]) -> str:
    """``name`` with the first part that a family spells otherwise replaced."""
    return next((name.replace(part, own) for part, own in spellings.items() if part in name), name)


@lru_cache
def one_of(patterns: tuple[str, ...]) -> Callable[[str], object]:
    """Whether a name is like one of the ``patterns`` of a shell, as one expression: models have 100,000 names."""
    if not patterns:
        return lambda name: False
    return re.compile("|".join(f"(?:{fnmatch.translate(pattern)})" for pattern in patterns)).match


def is_buffer(name: str) -> bool:
    """Whether a tensor is a buffer that the model computes itself."""
    return bool(one_of(_BUFFERS)(name))


def is_of_other_modality(name: str) -> bool:
    """Whether a tensor belongs to a tower or a projector beside the language model."""
    return bool(one_of(_OTHER_MODALITIES)(name))
