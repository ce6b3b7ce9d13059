"""Special token ids and the add_bos / add_eos / add_sep flags, as llama.cpp's converter finds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from quantcli.errors import BadTokenizer
from quantcli.sources.jsonfile import object_in, text_in
from quantcli.vocab.hints import VocabHints
from quantcli.vocab.tokenizer_files import TokenizerFiles, expect, flat_steps

# name in the Hugging Face files -> name in the GGUF key, in the order of the keys; cls only ever stands in for bos
KEYS = {
    "bos": "bos",
    "eos": "eos",
    "unk": "unknown",
    "sep": "seperator",  # so spelt in GGUF
    "pad": "padding",
    "mask": "mask",
    "eot": "eot",
    "eom": "eom",
}
_GGUF_NAMES = {*KEYS.values(), "fim_pre", "fim_suf", "fim_mid", "fim_pad", "fim_rep", "fim_sep"}
_OLDER_NAMES = {"prefix": "fim_pre", "suffix": "fim_suf", "middle": "fim_mid"}  # of CodeLlama's time
_FLAGS = ("bos", "sep", "eos")


@dataclass(slots=True)
class Specials:
    """``ids`` by GGUF name ("bos", "unknown", ...), ``add`` by kind ("bos", "eos", "sep")."""

    ids: dict[str, int] = field(default_factory=dict)
    add: dict[str, bool] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def find(files: TokenizerFiles, tokens: list[str]) -> Specials:
    """Ids and flags for a vocabulary of these tokens."""
    contents = {kind: files.token_content(kind) for kind in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")}
    contents["bos"] = contents["bos"] or contents["cls"]
    contents["eos"] = contents["eos"] or contents["sep"]
    result = Specials()
    result.add = _flags(files, contents)
    for kind in _FLAGS:
        entry = (files.config or {}).get(f"add_{kind}_token")
        if isinstance(entry, bool):
            result.add.setdefault(kind, entry)
    _find_ids(files, contents, tokens, result)
    return result


def _find_ids(files: TokenizerFiles, contents: Mapping[str, str | None], tokens: list[str], result: Specials) -> None:
    """The first source that has an id wins: added token of that text, config.json, its text_config, the vocabulary."""
    by_text: dict[str, int] = {}
    for token in files.added:
        by_text.setdefault(token.content, token.id)
    configs = [files.model_config, object_in(files.model_config, "text_config")]
    by_name = {} if files.tokenizer else {text: index for index, text in enumerate(tokens)}
    for kind, name in KEYS.items():
        content = contents.get(kind)
        found: list[object] = [by_text.get(content) if content is not None else None]
        found += [config.get(f"{kind}_token_id") for config in configs]
        found.append(by_name.get(content) if content is not None else None)
        found += [_first_of(config.get(f"{kind}_token_id")) for config in configs]
        for index in found:
            if type(index) is not int:  # nothing there, or true and false
                continue
            if 0 <= index < len(tokens):
                result.ids[name] = index
                break
            result.notes.append(f"the id {index} of the {kind} token is outside the vocabulary: not used")


def _first_of(value: object) -> object:
    """A model with several eos ids: the first, where no other source names one."""
    return value[0] if isinstance(value, list) and value else None


def _flags(files: TokenizerFiles, contents: dict[str, str | None]) -> dict[str, bool]:
    """What the post-processor of tokenizer.json adds; changes ``contents`` where a template shows another eos."""
    add: dict[str, bool] = {}
    for step in flat_steps(files.tokenizer, "post_processor", "processors"):
        kind = step.get("type")
        if kind == "ByteLevel":
            add.setdefault("bos", False)
            add.setdefault("eos", False)
        elif kind in ("RobertaProcessing", "BertProcessing"):
            add.update(bos=True, eos=True, sep=kind == "RobertaProcessing")
            for name, default in (("cls", "bos"), ("sep", "eos")):
                given = _first_of(step.get(name))
                contents[name] = contents[name] or (given if isinstance(given, str) else contents[default])
        elif kind == "TemplateProcessing":
            _template(step, contents, add, bool(files.config))
    return add


def _template(
    step: Mapping[str, object], contents: dict[str, str | None], add: dict[str, bool], configured: bool
) -> None:
    """Read bos, eos and sep off a template: ``[bos] A [eos]`` and ``[bos] A [sep] [bos] B [eos]``."""
    single = expect(step.get("single") or [], list, "tokenizer.json: post_processor.single")
    first = last = None
    if len(single) > 1:
        first, last = _special_of(single[0]), _special_of(single[-1])
    if first is not None:
        if not configured:
            contents["bos"] = first
        add["bos"] = first in (contents["bos"], contents["cls"])
    if last is not None:
        if configured and last != contents["eos"]:
            contents["eom" if contents.get("eot") else "eot"] = contents["eos"]
        contents["eos"] = last
        add["eos"] = True
    pair = expect(step.get("pair") or [], list, "tokenizer.json: post_processor.pair")
    if pair:
        _separator(pair, first, last, contents, add)


def _separator(
    pair: list[object], first: str | None, last: str | None, contents: dict[str, str | None], add: dict[str, bool]
) -> None:
    """``add_sep``: is there a separator between A and B? Forms other than ``A x B`` and ``A x y B`` say nothing."""
    if first is not None and _special_of(pair[0]) == first:
        pair = pair[1:]
    if pair and last is not None and _special_of(pair[-1]) == last:
        pair = pair[:-1]
    if len(pair) < 3 or (_sequence_of(pair[0]), _sequence_of(pair[-1])) != ("A", "B"):
        return
    middle = [_special_of(entry) for entry in pair[1:-1]]
    ends = (contents["sep"], contents["eos"])
    found = middle[0] is not None and middle[0] in ends and last is None
    found = found or (len(middle) == 2 and middle[1] is not None and middle[1] in ends)
    add["sep"] = found
    if found:
        contents["sep"] = contents["sep"] or contents["eos"]


def _special_of(entry: object) -> str | None:
    """Text of a template entry that is a special token."""
    return _text_of(entry, "SpecialToken")


def _sequence_of(entry: object) -> str | None:
    """ "A" or "B" where a template entry stands for a text."""
    return _text_of(entry, "Sequence")


def _text_of(entry: object, kind: str) -> str | None:
    return text_in(object_in(entry, kind), "id")


def apply_hints(result: Specials, ids: Mapping[str, int], hints: VocabHints, tokens: list[str]) -> None:
    """The family's own ids replace what the files say (``ids`` are those of the kind); its fallbacks do not."""
    ids = {_OLDER_NAMES.get(name, name): index for name, index in {**ids, **hints.ids}.items()}
    unknown = ({*ids, *hints.texts, *hints.fallbacks}) - _GGUF_NAMES
    if unknown:
        raise BadTokenizer(f"the family names an unknown kind of special token: {', '.join(sorted(unknown))}")
    result.ids.update(ids)
    if hints.texts or hints.fallbacks:
        by_text = {text: index for index, text in enumerate(tokens)}
        fallbacks = {name: text for name, text in hints.fallbacks.items() if name not in result.ids}
        result.ids.update({n: by_text[text] for n, text in {**fallbacks, **hints.texts}.items() if text in by_text})
