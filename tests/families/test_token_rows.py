"""The embedding of Pixtral's [IMG_BREAK] in its projector: written as llama.cpp's converter does, or when asked for."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy
import pytest

from helpers import adapters, outlines
from helpers.checkpoints import read_tensors, write_tensors
from quantcli import loader
from quantcli.cli.parse import convert_request, from_texts
from quantcli.commands import convert, reproduce
from quantcli.errors import BadTokenizer, MissingTensors, QuantcliError, UsageError, WarningsRefused
from quantcli.sources.gguf import open_gguf

PACK = outlines.packed("mmproj")
TARGET, TOKEN, ROW = "v.token_embd.img_break", "[IMG_BREAK]", 8
TODAY = "language_model.model.embed_tokens.weight"
IN_CONFIG = {
    "tokenizer_config.json": {"added_tokens_decoder": {"7": {"content": "[IMG_END]"}, "8": {"content": TOKEN}}}
}
IN_TOKENIZER = {
    "tokenizer_config.json": {"added_tokens_decoder": None},
    "tokenizer.json": {"added_tokens": [{"id": 8, "content": TOKEN}]},
}
IN_TEKKEN = {"tekken.json": {"special_tokens": [{"rank": 8, "token_str": TOKEN, "is_control": True}]}}


def pixtral(folder: Path, name: str = TODAY, dtype: str = "BF16", files: dict[str, Any] | None = None) -> Path:
    """The tower of the oracle beside an embedding called ``name`` (of no name: none) and tokenizer's files."""
    one = copy.deepcopy(dict(PACK["mistral3-pixtral"]))
    width = one["files"]["config.json"]["text_config"]["hidden_size"]
    one["files"] |= IN_CONFIG if files is None else files
    folder = outlines.write(one, folder, "model.safetensors")
    if name:
        data = numpy.random.default_rng(0).normal(size=(20, width)).astype(numpy.float32)
        stored = {"F32": data.tobytes(), "F16": data.astype(numpy.float16).tobytes()}
        stored["BF16"] = (data.view(numpy.uint32) >> 16).astype(numpy.uint16).tobytes()
        write_tensors(folder, read_tensors(folder) | {name: (dtype, [20, width], stored[dtype])})
    return folder


def wanted(folder: Path, name: str) -> bytes:
    """The row in float32, from the stored bytes."""
    dtype, (_, width), data = read_tensors(folder)[name]
    kind = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}[dtype]
    row = numpy.frombuffer(data, kind).reshape(-1, width)[ROW]
    if dtype == "BF16":
        return (row.astype(numpy.uint32) << 16).tobytes()
    return row.astype(numpy.float32).tobytes()


def written(source: Path, path: Path, kind: str = "BF16", **options: Any) -> dict[str, Any]:
    """The result of a conversion of the projector alone."""
    return convert.run(convert_request(source=source, types=(kind,), output=path, mmproj_only=True, **options))


@pytest.mark.parametrize("files", [IN_CONFIG, IN_TOKENIZER, IN_TEKKEN])
@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_the_row_is_a_vector_in_float32(files: dict[str, Any], dtype: str, tmp_path: Path) -> None:
    source = pixtral(tmp_path / "source", dtype=dtype, files=files)
    for kind in ("F16", "BF16", "F32", "Q8_0"):
        path = tmp_path / f"{kind}.gguf"
        written(source, path, kind, image_break=True)
        with open_gguf(path) as model:
            (row,) = (tensor for tensor in model.tensors if tensor.name == TARGET)
            assert row.shape == (64,) and row.type.name == "F32"
            assert bytes(row.reader.read_raw(0, 1)) == wanted(source, TODAY)


