"""Importance matrices: llama.cpp's file read and written byte for byte, both formats, experts, merges, broken files."""

from __future__ import annotations

import hashlib
import math
import struct
from pathlib import Path
from types import SimpleNamespace

import numpy
import pytest

from helpers.imatrices import WEIGHT, dat, dat_entry, f32, gguf_file, pair, read
from quantcli.errors import BadImportance, UsageError
from quantcli.ggml import tensor_types
from quantcli.statistics import imatrix
from quantcli.statistics.imatrix import Importance

# ---- llama.cpp's own file


@pytest.fixture(scope="module")
def mid(shared: Path) -> Importance:
    return imatrix.read(shared / "golden" / "mid-imatrix.gguf")


def test_reads_what_llama_cpp_wrote(mid: Importance, shared: Path) -> None:
    gguf = pytest.importorskip("gguf")
    path = shared / "golden" / "mid-imatrix.gguf"
    stored = {t.name: t.data for t in gguf.GGUFReader(path).tensors}
    assert (mid.name, mid.datasets, mid.chunks, mid.chunk_size) == ("mid-imatrix.gguf", ["calibration.txt"], 60, 512)
    assert mid.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert len(mid.entries) == len(stored) // 2 == 42 and not mid.warnings
    for name, values in mid.entries.items():
        expected = stored[f"{name}.in_sum2"] / stored[f"{name}.counts"]
        assert values.dtype == numpy.float32 and values.flags.c_contiguous
        assert values.tobytes() == expected.astype(numpy.float32).tobytes()


def test_writes_the_same_bytes(mid: Importance, shared: Path) -> None:
    assert imatrix.to_gguf_bytes(mid) == (shared / "golden" / "mid-imatrix.gguf").read_bytes()


def test_legacy_round_trip_of_a_real_matrix(mid: Importance, tmp_path: Path) -> None:
    again = read(tmp_path, imatrix.to_dat_bytes(mid), "mid.dat")
    assert (again.datasets, again.chunks) == (mid.datasets, 60)
    for name, values in mid.entries.items():
        numpy.testing.assert_allclose(again.entries[name], values, rtol=3e-7)
    assert imatrix.to_dat_bytes(again) == imatrix.to_dat_bytes(mid)


