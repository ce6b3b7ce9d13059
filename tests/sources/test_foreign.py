"""What people give by mistake: pointers, pages, archives, adapters, folders of another kind. Each has its own error."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers import broken_files, oracles
from quantcli import container, loader
from quantcli.commands import inspect
from quantcli.errors import GitLfsPointer, MalformedFile, MissingFile, PickleCheckpoint, QuantcliError, UnsupportedFile
from quantcli.sources.safetensors import SafetensorsFile
from quantcli.statistics import imatrix

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize 5775872\n" % (b"ab" * 32)


def copied(folder: Path, name: str = "llama-quirks") -> Path:
    shutil.copytree(oracles.folder(name), folder)
    return folder


# ---- Git LFS


NEEDED = {
    "llama-quirks": ("model.safetensors", "config.json", "tokenizer.model", "tokenizer.json", "tokenizer_config.json"),
    "llama3": ("model-00002-of-00003.safetensors", "model.safetensors.index.json", "generation_config.json"),
    "smollm3": ("chat_template.jinja", "special_tokens_map.json"),
    "t5": ("spiece.model",),
}


@pytest.mark.parametrize(("name", "file"), [(name, file) for name, files in NEEDED.items() for file in files])
def test_a_pointer_in_place_of_any_file(tmp_path: Path, name: str, file: str) -> None:
    folder = copied(tmp_path / "a folder", name)
    (folder / file).write_bytes(POINTER)
    with pytest.raises(GitLfsPointer) as caught:
        loader.open_model(folder)
    assert caught.value.message == "a Git LFS pointer: run git lfs pull"
    assert str(folder / file) in (caught.value.where or "")
    assert caught.value.hint == f"git -C '{folder}' lfs pull"


def test_a_card_that_is_a_pointer_is_a_note(tmp_path: Path) -> None:
    folder = copied(tmp_path / "a")
    (folder / "README.md").write_bytes(POINTER)
    with loader.open_models(folder) as models:
        assert any("Git LFS pointer" in note for note in models.text.notes)


@pytest.mark.parametrize("name", ["x.gguf", "x", "x.bin", "x.safetensors", "imatrix.dat", "x-00001-of-00002.gguf"])
def test_a_pointer_given_as_a_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(POINTER)
    for read in (loader.open_model, inspect.describe, imatrix.read, container.read_header):
        with pytest.raises(GitLfsPointer, match="run git lfs pull"):
            read(tmp_path / name)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.onnx", "model-Q4_0.gguf", "weights.safetensors"])
def test_a_folder_of_pointers(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(POINTER)
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
    with pytest.raises((GitLfsPointer, QuantcliError)) as caught:
        loader.open_model(copied_config(tmp_path))
    assert isinstance(caught.value, GitLfsPointer)


def copied_config(folder: Path) -> Path:
    shutil.copy(oracles.folder("llama-quirks") / "config.json", folder / "config.json")
    return folder


# ---- files of another kind


def zipped(name: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(name, bytes(100))
    return out.getvalue()


def tarred() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model"), io.BytesIO())
    return out.getvalue()


FILES: dict[str, tuple[bytes, str, str]] = {
    "page": (b"<!DOCTYPE html><html><head>", "a web page", "/resolve/"),
    "page in capitals": (b"\n  <HTML lang='en'>", "a web page", "/resolve/"),
    "error page": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "a web page", "/resolve/"),
    "torch archive": (zipped("archive/data.pkl"), "a pickle", "safetensors"),
    "older torch": (pickle.dumps({"a": 1}), "a pickle", "safetensors"),
    "zip": (zipped("model.safetensors"), "a zip archive", "unzip"),
    "tar": (tarred(), "a tar archive", "tar -xf"),
    "gzip": (gzip.compress(bytes(1000), mtime=0), "a gzip archive", "tar -xzf"),
    "xz": (b"\xfd7zXZ\0" + bytes(100), "an xz archive", "tar -xJf"),
    "bzip2": (b"BZh91AY" + bytes(100), "a bzip2 archive", "tar -xjf"),
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(100), "a zstd archive", "unzstd"),
    "keras": (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5", "safetensors"),
    "zeros": (bytes(1000), "not finished", "get it again"),
    "answer": (b'{"error":"Repository not found"}' + b" " * 40, "an answer of a server", "get it again"),
    "words": (b"Access to model x/y is restricted. Log in first.", "a text", "get it again"),
}


@pytest.mark.parametrize("name", FILES)
def test_files_of_another_kind(tmp_path: Path, name: str) -> None:
    data, what, hint = FILES[name]
    reads: dict[str, Callable[[Path], object]] = {
        "m.gguf": loader.open_model,
        "m2.gguf": inspect.describe,
        "m.dat": imatrix.read,
        "m.safetensors": SafetensorsFile.open,
    }
    for file, read in reads.items():
        if name == "words" and file != "m.safetensors":
            continue  # the others show how the file begins
        (tmp_path / file).write_bytes(data)
        with pytest.raises(MalformedFile) as caught:
            read(tmp_path / file)
        assert what in caught.value.message and hint in (caught.value.hint or "")


def test_formats_of_our_own_in_each_other_s_place(tmp_path: Path, tiny_files: dict[str, Path]) -> None:
    (tmp_path / "m.safetensors").write_bytes(tiny_files["Q8_0"].read_bytes()[:1000])
    with pytest.raises(MalformedFile, match="a GGUF file") as caught:
        SafetensorsFile.open(tmp_path / "m.safetensors")
    assert "give the file itself" in (caught.value.hint or "")
    (tmp_path / "m.gguf").write_bytes(broken_files.sound_safetensors())
    with pytest.raises(MalformedFile, match="a safetensors file") as caught:
        loader.open_model(tmp_path / "m.gguf")
    assert f"quantcli convert {tmp_path}" in (caught.value.hint or "")


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json"])
def test_a_page_in_place_of_json(tmp_path: Path, file: str) -> None:
    folder = copied(tmp_path / "a")
    (folder / file).write_text("<!doctype html>\n<title>404</title>")
    with pytest.raises(MalformedFile, match="a web page, not JSON"):
        loader.open_model(folder)


# ---- adapters and folders of another kind


@pytest.mark.parametrize("weights", ["adapter_model.safetensors", "adapter_model.bin", None])
@pytest.mark.parametrize("with_config", [True, False])
@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            {"peft_type": "LORA", "base_model_name_or_path": "x/y"},
            "a LoRA adapter, not a model: its base model is 'x/y'",
        ),
        ({"peft_type": "LORA", "base_model_name_or_path": None}, "a LoRA adapter, not a model"),
        ({"peft_type": "IA3"}, "an adapter of kind 'IA3', not a model"),
        ({}, "a LoRA adapter, not a model"),
    ],
)
def test_an_adapter_alone(tmp_path: Path, weights: str | None, with_config: bool, settings: dict, says: str) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    if weights:
        (tmp_path / weights).write_bytes(broken_files.sound_safetensors())
    if with_config:
        copied_config(tmp_path)
    with pytest.raises(UnsupportedFile) as caught:
        loader.open_model(tmp_path)
    assert caught.value.message == says
    hint = caught.value.hint or ""
    if settings.get("peft_type", "LORA") == "LORA" and weights == "adapter_model.safetensors":
        base = "hf://x/y" if settings.get("base_model_name_or_path") else "BASE"
        assert f"quantcli convert {tmp_path} --lora-base {base} " in hint
        assert f"quantcli convert {base} -t Q4_K_M --merge-lora {tmp_path} " in hint
        return
    code = hint.split('python -c "', 1)[1].split('"; then convert ')[0]
    compile(code, "hint", "exec")
    assert "merge_and_unload" in code and repr(f"{tmp_path}-merged") in code and hint.endswith(f"{tmp_path}-merged")


def test_an_adapter_beside_its_base_converts(tmp_path: Path) -> None:
    folder = copied(tmp_path / "a")
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(broken_files.sound_safetensors())
    with loader.open_models(folder) as models:
        assert models.text.tensors


FOLDERS: dict[str, tuple[list[str], type[QuantcliError], str, str]] = {
    "empty": ([], MissingFile, "there is no config.json in this folder", "config.json"),
    "pickle": (["pytorch_model.bin"], PickleCheckpoint, "pytorch_model.bin", "save_pretrained"),
    "sharded pickles": (["pytorch_model-00001-of-00002.bin"], PickleCheckpoint, "a pickle", "save_pretrained"),
    "original Llama": (["consolidated.00.pth", "params.json"], PickleCheckpoint, "consolidated.00.pth", "safetensors"),
    "torch": (["model.pt"], PickleCheckpoint, "model.pt", "safetensors"),
    "vendor's names": (["consolidated.safetensors"], UnsupportedFile, "vendor's own", "Hugging Face format"),
    "ONNX": (["model.onnx", "model.onnx_data"], UnsupportedFile, "ONNX", "safetensors"),
    "Keras": (["tf_model.h5"], UnsupportedFile, "TensorFlow or Flax", "save_pretrained"),
    "Flax": (["flax_model.msgpack"], UnsupportedFile, "TensorFlow or Flax", "save_pretrained"),
    "OpenVINO": (["openvino_model.xml", "openvino_model.bin"], UnsupportedFile, "OpenVINO", "safetensors"),
    "diffusers": (["model_index.json"], UnsupportedFile, "a diffusers pipeline", "text_encoder"),
    "zip": (["model.zip"], UnsupportedFile, "only an archive, 'model.zip'", "unzip"),
    "tar": (["model.tar.gz"], UnsupportedFile, "only an archive, 'model.tar.gz'", "tar -xf"),
    "unfinished": (["model.safetensors.incomplete"], MissingFile, "not finished", "hf download"),
    "data set": (["train.parquet"], UnsupportedFile, "a data set", "Hugging Face format"),
    "GGUF files": (["b-Q8_0.gguf", "a-Q4_0.gguf"], MissingFile, "GGUF files|no model.safetensors", "a-Q4_0.gguf"),
    "only a tokenizer": (
        ["tokenizer.json", "tokenizer_config.json"],
        MissingFile,
        "no config.json|no model.safetensors",
        "",
    ),
    "left over from training": (["training_args.bin", "optimizer.pt"], MissingFile, "no config.json|no model.saf", ""),
}


@pytest.mark.parametrize("with_config", [False, True])
@pytest.mark.parametrize("name", FOLDERS)
def test_folders_of_another_kind(tmp_path: Path, name: str, with_config: bool) -> None:
    files, error, says, hint = FOLDERS[name]
    for file in files:
        (tmp_path / file).write_bytes(b"{}")
    if with_config and files:
        copied_config(tmp_path)
    with pytest.raises(error, match=says) as caught:
        loader.open_model(tmp_path)
    assert type(caught.value) is error and hint in (caught.value.hint or "")


def test_the_folder_inside(tmp_path: Path) -> None:
    copied(tmp_path / "output" / "checkpoint-500")
    with pytest.raises(MissingFile) as caught:
        loader.open_model(tmp_path / "output")
    assert "checkpoint-500: give that folder" in (caught.value.hint or "")


def test_reported_inputs(shared: Path) -> None:
    reports = shared / "reports" / "checkpoints"
    with pytest.raises(GitLfsPointer, match="run git lfs pull"):
        loader.open_model(reports / "git-lfs-weights")
    with pytest.raises(UnsupportedFile, match="a LoRA adapter"):
        loader.open_model(reports / "adapter-alone")
