"""The GGUF codec, against the `gguf` package in both directions and by itself."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path

import gguf
import numpy
import pytest

from quantcli import container
from quantcli.container import Strings, Value, ValueType
from quantcli.errors import BadConfig, MalformedFile, MissingFile
from quantcli.ggml import tensor_types

SCALARS = {
    "int.u8": Value(ValueType.UINT8, 255),
    "int.i8": Value(ValueType.INT8, -128),
    "int.u16": Value(ValueType.UINT16, 65535),
    "int.i16": Value(ValueType.INT16, -32768),
    "int.u32": container.u32(2**32 - 1),
    "int.i32": container.i32(-(2**31)),
    "int.u64": container.u64(2**64 - 1),
    "int.i64": Value(ValueType.INT64, -(2**63)),
    "real.f32": container.f32(1e-5),
    "real.f64": Value(ValueType.FLOAT64, 1e-300),
    "flag.yes": container.boolean(True),
    "flag.no": container.boolean(False),
    "text": container.string("Grüße 🦙\n"),
}
ARRAYS = {
    f"array.{kind.name}": container.array(kind, [0, 1, 1] if kind != ValueType.BOOL else [False, True, True])
    for kind in ValueType
    if kind not in (ValueType.STRING, ValueType.ARRAY)
}
TEXTS = {"texts": container.strings(["", "a", "Grüße", "🦙" * 300])}
EMPTY = {
    "empty.text": container.string(""),
    "empty.texts": container.strings([]),
    "empty.ints": container.array(ValueType.INT32, []),
}
METADATA = {"general.architecture": container.string("llama"), **SCALARS, **ARRAYS, **TEXTS}
TENSORS = [
    ("a.weight", (256, 3), "Q4_K"),
    ("b.weight", (64, 2, 1, 3), "Q8_0"),
    ("c", (7, 1, 1), "F32"),
    ("d", (5,), "I8"),
    ("e.weight", (1, 4), "BF16"),
]


def write(path: Path, metadata: dict[str, Value], tensors=(), alignment: int = 32) -> bytes:
    """A whole file through the encoder, with recognisable data; returns the data section."""
    rows = [(name, shape, tensor_types.BY_NAME[kind].id) for name, shape, kind in tensors]
    offsets, size = container.place_tensors([(shape, number) for _, shape, number in rows], alignment)
    header = container.encode_header(metadata, [(*row, at) for row, at in zip(rows, offsets, strict=True)], alignment)
    assert len(header) == container.header_size(metadata, rows, alignment)
    data = (numpy.arange(size) % 251).astype(numpy.uint8).tobytes()
    path.write_bytes(header + data)
    return data


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.gguf"


def test_what_is_written_is_read(path: Path) -> None:
    write(path, METADATA | EMPTY, TENSORS)
    header = container.read_header(path)
    assert list(header.metadata) == list(METADATA | EMPTY)
    assert header.metadata == METADATA | EMPTY
    assert [(t.name, t.shape) for t in header.tensors] == [
        ("a.weight", (256, 3)),
        ("b.weight", (64, 2, 1, 3)),
        ("c", (7,)),
        ("d", (5,)),
        ("e.weight", (1, 4)),
    ]
    assert [t.bytes for t in header.tensors] == [432, 408, 28, 5, 8]
    assert header.data_start % 32 == 0 and header.version == 3 and header.file_size == path.stat().st_size


def test_the_gguf_package_reads_what_is_written(path: Path) -> None:
    data = write(path, METADATA, TENSORS)
    reader = gguf.GGUFReader(path)
    for key, value in METADATA.items():
        found = reader.get_field(key).contents()
        expected = list(value.data) if value.element is not None else value.data
        assert found == expected, key
        assert int(reader.get_field(key).types[0]) == value.type
    for tensor, info in zip(reader.tensors, container.read_header(path).tensors, strict=True):
        assert (tensor.name, tensor.tensor_type.value) == (info.name, info.type_id)
        assert tuple(map(int, tensor.shape)) == info.shape
        assert tensor.data.tobytes() == data[info.offset : info.offset + info.bytes]


@pytest.mark.parametrize("alignment", [8, 32, 4096])
def test_what_the_gguf_package_writes_is_read(path: Path, alignment: int) -> None:
    writer = gguf.GGUFWriter(path, "falcon")
    writer.add_custom_alignment(alignment)
    writer.add_float32("x.f", 0.1)
    writer.add_array("x.texts", ["one", "zwölf"])
    writer.add_array("x.ints", [1, -2, 3])
    writer.add_bool("x.flag", True)
    rng = numpy.random.default_rng(0)
    arrays = {"p": rng.normal(size=(4, 3, 32)).astype(numpy.float32), "q": rng.normal(size=9).astype(numpy.float16)}
    for name, array in arrays.items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    header = container.read_header(path)
    assert header.alignment == alignment
    assert header.metadata["x.f"] == container.f32(0.1) and header.metadata["x.flag"].data is True
    assert header.metadata["x.texts"].data == ["one", "zwölf"]
    assert header.metadata["x.ints"] == container.array(ValueType.INT32, [1, -2, 3])
    assert [t.shape for t in header.tensors] == [(32, 3, 4), (9,)]
    raw = path.read_bytes()
    for info, array in zip(header.tensors, arrays.values(), strict=True):
        assert raw[header.data_start + info.offset :][: info.bytes] == array.tobytes()


def test_encoding_again_gives_the_same_bytes(path: Path) -> None:
    write(path, METADATA | EMPTY, TENSORS)
    header = container.read_header(path)
    again = container.encode_header(header.metadata, [(t.name, t.shape, t.type_id, t.offset) for t in header.tensors])
    assert path.read_bytes()[: header.data_start] == again


def test_version_2_is_read(path: Path) -> None:
    write(path, METADATA, TENSORS)
    raw = bytearray(path.read_bytes())
    raw[4] = 2
    path.write_bytes(raw)
    assert container.read_header(path).metadata == METADATA


def test_missing_last_padding_is_accepted(path: Path) -> None:
    write(path, {}, [("d", (5,), "I8")])
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) - 27])
    assert container.read_header(path).tensors[0].bytes == 5
    path.write_bytes(raw[: len(raw) - 28])
    with pytest.raises(MalformedFile, match="data end at"):
        container.read_header(path)


def test_without_tensors_there_is_no_padding(path: Path) -> None:
    write(path, {"k": container.string("x")})
    assert path.stat().st_size == 24 + 8 + 1 + 4 + 8 + 1
    assert container.read_header(path).tensors == []


def test_text_that_is_not_utf8_is_carried_over(path: Path) -> None:
    broken = b"\xff\xfe"
    metadata = {"text": Value(ValueType.STRING, broken), "texts": container.strings([b"fine", broken, "ß"])}
    write(path, metadata)
    found = container.read_header(path).metadata
    assert found == metadata
    texts = found["texts"].data
    assert (texts[0], texts[2], texts[-1], texts.bytes_at(1)) == ("fine", "ß", "ß", broken)
    with pytest.raises(MalformedFile, match="string 1 of an array is not UTF-8"):
        texts[1]
    with pytest.raises(MalformedFile, match="string 1"):
        list(texts)
    with pytest.raises(IndexError):
        texts[3]


def test_a_sparse_70b_model_plans_from_its_header_alone(path: Path) -> None:
    tensors = [(f"blk.{i}.weight", (8192, 28672), "F16") for i in range(240)]
    rows = [(name, shape, 1) for name, shape, _ in tensors]
    offsets, size = container.place_tensors([(shape, 1) for _, shape, _ in rows])
    with open(path, "wb") as file:
        file.write(container.encode_header({}, [(*row, at) for row, at in zip(rows, offsets, strict=True)]))
        file.truncate(file.tell() + size)
    tracemalloc.start()
    header = container.read_header(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(header.tensors) == 240 and header.tensors[-1].offset + header.tensors[-1].bytes == size > 100e9
    assert peak < 8 << 20


def test_strings_across_the_borders_of_what_is_read_at_once(path: Path) -> None:
    """Lengths and texts that straddle the 1 MiB pieces, in every phase."""
    long = [("x" * n) for n in (1 << 20, 0, (1 << 20) - 4, 3, 5 << 20, 1, 0)]
    for shift in range(0, 24, 3):
        metadata = {"k" * (shift + 1): container.strings(long), "z": container.strings(["y"] * 200_000)}
        write(path, metadata)
        assert container.read_header(path).metadata == metadata


def test_strings_are_a_sequence() -> None:
    texts = Strings.from_list(["a", "", "ccc"])
    assert len(texts) == 3 and list(texts) == ["a", "", "ccc"] == texts[:] and texts[1:] == ["", "ccc"]
    assert texts == ["a", "", "ccc"] and texts != ["a"] and texts == Strings.from_list(["a", "", "ccc"])
    assert "ccc" in texts and texts.index("ccc") == 2


@pytest.mark.parametrize(
    ("build", "fragment"),
    [
        (lambda: container.u32(-1), "out of range"),
        (lambda: container.u32(2**32), "out of range"),
        (lambda: container.u32(1.5), "whole"),
        (lambda: container.u32(float("nan")), "whole"),
        (lambda: container.u32("12"), "whole"),
        (lambda: container.u32(True), "whole"),
        (lambda: container.u32(10**5000), "bits"),
        (lambda: container.f32("1"), "not a number"),
        (lambda: container.f32(1e39), "out of range"),
        (lambda: container.f32(float("inf")), "finite"),
        (lambda: container.boolean(1), "neither"),
        (lambda: container.string(7), "not a string"),
        (lambda: container.array(ValueType.UINT8, [256]), "out of range"),
        (lambda: container.array(ValueType.INT32, [1.5]), "out of range"),
        (lambda: container.array(ValueType.INT32, [float("nan")]), "out of range"),
        (lambda: container.array(ValueType.INT32, ["1"]), "not a list"),
        (lambda: container.array(ValueType.INT32, [[1], [2]]), "not a list"),
        (lambda: container.array(ValueType.FLOAT32, [1e300]), "out of range"),
        (lambda: container.array(ValueType.BOOL, [0, 1]), "not a list"),
        (lambda: container.array(ValueType.UINT64, [2**64]), "not a list"),
        (lambda: container.array(ValueType.ARRAY, []), "arrays"),
    ],
)
def test_values_that_do_not_fit_are_refused(build, fragment: str) -> None:
    with pytest.raises(BadConfig, match=fragment):
        build()


def test_values_that_nearly_do_not_fit() -> None:
    assert container.u32(7.0).data == 7 and container.u32(numpy.int64(7)).data == 7
    assert container.f32(1).data == 1.0 and container.f32(0.1).data == float(numpy.float32(0.1))
    assert container.array(ValueType.FLOAT32, [float("-inf"), 1]).data.tolist() == [float("-inf"), 1.0]
    assert container.array(ValueType.UINT64, [2**64 - 1]).data.tolist() == [2**64 - 1]
    with pytest.raises(MalformedFile, match="surrogate"):
        container.string("\ud800")
    with pytest.raises(MalformedFile, match="surrogate"):
        container.strings(["\udfff"])


@pytest.mark.parametrize(
    ("metadata", "tensors", "alignment", "fragment"),
    [
        ({"": container.u32(1)}, [], 32, "metadata key"),
        ({"k" * 65536: container.u32(1)}, [], 32, "metadata key"),
        ({}, [("n" * 64, (4,), 0, 0)], 32, "tensor name"),
        ({}, [("", (4,), 0, 0)], 32, "tensor name"),
        ({}, [("a", (4,), 0, 0), ("a", (4,), 0, 32)], 32, "two tensors"),
        ({}, [("a", (4,), 0, 0), ("b", (4,), 0, 64)], 32, "starts at 64"),
        ({}, [("a", (4, 1, 1, 1, 2), 0, 0)], 32, "shape"),
        ({}, [("a", (4, 0), 0, 0)], 32, "shape"),
        ({}, [("a", (4,), 0, 0)], 64, "contradicts"),
        ({"general.alignment": container.u32(24)}, [], 24, "power of two"),
        ({"x": Value(ValueType.UINT8, 256)}, [], 32, "UINT8"),
    ],
)
def test_headers_that_no_reader_takes_are_not_written(metadata, tensors, alignment: int, fragment: str) -> None:
    with pytest.raises(MalformedFile, match=fragment):
        container.encode_header(metadata, tensors, alignment)


# ---- shards


def write_shards(folder: Path, count: int = 3, prefix: str = "m-F32") -> list[Path]:
    """``count`` shards with one tensor each, all metadata in the first."""
    paths = []
    for index in range(count):
        split = {
            "split.no": container.u16(index),
            "split.count": container.u16(count),
            "split.tensors.count": container.i32(count),
        }
        general = {"general.architecture": container.string("llama")} if index == 0 else {}
        paths.append(folder / container.shard_name(prefix, index, count))
        write(paths[-1], general | split, [(f"t{index}", (4, 2), "F32")])
    return paths


def test_shards_are_read_from_the_first(tmp_path: Path) -> None:
    paths = write_shards(tmp_path)
    headers = container.read_split_headers(paths[0])
    assert [header.path for header in headers] == paths
    assert [info.name for header in headers for info in header.tensors] == ["t0", "t1", "t2"]


def test_shard_names() -> None:
    assert container.shard_name("a-b", 1, 12) == "a-b-00002-of-00012.gguf"
    assert container.split_name("a-b-00002-of-00012.gguf") == ("a-b", 1, 12)
    assert container.split_name("a-b-0002-of-0012.gguf") is None


def test_a_later_shard_names_the_first(tmp_path: Path) -> None:
    paths = write_shards(tmp_path)
    with pytest.raises(MalformedFile, match="shard 2 of 3") as caught:
        container.read_split_headers(paths[1])
    assert str(paths[0]) in caught.value.hint


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    paths = write_shards(tmp_path)
    paths[2].unlink()
    with pytest.raises(MissingFile, match="shard 3 of 3") as caught:
        container.read_split_headers(paths[0])
    assert caught.value.where == str(paths[2])


def change(path: Path, key: bytes, code: str, value: int) -> None:
    """Overwrite the number behind a metadata key."""
    raw = bytearray(path.read_bytes())
    struct.pack_into(code, raw, raw.index(key) + len(key) + 4, value)
    path.write_bytes(raw)


@pytest.mark.parametrize(
    ("shard", "key", "code", "value", "fragment"),
    [
        (1, b"split.no", "<H", 2, "says it is 3 of 3"),
        (1, b"split.count", "<H", 4, "says it is 2 of 4"),
        (0, b"split.tensors.count", "<i", 4, "the shards hold 3"),
        (0, b"split.tensors.count", "<i", -1, "no count"),
        (0, b"split.no", "<H", 3, "claims to be shard 4 of 3"),
        (0, b"split.count", "<H", 5, "its name does not say so"),
    ],
)
def test_shards_that_do_not_belong_together(tmp_path: Path, shard, key, code, value, fragment: str) -> None:
    paths = write_shards(tmp_path)
    change(paths[shard], key, code, value)
    with pytest.raises(MalformedFile, match=fragment):
        container.read_split_headers(paths[0])


def test_a_tensor_in_two_shards(tmp_path: Path) -> None:
    paths = write_shards(tmp_path)
    raw = paths[1].read_bytes().replace(b"t1", b"t0")
    paths[1].write_bytes(raw)
    with pytest.raises(MalformedFile, match="'t0' is also in m-F32-00001-of-00003.gguf"):
        container.read_split_headers(paths[0])


def test_a_renamed_first_shard(tmp_path: Path) -> None:
    path = write_shards(tmp_path)[0].rename(tmp_path / "model.gguf")
    with pytest.raises(MalformedFile, match="its name does not say so"):
        container.read_split_headers(path)
