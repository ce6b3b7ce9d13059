"""`imatrix --resume` and `convert --imatrix auto --resume`: stopped anywhere they end with the bytes of one run; what
is of another model, text or setting is refused and says so."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import gguf
import numpy
import pytest

from helpers import checkpoints, oracles
from quantcli.calibration import origin
from quantcli.cli.parse import convert_request
from quantcli.commands import convert, imatrix
from quantcli.commands.layer_major import Layerwise
from quantcli.errors import Interrupted, OutputExists, ResumeRefused
from quantcli.report.terminal import Reporter
from quantcli.runner import layerwise, sealed, text
from quantcli.runner.session import RunOptions
from quantcli.statistics import imatrix as matrices

TINY = Path(__file__).resolve().parents[2] / "examples" / "tiny"
LENGTH = 64
OPTIONS = RunOptions(activations="float", length=LENGTH)


class Stop(BaseException):
    """The end of a run, wherever it is."""


class Told(Reporter):
    def __init__(self) -> None:
        super().__init__(quiet=True, as_json=True)
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "BATCH", 2 * LENGTH)


@pytest.fixture
def stopping(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Sets behind how many names that are given a run ends; 0: it does not."""
    left, original = [0], os.replace

    def give(*names: object) -> None:
        original(*names)  # type: ignore[arg-type]  # handed on as they came
        left[0] -= 1
        if left[0] == 0:
            raise Stop

    monkeypatch.setattr(os, "replace", give)

    def stop(count: int) -> None:
        left[0] = count

    yield stop


def collected(prose: Path, output: Path, reporter: Reporter | None = None, **more: object) -> bytes:
    request = {"model": TINY, "text": prose, "length": LENGTH, "chunks": 7, "options": OPTIONS, "frequency": 1} | more
    imatrix.run(imatrix.ImatrixRequest(output=output, **request), reporter or Told())
    return output.read_bytes()


def other_model(folder: Path) -> Path:
    """The bundled checkpoint with other weights."""
    shutil.copytree(TINY, folder)
    tensors = checkpoints.read_tensors(TINY)
    name = "model.layers.1.mlp.down_proj.weight"
    kind, shape, data = tensors[name]
    changed = numpy.frombuffer(data, numpy.uint16) ^ 64
    checkpoints.write_tensors(folder, {**tensors, name: (kind, shape, changed.tobytes())})
    return folder


# ---- the same bytes


@pytest.mark.parametrize("name", ["\u3042" * 83 + ".gguf", "m" * 251 + ".dat"])
def test_the_longest_names_leave_room(prose: Path, tmp_path: Path, stopping: Callable[[int], None], name: str) -> None:
    expected = collected(prose, tmp_path / f"m{name[-5:]}")
    stopping(2)
    with pytest.raises(Stop):
        collected(prose, tmp_path / name)
    stopping(0)
    assert collected(prose, tmp_path / name, resume=True) == expected
    assert len(os.listdir(tmp_path)) == 2


@pytest.mark.parametrize("name", ["m.gguf", "m.dat"])
@pytest.mark.parametrize("kind", ["plain", "added", "gone-on-from"])
def test_stopped_behind_every_name_it_makes_the_same_bytes(
    prose: Path, tmp_path: Path, stopping: Callable[[int], None], name: str, kind: str
) -> None:
    whole, output, more = tmp_path / f"whole-{name}", tmp_path / name, {}
    if kind == "added":
        collected(prose, tmp_path / "added.gguf", chunks=2, first=9)
        more = {"earlier": [tmp_path / "added.gguf"]}
    start = b""
    if kind == "gone-on-from":  # a complete matrix; the legacy format does not say whose it is
        start = collected(prose, tmp_path / "start.gguf", chunks=3)
        if name.endswith("dat"):
            return
        whole.write_bytes(start)
    expected = collected(prose, whole, resume=bool(start), **more)
    for count in range(1, 99):
        output.unlink(missing_ok=True)
        if start:
            output.write_bytes(start)
        stopping(count)
        try:
            collected(prose, output, resume=bool(start), **more)
        except Stop:
            stopping(count + 1)  # the same again, a little later
            try:
                collected(prose, output, resume=True, **more)
            except Stop:
                stopping(0)
                collected(prose, output, resume=True, **more)
        else:
            break
        assert output.read_bytes() == expected, count
        assert not origin.beside(output).exists()
    assert count > 3 and output.read_bytes() == expected


