"""Snap: weights that were written on a grid come back as they were; others take the ordinary encoder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy
import pytest

from helpers import packers
from helpers.checkpoints import changed, read_tensors, write_tensors
from helpers.oracles import as_stored
from quantcli.cli.parse import convert_request
from quantcli.commands import convert, inspect
from quantcli.errors import NonFiniteWeight, UsageError
from quantcli.ggml import kernels, packing
from quantcli.ggml.tensor_types import BY_NAME, row_bytes
from quantcli.methods import snap
from quantcli.sources.gguf import open_gguf

ROWS, COLUMNS = 12, 512
TYPES = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "TQ1_0", "TQ2_0", "Q2_0", "MXFP4", "NVFP4")


def rounded(values: numpy.ndarray, dtype: str) -> numpy.ndarray:
    return values if dtype == "F32" else packers.rounded(values, dtype)


def on_grid(name: str, seed: int) -> numpy.ndarray:
    """Weights of a normal distribution as a type stores them, with scales of both signs where there is a choice."""
    rng, kind = numpy.random.default_rng(seed), BY_NAME[name]
    plain = (rng.normal(size=(ROWS, COLUMNS)) * 0.02).astype(numpy.float32)
    blocks = kernels.encode(kind.id, plain)
    if name in ("Q4_0", "Q5_0", "Q8_0", "Q2_0"):  # the first two bytes are the scale
        view = blocks.reshape(-1, kind.bytes)
        view[:, 1] ^= (rng.integers(0, 2, len(view)) << 7).astype(numpy.uint8)
    return kernels.decode(kind.id, blocks, ROWS, COLUMNS)


def snapped(name: str, values: numpy.ndarray, isa: str | None = None) -> tuple[numpy.ndarray, numpy.ndarray]:
    """What the kernels make of weights: how each block was carried over, and the decoded values."""
    kind = BY_NAME[name]
    out = numpy.zeros((len(values), row_bytes(kind, values.shape[1])), numpy.uint8)
    found = packing.snap(kind.id, numpy.ascontiguousarray(values), out, isa=isa)
    return found, kernels.decode(kind.id, out, *values.shape)


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
@pytest.mark.parametrize("name", TYPES)
def test_a_grid_comes_back(name: str, dtype: str) -> None:
    """Decoded and rounded as the weights were, they are the weights: every block of every type, of any precision."""
    values = rounded(on_grid(name, 3), dtype)
    found, decoded = snapped(name, values)
    assert found.all() and numpy.array_equal(rounded(decoded, dtype), values)
    for isa, there in kernels.instruction_sets():
        if there:
            other, same = snapped(name, values, isa)
            assert numpy.array_equal(other, found) and numpy.array_equal(same, decoded)


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
@pytest.mark.parametrize("name", TYPES)
def test_levels_finer_than_the_weights(name: str, dtype: str) -> None:
    """Far from zero bf16 is coarser than the levels of a type; and some blocks have no more bits than bf16 has."""
    rng, kind = numpy.random.default_rng(11), BY_NAME[name]
    plain = (rng.normal(size=(ROWS, COLUMNS)) * 0.004 + 0.03).astype(numpy.float32)
    blocks = kernels.encode(kind.id, plain)
    values = rounded(kernels.decode(kind.id, blocks, ROWS, COLUMNS), dtype)
    found, decoded = snapped(name, values)
    assert found.all() and numpy.array_equal(rounded(decoded, dtype), values)


@pytest.mark.parametrize("levels", [(-7, 7), (-3, 5), (0, 7), (-8, 0), (-1, 1), (2, 6)])
def test_levels_that_are_not_all_used(levels: tuple[int, int]) -> None:
    """The lattice is found where the level that encoders take the scale from does not occur."""
    rng = numpy.random.default_rng(levels[1])
    codes = rng.integers(levels[0], levels[1] + 1, (ROWS, COLUMNS))
    scales = rng.normal(size=(ROWS, COLUMNS // 32)).astype(numpy.float16).astype(numpy.float32).repeat(32, 1)
    values = packers.rounded(codes.astype(numpy.float32) * scales, "BF16")
    for name in ("Q4_0", "Q4_1", "Q5_0", "Q8_0"):
        found, decoded = snapped(name, values)
        assert found.all() and numpy.array_equal(packers.rounded(decoded, "BF16"), values), name


def test_weights_on_no_grid_are_left_to_the_encoder() -> None:
    values = packers.rounded(numpy.random.default_rng(5).normal(size=(ROWS, COLUMNS)) * 0.02, "BF16")
    for name in TYPES:
        assert not snapped(name, values)[0].any(), name


@pytest.mark.parametrize("name", ["Q4_0", "Q4_1", "MXFP4"])
def test_zeros_and_constants(name: str) -> None:
    for value in (0.0, -0.0, 0.5):
        values = numpy.full((2, 64), value, numpy.float32)
        found, decoded = snapped(name, values)
        assert found.all() and numpy.array_equal(decoded, values)


def test_weights_that_are_none() -> None:
    values = numpy.full((2, 64), 0.5, numpy.float32)
    values[1, 40] = numpy.nan
    with pytest.raises(NonFiniteWeight) as caught:
        snapped("Q4_0", values)
    assert (caught.value.row, caught.value.column) == (1, 40)


# ---- conversions


@pytest.fixture(scope="module")
def qat(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled checkpoint, its matrices on the grid of Q4_0 but one row each, rounded to bf16."""
    folder = tmp_path_factory.mktemp("qat")
    source = root / "examples" / "tiny"
    for path in source.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    tensors = read_tensors(folder)
    q4 = BY_NAME["Q4_0"]
    for name, (dtype, shape, data) in tensors.items():
        if len(shape) == 2 and "proj" in name and shape[1] % 32 == 0:
            bits = numpy.frombuffer(data, numpy.uint16).astype(numpy.uint32) << 16
            values = bits.view(numpy.float32).reshape(shape)
            grid = kernels.decode(q4.id, kernels.encode(q4.id, values), *shape)
            grid[1] = values[1]
            tensors[name] = dtype, shape, as_stored(grid, "BF16").tobytes()
    write_tensors(folder, tensors)
    return folder


