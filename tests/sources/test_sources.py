"""Checkpoint folders, safetensors and GGUF as sources, against the `safetensors` and `gguf` packages."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gguf
import numpy
import pytest
import safetensors
import safetensors.numpy

from helpers import broken_files, oracles
from quantcli import container
from quantcli.errors import MalformedFile, MissingFile, PickleCheckpoint, UnsupportedFile, UsageError
from quantcli.ggml import tensor_types
from quantcli.loader import open_model, open_models
from quantcli.model import Model
from quantcli.sources import files as source_files
from quantcli.sources import jsonfile
from quantcli.sources.checkpoint import Checkpoint, front_matter, hub_name
from quantcli.sources.files import SourceFile, StoredTensor
from quantcli.sources.gguf import file_name, open_gguf
from quantcli.sources.safetensors import open_safetensors

RNG = numpy.random.default_rng(7)


def widen_bf16(bits: numpy.ndarray) -> numpy.ndarray:
    return (bits.astype(numpy.uint32) << 16).view(numpy.float32)


def save(path: Path, tensors: dict[str, numpy.ndarray]) -> None:
    safetensors.numpy.save_file(tensors, path)


@pytest.fixture
def floats() -> dict[str, numpy.ndarray]:
    return {
        "f16": RNG.normal(size=(6, 40)).astype(numpy.float16),
        "f32": RNG.normal(size=(3, 2, 8)).astype(numpy.float32),
        "f64": RNG.normal(size=(5, 4)),
        "vector": RNG.normal(size=9).astype(numpy.float32),
        "scalar": numpy.array(2.5, numpy.float32),
        "none": numpy.zeros((0, 4), numpy.float32),
    }


# ---- safetensors


def test_floats_equal_those_of_the_safetensors_package(tmp_path: Path, floats) -> None:
    save(tmp_path / "model.safetensors", floats)
    tensors = open_safetensors(tmp_path)
    assert tensors.keys() == floats.keys()
    for name, expected in floats.items():
        tensor = tensors[name]
        assert tensor.shape == expected.shape
        assert bytes(tensor.read_bytes(0, tensor.nbytes)) == expected.tobytes()
        rows = expected.reshape(tensor.rows, tensor.columns).astype(numpy.float32)
        found = tensor.read_rows(0, tensor.rows)
        assert found.dtype == numpy.float32 and numpy.array_equal(found, rows), name
        for start, stop in ((0, 0), (1, tensor.rows), (tensor.rows // 2, tensor.rows)):
            if start <= stop:
                assert numpy.array_equal(tensor.read_rows(start, stop), rows[start:stop])
                stored = expected.reshape(tensor.rows, tensor.columns)[start:stop]
                assert bytes(tensor.read_raw(start, stop)) == stored.tobytes()


def test_all_oracle_checkpoints_equal_those_of_the_safetensors_package() -> None:
    """Every tensor of the oracles, byte for byte: dtypes of all kinds, one of them sharded."""
    count = 0
    for folder in map(oracles.folder, oracles.names()):
        with Checkpoint(folder) as checkpoint:
            expected = {
                name: entry
                for path in folder.glob("*.safetensors")
                for name, entry in safetensors.deserialize(path.read_bytes())
            }
            assert checkpoint.tensors.keys() == expected.keys()
            for name, tensor in checkpoint.tensors.items():
                assert (list(tensor.shape), tensor.dtype) == (expected[name]["shape"], expected[name]["dtype"])
                assert tensor.read_bytes(0, tensor.nbytes) == expected[name]["data"]
            count += len(expected)
    assert count > 1000


def test_bf16_is_widened() -> None:
    with Checkpoint(oracles.folder("llama3")) as checkpoint:
        for tensor in checkpoint.tensors.values():
            bits = numpy.frombuffer(tensor.read_bytes(0, tensor.nbytes), "<u2").reshape(tensor.rows, tensor.columns)
            assert numpy.array_equal(tensor.read_rows(0, tensor.rows), widen_bf16(bits))


def test_rows_longer_than_a_piece_are_decoded_in_parts(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(source_files, "PIECE_BYTES", 100)
    half = RNG.normal(size=(5, 333)).astype(numpy.float16)
    save(tmp_path / "model.safetensors", {"a": half})
    tensor = open_safetensors(tmp_path)["a"]
    out = numpy.empty((3, 333), numpy.float32)
    assert tensor.read_rows(1, 4, out) is out
    assert numpy.array_equal(out, half[1:4].astype(numpy.float32))


def test_bytes_are_read_into_a_given_buffer(tmp_path: Path, floats) -> None:
    save(tmp_path / "model.safetensors", floats)
    tensor = open_safetensors(tmp_path)["f32"]
    buffer = memoryview(bytearray(500))
    found = tensor.read_bytes(8, 40, buffer)
    assert found.obj is buffer.obj and bytes(found) == floats["f32"].tobytes()[8:40]


def test_integers_are_bytes_and_not_weights(tmp_path: Path) -> None:
    save(tmp_path / "model.safetensors", {"ids": numpy.arange(6, dtype=numpy.int64), "u": numpy.ones(3, numpy.uint8)})
    tensors = open_safetensors(tmp_path)
    assert bytes(tensors["u"].read_bytes(0, 3)) == b"\1\1\1"
    for name in tensors:
        with pytest.raises(UnsupportedFile, match="cannot be read as weights"):
            tensors[name].read_rows(0, 1)


@pytest.mark.parametrize(
    ("dtype", "size", "hint"), [("F8_E4M3", 4, "BF16 version"), ("F4", 2, None), ("Q9_X", 7, None)]
)
def test_other_dtypes_are_an_error_only_when_used(tmp_path: Path, dtype: str, size: int, hint: str | None) -> None:
    header = {"odd": broken_files.tensor(0, size, dtype=dtype), "a": broken_files.tensor(size, size + 16)}
    (tmp_path / "model.safetensors").write_bytes(broken_files.safetensors(header, bytes(size + 16)))
    tensors = open_safetensors(tmp_path)
    assert tensors["a"].read_rows(0, 1).tolist() == [[0, 0, 0, 0]]
    assert len(tensors["odd"].read_bytes(0, size)) == size
    with pytest.raises(UnsupportedFile, match=dtype) as caught:
        tensors["odd"].read_rows(0, 1)
    assert (hint or "") in (caught.value.hint or "") and bool(hint) == bool(caught.value.hint)


def test_a_file_that_is_cut_while_being_read(tmp_path: Path, floats) -> None:
    save(tmp_path / "model.safetensors", floats)
    tensors = open_safetensors(tmp_path)
    last = max(tensors.values(), key=lambda tensor: tensor.offset + tensor.nbytes)
    os.truncate(tmp_path / "model.safetensors", last.offset + 4)
    for read in (lambda: last.read_rows(0, last.rows), lambda: last.read_raw(0, last.rows)):
        with pytest.raises(MalformedFile, match="the file ends at byte"):
            read()


def test_reading_beyond_a_tensor_is_a_mistake(tmp_path: Path, floats) -> None:
    save(tmp_path / "model.safetensors", floats)
    tensor = open_safetensors(tmp_path)["f32"]
    for read in (lambda: tensor.read_rows(0, 7), lambda: tensor.read_rows(-1, 2), lambda: tensor.read_bytes(0, 1000)):
        with pytest.raises(IndexError):
            read()


def test_an_unfit_buffer_is_refused_rather_than_left_empty(tmp_path: Path, floats) -> None:
    save(tmp_path / "model.safetensors", floats)
    tensor = open_safetensors(tmp_path)["f16"]
    for out in (numpy.empty((40, 6), "f4").T, numpy.empty((6, 40), "f8"), numpy.empty((5, 40), "f4")):
        with pytest.raises(ValueError, match="contiguous float32"):
            tensor.read_rows(0, 6, out)


def test_threads_read_without_disturbing_each_other(tmp_path: Path) -> None:
    half = RNG.normal(size=(400, 64)).astype(numpy.float16)
    save(tmp_path / "model.safetensors", {"a": half})
    tensor, wide = open_safetensors(tmp_path)["a"], half.astype(numpy.float32)

    def right(seed: int) -> bool:
        rng = numpy.random.default_rng(seed)
        spans = [sorted(map(int, rng.integers(0, 401, 2))) for _ in range(200)]
        return all(numpy.array_equal(tensor.read_rows(start, stop), wide[start:stop]) for start, stop in spans)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(right, range(4)))


def open_descriptors() -> int:
    return len(os.listdir("/dev/fd"))


def test_one_descriptor_per_file_closed_by_close(tmp_path: Path) -> None:
    before = open_descriptors()
    names = [f"model-{i:05d}-of-00003.safetensors" for i in (1, 2, 3)]
    for number, name in enumerate(names):
        save(tmp_path / name, {f"t{number}.{i}": numpy.zeros(4, numpy.float32) for i in range(20)})
    with Checkpoint(tmp_path) as checkpoint:
        assert len(checkpoint.tensors) == 60 and open_descriptors() == before + 3
        assert checkpoint.tensor_files == names
    assert open_descriptors() == before
    (tmp_path / names[2]).write_bytes(b"")
    with pytest.raises(MalformedFile):
        _ = Checkpoint(tmp_path).tensors
    assert open_descriptors() == before


def test_f32_needs_no_second_copy(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(source_files, "scratch", lambda size: pytest.fail("F32 went through the scratch buffer"))
    data = RNG.normal(size=(4, 8)).astype(numpy.float32)
    save(tmp_path / "model.safetensors", {"a": data})
    assert numpy.array_equal(open_safetensors(tmp_path)["a"].read_rows(1, 3), data[1:3])


# ---- folders


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


def test_front_matter() -> None:
    card = (
        "---\nlicense: apache-2.0\nbase_model:\n- org/one\n  - 'org/two'\ntags: [a, \"b\"]\n# remark\n"
        "nested:\n  x: 1\nmodel-index:\n- name: y\n---\ntext: no\n"
    )
    assert front_matter(card) == {"license": "apache-2.0", "base_model": ["org/one", "org/two"], "tags": ["a", "b"]}
    assert front_matter("no card") == {} and front_matter("---\na: b\n") == {}


# ---- GGUF


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


# ---- the loader


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
    assert caught.value.hint == "to fetch it from the hub: hf download org/name-that-is-not-here"


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
    with pytest.raises(MissingFile, match="a link to ../../blobs/model.safetensors, which is not there"):
        _ = Checkpoint(snapshot).tensors
