"""The GGUF container: metadata values, the header codec, shards. The one import point of the package's parts."""

from __future__ import annotations

from quantcli.container import known
from quantcli.container.header import (
    ALIGNMENT_KEY,
    DEFAULT_ALIGNMENT,
    LIMITS,
    Header,
    Limits,
    TensorInfo,
    padded,
    without_trailing_ones,
)
from quantcli.container.read import read_header
from quantcli.container.split import (
    SET_KEY,
    SPLIT_KEYS,
    check_set,
    first_of_set,
    is_first_of_several,
    read_split_headers,
    shard_name,
    split_name,
)
from quantcli.container.values import (
    Strings,
    Value,
    ValueType,
    array,
    boolean,
    f32,
    i32,
    string,
    strings,
    u8,
    u16,
    u32,
    u64,
)
from quantcli.container.write import MAGIC as MAGIC
from quantcli.container.write import encode_header, header_size, place_tensors

__all__ = [
    "ALIGNMENT_KEY",
    "DEFAULT_ALIGNMENT",
    "LIMITS",
    "SET_KEY",
    "SPLIT_KEYS",
    "Header",
    "Limits",
    "Strings",
    "TensorInfo",
    "Value",
    "ValueType",
    "array",
    "boolean",
    "check_set",
    "encode_header",
    "f32",
    "first_of_set",
    "header_size",
    "i32",
    "is_first_of_several",
    "known",
    "padded",
    "place_tensors",
    "read_header",
    "read_split_headers",
    "shard_name",
    "split_name",
    "string",
    "strings",
    "u8",
    "u16",
    "u32",
    "u64",
    "without_trailing_ones",
]
