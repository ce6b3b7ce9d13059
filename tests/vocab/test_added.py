"""Added tokens and what is put around a text: every way in which checkpoints say it, for every kind of vocabulary.

What is right was asked of transformers: its ``added_tokens_decoder``, and the ids that it gives to texts.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers import oracles
from helpers.vocabularies import entry, hints, types_of
from quantcli import vocab
from quantcli.container import Value
from quantcli.sources.checkpoint import Checkpoint
from quantcli.vocab.tokenizer import Tokenizer

KINDS = {"qwen3": "gpt2", "mixtral": "llama", "llama-spm": "llama", "bert": "bert", "t5": "t5"}
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
Edit = Callable[[dict[str, Any]], None]


def edited(name: str, folder: Path, without: tuple[str, ...] = (), **edits: Edit) -> Checkpoint:
    """An oracle's tokenizer files, without some, others edited: ``tokenizer=change`` changes tokenizer.json."""
    folder.mkdir()
    for path in oracles.folder(name).iterdir():
        if path.suffix in (".json", ".model") and path.name not in without:
            (folder / path.name).write_bytes(path.read_bytes())
    for stem, edit in edits.items():
        path = folder / f"{stem}.json"
        content = json.loads(path.read_text()) if path.is_file() else {}
        edit(content)
        path.write_text(json.dumps(content))
    return Checkpoint(folder)


def load(name: str, checkpoint: Checkpoint, size: int | None = None) -> dict[str, Value]:
    entries = json.loads((oracles.folder(name) / "expected.json").read_text())["metadata"]
    rows = size or entries["tokenizer.ggml.tokens"]["len"]
    metadata, _ = vocab.load(checkpoint, vocab_size=rows, hints=hints(entries["general.architecture"]["value"]))
    return metadata


def type_of(metadata: dict[str, Value], index: int) -> int:
    return types_of(metadata)[index]


def plain_token(name: str) -> tuple[int, str]:
    """(id, text as the tokenizer files spell it) of an ordinary token of the vocabulary."""
    model = json.loads((oracles.folder(name) / "tokenizer.json").read_text())["model"]
    texts = model["vocab"] if isinstance(model["vocab"], dict) else {p[0]: i for i, p in enumerate(model["vocab"])}
    return next((i, text) for text, i in texts.items() if i > 270 or (name == "bert" and i > 100) if text.isalpha())


# ---- special by name


def as_text(text: str) -> Any:
    return text


def as_object(text: str) -> Any:
    return {"__type": "AddedToken", "content": text, "special": False, "normalized": False}


NAMINGS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "extra_special_tokens, a list": lambda token: {"extra_special_tokens": [token]},
    "extra_special_tokens, an object": lambda token: {"extra_special_tokens": {"thought_token": token}},
    "additional_special_tokens": lambda token: {"additional_special_tokens": ["no such", token]},
    "model_specific_special_tokens": lambda token: {"model_specific_special_tokens": {"image_token": token}},
    "an attribute of the model": lambda token: {"image_token": token},
    "mask_token": lambda token: {"mask_token": token},
    "pad_token": lambda token: {"pad_token": token},
}


@pytest.mark.parametrize("form", [as_text, as_object])
@pytest.mark.parametrize("naming", NAMINGS)
@pytest.mark.parametrize("name", KINDS)
def test_what_the_configuration_names_is_control(tmp_path: Path, name: str, naming: str, form: Any) -> None:
    index, text = plain_token(name)
    assert type_of(load(name, edited(name, tmp_path / "before")), index) == NORMAL
    checkpoint = edited(name, tmp_path / "after", tokenizer_config=lambda c: c.update(NAMINGS[naming](form(text))))
    assert type_of(load(name, checkpoint), index) == CONTROL


@pytest.mark.parametrize("naming", NAMINGS)
@pytest.mark.parametrize("decoder", [True, False])
def test_special_tokens_map_counts_without_a_decoder(tmp_path: Path, naming: str, decoder: bool) -> None:
    def change(config: dict[str, Any]) -> None:
        if not decoder:
            config.pop("added_tokens_decoder", None)

    checkpoint = edited(
        "qwen3",
        tmp_path / "a",
        tokenizer_config=change,
        special_tokens_map=lambda c: c.update(NAMINGS[naming]("<think>")),
    )
    index = json.loads((oracles.folder("qwen3") / "tokenizer.json").read_text())["added_tokens"][-2]["id"]
    assert type_of(load("qwen3", checkpoint), index) == (USER_DEFINED if decoder else CONTROL)


