"""Addresses of the hub as they are typed: understood, or explained."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("huggingface_hub")

from helpers.far_checkpoint import TOKEN
from quantcli import loader
from quantcli.errors import MissingFile, QuantcliError, UnsupportedFile, UsageError
from quantcli.sources import ways


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("hf://org/name", "hf://org/name"),
        ("hf:/org/name/", "hf://org/name"),
        ("HF://org/name@v1.0/sub/dir", "hf://org/name@v1.0/sub/dir"),
        ("hf://gpt2", "hf://gpt2"),
        ("hf://org/name@refs/pr/3", "hf://org/name@refs/pr/3"),
        ("https://huggingface.co/org/name", "hf://org/name"),
        ("https:/huggingface.co/org/name/tree/main", "hf://org/name@main"),
        ("https://huggingface.co/org/name/tree/main/sub", "hf://org/name@main/sub"),
        ("https://huggingface.co/org/name/blob/main/a.gguf?download=true", "hf://org/name@main/a.gguf"),
        ("https://hf.co/org/name/resolve/refs/pr/1/a.gguf", "hf://org/name@refs/pr/1/a.gguf"),
    ],
)
def test_understood(text: str, meant: str) -> None:
    assert str(ways.WAYS[0].recognise(text)) == meant


@pytest.mark.parametrize(
    ("text", "kind", "message", "hint"),
    [
        ("hf:org/name", UsageError, "no address of the hub", "spell it so: hf://org/name"),
        ("huggingface.co/org/name", UsageError, "no address of the hub", "spell it so: hf://org/name"),
        ("huggingface://org/name", UsageError, "no address of the hub", "spell it so: hf://org/name"),
        ("hub://org/name", UsageError, "no address of the hub", "spell it so: hf://org/name"),
        ("hf://datasets/org/name", UnsupportedFile, "a data set of the hub", "hf://org/name"),
        ("https://huggingface.co/spaces/org/name", UnsupportedFile, "a space of the hub", "hf://org/name"),
        ("https://example.org/model.gguf", UnsupportedFile, "a web address", "hf://org/name"),
        ("hf://org/name@", UsageError, "no name of a revision", "hf://org/name@revision"),
        ("hf://org/../x", UsageError, "no name of a repository", "hf://org/name"),
        ("hf://org/name/../../x", UsageError, "no folder of a repository", "hf://org/name"),
        ("hf://", UsageError, "no name of a repository", "hf://org/name"),
    ],
)
def test_explained(text: str, kind: type[QuantcliError], message: str, hint: str) -> None:
    with pytest.raises(kind, match=message) as caught:
        loader.open_model(text)
    assert hint in str(caught.value.hint)


def test_a_token_in_an_address_is_not_repeated() -> None:
    for text in (f"https://user:{TOKEN}@huggingface.co/org/name", f"hf:{TOKEN}@org/name", f"hf://org/name@/{TOKEN}"):
        with pytest.raises(QuantcliError) as caught:
            loader.open_model(text)
        assert TOKEN not in f"{caught.value} {caught.value.hint}"


def test_what_may_be_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain name suggests an address; a misspelt file of this machine, or one in a folder that is there, does not."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    for text, meant in (
        ("org/name", "a repository of the hub is written hf://org/name"),
        ("org/name.gguf", None),
        ("models/name", None),
        ("name", None),
        ("a/b/c", None),
    ):
        with pytest.raises(MissingFile, match="no such file or folder") as caught:
            loader.open_model(text)
        assert caught.value.hint == meant
