"""What a user says against the recipe: --tensor-type, the types of single matrices, --metadata, --split-max-size.

Patterns are ECMAScript regular expressions, lower-cased and searched for anywhere in the name, as llama-quantize does
it. Python's ``re`` runs them; ``translate`` bridges what the two dialects spell differently and refuses what only
Python understands, so that a pattern never silently means something else here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from quantcli import container
from quantcli.container import Value, ValueType
from quantcli.errors import BadOverride, MissingFile, UnknownType, UsageError
from quantcli.ggml.tensor_types import BY_ID, TensorType, by_name

LONGEST_FILE = 1 << 20  # bytes of a --tensor-type-file
LONGEST_PATTERN = 4096


@dataclass(frozen=True, slots=True)
class Override:
    """Tensors in whose name ``pattern`` is found get ``type``."""

    pattern: str
    type: TensorType
    regex: re.Pattern[str] = field(repr=False, compare=False)

    def matches(self, name: str) -> bool:
        return self.regex.search(name) is not None


# ---- tensor types ----------------------------------------------------------------------------------------------


def parse_tensor_type(text: str, option: str) -> TensorType:
    """The type that ``option`` names, if a model can be stored in it. Raises UnknownType."""
    try:
        found = by_name(text.strip())
    except UnknownType as error:
        raise UnknownType(
            f"there is no tensor type {text!r}",
            where=option,
            hint="a tensor type is Q4_K or Q6_K, not Q4_K_M; `quantcli formats` lists them",
        ) from error
    if found.kind in ("integer", "activation") or found.name == "F64":
        raise UnknownType(
            f"{found.name} is no type for weights ({found.purpose})",
            where=option,
            hint="`quantcli formats` lists the types",
        )
    return found


def parse(text: str, option: str = "--tensor-type") -> Override:
    """``REGEX=T`` split at the last ``=``. Raises BadOverride."""
    pattern, equals, name = text.rpartition("=")
    if not equals or not pattern or not name:
        raise BadOverride(f"{text!r} is not REGEX=T", where=option, hint="for example ffn_down=q6_k")
    return Override(pattern, parse_tensor_type(name, f"{option} {text!r}"), compile_pattern(pattern))


def parse_file(path: Path | str) -> list[Override]:
    """The blank-separated ``REGEX=T`` of a --tensor-type-file, or the types of a GGUF file's own tensors. Raises
    MissingFile, BadOverride, MalformedFile."""
    try:
        with open(path, "rb") as stream:
            content = stream.read(LONGEST_FILE + 1)
    except OSError as error:
        raise MissingFile(error.strerror or str(error), where=str(path)) from error
    if content.startswith(container.MAGIC):
        return _layout(Path(path))
    if len(content) > LONGEST_FILE:
        raise BadOverride(f"longer than {LONGEST_FILE} bytes", where=str(path), hint="is this a --tensor-type-file?")
    try:
        words = content.decode("utf-8").split()
    except UnicodeDecodeError as error:
        raise BadOverride("not UTF-8 text", where=f"{path}, byte {error.start}") from error
    try:
        return [parse(word) for word in words]
    except (BadOverride, UnknownType) as error:
        raise BadOverride(f"{error.message} ({error.where})", where=str(path), hint=error.hint) from error


def _layout(path: Path) -> list[Override]:
    """The types that a GGUF file (with its further shards) gives its matrices. Raises MalformedFile, BadOverride."""
    tensors = [tensor for header in container.read_split_headers(path) for tensor in header.tensors]
    found = []
    for tensor in tensors:
        stored = BY_ID[tensor.type_id]
        weights = stored.kind not in ("integer", "activation") and stored.name != "F64"
        if weights and len(tensor.shape) > 1:
            pattern = f"^{re.escape(tensor.name)}$"
            found.append(Override(pattern, stored, compile_pattern(pattern, "--tensor-type-file")))
    if not found:
        raise BadOverride("holds no matrices whose types could be taken", where=str(path), hint="is this a model?")
    return found


def compile_pattern(pattern: str, option: str = "--tensor-type") -> re.Pattern[str]:
    """An ECMAScript pattern of ``option``, lower-cased. Raises BadOverride naming it."""
    lowered = "".join(c.lower() if c.isascii() else c for c in pattern)
    try:
        if len(pattern) > LONGEST_PATTERN:
            raise ValueError(f"longer than {LONGEST_PATTERN} characters")
        return re.compile(translate(lowered), re.ASCII)
    except (re.error, ValueError, OverflowError, RecursionError) as error:
        raise BadOverride(
            f"{pattern[:200]!r} is no valid regular expression: {error}",
            where=option,
            hint="patterns are ECMAScript: . * + ? | ( ) [ ] { } ^ $ \\ have a meaning",
        ) from error


# POSIX classes are part of C++'s ECMAScript dialect: [[:digit:]].
_CLASSES = {
    "alnum": "a-zA-Z0-9", "alpha": "a-zA-Z", "blank": " \\t", "digit": "0-9", "lower": "a-z", "space": "\\s",
    "upper": "A-Z", "xdigit": "0-9a-fA-F", "punct": "!-/:-@\\[-`{-~", "w": "\\w", "d": "\\d", "s": "\\s",
}  # fmt: skip
_TOKEN = r"""(?P<escape>\\(?:c[a-zA-Z]|.))   | (?P<set>\[\^?(?:\[:[a-z]+:\]|\\.|[^\]\\])*\])
           | (?P<group>\((?:\?(?P<kind>.)?)?) | (?P<repeat>(?:[*+?]|\{[^}]*\}?)(?P<more>[*+?{]*))
           | (?P<plain>.)"""
_COUNT = re.compile(r"\{\d+(,\d*)?\}\Z", re.ASCII)


def translate(pattern: str) -> str:
    """``pattern`` in the spelling of Python's ``re``. Raises ValueError for what ECMAScript refuses."""
    tokens = re.compile(_TOKEN, re.VERBOSE | re.DOTALL)
    parts = []
    at = 0
    while at < len(pattern):
        token = tokens.match(pattern, at)
        assert token is not None  # "plain" takes whatever is left
        parts.append(_translate_token(token))
        at = token.end()
    return "".join(parts)


def _translate_token(token: re.Match[str]) -> str:
    text = token[0]
    if token["escape"]:
        return _escape(text)
    if token["set"]:
        return _bracket(text)
    if token["group"] and "?" in text and token["kind"] not in (":", "=", "!"):
        raise ValueError(f"({text[1:]} is no ECMAScript group")
    if token["repeat"]:
        first = text.removesuffix(token["more"])
        if token["more"] not in ("", "?"):
            raise ValueError(f"two repetitions in a row: {text}")
        if first.startswith("{") and not _COUNT.match(first):
            raise ValueError(f"{first} is no repetition")
    if text in ("\\", "["):
        raise ValueError("ends inside an escape" if text == "\\" else "unclosed [")
    return text


def _escape(text: str) -> str:
    """Letters without a meaning stand for themselves (Python knows \\a, \\z ... or refuses them)."""
    letter = text[1]
    if letter == "c":
        return re.escape(chr(ord(text[2]) % 32)) if len(text) == 3 else "c"
    if letter == "0":
        return "\\x00"
    return letter if letter.isascii() and letter.isalpha() and letter not in "bdfnrstuvwx" else text


def _bracket(text: str) -> str:
    if text in ("[]", "[^]"):
        return "(?!)" if text == "[]" else "[\\s\\S]"

    def named(match: re.Match[str]) -> str:
        if match[0].startswith("\\"):
            return match[0] if match[0] == "\\b" else _escape(match[0])
        if match[0] == "[":
            return "\\["
        if match[1] not in _CLASSES:
            raise ValueError(f"there is no character class {match[0]}")
        return _CLASSES[match[1]]

    start = 2 if text[1] == "^" else 1
    body = re.sub(r"\\.|\[:([a-z]+):\]|\[", named, text[start:-1], flags=re.DOTALL)
    # Python reserves these doubled signs inside a set.
    return text[:start] + re.sub(r"(--|&&|\|\||~~)", lambda m: "\\".join(("", *m[0])), body) + "]"


# ---- sizes -----------------------------------------------------------------------------------------------------


_UNITS = {"": 1, "K": 1000, "M": 1000**2, "G": 1000**3}


def parse_size(text: str, option: str = "--split-max-size") -> int:
    """``N``, ``NK``, ``NM`` or ``NG`` in bytes; K, M, G are powers of 1000, as in llama.cpp's splitter."""
    match = re.fullmatch(r"(\d{1,15})([kmgKMG]?)", text.strip(), re.ASCII)
    if not match or not int(match[1]):
        raise UsageError(f"{text!r} is no size", where=option, hint="for example 2000000000, 500M or 2G")
    return int(match[1]) * _UNITS[match[2].upper()]


_AMOUNT_UNITS = {**_UNITS, "KI": 1 << 10, "MI": 1 << 20, "GI": 1 << 30}


def parse_amount(text: str, option: str) -> int:
    """Bytes with a fraction and a unit: 4.0G and 700M in powers of 1000, 3.5Gi in powers of 1024. Raises UsageError."""
    from decimal import Decimal  # few conversions are given a size

    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,9})?)\s*([kmg]?i?)b?", text.strip(), re.ASCII | re.IGNORECASE)
    if (
        not match
        or match[2].upper() not in _AMOUNT_UNITS
        or not (size := int(Decimal(match[1]) * _AMOUNT_UNITS[match[2].upper()]))
    ):
        raise UsageError(f"{text!r} is no size", where=option, hint="for example 4.0G, 700M, 3.5Gi or 2000000000")
    return size


