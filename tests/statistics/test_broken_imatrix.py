"""Importance files that are broken: (bytes, error, part of the message or place)."""

from __future__ import annotations

import math
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest

from helpers import broken_files as broken
from helpers.imatrices import WEIGHT, dat, dat_entry, f32, gguf_file, keys, pair, read
from quantcli.errors import BadImportance, MalformedFile, MissingFile, QuantcliError, UnsupportedFile
from quantcli.statistics import imatrix

NAN, INF = math.nan, math.inf
SUMS_ONLY, COUNTS_ONLY = pair()


BROKEN: dict[str, tuple[Callable[[], bytes], type[QuantcliError], str]] = {
    "empty": (lambda: b"", MalformedFile, "neither a GGUF file nor"),
    "text": (lambda: b"just some text that is long enough", MalformedFile, "neither a GGUF file nor"),
    "zeros": (lambda: bytes(4096), MalformedFile, "neither a GGUF file nor"),
    "magic-only": (lambda: b"GGUF", MalformedFile, "the version"),
    "model": (lambda: broken.gguf(), BadImportance, "a model (llama)"),
    "no-kind": (lambda: broken.gguf([broken.entry("x")]), BadImportance, "no importance matrix"),
    "no-chunk-size": (lambda: broken.gguf(keys()[:3]), BadImportance, "lacks imatrix.chunk_size"),
    "datasets-number": (
        lambda: broken.gguf([*keys()[::2], broken.entry("imatrix.datasets"), keys()[3]]),
        BadImportance,
        "not a list of texts",
    ),
    "chunks-text": (
        lambda: broken.gguf(
            [*keys()[:2], broken.entry("imatrix.chunk_count", broken.STRING, broken.text("x")), keys()[3]]
        ),
        BadImportance,
        "imatrix.chunk_count is no count",
    ),
    "no-counts": (lambda: gguf_file(SUMS_ONLY), BadImportance, "in_sum2 without counts"),
    "no-sums": (lambda: gguf_file(COUNTS_ONLY), BadImportance, "counts without in_sum2"),
    "half-precision": (lambda: gguf_file(SUMS_ONLY, COUNTS_ONLY, kinds={SUMS_ONLY[0]: 1}), BadImportance, "are F16"),
    "integer-counts": (lambda: gguf_file(SUMS_ONLY, COUNTS_ONLY, kinds={COUNTS_ONLY[0]: 26}), BadImportance, "are I32"),
    "three-counts": (
        lambda: gguf_file(SUMS_ONLY, (COUNTS_ONLY[0], (1, 3), f32(1, 1, 1))),
        BadImportance,
        "3 counts do not divide 1 x 4",
    ),
    "two-counts-for-three": (
        lambda: gguf_file((SUMS_ONLY[0], (2, 3), f32(*range(6))), (COUNTS_ONLY[0], (1, 2), f32(1, 1))),
        BadImportance,
        "do not divide",
    ),
    "nan": (lambda: gguf_file(*pair(sums=(1, NAN, 1))), BadImportance, "value 1 is nan"),
    "infinite": (lambda: gguf_file(*pair(sums=(1, 1, INF))), BadImportance, "value 2 is inf"),
    "negative": (lambda: gguf_file(*pair(sums=(-1, 1))), BadImportance, "value 0 is -1"),
    "nan-count": (lambda: gguf_file(*pair(sums=(1, 1), counts=(1, NAN))), BadImportance, "count 1 is nan"),
    "negative-count": (lambda: gguf_file(*pair(counts=(-3,))), BadImportance, "count 0 is -3"),
    "huge-count": (lambda: gguf_file(*pair(counts=(1e30,))), BadImportance, "no number of tokens"),
    "overflowing-mean": (lambda: gguf_file(*pair(sums=(1e30,), counts=(1e-20,))), BadImportance, "too large"),
    "truncated-data": (lambda: gguf_file(*pair(sums=range(64)))[:-64], MalformedFile, "truncated"),
    "same-name": (lambda: gguf_file(*pair(), *pair()), MalformedFile, "two tensors"),
    "claims-tensors": (lambda: broken.gguf(keys(), counts=(1 << 40, 4)), MalformedFile, "number of tensors"),
    "claims-floats": (lambda: gguf_file((SUMS_ONLY[0], (1 << 40,), b""), COUNTS_ONLY), MalformedFile, "does not fit"),
    "claims-texts": (
        lambda: broken.gguf(
            [keys()[0], broken.entry("imatrix.datasets", broken.ARRAY, broken.array(broken.STRING, 1 << 40, b""))]
        ),
        MalformedFile,
        "imatrix.datasets",
    ),
    "dat-count": (lambda: dat(dat_entry(), count=1 << 30), MalformedFile, "neither"),
    "dat-negative-count": (lambda: dat(dat_entry(), count=-1), MalformedFile, "neither"),
    "dat-one-more": (lambda: dat(dat_entry(), tail=bytes(20), count=2), BadImportance, "entry 1 has 0 bytes"),
    "dat-name-length": (lambda: dat(dat_entry(), dat_entry(length=1 << 30)), BadImportance, "entry 1 has 1073741824"),
    "dat-name-cut": (lambda: dat(dat_entry(), dat_entry(), tail=b"")[:-30], BadImportance, "ends within"),
    "dat-values": (lambda: dat(dat_entry(number=(1 << 31) - 1)), BadImportance, "claims 2147483647 values"),
    "dat-no-values": (lambda: dat(dat_entry(number=0), dat_entry("x")), BadImportance, "claims 0 values"),
    "dat-negative-calls": (lambda: dat(dat_entry(calls=-1)), BadImportance, "called -1 times"),
    "dat-nan": (lambda: dat(dat_entry(values=(1, NAN))), BadImportance, "value 1 is nan"),
    "dat-negative": (lambda: dat(dat_entry(values=(1, 1, -2))), BadImportance, "value 2 is"),
    "dat-same-name": (lambda: dat(dat_entry(), dat_entry()), BadImportance, "two entries are called"),
    "dat-unprintable": (lambda: dat(dat_entry(), dat_entry(b"a\x00b")), BadImportance, "unprintable"),
    "dat-tail-cut": (lambda: dat(dat_entry(), tail=struct.pack("<ii", 1, 100) + b"text"), BadImportance, "ends within"),
    "dat-tail-chunks": (lambda: dat(dat_entry(), tail=struct.pack("<ii", -5, 0)), BadImportance, "-5 chunks"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files(tmp_path: Path, case: str) -> None:
    make, kind, text = BROKEN[case]
    (tmp_path / "im").write_bytes(make())
    tracemalloc.start()
    try:
        with pytest.raises(QuantcliError) as caught:
            imatrix.read(tmp_path / "im")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert type(caught.value) is kind, caught.value
    assert text in str(caught.value)
    assert caught.value.where, "an error says where"
    assert peak < 8 << 20, "nothing is allocated for what a header merely claims"


@pytest.mark.parametrize("case", ["nan", "negative-count", "no-counts", "dat-nan", "dat-negative-calls"])
def test_errors_of_content_name_the_entry(tmp_path: Path, case: str) -> None:
    with pytest.raises(BadImportance) as caught:
        read(tmp_path, BROKEN[case][0]())
    assert WEIGHT in caught.value.where


def test_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(MissingFile):
        imatrix.read(tmp_path / "nothing")
    with pytest.raises(UnsupportedFile):
        imatrix.read(tmp_path)
    with pytest.raises(UnsupportedFile):
        imatrix.read("/dev/zero")


@pytest.mark.parametrize("form", ["gguf", "dat"])
def test_any_cut_or_flipped_byte_is_read_or_a_typed_error(tmp_path: Path, form: str) -> None:
    sound = gguf_file(*pair(sums=(1, 2, 3, 4), counts=(1, 1))) if form == "gguf" else dat(dat_entry(), dat_entry("y"))
    random = numpy.random.default_rng(5)
    cases = [sound[:n] for n in range(0, len(sound), 3)]
    for position in random.integers(0, len(sound), 300):
        changed = bytearray(sound)
        changed[position] ^= 1 << random.integers(8)
        cases.append(bytes(changed))
    refused = 0
    for raw in cases:
        try:
            found = read(tmp_path, raw)
            assert all(numpy.isfinite(v).all() and (v >= 0).all() for v in found.entries.values())
        except QuantcliError:
            refused += 1
    assert refused > len(cases) // 4