@pytest.mark.parametrize("name", ["qwen3", "mixtral", "llama-spm", "bert"])
@pytest.mark.parametrize("special", [True, False])
def test_the_decoder_decides_over_tokenizer_json(tmp_path: Path, name: str, special: bool) -> None:
    size = len(load(name, Checkpoint(oracles.folder(name)))["tokenizer.ggml.tokens"].data)
    token = {"id": size, "content": "<thought>", "special": not special, "normalized": False}
    checkpoint = edited(
        name,
        tmp_path / "a",
        tokenizer=lambda c: c["added_tokens"].append(token),
        tokenizer_config=lambda c: c.setdefault("added_tokens_decoder", {}).update(
            {str(size): token | {"special": special}}
        ),
    )
    metadata = load(name, checkpoint, size + 2)
    assert metadata["tokenizer.ggml.tokens"].data[size].lstrip("\u2581") == "<thought>"
    assert types_of(metadata)[size:] == [CONTROL if special else USER_DEFINED, UNUSED]


@pytest.mark.parametrize("name", ["mixtral", "llama-spm", "t5"])
def test_added_tokens_that_only_tokenizer_json_has(tmp_path: Path, name: str) -> None:
    """A newer transformers leaves added_tokens_decoder out of tokenizer_config.json."""
    size = len(load(name, Checkpoint(oracles.folder(name)))["tokenizer.ggml.tokens"].data)
    token = {"id": size, "content": "<thought>", "special": True, "normalized": False}
    checkpoint = edited(
        name,
        tmp_path / "a",
        tokenizer=lambda c: c["added_tokens"].append(token),
        tokenizer_config=lambda c: c.pop("added_tokens_decoder", None),
    )
    metadata = load(name, checkpoint, size + 1)
    assert metadata["tokenizer.ggml.tokens"].data[size] == "<thought>" and type_of(metadata, size) == CONTROL


@pytest.mark.parametrize("name", ["qwen3", "mixtral"])
def test_a_named_token_that_is_nowhere_gets_the_next_id(tmp_path: Path, name: str) -> None:
    size = len(load(name, Checkpoint(oracles.folder(name)))["tokenizer.ggml.tokens"].data)
    checkpoint = edited(name, tmp_path / "a", tokenizer_config=lambda c: c.update(extra_special_tokens=["<a>", "<b>"]))
    metadata = load(name, checkpoint, size + 3)
    assert list(metadata["tokenizer.ggml.tokens"].data[size:]) == ["<a>", "<b>", f"[PAD{size + 2}]"]
    assert types_of(metadata)[size:] == [CONTROL, CONTROL, UNUSED]


@pytest.mark.parametrize("value", [None, 7, True, [], {}, [None, 3, {}, [["x"]]], {"a": {"content": 5}}, ""])
def test_odd_names_are_passed_over(tmp_path: Path, value: Any) -> None:
    before = load("qwen3", Checkpoint(oracles.folder("qwen3")))
    for number, naming in enumerate(("extra_special_tokens", "additional_special_tokens", "image_token")):
        checkpoint = edited("qwen3", tmp_path / str(number), tokenizer_config=lambda c, n=naming: c.update({n: value}))
        assert load("qwen3", checkpoint) == before


# ---- a token that is added twice


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("where", ["tokenizer.json", "decoder", "both"])
@pytest.mark.parametrize("name", ["qwen3", "mixtral", "llama-spm", "bert"])
def test_the_vocabulary_s_id_wins(tmp_path: Path, name: str, where: str, special: bool) -> None:
    index, text = plain_token(name)
    size = len(load(name, Checkpoint(oracles.folder(name)))["tokenizer.ggml.tokens"].data)
    token = {"id": size, "content": text, "special": special, "normalized": False}

    def in_config(config: dict[str, Any]) -> None:
        if where == "tokenizer.json":
            config.pop("added_tokens_decoder", None)
        else:
            config.setdefault("added_tokens_decoder", {})[str(size)] = token

    def in_tokenizer(tokenizer: dict[str, Any]) -> None:
        if where != "decoder":
            tokenizer["added_tokens"].append(token)

    metadata = load(name, edited(name, tmp_path / "a", tokenizer=in_tokenizer, tokenizer_config=in_config), size + 1)
    plain = load(name, edited(name, tmp_path / "b"), size + 1)
    kind = CONTROL if special else USER_DEFINED
    if name == "llama-spm" and where == "tokenizer.json":
        kind = NORMAL  # tokenizer.model has all pieces: tokenizer.json only fills free ids
    assert type_of(metadata, index) == kind and type_of(metadata, size) == UNUSED
    found, before = list(metadata["tokenizer.ggml.tokens"].data), list(plain["tokenizer.ggml.tokens"].data)
    assert found[index].lstrip("\u2581") == text
    assert found[:index] + found[index + 1 :] == before[:index] + before[index + 1 :]