# ---- metadata --------------------------------------------------------------------------------------------------

_FLOATS = {"f32": ValueType.FLOAT32, "f64": ValueType.FLOAT64}
_INTEGERS = {
    "u8": ValueType.UINT8, "i8": ValueType.INT8, "u16": ValueType.UINT16, "i16": ValueType.INT16,
    "u32": ValueType.UINT32, "i32": ValueType.INT32, "u64": ValueType.UINT64, "i64": ValueType.INT64,
}  # fmt: skip
_NAMES: Mapping[str, ValueType] = {
    **_INTEGERS, **_FLOATS, "int": ValueType.UINT32, "float": ValueType.FLOAT32, "bool": ValueType.BOOL,
    "str": ValueType.STRING, "string": ValueType.STRING,
}  # fmt: skip
_MAKERS: Mapping[ValueType, Callable[[object], Value]] = {  # those that round or check
    ValueType.FLOAT32: container.f32,
    ValueType.STRING: container.string,
}
_RANGES = {
    kind: (-(1 << bits - 1) if name[0] == "i" else 0, (1 << (bits - 1 if name[0] == "i" else bits)) - 1)
    for name, kind in _INTEGERS.items()
    for bits in (int(name[1:]),)
}
_WIDENING = (ValueType.UINT32, ValueType.INT32, ValueType.UINT64, ValueType.INT64)
_LITERAL = re.compile(r"[+-]?(\d+(?P<float>\.\d*)?|(?P<dot>\.\d+))(?P<power>[eE][+-]?\d+)?", re.ASCII)
# Keys whose value is a list of texts, separated by commas on the command line.
_LISTS = ("general.tags", "general.languages", "general.datasets", "tokenizer.chat_templates")
# The writer's own business: layout and shards.
_RESERVED = ("general.alignment", "split.no", "split.count", "split.tensors.count", "general.architecture")


