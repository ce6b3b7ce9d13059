"""Safetensors as sources, against the `safetensors` package."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy
import pytest
import safetensors
import safetensors.numpy

from helpers import broken_files, oracles
from quantcli.errors import MalformedFile, UnsupportedFile
from quantcli.sources import files as source_files
from quantcli.sources.checkpoint import Checkpoint
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
