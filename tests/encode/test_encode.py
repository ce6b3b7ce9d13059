"""Slabs: cut right, in order, bounded; same bytes for any thread count; failures name tensor and row."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy
import pytest

from helpers import synthetic
from quantcli.encode import ahead, pipeline, sinks, slabs
from quantcli.errors import NonFiniteWeight, OutputFailed, ScaleOverflow
from quantcli.ggml import kernels, tensor_types
from quantcli.methods import plain
from quantcli.output import writer
from quantcli.plan import plan
from quantcli.statistics.imatrix import Importance


def write(model, types: list[str], folder: Path, *, threads: int = 2, **options) -> list[bytes]:
    """The bytes of one output per type, through the whole machinery."""
    plans = [plan.make(model, synthetic.options(name, **options)) for name in types]
    outputs = [
        [writer.OutputFile(folder / f"{i}", one.shards[0].file_bytes, force=True)] for i, one in enumerate(plans)
    ]
    try:
        pipeline.run([pipeline.Group(plans, outputs)], threads=threads, search=None)
        for made in outputs:
            made[0].finish()
            made[0].publish()
    finally:
        for made in outputs:
            made[0].discard()
    return [(folder / f"{i}").read_bytes() for i in range(len(types))]


def test_slabs_cover_every_row_once_and_never_straddle_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slabs, "SLAB_WEIGHTS", 5000)
    shapes = {"a": (256, 100), "experts": (256, 30, 7), "norm": (64,), "wide": (100_000, 40)}
    model = synthetic.readable_model(shapes)
    for tensor in model.tensors:
        found = [s for s in slabs.slabs(model.tensors) if s.tensor is tensor]
        assert [s.start for s in found] == [0, *(s.stop for s in found[:-1])] and found[-1].stop == tensor.rows
        assert [s.last for s in found] == [False] * (len(found) - 1) + [True]
        matrix_rows = 30 if tensor.name == "experts" else tensor.rows
        assert all((s.stop - s.start) % slabs.SLAB_ROWS == 0 or s.stop % matrix_rows == 0 for s in found)
        if tensor.name == "experts":
            assert all(s.start // 30 == (s.stop - 1) // 30 == s.matrix for s in found)
        if tensor.name == "wide":
            assert all(s.stop - s.start <= slabs.SLAB_ROWS for s in found)


def test_results_come_in_order_with_a_bounded_number_in_flight() -> None:
    running, most, taken = 0, 0, []
    lock = threading.Lock()

    def work(item):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.001 * (item % 3))
        return item

    def take(item, result):
        nonlocal running
        assert item == result
        with lock:
            running -= 1
        taken.append(item)

    pipeline.in_order(iter(range(100)), work, take, threads=3)
    assert taken == list(range(100)) and most <= 3 + pipeline.AHEAD


def test_what_is_far_away_is_asked_for_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """``count`` slabs are being read, and ``further`` ones behind them are on their way; all come once, in order."""
    events: list[tuple[str, int]] = []

    class Rows(synthetic.NoReader):
        def soon(self, start: int, stop: int) -> None:
            events.append(("soon", start))

    monkeypatch.setattr(slabs, "SLAB_WEIGHTS", 16 * 256)
    model = synthetic.readable_model({"a": (256, 40 * 16)})
    model.tensors[0].reader = Rows()
    every = list(slabs.slabs(model.tensors))
    assert len(every) == 40
    made: ahead.Ahead[int] = ahead.Ahead(lambda slab: events.append(("read", slab.start)) or slab.start, bool, 3, 7)
    given = []
    for slab in made.through(iter(every)):
        given.append(made.take(slab))
        asked = [start for what, start in events if what == "soon"]
        assert asked == [one.start for one in every[: len(given) + 3 + 7]]
    made.stop()
    assert given == [slab.start for slab in every]
    assert sorted(start for what, start in events if what == "read") == given


def test_a_failure_ends_the_run_promptly() -> None:
    started = []

    def work(item):
        started.append(item)
        if item == 5:
            raise ValueError("five")
        return item

    with pytest.raises(ValueError, match="five"):
        pipeline.in_order(iter(range(10_000)), work, lambda *_: None, threads=2)
    assert len(started) < 20


def test_threads_slabs_and_several_outputs_do_not_change_a_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = synthetic.readable_model()
    types = ["Q4_K_M", "Q8_0", "F32", "Q4_0", "BF16"]
    wanted = [write(model, [name], tmp_path)[0] for name in types]
    for threads, weights in ((1, 1 << 20), (2, 7777), (3, 4096), (7, 300)):
        monkeypatch.setattr(slabs, "SLAB_WEIGHTS", weights)
        assert write(model, types, tmp_path, threads=threads) == wanted, (threads, weights)


def test_several_models_go_through_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups keep their own orders and types; every file is the one that a run of its own writes; progress sums."""
    monkeypatch.setattr(slabs, "SLAB_WEIGHTS", 4096)
    models = [synthetic.readable_model(), synthetic.readable_model({"v.b.weight": (64, 40), "v.a.weight": (256, 9)})]
    types = [["Q4_K_M", "Q8_0"], ["F16"]]
    alone = [write(model, names, tmp_path) for model, names in zip(models, types, strict=True)]
    groups, seen = [], []
    for number, (model, names) in enumerate(zip(models, types, strict=True)):
        plans = [plan.make(model, synthetic.options(name)) for name in names]
        files = [
            [writer.OutputFile(tmp_path / f"{number}-{i}", one.shards[0].file_bytes)] for i, one in enumerate(plans)
        ]
        groups.append(pipeline.Group(plans, files))
    encoded, _ = pipeline.run(groups, threads=3, search=None, progress=lambda *counts: seen.append(counts))
    for number, group in enumerate(groups):
        for i, (file,) in enumerate(group.outputs):
            file.finish()
            file.publish()
            assert (tmp_path / f"{number}-{i}").read_bytes() == alone[number][i]
    assert encoded == sum(sum(one.weights for one in group.plans) for group in groups)
    stored = [tensor for group in groups for tensor in group.order.tensors]
    assert seen == sorted(seen)
    assert seen[-1] == (sum(tensor_types.tensor_bytes(t.stored, t.shape) for t in stored), encoded)


