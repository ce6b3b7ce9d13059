"""`--layerwise` and `--reference-states` as a user runs them: the same bytes, also after a kill; clear mistakes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers.program import quantcli
from quantcli.commands import compare, imatrix, perplexity
from quantcli.commands.layer_major import Layerwise
from quantcli.errors import BadReference, BadStates, QuantcliError, UsageError
from quantcli.report.terminal import Reporter
from quantcli.runner import text
from quantcli.runner.network import Network
from quantcli.runner.session import RunOptions

LENGTH = 64
FLOAT, OPTIONS = RunOptions(activations="float", length=LENGTH), RunOptions(length=LENGTH)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "BATCH", 2 * LENGTH)


class Stopping(Reporter):
    """A reporter under which the user stops the work: at a step of the ``number``th progress that is shown."""

    def __init__(self, number: int, step: int) -> None:
        super().__init__(quiet=True, as_json=True)
        self.left, self.step, self.notes = number, step, []

    def steps(self, label: str, total: int):
        self.left -= 1
        return super().steps(label, total) if self.left else self._stopping()

    def _stopping(self):
        from contextlib import nullcontext

        def advance(done: int, known: str = "") -> None:
            if done > self.step:
                raise KeyboardInterrupt

        return nullcontext(advance)

    def note(self, text: str) -> None:
        self.notes.append(text)


def collected(root: Path, prose: Path, output: Path, reporter: Reporter | None = None, **options: object) -> dict:
    request = {"model": root / "examples" / "tiny", "text": prose, "length": LENGTH, "chunks": 5, "options": FLOAT}
    return imatrix.run(imatrix.ImatrixRequest(output=output, **request | options), *[reporter] if reporter else [])


def test_an_interrupted_imatrix_goes_on_to_the_same_bytes(root: Path, prose: Path, tmp_path: Path) -> None:
    whole, layered, states = tmp_path / "whole.gguf", tmp_path / "layered.gguf", tmp_path / "s"
    collected(root, prose, whole)
    with pytest.raises(QuantcliError, match="interrupted; 2 layers are done and kept") as found:
        collected(root, prose, layered, Stopping(1, 11), layerwise=Layerwise(states=states))
    assert found.value.exit_status == 130 and f"--resume goes on from {states}" in found.value.hint
    assert not layered.exists() and states.is_dir()
    with pytest.raises(BadStates, match="unfinished run"):
        collected(root, prose, layered, layerwise=Layerwise(states=states))
    with pytest.raises(BadStates, match="another text"):
        collected(root, prose, layered, first=1, layerwise=Layerwise(states=states, resume=True))
    result = collected(root, prose, layered, resume=True, layerwise=Layerwise(states=states, resume=True))
    assert layered.read_bytes() == whole.read_bytes() and not states.exists()
    assert result["chunks"] == 5 and not result["interrupted"]
    again = collected(root, prose, layered, resume=True, layerwise=Layerwise(states=states, resume=True))
    assert again["chunks"] == 5 and layered.read_bytes() == whole.read_bytes()  # nothing is left to do


def test_an_earlier_matrix_is_added_and_a_failed_file_loses_no_work(root: Path, prose: Path, tmp_path: Path) -> None:
    first, added, layered, states = (tmp_path / name for name in ("first.gguf", "added.gguf", "layered.dat", "s"))
    collected(root, prose, first, chunks=2)
    rest = {"first": 2, "chunks": 3, "earlier": [first]}
    collected(root, prose, added.with_suffix(".dat"), **rest)
    folder = tmp_path / "gone"
    folder.mkdir()
    os.chmod(folder, 0o755)

    class Removing(Stopping):
        def steps(self, label: str, total: int):
            folder.rmdir()
            return super().steps(label, total)

    removing = Removing(99, 0)
    with pytest.raises(QuantcliError, match="No such file"):
        collected(root, prose, folder / "m.dat", removing, layerwise=Layerwise(states=states), **rest)
    assert "4 layers are done and kept" in removing.notes[-1]
    collected(root, prose, layered, layerwise=Layerwise(states=states, resume=True), **rest)
    assert layered.read_bytes() == added.with_suffix(".dat").read_bytes()


def test_damage_is_told_once_and_before_the_work(
    root: Path, prose: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, states, layer = tmp_path / "m.gguf", tmp_path / "s", Network.layer
    with pytest.raises(QuantcliError, match="interrupted; 2 layers are done and kept"):
        collected(root, prose, output, Stopping(1, 11), layerwise=Layerwise(states=states))
    kept = states / "layer-0000.arrays"
    data, ran = kept.read_bytes(), []
    monkeypatch.setattr(Network, "layer", lambda self, *rest: (ran.append(rest[0]), layer(self, *rest))[1])
    for damaged in (data[:-1] + bytes([data[-1] ^ 1]), None):
        kept.unlink() if damaged is None else kept.write_bytes(damaged)
        for _ in range(2):
            reporter = Stopping(99, 0)
            with pytest.raises(BadStates, match=r"layer-0000\.arrays: (cannot be read|is missing)") as found:
                collected(root, prose, output, reporter, resume=True, layerwise=Layerwise(states=states, resume=True))
            assert found.value.hint == f"begin anew after: rm -r {states}" and not reporter.notes and not ran


def test_what_was_stopped_before_a_layer_leaves_nothing(root: Path, prose: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        collected(root, prose, tmp_path / "m.gguf", Stopping(1, 1), layerwise=Layerwise(states=tmp_path / "s"))
    assert not os.listdir(tmp_path)


def figures(path: Path, prose: Path, reporter: Reporter | None = None, **options: object) -> dict:
    request = perplexity.PerplexityRequest(model=path, text=prose, length=LENGTH, chunks=5, options=OPTIONS, **options)
    found = perplexity.run(request, *[reporter] if reporter else [])
    return {key: value for key, value in found.items() if "second" not in key}


def test_perplexity_layer_by_layer_is_the_same(tiny_files: dict[str, Path], prose: Path, tmp_path: Path) -> None:
    model, states = tiny_files["Q4_K_M"], tmp_path / "s"
    expected = figures(model, prose)
    assert figures(model, prose, layerwise=Layerwise(states=states)) == expected and not states.exists()
    with pytest.raises(QuantcliError, match="4 layers are done and kept"):  # the head is left to do
        figures(model, prose, Stopping(2, 0), layerwise=Layerwise(states=states))
    assert figures(model, prose, layerwise=Layerwise(states=states, resume=True)) == expected and not states.exists()


def compared(files: dict[str, Path], texts: list[Path], reporter: Reporter | None = None, **options: object) -> dict:
    request = compare.CompareRequest(
        **{"reference": files["BF16"], "models": [files["Q8_0"], files["Q2_K"]], "texts": texts, "length": LENGTH,
           "chunks": 4, "options": OPTIONS} | options
    )  # fmt: skip
    return compare.run(request, *[reporter] if reporter else [])


@pytest.fixture
def texts(prose: Path, tmp_path: Path) -> list[Path]:
    other = tmp_path / "other.txt"
    other.write_text("\n".join(reversed(prose.read_text().splitlines())))
    return [prose, other]


def test_comparisons_layer_by_layer_are_the_same(
    tiny_files: dict[str, Path], texts: list[Path], tmp_path: Path
) -> None:
    states = tmp_path / "s"
    expected = compared(tiny_files, texts)
    assert compared(tiny_files, texts, layerwise=Layerwise(states=states)) == expected and not states.exists()
    with pytest.raises(QuantcliError, match="interrupted; 17 layers are done and kept"):  # in the fifth of six passes
        compared(tiny_files, texts, Stopping(5, 5), layerwise=Layerwise(states=states))
    with pytest.raises(QuantcliError, match="24 layers are done"):  # while the predictions are compared
        compared(tiny_files, texts, Stopping(8, 0), layerwise=Layerwise(states=states, resume=True))
    assert compared(tiny_files, texts, layerwise=Layerwise(states=states, resume=True)) == expected
    assert not states.exists()


@pytest.mark.parametrize("layerwise", [False, True])
def test_states_of_a_reference_give_the_same_without_running_it(
    tiny_files: dict[str, Path], texts: list[Path], tmp_path: Path, layerwise: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, kept = compared(tiny_files, texts), tmp_path / "kept.gguf"
    wish = {"states": kept, **({"layerwise": Layerwise(states=tmp_path / "s")} if layerwise else {})}
    assert compared(tiny_files, texts, **wish) == expected
    files = [tmp_path / f"kept-{number}-{path.stem}.gguf" for number, path in enumerate(texts, start=1)]
    assert all(path.stat().st_size < 4 * (31 * 256 * 4 + LENGTH * 4) + 2048 for path in files)
    layer, ran = Network.layer, set()
    monkeypatch.setattr(Network, "layer", lambda self, *rest: (ran.add(tuple(self.model.files)), layer(self, *rest))[1])
    assert compared(tiny_files, texts, **wish) == expected
    assert len(ran) == 2  # the two models
    assert compared(tiny_files, texts, **{**wish, "chunks": 3})["models"][0]["chunks"] == 3


def test_states_of_another_reference_are_refused(
    tiny_files: dict[str, Path], texts: list[Path], tmp_path: Path
) -> None:
    kept = tmp_path / "kept.gguf"
    compared(tiny_files, texts[:1], states=kept)
    for match, options in {
        "recorded from another text: chunk 0": {"texts": texts[1:]},
        "recorded with another model": {"reference": tiny_files["Q8_0"], "reference_activations": "float"},
        "recorded with another activations .float, now q8": {"reference_activations": "q8"},
        "has no tokens of chunk 4": {"chunks": 6},
        "recorded with another context .64, now 32": {"length": 32, "options": RunOptions(length=32)},
    }.items():
        with pytest.raises(BadReference, match=match) as found:
            compared(tiny_files, **{"texts": texts[:1], "states": kept, **options})
        assert "--reference-states" in found.value.hint
    with pytest.raises(UsageError, match="of which only the reference's own model makes predictions"):
        compared(tiny_files, texts[:1], reference=kept)
    with pytest.raises(UsageError, match="keep the same thing"):
        compared(tiny_files, texts[:1], states=kept, record=tmp_path / "top.gguf")
    with pytest.raises(BadReference, match="holds no states of a reference"):
        compared(tiny_files, texts[:1], states=tiny_files["Q2_K"])
    data = kept.read_bytes()
    kept.write_bytes(data[: len(data) // 2])
    with pytest.raises(QuantcliError, match="kept.gguf"):
        compared(tiny_files, texts[:1], states=kept)


def test_an_interrupted_comparison_leaves_no_states(
    tiny_files: dict[str, Path], texts: list[Path], tmp_path: Path
) -> None:
    result = compared(tiny_files, texts[:1], Stopping(1, 1), states=tmp_path / "kept.gguf")
    assert result["interrupted"] and sorted(os.listdir(tmp_path)) == ["other.txt"]


def test_a_killed_run_goes_on_to_the_same_bytes(root: Path, prose: Path, tmp_path: Path) -> None:
    """kill -9, as a shell would see it."""
    prose.with_suffix(".long").write_text(prose.read_text() * 2)
    arguments = ["imatrix", root / "examples" / "tiny", "-f", prose.with_suffix(".long"), "-c", 128, "--threads", 1]
    assert quantcli(*arguments, "-o", "whole.gguf", cwd=tmp_path).returncode == 0
    arguments += ["-o", "layered.gguf", "--layerwise"]
    command = [sys.executable, "-m", "quantcli", *map(str, arguments)]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL) as process:
        states = tmp_path / "layered.gguf.states"
        while not (states / "layer-0001.arrays").exists() and process.poll() is None:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL and not (tmp_path / "layered.gguf").exists()
    refused = quantcli(*arguments, cwd=tmp_path)
    assert refused.returncode == 1 and "layered.gguf.states: holds an unfinished run" in refused.stderr
    resumed = quantcli(*arguments, "--resume", cwd=tmp_path)
    assert resumed.returncode == 0 and "of 4 layers are done already" in resumed.stderr, resumed.stderr
    assert (tmp_path / "layered.gguf").read_bytes() == (tmp_path / "whole.gguf").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["layered.gguf", "whole.gguf"]


@pytest.mark.parametrize(
    ("line", "status", "words"),
    [
        ("perplexity MODEL -f TEXT --resume", 2, "add --layerwise"),
        ("perplexity MODEL -f TEXT --states d", 2, "add --layerwise"),
        ("imatrix MODEL -f TEXT --states d", 2, "add --layerwise"),
        ("perplexity MODEL -f TEXT --layerwise --engine local", 2, "leave out one of them"),
        ("perplexity MODEL -f TEXT --layerwise --states TEXT", 1, "holds something else"),
        ("perplexity MODEL -f TEXT --layerwise --states /proc/none", 1, "cannot be written"),
        ("imatrix MODEL -f TEXT --layerwise -o none/m.gguf", 1, "none"),
        ("imatrix --layerwise --in-file MODEL", 1, "importance"),
    ],
)
def test_mistakes_are_told(root: Path, prose: Path, tmp_path: Path, line: str, status: int, words: str) -> None:
    arguments = [{"MODEL": root / "examples" / "tiny", "TEXT": prose}.get(word, word) for word in line.split()]
    found = quantcli(*arguments, "--json", cwd=tmp_path)
    assert found.returncode == status, found.stderr
    error = json.loads(found.stdout)["error"]
    assert words in f"{error['message']} {error['where']} {error['hint']}", error
    assert "Traceback" not in found.stderr and not os.listdir(tmp_path)
