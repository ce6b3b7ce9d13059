"""llama.cpp's file types as data: a default tensor type and ordered rules ``(role, condition) -> type``.

Three small tables make the vocabulary: the roles of architectures/roles.py (which tensors), ``CONDITIONS`` (when) and
the file types themselves.
The first rule of a tensor's role whose condition holds decides; a tensor without one gets the default type. What comes
around the rules (overrides, --pure, the shape fallback) is in choose.py. The facts are those of llama-quantize
(llama.cpp 0c1e570), checked plan by plan in tests/plan/test_plan.py. Imports nothing heavy.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from quantcli import architectures
from quantcli.architectures.roles import ROLE_NAMES
from quantcli.errors import UnknownType
from quantcli.ggml.tensor_types import BY_NAME, TensorType

DEFAULT = "default"  # in a rule: the file type's default tensor type
ANY = "*"  # in a rule: every role


# ---- conditions: when a rule holds -----------------------------------------------------------------------------


class ModelFacts(NamedTuple):
    """What the rules ask about the whole model. ``gqa`` is heads per key-value head of layer 0 (0 without any)."""

    architecture: str
    layers: int
    gqa: int
    experts: int
    imatrix: bool
    tied: bool  # no output.weight: the embedding is the output matrix too
    v_tensors: int
    class_70b: bool
    own_layers: int = 0  # those behind them predict further tokens; 0: nobody says


@dataclass(slots=True, eq=False, repr=False)
class Place:
    """Where one tensor stands: number ``index`` of ``count`` of its role (layers, for the feed-forward roles)."""

    facts: ModelFacts
    index: int
    count: int
    ragged: bool  # columns are no multiple of the default type's block
    stacked: bool  # a third dimension above 1: expert stacks, MLA's attn_k_b


def _more(place: Place) -> bool:
    """The first eighth, the last eighth, and every third in between."""
    first = place.count // 8
    return place.index < first or place.index >= 7 * place.count // 8 or (place.index - first) % 3 == 2


def _variant(name: str) -> Callable[[Place], bool]:
    """The condition by which rules mean an architecture: its declaration has it as ``recipe_variant``."""
    return lambda place: architectures.find(place.facts.architecture).recipe_variant == name


CONDITIONS: dict[str, Callable[[Place], bool]] = {
    "first 2": lambda place: place.index < 2,
    "first 4": lambda place: place.index < 4,
    "first 8th": lambda place: place.index < place.count // 8,
    "first 16th": lambda place: place.index < place.count // 16,
    "middle": lambda place: place.count // 8 <= place.index < 7 * place.count // 8,
    "more": _more,
    "ragged": lambda place: place.ragged,
    "stacked": lambda place: place.stacked,
    "gqa>=4": lambda place: place.facts.gqa >= 4,
    "experts=8": lambda place: place.facts.experts == 8,
    "experts>=4": lambda place: place.facts.experts >= 4,
    "imatrix": lambda place: place.facts.imatrix,
    "falcon": _variant("falcon"),
    "bailingmoe3": _variant("bailingmoe3"),
    "70B": lambda place: place.facts.class_70b,
}


@dataclass(frozen=True, eq=False, repr=False)
class Rule:
    """``roles`` (separated by blanks) get ``type`` when all of ``when`` hold (comma = and, ``not`` negates)."""

    roles: str
    when: str
    type: str

    @cached_property
    def tests(self) -> tuple[tuple[Callable[[Place], bool], bool], ...]:
        words = [word.strip() for word in self.when.split(",") if word.strip()]
        return tuple((CONDITIONS[word.removeprefix("not ")], not word.startswith("not ")) for word in words)

    def holds(self, place: Place) -> bool:
        return all(test(place) is wanted for test, wanted in self.tests)


# ---- file types ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class FileType:
    """One llama.cpp file type. ``number`` is ``general.file_type``; ``default`` the type where no rule holds.

    ``rules`` are tried in order. ``raises`` then lifts the chosen type: ``(role, condition, from types, to type)``.
    ``by_layer``: with experts the feed-forward roles are numbered by the layer in the name instead of by counting.
    ``strict``: types that, in this file type only, need an importance matrix. ``selectable`` is false for numbers
    that files carry but llama-quantize does not offer.
    """

    name: str
    number: int | None
    default: str
    purpose: str
    rules: tuple[Rule, ...] = ()
    raises: tuple[tuple[str, str, tuple[str, ...], str], ...] = ()
    by_layer: bool = False
    strict: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    selectable: bool = True

    def __reduce__(self) -> tuple[Callable[[str], FileType], tuple[str]]:
        """In another process it is that process's row again: its conditions are functions, which do not travel."""
        return _row, (self.name,)

    @property
    def copies(self) -> bool:
        """COPY: every tensor keeps its type."""
        return self.number is None

    @property
    def is_float(self) -> bool:
        return self.default in ("F32", "F16", "BF16")

    @cached_property
    def default_type(self) -> TensorType:
        return BY_NAME[self.default]

    @cached_property
    def _by_role(self) -> dict[str, tuple[Rule, ...]]:
        return {
            role: tuple(rule for rule in self.rules if rule.roles == ANY or role in rule.roles.split())
            for role in ROLE_NAMES
        }

    @cached_property
    def _raises(self) -> dict[str, list[tuple[Rule, tuple[str, ...]]]]:
        return {role: [(Rule(r, when, to), below) for r, when, below, to in self.raises if r == role]
                for role in ROLE_NAMES}  # fmt: skip

    def type_for(self, role: str, place: Place) -> TensorType:
        """The type that the rules give a tensor of ``role`` at ``place``, before the shape fallback."""
        name = next((rule.type for rule in self._by_role[role] if rule.holds(place)), DEFAULT)
        name = self.default if name == DEFAULT else name
        for rule, below in self._raises[role]:
            if name in below and rule.holds(place):
                name = rule.type
        return BY_NAME[name]

    def requires_importance(self, tensor_type: TensorType) -> bool:
        """Whether tensors of ``tensor_type`` need an importance matrix in this file type."""
        return tensor_type.importance == "required" or tensor_type.name in self.strict

    @cached_property
    def needs_imatrix(self) -> bool:
        """Whether some tensor of an ordinary model ends with a type that needs an importance matrix."""
        spared = ("output", "embedding")
        names = {self.default} | {rule.type for rule in self.rules if rule.roles not in spared} - {DEFAULT}
        return not self.copies and any(self.requires_importance(BY_NAME[name]) for name in names)


