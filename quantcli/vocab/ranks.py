"""tiktoken's ranks: lines ``base64 rank``, one a token of bytes, become a byte-level BPE with merges.

Which expression cuts words, and which special tokens stand behind the ranks, is in Python code beside such a file.
That is never run: ``RELEASED`` has it for the tokenizers that were released like this. tekken.json (Mistral) holds
ranks, too, and says everything itself.
"""

from __future__ import annotations

import base64
import binascii
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from quantcli.errors import BadTokenizer
from quantcli.sources.jsonfile import object_in
from quantcli.vocab import origin, sentencepiece, structure
from quantcli.vocab.bytelevel import byte_to_character
from quantcli.vocab.token_table import MAX_TOKENS, Table, TokenType
from quantcli.vocab.tokenizer_files import Folder, TokenizerFiles, expect, json_object

TEKKEN = "tekken.json"
_END = "<|endoftext|>"
_EXTRA = tuple(f"<|extra_{index}|>" for index in range(205))
_LONGEST = 1024  # bytes of a token
_TEKKEN_IDS = {"bos": "<s>", "eos": "</s>", "unknown": "<unk>", "padding": "<pad>"}
_TEKKEN_OLDER = (
    "<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]", "[SUFFIX]",
    "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Released:
    """A tokenizer that was released as ranks and code.

    ``special`` stand behind the ranks, in this order; what tokenizer_config.json lists replaces them, and up to
    ``reserved`` ids behind the ranks are named ``<|reserved_token_ID|>``. ``named`` says which token is "eos" and so
    on, whatever config.json says; ``fallbacks`` the same where it says nothing.
    """

    classes: tuple[str, ...]
    pre: str
    special: tuple[str, ...] = ()
    reserved: int = 0
    named: Mapping[str, str] = field(default_factory=dict)
    fallbacks: Mapping[str, str] = field(default_factory=dict)


# file -> what was released under this name; tokenizer_config.json's tokenizer_class goes first
RELEASED: Mapping[str, Released] = {
    "qwen.tiktoken": Released(
        ("QWenTokenizer",), "qwen2", (_END, "<|im_start|>", "<|im_end|>", *_EXTRA),
        fallbacks={"bos": _END, "eos": _END, "unknown": _END},
    ),
    "hy.tiktoken": Released(
        ("HYTokenizer",), "hunyuan", (_END, "<|startoftext|>", "<|bos|>", "<|eos|>", "<|pad|>", *_EXTRA)
    ),
    "tiktoken.model": Released(("TikTokenTokenizer",), "kimi-k2", reserved=258, named={"eos": "[EOS]"}),
    "tokenizer.model": Released(("ChatGLM4Tokenizer",), "chatglm-bpe"),
}  # fmt: skip


@dataclass(slots=True)
class Loaded:
    """The vocabulary of a file of ranks: table, merges as ``left right`` texts, its name, special ids by GGUF name."""

    table: Table
    merges: list[str]
    pre: str
    ids: dict[str, int]
    add: dict[str, bool] = field(default_factory=dict)


def find(checkpoint: Folder) -> str | None:
    """The file of ranks of a checkpoint: a known name, or the only ``*.tiktoken``; tekken.json where there is none."""
    others = sorted(path.name for path in checkpoint.folder.glob(origin.RANKS))
    for name in (*RELEASED, *others):
        data = checkpoint.bytes(name)
        if data is not None and sentencepiece.is_text_ranks(data):
            return name
    return TEKKEN if checkpoint.bytes(TEKKEN) is not None else None


def load(checkpoint: Folder, name: str, size: int | None, files: TokenizerFiles, given: str | None) -> Loaded:
    """The vocabulary in the file ``name``; ``given`` is the user's own name for how words are cut.

    Raises BadTokenizer, and UnknownPreTokenizer where nothing says how words are cut.
    """
    if name == TEKKEN:
        return _tekken(json_object(checkpoint, TEKKEN), size, given)
    ranks = _parse(checkpoint.bytes(name) or b"", name)
    known = _released(name, files)
    if known is None and given is None:
        raise structure.unnamed(f"{name} holds ranks alone; the code that says how words are cut is never run", name)
    known = known or Released((), "")
    table = Table(size, name)
    _fill(table, ranks, 0)
    special = _special(known, len(ranks), size, files)
    for index, text in special.items():
        table.put(index, text, 0.0, TokenType.CONTROL)
    ids = {text: index for index, text in special.items()}
    named = {kind: ids[text] for kind, text in known.named.items() if text in ids}
    stated = files.model_config.get("eos_token_id") is not None or files.token_content("eos") is not None
    fallbacks = {} if stated else {kind: ids[text] for kind, text in known.fallbacks.items() if text in ids}
    return Loaded(table, _merges(ranks), given or known.pre, {**fallbacks, **named})


def _released(name: str, files: TokenizerFiles) -> Released | None:
    """The row for a file: by the class that reads it, else by its name."""
    stated = files.config.get("tokenizer_class")
    by_class = next((row for row in RELEASED.values() if stated in row.classes), None)
    by_name = RELEASED.get(name) if name != "tokenizer.model" else None
    return by_class or by_name


def _special(known: Released, first: int, size: int | None, files: TokenizerFiles) -> dict[int, str]:
    """Id -> text of the special tokens, those with a row in the embeddings."""
    found = {first + index: text for index, text in enumerate(known.special)}
    limit = first + known.reserved if size is None else min(first + known.reserved, size)
    found |= {index: f"<|reserved_token_{index}|>" for index in range(first, limit)}
    return found | {token.id: token.content for token in files.listed}


def _parse(data: bytes, where: str) -> dict[bytes, int]:
    """Token -> rank."""
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip():
            continue
        parts = line.split()
        try:
            token = base64.b64decode(parts[0], validate=True)
        except (binascii.Error, ValueError):
            token = b""
        if len(parts) != 2 or not token or not parts[1].isdigit() or len(parts[1]) > 9:
            raise BadTokenizer("expected a token in base64 and its rank", where=f"{where}, line {number}")
        ranks.setdefault(token, int(parts[1]))
        if len(ranks) > MAX_TOKENS or len(token) > _LONGEST:
            raise BadTokenizer("too many tokens, or one that is too long", where=f"{where}, line {number}")
    _check_ranks(ranks, where)
    return ranks


def _check_ranks(ranks: Mapping[bytes, int], where: str) -> None:
    """Every rank once; each byte is a token, or some text could not be written."""
    if len(set(ranks.values())) != len(ranks):
        raise BadTokenizer("two tokens have the same rank", where=where)
    missing = next((byte for byte in range(256) if bytes([byte]) not in ranks), None)
    if missing is not None:
        raise BadTokenizer(f"the byte {missing:#04x} is no token", where=where)


def _fill(table: Table, ranks: Mapping[bytes, int], first: int) -> None:
    for token, rank in ranks.items():
        table.put(first + rank, _text(token), 0.0, TokenType.NORMAL)


def _text(token: bytes) -> str:
    """A token in GPT-2's alphabet of bytes."""
    table = byte_to_character()
    return "".join(table[byte] for byte in token)


def _merges(ranks: Mapping[bytes, int]) -> list[str]:
    """The merge that makes each token, in order of ranks: what is left of it when all earlier merges are done.

    A token that earlier ranks do not bring down to two parts has none: no text reaches it.
    """
    result: list[str] = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        parts = _apart(token, ranks, rank)
        if len(parts) == 2:
            result.append(f"{_text(parts[0])} {_text(parts[1])}")
    return result


def _apart(token: bytes, ranks: Mapping[bytes, int], limit: int) -> list[bytes]:
    """``token`` merged by all ranks below ``limit``, the lowest first and leftmost."""
    parts = [token[index : index + 1] for index in range(len(token))]
    while len(parts) > 2:
        found = [ranks.get(left + right, limit) for left, right in itertools.pairwise(parts)]
        lowest = min(found)
        if lowest >= limit:
            break
        place = found.index(lowest)
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return parts


def _tekken(content: Mapping[str, object], size: int | None, given: str | None) -> Loaded:
    """Mistral's file: its special tokens come first, then the ranks, as many as its settings say."""
    settings = object_in(content, "config")
    total = expect(settings.get("default_vocab_size"), int, f"{TEKKEN}: config.default_vocab_size")
    count = expect(settings.get("default_num_special_tokens"), int, f"{TEKKEN}: config.default_num_special_tokens")
    if not 0 <= count < total <= MAX_TOKENS:
        raise BadTokenizer("the numbers of tokens contradict each other", where=f"{TEKKEN}: config")
    rows = expect(content.get("vocab"), list, f"{TEKKEN}: vocab")[: total - count]
    ranks = dict(_tekken_rank(row, index) for index, row in enumerate(rows))
    _check_ranks(ranks, f"{TEKKEN}: vocab")
    table = Table(size, TEKKEN)
    names = dict(_tekken_special(content.get("special_tokens")))
    for index in range(count):
        table.put(index, names.get(index, f"<SPECIAL_{index}>"), 0.0, TokenType.CONTROL)
    _fill(table, ranks, count)
    by_text = {text: index for index, text in names.items()}
    ids = {kind: by_text[text] for kind, text in _TEKKEN_IDS.items() if text in by_text}
    return Loaded(table, _merges(ranks), given or "tekken", ids, {"bos": True, "eos": False})


def _tekken_rank(row: object, index: int) -> tuple[bytes, int]:
    """Token and rank of an entry of ``vocab``."""
    where = f"{TEKKEN}: vocab[{index}]"
    entry = expect(row, dict, where)
    try:
        token = base64.b64decode(expect(entry.get("token_bytes"), str, where), validate=True)
    except (binascii.Error, ValueError):
        token = b""
    if not token or len(token) > _LONGEST or entry.get("rank") != index:
        raise BadTokenizer("expected the bytes of a token in base64, in order of ranks", where=where)
    return token, index


def _tekken_special(value: object) -> Iterable[tuple[int, str]]:
    """Id and text of the special tokens; older files have none of their own."""
    if value is None:
        return list(enumerate(_TEKKEN_OLDER))
    where = f"{TEKKEN}: special_tokens"
    entries = [expect(row, dict, where) for row in expect(value, list, where)]
    return [(expect(entry.get("rank"), int, where), expect(entry.get("token_str"), str, where)) for entry in entries]
