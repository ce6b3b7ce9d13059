"""The kinds of the metadata entries that quantcli reads itself, whatever the architecture.

A value of another kind (an array where one belongs, a number where a text belongs) is never passed over: what it
replaces would be a default that the file does not mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, TypeAlias

from quantcli.container.values import Value, ValueType

Kind: TypeAlias = Literal["text", "texts", "whole", "wholes", "numbers", "flag"]

_WHOLE = frozenset(
    {
        ValueType.UINT8, ValueType.INT8, ValueType.UINT16, ValueType.INT16, ValueType.UINT32, ValueType.INT32,
        ValueType.UINT64, ValueType.INT64,
    }
)  # fmt: skip
_NUMBERS = _WHOLE | {ValueType.FLOAT32, ValueType.FLOAT64}
# kind -> value types, whether in an array, words for people
_KINDS: Mapping[Kind, tuple[frozenset[ValueType], bool, str]] = {
    "text": (frozenset({ValueType.STRING}), False, "a text"),
    "texts": (frozenset({ValueType.STRING}), True, "an array of texts"),
    "whole": (_WHOLE, False, "a whole number"),
    "wholes": (_WHOLE, True, "an array of whole numbers"),
    "numbers": (_NUMBERS, True, "an array of numbers"),
    "flag": (frozenset({ValueType.BOOL}), False, "true or false"),
}

GENERAL: Mapping[str, Kind] = {
    f"general.{name}": "text" for name in ("architecture", "type", "name", "basename")
}  # fmt: skip
TOKENIZER: Mapping[str, Kind] = {
    "tokenizer.ggml.model": "text",
    "tokenizer.ggml.pre": "text",
    "tokenizer.ggml.tokens": "texts",
    "tokenizer.ggml.merges": "texts",
    "tokenizer.ggml.scores": "numbers",
    "tokenizer.ggml.token_type": "wholes",
    "tokenizer.chat_template": "text",
    **{f"tokenizer.ggml.add_{name}": "flag" for name in ("bos_token", "eos_token", "sep_token", "space_prefix")},
    **{
        f"tokenizer.ggml.{name}_token_id": "whole"
        for name in (
            "bos", "eos", "unknown", "seperator", "padding", "mask", "eot", "eom", "fim_pre", "fim_suf", "fim_mid",
            "fim_pad", "fim_rep", "fim_sep",
        )
    },
}  # fmt: skip


def problems(metadata: Mapping[str, Value], kinds: Mapping[str, Kind]) -> Iterator[tuple[str, str]]:
    """(key, what is wrong with its value) for every entry of another kind."""
    for key in kinds.keys() & metadata.keys():
        value = metadata[key]
        types, array, words = _KINDS[kinds[key]]
        element = value.type if value.element is None else value.element
        if (value.element is not None) != array or element not in types:
            found = value.type.name if value.element is None else f"an array of {value.element.name}"
            yield key, f"is {found}, it has to be {words}"