def made(source: Path, output: Path, kind: str = "Q4_0", **options: object) -> convert.ConvertResult:
    return convert.run(convert_request(source=source, types=[kind], output=output, pure=True, **options))


def test_a_checkpoint_of_quantization_aware_training_loses_nothing(qat: Path, tmp_path: Path) -> None:
    result = made(qat, tmp_path / "q4.gguf")
    (output,) = result["outputs"]
    carried = {one["name"]: one for one in output["carried_over"]}
    assert len(carried) > 5
    made(qat, tmp_path / "bf16.gguf", "BF16")
    with open_gguf(tmp_path / "q4.gguf") as quantized, open_gguf(tmp_path / "bf16.gguf") as plain:
        wanted = {tensor.name: tensor for tensor in plain.tensors}
        for tensor in quantized.tensors:
            if tensor.name not in carried:
                continue
            count = carried[tensor.name]
            assert count["blocks"] == tensor.rows * tensor.columns // 32
            assert count["blocks"] - count["carried"] == tensor.columns // 32  # the row on no grid
            values = packers.rounded(tensor.reader.read_rows(0, tensor.rows), "BF16")
            same = (values == wanted[tensor.name].reader.read_rows(0, tensor.rows)).all(axis=1)
            assert same.sum() == tensor.rows - 1


