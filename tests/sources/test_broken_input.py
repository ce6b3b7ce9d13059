"""Broken and hostile input for the parsers of files: each case with the error it must end in, and nothing allocated."""

from __future__ import annotations

import json
import os
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers import broken_files as b
from quantcli import container
from quantcli.errors import MalformedFile, MissingFile, PickleCheckpoint, QuantcliError, UnsafePath, UnsupportedFile
from quantcli.sources.checkpoint import Checkpoint, open_checkpoint
from quantcli.sources.gguf import open_gguf

MOST_MEMORY = 12 << 20  # bytes that refusing a small file may take

# name -> (bytes, error, fragment of its message)
GGUF_CASES: dict[str, tuple[bytes, type[QuantcliError], str]] = {
    "empty": (b"", MalformedFile, "not a GGUF file"),
    "other-magic": (b"\x7fELF" + bytes(100), MalformedFile, "not a GGUF file"),
    "ggjt": (b"tjgg" + bytes(100), UnsupportedFile, "GGJT"),
    "only-magic": (b"GGUF", MalformedFile, "ends within the version"),
    "version-0": (b.gguf(version=0), UnsupportedFile, "version 0"),
    "version-1": (b.gguf(version=1), UnsupportedFile, "version 1"),
    "version-4": (b.gguf(version=4), UnsupportedFile, "version 4"),
    "big-endian": (b.gguf(version=3 << 24), UnsupportedFile, "big-endian"),
    "counts-cut": (b.gguf()[:15], MalformedFile, "ends within the number of tensors"),
    "negative-tensors": (b.gguf(counts=(-1, 1)), MalformedFile, "the number of tensors is -1"),
    "negative-keys": (b.gguf(counts=(0, -5)), MalformedFile, "metadata entries is -5"),
    "tensors-2^62": (b.gguf(counts=(2**62, 1)), MalformedFile, "the number of tensors is 46116860184"),
    "keys-2^62": (b.gguf(counts=(0, 2**62)), MalformedFile, "the number of metadata entries is 46116860184"),
    "one-key-too-many": (b.gguf(counts=(0, 2), data=bytes(6)), MalformedFile, "metadata entries is 2|ends within"),
    "key-length-2^63": (b.gguf([b.text("k", 2**63) + bytes(40)]), MalformedFile, "the length of metadata key 0"),
    "key-length-over": (b.gguf([b.text("k", 1000) + bytes(40)]), MalformedFile, "more than the 41 bytes left"),
    "key-empty": (b.gguf([b.entry("")]), MalformedFile, "metadata key 0 is empty"),
    "key-not-utf8": (b.gguf([b.entry(b"\xff\xfe")]), MalformedFile, "metadata key 0 is not UTF-8"),
    "key-unprintable": (b.gguf([b.entry("a\n")]), MalformedFile, "unprintable"),
    "key-too-long": (b.gguf([b.entry("k" * 65536)]), MalformedFile, "the limit is 65535"),
    "key-twice": (b.gguf([b.entry("k"), b.entry("k")]), MalformedFile, "'k' occurs twice"),
    "type-13": (b.gguf([b.entry("k", 13, bytes(16))]), MalformedFile, "unknown value type 13"),
    "type-negative": (b.gguf([b.entry("k", -1, bytes(16))]), MalformedFile, "unknown value type -1"),
    "number-cut": (b.gguf([b.entry("k", b.UINT32, b"\1\2")]), MalformedFile, "ends within the value of 'k'"),
    "string-2^64-1": (b.gguf([b.entry("k", b.STRING, b.text("x", 2**64 - 1))]), MalformedFile, "more than the 1 bytes"),
    "array-nested": (b.gguf([b.entry("k", b.ARRAY, b.array(b.ARRAY, 1, bytes(40)))]), MalformedFile, "array of arrays"),
    "array-of-13": (b.gguf([b.entry("k", b.ARRAY, b.array(13, 1, bytes(40)))]), MalformedFile, "unknown value type 13"),
    "array-2^61": (b.gguf([b.entry("k", b.ARRAY, b.array(b.UINT32, 2**61, bytes(40)))]), MalformedFile, "more than"),
    "array-2^62-floats": (
        b.gguf([b.entry("k", b.ARRAY, b.array(b.FLOAT32, 2**62 + 1, bytes(40)))]),
        MalformedFile,
        "more than the 40 bytes left",
    ),
    "strings-2^60": (b.gguf([b.entry("k", b.ARRAY, b.array(b.STRING, 2**60, bytes(40)))]), MalformedFile, "more than"),
    "strings-long": (
        b.gguf([b.entry("k", b.ARRAY, b.array(b.STRING, 2, b.text("ab") + b.text("c", 2**31)))]),
        MalformedFile,
        "string 1 of the value of 'k' has 2147483648 bytes",
    ),
    "strings-past-end": (
        b.gguf([b.entry("k", b.ARRAY, b.array(b.STRING, 2, b.text("ab") + b.text("c", 1000)))]),
        MalformedFile,
        "the file ends within the value of 'k'",
    ),
    "alignment-0": (b.gguf([b.entry("general.alignment")]), MalformedFile, "alignment is 0"),
    "alignment-24": (
        b.gguf([b.entry("general.alignment", 4, struct.pack("<I", 24))]),
        MalformedFile,
        "alignment is 24",
    ),
    "alignment-huge": (
        b.gguf([b.entry("general.alignment", 4, struct.pack("<I", 2**31))]),
        MalformedFile,
        "alignment is 2147483648",
    ),
    "alignment-u64": (
        b.gguf([b.entry("general.alignment", 10, struct.pack("<Q", 32))]),
        MalformedFile,
        "has to be UINT32",
    ),
    "alignment-text": (b.gguf([b.entry("general.alignment", 8, b.text("32"))]), MalformedFile, "has to be UINT32"),
    "name-empty": (b.gguf(rows=[b.row("")], data=b.DATA), MalformedFile, "the name of tensor 0 is empty"),
    "name-64": (b.gguf(rows=[b.row("n" * 64)], data=b.DATA), MalformedFile, "the limit is 63"),
    "name-not-utf8": (b.gguf(rows=[b.row(b"\x80")], data=b.DATA), MalformedFile, "the name of tensor 0 is not UTF-8"),
    "name-unprintable": (b.gguf(rows=[b.row("\x1b[2J")], data=b.DATA), MalformedFile, "unprintable"),
    "name-twice": (
        b.gguf(rows=[b.row("a"), b.row("a", offset=32)], data=b.DATA),
        MalformedFile,
        "two tensors are called 'a'",
    ),
    "dimensions-5": (b.gguf(rows=[b.row(shape=(1,) * 5)], data=b.DATA), MalformedFile, "5 dimensions"),
    "dimensions-2^32": (
        b.gguf(rows=[b.row(dimensions=2**32 - 1)], data=b.DATA),
        MalformedFile,
        "4294967295 dimensions",
    ),
    "size-0": (b.gguf(rows=[b.row(shape=(8, 0))], data=b.DATA), MalformedFile, r"impossible shape \[8, 0\]"),
    "size-negative": (b.gguf(rows=[b.row(shape=(-8, -8))], data=b.DATA), MalformedFile, "impossible shape"),
    "elements-overflow": (
        b.gguf(rows=[b.row(shape=(2**32, 2**32, 2**32))], data=b.DATA),
        MalformedFile,
        "impossible shape",
    ),
    "bytes-overflow": (
        b.gguf(rows=[b.row(shape=(2**62 + 2**61,))], data=b.DATA),
        MalformedFile,
        "does not fit in a file",
    ),
    "type-removed": (
        b.gguf(rows=[b.row(kind=4)], data=b.DATA),
        UnsupportedFile,
        "type 4: Q4_2, which ggml has removed",
    ),
    "type-unknown": (b.gguf(rows=[b.row(kind=43)], data=b.DATA), UnsupportedFile, "type 43: unknown"),
    "type-minus": (b.gguf(rows=[b.row(kind=-1)], data=b.DATA), UnsupportedFile, "type -1: unknown"),
    "row-not-block": (
        b.gguf(rows=[b.row(shape=(48, 2), kind=8)], data=b.DATA),
        MalformedFile,
        "no multiple of Q8_0's block",
    ),
    "offset-unaligned": (b.gguf(rows=[b.row(offset=4)], data=b.DATA), MalformedFile, "'a' starts at 4"),
    "offset-2^64": (
        b.gguf(rows=[b.row(), b.row("b", offset=2**64 - 32)], data=b.DATA),
        MalformedFile,
        "'b' starts at 184467",
    ),
    "overlap": (
        b.gguf(rows=[b.row(shape=(16,)), b.row("b", offset=32)], data=b.DATA),
        MalformedFile,
        "previous one at 64",
    ),
    "gap": (b.gguf(rows=[b.row(), b.row("b", offset=64)], data=b.DATA), MalformedFile, "previous one at 32"),
    "order": (b.gguf(rows=[b.row(offset=32), b.row("b")], data=b.DATA), MalformedFile, "'a' starts at 32"),
    "data-cut": (
        b.gguf(rows=[b.row()], data=b.DATA[:31]),
        MalformedFile,
        "the tensor data end at 160, the file has 159",
    ),
    "data-missing": (b.gguf(rows=[b.row()]), MalformedFile, "the tensor data end at"),
    "one-tensor-too-many": (
        b.gguf(counts=(2, 1), rows=[b.row()], data=bytes(32)),
        MalformedFile,
        "ends within|is empty",
    ),
    "no-architecture": (b.gguf([b.entry("k")]), UnsupportedFile, "no general.architecture"),
    "architecture-number": (b.gguf([b.entry("general.architecture")]), MalformedFile, "has to be a text"),
    "imatrix": (b.gguf([b.entry("general.type", b.STRING, b.text("imatrix"))]), UnsupportedFile, "importance matrix"),
    "split-count-text": (
        b.gguf([b.ARCHITECTURE, b.entry("split.count", b.STRING, b.text("3"))]),
        MalformedFile,
        "no count",
    ),
    "split-without-no": (
        b.gguf([b.ARCHITECTURE, b.entry("split.count", 2, b"\3\0")]),
        MalformedFile,
        "split.no is missing",
    ),
}

