"""Work in parts: on this machine and on a real Dask cluster, of which a worker is killed, to the same bytes."""

from __future__ import annotations

import os
import pickle
import sys
import time
from collections.abc import Iterator
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from helpers.clusters import Cluster, cluster
from quantcli.cli.parse import convert_request
from quantcli.commands import compare, convert, fleet, hashing, imatrix, perplexity, writing
from quantcli.commands.job import Job
from quantcli.engines import dask, in_order, open_engine, tasks
from quantcli.errors import EngineFailed, Interrupted, MissingPackage, OutputExists, QuantcliError, UsageError
from quantcli.plan import plan
from quantcli.report.terminal import Reporter
from quantcli.runner import text
from quantcli.runner.session import RunOptions, open_session

LENGTH = 64
FLOAT = RunOptions(activations="float", length=LENGTH, threads=1)


@pytest.fixture(scope="module")
def two() -> Iterator[Cluster]:
    """Two workers."""
    with cluster(2) as made:
        yield made


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "BATCH", 2 * LENGTH)


class Told(Reporter):
    """A reporter that calls ``act`` with every step that is told."""

    def __init__(self, act: object) -> None:
        super().__init__(quiet=True, as_json=True)
        self.act, self.steps_told = act, []

    def result(self, value: object) -> None:
        """Nobody reads it."""

    def progress(self, label: str, total_bytes: int, *rest: object):
        return nullcontext(lambda done, *rest: self.act(done))

    def steps(self, label: str, total: int):
        def advance(done: int, known: str = "") -> None:
            self.steps_told.append(done)
            self.act(done)

        return nullcontext(advance)


def nothing(done: int) -> None:
    pass


def collected(root: Path, prose: Path, output: Path, reporter: Reporter | None = None, **options: object) -> dict:
    request = {"model": root / "examples" / "tiny", "text": prose, "length": LENGTH, "chunks": 11, "options": FLOAT}
    return imatrix.run(imatrix.ImatrixRequest(output=output, **request | options), reporter or Told(nothing))


@pytest.mark.parametrize("engine", ["local", "local://2"])
def test_this_machine_in_parts_gives_the_same_bytes(root: Path, prose: Path, tmp_path: Path, engine: str) -> None:
    collected(root, prose, tmp_path / "whole.gguf")
    told = Told(nothing)
    collected(root, prose, tmp_path / "parts.gguf", told, engine=engine)
    assert (tmp_path / "parts.gguf").read_bytes() == (tmp_path / "whole.gguf").read_bytes()
    assert told.steps_told == [2, 4, 6, 8, 10, 11]


def test_a_cluster_gives_the_same_figures(two: Cluster, tiny_files: dict[str, Path], prose: Path) -> None:
    options = RunOptions(length=LENGTH, threads=1)
    common = {"length": LENGTH, "chunks": 7, "options": options}
    found = []
    for engine in (None, two.url):
        told = Told(nothing)
        request = perplexity.PerplexityRequest(model=tiny_files["Q4_K_M"], text=prose, engine=engine, **common)
        result = perplexity.run(request, told)
        assert told.steps_told == [2, 4, 6, 7]
        compared = compare.CompareRequest(
            reference=tiny_files["BF16"], models=[tiny_files["Q8_0"], tiny_files["Q2_K"]], texts=[prose],
            engine=engine, **common,
        )  # fmt: skip
        found.append(({k: v for k, v in result.items() if "second" not in k}, compare.run(compared, Told(nothing))))
    assert found[0] == found[1]


def test_a_killed_worker_is_replaced_by_the_other(two: Cluster, root: Path, prose: Path, tmp_path: Path) -> None:
    collected(root, prose, tmp_path / "whole.gguf")

    def kill_one(done: int) -> None:
        if two.workers[0].poll() is None:
            two.kill(two.workers[0])

    told = Told(kill_one)
    collected(root, prose, tmp_path / "parts.gguf", told, engine=two.url)
    assert two.workers[0].poll() is not None and two.workers[1].poll() is None
    assert (tmp_path / "parts.gguf").read_bytes() == (tmp_path / "whole.gguf").read_bytes()
    assert told.steps_told == [2, 4, 6, 8, 10, 11]


def converted(root: Path, output: Path, engine: str | None, told: Told | None = None, **options: object) -> dict:
    request = {"types": ("Q4_K_M", "Q8_0"), "split_max_size": "500K", "threads": 1, **options}
    made = convert_request(source=root / "examples" / "tiny", output=f"{output}/", **request)
    return fleet.run(made, engine, told or Told(nothing))


