"""The seam: prepared once per matrix, with all rows to see; what a method does not take falls back and is counted."""

from __future__ import annotations

import dataclasses
import itertools
import threading
from pathlib import Path

import numpy
import pytest

from helpers import synthetic
from quantcli.cli.parse import convert_request
from quantcli.commands import convert
from quantcli.encode import pipeline, slabs
from quantcli.encode.prepared import Prepared
from quantcli.errors import UsageError
from quantcli.ggml import kernels, tensor_types
from quantcli.methods import table
from quantcli.methods.seam import Matrix, Method, Settings, Statistics
from quantcli.output import writer
from quantcli.plan import plan

SHAPES = {"blk.0.ffn_down_exps.weight": (256, 40, 3), "blk.0.ffn_up.weight": (256, 100)}


class Recording:
    """A method that reads every matrix before its rows are encoded, and notes what it is given."""

    def __init__(self) -> None:
        self.prepared: list[tuple[str, int, str, float]] = []
        self.rows: dict[tuple[str, int, str], list[tuple[int, int]]] = {}

    def prepare(self, matrix, tensor_type, statistics, settings):
        total = float(matrix.read(0, matrix.rows).sum())
        self.prepared.append((matrix.name, matrix.index, tensor_type.name, total))
        seen = self.rows.setdefault((matrix.name, matrix.index, tensor_type.name), [])

        def encode(rows, start, out):
            assert numpy.array_equal(rows, matrix.read(start, start + len(rows)))
            seen.append((start, start + len(rows)))
            return kernels.encode(tensor_type.id, rows, out=out)

        return encode


@pytest.fixture
def tiny(root: Path) -> Path:
    return root / "examples" / "tiny"


@pytest.fixture
def recording(monkeypatch: pytest.MonkeyPatch) -> Recording:
    made = Recording()
    row = Method("recording", made.prepare, "nothing", frozenset({"Q4_K", "Q8_0"}), "weighted", "1", "for tests")
    monkeypatch.setitem(table.METHODS, "recording", row)
    return made


def write(model, types: list[str], folder: Path, method: str | None, threads: int = 2) -> list[bytes]:
    plans = [plan.make(model, synthetic.options(name)) for name in types]
    outputs = [
        [writer.OutputFile(folder / f"{i}", one.shards[0].file_bytes, force=True)] for i, one in enumerate(plans)
    ]
    pipeline.run([pipeline.Group(plans, outputs)], threads=threads, search="ggml", method=method)
    for (file,) in outputs:
        file.finish()
        file.publish()
    return [(folder / f"{i}").read_bytes() for i in range(len(types))]