class Setting(NamedTuple):
    """One --metadata: ``type`` is None where the user named none."""

    key: str
    text: str
    type: ValueType | None

    def value(self, present: Value | None) -> Value:
        """The value to store. Without a type: the type of what is ``present`` under the key where the text fits
        it (loaders insist on exact types), else the type that the text looks like."""
        if self._is_list(present):
            items = [item.strip() for item in self.text.split(",")]
            return container.strings([item for item in items if item])
        kinds = [self.type] if self.type is not None else []
        if not kinds and present is not None and present.type is not ValueType.ARRAY:
            kinds = [present.type]
        if self.type is None:
            kinds += _looks_like(self.text)
        for kind in kinds:
            data = _convert(self.text, kind)
            if data is not None:
                return _MAKERS[kind](data) if kind in _MAKERS else Value(kind, data)
        raise UsageError(f"{self.text!r} is no {kinds[0].name.lower()}", where=f"--metadata {self.key}")

    def _is_list(self, present: Value | None) -> bool:
        """Whether the text is a list of texts: the key is known to hold one, or holds one and there is a comma."""
        if self.type is not None:
            return False
        return self.key in _LISTS or (present is not None and present.element is ValueType.STRING and "," in self.text)


def parse_setting(text: str) -> Setting:
    """``KEY=VALUE`` or ``KEY=type:value``; ``KEY=A,B`` for keys that hold lists. Raises UsageError."""
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not 0 < len(key.encode(errors="replace")) <= 65535 or not key.isprintable():
        raise UsageError(f"{text[:200]!r} is not KEY=VALUE", where="--metadata", hint="for example general.author=me")
    if key in _RESERVED:
        raise UsageError(f"{key} is set by quantcli itself", where="--metadata")
    name, colon, rest = value.partition(":")
    if colon and name.lower() in _NAMES:
        setting = Setting(key, rest, _NAMES[name.lower()])
    else:
        setting = Setting(key, value, None)
    setting.value(None)  # a wrong value is better told before any work
    return setting


def apply_settings(metadata: Mapping[str, Value], settings: Sequence[Setting]) -> dict[str, Value]:
    """``metadata`` with the settings put in: existing keys keep their position."""
    result = dict(metadata)
    for setting in settings:
        result[setting.key] = setting.value(result.get(setting.key))
    return result


def _looks_like(text: str) -> list[ValueType]:
    if text in ("true", "false"):
        return [ValueType.BOOL]
    match = _LITERAL.fullmatch(text)
    if not match:
        return [ValueType.STRING]
    if match["float"] or match["dot"] or match["power"]:
        return [ValueType.FLOAT32, ValueType.STRING]
    return [*_WIDENING, ValueType.STRING]


def _convert(text: str, kind: ValueType) -> int | float | bool | str | None:
    if kind is ValueType.STRING:
        return text
    if kind is ValueType.BOOL:
        return {"true": True, "false": False}.get(text.lower())
    match = _LITERAL.fullmatch(text.strip())
    if not match or len(text) > 64:
        return None
    if kind in _RANGES:
        low, high = _RANGES[kind]
        whole = not (match["float"] or match["dot"] or match["power"])
        return int(text) if whole and low <= int(text) <= high else None
    number = float(text)
    limit = 3.4028234663852886e38 if kind is ValueType.FLOAT32 else float("inf")
    return number if abs(number) <= limit and abs(number) != float("inf") else None