# The same for model.safetensors.
DEEP = b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
SAFETENSORS_CASES: dict[str, tuple[bytes, type[QuantcliError], str]] = {
    "empty": (b"", MalformedFile, "only 0 bytes"),
    "seven-bytes": (bytes(7), MalformedFile, "only 7 bytes"),
    "length-2^64-1": (b.safetensors({}, length=2**64 - 1), MalformedFile, "claims a header of 18446744073709551615"),
    "length-over": (b.safetensors({}, length=99), MalformedFile, "claims a header of 99"),
    "length-0": (b.safetensors({}, length=0), MalformedFile, "no JSON object"),
    "zip": (b"PK\3\4" + bytes(100), MalformedFile, "claims a header"),
    "not-json": (b.safetensors(b"{'a': 1}"), MalformedFile, "not valid JSON"),
    "json-cut": (b.safetensors(b'{"a": {"dtype"'), MalformedFile, "not valid JSON"),
    "json-list": (b.safetensors(b"[]"), MalformedFile, "no JSON object"),
    "json-tail": (b.safetensors(b'{} {"a":1}'), MalformedFile, "not valid JSON"),
    "not-utf8": (b.safetensors(b'{"\xff": 1}'), MalformedFile, "not UTF-8"),
    "deep": (b.safetensors(DEEP), MalformedFile, "nested 100001 levels"),
    "deep-objects": (b.safetensors(b'{"a":' * 5000 + b"1" + b"}" * 5000), MalformedFile, "nested 5000 levels"),
    "key-twice": (
        b.safetensors(b'{"a":%s,"a":%s}' % ((json.dumps(b.tensor()).encode(),) * 2)),
        MalformedFile,
        "'a' occurs twice",
    ),
    "name-surrogate": (b.safetensors({"\ud800": b.tensor()}), MalformedFile, "impossible name"),
    "name-unprintable": (b.safetensors({"\x1b[2J": b.tensor()}), MalformedFile, "impossible name"),
    "name-long": (b.safetensors({"n" * 1001: b.tensor()}), MalformedFile, "impossible name"),
    "entry-number": (b.safetensors({"a": 1}), MalformedFile, "not an object"),
    "no-dtype": (b.safetensors({"a": {"shape": [4], "data_offsets": [0, 16]}}), MalformedFile, "no dtype"),
    "dtype-number": (b.safetensors({"a": b.tensor(dtype=7)}), MalformedFile, "no dtype"),
    "no-shape": (b.safetensors({"a": {"dtype": "F32", "data_offsets": [0, 16]}}), MalformedFile, "impossible shape"),
    "shape-negative": (b.safetensors({"a": b.tensor(shape=(-4, -1))}), MalformedFile, "impossible shape"),
    "shape-float": (b.safetensors({"a": b.tensor(shape=(4.0,))}), MalformedFile, "impossible shape"),
    "shape-true": (b.safetensors({"a": b.tensor(shape=(4, True))}), MalformedFile, "impossible shape"),
    "shape-overflow": (b.safetensors({"a": b.tensor(shape=(2**32, 2**32))}), MalformedFile, "impossible shape"),
    "shape-huge-number": (
        b.safetensors(b'{"a":{"dtype":"F32","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,16]}}'),
        MalformedFile,
        "not usable JSON",
    ),
    "shape-million": (b.safetensors({"a": b.tensor(shape=(2**62,) * 100_000)}), MalformedFile, "impossible shape"),
    "shape-wrong": (b.safetensors({"a": b.tensor(shape=(5,))}), MalformedFile, "does not take the 16 bytes"),
    "dtype-wrong": (b.safetensors({"a": b.tensor(dtype="BF16")}), MalformedFile, "does not take the 16 bytes"),
    "offsets-reversed": (b.safetensors({"a": b.tensor(16, 0)}), MalformedFile, "impossible data_offsets"),
    "offsets-three": (
        b.safetensors({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 8, 16]}}),
        MalformedFile,
        "impossible data_offsets",
    ),
    "offsets-2^63": (b.safetensors({"a": b.tensor(2**63, 2**63 + 16)}), MalformedFile, "impossible data_offsets"),
    "gap-in-front": (b.safetensors({"a": b.tensor(16, 32)}, bytes(32)), MalformedFile, "leaves a gap"),
    "gap": (b.safetensors({"a": b.tensor(), "b": b.tensor(20, 36)}, bytes(36)), MalformedFile, "leaves a gap"),
    "overlap": (
        b.safetensors({"a": b.tensor(), "b": b.tensor(8, 24)}, bytes(24)),
        MalformedFile,
        "overlaps the one before",
    ),
    "same-range": (b.safetensors({"a": b.tensor(), "b": b.tensor()}), MalformedFile, "overlaps the one before"),
    "data-cut": (b.safetensors({"a": b.tensor()}, bytes(15)), MalformedFile, "the tensors end at byte"),
    "data-more": (b.safetensors({"a": b.tensor()}, bytes(17)), MalformedFile, "the tensors end at byte"),
}

