"""Text to token ids and back from the metadata of a GGUF file alone, as llama.cpp does it.

Special tokens are found in the raw text first (longest first); what lies between them goes to the encoder of the
vocabulary's kind (``encoders.py``).
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator, Mapping

import numpy

from quantcli.container import Value, known
from quantcli.errors import BadTokenizer, UnsupportedFile
from quantcli.vocab import encoders, endings, pretokenizers, rwkv
from quantcli.vocab.bytelevel import character_to_byte
from quantcli.vocab.cutting import Cutter
from quantcli.vocab.token_table import TokenType, is_byte

_BLANK = "\u2581"
_SEARCHED = (TokenType.CONTROL, TokenType.USER_DEFINED, TokenType.UNKNOWN)
_ALWAYS_BOS = ("gemma4", "granite-embed-multi-311m")  # pre-tokenizers for which llama.cpp adds it against the file
_NAMED = "tokenizer.chat_template."
_KINDS = ("bos", "eos", "unknown", "seperator", "padding", "mask", "eot", "eom", "fim_pad", "fim_rep", "fim_sep")
# special token -> the variable that chat templates know it by
_VARIABLES = {
    "bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "seperator": "sep_token", "padding": "pad_token",
    "mask": "mask_token",
}  # fmt: skip


class Tokenizer:
    """A vocabulary that can be used. Not changed after it is built, so any thread may use it.

    ``bos``, ``eos``, ``eot``, ``unknown``, ``padding`` are ids or None; ``end_of_generation`` are all ids that end an
    answer; ``chat_template`` is the text of the default template or None, ``named_templates`` are the names of others,
    ``special_texts`` the texts of special tokens by the names that templates use.
    """

    def __init__(self, metadata: Mapping[str, Value]) -> None:
        """Use ``Tokenizer.from_metadata``."""
        for key, problem in known.problems(metadata, known.TOKENIZER):
            raise BadTokenizer(f"{key} {problem}", where=key, hint="the file does not describe its vocabulary")
        self.kind = _text(metadata, "tokenizer.ggml.model") or ""
        if self.kind not in encoders.KINDS:
            named = f"a vocabulary of kind {self.kind[:60]!r} cannot be used"
            raise UnsupportedFile(
                named if self.kind else "the file has no vocabulary",
                where="tokenizer.ggml.model",
                hint="text can be tokenized with the kinds " + ", ".join(encoders.KINDS),
            )
        self._kind = encoders.KINDS[self.kind]
        self.pre = _text(metadata, "tokenizer.ggml.pre") or "default"
        self.texts = _token_texts(metadata)
        self.ids = {text: index for index, text in enumerate(self.texts)}
        if len(self.ids) != len(self.texts):
            raise BadTokenizer("two tokens have the same text", where="tokenizer.ggml.tokens")
        self.types = encoders.numbers(metadata, "token_type", len(self.texts), int(TokenType.NORMAL))
        self._name_ids(metadata)
        self._name_flags(metadata)
        self.chat_template = _text(metadata, "tokenizer.chat_template")
        self.named_templates = [key[len(_NAMED) :] for key in metadata if key.startswith(_NAMED)]
        name = (_text(metadata, "general.name") or "").lower()
        self.strips_right = "phi3" in name or "phi-3" in name  # llama.cpp goes by the model's name here
        self._cutter = Cutter(
            self._find_searched(), strips_right=self.strips_right, strips_left=self._mask_of(metadata, name)
        )
        self._pieces: dict[int, bytes] = {}
        self._run = self._kind.build(
            encoders.Vocabulary(
                metadata, self.texts, self.ids, self.types, self.pre, self.unknown, self.add_space_prefix
            )
        )

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Value]) -> Tokenizer:
        """Build it from the metadata of a GGUF file (also what ``vocab.load`` gives, with ``general.name``).

        Raises BadTokenizer for contradictory entries, UnsupportedFile for a kind or pre-tokenizer that is not known.
        """
        return cls(metadata)

    def __len__(self) -> int:
        return len(self.texts)

    # ---- text to ids

    def encode(self, text: str, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """Token ids of ``text``.

        ``add_special`` puts bos and eos around it where the vocabulary says so; ``parse_special`` reads the texts of
        control tokens as these tokens (user-defined tokens are always read).
        """
        result = [self.bos] if add_special and self.add_bos and self.bos is not None else []
        after_special = True
        for part in self._parts(text, parse_special):
            if isinstance(part, int):
                result.append(part)
                after_special = True
                continue
            if self.kind == "llama":
                part = (" " * (after_special and self.add_space_prefix) + part).replace(" ", _BLANK)
            result += self._run(part)
            after_special = False
        if add_special and self.add_eos and self._end is not None:
            result.append(self._end)
        return result

    def _parts(self, text: str, parse_special: bool) -> list[str | int]:
        """The text cut at special tokens: raw pieces and ids."""
        types = self.types
        return self._cutter.cut(text, lambda token: parse_special or types[token] == TokenType.USER_DEFINED)

    def _mask_of(self, metadata: Mapping[str, Value], name: str) -> str | None:
        """The mask that takes white space in front of it, where llama.cpp has one: by the names of things, again."""
        by_pre = self.pre.startswith(("jina-v2-de", "jina-v2-es", "jina-v2-code"))
        if by_pre or _text(metadata, "general.architecture") in ("nomic-bert-moe", "jina-bert-v3"):
            return "<mask>"
        return "[MASK]" if "modern-bert" in name else None

    def _find_searched(self) -> list[tuple[int, str]]:
        """(id, text) of the tokens that are looked for in raw text, longest first."""
        for text in endings.ALWAYS_TEXT:
            if text in self.ids:
                self.types[self.ids[text]] = TokenType.USER_DEFINED
        for index in endings.by_text(self.ids):
            self.types[index] = TokenType.CONTROL
        found = [int(index) for index in numpy.flatnonzero(numpy.isin(self.types, _SEARCHED)) if self.texts[index]]
        return [(i, self.texts[i]) for i in sorted(found, key=lambda i: -len(self.texts[i].encode("utf-8", "replace")))]

    # ---- ids to text

    def token_bytes(self, token: int, special: bool = False) -> bytes:
        """The bytes that a token stands for; control tokens are empty unless ``special``. Ids must be in range."""
        if not special and self.types[token] == TokenType.CONTROL:
            return b""
        found = self._pieces.get(token)
        if found is None:
            found = self._pieces[token] = self._bytes_of(token)
        return found

    def _bytes_of(self, token: int) -> bytes:
        text, kind = self.texts[token], self.types[token]
        if kind in _SEARCHED:
            return text.encode("utf-8", "replace")
        if kind == TokenType.BYTE and is_byte(text):
            return bytes([int(text[3:5], 16)])
        if self.kind == "rwkv":
            return rwkv.bytes_of(text)
        plain = self.pre in pretokenizers.PLAIN_TEXT
        if self.kind == "gpt2" and not plain:
            table = character_to_byte()
            return b"".join(bytes([table[c]]) if c in table else c.encode("utf-8", "replace") for c in text)
        return (text.replace(_BLANK, " ") if self._kind.escaped or plain else text).encode("utf-8", "replace")

    def decode_bytes(self, tokens: Iterable[int], special: bool = False) -> bytes:
        """The bytes of a sequence; the blank that ``encode`` puts in front of a text is taken away again."""
        data = b"".join(self.token_bytes(token, special) for token in tokens)
        return data.removeprefix(b" ") if self.add_space_prefix else data

    def decode(self, tokens: Iterable[int], special: bool = False) -> str:
        """The text of a sequence. Bytes that are no UTF-8 become U+FFFD."""
        return self.decode_bytes(tokens, special).decode("utf-8", "replace")

    def stream(self, tokens: Iterable[int], special: bool = False) -> Iterator[str]:
        """Text as it becomes known while ``tokens`` come in: a character of several tokens is given when it is whole.

        Nothing is taken away in front, so that the pieces continue the text of a prompt.
        """
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for token in tokens:
            yield decoder.decode(self.token_bytes(token, special))
        yield decoder.decode(b"", final=True)

    # ---- reading the entries

    def _name_ids(self, metadata: Mapping[str, Value]) -> None:
        defaults = dict(self._kind.ids)
        if self.pre in pretokenizers.NO_DEFAULT_BOS:
            defaults.pop("bos", None)
        special: dict[str, int | None] = {}
        for kind in _KINDS:
            value = metadata.get(f"tokenizer.ggml.{kind}_token_id")
            index = value.data if value is not None and isinstance(value.data, int) else defaults.get(kind)
            special[kind] = index if index is not None and 0 <= index < len(self.texts) else None
        # GPT-2's default ids are no words about this vocabulary; a template finds such a token undefined
        stated = [k for k in _VARIABLES if self.kind != "gpt2" or f"tokenizer.ggml.{k}_token_id" in metadata]
        self.special_texts = {_VARIABLES[k]: self.texts[i] for k in stated if (i := special[k]) is not None}
        endings.detect(special, self.ids)
        self.bos, self.eos, self.unknown = special["bos"], special["eos"], special["unknown"]
        self.eot, self.eom, self.padding = special["eot"], special["eom"], special["padding"]
        self._end = special[self._kind.end]
        self.end_of_generation = endings.end_ids(special, self.ids)

    def _name_flags(self, metadata: Mapping[str, Value]) -> None:
        kind = self._kind
        entries: Mapping[str, Value] = {} if kind.fixed else metadata
        by_name = self.kind == "gpt2" and self.pre in pretokenizers.ADD_BOS
        always = self.kind == "gemma4" or self.pre in _ALWAYS_BOS
        self.add_bos = encoders.flag(entries, "add_bos_token", kind.add_bos or by_name) or always
        self.add_eos = encoders.flag(entries, "add_eos_token", kind.add_end)
        self.add_space_prefix = kind.prefix is not None and encoders.flag(metadata, "add_space_prefix", kind.prefix)


def _text(metadata: Mapping[str, Value], key: str) -> str | None:
    """The text under ``key``; None where there is none."""
    value = metadata.get(key)
    return value.data if value is not None and isinstance(value.data, str) else None


def _token_texts(metadata: Mapping[str, Value]) -> list[str]:
    """``tokenizer.ggml.tokens``; an empty text is named as llama.cpp names it."""
    value = metadata.get("tokenizer.ggml.tokens")
    if value is None or isinstance(value.data, (str, int, float, numpy.ndarray)) or not len(value.data):
        raise BadTokenizer("there is no list of tokens", where="tokenizer.ggml.tokens")
    return [text or f"[EMPTY_{index}]" for index, text in enumerate(value.data)]