def test_other_readers_take_our_file(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    made = imatrix.to_gguf_bytes(read(tmp_path, gguf_file(*pair(sums=range(8), counts=(2, 0)))))
    (tmp_path / "again.gguf").write_bytes(made)
    reader = gguf.GGUFReader(tmp_path / "again.gguf")
    assert [t.name for t in reader.tensors] == [WEIGHT + ".in_sum2", WEIGHT + ".counts"]
    assert reader.tensors[0].data.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert reader.fields["imatrix.chunk_size"].contents() == 512


# ---- values


def test_values_of_a_dense_weight(tmp_path: Path) -> None:
    found = read(tmp_path, gguf_file(*pair()))
    assert found.entries[WEIGHT].tolist() == [[1, 2, 3, 4]]
    assert found.for_tensor(WEIGHT, (4, 100)).tolist() == [[1, 2, 3, 4]]
    assert found.for_tensor("blk.9.attn_q.weight", (4, 100)) is None
    assert (found.datasets, found.chunks) == (["text.txt"], 3)


def test_values_per_expert_and_experts_without_tokens(tmp_path: Path) -> None:
    found = read(tmp_path, gguf_file(*pair(sums=(2, 4, 0, 0, 9, 3), counts=(2, 0, 3))))
    cut = found.for_tensor(WEIGHT, (2, 50, 3))
    assert cut.tolist() == [[1, 2], [1, 1], [3, 1]] and cut.flags.c_contiguous and cut[1].flags.c_contiguous
    assert found.warnings == [
        f"im.gguf: 1 matrices (experts) in 1 entries saw no token; all their columns count alike (first: {WEIGHT})"
    ]


def test_one_count_for_all_matrices(tmp_path: Path) -> None:
    """Dense three-dimensional weights: all sums in one row, one count."""
    found = read(tmp_path, gguf_file(*pair(sums=(2, 4, 6, 8, 10, 12), counts=(2,))))
    assert found.for_tensor(WEIGHT, (2, 5, 3)).tolist() == [[1, 2], [3, 4], [5, 6]]
    rows = [(WEIGHT + ".in_sum2", (2, 3), f32(2, 4, 6, 8, 10, 12)), (WEIGHT + ".counts", (1,), f32(2))]
    assert read(tmp_path, gguf_file(*rows)).for_tensor(WEIGHT, (2, 5, 3)).tolist() == [[1, 2], [3, 4], [5, 6]]
    rows = [(WEIGHT + ".in_sum2", (6,), f32(2, 4, 6, 8, 10, 12)), (WEIGHT + ".counts", (1, 3), f32(2, 2, 1))]
    assert read(tmp_path, gguf_file(*rows)).for_tensor(WEIGHT, (2, 5, 3)).tolist() == [[1, 2], [3, 4], [10, 12]]


def test_values_of_a_legacy_file(tmp_path: Path) -> None:
    raw = dat(dat_entry(), dat_entry("blk.0.ffn_up_exps.weight", 3, (1, 2, 3, 4, 5, 6)), dat_entry("x", 0, (5, 7)))
    found = read(tmp_path, raw, "old.dat")
    assert found.entries[WEIGHT].tolist() == [[1, 2, 3, 4]]
    experts = found.for_tensor("blk.0.ffn_up_exps.weight", (2, 9, 3))
    assert experts.tobytes() == (numpy.arange(1, 7, dtype=numpy.float32) / numpy.float32(3)).tobytes()
    assert experts.shape == (3, 2)
    assert found.entries["x"].tolist() == [[5, 7]]  # without calls: as they are
    assert (found.chunks, found.datasets, found.warnings) == (7, ["text.txt"], [])
    assert read(tmp_path, dat(dat_entry(), tail=b""), "older.dat").datasets == []
    assert "4 bytes behind" in read(tmp_path, raw + b"more", "more.dat").warnings[0]


@pytest.mark.parametrize("shape", [(5, 9), (4, 9, 2), (2, 9, 2, 2), (2, 9)])
def test_an_entry_of_another_size_is_an_error(tmp_path: Path, shape: tuple[int, ...]) -> None:
    found = read(tmp_path, gguf_file(*pair()))
    with pytest.raises(BadImportance, match="another model|needs") as caught:
        found.for_tensor(WEIGHT, shape)
    assert WEIGHT in caught.value.where


def test_experts_are_not_cut_another_way(tmp_path: Path) -> None:
    """The same number of values, other columns: slices would mean something else."""
    found = read(tmp_path, gguf_file(*pair(sums=range(12), counts=(1, 1, 1))))
    with pytest.raises(BadImportance, match="3 x 4"):
        found.for_tensor(WEIGHT, (3, 9, 4))


def test_embeddings_of_another_size_are_ignored_with_a_warning(tmp_path: Path) -> None:
    found = read(tmp_path, gguf_file(*pair("token_embd.weight")))
    assert found.for_tensor("token_embd.weight", (4, 9)) is not None and not found.warnings
    assert found.for_tensor("token_embd.weight", (5, 9)) is None
    assert found.for_tensor("token_embd.weight", (5, 9)) is None
    assert len(found.warnings) == 1 and "token_embd.weight" in found.warnings[0]


def test_tensors_that_lack_an_entry(tmp_path: Path) -> None:
    found = read(tmp_path, gguf_file(*pair()))

    def planned(name: str, kind: str, stored: str = "BF16", raw: bool = True) -> SimpleNamespace:
        tensor = SimpleNamespace(name=name, shape=(4, 9), raw=raw, stored=tensor_types.by_name(stored))
        return SimpleNamespace(tensor=tensor, type=tensor_types.by_name(kind))

    entries = [
        planned(WEIGHT, "Q4_K"),
        planned("blk.1.attn_q.weight", "Q4_K"),
        planned("blk.2.attn_q.weight", "Q8_0"),
        planned("output_norm.weight", "F32"),
        planned("blk.3.attn_q.weight", "Q4_K", "Q4_K"),
        planned("output.weight", "Q6_K"),
        planned("token_embd.weight", "Q4_K"),
    ]
    assert imatrix.missing(found, entries) == ["blk.1.attn_q.weight"]
    assert imatrix.missing(found, entries, spared=()) == ["blk.1.attn_q.weight", "output.weight", "token_embd.weight"]
    entries[0].tensor.shape = (5, 9)
    with pytest.raises(BadImportance):
        imatrix.missing(found, entries)


# ---- filters, merges, statistics


def test_filters_select_by_parts_of_names(mid: Importance) -> None:
    attention = mid.filtered(include=("attn_q", "attn_k"))
    assert len(attention.entries) == 12 and all("attn_q" in n or "attn_k" in n for n in attention.entries)
    assert len(mid.filtered(exclude=("attn_q", "attn_k")).entries) == 30
    assert mid.filtered() is mid and attention.sha256 == mid.sha256
    assert attention.sums.keys() == attention.entries.keys()
    with pytest.raises(UsageError):
        mid.filtered(("a",), ("b",))


def test_filters_say_what_matches_nothing(mid: Importance) -> None:
    nothing = mid.filtered(include=("attn_qq",))
    assert not nothing.entries and not nothing.sums
    assert any("attn_qq" in text for text in nothing.warnings)
    assert any("no entry is left" in text for text in nothing.warnings)
    assert not mid.warnings


def test_merging_adds_sums_and_counts(tmp_path: Path) -> None:
    left = read(tmp_path, gguf_file(*pair(sums=(2, 4, 6, 8), counts=(2, 1)), *pair("blk.1.a.weight")), "left.gguf")
    right = read(tmp_path, gguf_file(*pair(sums=(4, 4, 1, 1), counts=(4,)), *pair("blk.0.b.weight")), "right.gguf")
    both = imatrix.merge([left, right])
    assert list(both.sums) == [WEIGHT, "blk.0.b.weight", "blk.1.a.weight"]
    assert both.sums[WEIGHT].tolist() == [[6, 8], [7, 9]] and both.counts[WEIGHT].tolist() == [6, 5]
    assert both.entries[WEIGHT].tolist() == (numpy.float32([[6, 8], [7, 9]]) / numpy.float32([[6], [5]])).tolist()
    assert (both.chunks, both.datasets, both.chunk_size) == (6, ["text.txt"], 512)
    assert read(tmp_path, imatrix.to_gguf_bytes(both)).entries[WEIGHT].tobytes() == both.entries[WEIGHT].tobytes()


def test_merging_weighs_a_legacy_file_by_its_chunks(tmp_path: Path) -> None:
    """One chunk of 512 tokens in each format: equal weight."""
    new = read(tmp_path, gguf_file(*pair(sums=(512, 1024), counts=(512,))))
    old = read(tmp_path, dat(dat_entry(calls=1, values=(3, 4))), "old.dat")
    assert imatrix.merge([new, old]).entries[WEIGHT].tolist() == [[2, 3]]


def test_a_merge_fills_experts_that_one_part_never_saw(tmp_path: Path) -> None:
    parts = [
        read(tmp_path, gguf_file(*pair(sums=sums, counts=counts)))
        for sums, counts in (((2, 4, 0, 0), (2, 0)), ((0, 0, 6, 8), (0, 2)))
    ]
    both = imatrix.merge(parts)
    assert both.entries[WEIGHT].tolist() == [[1, 2], [3, 4]] and not both.warnings


def test_merging_different_models_is_an_error(tmp_path: Path) -> None:
    left, right = (read(tmp_path, gguf_file(*pair(sums=range(n)))) for n in (4, 5))
    with pytest.raises(BadImportance, match="another part") as caught:
        imatrix.merge([left, right])
    assert WEIGHT in caught.value.where
    with pytest.raises(UsageError):
        imatrix.merge([])


def test_statistics_of_known_values(tmp_path: Path) -> None:
    rows = [*pair(sums=(1, 1, 1, 5)), *pair("blk.1.attn_q.weight", (0, 0, 0, 8)), *pair("blk.1.x.weight", (0, 0, 0, 0))]
    first, second, empty = imatrix.statistics(read(tmp_path, gguf_file(*rows)))
    assert (first["name"], first["matrices"], first["columns"], first["tokens"]) == (WEIGHT, 1, 4, 2)
    assert (first["sum"], first["min"], first["max"], first["mean"]) == (4, 0.5, 2.5, 1)
    assert first["deviation"] == pytest.approx(math.sqrt(0.75)) and first["active"] == 1 and first["outliers"] == 0.25
    entropy = -(3 * 0.125 * math.log2(0.125) + 0.625 * math.log2(0.625))
    assert first["entropy"] == pytest.approx(entropy) and first["evenness"] == pytest.approx(entropy / 2)
    assert first["cosine"] is None and second["cosine"] == pytest.approx(5 / math.sqrt(28))
    assert (second["entropy"], second["active"]) == (0, 0.25)
    assert (empty["entropy"], empty["active"], empty["outliers"], empty["cosine"]) == (0, 0, 0, None)


def test_legacy_bytes_by_hand(tmp_path: Path) -> None:
    """1,000 tokens are two calls; experts without tokens store ones times calls; entries without any are left out."""
    rows = [*pair(sums=(1000, 2000, 0, 0), counts=(1000, 0)), *pair("blk.1.a.weight", (0, 0), (0,))]
    expected = dat(dat_entry(calls=2, values=(2, 4, 2, 2)), tail=struct.pack("<ii", 3, 8) + b"text.txt")
    assert imatrix.to_dat_bytes(read(tmp_path, gguf_file(*rows))) == expected


def test_names_too_long_for_gguf_are_an_error(tmp_path: Path) -> None:
    found = read(tmp_path, dat(dat_entry("x" * 56)), "long.dat")
    with pytest.raises(BadImportance, match="63 bytes") as caught:
        imatrix.to_gguf_bytes(found)
    assert caught.value.where == "x" * 56
    assert len(imatrix.to_gguf_bytes(read(tmp_path, dat(dat_entry("x" * 55)), "fits.dat"))) > 0