A, B, AB = b.sound_safetensors(["a"]), b.sound_safetensors(["b"]), b.sound_safetensors(["a", "b"])

# Whole folders: name -> (files, error, fragment).
FOLDER_CASES: dict[str, tuple[dict, type[QuantcliError], str]] = {
    "nothing": ({}, MissingFile, "no model.safetensors"),
    "only-pickle": ({"pytorch_model.bin": b"PK"}, PickleCheckpoint, "pytorch_model.bin"),
    "only-pickles": (
        {"pytorch_model-00001-of-00002.bin": b"PK", "pytorch_model.bin.index.json": {}},
        PickleCheckpoint,
        "runs whatever code",
    ),
    "only-consolidated-pth": (
        {"consolidated.00.pth": b"PK", "params.json": {}},
        PickleCheckpoint,
        "consolidated.00.pth",
    ),
    "only-consolidated": ({"consolidated.safetensors": A}, UnsupportedFile, "vendor's own"),
    "adapter": ({"adapter_model.safetensors": A, "adapter_config.json": {}}, UnsupportedFile, "LoRA"),
    "only-gguf": ({"x.gguf": b"GGUF"}, MissingFile, "no model.safetensors"),
    "several-others": ({"x.safetensors": A, "y.safetensors": B}, MissingFile, "2 other .safetensors"),
    "shard-missing": ({b.INDEX: b.index({"a": b.ONE, "b": b.TWO}), b.ONE: A}, MissingFile, "shard 2 of 2 is missing"),
    "shard-missing-without-index": ({b.TWO: B}, MissingFile, "shard 1 of 2 is missing"),
    "index-climbs": ({b.INDEX: b.index({"a": "../model.safetensors"})}, UnsafePath, "leaves the folder"),
    "index-climbs-inside": ({b.INDEX: b.index({"a": "x/../../model.safetensors"})}, UnsafePath, "leaves the folder"),
    "index-backslash": ({b.INDEX: b.index({"a": "..\\model.safetensors"})}, UnsafePath, "leaves the folder"),
    "index-absolute": ({b.INDEX: b.index({"a": "/etc/model.safetensors"})}, UnsafePath, "leaves the folder"),
    "index-drive": ({b.INDEX: b.index({"a": "C:/model.safetensors"})}, UnsafePath, "leaves the folder"),
    "index-zero-byte": ({b.INDEX: b.index({"a": "x\0.safetensors"})}, UnsafePath, "leaves the folder"),
    "index-escape-code": ({b.INDEX: b.index({"a": "\x1b[2J.safetensors"})}, UnsafePath, "leaves the folder"),
    "index-empty-name": ({b.INDEX: b.index({"a": ""})}, UnsafePath, "leaves the folder"),
    "index-long-name": ({b.INDEX: b.index({"a": "x" * 300 + ".safetensors"})}, MissingFile, "shard 1 of 1 is missing"),
    "index-number": ({b.INDEX: b.index({"a": 1})}, MalformedFile, "not a string"),
    "index-other-kind": ({b.INDEX: b.index({"a": "config.json"})}, MalformedFile, "no .safetensors file"),
    "index-empty": ({b.INDEX: b.index({})}, MalformedFile, "no object `weight_map`"),
    "index-list": ({b.INDEX: []}, MalformedFile, "not an object"),
    "index-deep": ({b.INDEX: DEEP}, MalformedFile, "nested 100001 levels"),
    "index-key-twice": (
        {b.INDEX: '{"weight_map": {"a": "x.safetensors", "a": "y.safetensors"}}'},
        MalformedFile,
        "occurs twice",
    ),
    "index-tensor-absent": ({b.INDEX: b.index({"a": b.ONE, "c": b.ONE}), b.ONE: A}, MalformedFile, "'c' is not in"),
    "index-wrong-shard": (
        {b.INDEX: b.index({"a": b.TWO, "b": b.ONE}), b.ONE: A, b.TWO: B},
        MalformedFile,
        "'a' is not in",
    ),
    "index-lacks": ({b.INDEX: b.index({"a": b.ONE}), b.ONE: AB}, MalformedFile, "the index lacks 1 tensors"),
    "tensor-in-two-shards": (
        {b.INDEX: b.index({"a": b.ONE, "b": b.TWO}), b.ONE: A, b.TWO: AB},
        MalformedFile,
        "'a' is also in",
    ),
    "no-config": ({"config.json": None, "model.safetensors": A}, MissingFile, "there is no config.json"),
    "config-cut": ({"config.json": '{"a": [1,\n 2', "model.safetensors": A}, MalformedFile, "not valid JSON"),
    "config-list": ({"config.json": [1], "model.safetensors": A}, MalformedFile, "not an object"),
    "config-deep": ({"config.json": DEEP, "model.safetensors": A}, MalformedFile, "nested 100001 levels"),
    "config-not-utf8": ({"config.json": b'{"a": "\xff"}', "model.safetensors": A}, MalformedFile, "not UTF-8"),
    "config-huge-number": (
        {"config.json": '{"a": ' + "1" * 5000 + "}", "model.safetensors": A},
        MalformedFile,
        "not usable",
    ),
    "config-large": ({"config.json": b" " * ((16 << 20) + 1), "model.safetensors": A}, MalformedFile, "16777217 bytes"),
}


