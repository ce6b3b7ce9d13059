"""Order, shards, offsets and sizes to the byte, for golden models and for any shapes at all."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import synthetic
from helpers.synthetic import golden_model, options
from quantcli import container
from quantcli.errors import QuantcliError, UsageError
from quantcli.ggml.tensor_types import tensor_bytes
from quantcli.plan import plan, recipes
from quantcli.plan.shards import file_names

LLAMA = {"general.architecture": "llama", "llama.block_count": 4, "llama.attention.head_count": 8}


def types(made: plan.Plan) -> dict[str, str]:
    return {entry.tensor.name: entry.type.name for entry in made.entries}


def test_order_is_layer_then_name_bytes() -> None:
    names = ["blk.10.a.weight", "blk.2.b.weight", "blk.2.a.weight", "token_embd.weight", "Z.weight", "blk.2.é",
             "blk.x"]  # fmt: skip
    model = synthetic.model([(name, (32, 2), "F32") for name in names], LLAMA)
    order = [entry.tensor.name for entry in plan.make(model, options("Q8_0")).entries]
    assert order == ["Z.weight", "blk.x", "token_embd.weight", "blk.2.a.weight", "blk.2.b.weight", "blk.2.é",
                     "blk.10.a.weight"]  # fmt: skip


def write_sparse(made: plan.Plan, path: Path) -> list[Path]:
    files = file_names(path, len(made.shards))
    for file, shard in zip(files, made.shards, strict=True):
        header = shard.header()
        assert len(header) == shard.header_bytes
        with open(file, "wb") as stream:
            stream.write(header)
            stream.truncate(shard.file_bytes)
    return files


@pytest.mark.parametrize("size", [None, 1, 300_000, 10**9])
def test_headers_read_back(tmp_path: Path, size: int | None) -> None:
    model = golden_model("llama-8l-gqa4")
    made = plan.make(model, options("Q4_K_M", split_max_size=size))
    files = write_sparse(made, tmp_path / "m.gguf")
    headers = container.read_split_headers(files[0])
    read = [(t.name, t.shape, t.type_id, t.offset, t.bytes) for header in headers for t in header.tensors]
    assert read == [(e.tensor.name, e.tensor.shape, e.type.id, e.offset, e.bytes) for e in made.entries]
    assert sum(file.stat().st_size for file in files) == made.file_bytes
    assert {None: 1, 1: 75, 10**9: 1}.get(size, len(headers)) == len(headers) == len(made.shards)
    assert files[0].name == ("m.gguf" if len(files) == 1 else f"m-00001-of-{len(files):05d}.gguf")
    for number, header in enumerate(headers[1:], 1):
        assert list(header.metadata) == [container.SET_KEY, "split.no", "split.count", "split.tensors.count"]
        assert header.metadata[container.SET_KEY] == headers[0].metadata[container.SET_KEY]
        assert header.metadata["split.no"] == container.u16(number)
        assert header.metadata["split.tensors.count"] == container.i32(75)
    assert ("split.count" in headers[0].metadata) is (len(headers) > 1)


def test_shards_follow_the_converters_rule() -> None:
    """A shard takes tensors while their unpadded sum stays at or below the limit; one larger tensor has its own."""
    sizes = [40, 60, 1, 500, 99, 2]
    model = synthetic.model([(f"t{n}", (size,), "I8") for n, size in enumerate(sizes)], LLAMA)
    made = plan.make(model, options("Q8_0", split_max_size=100))
    assert [e.shard for e in made.entries] == [0, 0, 1, 2, 3, 4]
    assert [e.offset for e in made.entries] == [0, 64, 0, 0, 0, 0]
    assert [shard.data_bytes for shard in made.shards] == [128, 32, 512, 128, 32]


def test_keep_split_keeps_shards_and_their_order() -> None:
    """Also the rules' running numbers follow the shards then: llama-quantize's behaviour."""
    names = [f"blk.{n}.attn_v.weight" for n in range(8)]
    model = synthetic.model([(name, (256, 256), "F32") for name in names], {**LLAMA, "llama.block_count": 8})
    for tensor in model.tensors:
        tensor.shard = 1 if tensor.name < "blk.4" else 2
    model.shards = 3
    made = plan.make(model, options("Q4_K_S", keep_split=True))
    model.tensors.reverse()
    reverse = plan.make(model, options("Q4_K_S", keep_split=True))
    assert [e.tensor.name for e in reverse.entries] == [names[n] for n in (3, 2, 1, 0, 7, 6, 5, 4)]
    assert [len(shard.entries) for shard in made.shards] == [0, 4, 4]
    assert [n for n, t in types(made).items() if t == "Q5_K"] == names[:4]  # the first four that are met
    assert {n for n, t in types(reverse).items() if t == "Q5_K"} == set(names[:4])
    for tensor in model.tensors:
        tensor.shard = 0 if tensor.name >= "blk.4" else 1
    later = plan.make(model, options("Q4_K_S", keep_split=True))
    assert {n for n, t in types(later).items() if t == "Q5_K"} == set(names[4:])


def test_keep_split_and_a_size_exclude_each_other() -> None:
    with pytest.raises(UsageError):
        options("Q8_0", keep_split=True, split_max_size=5)


def test_too_many_shards() -> None:
    model = synthetic.model([(f"t{n}", (1,), "I8") for n in range(65_537)], LLAMA)
    with pytest.raises(UsageError, match="65537 shards"):
        plan.make(model, options("Q8_0", split_max_size=1))


def test_empty_model_has_a_header() -> None:
    made = plan.make(synthetic.model([], LLAMA), options("Q8_0"))
    assert made.file_bytes == made.shards[0].header_bytes == len(made.shards[0].header()) and made.bpw == 0


ROLES = ("token_embd", "output", "blk.0.attn_v", "blk.1.attn_k", "blk.1.ffn_down", "blk.2.ffn_up_exps", "blk.3.x")


@settings(max_examples=120, deadline=None)
@given(
    st.dictionaries(st.sampled_from(ROLES), st.tuples(
        st.one_of(st.integers(1, 600), *(st.integers(1, 9).map(lambda n, b=block: b * n) for block in (32, 256))),
        st.integers(1, 5), st.integers(1, 3))),
    st.sampled_from([name for name, row in recipes.FILE_TYPES.items() if row.selectable]),
    st.booleans(), st.booleans(), st.one_of(st.none(), st.integers(1, 20_000)),
)  # fmt: skip
def test_any_plan_is_consistent(shapes, name, pure, imatrix, size) -> None:
    model = synthetic.model([(f"{n}.weight", s, "F32") for n, s in shapes.items()], LLAMA)
    made = plan.make(model, options(name, pure=pure, imatrix=imatrix, split_max_size=size))
    broken = {problem.where for problem in made.problems}
    assert sorted(t.name for t in model.tensors) == sorted(e.tensor.name for e in made.entries)
    for shard in made.shards:
        position = 0
        for entry in shard.entries:
            assert entry.offset == position and position % 32 == 0
            position += container.padded(entry.bytes)
            if f"tensor {entry.tensor.name}" not in broken:
                assert entry.bytes == tensor_bytes(entry.type, entry.tensor.shape)
            if entry.wanted is not None:
                assert entry.tensor.columns % entry.wanted.block and entry.wanted is not entry.type
        assert shard.data_bytes == position
        assert size is None or len(shard.entries) == 1 or sum(e.bytes for e in shard.entries) <= size
        if not broken:
            assert len(shard.header()) == shard.header_bytes
    assert all(name == "Q1_0" for _ in broken)


def test_bad_names_are_errors_when_the_header_is_written() -> None:
    made = plan.make(synthetic.model([("x" * 70, (4,), "F32")], LLAMA), options("Q8_0"))
    with pytest.raises(QuantcliError, match="63"):
        made.shards[0].header()


@pytest.mark.parametrize("name", ["m.gguf", "m.GGUF", "m.Gguf", "m"])
def test_shards_are_called_after_the_output_however_it_ends(name: str) -> None:
    assert [path.name for path in file_names(Path(name), 2)] == ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]
    assert file_names(Path(name), 1) == [Path(name)]
