"""Runs that meet, and steps that fail: what is there is whole, and the message says it."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from helpers.program import quantcli
from quantcli.cli.parse import convert_request
from quantcli.commands import convert, verify
from quantcli.errors import OutputFailed, QuantcliError
from quantcli.output import checksums, transaction, writer
from quantcli.sources.files import SourceFile

TINY = Path(__file__).resolve().parents[2] / "examples" / "tiny"
NAMES = ["m-1", "m-2", "m-3", "m-4"]


def finished(folder: Path, names: list[str], text: str, *, force: bool) -> list[writer.OutputFile]:
    return [writer.complete(folder / name, text.encode(), force=force) for name in names]


def visible(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("moment", range(4))
@pytest.mark.parametrize("complete", [0, 1])
def test_a_set_that_fails_leaves_nothing_new(
    tmp_path: Path, force: bool, moment: int, complete: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every step of a set; alone, and behind another set, which stays and is named."""
    if force:
        transaction.publish([finished(tmp_path, NAMES, "old", force=True)])
    sets = [finished(tmp_path, ["other"], "new", force=force) for _ in range(complete)]
    sets.append(finished(tmp_path, NAMES, "new", force=force))
    original, count = writer.OutputFile.publish, 0

    def failing(self: writer.OutputFile) -> None:
        nonlocal count
        count += 1
        with writer.failures(self.path):
            if count == moment + complete + 1:
                raise OSError(errno.EIO, "the disk is broken")
        original(self)

    monkeypatch.setattr(writer.OutputFile, "publish", failing)
    with pytest.raises(OutputFailed, match="broken") as caught:
        transaction.publish(sets)
    for files in sets:
        for file in files:
            file.discard()
    left = visible(tmp_path)
    assert {name for name, text in left.items() if text == "new"} == ({"other"} if complete else set())
    assert "m-1" not in left and ("m-1 is gone" in str(caught.value)) == force
    assert ("complete under its name" in str(caught.value)) == bool(complete)


def test_a_list_that_cannot_be_written_is_found_before_the_first_name(tmp_path: Path) -> None:
    files = finished(tmp_path, NAMES, "new", force=False)
    (tmp_path / "SUMS").write_text("not a list\n")
    with pytest.raises(QuantcliError, match="not a line"):
        transaction.publish([files], tmp_path / "SUMS")
    for file in files:
        file.discard()
    assert visible(tmp_path) == {"SUMS": "not a list\n"}


@pytest.mark.parametrize("round_", range(5))
def test_sets_that_end_together_do_not_mix(tmp_path: Path, round_: int) -> None:
    """Several writers of one set and one list: one of them has the last word, in all files and in the list."""
    start = threading.Barrier(4)

    def work(text: str) -> None:
        files = finished(tmp_path, NAMES, text, force=True)
        start.wait()
        transaction.publish([files], tmp_path / "SUMS")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, [f"by {index}" for index in range(4)]))
    left = visible(tmp_path)
    sums = checksums.Checksums(tmp_path / "SUMS").sums
    assert sorted(left) == ["SUMS", *NAMES] and len({left[name] for name in NAMES}) == 1
    assert len(sums) == 4 and len(set(sums.values())) == 1


def test_locks_of_two_folders_are_taken_in_one_order(tmp_path: Path) -> None:
    """Who writes into A and lists in B meets who writes into B and lists in A."""
    for name in "ab":
        (tmp_path / name).mkdir()

    def work(names: str) -> None:
        for round_ in range(20):
            folder, other = (tmp_path / name for name in names)
            transaction.publish([finished(folder, [f"m{round_}"], "x", force=False)], other / "SUMS")

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(work, "ab"), pool.submit(work, "ba")]:
            done.result(timeout=60)
    assert all(len(checksums.Checksums(tmp_path / name / "SUMS").sums) == 20 for name in "ab")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("shards")
    request = convert_request(source=TINY, types=("Q4_0",), output=folder / "m.gguf", split_max_size="600K")
    return [Path(name) for name in convert.run(request)["outputs"][0]["files"]]


def test_every_shard_stands_for_its_set(tmp_path: Path, shards: list[Path]) -> None:
    """Whichever shard is missing, `verify` of any other says so; and of one under another name, that it is that."""
    assert len(shards) > 2 and verify.run(shards)["ok"]
    for missing in shards:
        folder = tmp_path / missing.stem
        shutil.copytree(missing.parent, folder)
        (folder / missing.name).unlink()
        for path in folder.iterdir():
            problem = verify.run([path])["files"][0]["problem"]
            assert problem is not None and "is missing" in problem and missing.name in problem
    renamed = tmp_path / "renamed.gguf"
    for index, path in enumerate(shards):
        shutil.copy(path, renamed)
        problem = verify.run([renamed])["files"][0]["problem"]
        assert problem is not None and "its name does not say so" in problem and str(len(shards)) in problem, index


@pytest.mark.parametrize("kind", [SourceFile, lambda path: writer.OutputFile(path, 1, force=True)])
def test_a_descriptor_is_closed_once(tmp_path: Path, kind: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where an interrupt arrives behind the call: by the second time the number may be another file's."""
    (tmp_path / "file").write_text("x")
    file, close, closed = kind(tmp_path / "file"), os.close, []  # type: ignore[operator]  # both take a path

    def interrupted(descriptor: int) -> None:
        close(descriptor)
        closed.append(descriptor)
        if len(closed) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "close", interrupted)
    finish = file.close if isinstance(file, SourceFile) else file.discard
    with pytest.raises(KeyboardInterrupt):
        finish()
    finish()
    del file, finish
    assert len(closed) == 1


def test_what_an_interrupt_hides_is_removed_at_the_end(tmp_path: Path) -> None:
    """A file that nobody holds any more: the process removes it when it ends."""
    code = (
        f"from quantcli.output.writer import OutputFile; OutputFile({str(tmp_path / 'a')!r}, 10); raise SystemExit(3)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert done.returncode == 3 and not list(tmp_path.iterdir())


@pytest.mark.parametrize("force", [False, True])
def test_two_conversions_into_one_output(tmp_path: Path, force: bool) -> None:
    """Of two programs at once both, or one, succeed; the set is one conversion's, and listed as it is."""
    command = ["convert", TINY, "-t", "Q8_0", "-o", "m.gguf", "--split-max-size", "1M", "--checksums", "SUMS"]
    command += ["--force"] if force else []

    def work(version: str) -> int:
        return quantcli(*command, "--metadata", f"general.version={version}", cwd=tmp_path).returncode

    with ThreadPoolExecutor(2) as pool:
        codes = list(pool.map(work, ("one", "two")))
    files = sorted(tmp_path.glob("*.gguf"))
    assert sorted(codes) in ([[0, 0]] if force else [[0, 1]])
    assert verify.run(files, checksums=tmp_path / "SUMS")["ok"] and len(files) > 2
    assert not list(tmp_path.glob(".quantcli-*"))
