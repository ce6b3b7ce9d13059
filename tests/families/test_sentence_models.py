"""Models for sentences: what sentence-transformers' files and a model's name say, for every family."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from helpers import oracles, variants
from helpers.variants import Content, same, summary
from quantcli.errors import BadTokenizer

# ---- pooling, rerankers

MODULES = [{"type": "sentence_transformers.models.Transformer", "path": ""}]
POOLED = [*MODULES, {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"}]
MODES: list[tuple[dict[str, Any], int | None]] = [
    ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, 1),
    ({"pooling_mode_cls_token": True}, 2),
    ({"pooling_mode_lasttoken": True, "pooling_mode_max_tokens": False}, 3),
    ({"pooling_mode": "mean"}, 1),
    ({"pooling_mode": "cls"}, 2),
    ({"pooling_mode": "lasttoken"}, 3),
    ({"pooling_mode": ["mean"]}, 1),
    ({"pooling_mode_max_tokens": True}, None),
    ({"pooling_mode": "max"}, None),
    ({"pooling_mode_mean_sqrt_len_tokens": True}, None),
    ({"pooling_mode": "weightedmean"}, None),
    ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, None),
]


@pytest.mark.parametrize("name", oracles.names())
def test_pooling(name: str, tmp_path: Path) -> None:
    """Whatever the family, in both spellings; what GGUF has no word for is told."""
    one = variants.content(name).without("modules.json", "1_Pooling/config.json").file("modules.json", POOLED)
    modes = MODES if name in ("bert", "qwen3") else MODES[len(name) % 5 :: 5]
    for number, (settings, expected) in enumerate(modes):
        found = summary(one.file("1_Pooling/config.json", settings), tmp_path / str(number))
        entry = found.metadata.get(f"{found.metadata['general.architecture'].data}.pooling_type")
        assert (entry and (entry.type.name, entry.data)) == (expected and ("UINT32", expected)), settings
        assert ("no counterpart" in found.notes) == (expected is None)


@pytest.mark.parametrize("modules", [[], {}, MODULES, [3], POOLED])
def test_nothing_that_pools(modules: object, tmp_path: Path) -> None:
    one = variants.content("qwen3")
    found = summary(one.file("modules.json", modules), tmp_path / "a")
    same(found, summary(one, tmp_path / "b"))
    assert not found.notes


ANSWERS = (20, 30)


def answering(tied: bool = True) -> Content:
    """Qwen3 whose vocabulary has the tokens "yes" and "no"."""
    one = variants.content("qwen3").configured(tie_word_embeddings=tied)
    tokenizer = one.json("tokenizer.json")
    taken = {part for merge in tokenizer["model"]["merges"] for part in ("".join(merge), *merge)}
    free = [text for text, index in tokenizer["model"]["vocab"].items() if text not in taken and len(text) == 1]
    vocab = tokenizer["model"]["vocab"]
    for text, old in zip(("yes", "no"), free, strict=False):
        vocab[text] = vocab.pop(old)
    one = one.file("tokenizer.json", tokenizer)
    dtype, shape, data = one.tensors[one.embeddings]
    head = {} if tied else {"lm_head.weight": (dtype, shape, data[4:] + data[:4])}
    return replace(one, tensors=one.tensors | head)


RERANKERS = [
    ("README.md", "---\nlicense: mit\n---\n\n# Qwen3-Reranker-0.6B\n"),
    ("README.md", "# Qwen3-Reranker\n\ntext"),
    ("README.md", "text\n\n## qwen3-reranker-8b, merged\n"),
    ("README.md", "# Qwen3-VL-Reranker-2B"),
    ("folder", "my-Qwen3-Reranker-4B-bf16"),
    ("_name_or_path", "Qwen/Qwen3-Reranker-0.6B"),
]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("where", "text"), RERANKERS)
def test_rerankers(where: str, text: str, tied: bool, tmp_path: Path) -> None:
    one = answering(tied)
    plain = summary(one, tmp_path / "plain")
    named = {"README.md": one.file("README.md", text), "folder": one}.get(where) or one.configured(**{where: text})
    found = summary(named, tmp_path / (text if where == "folder" else "model"))
    dtype, shape, data = one.tensors["lm_head.weight" if not tied else one.embeddings]
    tokens = list(plain.metadata["tokenizer.ggml.tokens"].data)
    size = len(data) // shape[0]
    rows = b"".join(data[index * size : (index + 1) * size] for index in map(tokens.index, ("yes", "no")))
    assert found.tensors.pop("cls.output.weight") == ((shape[1], 2), dtype, hashlib.sha256(rows).hexdigest())
    plain.tensors.pop("output.weight", None)
    assert found.tensors == plain.tensors
    assert found.metadata["qwen3.pooling_type"].data == 4
    assert list(found.metadata["qwen3.classifier.output_labels"].data) == ["yes", "no"]
    assert list(found.metadata["tokenizer.chat_templates"].data) == ["rerank"]
    assert "<Query>: {query}\n<Document>: {document}" in found.metadata["tokenizer.chat_template.rerank"].data
    assert found.metadata["tokenizer.chat_template"].data == plain.metadata["tokenizer.chat_template"].data
    assert "qwen3-reranker" in found.notes


@pytest.mark.parametrize("name", ["qwen3", "llama3", "bert"])
@pytest.mark.parametrize("card", [
    "---\npipeline_tag: text-ranking\n---\n", "# My reranker\n", "---\nbase_model: x/Qwen3-Reranker-0.6B\n---\n# X\n",
])  # fmt: skip
def test_a_doubt_is_told(name: str, card: str, tmp_path: Path) -> None:
    """What only hints at a reranker is converted as the model that config.json describes."""
    one = variants.content(name)
    found = summary(one.file("README.md", card), tmp_path / "a")
    assert found.tensors == summary(one, tmp_path / "b").tensors
    assert "speaks of a reranker" in found.notes
    assert ("--architecture qwen3-reranker" in found.notes) == (name == "qwen3")


def test_a_classifier_is_no_doubt(tmp_path: Path) -> None:
    """Whose class says what its name does."""
    found = summary(variants.content("bge-reranker-xlmr").file("README.md", "# My reranker\n"), tmp_path)
    assert "reranker" not in found.notes


def test_the_user_decides(tmp_path: Path) -> None:
    one = answering().file("README.md", "# Qwen3-Reranker-0.6B\n")
    assert "cls.output.weight" not in summary(one, tmp_path / "a", architecture="qwen3").tensors
    one = answering()
    assert "cls.output.weight" in summary(one, tmp_path / "b", architecture="qwen3-reranker").tensors


def test_a_vocabulary_without_answers(tmp_path: Path) -> None:
    """Their rows are those of the unknown token, as everywhere; where there is none either it is an error."""
    found = summary(variants.content("qwen3"), tmp_path / "a", architecture="qwen3-reranker")
    assert "cls.output.weight" in found.tensors and "stands in for it" in found.notes
    one = variants.content("qwen3")
    small = {name: raw.replace(b"<|endoftext|>", b"<|of a text|>") for name, raw in one.small.items()}
    with pytest.raises(BadTokenizer, match="no token 'yes'"):
        summary(replace(one, small=small), tmp_path / "b", architecture="qwen3-reranker")
