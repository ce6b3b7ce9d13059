"""Regular expressions of tokenizers in one canonical spelling, so that equal ones compare equal as texts.

The same split is published in many spellings: ``(?i:'s|'t|'re|'ve|'m|'ll|'d)`` or ``'(?:[sSdDmMtT]|[lL][lL]|...)``,
possessive quantifiers, escaped or literal characters, classes in any order. ``canonical`` removes these differences.
The result is compared, never run. It is not a general proof of equality: different texts may still split alike.
"""

from __future__ import annotations

import itertools
import re

_MAX_PATTERN = 20_000
_DEEPEST_CLASS = 8
_ANY_CASE = "\ue000"  # marks the contractions in any case; a private character that no pattern uses
_CONTRACTIONS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")
_LONG_PROPERTIES = {"letter": "l", "number": "n", "punctuation": "p", "symbol": "s", "mark": "m", "script=han": "han"}
_CONTROL_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v", "0": "\0"}
_CLASS_ESCAPES = "sSdDwWbBAzZhHGRX"
_QUANTIFIER = re.compile(r"[*+?]|\{\d+(?:,\d*)?\}")
_GROUP = re.compile(r"('?)\((\?i:|\?:)([^()]*)\)")
_SAME_QUANTIFIER = {"{1}": "", "{1,}": "+", "{0,}": "*", "{0,1}": "?"}


def canonical(pattern: str) -> str:
    """The canonical spelling. A pattern that is too long or unbalanced is returned as it is (it matches no name's)."""
    if len(pattern) > _MAX_PATTERN:
        return pattern
    try:
        text = _GROUP.sub(_contraction_group, pattern)
        pieces = _merge_newlines(_parse(text))
    except (IndexError, ValueError):
        return pattern
    result = "".join(pieces)
    # What is left of a white-space run is one piece whether or not the last alternative names it
    for rest in (r"|\s+", r"|\s"):
        result = result.removesuffix(rest) if result.endswith(r"|\s+(?!\S)" + rest) else result
    return result


def _contraction_group(match: re.Match[str]) -> str:
    """A group that means exactly the English contractions, in any case or in lower case, in one spelling."""
    quote, flag, body = match.groups()
    texts = _spelled_out(body, quote, flag == "?i:")
    if texts == _every_case(_CONTRACTIONS):
        return f"(?:{_ANY_CASE}{'|'.join(_CONTRACTIONS)})"
    around = match.string[: match.start()][-1:] + match.string[match.end() :][:1]
    if texts == set(_CONTRACTIONS) and around in ("", "|", "||"):  # the group is a whole alternative
        return "|".join(_CONTRACTIONS)
    return match.group()


def _spelled_out(body: str, quote: str, any_case: bool) -> set[str]:
    """All texts that a list of alternatives of letters, quotes and simple classes means; empty for anything else."""
    texts: set[str] = set()
    for alternative in body.split("|"):
        parts = re.findall(r"\[([A-Za-z]+)\]|([A-Za-z'])", alternative)
        if sum(len(letters) + 2 if letters else 1 for letters, _ in parts) != len(alternative) or len(parts) > 4:
            return set()
        choices = [letters or single for letters, single in parts]
        texts |= {quote + "".join(chosen) for chosen in itertools.islice(itertools.product(*choices), 64)}
    return _every_case(texts) if any_case else texts


def _every_case(texts: set[str] | tuple[str, ...]) -> set[str]:
    """Each text in all mixtures of upper and lower case."""
    return {"".join(mix) for text in texts for mix in itertools.product(*({c.lower(), c.upper()} for c in text[:8]))}


def _parse(text: str) -> list[str]:
    """Split into canonical atoms, classes and operators."""
    pieces: list[str] = []
    position = 0
    while position < len(text):
        match = _QUANTIFIER.match(text, position)
        if match and pieces and not pieces[-1].endswith(("(", "|", "(?")):
            position = match.end()
            if text[position : position + 1] == "+":  # possessive: these patterns never backtrack into it
                position += 1
            pieces.append(_SAME_QUANTIFIER.get(match.group(), match.group()))
        elif text[position] == "[":
            piece, position = _character_class(text, position)
            pieces.append(piece)
        elif text[position] == "\\":
            piece, position = _escape(text, position)
            pieces.append(piece)
        elif text.startswith(("(?:", "(?=", "(?!", "(?<", "(?i"), position):
            pieces.append(text[position : position + 3])
            position += 3
        else:
            pieces.append(text[position] if text[position] in "()|^$." else _literal(text[position]))
            position += 1
    return [piece for piece in pieces if piece]


def _merge_newlines(pieces: list[str]) -> list[str]:
    r"""``\s*[\r\n]`` at the end of an alternative means ``\s*[\r\n]+``: the run before it is greedy."""
    newline = "[" + _literal("\n") + _literal("\r") + "]"
    result: list[str] = []
    for index, piece in enumerate(pieces):
        result.append(piece)
        if piece == newline and result[-3:-1] == [r"\s", "*"] and (pieces[index + 1 : index + 2] or ["|"]) == ["|"]:
            result.append("+")
    return result


def _literal(character: str) -> str:
    """One character: letters, digits and blanks as themselves, others by code point."""
    return character if character.isalnum() or character in " '" else f"<{ord(character):x}>"


def _escape(text: str, position: int) -> tuple[str, int]:
    r"""An escape sequence: ``\p{L}``, ``\s``, ``\x{4e00}``, ``\u4e00``, ``\n`` or an escaped character."""
    mark = text[position + 1]
    if mark in "pP":
        end = text.index("}", position) + 1 if text[position + 2] == "{" else position + 3
        name = text[position + 2 : end].strip("{}").lower()
        return f"\\{mark}{{{_LONG_PROPERTIES.get(name, name)}}}", end
    if mark in "xu":
        match = re.compile(r"\{([0-9A-Fa-f]{1,6})\}|([0-9A-Fa-f]{4})|([0-9A-Fa-f]{2})").match(text, position + 2)
        if match:
            return _literal(chr(int(next(filter(None, match.groups())), 16))), match.end()
    if mark in _CLASS_ESCAPES:
        return "\\" + mark, position + 2
    return _literal(_CONTROL_ESCAPES.get(mark, mark)), position + 2


def _character_class(text: str, position: int) -> tuple[str, int]:
    """A class with its members sorted; a class inside a class is a union. One plain member stands for itself."""
    position += 1
    negated = text[position] == "^"
    members, position = _class_members(text, position + negated)
    body = "".join(sorted(members))
    if len(members) == 1 and not negated and "-" not in body:
        return body, position
    return f"[{'^' * negated}{body}]", position


def _class_members(text: str, position: int, depth: int = 0) -> tuple[set[str], int]:
    """Members up to the closing bracket. Raises ValueError for absurd nesting, IndexError where it does not end."""
    if depth > _DEEPEST_CLASS:
        raise ValueError("classes are nested too deeply")
    members: set[str] = set()
    start = position
    while text[position] != "]" or position == start:
        if text.startswith("[", position) and text[position + 1] != ":":
            inner, position = _class_members(text, position + 1, depth + 1)
            members |= inner
            continue
        first, position = _class_atom(text, position)
        if text[position] == "-" and text[position + 1] != "]" and not first.startswith("\\"):
            last, position = _class_atom(text, position + 1)
            first = f"{first}-{last}"
        members.add(first)
    return members, position + 1


def _class_atom(text: str, position: int) -> tuple[str, int]:
    if text[position] == "\\":
        return _escape(text, position)
    return _literal(text[position]), position + 1