def refuse(action: Callable[[], object], error: type[QuantcliError], fragment: str) -> QuantcliError:
    """Run ``action``, which must end in exactly this error, with a place, and without taking memory."""
    tracemalloc.start()
    try:
        with pytest.raises(error, match=fragment) as caught:
            action()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert type(caught.value) is error and caught.value.where
    assert peak < MOST_MEMORY
    assert len(str(caught.value)) < 700 and str(caught.value).isprintable()
    return caught.value


@pytest.mark.parametrize("name", GGUF_CASES)
def test_gguf(tmp_path: Path, name: str) -> None:
    raw, error, fragment = GGUF_CASES[name]
    path = tmp_path / "broken.gguf"
    path.write_bytes(raw)
    caught = refuse(lambda: open_gguf(path), error, fragment)
    assert str(path) in caught.where


@pytest.mark.parametrize("name", SAFETENSORS_CASES)
def test_safetensors(tmp_path: Path, name: str) -> None:
    raw, error, fragment = SAFETENSORS_CASES[name]
    path = b.folder(tmp_path / "broken", {"model.safetensors": raw})
    caught = refuse(lambda: Checkpoint(path).tensors, error, fragment)
    assert "model.safetensors" in caught.where


@pytest.mark.parametrize("name", FOLDER_CASES)
def test_folder(tmp_path: Path, name: str) -> None:
    files, error, fragment = FOLDER_CASES[name]
    refuse(lambda: b.read_folder(b.folder(tmp_path / "broken", files)), error, fragment)


