"""What comparisons keep of a reference: every byte of it counts, and what is wrong with a file is told by name."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy
import pytest

from quantcli import container
from quantcli.commands import compare, verify
from quantcli.container import sums
from quantcli.errors import BadReference, QuantcliError
from quantcli.evaluate.kept import KINDS, KeptFile, KeptWriter
from quantcli.evaluate.reference_states import StatesRecorder
from quantcli.runner.session import RunOptions, open_session
from quantcli.runner.text import chunks_of

SHAPES = {"tokens": ((7,), "I32"), "states": ((5, 3), "F32"), "more": ((8, 9), "F32")}
KIND = "quantcli.reference-states"


def arrays() -> dict[str, numpy.ndarray]:
    values = numpy.random.default_rng(3)
    return {
        name: values.integers(0, 99, shape[::-1]).astype(numpy.int32 if kind == "I32" else numpy.float32)
        for name, (shape, kind) in SHAPES.items()
    }


def made(path: Path, kind: str = KIND) -> bytes:
    """A small file, and its bytes."""
    output = KeptWriter(path, {"general.type": container.string(kind)}, [(n, *one) for n, one in SHAPES.items()])
    for array in arrays().values():
        output.add(array)
    output.finish()
    return path.read_bytes()


def read(path: Path, kind: str = KIND) -> dict[str, numpy.ndarray | None]:
    file = KeptFile(path, kind)
    try:
        return {name: file.array(name, shape[::-1], type_) for name, (shape, type_) in SHAPES.items()}
    finally:
        file.close()


def test_what_was_kept_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a.st"
    data = made(path)
    found = read(path)
    assert all(numpy.array_equal(found[name], array) for name, array in arrays().items())
    assert verify.run([path])["ok"]
    header = container.read_header(path)
    assert header.tensors[-1].name == sums.NAME and len(data) % 32 == 0


def test_every_byte_counts(tmp_path: Path) -> None:
    """Also of the header, of the padding and of the checksums themselves."""
    path = tmp_path / "o'b.st"
    data, values = made(path), numpy.random.default_rng(4)
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= int(values.integers(1, 256))
        path.write_bytes(changed)
        with pytest.raises(BadReference) as found:
            read(path)
        assert str(path) in found.value.where and "--reference-states" in found.value.hint
        assert not verify.run([path])["ok"], place


def lengths(data: bytes) -> Iterator[bytes]:
    for size in range(len(data)):
        yield data[:size]
    for end in (b"x", b"\n", bytes(31), bytes(32), data):
        yield data + end
    yield from (data[:size] + bytes(len(data) - size) for size in range(0, len(data), 32))  # a power cut


def test_every_other_length_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a b.st"
    for changed in lengths(made(path)):
        path.write_bytes(changed)
        with pytest.raises(BadReference) as found:
            read(path)
        assert str(path) in found.value.where
        if not changed or KIND.encode() in changed:
            assert f"rm {shlex.quote(str(path))}" in found.value.hint


def without_sums(path: Path) -> None:
    """As before there were any."""
    offsets, _ = container.place_tensors([((8,), sums.TYPE)])
    header = container.encode_header({"general.type": container.string(KIND)}, [("a", (8,), sums.TYPE, offsets[0])])
    path.write_bytes(header + bytes(32))


def with_nan(path: Path) -> None:
    output = KeptWriter(path, {"general.type": container.string(KIND)}, [("states", (2,), "F32")])
    output.add(numpy.array([1, numpy.nan], numpy.float32))
    output.finish()
    KeptFile(path, KIND).array("states", (2,), "F32")


OTHERS: dict[str, tuple[Callable[[Path], object], str, bool]] = {
    "of an earlier version": (without_sums, "has no checksums", True),
    "holds NaN": (with_nan, "holds NaN: tensor states", True),
    "empty": (Path.touch, "it is empty", True),
    "a folder": (Path.mkdir, "not a regular file", False),
    "a text": (lambda path: path.write_text("hello"), "not a GGUF file", False),
    "of the other kind": (lambda path: made(path, "quantcli.reference"), "holds no states of a reference", False),
    "not there": (lambda path: None, "No such file", False),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_files_are_told_and_none_of_them_is_to_be_removed(name: str, tmp_path: Path) -> None:
    make, words, own = OTHERS[name]
    path = tmp_path / "a.st"
    with pytest.raises(BadReference) as found:
        make(path)
        read(path)
    assert words in found.value.message and str(path) in found.value.where
    assert KINDS[KIND] in found.value.hint and ("rm " in found.value.hint) is own


def test_a_reference_that_gives_nan_is_not_kept(tiny_files: dict[str, Path], prose: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.st"
    with open_session(tiny_files["BF16"], RunOptions(length=64)) as session:
        chunks = chunks_of(session.tokenizer, prose, 64, chunks=2)
        states = numpy.ones((2, chunks.scored, session.network.settings.hidden), numpy.float32)
        for values, kept in (
            (states * numpy.float32("nan"), False),
            (states * numpy.float32("inf"), False),
            (states, True),
        ):
            recorder = StatesRecorder(path, session, chunks)
            for chunk in range(2):
                recorder.add(chunk, values[chunk] if chunk else states[0])
            recorder.finish()
            assert path.exists() is kept and len(list(tmp_path.glob(".*"))) == 0


@pytest.mark.parametrize("option", ["states", "record"])
def test_a_damaged_file_gives_no_figures(tiny_files: dict[str, Path], prose: Path, tmp_path: Path, option: str) -> None:
    path = tmp_path / "kept.st"
    request = compare.CompareRequest(
        reference=tiny_files["BF16"], models=[tiny_files["Q8_0"]], texts=[prose], length=64, chunks=2,
        options=RunOptions(length=64), **{option: path},
    )  # fmt: skip
    expected = compare.run(request)["models"]
    data = path.read_bytes()
    header, values = container.read_header(path), numpy.random.default_rng(5)
    if option == "states":
        assert compare.run(request)["models"] == expected
    for tensor in header.tensors:
        for _ in range(3):
            place = header.data_start + tensor.offset + int(values.integers(tensor.bytes))
            changed = bytearray(data)
            changed[place] ^= 0x55
            path.write_bytes(changed)
            with pytest.raises(QuantcliError, match="checksum") as found:
                compare.run(request)
            assert isinstance(found.value, BadReference) and f"rm {path}" in found.value.hint