def test_the_default_is_what_the_converter_writes_and_a_warning(tmp_path: Path) -> None:
    source = pixtral(tmp_path / "source")
    plain = written(source, tmp_path / "plain.gguf")
    (warning,) = plain["warnings"]
    assert TARGET in warning and "--image-break" in warning and "mtmd" in warning
    full = written(source, tmp_path / "full.gguf", image_break=True)
    assert not full["warnings"]
    with open_gguf(tmp_path / "plain.gguf") as before, open_gguf(tmp_path / "full.gguf") as after:
        old = {tensor.name: bytes(tensor.reader.read_raw(0, tensor.rows)) for tensor in before.tensors}
        new = {tensor.name: bytes(tensor.reader.read_raw(0, tensor.rows)) for tensor in after.tensors}
    assert new.pop(TARGET) and new == old
    with pytest.raises(WarningsRefused, match="img_break"):
        written(source, tmp_path / "strict.gguf", strict=True)


def test_other_names_of_the_embedding_are_taken_by_the_converter_too(tmp_path: Path) -> None:
    source = pixtral(tmp_path / "source", name="model.embed_tokens.weight")
    assert not written(source, tmp_path / "out.gguf")["warnings"]
    with open_gguf(tmp_path / "out.gguf") as model:
        assert TARGET in {tensor.name for tensor in model.tensors}


def test_the_newer_names_of_transformers(tmp_path: Path) -> None:
    source = pixtral(tmp_path / "source", name="model.language_model.embed_tokens.weight")
    assert written(source, tmp_path / "plain.gguf")["warnings"]
    written(source, tmp_path / "out.gguf", image_break=True)
    with open_gguf(tmp_path / "out.gguf") as model:
        assert TARGET in {tensor.name for tensor in model.tensors}


def test_a_merged_adapter_changes_the_row(tmp_path: Path) -> None:
    source = pixtral(tmp_path / "source")
    adapter = adapters.Made().embedding(TODAY.removesuffix(".weight"), 20, 64).write(tmp_path / "adapter")
    rows = []
    for merge in (None, loader.Merge(adapter)):
        with loader.open_projector(source, merge, image_break=True) as model:
            row = next(tensor for tensor in model.tensors if tensor.name == TARGET)
            rows.append(row.reader.read_rows(0, 1))
    assert not numpy.array_equal(*rows)


@pytest.mark.parametrize(
    ("name", "files", "error", "says"),
    [
        ("", None, MissingTensors, "embed_tokens"),
        (TODAY, {}, BadTokenizer, "no token"),
        (TODAY, {"tokenizer_config.json": {"added_tokens_decoder": {"20": {"content": TOKEN}}}}, BadTokenizer, "20"),
        (TODAY, {"tokenizer_config.json": {"added_tokens_decoder": {"x": {"content": TOKEN}}}}, BadTokenizer, "no tok"),
        (TODAY, {"tokenizer_config.json": {"added_tokens_decoder": {"9": [TOKEN]}}}, BadTokenizer, "no token"),
        (TODAY, {"tokenizer.json": {"added_tokens": {"id": 8}}}, BadTokenizer, "no token"),
    ],
)
def test_where_there_is_no_such_row(
    name: str, files: dict[str, Any] | None, error: type[QuantcliError], says: str, tmp_path: Path
) -> None:
    source = pixtral(tmp_path / "source", name=name, files=files)
    with pytest.raises(error, match=says) as caught:
        loader.open_projector(source, image_break=True)
    assert caught.value.hint
    with loader.open_projector(source) as model:
        (warning,) = model.warnings
        assert "has not" in warning and TARGET in warning


def test_the_option_is_for_pixtral(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Pixtral"):
        source = outlines.write(PACK["gemma3"], tmp_path / "gemma3", "model.safetensors")
        loader.open_projector(source, image_break=True)
    with pytest.raises(UsageError, match="--image-break is for projectors"):
        convert_request(source=tmp_path, types=("F16",), image_break=True)


def test_the_file_says_that_it_was_asked_for(tmp_path: Path) -> None:
    source, path = pixtral(tmp_path / "source"), tmp_path / "out.gguf"
    written(source, path, image_break=True)
    assert reproduce.run(reproduce.ReproduceRequest(file=path, source=source), from_texts)["same"]