def bytes_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("killed", [False, True])
def test_a_cluster_converts_to_the_same_bytes(two: Cluster, root: Path, tmp_path: Path, killed: bool) -> None:
    """Also where a worker is killed when the first part is complete."""
    if two.workers[0].poll() is not None:
        two.workers[0] = two.add()
        two.wait_for(2)

    def act(done: int) -> None:
        if killed and two.workers[0].poll() is None:
            two.kill(two.workers[0])

    sums = tmp_path / "SUMS", tmp_path / "SUMS-parts"
    whole = converted(root, tmp_path / "whole", None, checksums=sums[0])
    parts = converted(root, tmp_path / "parts", two.url, Told(act), checksums=sums[1])
    assert bytes_in(tmp_path / "parts") == bytes_in(tmp_path / "whole") and len(parts["outputs"][0]["shards"]) > 3
    assert two.workers[0].poll() is None or killed
    for one, other in zip(whole["outputs"], parts["outputs"], strict=True):
        for here, there in zip(one["shards"], other["shards"], strict=True):
            assert (here["bytes"], here["sha256"]) == (there["bytes"], there["sha256"])
    assert sums[0].read_text().replace("whole/", "") == sums[1].read_text().replace("parts/", "")


def test_a_worker_opens_a_model_once_for_a_run(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And again for the next run, whose files may be others; nobody but the maker of the first shard hashes them. The
    model is planned by the client, by the worker, and by the worker again with the vocabulary and the hashes that the
    first shard tells."""
    from quantcli.sources import digests

    converted(root, tmp_path / "whole", None)
    opened: list[object] = []
    hashed: list[object] = []
    planned: list[object] = []
    original, sha256, make = convert.open_sources, digests.sha256, plan.make
    monkeypatch.setattr(plan, "make", lambda *given: planned.append(given) or make(*given))
    monkeypatch.setattr(convert, "open_sources", lambda request: opened.append(request) or original(request))
    monkeypatch.setattr(digests, "sha256", lambda paths, *rest: hashed.append(paths) or sha256(paths, *rest))
    for number in (1, 2):
        made = converted(root, tmp_path / f"out-{number}", "local")
        assert len(made["outputs"][0]["shards"]) > 3
        assert (len(opened), len(hashed)) == (2 * number, number)  # the client opens it, too
        assert len(planned) == 4 * 2 * number  # two types
        assert bytes_in(tmp_path / f"out-{number}") == bytes_in(tmp_path / "whole")


def test_one_worker_hashes_the_source(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The headers of all types tell the hash: their first shards are one part, whoever has made others before."""
    hashers: list[str] = []
    original = writing.execute

    def execute(job: Job, *given: object, **named: object) -> object:
        hashers.extend([str(job.request.part)] * bool(hashing.unknown(job)))
        return original(job, *given, **named)

    monkeypatch.setattr(convert, "execute", execute)
    monkeypatch.setattr(fleet, "_keep", lambda run, opened: opened.close())  # every part in a process of its own
    converted(root, tmp_path / "parts", "local")
    assert len(hashers) == 1


def test_what_cannot_be_converted_in_parts(root: Path, tmp_path: Path) -> None:
    for words, options in {
        "a part is made of whole shards": {"split_max_size": None},
        "--part is one part": {"part": "1/2"},
        "parts of an engine are not resumed": {"resume": True},
        "needs a finished folder of statistics": {"quality": "good"},
        "there is no engine": {"types": ("Q8_0",)},
    }.items():
        with pytest.raises(UsageError, match=words) as found:
            converted(root, tmp_path / "out", "spark://x:1", **options)
        assert found.value.hint
    converted(root, tmp_path / "out", "local", types=("Q8_0",))
    with pytest.raises(OutputExists):
        converted(root, tmp_path / "out", "local", types=("Q8_0",))
    with pytest.raises(EngineFailed, match="a worker has quantcli .*, this is 0.0.1"):
        fleet.make(convert_request(source=root / "examples" / "tiny", types=("Q8_0",)), "0.0.1")

    def stop(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="interrupted; 1 of [0-9]+ files are complete"):
        converted(root, tmp_path / "cut", "local", Told(stop), types=("Q8_0",))


def test_types_are_themselves_again_in_another_process() -> None:
    request = convert_request(source=Path("m"), types=("Q4_K_M",), tensor_types=("attn_v=q8_0",))
    other = pickle.loads(pickle.dumps(request))
    assert other == request and other.overrides[0].type is request.overrides[0].type


def test_an_interrupt_keeps_what_is_complete_and_leaves_nothing_running(
    two: Cluster, root: Path, prose: Path, tmp_path: Path
) -> None:
    from distributed import Client

    def stop(done: int) -> None:
        raise KeyboardInterrupt

    result = collected(root, prose, tmp_path / "part.gguf", Told(stop), engine=two.url)
    assert result["interrupted"] and result["chunks"] == 2
    with Client(two.url.replace("dask://", "tcp://"), set_as_default=False) as client:
        start = time.monotonic()
        while tasks_left := client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)):
            assert time.monotonic() - start < 60, tasks_left
            time.sleep(0.1)
    collected(root, prose, tmp_path / "part.gguf", resume=True, engine=two.url)
    collected(root, prose, tmp_path / "whole.gguf")
    assert (tmp_path / "part.gguf").read_bytes() == (tmp_path / "whole.gguf").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["part.gguf", "whole.gguf"]


