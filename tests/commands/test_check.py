"""`quantcli check`: verdicts on the oracles, on GGUF files that say something else, and against other readers."""

from __future__ import annotations

import json
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import numpy
import pytest
from safetensors import numpy as safetensors

from helpers import oracles
from quantcli import container
from quantcli.cli.parse import convert_request
from quantcli.commands import check, check_templates, check_tokens, convert
from quantcli.errors import MissingFile, UnsupportedFile, VerificationFailed
from quantcli.report.results import CheckResult, CheckStep
from quantcli.sources.checkpoint import Checkpoint
from quantcli.vocab import references
from quantcli.vocab.references import Reference
from quantcli.vocab.tokenizer import Tokenizer

QUESTION = "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"


def steps(result: CheckResult) -> dict[str, CheckStep]:
    return {step["name"]: step for step in result["steps"]}


def checked(source: Path, **more: Any) -> dict[str, CheckStep]:
    return steps(check.run(check.CheckRequest(source=source, **more)))


@pytest.mark.parametrize("name", ["llama3", "llama-spm", "gemma3", "qwen2", "t5", "bert", "mistral-tekken", "mixtral"])
def test_nothing_differs_in_the_oracles(name: str) -> None:
    result = check.run(check.CheckRequest(source=oracles.folder(name)))
    assert result["ok"], result
    check.require(result)
    assert {"structure", "left out", "runner", "ids by tokenizers", "decoding"} <= steps(result).keys()


def test_composed_text_is_a_note() -> None:
    step = checked(oracles.folder("qwen2"))["ids by tokenizers"]
    assert step["verdict"] == "note" and "NFC" in step["details"][-1]


def test_what_a_conversion_says_has_a_step_of_its_own() -> None:
    found = checked(oracles.folder("qwen2-moe"))
    assert "remarks" not in found
    found = checked(oracles.folder("exaone4"))
    assert found["left out"]["verdict"] == "ok" and "64 layers only" in found["remarks"]["details"][0]


def test_what_is_left_out_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "with vision"
    shutil.copytree(oracles.folder("qwen3"), folder)
    path = (folder / "model.safetensors").rename(folder / "model-text.safetensors")
    content = path.read_bytes()
    extra = {f"visual.blocks.{i}.weight": numpy.zeros((2, 2), numpy.float32) for i in range(3)}
    safetensors.save_file(extra, folder / "model-vision.safetensors")
    names = list(json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")]))
    places = {name: path.name for name in names if name != "__metadata__"}
    places |= dict.fromkeys(extra, "model-vision.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    step = checked(folder)["left out"]
    assert step["verdict"] == "note" and "visual.blocks.0 to 2: 3 tensors" in step["details"]


def with_template(tmp_path: Path, template: str, **settings: Any) -> Path:
    """A checkpoint of this chat template."""
    folder = tmp_path / "checkpoint"
    shutil.copytree(oracles.folder("llama3"), folder)
    (folder / "chat_template.jinja").write_text(template)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return folder


def converted(folder: Path) -> Path:
    """A GGUF file of it."""
    path = folder.parent / "file.gguf"
    convert.run(convert_request(source=folder, types=["F16"], output=path))
    return path


@pytest.mark.parametrize("prompt", [QUESTION, "{{ raise_exception('no') }}"])
def test_the_template_of_a_conversion_is_that_of_the_checkpoint(tmp_path: Path, prompt: str) -> None:
    folder = with_template(tmp_path, prompt)
    found = checked(folder, against=converted(folder))
    assert all(step["verdict"] != "differs" for step in found.values()), found
    assert found["chat template"]["verdict"] == "ok"


def test_a_template_that_looks_otherwise(tmp_path: Path) -> None:
    folder = with_template(tmp_path, QUESTION)
    file = converted(folder)
    (folder / "chat_template.jinja").write_text(QUESTION.replace("<", "["))
    result = check.run(check.CheckRequest(source=folder, against=file))
    step = steps(result)["chat template"]
    assert step["verdict"] == "differs" and "'" in step["details"][0] and not result["ok"]
    with pytest.raises(VerificationFailed, match="chat template"):
        check.require(result)


def test_a_template_whose_tokens_are_others(tmp_path: Path) -> None:
    """The text is the same; the file's beginning of a text is not the checkpoint's."""
    folder = with_template(tmp_path, QUESTION)
    tokenizer = Tokenizer.from_metadata(open_metadata(folder))
    other = replace_bos(tokenizer, 5)
    (step,) = check_templates.steps(other, Checkpoint(folder), [])
    assert step["verdict"] == "differs"


def open_metadata(folder: Path) -> dict[str, container.Value]:
    from quantcli.loader import open_models

    with open_models(folder) as models:
        return dict(models.text.metadata)


def replace_bos(tokenizer: Tokenizer, index: int) -> Tokenizer:
    tokenizer.special_texts = tokenizer.special_texts | {"bos_token": tokenizer.texts[index]}
    return tokenizer


def test_ids_that_differ(tmp_path: Path) -> None:
    folder = oracles.folder("llama3")
    tokenizer = Tokenizer.from_metadata(
        open_metadata(folder) | {"tokenizer.ggml.add_bos_token": container.boolean(False)}
    )
    found, remarks = references.find(folder)
    step = check_tokens.steps(tokenizer, found, remarks)[0]
    assert step["verdict"] == "differs" and "in the GGUF file" in step["details"][0]


def test_a_file_of_another_model(tmp_path: Path, tiny_files: dict[str, Path]) -> None:
    found = checked(oracles.folder("llama3"), against=tiny_files["Q8_0"])
    assert found["tensors of the file"]["verdict"] == found["entries of the file"]["verdict"] == "differs"


def test_places(tmp_path: Path, tiny_files: dict[str, Path]) -> None:
    with pytest.raises(UnsupportedFile) as caught:
        check.run(check.CheckRequest(source=tiny_files["Q8_0"]))
    assert "quantcli verify" in (caught.value.hint or "")
    with pytest.raises(MissingFile):
        check.run(check.CheckRequest(source=tmp_path / "none"))


class Auto:
    """Stands for transformers' tokenizer: Hugging Face's library, and a template of its own."""

    chat_template = "x"

    def __init__(self, folder: str) -> None:
        import tokenizers

        self.tokenizer = tokenizers.Tokenizer.from_file(f"{folder}/tokenizer.json")

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=add_special_tokens).ids)

    def apply_chat_template(self, messages: Any, tokenize: bool, add_generation_prompt: bool) -> str:
        assert not tokenize
        return "<|begin_of_text|>" + "".join(f"<{m['role']}>{m['content']}" for m in messages)


def test_transformers_where_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def from_pretrained(folder: str, **options: Any) -> Auto:
        given.update(options)
        return Auto(folder)

    module = types.ModuleType("transformers")
    module.__spec__ = types.SimpleNamespace(name="transformers")  # type: ignore[assignment]
    module.AutoTokenizer = types.SimpleNamespace(from_pretrained=from_pretrained)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "transformers", module)
    folder = with_template(tmp_path, QUESTION, bos_token="<|begin_of_text|>")
    found = checked(folder)
    assert given == {"local_files_only": True, "trust_remote_code": False}
    assert found["ids by transformers"]["verdict"] == found["chat template by transformers"]["verdict"] == "ok"


def test_a_reader_that_fails_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(folder: Path) -> Reference | None:
        raise RuntimeError("out of order")

    monkeypatch.setattr(references, "_READERS", (("broken", broken),))
    found = checked(oracles.folder("llama3"))
    assert "out of order" in found["readers"]["summary"] and found["ids"]["verdict"] == "skipped"