def test_what_the_cases_are_changed_from_is_sound(tmp_path: Path) -> None:
    """Otherwise a case could fail for another reason than its own."""
    path = tmp_path / "sound.gguf"
    path.write_bytes(b.gguf(rows=[b.row(), b.row("b", offset=32)], data=b.DATA))
    assert [tensor.name for tensor in open_gguf(path).tensors] == ["a", "b"]
    shards = {b.INDEX: b.index({"a": b.ONE, "b": b.TWO}), b.ONE: A, b.TWO: B}
    for i, files in enumerate([{"model.safetensors": AB}, shards, {b.ONE: A, b.TWO: B}, {"other.safetensors": AB}]):
        assert list(Checkpoint(b.folder(tmp_path / str(i), files)).tensors) == ["a", "b"]


# ---- not files at all


def test_a_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.safetensors")
    refuse(lambda: Checkpoint(tmp_path).tensors, UnsupportedFile, "not a regular file")
    refuse(lambda: open_gguf(tmp_path / "model.safetensors"), UnsupportedFile, "not a regular file")


@pytest.mark.parametrize("action", [open_gguf, container.read_header, Checkpoint, open_checkpoint])
def test_nothing_there(tmp_path: Path, action: Callable) -> None:
    refuse(lambda: action(tmp_path / "absent"), MissingFile, "No such file|no such folder")