def test_tensors_hold_what_the_kernel_gives(tmp_path: Path) -> None:
    model = synthetic.readable_model()
    made = plan.make(model, synthetic.options("Q5_K_M"))
    (data,) = write(model, ["Q5_K_M"], tmp_path)
    for entry in made.entries:
        start = made.shards[0].header_bytes + entry.offset
        wanted = kernels.encode(entry.type.id, entry.tensor.reader.rows, search=plain.search_for(entry.type, None))
        assert data[start : start + entry.bytes] == wanted.tobytes(), entry.tensor.name


def importance_of(entries: dict[str, numpy.ndarray]) -> Importance:
    """An importance matrix with these values [matrices, columns]."""

    class Given:
        name, datasets, chunks, sha256, warnings = "im.gguf", ["text"], 3, "00" * 32, []

        def __init__(self) -> None:
            self.entries = entries

        def for_tensor(self, name, shape):
            return entries.get(name)

    return Given()


def test_every_expert_gets_its_own_importance(tmp_path: Path) -> None:
    shapes = {"blk.0.ffn_down_exps.weight": (256, 32, 3)}
    model = synthetic.readable_model(shapes)
    generator = numpy.random.default_rng(1)
    values = numpy.exp(generator.standard_normal((3, 256))).astype(numpy.float32)
    given = importance_of({"blk.0.ffn_down_exps.weight": values})
    (data,) = write(model, ["Q4_K_S"], tmp_path, importance=given)
    made = plan.make(model, synthetic.options("Q4_K_S", importance=given))
    (entry,) = made.entries
    rows = entry.tensor.reader.rows
    search = plain.search_for(entry.type, None)
    wanted = b"".join(
        kernels.encode(entry.type.id, rows[32 * e : 32 * e + 32], values[e], search=search).tobytes() for e in range(3)
    )
    assert data[made.shards[0].header_bytes :][: entry.bytes] == wanted


def test_a_slow_disk_holds_the_encoders_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits is bounded, for several outputs too, and a failing write ends the run with its own error."""
    monkeypatch.setattr(slabs, "SLAB_WEIGHTS", 4096)
    model = synthetic.readable_model()
    plans = [plan.make(model, synthetic.options(name)) for name in ("Q8_0", "Q4_0")]
    encoded, written = [], []
    original = pipeline.Encoder.encode
    monkeypatch.setattr(pipeline.Encoder, "encode", lambda self, slab: (encoded.append(slab), original(self, slab))[1])

    class Slow:
        path, written = Path("slow"), 0

        def mark(self) -> None:
            """Nothing is resumed here."""

        def append(self, data) -> None:
            time.sleep(0.0005)
            written.append(len(encoded))
            Slow.written += memoryview(data).nbytes
            if len(written) == 60:
                raise OutputFailed("full")

    monkeypatch.setattr(sinks.Sink, "_write", lambda self, slab, data: self.files[0].append(data))
    with pytest.raises(OutputFailed, match="full"):
        pipeline.run([pipeline.Group(plans, [[Slow()], [Slow()]])], threads=2, search=None)
    most = 2 + pipeline.AHEAD + sinks.UNWRITTEN + 2
    assert max(count - index // 2 for index, count in enumerate(written)) <= most and len(encoded) < 60


@pytest.mark.parametrize(
    "value, error, kind",
    [
        (numpy.nan, NonFiniteWeight, "Q4_K_M"),
        (numpy.inf, NonFiniteWeight, "F32"),
        (1e30, ScaleOverflow, "Q8_0"),
        (7e4, ScaleOverflow, "F16"),
    ],
)
def test_bad_weights_name_tensor_and_row(tmp_path: Path, value: float, error, kind: str) -> None:
    model = synthetic.readable_model()
    tensor = next(t for t in model.tensors if t.name == "blk.1.ffn_up.weight")
    tensor.reader.rows[123, 45] = value
    with pytest.raises(error) as caught:
        write(model, [kind], tmp_path)
    assert "blk.1.ffn_up.weight, row 123" in str(caught.value) and caught.value.hint
    assert not list(tmp_path.iterdir())


def test_a_type_without_that_search_uses_ggmls() -> None:
    assert plain.search_for(tensor_types.by_name("Q8_0"), "ggml") == "ggml"
    for row in tensor_types.BY_NAME.values():
        if kernels.can_encode(row.id):
            assert kernels.can_encode(row.id, plain.search_for(row, None))
