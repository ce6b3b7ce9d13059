"""convert --resume: stopped anywhere, it goes on to the same bytes; what is another conversion is refused."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import quantcli
from helpers import kills, oracles
from helpers.stopping import Heard, Stop, stop_writes
from quantcli.cli.parse import convert_request
from quantcli.commands import convert, facts
from quantcli.commands.job import ConvertRequest
from quantcli.encode import pipeline, sinks
from quantcli.errors import OutputExists, ResumeRefused, UsageError
from quantcli.output import journals
from quantcli.report.terminal import Reporter
from quantcli.statistics.imatrix import Importance, to_gguf_bytes

TINY = Path(__file__).resolve().parents[2] / "examples" / "tiny"
THREADS = 2


def request(source: Path, output: Path, *types: str, **more) -> ConvertRequest:
    output.mkdir(exist_ok=True)
    given = {"resume": True, "threads": THREADS, **more}
    return convert_request(source=source, types=types or ("Q8_0",), output=f"{output}/", **given)


def visible(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of the bundled checkpoint."""
    return Path(shutil.copytree(TINY, tmp_path / "tiny"))


@pytest.fixture
def stopping(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets behind how many written slabs a run ends; 0: it does not."""
    return stop_writes(monkeypatch)


def stopped(wanted: ConvertRequest, stopping: Callable[[int], None], count: int) -> None:
    stopping(count)
    with pytest.raises(Stop):
        convert.run(wanted)
    stopping(0)


# ---- the same bytes


@pytest.mark.parametrize("split", [None, "600K"])
@pytest.mark.parametrize("force", [False, True])
def test_stopped_again_and_again_it_makes_the_same_bytes(
    tmp_path: Path, stopping: Callable[[int], None], monkeypatch: pytest.MonkeyPatch, split: str | None, force: bool
) -> None:
    types, whole, folder = ("Q4_0", "Q8_0"), tmp_path / "whole", tmp_path / "out"
    lists = {"checksums": whole / "SUMS"}
    convert.run(request(TINY, whole, *types, split_max_size=split, resume=False, **lists))
    encoded: list[tuple[int, int]] = []
    original = pipeline.Encoder.encode

    def encode(self: pipeline.Encoder, slab: pipeline.Slab) -> object:
        made = original(self, slab)
        encoded.extend((slab.index, slab.start) for one in made if one is not None)
        return made

    monkeypatch.setattr(pipeline.Encoder, "encode", encode)
    lists = {"checksums": folder / "SUMS"}
    if force:
        convert.run(request(TINY, folder, *types, split_max_size=split, resume=False, metadata=["general.version=0"]))
        encoded.clear()
    wanted = request(TINY, folder, *types, split_max_size=split, force=force, **lists)
    runs = 0
    for count in (1, 7, 30, 12):
        stopped(wanted, stopping, count)
        runs += 1
        assert force or not [name for name in os.listdir(folder) if not name.startswith(".")]
    result = convert.run(wanted)
    assert visible(folder) == visible(whole) and result["resumed_bytes"] > 0
    repeated = len(encoded) - 2 * len(set(encoded))
    assert repeated <= runs * 2 * (THREADS + pipeline.AHEAD + sinks.UNWRITTEN)


def test_the_source_is_hashed_once(
    tmp_path: Path, stopping: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from quantcli.sources import digests

    asked: list[str] = []
    original = digests._of
    monkeypatch.setattr(digests, "_of", lambda path, tell: asked.append(path) or original(path, tell))
    stopped(request(TINY, tmp_path / "out"), stopping, 9)
    assert len(asked) == 1
    convert.run(request(TINY, tmp_path / "out"))
    assert len(asked) == 1


def test_an_undisturbed_run_leaves_nothing_beside_its_files(tmp_path: Path) -> None:
    result = convert.run(request(TINY, tmp_path / "out"))
    assert os.listdir(tmp_path / "out") == ["tiny-Q8_0.gguf"] and result["resumed_bytes"] == 0
    with pytest.raises(OutputExists):
        convert.run(request(TINY, tmp_path / "out"))


@pytest.mark.skipif(sys.platform != "linux", reason="forked copies of a process with threads")
def test_killed_at_every_kind_of_step_it_goes_on(tmp_path: Path) -> None:
    """SIGKILL at steps of opening, syncing, naming and unlinking: before the call, and after it."""
    model = oracles.unpack(kills.MODEL, tmp_path)
    scenario = kills.Scenario(("Q8_0", "Q4_0"), split=True, force=True, listed=True)
    one = kills.prepare(scenario, model, tmp_path / "work")
    command = [*one.command, "--resume"]
    random_ = random.Random(20)
    folder = tmp_path / "run" / "out"
    steps, status, said = kills.run_child(command, _copy(one.template, folder))
    assert (status, kills.state(folder)) == (0, one.after), said
    for step in sorted(random_.sample(range(steps), 8)):
        shutil.rmtree(folder)
        taken, status, _ = kills.run_child(
            command, _copy(one.template, folder), number=signal.SIGKILL, step=step, late=random_.random() < 0.5
        )
        if status == 0 and taken <= step:
            continue  # a slow machine looks after the process of the template, which takes steps as well
        assert status == -signal.SIGKILL
        _, status, said = kills.run_child(command, folder)
        already = status == 1 and "exists already" in said  # it was killed behind its last step but one
        assert status == 0 or already, (step, said)
        assert kills.state(folder) == one.after, step
        hidden = [name for name in os.listdir(folder) if name.startswith(".")]
        assert not hidden, step


def _copy(template: Path, folder: Path) -> Path:
    folder.parent.mkdir(exist_ok=True)
    return Path(shutil.copytree(template, folder))


def test_damage_and_a_lost_disk_cache_cost_only_what_lies_behind(
    tmp_path: Path, stopping: Callable[[int], None]
) -> None:
    """A flipped byte, zeros in place of what never reached the disk, a journal cut in its last line."""
    convert.run(request(TINY, tmp_path / "whole", resume=False))
    for damage in ("flip", "zeros", "cut", "garbage", "empty"):
        folder = tmp_path / damage
        wanted = request(TINY, folder)
        stopped(wanted, stopping, 30)
        (hidden,) = folder.glob(".quantcli-*.resume")
        (notes,) = folder.glob(".quantcli-*.journal")
        written = journals.read(notes)
        assert written is not None
        with open(hidden, "r+b") as file:
            file.seek(written.written // 2)
            file.write({"flip": b"\xa5" * 64, "zeros": bytes(written.written)}.get(damage, b""))
        raw = notes.read_bytes()
        notes.write_bytes({"cut": raw[:-20], "garbage": raw + b"\0" * 500 + b"\n", "empty": b""}.get(damage, raw))
        result = convert.run(wanted)
        assert visible(folder) == visible(tmp_path / "whole"), damage
        kept = result["resumed_bytes"]
        assert (kept == 0) if damage == "empty" else 0 < kept <= written.written, damage
        assert damage not in ("flip", "zeros") or kept <= written.written // 2


def test_a_hub_that_goes_away_and_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections are cut for good in the middle; the same command goes on later, but not with another commit."""
    pytest.importorskip("huggingface_hub")
    from helpers.loopback_hub import Fault, LoopbackHub
    from quantcli.errors import Unreachable
    from quantcli.sources.hub import blocks, client, remote, tree

    for module in (blocks, remote):
        monkeypatch.setattr(module, "BLOCK", 128 << 10)
    monkeypatch.setattr(client, "FIRST_WAIT", 0.01)
    original, written = sinks.Sink._write, [0]
    with LoopbackHub() as hub:
        hub.use(monkeypatch, tmp_path / "home")
        repository = hub.store.create("org/tiny", TINY)

        def write(self: sinks.Sink, slab: object, data: object) -> None:
            original(self, slab, data)  # type: ignore[arg-type]  # handed on as it came
            written[0] += 1
            if written[0] == 6:
                hub.faults = [Fault("GET /files/", times=10**6, cut=0)]

        def run(output: Path, **more: object) -> object:
            tree.forget()
            return convert.run(request(Path("hf://org/tiny"), output, **more))

        run(tmp_path / "whole", resume=False)
        monkeypatch.setattr(sinks.Sink, "_write", write)
        for place in ("out", "other"):
            written[0], hub.faults = 0, []
            with pytest.raises(Unreachable):
                run(tmp_path / place)
        hub.faults = []
        result = run(tmp_path / "out")
        assert visible(tmp_path / "out") == visible(tmp_path / "whole") and result["resumed_bytes"] > 0
        changed = bytearray((TINY / "model.safetensors").read_bytes())
        changed[-1] ^= 1
        repository.commit(
            {path.name: path.read_bytes() for path in TINY.iterdir()} | {"model.safetensors": bytes(changed)}
        )
        with pytest.raises(ResumeRefused, match=r"model\.safetensors of the source was"):
            run(tmp_path / "other")


# ---- what is another conversion


def matrix(folder: Path, scale: float) -> Path:
    import numpy

    path = folder / "imatrix.gguf"
    sums = {"blk.0.attn_q.weight": numpy.full((1, 256), scale, numpy.float32)}
    path.write_bytes(to_gguf_bytes(Importance(path.name, sums, {name: numpy.ones(1) for name in sums})))
    return path


def other_type(source: Path) -> dict[str, object]:
    return {"types": ("Q8_0", "Q4_0")}


def other_metadata(source: Path) -> dict[str, object]:
    return {"metadata": ["general.version=2"]}


def other_search(source: Path) -> dict[str, object]:
    return {"search": "ggml"}


def other_time(source: Path) -> dict[str, object]:
    status = (source / "model.safetensors").stat()
    os.utime(source / "model.safetensors", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    return {}


def other_importance(source: Path) -> dict[str, object]:
    return {"imatrix": matrix(source, 2.0)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (other_type, "the type of tiny-Q4_0.gguf was nothing, is Q4_0"),
        (other_metadata, "general.version was nothing, is 2"),
        (other_search, "the search was best, is ggml"),
        (other_time, "model.safetensors of the source was"),
        (other_importance, "the importance matrix was nothing, is"),
    ],
)
def test_another_conversion_is_refused_and_says_what_differs(
    source: Path, tmp_path: Path, stopping: Callable[[int], None], change: Callable, words: str
) -> None:
    folder = tmp_path / "out"
    stopped(request(source, folder), stopping, 9)
    before = visible(folder)
    changed = change(source)
    types = changed.pop("types", ("Q8_0",))
    with pytest.raises(ResumeRefused) as caught:
        convert.run(request(source, folder, *types, **changed))
    assert words in caught.value.message and caught.value.hint is not None
    assert visible(folder) == before
    subprocess.run(["sh", "-c", caught.value.hint.partition("anew: ")[2]], check=True)  # as pasted
    convert.run(request(source, folder, *types, **changed))
    assert not [name for name in os.listdir(folder) if name.startswith(".")]


def test_another_version_is_refused(
    tmp_path: Path, stopping: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped(request(TINY, tmp_path / "out"), stopping, 9)
    monkeypatch.setattr(facts, "__version__", "99.0")
    with pytest.raises(ResumeRefused, match=f"the version of quantcli was {quantcli.__version__}, is 99.0"):
        convert.run(request(TINY, tmp_path / "out"))


def test_the_journal_of_another_file_under_this_name_is_refused(
    tmp_path: Path, stopping: Callable[[int], None]
) -> None:
    """Moved here from another conversion, with its temporary file."""
    stopped(request(TINY, tmp_path / "one", "Q4_0"), stopping, 9)
    stopped(request(TINY, tmp_path / "two", "Q8_0"), stopping, 9)
    (other,) = (tmp_path / "one").glob("*.journal")
    (own,) = (tmp_path / "two").glob("*.journal")
    own.write_bytes(other.read_bytes().replace(b"tiny-Q4_0.gguf", b"tiny-Q8_0.gguf"))
    with pytest.raises(ResumeRefused, match="the type of tiny-Q8_0.gguf was Q4_0, 1 file, is Q8_0"):
        convert.run(request(TINY, tmp_path / "two", "Q8_0"))


def test_a_file_that_took_the_name_meanwhile_is_not_touched(tmp_path: Path, stopping: Callable[[int], None]) -> None:
    folder = tmp_path / "out"
    stopped(request(TINY, folder), stopping, 9)
    (folder / "tiny-Q8_0.gguf").write_bytes(b"precious")
    with pytest.raises(OutputExists):
        convert.run(request(TINY, folder))
    assert (folder / "tiny-Q8_0.gguf").read_bytes() == b"precious"


def test_one_run_at_a_time(tmp_path: Path, stopping: Callable[[int], None]) -> None:
    folder = tmp_path / "out"
    stopped(request(TINY, folder), stopping, 9)
    (notes,) = folder.glob("*.journal")
    lock = f"f = open({str(notes)!r}, 'r+'); fcntl.flock(f, fcntl.LOCK_EX)"
    code = f"import fcntl, time; {lock}; print(1, flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline()
        try:
            with pytest.raises(ResumeRefused, match="another run is at work on these files"):
                convert.run(request(TINY, folder))
        finally:
            other.kill()


# ---- without --resume, and what does not go with it


def test_without_resume_what_was_kept_is_told_and_removed_in_the_end(
    tmp_path: Path, stopping: Callable[[int], None]
) -> None:
    folder, heard = tmp_path / "out", Heard()
    stopped(request(TINY, folder), stopping, 9)
    convert.run(request(TINY, folder, resume=False), heard)
    assert any("--resume would continue it" in text for text in heard.warned)
    assert os.listdir(folder) == ["tiny-Q8_0.gguf"]


def test_without_resume_a_stopped_run_keeps_nothing(tmp_path: Path, stopping: Callable[[int], None]) -> None:
    folder = tmp_path / "out"
    stopped(request(TINY, folder, resume=False), stopping, 9)
    assert os.listdir(folder) == []


def test_other_conversions_leave_it_alone(tmp_path: Path, stopping: Callable[[int], None]) -> None:
    folder = tmp_path / "out"
    stopped(request(TINY, folder), stopping, 9)
    convert.run(request(TINY, folder, "Q4_0", resume=False))
    convert.run(request(TINY, folder, "Q5_0"))
    assert convert.run(request(TINY, folder))["resumed_bytes"] > 0


def test_calibration_wants_a_folder_that_is_kept(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="calibrates anew on every start") as caught:
        request(TINY, tmp_path / "out", quality="best")
    assert "--keep-statistics" in str(caught.value.hint)


def test_an_interrupt_says_that_the_same_command_goes_on(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from quantcli.cli import main\n"
        "from quantcli.encode import sinks\n"
        "original = sinks.Sink._write\n"
        "def write(self, slab, data):\n"
        "    original(self, slab, data)\n"
        "    if slab.index == 9: os.kill(os.getpid(), signal.SIGTERM)\n"
        "sinks.Sink._write = write\n"
        "main()\n"
    )
    command = [sys.executable, "-c", code, "convert", str(TINY), "-t", "Q8_0", "-o", "a.gguf", "--resume"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 130 and "the same command goes on with what is written" in done.stderr
    done = subprocess.run(
        [sys.executable, "-m", "quantcli", *command[3:]], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and "note: resumes behind" in done.stderr
    assert os.listdir(tmp_path) == ["a.gguf"]


def test_marks_of_a_large_file_take_little_memory() -> None:
    marks = journals._Marks()
    for number in range(1, 200_000):
        assert marks.add((number * 300_000, "0" * 64))
    assert not marks.add((300_000, "0" * 64))
    distances = [b[0] - a[0] for a, b in zip(marks.kept, marks.kept[1:], strict=False)]
    assert len(marks.kept) < 60e9 / journals.SPREAD + 2 * journals.RECENT
    assert max(distances) < 2 * journals.SPREAD and distances[-journals.RECENT + 1 :] == [300_000] * (
        journals.RECENT - 1
    )


def test_silence_off_a_terminal_ends_after_a_while(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    from quantcli.report import lines as plain

    monkeypatch.setattr(plain, "SILENCE", 0.1)
    with Reporter().progress("convert tiny", 100):
        time.sleep(0.4)
    lines = capsys.readouterr().err.splitlines()
    assert 2 <= len(lines) <= 5 and all("so far; at last: begun" in line for line in lines)
