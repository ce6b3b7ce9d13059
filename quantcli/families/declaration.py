"""The vocabulary in which model families are declared: tensors and metadata (config fields: ``fields.py``).

A family is data. ``facts`` says which numbers are read from config.json (and what the transformers config classes
take when a field is absent), ``metadata`` which facts become which GGUF entries, ``tensors`` which checkpoint tensor
becomes which GGUF tensor through which transform. How a model computes is no matter of a family: the GGUF architecture
that it is written as has that (``architectures``).
Dimensions are written symbolically over the facts: ``"heads*head_dim"``, ``"q+2*kv"``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple, TypedDict, Unpack

from quantcli.vocab import VocabHints

if TYPE_CHECKING:
    from quantcli.families.facts import Facts
    from quantcli.families.transforms import Transform


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Entry:
    """GGUF metadata ``key`` of value type ``type`` <- ``fact``, omitted when None.

    The key is below the architecture's name, unless it begins with one of ``metadata.WHOLE`` ("tokenizer." ...).
    """

    key: str
    type: str  # one of metadata.WRITERS: "u32", "i32s", "counts" (either), "f32", "f32s", "boolean", "booleans", ...
    fact: str


@dataclass(frozen=True, slots=True, repr=False)
class TensorRule:
    """One kind of tensor: checkpoint name -> GGUF name through ``transform``, once per layer (and stacked per expert).

    Names hold ``{layer}`` and ``{expert}``, or ``{part}`` for one of the words ``parts``, whose tensors are stacked in
    this order; a leading "model." of the checkpoint is not written. ``shape`` is the
    checkpoint's (torch order). Where ``exact`` is false both names get ".weight", and a ".bias" beside it is taken
    along (``bias``: "optional", "required" or "none"; it passes through those transforms that move rows).
    ``layers`` names a fact, a function (layer) -> bool: the layers that have this rule. ``depth`` names the fact
    that counts the layers of this rule (an encoder-decoder has two), ``first`` the one that numbers the block of its
    layer 0 (layers that predict further tokens come behind the others), ``places`` one that lists the blocks of all of
    them. ``optional`` may name a fact: absence is fine when it is true. A rule with ``when`` only exists when that fact
    is true. A bias has ``shape[bias_axis]`` elements. ``type`` is what the weight is written as whatever the target, in
    files whose types are the converter's (projectors).
    """

    source: str
    target: str
    shape: tuple[str | int, ...]
    transform: Transform | None = None
    optional: bool | str = False
    bias: str = "optional"
    bias_axis: int = 0
    exact: bool = False
    layers: str | None = None
    depth: str = "layers"
    first: str | None = None
    places: str | None = None
    when: str | None = None
    type: str | None = None
    parts: tuple[str, ...] = ()


class Extra(NamedTuple):
    """A GGUF tensor that is computed from config.json: ``values(facts)`` gives its numbers, or None for no tensor."""

    target: str
    values: Callable[[Facts], Sequence[float] | None]


class Variant(NamedTuple):
    """A relative that config.json does not tell: only names do (the folder's, or a heading of README.md).

    ``marks`` are beginnings of such names, in lower case; ``family`` is what the checkpoint is then read as.
    """

    family: str
    marks: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Family:
    """One model family. ``base.derive(...)`` makes a relative that differs in a few fields."""

    name: str
    gguf_arch: str
    hf_architectures: tuple[str, ...]
    facts: Mapping[str, object]  # name -> Field, a function (facts) -> value, or a constant; evaluated in order
    metadata: tuple[Entry, ...]
    tensors: tuple[TensorRule, ...]
    vocab: VocabHints
    model_types: tuple[str, ...] = ()  # config.json model_type, for the text part of multimodal checkpoints
    extras: tuple[Extra, ...] = ()
    ignored: tuple[str, ...] = ()  # shell patterns of tensors to leave out silently
    remarks: tuple[tuple[str, str], ...] = ()  # (fact, text): told when the fact is true, of what llama.cpp computes
    harmless: tuple[str, ...] = ()  # keys of config.json (patterns) that change nothing, beyond those of unread.py
    fixed: Mapping[str, tuple[object, ...]] = field(default_factory=dict)  # key -> the values that llama.cpp computes
    further: tuple[str, ...] = ()  # patterns of tensors that predict further tokens, which the file has no place for
    not_float32: tuple[str, ...] = ()  # parts of names that other families write as F32, and this one does not
    ignored_if: tuple[tuple[str, str], ...] = ()  # (pattern, fact): left out when the fact is true
    prefixes: tuple[str, ...] = ()  # of the class that holds the layers, beyond "model."
    skip_layers_beyond: bool = False  # tensors of layers after the last one are left out (multi-token heads)
    may_lack: str = ""  # fact, a function (layer) -> bool: layers that config.json counts and that may be missing
    vocab_for: Callable[[Facts, VocabHints], VocabHints] | None = None  # hints that depend on the config
    variants: tuple[Variant, ...] = ()
    relative: Callable[[Mapping[str, object]], str | None] | None = None  # the family that a config.json of this
    #                                                                     one's class describes instead, by its name
    templates: Mapping[str, str] = field(default_factory=dict)  # chat templates by name that belong to the family
    # fact -> tokens, the first of which that the vocabulary has is the row that the fact numbers
    rows: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    cut_embeddings: bool = False  # token_embd rows beyond the tokenizer's size are cut
    numbers: Mapping[str, str] = field(default_factory=dict)  # fact -> tensor whose numbers it holds (numbers.py)
    zeros: tuple[str, ...] = ()  # shell patterns of tensors that are left out, for they hold zeros alone
    same: Mapping[str, str] = field(default_factory=dict)  # names under which a tensor may be stored as well
    copies: Mapping[str, str] = field(default_factory=dict)  # name -> the tensor that it may repeat: then left out
    spellings: Mapping[str, str] = field(default_factory=dict)  # part of a name elsewhere -> as declared here

    def derive(self, name: str, **changes: Unpack[Changes]) -> Family:
        """A relative: ``facts`` are merged over the base's, the rest replaces; ``relative`` is not inherited."""
        changes.setdefault("relative", None)
        relative = replace(self, name=name, **changes)
        vocab = replace(relative.vocab, architecture=relative.gguf_arch)
        return replace(relative, facts={**self.facts, **relative.facts}, vocab=vocab)


if TYPE_CHECKING:

    class Changes(TypedDict, total=False):
        """What ``Family.derive`` may replace."""

        gguf_arch: str
        hf_architectures: tuple[str, ...]
        model_types: tuple[str, ...]
        facts: Mapping[str, object]
        metadata: tuple[Entry, ...]
        tensors: tuple[TensorRule, ...]
        vocab: VocabHints
        vocab_for: Callable[[Facts, VocabHints], VocabHints] | None
        extras: tuple[Extra, ...]
        ignored: tuple[str, ...]
        remarks: tuple[tuple[str, str], ...]
        harmless: tuple[str, ...]
        fixed: Mapping[str, tuple[object, ...]]
        further: tuple[str, ...]
        not_float32: tuple[str, ...]
        ignored_if: tuple[tuple[str, str], ...]
        skip_layers_beyond: bool
        may_lack: str
        prefixes: tuple[str, ...]
        cut_embeddings: bool
        numbers: Mapping[str, str]
        zeros: tuple[str, ...]
        variants: tuple[Variant, ...]
        relative: Callable[[Mapping[str, object]], str | None] | None
        templates: Mapping[str, str]
        rows: Mapping[str, tuple[str, ...]]
        copies: Mapping[str, str]
        spellings: Mapping[str, str]
