"""Checkpoint folders: names, small files, the cache of the hub."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from helpers import broken_files
from quantcli.errors import MalformedFile, MissingFile
from quantcli.sources import jsonfile
from quantcli.sources.checkpoint import Checkpoint, hub_name


def cache_snapshot(root: Path, owner_and_name: str) -> Path:
    """A folder as the Hugging Face cache lays it out: links from snapshots/<commit> to ../../blobs."""
    top = root / "hub" / f"models--{owner_and_name}"
    snapshot = top / "snapshots" / ("0123456789abcdef" * 3)[:40]
    snapshot.mkdir(parents=True)
    (top / "blobs").mkdir()
    for name, raw in {"config.json": b'{"a": 1}', "model.safetensors": broken_files.sound_safetensors()}.items():
        (top / "blobs" / name[:5]).write_bytes(raw)
        (snapshot / name).symlink_to(Path("..") / ".." / "blobs" / name[:5])
    return snapshot


def test_a_snapshot_of_the_cache_with_its_links(tmp_path: Path, monkeypatch) -> None:
    snapshot = cache_snapshot(tmp_path, "HuggingFaceTB--SmolLM2--135M")
    checkpoint = Checkpoint(f"{snapshot}/")
    assert (checkpoint.owner, checkpoint.name) == ("HuggingFaceTB", "SmolLM2--135M")
    assert checkpoint.config == {"a": 1} and list(checkpoint.tensors) == ["a"]
    monkeypatch.chdir(snapshot)
    assert Checkpoint(".").name == "SmolLM2--135M" and Checkpoint(".").folder == snapshot


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/x/My-Model", (None, "My-Model")),
        ("/x/models--gpt2/snapshots/" + "a" * 40, (None, "gpt2")),
        ("/x/models--o--n/snapshots/" + "0" * 40, ("o", "n")),
        ("/x/models--o--n", ("o", "n")),
        ("/x/model/" + "b" * 40, (None, "model")),
        ("/", (None, "model")),
        ("/x/models--o--n/snapshots/" + "0" * 40 + "/sub", (None, "sub")),
    ],
)
def test_names_of_folders(path: str, expected: tuple) -> None:
    assert hub_name(Path(path)) == expected


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    assert hub_name(tmp_path / "a\udcff b") == (None, "a b")


def test_small_files(tmp_path: Path) -> None:
    folder = broken_files.folder(
        tmp_path,
        {
            "config.json": '\ufeff{"a": NaN, "b": -Infinity, "a": 2}',
            "chat_template.jinja": "hällo\n",
            "merges.txt": b"\xff",
            "extra/one.jinja": "x",
            "model.safetensors": broken_files.sound_safetensors(),
        },
    )
    checkpoint = Checkpoint(folder)
    assert checkpoint.config == {"a": 2, "b": float("-inf")}
    assert checkpoint.text("chat_template.jinja") == "hällo\n" and checkpoint.text("extra/one.jinja") == "x"
    assert checkpoint.text("absent.txt") is None and checkpoint.json("generation_config.json") is None
    assert checkpoint.bytes("merges.txt") == b"\xff"
    with pytest.raises(MalformedFile, match="not UTF-8"):
        checkpoint.text("merges.txt")
    with pytest.raises(MissingFile, match="no tokenizer.json"):
        checkpoint.json("tokenizer.json", required=True)
    assert set(checkpoint.digests()) == {"config.json", "chat_template.jinja", "merges.txt"}
    names = {os.path.basename(path) for path in checkpoint.files}
    assert names == {"model.safetensors", "config.json", "chat_template.jinja", "merges.txt"}
    assert all(os.path.isabs(path) for path in checkpoint.files)


def test_nesting_is_measured_outside_strings_only() -> None:
    deep = jsonfile.DEEPEST + 50
    brackets = "[" * deep
    for text in (brackets, brackets + '\\"' + brackets, "\\\\", "a\\n", '\\"' + brackets, "\\u005b"):
        document = json.dumps([text] * 3) if "\\u" not in text else f'["{text}"]'
        padded = '{{"{}": {}}}'.format("{" * deep, document)
        assert jsonfile.parse(padded.encode(), "x") == json.loads(padded)
    for limit, fine in ((jsonfile.DEEPEST, True), (jsonfile.DEEPEST + 1, False)):
        document = ("[" * limit + "]" * limit).encode()
        if fine:
            assert jsonfile.parse(document, "x") == json.loads(document)
        else:
            with pytest.raises(MalformedFile, match=f"nested {limit} levels"):
                jsonfile.parse(document, "x")


def test_errors_of_json_have_a_place() -> None:
    with pytest.raises(MalformedFile) as caught:
        jsonfile.parse(b'{"a": 1,\n "b": }', "config.json")
    assert caught.value.where == "config.json: line 2, column 7"