@pytest.mark.parametrize("tokenizer_class", ["Qwen2Tokenizer", "PreTrainedTokenizerFast", "TokenizersBackend"])
def test_a_class_that_builds_from_the_decoder_leaves_the_second_one_out(tmp_path: Path, tokenizer_class: str) -> None:
    index, text = plain_token("qwen3")
    token = {"id": 400, "content": text, "special": False, "normalized": False}
    checkpoint = edited(
        "qwen3",
        tmp_path / "a",
        tokenizer=lambda c: c["added_tokens"].append(token),
        tokenizer_config=lambda c: c.update(tokenizer_class=tokenizer_class),
    )
    kind = NORMAL if tokenizer_class == "Qwen2Tokenizer" else USER_DEFINED
    metadata = load("qwen3", checkpoint, 401)
    assert (type_of(metadata, index), type_of(metadata, 400)) == (kind, UNUSED)


def test_the_same_entry_twice_is_one_token(tmp_path: Path) -> None:
    checkpoint = edited("qwen3", tmp_path / "a", tokenizer=lambda c: c["added_tokens"].append(c["added_tokens"][-1]))
    assert load("qwen3", checkpoint) == load("qwen3", Checkpoint(oracles.folder("qwen3")))


def test_ids_of_named_tokens_follow_the_vocabulary(tmp_path: Path) -> None:
    index, text = plain_token("qwen3")
    checkpoint = edited(
        "qwen3",
        tmp_path / "a",
        tokenizer=lambda c: c["added_tokens"].append({"id": 400, "content": text, "special": True}),
        tokenizer_config=lambda c: (c.pop("added_tokens_decoder"), c.update(eos_token=text)),
    )
    assert load("qwen3", checkpoint, 401)["tokenizer.ggml.eos_token_id"].data == index


# ---- what is put around a text


def template(*parts: str) -> dict[str, Any]:
    """A TemplateProcessing: "A" is the text, anything else a special token."""
    single = [{"Sequence": {"id": "A"}} if part == "A" else {"SpecialToken": {"id": part}} for part in parts]
    return {"type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": {}}


BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False}
WRITTEN = {"qwen3": "", "smollm3": "", "llama3": "", "mixtral": "", "llama-spm": "", "phi3": "", "t5": ""}
SPECIALS = {"t5": ("<pad>", "</s>"), "qwen3": ("<|endoftext|>", "<|im_end|>")}


def specials(name: str) -> tuple[str, str]:
    """Texts of bos and eos."""
    config = json.loads((oracles.folder(name) / "tokenizer_config.json").read_text())
    return SPECIALS.get(name) or (config["bos_token"], config["eos_token"])


@pytest.mark.parametrize("ends", ["A", "bA", "Ae", "bAe", "none", "bytes", "sequence"])
@pytest.mark.parametrize("name", WRITTEN)
def test_what_the_post_processor_adds_is_what_the_file_does(tmp_path: Path, name: str, ends: str) -> None:
    bos, eos = specials(name)
    letters = {"b": bos, "A": "A", "e": eos}
    step = template(*(letters[letter] for letter in ends)) if "A" in ends else None
    if ends == "bytes":
        step = BYTE_LEVEL
    elif ends == "sequence":
        step = {"type": "Sequence", "processors": [BYTE_LEVEL, template(bos, "A", eos)]}

    def silent(config: dict[str, Any]) -> None:
        config.update(tokenizer_class="TokenizersBackend", bos_token=bos, eos_token=eos)
        for key in ("add_bos_token", "add_eos_token"):
            config.pop(key, None)

    edits = {"tokenizer": lambda c: c.update(post_processor=step), "tokenizer_config": silent}
    metadata = load(name, edited(name, tmp_path / "a", **edits))
    wanted = (ends in ("bA", "bAe", "sequence"), ends in ("Ae", "bAe", "sequence"))
    defaults = {"llama": (True, False), "t5": (False, True)}  # llama.cpp's own
    kind = metadata["tokenizer.ggml.model"].data
    default = defaults.get(kind, (metadata["tokenizer.ggml.pre"].data == "llama-bpe", False))
    found = [metadata.get(f"tokenizer.ggml.add_{end}_token") for end in ("bos", "eos")]
    assert tuple(d if f is None else f.data for f, d in zip(found, default, strict=True)) == wanted
    if kind in ("llama", "gpt2"):
        tokenizer = Tokenizer.from_metadata(metadata)
        assert (tokenizer.add_bos, tokenizer.add_eos) == wanted


