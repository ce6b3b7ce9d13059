"""The kinds of vocabulary that GGUF knows: which one a checkpoint has, and how each is read.

A kind's module is imported when a checkpoint has it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from quantcli.container import Value
from quantcli.errors import BadTokenizer
from quantcli.vocab import byte_fallback, bytelevel, pretokenizers, sentencepiece
from quantcli.vocab.hints import VocabHints
from quantcli.vocab.token_table import Table, TokenType, is_byte
from quantcli.vocab.tokenizer_files import Folder, TokenizerFiles

_FAIRSEQ = "sentencepiece.bpe.model"  # the name under which fairseq's models keep theirs, in an order of its own


@dataclass(slots=True)
class Request:
    """What the kinds of vocabulary need to know."""

    checkpoint: Folder
    size: int | None
    hints: VocabHints
    pre_tokenizer: str | None
    files: TokenizerFiles
    model_bytes: bytes | None  # tokenizer.model or spiece.model
    model_name: str


@dataclass(slots=True)
class Loaded:
    """A vocabulary of one kind. ``extra`` are further entries by key without ``tokenizer.ggml.``.

    ``ids`` and ``add`` hold whatever the files say; the family's hints go before them.
    """

    kind: str
    pre: str | None  # None: this kind has no pre-tokenizer
    table: Table
    merges: list[str] | None = None
    extra: dict[str, Value] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    with_scores: bool = False
    space_prefix: bool | None = None  # False where the tokenizer adds no blank in front of the text
    ids: Mapping[str, int] = field(default_factory=dict)  # special tokens by GGUF name
    add: Mapping[str, bool] = field(default_factory=dict)
    with_flags: bool = True  # write add_bos and its like
    template: str | None = None  # the chat template of a checkpoint that has none


def request_of(
    checkpoint: Folder, size: int | None, hints: VocabHints, pre_tokenizer: str | None, files: TokenizerFiles
) -> Request:
    """The request for a checkpoint, with its SentencePiece file if it has one.

    Llama 3 ships tiktoken's ranks under the name tokenizer.model: those are no SentencePiece model.
    """
    for name in ("tokenizer.model", "spiece.model", _FAIRSEQ):
        data = checkpoint.bytes(name)
        if data is not None and not sentencepiece.is_text_ranks(data):
            return Request(checkpoint, size, hints, pre_tokenizer, files, data, name)
    return Request(checkpoint, size, hints, pre_tokenizer, files, None, "")


def load(request: Request) -> Loaded:
    """Read the vocabulary as the kind that it is. Raises BadTokenizer where it is none that GGUF knows."""
    return READERS[_kind_of(request)](request)


def _kind_of(request: Request) -> str:
    """The kind of vocabulary: the family's word, else what the files are."""
    files, checkpoint = request.files, request.checkpoint
    if request.hints.kind is not None:
        return request.hints.kind
    if files.model.get("type") == "WordPiece":
        return "bert"
    if _plain_text(request):
        return "gpt2"
    if request.model_bytes is not None:
        return "llama" if request.model_name == "tokenizer.model" else "t5"
    if byte_fallback.matches(files):
        return "llama"
    if files.model.get("type") == "Unigram":
        return "t5"
    if files.model.get("type", "BPE") == "BPE" and (files.tokenizer or checkpoint.json("vocab.json")):
        return "gpt2"
    if not files.tokenizer:
        from quantcli.vocab import plamo, ranks, rwkv

        for name, kind in ((rwkv.FILE, "rwkv"), (plamo.FILE, "plamo2"), (ranks.find(checkpoint), "gpt2")):
            if name is not None and checkpoint.bytes(name) is not None:
                return kind
    found = f"a tokenizer of kind {files.model.get('type')!r} has no GGUF form"
    raise BadTokenizer(
        found if files.tokenizer else "the checkpoint has no tokenizer files",
        where="tokenizer.json",
        hint="needed: tokenizer.model, or tokenizer.json, or vocab.json and merges.txt",
    )


def _llama(request: Request) -> Loaded:
    """SentencePiece, or a byte-fallback BPE of tokenizer.json."""
    hints = request.hints
    if request.model_bytes is None:
        if not request.files.tokenizer:
            raise BadTokenizer("there is neither tokenizer.model nor tokenizer.json", where="tokenizer.model")
        table = byte_fallback.load(request.size, request.files)
        return Loaded("llama", "default", table, with_scores=True, space_prefix=_no_prefix(request, True))
    name = request.model_name
    table, model = sentencepiece.load(request.model_bytes, request.size, request.files, name, hints.unused)
    notes = []
    if model.algorithm == sentencepiece.UNIGRAM:
        notes.append(f"{name} is a unigram model: llama.cpp merges by score and can split some words otherwise")
    stated = model.add_dummy_prefix
    prefix = stated if hints.space_prefix == "stated" else _no_prefix(request, stated)
    return Loaded("llama", "default", table, with_scores=True, notes=notes, space_prefix=prefix)


