"""GGUF files and their shards as sources, and the loader that tells files apart."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy
import pytest

from helpers import broken_files
from quantcli import container
from quantcli.errors import MissingFile, PickleCheckpoint, UnsupportedFile, UsageError
from quantcli.ggml import tensor_types
from quantcli.loader import open_model, open_models
from quantcli.model import Model
from quantcli.sources.checkpoint import Checkpoint
from quantcli.sources.files import SourceFile, StoredTensor
from quantcli.sources.gguf import file_name, open_gguf

RNG = numpy.random.default_rng(7)


def write_gguf(path: Path, tensors: dict[str, tuple[numpy.ndarray, gguf.GGMLQuantizationType]], **texts: str) -> None:
    writer = gguf.GGUFWriter(path, "madeup-arch")
    writer.add_custom_alignment(64)
    writer.add_uint32("madeup-arch.block_count", 2)
    for key, text in texts.items():
        writer.add_string(key.replace("_", "."), text)
    for name, (data, kind) in tensors.items():
        writer.add_tensor(name, gguf.quantize(data, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


Q = gguf.GGMLQuantizationType


def test_a_gguf_of_any_architecture_becomes_a_model(tmp_path: Path) -> None:
    data = {
        "n": RNG.normal(size=32),
        "a.weight": RNG.normal(size=(6, 64)),
        "b.weight": RNG.normal(size=(2, 3, 32)),
        "c.weight": RNG.normal(size=(4, 256)),
        "d.weight": RNG.normal(size=(4, 32)),
    }
    kinds = {"n": Q.F32, "a.weight": Q.Q8_0, "b.weight": Q.Q4_0, "c.weight": Q.BF16, "d.weight": Q.F16}
    tensors = {name: (data[name].astype(numpy.float32), kinds[name]) for name in data}
    write_gguf(tmp_path / "m.gguf", tensors, general_name="A b/c: d")
    with open_gguf(tmp_path / "m.gguf") as model:
        assert (model.kind, model.architecture, model.name) == ("gguf", "madeup-arch", "A-b-c-d")
        assert model.metadata["madeup-arch.block_count"].data == 2 and model.default_float.name == "BF16"
        assert model.metadata["general.alignment"] == container.u32(32)
        assert model.files == [str(tmp_path / "m.gguf")]
        for tensor in model.tensors:
            values, kind = tensors[tensor.name]
            assert tensor.shape == tuple(reversed(values.shape)) and tensor.type.name == kind.name == tensor.stored.name
            assert tensor.raw and tensor.type.quantized == (kind in (Q.Q8_0, Q.Q4_0))
            packed = gguf.quantize(values, kind)
            assert bytes(tensor.reader.read_raw(0, tensor.rows)) == packed.tobytes()
            expected = gguf.dequantize(packed, kind).reshape(tensor.rows, tensor.columns)
            assert numpy.array_equal(tensor.reader.read_rows(0, tensor.rows), expected), tensor.name
            assert numpy.array_equal(tensor.reader.read_rows(1, tensor.rows), expected[1:])


def test_reading_after_close_is_an_error(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", {"a.weight": (numpy.ones((2, 32), numpy.float32), Q.F32)})
    with open_gguf(tmp_path / "m.gguf") as model:
        pass
    with pytest.raises(MissingFile, match="reading failed"):
        model.tensors[0].reader.read_rows(0, 1)


def split_model(folder: Path) -> Path:
    for index in range(2):
        metadata = {
            "split.no": container.u16(index),
            "split.count": container.u16(2),
            "split.tensors.count": container.i32(2),
        }
        if index == 0:
            metadata |= {"general.architecture": container.string("llama"), "x": container.string("kept")}
        name = folder / container.shard_name("M-Q8_0", index, 2)
        raw = container.encode_header(metadata, [(f"t{index}.weight", (4, 2), 0, 0)])
        name.write_bytes(raw + numpy.full(8, index, numpy.float32).tobytes())
    return folder / container.shard_name("M-Q8_0", 0, 2)


def test_shards_become_one_model(tmp_path: Path) -> None:
    model = open_gguf(split_model(tmp_path))
    assert (model.shards, model.name) == (2, "M") and len(model.files) == 2
    assert list(model.metadata) == ["general.architecture", "x"]
    assert [(tensor.name, tensor.shard) for tensor in model.tensors] == [("t0.weight", 0), ("t1.weight", 1)]
    assert model.tensors[1].reader.read_rows(0, 2).tolist() == [[1] * 4] * 2
    assert model.tensors[1].origin == "M-Q8_0-00002-of-00002.gguf: t1.weight"


@pytest.mark.parametrize(
    ("name", "metadata", "expected"),
    [
        ("Llama-3-8B.Q8_0.gguf", {}, "Llama-3-8B"),
        ("x-UD-IQ2_XXS.gguf", {}, "x"),
        ("Q4_K_M.gguf", {}, "Q4_K_M"),
        ("m-BF16-Q4_K.gguf", {}, "m"),
        ("m-f16.gguf", {}, "m"),
        ("m-MXFP4_MOE.gguf", {}, "m"),
        ("plain", {}, "plain"),
        ("x.gguf", {"general.name": "Smol LM"}, "Smol-LM"),
        ("x.gguf", {"general.basename": "base"}, "base"),
        ("x.gguf", {"general.name": "f" * 40, "general.basename": "base"}, "base"),
        ("f" * 40 + ".gguf", {}, "model"),
        ("x.gguf", {"general.name": "../../etc"}, "etc"),
        ("x.gguf", {"general.name": "\x1b[1m/"}, "1m"),
        ("x.gguf", {"general.name": "Ü" * 300}, "Ü" * 120),
        ("x.gguf", {"general.name": "..."}, "x"),
    ],
)
def test_names_of_gguf_models(tmp_path: Path, name: str, metadata: dict[str, str], expected: str) -> None:
    texts = {key: container.string(text) for key, text in {"general.architecture": "llama", **metadata}.items()}
    (tmp_path / name).write_bytes(container.encode_header(texts, []))
    assert open_gguf(tmp_path / name).name == expected


def test_file_names_stay_short_in_bytes() -> None:
    assert len(file_name("🦙" * 500).encode()) <= 240 and len(file_name("語" * 500).encode()) <= 240


def test_invalid_utf8_in_names_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    name = broken_files.entry("general.name", broken_files.STRING, broken_files.text(b"\xff"))
    path.write_bytes(broken_files.gguf([broken_files.ARCHITECTURE, name]))
    model = open_gguf(path)
    assert model.name == "x" and model.metadata["general.name"].data == b"\xff"


def test_the_loader_tells_files_apart(tmp_path: Path) -> None:
    model = open_model(split_model(tmp_path))
    assert isinstance(model, Model) and model.kind == "gguf"
    with pytest.raises(UsageError, match="--architecture"):
        open_models(split_model(tmp_path), architecture="llama")
    with_template = open_models(split_model(tmp_path), chat_template="{{ x }}").text
    assert with_template.metadata["tokenizer.chat_template"] == container.string("{{ x }}")
    kinds = {"a.bin": PickleCheckpoint, "config.json": UnsupportedFile, "m.safetensors": UnsupportedFile}
    for name, error in kinds.items():
        (tmp_path / name).write_bytes(b"x")
        with pytest.raises(error) as caught:
            open_model(tmp_path / name)
        assert caught.value.hint
    with pytest.raises(MissingFile) as caught:
        open_model("org/name-that-is-not-here")
    assert caught.value.hint == "a repository of the hub is written hf://org/name-that-is-not-here"


def test_every_quantized_type_is_a_source(tmp_path: Path) -> None:
    """Rows of quantized tensors decode as the gguf package decodes them, wherever the rows start."""
    for name in ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"):
        kind = tensor_types.BY_NAME[name]
        raw = RNG.integers(0, 60, (6, 2 * kind.bytes * (256 // kind.block)), dtype=numpy.uint8)  # small: finite scales
        path = tmp_path / "raw"
        path.write_bytes(bytes(5) + raw.tobytes())
        with SourceFile(path) as file:
            tensor = StoredTensor("t", (512, 6), name, kind, file, 5, raw.nbytes, 6, 512)
            expected = gguf.dequantize(raw, Q(kind.id))
            assert numpy.array_equal(tensor.read_rows(0, 6), expected), name
            assert numpy.array_equal(tensor.read_rows(2, 5), expected[2:5]), name


def test_a_cache_folder_and_a_lost_blob_say_what_to_do(tmp_path: Path, root: Path) -> None:
    cache = tmp_path / "models--acme--mini"
    snapshot = cache / "snapshots" / ("0123456789" * 4)
    (cache / "blobs").mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (cache / "blobs" / name).write_bytes((root / "examples" / "tiny" / name).read_bytes())
        (snapshot / name).symlink_to(f"../../blobs/{name}")
    assert len(Checkpoint(snapshot).tensors) > 30
    with pytest.raises(MissingFile) as caught:
        _ = Checkpoint(cache).config
    assert str(snapshot) in caught.value.hint
    (cache / "blobs" / "model.safetensors").unlink()
    with pytest.raises(MissingFile, match="a link to '../../blobs/model.safetensors', which is not there"):
        _ = Checkpoint(snapshot).tensors
