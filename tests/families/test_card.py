"""What of a model card becomes metadata: every spelling of licences, origins and lists."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers.checkpoints import changed
from quantcli import families, loader
from quantcli.container import Strings
from quantcli.families.card import card


def shown(fields: dict[str, Any]) -> dict[str, Any]:
    """The metadata of a card, without ``general.``."""
    found = card(fields).items()
    return {k.removeprefix("general."): list(v.data) if isinstance(v.data, Strings) else v.data for k, v in found}


TEXTS = {"license": "license", "license_name": "license.name", "license_link": "license.link", "author": "author"}


@pytest.mark.parametrize("field", TEXTS)
@pytest.mark.parametrize(
    ("value", "text"),
    [("mit", "mit"), (["a"], "a"), (["a", "b"], "a,b"), (["a", None, "", "b"], "a,b"), (" mit ", "mit")],
)
def test_texts_and_lists_of_them(field: str, value: Any, text: str) -> None:
    assert shown({field: value}) == {TEXTS[field]: text}


@pytest.mark.parametrize("value", [None, "", [], {}, [None], [[]], {"a": "b"}])
def test_nothing_is_absent(value: Any) -> None:
    fields = ("license", "author", "tags", "language", "languages", "pipeline_tag", "version", "url")
    assert shown(dict.fromkeys(fields, value)) == {}


def test_tags_and_languages() -> None:
    assert shown({"tags": ["a", None, "b"], "pipeline_tag": "text-generation"}) == {
        "tags": ["a", "b", "text-generation"]
    }
    assert shown({"pipeline_tag": "text-generation"}) == {"tags": ["text-generation"]}
    assert shown({"tags": "a", "language": "no"}) == {"tags": ["a"], "languages": ["no"]}
    assert shown({"language": ["en", "vi"], "languages": ["en"]}) == {"languages": ["en", "vi"]}


ORIGINS: dict[str, dict[str, str]] = {
    "mistralai/Mistral-7B-v0.1": {
        "name": "Mistral 7B v0.1",
        "organization": "Mistralai",
        "version": "v0.1",
        "repo_url": "",
    },
    "meta-llama/Llama-3.1-8B": {"name": "Llama 3.1 8B", "organization": "Meta Llama", "repo_url": ""},
    "gpt2": {"name": "Gpt2"},
}


@pytest.mark.parametrize(
    ("field", "key"), [("base_model", "base_model"), ("base_models", "base_model"), ("datasets", "dataset")]
)
@pytest.mark.parametrize("name", ORIGINS)
def test_names_on_the_hub(field: str, key: str, name: str) -> None:
    place = "datasets/" if key == "dataset" else ""
    wanted = ORIGINS[name] | ({"repo_url": f"https://huggingface.co/{place}{name}"} if "/" in name else {})
    for value in (name, [name], [None, name]):
        assert shown({field: value}) == {f"{key}.count": 1} | {f"{key}.0.{k}": v for k, v in wanted.items()}


@pytest.mark.parametrize("end", ["", "/", "/tree/main", "?x=1", "#readme"])
@pytest.mark.parametrize(
    "start", ["https://huggingface.co/", "http://huggingface.co/", "https://www.huggingface.co/", "https://hf.co/"]
)
def test_urls_on_the_hub(start: str, end: str) -> None:
    url = f"{start}mistralai/Mistral-7B-v0.1{end}"
    assert shown({"base_model": url}) == {
        "base_model.count": 1,
        "base_model.0.name": "Mistral 7B v0.1",
        "base_model.0.version": "v0.1",
        "base_model.0.organization": "Mistralai",
        "base_model.0.repo_url": url,
    }


@pytest.mark.parametrize(
    "url", ["https://github.com/a/b", "https://example.org", "ssh://host/a", "https://huggingface.co/collections/a/b/c"]
)
def test_other_urls(url: str) -> None:
    found = shown({"base_model": [url]})
    assert found["base_model.0.repo_url"] == url and found["base_model.count"] == 1


LOCAL = [
    "./local/path/model", "../model", "/home/me/model", "~/model", "local/path/model", "C:\\models\\x", "C:/models/x",
    "models\\x", "file:///home/me/model", "./x", ".cache", "/", "a/", "a//b",
]  # fmt: skip


@pytest.mark.parametrize("path", LOCAL)
def test_local_paths_are_left_out(path: str) -> None:
    assert shown({"base_model": path, "datasets": [path]}) == {}
    found = shown({"base_model": [path, "org/name"]})
    assert found["base_model.count"] == 1 and found["base_model.0.organization"] == "Org"
    assert shown({"base_model": [{"name": "x", "repo_url": path}]}) == {"base_model.count": 1, "base_model.0.name": "x"}


def test_a_card_of_a_checkpoint(tmp_path: Path) -> None:
    checkpoint = changed("llama-quirks", tmp_path)
    content = {"license": ["mit", "other"], "datasets": ["c4"], "author": "me", "base_model": None}
    (checkpoint.folder / "README.md").write_text(f"---\n{yaml.safe_dump(content)}date: 2024-05-01\n---\n")
    found = families.load_checkpoint(checkpoint).metadata
    assert {key: found[f"general.{key}"].data for key in ("license", "author", "dataset.count", "dataset.0.name")} == {
        "license": "mit,other", "author": "me", "dataset.count": 1, "dataset.0.name": "C4",
    }  # fmt: skip
    assert not [key for key in found if "base_model" in key]


def test_a_broken_card_is_a_note(tmp_path: Path) -> None:
    checkpoint = changed("llama-quirks", tmp_path)
    (checkpoint.folder / "README.md").write_text("---\nlicense: [mit\n---\n")
    assert any("README.md is not used" in note for note in families.load_checkpoint(checkpoint).notes)


def test_reported_inputs(shared: Path) -> None:
    reports = shared / "reports" / "checkpoints"
    found = {
        name: loader.open_model(reports / name).metadata for name in ("card-licence-list", "card-urls", "card-date")
    }
    assert found["card-licence-list"]["general.license"].data == "llama3.1,gemma"
    assert list(found["card-licence-list"]["general.languages"].data) == ["en", "vi"]
    for key, wanted in json.loads((reports / "card-urls" / "expected.json").read_text())["metadata"].items():
        if key.startswith(("general.base_model", "general.license")):
            assert found["card-urls"][key].data == wanted["value"]
    assert found["card-date"]["general.license"].data == "mit"
    assert list(found["card-date"]["general.languages"].data) == ["en"]
    assert not [key for key in found["card-date"] if "base_model" in key]