@pytest.mark.parametrize("name", ["llama-spm", "phi3"])
def test_a_model_file_alone_keeps_the_default(tmp_path: Path, name: str) -> None:
    """The classes of such tokenizers add a bos unless told not to, as llama.cpp does."""

    def silent(config: dict[str, Any]) -> None:
        config.pop("add_bos_token", None)

    metadata = load(name, edited(name, tmp_path / "a", ("tokenizer.json",), tokenizer_config=silent))
    assert "tokenizer.ggml.add_bos_token" not in metadata
    said = edited(name, tmp_path / "b", ("tokenizer.json",), tokenizer_config=lambda c: c.update(add_bos_token=False))
    assert load(name, said)["tokenizer.ggml.add_bos_token"].data is False


METASPACE = {"type": "Metaspace", "replacement": "\u2581", "split": False}
PREFIXES = {
    "prepend": ({"type": "Prepend", "prepend": "\u2581"}, None, True),
    "replace": ({"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}, None, False),
    "metaspace always": (None, METASPACE | {"prepend_scheme": "always"}, True),
    "metaspace never": (None, METASPACE | {"prepend_scheme": "never"}, False),
    "older metaspace": (None, METASPACE | {"add_prefix_space": False}, False),
}


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("name", ["mixtral", "llama-spm", "phi3"])
def test_the_blank_in_front(tmp_path: Path, name: str, prefix: str) -> None:
    normalizer, pre_tokenizer, blank = PREFIXES[prefix]
    steps = {"normalizer": normalizer, "pre_tokenizer": pre_tokenizer}
    metadata = load(name, edited(name, tmp_path / "a", tokenizer=lambda c: c.update(steps)))
    found = metadata.get("tokenizer.ggml.add_space_prefix")
    assert (True if found is None else found.data) is blank


@pytest.mark.parametrize("name", ["phi3", "nemotron", "llama-spm"])
def test_a_blank_that_the_configuration_forbids(tmp_path: Path, name: str) -> None:
    edits = {"tokenizer_config": lambda c: c.update(add_prefix_space=False)}
    metadata = load(name, edited(name, tmp_path / "a", ("tokenizer.json",), **edits))
    assert metadata["tokenizer.ggml.add_space_prefix"].data is False


# ---- reported inputs


def test_reported_inputs(shared: Path) -> None:
    reports = shared / "reports" / "checkpoints"
    for name in ("extra-special-tokens", "added-token-twice"):
        entries = json.loads((reports / name / "expected.json").read_text())["metadata"]
        rows = entries["tokenizer.ggml.tokens"]["len"]
        metadata, _ = vocab.load(Checkpoint(reports / name), vocab_size=rows, hints=hints("qwen3"))
        for key in ("tokens", "token_type"):
            found = entry(metadata[f"tokenizer.ggml.{key}"])
            assert found["sha256_json"] == entries[f"tokenizer.ggml.{key}"]["sha256_json"]
        if name == "extra-special-tokens":
            assert type_of(metadata, 398) == CONTROL
    metadata, _ = vocab.load(Checkpoint(reports / "phi3-no-bos"), vocab_size=424, hints=hints("phi3"))
    assert metadata["tokenizer.ggml.add_bos_token"].data is False
    tokenizer = Tokenizer.from_metadata(metadata)
    ids = tokenizer.encode("<|user|>a<|end|>", True, True)
    assert (ids[0], ids[-1], len(ids)) == (420, 419, 3)