def _rules(*rules: tuple[str, str, str]) -> tuple[Rule, ...]:
    return tuple(Rule(*rule) for rule in rules)


# What every quantized file type begins with: pinned tensors; an output matrix that is falcon's or does not divide.
_FIRST = _rules(("pinned", "", "Q8_0"))
_OUTPUT = _rules(("output", "falcon", "Q8_0"), ("output", "ragged", "Q8_0"))
# With eight experts attention is a small part of the file, so it is spared.
_EIGHT = _rules(("v k", "experts=8", "Q8_0"))
_EIGHT_O = _rules(("o", "falcon", DEFAULT), ("o", "experts=8", "Q5_K"))
_RAISES = (("v", "70B", ("Q3_K", "Q4_K"), "Q5_K"),)


def _mixed(name: str, number: int, default: str, purpose: str, *own: tuple[str, str, str] | Rule,
           aliases: tuple[str, ...] = (), strict: tuple[str, ...] = ()) -> FileType:  # fmt: skip
    """A file type of the legacy, k, IQ3, IQ4, ternary and small-block kinds."""
    mine = tuple(rule if isinstance(rule, Rule) else Rule(*rule) for rule in own)
    rules = _FIRST + _OUTPUT + _EIGHT + mine + _rules(("output", "", "Q6_K"))
    return FileType(name, number, default, purpose, rules, _RAISES, by_layer=True, aliases=aliases, strict=strict)


def _tiny(name: str, number: int, default: str, purpose: str, spare: str, *own: tuple[str, str, str]) -> FileType:
    """A file type of one to two bits: ``spare`` is the type for what matters most."""
    shared = _rules(
        ("output", "", "Q5_K"), ("embedding", "", spare),
        ("v", "gqa>=4", "Q4_K"), ("v", "experts>=4", "Q4_K"), ("v", "", spare),
        ("k", "experts=8", "Q4_K"), ("o", "experts=8", "Q5_K"), ("down", "first 8th", spare),
    )  # fmt: skip
    return FileType(name, number, default, purpose, _FIRST + _OUTPUT + shared + _rules(*own))