def test_a_folder_where_a_file_should_be(tmp_path: Path) -> None:
    refuse(lambda: open_gguf(tmp_path), UnsupportedFile, "not a regular file")
    (tmp_path / "config.json").mkdir()
    refuse(lambda: Checkpoint(tmp_path).config, UnsupportedFile, "not a regular file")


def test_a_dangling_link(tmp_path: Path) -> None:
    (tmp_path / "config.json").symlink_to(tmp_path / "blob")
    refuse(lambda: Checkpoint(tmp_path).config, MissingFile, "is a link to .*which is not there")


def test_a_large_sparse_file_is_not_read(tmp_path: Path) -> None:
    """Gigabytes of zeros that are there, and that a header claims as its own."""
    for claim in (b.array(b.UINT32, 2**30, b""), b.array(0, 2**30, b"")):
        path = tmp_path / "sparse.gguf"
        path.write_bytes(b.gguf([b.entry("k", b.ARRAY, claim)]))
        os.truncate(path, 1 << 36)
        refuse(lambda path=path: container.read_header(path), MalformedFile, "the header is larger than")


def test_many_empty_strings_stay_packed(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(b.gguf([b.entry("k", b.ARRAY, b.array(b.STRING, 10**6, b""))]))
    os.truncate(path, path.stat().st_size + 8 * 10**6)
    tracemalloc.start()
    texts = container.read_header(path).metadata["k"].data
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(texts) == 10**6 and texts[-1] == "" and peak < 3 * 8 * 10**6