def test_errors_of_workers_arrive(two: Cluster, root: Path, prose: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask, "LOOK_SECONDS", 0.2)
    with open_session(root / "examples" / "tiny", FLOAT) as session:
        model = tasks.ModelAt.of(session)
        chunks = text.chunks_of(session.tokenizer, prose, LENGTH, chunks=2)
    with closing(open_engine(two.url)) as engine:
        with pytest.raises(EngineFailed, match="tiny: is another model on a worker") as found:
            list(engine.results(tasks.log_likelihoods, [(replace(model, fingerprint="0"), chunks)], print))
        assert "same files under this path" in found.value.hint
        with pytest.raises(EngineFailed, match="cannot do its part .ValueError: invalid literal") as failed:
            list(engine.results(int, [("theirs",)], print))
        assert "needs quantcli" in failed.value.hint
        said: list[str] = []
        monkeypatch.setattr(engine, "_workers", lambda: 0)
        monkeypatch.setattr(dask, "ALONE_SECONDS", 0.5)
        with pytest.raises(EngineFailed, match="no worker is left"):
            list(engine.results(time.sleep, [(3600,)], said.append))
        assert said and "waiting for one" in said[0]
    monkeypatch.undo()
    monkeypatch.setattr(dask.Engine, "_workers", lambda self: 0)
    with pytest.raises(EngineFailed, match="the scheduler has no workers") as alone:
        open_engine(two.url)
    assert "dask worker 127.0.0.1:" in alone.value.hint


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        ("spark://a:1", "there is no engine 'spark://a:1'"),
        ("dask", "no address of a scheduler"),
        ("dask://host", "no address of a scheduler"),
        ("dask://host:x", "no address of a scheduler"),
        ("local://0", "no number of processes"),
        ("local://many", "no number of processes"),
        ("", "there is no engine ''"),
    ],
)
def test_urls_that_name_no_engine(engine: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as found:
        open_engine(engine)
    assert found.value.where == "--engine" and found.value.hint


def test_a_scheduler_that_does_not_answer(monkeypatch: pytest.MonkeyPatch, root: Path, prose: Path) -> None:
    monkeypatch.setattr(dask, "CONNECT_SECONDS", 1)
    with pytest.raises(EngineFailed, match="no scheduler answers within 1 s") as found:
        open_engine("dask://127.0.0.1:9")
    assert "dask scheduler" in found.value.hint


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingPackage, match="distributed") as found:
        open_engine("dask://127.0.0.1:8786")
    assert "quantcli[cluster]" in found.value.hint


def test_workers_that_would_compute_something_else_refuse(root: Path, prose: Path) -> None:
    with open_session(root / "examples" / "tiny", FLOAT) as session:
        model = tasks.ModelAt.of(session)
        chunks = text.chunks_of(session.tokenizer, prose, LENGTH, chunks=2)
    assert pickle.loads(pickle.dumps(model)) == model
    for wrong, words in (
        (replace(model, fingerprint="0" * 64), "is another model on a worker"),
        (replace(model, version="0.0.1"), "a worker has quantcli .*, this is 0.0.1"),
        (replace(model, isa="neon2"), "a worker has instruction set .*, this is neon2"),
        (replace(model, path="/nowhere/m.gguf"), "nowhere"),
    ):
        with pytest.raises(QuantcliError, match=words) as found:
            tasks.importance(wrong, chunks, False)
        assert found.value.hint or "nowhere" in words
    assert len(tasks.log_likelihoods(model, chunks)) == 2


def test_workers_keep_no_predictions(tiny_files: dict[str, Path], prose: Path, tmp_path: Path) -> None:
    for option in ("record", "states"):
        request = compare.CompareRequest(
            reference=tiny_files["BF16"], models=[tiny_files["Q8_0"]], texts=[prose], engine="local", length=LENGTH,
            **{option: tmp_path / "kept.gguf"},
        )  # fmt: skip
        with pytest.raises(UsageError, match="workers run the reference"):
            compare.run(request)


def test_results_come_in_order() -> None:
    assert list(in_order(iter([(2, "c"), (0, "a"), (1, "b"), (3, "d")]))) == ["a", "b", "c", "d"]