# fmt: off
_ALL = (
    FileType("F32",  0,  "F32",  "single precision, for reference"),
    FileType("F16",  1,  "F16",  "half precision"),
    FileType("BF16", 32, "BF16", "what most checkpoints store; lossless for them"),
    _mixed("Q8_0", 7, "Q8_0", "nearly lossless; the safe choice when memory allows",
           ("output", "", DEFAULT)),
    _mixed("Q6_K", 18, "Q6_K", "very close to Q8_0 at three quarters of the size"),
    _mixed("Q5_K_M", 17, "Q5_K", "small loss; values and half of ffn_down in Q6_K",
           ("v", "more", "Q6_K"), ("down", "more", "Q6_K"), aliases=("Q5_K",)),
    _mixed("Q5_K_S", 16, "Q5_K", "small loss, Q5_K throughout"),
    _mixed("Q4_K_M", 15, "Q4_K", "the usual choice: good quality for its size",
           *_EIGHT_O, ("v", "more", "Q6_K"),
           ("down", "falcon, first 16th", "Q6_K"), ("down", "falcon, more", "Q5_K"), ("down", "falcon", DEFAULT),
           ("down", "more", "Q6_K"), aliases=("Q4_K",)),
    _mixed("Q4_K_S", 14, "Q4_K", "Q4_K nearly throughout",
           *_EIGHT_O, ("v", "first 4", "Q5_K"), ("down", "not falcon, first 8th", "Q5_K")),
    _mixed("IQ4_NL", 25, "IQ4_NL", "4-bit, uneven levels in blocks of 32; repacks fast on ARM",
           *_EIGHT_O, ("v", "gqa>=4", "Q5_K"), ("down", "not imatrix, first 8th", "Q5_K")),
    _mixed("IQ4_XS", 30, "IQ4_XS", "4-bit, uneven levels; the smallest of the 4-bit mixes",
           *_EIGHT_O, ("v", "gqa>=4", "Q5_K"), ("down", "not imatrix, first 8th", "Q5_K")),
    _mixed("Q5_1", 9, "Q5_1", "legacy 5-bit with minimum"),
    _mixed("Q5_0", 8, "Q5_0", "legacy 5-bit", ("down", "imatrix, first 8th", "Q5_1")),
    _mixed("Q4_1", 3, "Q4_1", "legacy 4-bit with minimum"),
    _mixed("Q4_0", 2, "Q4_0", "legacy 4-bit; fast where CPUs repack it", ("down", "imatrix, first 8th", "Q4_1")),
    _mixed("Q3_K_L", 13, "Q3_K", "3-bit with Q5_K for values, attention output and ffn_down",
           ("o", "falcon", "Q4_K"), ("o", "experts=8", DEFAULT), ("v o", "", "Q5_K"),
           ("down", "falcon", "Q4_K"), ("down", "", "Q5_K")),
    _mixed("Q3_K_M", 12, "Q3_K", "3-bit with Q4_K and Q5_K where it hurts most",
           *_EIGHT_O, ("v", "first 2", "Q5_K"), ("v o", "", "Q4_K"),
           ("down", "first 16th", "Q5_K"), ("down", "falcon, not more", DEFAULT), ("down", "", "Q4_K"),
           aliases=("Q3_K",)),
    _mixed("Q3_K_S", 11, "Q3_K", "3-bit throughout", *_EIGHT_O),
    _mixed("IQ3_M", 27, "IQ3_S", "3-bit codebook, values and attention output in Q4_K",
           *_EIGHT_O, ("v o", "", "Q4_K"), ("down", "first 8th", "Q4_K"), ("down", "experts=8, more", "Q4_K")),
    _mixed("IQ3_S", 26, "IQ3_S", "3-bit codebook throughout", *_EIGHT_O, ("v", "gqa>=4", "Q4_K")),
    _mixed("IQ3_XS", 22, "IQ3_S", "queries, keys and inner feed-forward layers in IQ3_XXS",
           *_EIGHT_O, ("v", "gqa>=4", "Q4_K"), ("q k", "", "IQ3_XXS"), ("gate up", "middle", "IQ3_XXS")),
    _mixed("IQ3_XXS", 23, "IQ3_XXS", "smaller codebook, queries and keys in IQ2_S",
           ("output", "", "Q5_K"), ("embedding", "", "IQ3_S"),
           *_EIGHT_O, ("v", "gqa>=4", "Q4_K"), ("v", "not imatrix", "IQ3_S"), ("o", "", "IQ3_S"),
           ("q k", "", "IQ2_S"), ("down", "not imatrix, first 8th", "Q4_K"), ("down", "not imatrix", "Q3_K")),
    _mixed("Q2_K", 10, "Q2_K", "2-bit with Q3_K and Q4_K; for very large models",
           *_EIGHT_O, ("v", "gqa>=4", "Q4_K"), ("v o down", "", "Q3_K")),
    _mixed("Q2_K_S", 21, "Q2_K", "2-bit nearly throughout",
           ("v", "gqa>=4", "Q4_K"), ("down", "first 8th", "Q4_K"), strict=("Q2_K",)),
    # IQ2_S and IQ2_M consist mainly of IQ2_XS and IQ2_S tensors: the names are llama.cpp's.
    _tiny("IQ2_M",   29, "IQ2_S",   "2-bit codebook, attention output in IQ3_S", "IQ3_S", ("o", "", "IQ3_S")),
    _tiny("IQ2_S",   28, "IQ2_XS",  "smaller codebook, attention output in IQ3_S", "IQ3_S", ("o", "", "IQ3_S")),
    _tiny("IQ2_XS",  20, "IQ2_XS",  "2-bit codebook of 512 vectors", "Q2_K"),
    _tiny("IQ2_XXS", 19, "IQ2_XXS", "2-bit codebook of 256 vectors", "Q2_K"),
    _tiny("IQ1_M",   31, "IQ1_M",   "ternary vectors; a curiosity", "Q2_K", ("o", "", "IQ2_XXS")),
    _tiny("IQ1_S",   24, "IQ1_S",   "ternary vectors, the smallest; a curiosity", "Q2_K", ("o", "", "IQ2_XXS")),
    _mixed("TQ2_0", 37, "TQ2_0", "for models trained ternary; fast", ("embedding", "", "Q4_K")),
    _mixed("TQ1_0", 36, "TQ1_0", "for models trained ternary; small", ("embedding", "", "Q4_K")),
    _mixed("Q2_0", 41, "Q2_0", "2-bit, one scale per 64", ("embedding", "", "Q4_K")),
    _mixed("Q1_0", 40, "Q1_0", "signs only, one scale per 128"),
    FileType("MXFP4_MOE", 38, "MXFP4", "expert stacks in MXFP4, the rest in Q8_0",
             _FIRST + _rules(("output", "", "Q8_0"), (ANY, "stacked, not bailingmoe3", "MXFP4"),
                             ("up gate down", "stacked", "MXFP4"), (ANY, "", "Q8_0"))),
    FileType("NVFP4", 39, "NVFP4", "4-bit floats from packed checkpoints", selectable=False),
    FileType("COPY", None, "F32", "keep every tensor's type"),
)
# fmt: on