def test_threads_and_slabs_change_no_byte(qat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from quantcli.encode import slabs

    made(qat, tmp_path / "a.gguf", threads=1)
    monkeypatch.setattr(slabs, "SLAB_WEIGHTS", 1 << 12)
    made(qat, tmp_path / "b.gguf", threads=3)
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


def test_never_and_always(qat: Path, root: Path, tmp_path: Path) -> None:
    never = made(qat, tmp_path / "never.gguf", snap="never")
    assert "carried_over" not in never["outputs"][0]
    plain = made(qat, tmp_path / "ggml.gguf", search="ggml")
    assert "carried_over" not in plain["outputs"][0]  # whoever asks for ggml's search wants its bytes
    always = made(qat, tmp_path / "always.gguf", snap="always", search="ggml")
    assert always["outputs"][0]["carried_over"]
    tiny = root / "examples" / "tiny"
    auto = made(tiny, tmp_path / "auto.gguf")
    assert not auto["outputs"][0]["carried_over"]  # it lies on no grid
    with pytest.raises(UsageError, match="there is no 'maybe'"):
        made(tiny, tmp_path / "x.gguf", snap="maybe")


def test_inspect_tells_the_share(qat: Path, root: Path) -> None:
    found = inspect.run(qat)
    grids = {tensor["name"]: tensor.get("grids", {}) for tensor in found["tensors"]}
    shares = [one["Q4_0"] for one in grids.values() if "Q4_0" in one]
    assert len(shares) > 5 and min(shares) > 0.4
    assert not any("grids" in tensor for tensor in inspect.run(root / "examples" / "tiny")["tensors"])


@pytest.mark.parametrize(("name", "kind"), [
    ("gptq", "Q4_0"), ("gptq", "Q8_0"), ("gptq-asymmetric", "Q4_1"), ("gptq-asymmetric", "Q8_0"), ("awq", "Q4_1"),
    ("w4a16", "Q4_0"), ("w4a16-asymmetric", "Q4_1"), ("w8a8", "Q8_0"), ("w8a8-groups", "Q8_0"), ("bitnet", "TQ2_0"),
    ("bitnet", "TQ1_0"), ("bitnet", "Q2_0"), ("mxfp4-quark", "MXFP4"),
])  # fmt: skip
def test_packed_codes_are_carried_over(name: str, kind: str) -> None:
    """Codes of packed checkpoints fit the grids that docs/sources.md names, scales up to their rounding to fp16."""
    seeds = {"bitnet": lambda: packers.bitnet(16, 256), "w8a8": lambda: packers.int8(16, 128)}
    (values,) = seeds.get(name, packers.FORMATS[name])().values.values()
    found, decoded = snapped(kind, values.astype(numpy.float32))
    assert found.all(), (found > 0).mean()
    assert numpy.abs(decoded - values).max() <= 2**-10 * numpy.abs(values).max()


def test_the_sample_is_small(root: Path) -> None:
    """Two rows of a matrix decide whether it is tried."""

    class Counting:
        rows_read = 0

        def read_rows(self, start: int, stop: int, out: numpy.ndarray | None = None) -> numpy.ndarray:
            Counting.rows_read += stop - start
            return numpy.random.default_rng(start).normal(size=(stop - start, 64)).astype(numpy.float32)

        def read_raw(self, start: int, stop: int) -> bytes:
            raise AssertionError

    matrix = snap.Matrix("x", (64, 1000), 0, 1000, 64, Counting())
    assert snap.sample(matrix, BY_NAME["Q4_0"]) == (0, 4) and Counting.rows_read == 2


def test_a_packed_checkpoint_through_the_command(tmp_path: Path) -> None:
    """A whole model whose projections are GPTQ: no other option, and the report counts what was carried over."""
    folder = Path(changed("llama-k256", tmp_path).folder)
    tensors, settings = read_tensors(folder), {}
    for name in [name for name in tensors if name.endswith("_proj.weight")]:
        _, (outputs, inputs), _ = tensors.pop(name)
        one = packers.gptq(outputs, inputs, 32, symmetric=True, seed=len(name))
        settings = one.settings
        tensors |= {key.replace(packers.BASE, name.removesuffix(".weight")): part for key, part in one.tensors.items()}
    write_tensors(folder, tensors)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": settings}))
    (output,) = made(folder, tmp_path / "x.gguf")["outputs"]
    assert output["carried_over"] and all(one["carried"] == one["blocks"] for one in output["carried_over"])
