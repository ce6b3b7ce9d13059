"""Tokenizer files of a checkpoint -> ``tokenizer.*`` metadata: find the kind, fill the table, add ids and templates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from quantcli.container import Value, ValueType, array, boolean, string, strings, u32
from quantcli.errors import BadTokenizer, MalformedFile
from quantcli.vocab import (
    byte_fallback,
    bytelevel,
    pretokenizers,
    sentencepiece,
    special,
    structure,
    templates,
    unigram,
    wordpiece,
)
from quantcli.vocab.hints import VocabHints
from quantcli.vocab.token_table import Table
from quantcli.vocab.tokenizer_files import Folder, TokenizerFiles, read


@dataclass(slots=True)
class _Request:
    """What the kinds of vocabulary need to know."""

    checkpoint: Folder
    size: int | None
    hints: VocabHints
    pre_tokenizer: str | None
    files: TokenizerFiles
    model_bytes: bytes | None  # tokenizer.model or spiece.model
    model_name: str


@dataclass(slots=True)
class _Loaded:
    """A vocabulary of one kind. ``extra`` are further entries by key without ``tokenizer.ggml.``."""

    kind: str
    pre: str
    table: Table
    merges: list[str] | None = None
    extra: dict[str, Value] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    with_scores: bool = False
    with_types: bool = True
    space_prefix: bool | None = None  # False where the tokenizer adds no blank in front of the text


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
    data, name = _model_file(checkpoint)
    request = _Request(checkpoint, size, hints, pre_tokenizer, read(checkpoint), data, name)
    loaded = _READERS[_kind_of(request)](request)
    texts, scores, types = loaded.table.complete()
    specials = special.find(request.files, texts)
    special.apply_hints(specials, hints.ids, hints.texts, texts)
    _decide_flags(specials.add, loaded, hints, bool(request.files.tokenizer))
    metadata = {"model": string(loaded.kind), "pre": string(loaded.pre), "tokens": strings(texts)}
    if loaded.with_scores:
        metadata["scores"] = array(ValueType.FLOAT32, scores)
    if loaded.with_types:
        metadata["token_type"] = array(ValueType.INT32, types)
    if loaded.merges is not None:
        metadata["merges"] = strings(loaded.merges)
    metadata |= loaded.extra
    metadata |= {f"{name}_token_id": u32(index) for name, index in specials.ids.items()}
    metadata |= {f"add_{kind}_token": boolean(flag) for kind, flag in specials.add.items()}
    prefix = _space_prefix(loaded, hints, request.files)
    if prefix is not None:
        metadata["add_space_prefix"] = boolean(prefix)
    result = {f"tokenizer.ggml.{key}": value for key, value in metadata.items()}
    found, remarks = templates.find(checkpoint, request.files, chat_template)
    result |= _template_metadata(found)
    return result, [*loaded.notes, *loaded.table.notes(), *specials.notes, *remarks]


def _model_file(checkpoint: Folder) -> tuple[bytes | None, str]:
    """The SentencePiece file of a checkpoint, if it has one (Llama 3 ships tiktoken's ranks as tokenizer.model)."""
    for name in ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model"):
        data = checkpoint.bytes(name)
        if data is not None and not sentencepiece.is_text_ranks(data):
            return data, name
    return None, ""


def _kind_of(request: _Request) -> str:
    """The kind of vocabulary: the family's word, else what the files are."""
    files = request.files
    if request.hints.kind is not None:
        return request.hints.kind
    if files.model.get("type") == "WordPiece":
        return "bert"
    if request.model_bytes is not None:
        return "llama" if request.model_name == "tokenizer.model" else "t5"
    if byte_fallback.matches(files):
        return "llama"
    if files.model.get("type") == "Unigram":
        return "t5"
    if files.model.get("type", "BPE") == "BPE" and (files.tokenizer or request.checkpoint.json("vocab.json")):
        return "gpt2"
    found = f"a tokenizer of kind {files.model.get('type')!r} has no GGUF form"
    raise BadTokenizer(
        found if files.tokenizer else "the checkpoint has no tokenizer files",
        where="tokenizer.json",
        hint="needed: tokenizer.model, or tokenizer.json, or vocab.json and merges.txt",
    )


def _load_llama(request: _Request) -> _Loaded:
    """SentencePiece, or a byte-fallback BPE of tokenizer.json."""
    if request.model_bytes is None:
        if not request.files.tokenizer:
            raise BadTokenizer("there is neither tokenizer.model nor tokenizer.json", where="tokenizer.model")
        table = byte_fallback.load(request.size, request.files)
        return _Loaded("llama", "default", table, with_scores=True, space_prefix=_no_prefix(request, True))
    table, model = sentencepiece.load(request.model_bytes, request.size, request.files, request.model_name)
    notes = []
    if model.algorithm == sentencepiece.UNIGRAM:
        remark = "is a unigram model: llama.cpp merges by score and can split some words otherwise"
        notes.append(f"{request.model_name} {remark}")
    prefix = _no_prefix(request, model.add_dummy_prefix)
    return _Loaded("llama", "default", table, with_scores=True, notes=notes, space_prefix=prefix)


def _no_prefix(request: _Request, stated: bool) -> bool | None:
    """False where no blank goes in front of a text, None where one does: tokenizer.json decides, else ``stated``."""
    decides = byte_fallback.matches(request.files)
    return None if (byte_fallback.space_prefix(request.files) if decides else stated) else False


def _load_gpt2(request: _Request) -> _Loaded:
    """Byte-level BPE."""
    name, notes = bytelevel.pre_tokenizer(request.files, request.hints.architecture, request.pre_tokenizer)
    table, merges = bytelevel.load(request.checkpoint, request.size, request.files)
    return _Loaded("gpt2", name, table, merges=merges, notes=notes)


def _load_t5(request: _Request) -> _Loaded:
    """Unigram."""
    table, extra = unigram.load(request.model_bytes, request.model_name, request.size, request.files)
    return _Loaded("t5", "default", table, extra=extra, with_scores=True)


def _load_bert(request: _Request) -> _Loaded:
    """WordPiece."""
    table, extra = wordpiece.load(request.size, request.files)
    return _Loaded("bert", request.pre_tokenizer or "bert-bge", table, extra=extra)


# kind of vocabulary -> what llama.cpp puts around a text where the file does not say it (bert: always both)
_ADDED_BY_DEFAULT: Mapping[str, tuple[str, ...]] = {"llama": ("bos",), "t5": ("eos",)}

_READERS: dict[str, Callable[[_Request], _Loaded]] = {
    "llama": _load_llama,
    "gpt2": _load_gpt2,
    "t5": _load_t5,
    "bert": _load_bert,
}


def _decide_flags(add: dict[str, bool], loaded: _Loaded, hints: VocabHints, complete: bool) -> None:
    """The family's word goes first; then what the files say.

    A ``complete`` tokenizer.json that adds nothing says so by silence: that is written where llama.cpp would add
    something by itself. Without it the tokenizer's class decides, which agrees with llama.cpp's defaults.
    """
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


def _space_prefix(loaded: _Loaded, hints: VocabHints, files: TokenizerFiles) -> bool | None:
    """``add_space_prefix``: the family's word, or tokenizer_config.json (llama class), or off in the tokenizer."""
    if hints.space_prefix is not None:
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