def _no_prefix(request: Request, stated: bool) -> bool | None:
    """False where no blank goes in front of a text, None where one does: tokenizer.json decides, else ``stated``."""
    decides = byte_fallback.matches(request.files)
    return None if (byte_fallback.space_prefix(request.files) if decides else stated) else False


def _plain_text(request: Request) -> str | None:
    """The name under which a byte-fallback BPE is written as merges of plain text: the user's or the family's word."""
    given = (request.pre_tokenizer,) if request.pre_tokenizer else request.hints.pre
    if not byte_fallback.matches(request.files):
        return None
    return next((name for name in given if name in pretokenizers.PLAIN_TEXT), None)


def _gpt2(request: Request) -> Loaded:
    """BPE by ranks, over bytes or plain text: from tokenizer.json or its two older files, else from ranks."""
    plain = _plain_text(request)
    if plain is not None:
        table, merges = bytelevel.load(request.checkpoint, request.size, request.files)
        for index, (text, score, _) in list(table.tokens.items()):
            if is_byte(text):  # else llama.cpp prints the name of the byte
                table.put(index, text, score, TokenType.BYTE)
        return Loaded("gpt2", plain, table, merges=merges)
    if not request.files.tokenizer and request.checkpoint.json("vocab.json") is None:
        from quantcli.vocab import ranks

        found = ranks.find(request.checkpoint)
        if found is not None:
            own = ranks.load(request.checkpoint, found, request.size, request.files, request.pre_tokenizer)
            return Loaded("gpt2", own.pre, own.table, merges=own.merges, ids=own.ids, add=own.add)
    name, notes = bytelevel.pre_tokenizer(request.files, request.hints, request.pre_tokenizer)
    table, merges = bytelevel.load(request.checkpoint, request.size, request.files)
    return Loaded("gpt2", name, table, merges=merges, notes=notes)


def _gemma4(request: Request) -> Loaded:
    """A byte-fallback BPE with its merges: blanks are U+2581, words are not cut apart before they are merged."""
    if not request.files.tokenizer:
        raise BadTokenizer("Gemma 4's vocabulary is in tokenizer.json, which is not there", where="tokenizer.json")
    table, merges = byte_fallback.load_with_merges(request.size, request.files)
    return Loaded("gemma4", None, table, merges=merges, with_scores=True, space_prefix=False, add={"bos": True})


def _t5(request: Request) -> Loaded:
    """Unigram: from the SentencePiece file in its own order or fairseq's, or from tokenizer.json."""
    from quantcli.vocab import unigram

    data, name = request.model_bytes, request.model_name
    if data is None:
        table, extra = unigram.load_json(request.size, request.files)
    else:
        table, extra = unigram.load(data, name, request.size, request.files, fairseq=name == _FAIRSEQ)
    return Loaded("t5", "default", table, extra=extra, with_scores=True)


def _bert(request: Request) -> Loaded:
    """WordPiece."""
    from quantcli.vocab import wordpiece

    table, extra = wordpiece.load(request.size, request.files)
    name = request.pre_tokenizer or next(iter(request.hints.pre), "bert-bge")
    return Loaded("bert", name, table, extra=extra)


def _rwkv(request: Request) -> Loaded:
    """RWKV's own list of words."""
    from quantcli.vocab import rwkv

    table = rwkv.load(request.checkpoint, request.size)
    return Loaded("rwkv", None, table, ids=rwkv.IDS, template=rwkv.TEMPLATE)


def _plamo2(request: Request) -> Loaded:
    """PLaMo 2's list of pieces."""
    from quantcli.vocab import plamo

    table = plamo.load(request.checkpoint, request.size)
    return Loaded("plamo2", "default", table, with_scores=True, ids=plamo.IDS, with_flags=False, space_prefix=False)


READERS: Mapping[str, Callable[[Request], Loaded]] = {
    "llama": _llama,
    "gpt2": _gpt2,
    "gemma4": _gemma4,
    "t5": _t5,
    "bert": _bert,
    "rwkv": _rwkv,
    "plamo2": _plamo2,
}