FILE_TYPES: dict[str, FileType] = {one.name: one for one in _ALL}
BY_NUMBER: dict[int, FileType] = {one.number: one for one in _ALL if one.number is not None}
ALIASES: dict[str, str] = {alias: one.name for one in _ALL for alias in one.aliases}

GUESSED = 1024  # bit of general.file_type that says: not stated in the source, guessed from the tensors


def _row(name: str) -> FileType:
    return FILE_TYPES[name]


def parse(text: str) -> FileType:
    """The file type called ``text``: a name or alias in any case, or its number. Raises UnknownType."""
    word = text.strip().upper()
    numbers = {str(number): file_type for number, file_type in BY_NUMBER.items()}
    found = numbers.get(word) or FILE_TYPES.get(ALIASES.get(word, word))
    if found is not None and found.selectable:
        return found
    if word in BY_NAME:
        raise UnknownType(
            f"{word} is a tensor type, not a file type",
            hint=f"use it for single tensors (--tensor-type REGEX={word.lower()}); `quantcli formats` lists file types",
        )
    names = [name for name, file_type in FILE_TYPES.items() if file_type.selectable] + list(ALIASES)
    near = difflib.get_close_matches(word, names, 3, 0.5)
    meant = f"did you mean {', '.join(near)}? " if near else ""
    raise UnknownType(f"there is no file type {text!r}", hint=f"{meant}`quantcli formats` lists them all")


def guess(tensor_type: TensorType) -> FileType:
    """The file type that llama.cpp's loader assumes for a file whose most frequent tensor type is ``tensor_type``."""
    name = {"MXFP4": "MXFP4_MOE"}.get(tensor_type.name, ALIASES.get(tensor_type.name, tensor_type.name))
    return FILE_TYPES.get(name, FILE_TYPES["F32"])