def test_an_interrupt_keeps_what_goes_on_to_the_same_bytes(prose: Path, tmp_path: Path) -> None:
    class Stopping(Told):
        def steps(self, label: str, total: int):
            from contextlib import nullcontext

            def advance(done: int, known: str = "") -> None:
                if done >= 4:
                    raise KeyboardInterrupt

            return nullcontext(advance)

    output, told = tmp_path / "m.gguf", Told()
    expected = collected(prose, tmp_path / "whole.gguf", process_output=True)
    with pytest.raises(Interrupted, match="m.gguf: interrupted; 4 chunks are kept") as found:
        imatrix.collect_whole(
            imatrix.ImatrixRequest(model=TINY, text=prose, output=output, length=LENGTH, chunks=7, frequency=0,
                                   options=OPTIONS, process_output=True), Stopping(),
        )  # fmt: skip
    assert found.value.hint == "the same command with --resume goes on"
    with pytest.raises(OutputExists) as refused:
        collected(prose, output, process_output=True)
    assert "--resume goes on" in refused.value.hint
    assert collected(prose, output, told, process_output=True, resume=True) == expected
    assert told.notes == [f"note: {output} holds 4 of 7 chunks already"]
    assert sorted(os.listdir(tmp_path)) == ["m.gguf", "whole.gguf"]


def test_a_complete_matrix_is_gone_on_from_and_says_that_it_is_rounded(prose: Path, tmp_path: Path) -> None:
    output, told = tmp_path / "m.gguf", Told()
    collected(prose, output, chunks=3)
    again = collected(prose, output, told, chunks=3, resume=True)
    assert told.notes == [f"note: {output} holds 3 of 3 chunks already"]
    collected(prose, output, told, resume=True)
    assert "the last bits will differ" in told.notes[-1]
    whole, found = matrices.read(tmp_path / "m.gguf"), None
    collected(prose, tmp_path / "whole.gguf")
    found = matrices.read(tmp_path / "whole.gguf")
    assert whole.chunks == found.chunks == 7 and dict(whole.origin) == dict(found.origin)
    assert all(numpy.allclose(whole.sums[name], found.sums[name], rtol=1e-6) for name in found.sums)
    output.write_bytes(again)
    states = Layerwise(states=tmp_path / "s", resume=True)
    assert collected(prose, output, resume=True, layerwise=states) == (tmp_path / "m.gguf").read_bytes()