def test_every_matrix_is_prepared_once_and_sees_all_rows(tmp_path: Path, recording, monkeypatch) -> None:
    monkeypatch.setattr(slabs, "SLAB_WEIGHTS", 16 * 256)
    model = synthetic.readable_model(SHAPES)
    types = ["Q4_K_S", "Q8_0", "Q4_K_S"]  # the first and the last want the same
    files = write(model, types, tmp_path, "recording", threads=3)
    assert files == write(model, types, tmp_path, None)
    matrices = [(t.name, index) for t in model.tensors for index in range(t.rows // Matrix.of(t).rows)]
    assert sorted(one[:3] for one in recording.prepared) == sorted(
        (*matrix, name) for matrix in matrices for name in ("Q4_K", "Q8_0")
    )
    for name, index, tensor_type, total in recording.prepared:
        tensor = next(t for t in model.tensors if t.name == name)
        rows = Matrix.of(tensor).rows
        assert total == float(tensor.reader.rows[index * rows : (index + 1) * rows].sum())
        spans = sorted(recording.rows[name, index, tensor_type])
        assert spans[0][0] == 0 and spans[-1][1] == rows
        assert all(left[1] == right[0] for left, right in itertools.pairwise(spans))


def test_prepared_encoders_are_dropped_and_made_by_one_thread() -> None:
    prepared, made = Prepared(), []

    def make():
        made.append(threading.get_ident())
        return lambda rows, start, out: out

    workers = [threading.Thread(target=prepared.get, args=("key", 8, make)) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(made) == len(prepared) == 1
    for _ in workers:
        prepared.done("key", 1)
    assert len(prepared) == 0


def test_the_default_is_weighted_where_there_is_importance() -> None:
    (tensor,) = synthetic.readable_model({"a.weight": (256, 4)}).tensors
    values = numpy.ones((1, 256), numpy.float32)

    class Given:
        def for_tensor(self, name, shape):
            return values

    matrix, known, unknown = Matrix.of(tensor), Statistics(Given()), Statistics()
    choice = table.Choice()
    q4_k, q8_0 = tensor_types.by_name("Q4_K"), tensor_types.by_name("Q8_0")
    assert choice.method(matrix, q4_k, known).name == "weighted"
    assert choice.method(matrix, q4_k, unknown).name == "plain"
    assert choice.method(matrix, q8_0, known).name == "plain"
    assert table.Choice("plain").method(matrix, q4_k, known).name == "plain"


def test_the_table_is_sound() -> None:
    for row in table.METHODS.values():
        assert row.purpose and row.cost
        assert row.types is None or row.types <= set(tensor_types.BY_NAME)
        followed = row
        while followed.fallback is not None:
            followed = table.METHODS[followed.fallback]
        assert followed.name == "plain" and followed.types is None and followed.needs == "nothing"


def test_an_unknown_method_is_a_usage_error(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no method 'nonsense'") as caught:
        convert.run(convert_request(source=tiny, types=("Q8_0",), output=tmp_path / "a.gguf", method="nonsense"))
    assert "plain" in caught.value.hint and not list(tmp_path.iterdir())


def test_what_a_method_does_not_take_is_counted(tiny: Path, tmp_path: Path, recording) -> None:
    request = convert_request(source=tiny, types=("Q4_K_M",), output=tmp_path / "a.gguf", method="recording")
    planned = convert.run(dataclasses.replace(request, dry_run=True))
    done = convert.run(request)
    for result in (planned, done):
        (output,) = result["outputs"]
        quantized = [t for t in output["tensors"] if tensor_types.by_name(t["type"]).quantized]
        others = [t for t in quantized if t["type"] not in ("Q4_K", "Q8_0")]
        assert output["method"] == "recording" and others
        assert sum(entry["tensors"] for entry in output["method_fallbacks"]) == len(others)
        assert all(entry["method"] == "plain" for entry in output["method_fallbacks"])
        assert any("method recording does not take" in text for text in result["warnings"])
    assert {one[2] for one in recording.prepared} == {"Q4_K"}


def test_the_method_is_told_in_the_file_only_where_it_was_named(tiny: Path, tmp_path: Path) -> None:
    files = []
    for method in (None, "plain"):
        path = tmp_path / f"{method}.gguf"
        result = convert.run(convert_request(source=tiny, types=("Q4_K_M",), output=path, method=method))
        files.append(path.read_bytes())
        assert ("method" in result["outputs"][0]) == (method is not None)
    assert b"quantcli.method" not in files[0] and b"quantcli.method" in files[1]


def test_settings_reach_the_method(tmp_path: Path) -> None:
    (tensor,) = synthetic.readable_model({"a.weight": (256, 4)}).tensors
    q4_k, matrix = tensor_types.by_name("Q4_K"), Matrix.of(tensor)
    rows, out = matrix.read(0, 4), numpy.empty((4, 144), numpy.uint8)
    for search in kernels.SEARCHES:
        encode = table.Choice(settings=Settings(search)).prepare(matrix, q4_k, Statistics())
        assert encode(rows, 0, out).tobytes() == kernels.encode(q4_k.id, rows, search=search).tobytes()
