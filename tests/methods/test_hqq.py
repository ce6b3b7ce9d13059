"""HQQ: a lower sum of |error|^p than the plain search, never a higher one in any block, the same bytes however cut."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy
import pytest

from helpers import scalar_blocks, synthetic
from quantcli.cli.parse import convert_request
from quantcli.commands import convert
from quantcli.encode import slabs
from quantcli.errors import NonFiniteWeight, ScaleOverflow
from quantcli.ggml import kernels, tensor_types
from quantcli.methods import hqq, table
from quantcli.methods.seam import Blocks, Matrix, Rows, Statistics

TYPES = sorted(hqq.TYPES)


def weights(rows: int = 24, columns: int = 512) -> Rows:
    """Heavy tails, scales that differ, a row of zeros, a constant one: float32 [rows, columns]."""
    generator = numpy.random.default_rng(5)
    values = generator.standard_t(4, (rows, columns)) * numpy.exp(generator.standard_normal((rows, 1)))
    values[0], values[1] = 0, 0.25
    values[2, ::2] = 0
    return values.astype(numpy.float32) * numpy.float32(0.02)


def encoded(method: str, name: str, rows: Rows) -> Blocks:
    tensor_type = tensor_types.by_name(name)
    (tensor,) = synthetic.readable_model({"a.weight": (rows.shape[1], len(rows))}).tensors
    out = numpy.empty((len(rows), tensor_types.row_bytes(tensor_type, rows.shape[1])), numpy.uint8)
    return table.Choice(method).prepare(Matrix.of(tensor), tensor_type, Statistics())(rows, 0, out)


def block_sums(name: str, rows: Rows, blocks: Blocks, power: float) -> numpy.ndarray:
    """Sum of |error|^power of every block, in float64."""
    tensor_type = tensor_types.by_name(name)
    errors = numpy.abs(kernels.decode(tensor_type.id, blocks, *rows.shape).astype(numpy.float64) - rows)
    return (errors**power).reshape(-1, tensor_type.block).sum(axis=1)


@pytest.mark.parametrize("name", TYPES)
def test_no_block_is_worse_and_the_sum_is_lower(name: str) -> None:
    rows = weights()
    plain, found = (block_sums(name, rows, encoded(method, name, rows), 0.75) for method in ("plain", "hqq"))
    assert (found <= plain * (1 + 1e-6)).all()
    assert found.sum() < 0.9995 * plain.sum()
    assert (found < plain).mean() > 0.1


def test_it_is_no_search_for_small_squares() -> None:
    """The other objective is a trade: what the page of the method measures."""
    rows = weights()
    plain, found = (block_sums("Q4_0", rows, encoded(method, "Q4_0", rows), 2).sum() for method in ("plain", "hqq"))
    assert found > plain


@pytest.mark.parametrize("name", TYPES)
def test_cuts_into_slabs_and_tiles_do_not_change_a_byte(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = weights()
    whole = encoded("hqq", name, rows)
    assert numpy.array_equal(numpy.concatenate([encoded("hqq", name, rows[i : i + 5]) for i in range(0, 24, 5)]), whole)
    monkeypatch.setattr(hqq, "TILE", 512)
    assert numpy.array_equal(encoded("hqq", name, rows), whole)


def test_threads_and_slabs_do_not_change_a_byte(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = set()
    for threads, weights_of_slab in ((1, 1 << 20), (3, 5000), (2, 700)):
        monkeypatch.setattr(slabs, "SLAB_WEIGHTS", weights_of_slab)
        path = tmp_path / f"{threads}.gguf"
        request = convert_request(
            source=root / "examples" / "tiny", types=("Q4_K_M",), output=path, method="hqq", threads=threads
        )
        result = convert.run(request)
        found.add(result["outputs"][0]["sha256"])
    assert len(found) == 1


#: sha256 of all types in turn: float32 operations that IEEE 754 defines to the bit, so the same on every machine
DIGEST = "cfcaf2d8aea9a9278c49d9965fc10ddf7e5fca3e10bb3665ac23eddaff535ca2"


def test_the_bytes_are_these() -> None:
    digest = hashlib.sha256()
    generator = numpy.random.Generator(numpy.random.PCG64(7))
    rows = generator.integers(-(2**20), 2**20, (16, 512)).astype(numpy.float32) / numpy.float32(2**22)
    rows = rows * rows * rows
    for name in TYPES:
        digest.update(encoded("hqq", name, rows).tobytes())
    assert digest.hexdigest() == DIGEST


@pytest.mark.parametrize("isa", [name for name, supported in kernels.instruction_sets() if supported])
def test_every_instruction_set_gives_the_same_bytes(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = weights(8)
    wanted = [encoded("hqq", name, rows).tobytes() for name in TYPES]
    monkeypatch.setenv(kernels.ENVIRONMENT, isa)
    assert [encoded("hqq", name, rows).tobytes() for name in TYPES] == wanted


def test_bad_weights_are_found_as_by_the_search() -> None:
    rows = weights()
    rows[7, 300] = numpy.nan
    with pytest.raises(NonFiniteWeight) as caught:
        encoded("hqq", "Q4_K", rows)
    assert (caught.value.row, caught.value.column) == (7, 300)
    rows[7, 300] = 1e30
    with pytest.raises(ScaleOverflow) as overflow:
        encoded("hqq", "Q4_0", rows)
    assert overflow.value.row == 7


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("size", [1e-7, 1e-30, 1e4])
def test_very_small_and_very_large_weights(name: str, size: float) -> None:
    """Scales at both ends of half precision: no failure that the plain search does not have, and nothing gets worse."""
    rows = weights(8) * numpy.float32(size / 0.02)
    try:
        plain = encoded("plain", name, rows)
    except ScaleOverflow:
        return
    found = encoded("hqq", name, rows)
    assert (block_sums(name, rows, found, 0.75) <= block_sums(name, rows, plain, 0.75) * (1 + 1e-5)).all()


def test_what_it_does_not_take_is_encoded_by_the_search_and_counted(root: Path, tmp_path: Path) -> None:
    files = []
    for method in ("hqq", None):
        files.append(tmp_path / f"{method}.gguf")
        request = convert_request(
            source=root / "examples" / "tiny",
            types=("IQ4_NL",),
            output=files[-1],
            method=method,
            output_tensor_type="IQ4_NL",
            token_embedding_type="IQ4_NL",
        )
        (output,) = convert.run(request)["outputs"]
        if method:
            count = sum(t["type"] == "IQ4_NL" for t in output["tensors"])
            assert output["method_fallbacks"] == [{"type": "IQ4_NL", "method": "plain", "tensors": count}]
    sizes = [path.stat().st_size for path in files]
    data = min(sizes) // 2  # the headers differ by the name of the method
    assert files[0].read_bytes()[-data:] == files[1].read_bytes()[-data:]


@pytest.mark.parametrize("name", TYPES)
def test_parameters_and_codes_are_those_of_the_blocks_in_numpy(name: str) -> None:
    """What HQQ asks of the kernels, against an independent writing."""
    rows, tensor_type = weights(), tensor_types.by_name(name)
    blocks = encoded("plain", name, rows)
    scale, minimum = kernels.parameters(tensor_type.id, blocks, *rows.shape)
    wanted = scalar_blocks.parameters(name, blocks)
    assert numpy.array_equal(scale, wanted[0]) and numpy.array_equal(minimum, wanted[1])
    found = kernels.set_parameters(tensor_type.id, scale * numpy.float32(0.9), minimum)
    wanted = scalar_blocks.set_parameters(name, scale * numpy.float32(0.9), minimum, rows.shape[1])
    for one, other in zip(scalar_blocks.parameters(name, found), scalar_blocks.parameters(name, wanted), strict=True):
        assert numpy.array_equal(one, other)
    ours, theirs = (
        kernels.decode(tensor_type.id, one, *rows.shape).astype(numpy.float64) - rows
        for one in (kernels.assign(tensor_type.id, rows, found.copy()), scalar_blocks.assign(name, rows, wanted))
    )
    assert numpy.allclose(numpy.abs(ours), numpy.abs(theirs), rtol=1e-4, atol=1e-7 * float(numpy.abs(rows).max()))