def test_layer_by_layer_goes_on_from_a_complete_matrix_also_when_it_was_stopped(
    prose: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, whole, output = tmp_path / "start.gguf", tmp_path / "whole.gguf", tmp_path / "m.gguf"
    for path in (whole, output):
        path.write_bytes(collected(prose, start, chunks=3, force=True))
    wish = Layerwise(states=tmp_path / "s", resume=True)
    expected = collected(prose, whole, resume=True, layerwise=wish)
    original, finished = layerwise.Waiting.finish, []

    def finish(states: layerwise.Waiting, layer: int, arrays: object) -> None:
        original(states, layer, arrays)  # type: ignore[arg-type]  # handed on as it came
        finished.append(layer)
        if finished == [0, 1]:
            raise Stop

    monkeypatch.setattr(layerwise.Waiting, "finish", finish)
    with pytest.raises(Stop):
        collected(prose, output, resume=True, layerwise=wish)
    assert collected(prose, output, resume=True, layerwise=wish) == expected
    assert finished == [0, 1, 2, 3] and not wish.states.exists()


# ---- what is something else


def changes(folder: Path, prose: Path) -> dict[str, tuple[dict[str, object], str]]:
    """What another run is asked for, and how it is told."""
    (folder / "texts").mkdir()
    other = folder / "texts" / prose.name
    other.write_text("\n".join(reversed(prose.read_text().splitlines())))
    collected(prose, folder / "more.gguf", chunks=2)
    return {
        "model": ({"model": other_model(folder / "tiny")}, "another model"),
        "text": ({"text": other}, "another text"),
        "activations": (
            {"options": RunOptions(activations="q8", length=LENGTH)}, r"other activations \(float, now q8\)",
        ),
        "cache": ({"options": RunOptions(exact=True, length=LENGTH)}, r"another type of the KV cache \(F16, now F32\)"),
        "first": ({"first": 2}, r"another --from-chunk \(0, now 2\)"),
        "context": ({"length": 32}, r"chunks of another length \(64, now 32\)"),
        "added": ({"earlier": [folder / "more.gguf"]}, "other matrices of --in-file"),
        "fewer": ({"chunks": 2}, "holds 4 chunks, this run has 2"),
        "two": ({"first": 2, "length": 32}, r"another length \(64, now 32\), another --from-chunk \(0, now 2\)"),
    }  # fmt: skip


def test_the_output_matrix_is_collected_by_all_or_by_none(prose: Path, tmp_path: Path) -> None:
    """Where there is one: a tied head is not collected anyway."""
    for model, other in ((oracles.folder("llama3"), True), (TINY, False)):
        output = tmp_path / f"{model.name}.gguf"
        collected(prose, output, model=model, chunks=2)
        if other:
            with pytest.raises(ResumeRefused, match=r"with another --process-output \(no, now yes\)$"):
                collected(prose, output, model=model, chunks=4, process_output=True, resume=True)
        else:
            collected(prose, output, model=model, chunks=4, process_output=True, resume=True)


WAYS = ("complete", "unfinished", "layerwise")


@pytest.mark.parametrize("way", WAYS)
def test_another_run_is_refused_and_says_what_differs(
    prose: Path, tmp_path: Path, stopping: Callable[[int], None], way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "m.gguf"
    stopping(4 if way == "unfinished" else 0)
    try:
        collected(prose, output, chunks=7 if way == "unfinished" else 4)
    except Stop:
        stopping(0)
    rows = changes(tmp_path, prose)
    wish = {"layerwise": Layerwise(states=tmp_path / "s", resume=True)} if way == "layerwise" else {}
    left = {path: path.read_bytes() for path in tmp_path.glob("m.gguf*")}
    assert len(left) == (2 if way == "unfinished" else 1)

    def refused(words: str, **more: object) -> None:
        with pytest.raises(ResumeRefused, match=words) as found:
            collected(prose, output, **{**wish, **more}, resume=True)
        assert "m.gguf" in found.value.where and "the same command with --force" in found.value.hint
        assert {path: path.read_bytes() for path in tmp_path.glob("m.gguf*")} == left

    for more, words in rows.values():
        refused(words, **more)
    with monkeypatch.context() as patched:
        patched.setattr(layerwise, "__version__", "0")
        if way == "unfinished":  # to the bit; a matrix stays what it is
            refused("another version of quantcli")
    with monkeypatch.context() as patched:
        patched.setattr(layerwise.kernels, "isa", lambda: "scalar")
        refused("another instruction set")
    told = Told()
    anew = collected(prose, output, told, **wish, **rows["text"][0], resume=True, force=True)
    assert "another text: begun anew" in told.notes[0]
    assert anew == collected(prose, tmp_path / "right.gguf", **rows["text"][0])


@pytest.mark.parametrize("kind", ["stripped", "legacy", "merged", "llama.cpp"])
@pytest.mark.parametrize("layered", [False, True])
def test_a_matrix_that_does_not_say_whose_it_is_is_not_gone_on_with(
    prose: Path, tmp_path: Path, kind: str, layered: bool, request: pytest.FixtureRequest
) -> None:
    output = tmp_path / ("m.dat" if kind == "legacy" else "m.gguf")
    collected(prose, output, chunks=4)
    if kind == "stripped":
        output.write_bytes(matrices.to_gguf_bytes(replace(matrices.read(output), origin={})))
    if kind == "merged":
        imatrix.run(imatrix.ImatrixRequest(model=None, output=output, earlier=[output.rename(tmp_path / "a.gguf")] * 2))
    if kind == "llama.cpp":
        shutil.copy(request.getfixturevalue("shared") / "golden" / "mid-imatrix.gguf", output)
    before = output.read_bytes()
    wish = {"layerwise": Layerwise(states=tmp_path / "s", resume=True)} if layered else {}
    with pytest.raises(ResumeRefused, match="does not say of what model and text it is") as found:
        collected(prose, output, **wish, resume=True)
    assert "--in-file" in found.value.hint and "--force" in found.value.hint
    assert output.read_bytes() == before and not (tmp_path / "s").exists()


def test_damage_of_what_was_kept_is_told(
    prose: Path, tmp_path: Path, stopping: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "o'b"
    folder.mkdir()
    output = folder / "m.gguf"
    stopping(2)
    with pytest.raises(Stop):
        collected(prose, output)
    kept = origin.beside(output)
    data = kept.read_bytes()
    for damaged in (b"", data[:100], data[:-1], data + b"x", data[:900] + bytes([data[900] ^ 1]) + data[901:]):
        kept.write_bytes(damaged)
        with pytest.raises(ResumeRefused, match="cannot be read: its checksum") as found:
            collected(prose, output, resume=True)
    facts = b'{"own": 1, "base": 1, "datasets": "[]"}'
    for made in ({}, {"facts": b"[]"}, {"facts": b"{"}, {"facts": facts, "x": b"1"}, {"facts": facts[:-3] + b'x"}'}):
        sealed.write(kept, {key: numpy.frombuffer(value, numpy.uint8) for key, value in made.items()})
        with pytest.raises(ResumeRefused, match="cannot be read: ") as found:
            collected(prose, output, resume=True)
    assert shlex.quote(str(kept)) in found.value.hint
    subprocess.run(["sh", "-c", found.value.hint.partition("after: ")[2].partition(";")[0]], check=True)  # as pasted
    told = Told()
    collected(prose, output, told, resume=True)
    assert "holds 2 of 7" in told.notes[0] and "last bits" in told.notes[1]


def test_the_facts_are_keys_that_other_readers_pass_over(prose: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    collected(prose, path, chunks=3)
    reader = gguf.GGUFReader(path)
    keys = [key for key in reader.fields if not key.startswith("GGUF.")]
    assert keys[:4] == ["general.type", "imatrix.datasets", "imatrix.chunk_count", "imatrix.chunk_size"]
    assert all(key.startswith("quantcli.imatrix.") for key in keys[4:]) and len(keys) > 10
    assert all(one.name.endswith((".in_sum2", ".counts")) for one in reader.tensors)
    assert str(tmp_path).encode() not in path.read_bytes() and str(TINY).encode() not in path.read_bytes()


# ---- convert --imatrix auto


def converted(folder: Path, **more: object) -> dict[str, bytes]:
    convert.run(convert_request(source=TINY, types=("Q4_0",), imatrix=Path("auto"), output=f"{folder}/", **more))
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture
def short_text(prose: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of the bundled one: some chunks of 512."""
    from quantcli.calibration import collect

    long = prose.with_suffix(".long")
    long.write_text(prose.read_text() * 4)
    monkeypatch.setattr(collect, "bundled_text", lambda: str(long))


@pytest.mark.usefixtures("short_text")
def test_a_conversion_goes_on_collecting(
    tmp_path: Path, stopping: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = imatrix.ImatrixRequest
    monkeypatch.setattr(imatrix, "ImatrixRequest", lambda **more: wanted(frequency=1, **more))
    expected = converted(tmp_path / "whole")
    for count in (1, 4):
        folder = tmp_path / f"out{count}"
        stopping(count)
        with pytest.raises(Stop):
            converted(folder, resume=True)
        stopping(0)
        if count > 1:
            with pytest.raises(OutputExists) as found:
                converted(folder)
            assert "--resume goes on" in found.value.hint and "--imatrix" not in found.value.hint
        assert converted(folder, resume=True) == expected
    folder = tmp_path / "o u't"
    with monkeypatch.context() as patched:
        patched.setattr(convert, "carry_out", stop_here)
        with pytest.raises(Stop):  # behind the matrix, before the journal
            converted(folder, resume=True)
    with pytest.raises(OutputExists) as found:
        converted(folder)
    assert f"use it with --imatrix {shlex.quote(str(folder / 'imatrix.gguf'))}, or" in found.value.hint
    assert converted(folder, resume=True) == expected


def stop_here(*unused: object) -> None:
    raise Stop


@pytest.mark.usefixtures("short_text")
def test_a_conversion_does_not_go_on_with_an_interrupted_matrix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(session: object, chunks: object, **more: object) -> object:
        def progress(done: int, known: str) -> None:
            raise KeyboardInterrupt

        return original(session, chunks, **{**more, "progress": progress, "found": found_first(session, chunks)})

    def found_first(session: object, chunks: object) -> object:
        yield collect.batch_sums(session, chunks, 0, chunks.together)
        raise KeyboardInterrupt

    from quantcli.calibration import collect

    original = imatrix.collect
    expected = converted(tmp_path / "whole")
    with monkeypatch.context() as patched:
        patched.setattr(imatrix, "collect", interrupted)
        with pytest.raises(Interrupted, match="imatrix.gguf: interrupted; 1 chunks are kept"):
            converted(tmp_path / "out", resume=True)
    assert sorted(os.listdir(tmp_path / "out")) == ["imatrix.gguf", "imatrix.gguf.unfinished"]
    assert converted(tmp_path / "out", resume=True) == expected


def test_a_dry_run_says_that_collecting_comes_on_top(tmp_path: Path) -> None:
    wanted = convert_request(source=TINY, types=("Q4_0",), imatrix=Path("auto"), dry_run=True)
    assert convert.run(wanted)["estimate"]["calibration"] is True
