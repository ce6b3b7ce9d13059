"""The structure of a byte-level BPE tokenizer.json, and the llama.cpp pre-tokenizer name that belongs to it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

from quantcli.errors import BadTokenizer, UnknownPreTokenizer, UsageError
from quantcli.sources.jsonfile import object_in, text_in
from quantcli.vocab import pretokenizers
from quantcli.vocab.patterns import canonical
from quantcli.vocab.tokenizer_files import TokenizerFiles, flat_steps

Steps = tuple[tuple[str, str], ...]
_UNDERSTOOD_NORMALIZERS = ((), ("NFC",))  # llama.cpp has no NFC step: composed text is what models meet


@dataclass(slots=True)
class Structure:
    """Normalizer kinds, pre-tokenizer steps in canonical form, and the expressions as the file spells them."""

    normalizer: tuple[str, ...]
    steps: Steps
    ignore_merges: bool
    shown: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read(files: TokenizerFiles) -> Structure:
    """Take the structure from tokenizer.json."""
    result = Structure((), (), files.model.get("ignore_merges") is True)
    normalizers = flat_steps(files.tokenizer, "normalizer", "normalizers")
    result.normalizer = tuple(str(step.get("type")) for step in normalizers)
    steps: list[tuple[str, str]] = []
    for step in flat_steps(files.tokenizer, "pre_tokenizer", "pretokenizers"):
        steps += _read_step(step, result)
    result.steps = tuple(steps)
    return result


def _read_step(step: Mapping[str, object], result: Structure) -> list[tuple[str, str]]:
    """One pre-tokenizer as canonical steps: Digits and ByteLevel's own regex are Splits too."""
    kind = step.get("type")
    if kind == "Split":
        pattern, behavior = _split_pattern(step), step.get("behavior")
        result.shown.append(pattern)
        isolated = behavior == "Isolated" or (behavior == "Removed" and step.get("invert") is True)
        return [("split" if isolated else f"split {behavior}", canonical(pattern))]
    if kind == "Digits":
        return [("split", canonical(r"\p{N}" if step.get("individual_digits") is True else r"\p{N}+"))]
    if kind == "ByteLevel":
        if step.get("add_prefix_space") is True:
            result.notes.append("the tokenizer puts a blank in front of the text; llama.cpp does not (byte-level BPE)")
        own = step.get("use_regex", True) is not False
        return [("split", canonical(pretokenizers.GPT2))] * own + [("bytelevel", "")]
    if kind == "Punctuation":
        return [("punctuation", str(step.get("behavior", "Isolated")))]
    result.shown.append(f"({kind})")
    return [(str(kind), "")]


def _split_pattern(step: Mapping[str, object]) -> str:
    """The expression of a Split; a plain text is escaped."""
    pattern = object_in(step, "pattern")
    expression, plain = text_in(pattern, "Regex"), text_in(pattern, "String")
    if expression is not None:
        return expression
    if plain is not None:
        return re.escape(plain)
    raise BadTokenizer("a Split has no pattern", where="tokenizer.json: pre_tokenizer")


@cache
def known_structures() -> dict[Steps, frozenset[str]]:
    """Canonical steps -> all names with this structure."""
    found: dict[Steps, set[str]] = {}
    for regexes, names in pretokenizers.GROUPS:
        own = [name for name in names.split() if name not in pretokenizers.OTHER_STRUCTURES and name != "default"]
        if regexes and own:
            steps = (*(("split", canonical(regex)) for regex in regexes), ("bytelevel", ""))
            found.setdefault(steps, set()).update(own)
    others = (*pretokenizers.OTHER_STRUCTURES.items(), *pretokenizers.FURTHER_STRUCTURES.items())
    for name, steps in others:
        key = tuple((kind, canonical(text) if kind == "split" else text) for kind, text in steps)
        found.setdefault(key, set()).add(name)
    return {steps: frozenset(names) for steps, names in found.items()}


def recognise(structure: Structure, architecture: str, preferred: Sequence[str] = ()) -> str:
    """The name for ``tokenizer.ggml.pre``: the first one ``preferred`` that has this structure, else by the table.

    Raises UnknownPreTokenizer, which shows the expressions.
    """
    names = known_structures().get(structure.steps, frozenset())
    if structure.normalizer not in _UNDERSTOOD_NORMALIZERS or not names:
        raise unknown(structure)
    named = next((name for name in preferred if name in names), None)
    if named is not None:
        return named
    for choice in pretokenizers.CHOICES:
        if (
            choice.default in names
            and choice.normalizer in (None, structure.normalizer)
            and choice.ignore_merges in (None, structure.ignore_merges)
        ):
            return choice.architectures.get(architecture, choice.default)
    return min(names, key=pretokenizers.NAMES.index)


def unknown(structure: Structure) -> UnknownPreTokenizer:
    """The error for a structure without a name: its expressions, and the names whose expressions come nearest."""
    parts = [f"normalizer {' + '.join(structure.normalizer)}"] if structure.normalizer else []
    parts += [f"regex {text if len(text) < 400 else text[:400] + '...'}" for text in structure.shown]
    parts += ["ByteLevel with its own regex"] * (("split", canonical(pretokenizers.GPT2)) in structure.steps)
    return UnknownPreTokenizer(
        "llama.cpp has no name for this pre-tokenizer: " + ("; ".join(parts) or "there is none"),
        where="tokenizer.json: pre_tokenizer",
        hint=f"if you know which name fits, give --pre-tokenizer NAME (nearest: {', '.join(_nearest(structure))})",
    )


def unnamed(message: str, where: str) -> UnknownPreTokenizer:
    """The error for a tokenizer that does not say how it cuts words."""
    return UnknownPreTokenizer(message, where=where, hint="if you know which name fits, give --pre-tokenizer NAME")


def _nearest(structure: Structure) -> list[str]:
    """Three names with similar expressions, most similar first."""
    text = _joined(structure.steps)
    rated = {
        min(names, key=pretokenizers.NAMES.index): difflib.SequenceMatcher(None, text, _joined(steps)).quick_ratio()
        for steps, names in known_structures().items()
    }
    return sorted(rated, key=lambda name: -rated[name])[:3]


def _joined(steps: Steps) -> str:
    return "\n".join(f"{kind} {text[:2000]}" for kind, text in steps)


def check_name(name: str) -> str:
    """A name given with --pre-tokenizer must be one that llama.cpp knows."""
    if name in pretokenizers.REGEXES:
        return name
    close = difflib.get_close_matches(name, pretokenizers.NAMES, n=3, cutoff=0.3) or ["llama-bpe", "qwen2", "gpt-2"]
    raise UsageError(
        f"--pre-tokenizer: llama.cpp knows no pre-tokenizer {name[:60]!r}",
        hint=f"nearest: {', '.join(close)}; all: {' '.join(pretokenizers.NAMES)}",
    )
