"""Tokenizer files of a checkpoint -> ``tokenizer.*`` metadata: find the kind, fill the table, add ids and templates."""

from __future__ import annotations

from collections.abc import Mapping

from quantcli.container import Value, ValueType, array, boolean, string, strings, u32
from quantcli.errors import BadTokenizer, MalformedFile
from quantcli.vocab import kinds, pretokenizers, special, structure, templates
from quantcli.vocab.hints import VocabHints
from quantcli.vocab.kinds import Loaded
from quantcli.vocab.tokenizer_files import Folder, TokenizerFiles, read

# kind of vocabulary -> what llama.cpp puts around a text where the file does not say it (bert: always both)
_ADDED_BY_DEFAULT: Mapping[str, tuple[str, ...]] = {"llama": ("bos",), "t5": ("eos",)}


def load(
    checkpoint: Folder, size: int | None, hints: VocabHints, pre_tokenizer: str | None, chat_template: str | None
) -> tuple[dict[str, Value], list[str]]:
    """See ``quantcli.vocab.load``. Places in errors are made absolute here."""
    if pre_tokenizer is not None:
        structure.check_name(pre_tokenizer)
    try:
        return _build(checkpoint, size, hints, pre_tokenizer, chat_template)
    except (BadTokenizer, MalformedFile) as error:
        folder = str(checkpoint.folder)
        if not (error.where or "").startswith(folder):
            error.where = f"{folder}/{error.where}" if error.where else folder
        raise


def _build(
    checkpoint: Folder, size: int | None, hints: VocabHints, pre_tokenizer: str | None, chat_template: str | None
) -> tuple[dict[str, Value], list[str]]:
    """The work of ``load``."""
    files = read(checkpoint)
    loaded = kinds.load(kinds.request_of(checkpoint, size, hints, pre_tokenizer, files))
    texts, scores, types = loaded.table.complete()
    specials = special.find(files, texts)
    special.apply_hints(specials, loaded.ids, hints, texts)
    _decide_flags(specials.add, loaded, hints, bool(files.tokenizer))
    metadata = {"model": string(loaded.kind), "tokens": strings(texts), "token_type": array(ValueType.INT32, types)}
    if loaded.pre is not None:
        metadata["pre"] = string(loaded.pre)
    if loaded.with_scores:
        metadata["scores"] = array(ValueType.FLOAT32, scores)
    if loaded.merges is not None:
        metadata["merges"] = strings(loaded.merges)
    metadata |= loaded.extra
    metadata |= {f"{name}_token_id": u32(index) for name, index in specials.ids.items()}
    metadata |= {f"add_{kind}_token": boolean(flag) for kind, flag in specials.add.items()}
    prefix = _space_prefix(loaded, hints, files)
    if prefix is not None:
        metadata["add_space_prefix"] = boolean(prefix)
    result = {f"tokenizer.ggml.{key}": value for key, value in metadata.items()}
    found, remarks = templates.find(checkpoint, files, chat_template or loaded.template)
    result |= _template_metadata(found)
    return result, [*loaded.notes, *loaded.table.notes(), *specials.notes, *remarks]


def _decide_flags(add: dict[str, bool], loaded: Loaded, hints: VocabHints, complete: bool) -> None:
    """The family's word goes first; then what the files say.

    A ``complete`` tokenizer.json that adds nothing says so by silence: that is written where llama.cpp would add
    something by itself. Without it the tokenizer's class decides, which agrees with llama.cpp's defaults.
    """
    if not loaded.with_flags:
        add.clear()
        return
    add.update(loaded.add)
    if hints.add_bos is not None:
        add["bos"] = hints.add_bos
    if hints.add_eos is not None:
        add["eos"] = hints.add_eos
    by_default = _ADDED_BY_DEFAULT.get(loaded.kind, ())
    if loaded.kind == "gpt2" and loaded.pre in pretokenizers.ADD_BOS:
        by_default, complete = ("bos",), True  # no class of byte-level BPE adds one by itself
    if complete:
        for kind in by_default:
            add.setdefault(kind, False)


def _space_prefix(loaded: Loaded, hints: VocabHints, files: TokenizerFiles) -> bool | None:
    """``add_space_prefix``: the family's word, or tokenizer_config.json (llama class), or off in the tokenizer."""
    if isinstance(hints.space_prefix, bool):
        return hints.space_prefix
    configured = files.config.get("add_prefix_space")
    alone = loaded.kind == "llama" and not files.tokenizer  # a tokenizer.json does what it says itself
    if (hints.prefix_from_config or (alone and configured is False)) and isinstance(configured, bool):
        return configured
    return loaded.space_prefix


def _template_metadata(found: dict[str, str]) -> dict[str, Value]:
    """``tokenizer.chat_template`` and the named ones."""
    named = [name for name in found if name != "default"]
    result = {"tokenizer.chat_templates": strings(named)} if named else {}
    result |= {f"tokenizer.chat_template.{name}": string(found[name]) for name in named}
    if "default" in found:
        result["tokenizer.chat_template"] = string(found["default"])
    return result
