"""Finished files or none: atomic appearance, stale files, full disks, targets that must not be written."""

from __future__ import annotations

import hashlib
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from quantcli import system
from quantcli.errors import OutputExists, OutputFailed, OutputIsInput, UsageError
from quantcli.output import follower, journals, writer


def test_a_file_appears_only_when_published(tmp_path: Path) -> None:
    target = tmp_path / "x.gguf"
    output = writer.OutputFile(target, 6)
    output.append(b"abc")
    output.append(memoryview(b"def"))
    digest = output.finish()
    assert not target.exists()
    output.publish()
    assert target.read_bytes() == b"abcdef" and digest == hashlib.sha256(b"abcdef").hexdigest()
    output.discard()
    assert [p.name for p in tmp_path.iterdir()] == ["x.gguf"]


@pytest.mark.parametrize("character", ["a", "é", "あ", "🦙", "\udcff"])
def test_every_name_that_a_file_can_have(tmp_path: Path, character: str) -> None:
    """Systems count bytes: what a temporary name has of it is whole characters that leave room for the rest."""
    longest = 255 // len(os.fsencode(character))
    for count in {1, 30, 33, 34, 50, 60, 79, 83, 95, 100, 101, 120, longest} & set(range(1, longest + 1)):
        target = tmp_path / (character * count)
        output = writer.OutputFile(target, 1)
        output.append(b"x")
        output.finish()
        output.publish()
        hidden = journals.temporary(target)
        for name in (hidden.name, hidden.with_suffix(journals.SUFFIX).name):
            assert len(os.fsencode(name)) <= 255 and (character == "\udcff" or name.encode())
        assert target.read_bytes() == b"x" and [path.name for path in tmp_path.iterdir()] == [target.name]
        target.unlink()


def test_discard_leaves_nothing(tmp_path: Path) -> None:
    output = writer.OutputFile(tmp_path / "x.gguf", 1 << 20)
    output.append(b"abc")
    output.discard()
    output.discard()
    assert not list(tmp_path.iterdir())


def test_a_short_file_is_never_finished(tmp_path: Path) -> None:
    output = writer.OutputFile(tmp_path / "x.gguf", 10)
    output.append(b"abc")
    with pytest.raises(AssertionError):
        output.finish()
    output.discard()


@pytest.mark.parametrize("known", [1, 5, 40])  # pieces that are written before the beginning is known
@pytest.mark.parametrize("slow", [False, True])  # the writer, or who follows it
def test_a_late_file_is_hashed_while_it_grows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: int, slow: bool
) -> None:
    monkeypatch.setattr(follower, "PIECE", 5_000 if slow else 1 << 20)
    pieces = [bytes([number]) * (4_096 + number) for number in range(40)]
    output = writer.OutputFile(tmp_path / "x.gguf", sum(map(len, pieces)), late=True)
    for number, piece in enumerate(pieces, 1):
        output.append(piece)
        if number == known:
            output.replace_head(b"head")
        if not slow:
            time.sleep(0.001)
    said = output.finish()
    output.publish()
    expected = b"head" + b"".join(pieces)[4:]
    assert (tmp_path / "x.gguf").read_bytes() == expected and said == hashlib.sha256(expected).hexdigest()


def test_who_has_caught_up_leaves_the_rest_to_the_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that what is written is read back only as far as it was there before the beginning was known."""
    output = writer.OutputFile(tmp_path / "x.gguf", 12, late=True)
    output.append(b"none")
    output.replace_head(b"head")
    while following():
        time.sleep(0.001)
    monkeypatch.setattr(system, "read_into", None)
    output.append(b"12345678")
    assert output.finish() == hashlib.sha256(b"head12345678").hexdigest()
    output.discard()


def test_a_late_file_that_is_cut_meanwhile_is_an_error(tmp_path: Path) -> None:
    output = writer.OutputFile(tmp_path / "x.gguf", 8, late=True)
    output.append(b"12345678")
    os.truncate(next(tmp_path.iterdir()), 0)
    output.replace_head(b"")
    with pytest.raises(OutputFailed, match="another program has cut it"):
        output.finish()
    output.discard()
    assert not list(tmp_path.iterdir())


def test_nobody_follows_a_discarded_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []
    original = system.read_into
    monkeypatch.setattr(follower, "PIECE", 1)
    monkeypatch.setattr(system, "read_into", lambda *given: reads.append(time.sleep(0.01) or 1) or original(*given))
    output = writer.OutputFile(tmp_path / "x.gguf", 1 << 20, late=True)
    output.append(bytes(1 << 20))
    output.replace_head(b"head")
    output.discard()
    assert not following() and len(reads) < 1 << 20 and not list(tmp_path.iterdir())


def following() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "quantcli-follow"]


def test_without_force_a_file_that_appeared_meanwhile_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "x.gguf"
    output = writer.OutputFile(target, 3)
    output.append(b"new")
    output.finish()
    target.write_bytes(b"precious")
    with pytest.raises(OutputExists):
        output.publish()
    output.discard()
    assert target.read_bytes() == b"precious" and len(list(tmp_path.iterdir())) == 1


def test_stale_files_of_dead_runs_go_and_live_ones_stay(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys, time; from quantcli.output import writer;"
        f"o = writer.OutputFile(pathlib.Path({str(tmp_path / 'd.gguf')!r}), 5);"
        "print('ready', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    live = writer.OutputFile(tmp_path / "l.gguf", 5)
    assert len(list(tmp_path.iterdir())) == 2 and writer.clean_stale(tmp_path) == []
    process.send_signal(signal.SIGKILL)
    process.wait()
    removed = writer.clean_stale(tmp_path)
    assert len(removed) == 1 and "d.gguf" in removed[0]
    live.append(b"12345")
    live.finish()
    live.publish()
    assert [p.name for p in tmp_path.iterdir()] == ["l.gguf"]


def test_a_full_disk_is_an_early_error(tmp_path: Path) -> None:
    free = os.statvfs(tmp_path)
    too_much = 2 * free.f_blocks * free.f_frsize
    with pytest.raises(OutputFailed) as caught:
        writer.OutputFile(tmp_path / "x.gguf", too_much)
    assert caught.value.hint and not list(tmp_path.iterdir())


def test_a_file_size_limit_is_a_clear_error(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OutputFailed) as caught:
            writer.OutputFile(tmp_path / "x.gguf", 1 << 20)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "ulimit" in caught.value.hint and not list(tmp_path.iterdir())


def test_disk_full_while_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = writer.OutputFile(tmp_path / "x.gguf", 100)

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", refuse)
    with pytest.raises(OutputFailed) as caught:
        output.append(b"x")
    monkeypatch.undo()
    output.discard()
    assert "No space" in str(caught.value) and not list(tmp_path.iterdir())


def test_a_failing_disk_is_never_a_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system reports a failed write-back once: to the flush during the work, not to the last one."""
    monkeypatch.setattr(writer, "FLUSH_BYTES", 10)
    calls = []

    def refuse(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 1:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", refuse, raising=False)
    output = writer.OutputFile(tmp_path / "x.gguf", 20)
    output.append(bytes(20))
    with pytest.raises(OutputFailed, match="Input/output"):
        output.finish()
    output.discard()
    assert calls and not list(tmp_path.iterdir())


def test_without_preallocation_free_space_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    with pytest.raises(OutputFailed) as caught:
        writer.OutputFile(tmp_path / "x.gguf", 1 << 60)
    assert "No space" in str(caught.value) and f"{1 << 60:,} bytes are needed" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_targets(tmp_path: Path) -> None:
    source, link, folder = tmp_path / "in.gguf", tmp_path / "link.gguf", tmp_path / "d"
    source.write_bytes(b"x")
    link.symlink_to(source)
    folder.mkdir()
    check = writer.check_targets
    check([tmp_path / "new.gguf"], [str(source)], force=False)
    for path in (source, link):
        with pytest.raises(OutputIsInput):
            check([path], [str(source)], force=True)
    with pytest.raises(OutputExists):
        check([source], [], force=False)
    check([source], [], force=True)
    with pytest.raises(OutputFailed):
        check([folder], [], force=True)
    with pytest.raises(OutputFailed):
        check([tmp_path / "none" / "x.gguf"], [], force=False)
    with pytest.raises(OutputFailed, match="not a folder"):
        check([source / "x.gguf"], [], force=False)
    with pytest.raises(UsageError):
        check([tmp_path / "a.gguf", folder / ".." / "a.gguf"], [], force=False)


@pytest.mark.parametrize("force", [False, True])
def test_no_writer_replaces_what_is_no_file(tmp_path: Path, force: bool) -> None:
    """Whoever forgets `check_targets`: texts, tables, matrices and models go through the same door."""
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to("nowhere")
    with pytest.raises(OutputFailed, match="not a regular file"):
        writer.write_bytes(pipe, b"x", force=force)
    with pytest.raises(OutputFailed, match="is a folder"):
        writer.write_bytes(tmp_path, b"x", force=force)
    if force:
        writer.write_bytes(link, b"x")
        assert link.read_bytes() == b"x" and not link.is_symlink()
    else:
        with pytest.raises(OutputExists, match="nowhere"):
            writer.check_targets([link], [], force=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "pipe"]


def test_two_runs_at_once_end_with_one_complete_file(root: Path, tmp_path: Path) -> None:
    target = tmp_path / "tiny.gguf"
    command = [
        sys.executable,
        "-m",
        "quantcli",
        "convert",
        str(root / "examples/tiny"),
        "-t",
        "Q6_K",
        "-o",
        str(target),
        "--force",
    ]
    runs = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(3)]
    for run in runs:
        assert run.wait(timeout=120) == 0, run.stderr.read()
    assert [p.name for p in tmp_path.iterdir()] == ["tiny.gguf"]
    from quantcli.container import read_header

    assert len(read_header(target).tensors) == 38


def test_kill_leaves_no_final_name_and_the_next_run_cleans_up(shared: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "quantcli",
        "convert",
        str(shared / "models/mid"),
        "-t",
        "Q2_K",
        "-o",
        str(tmp_path),
    ]
    run = subprocess.Popen(command, env=os.environ | {"QUANTCLI_SIMD": "scalar"}, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(tmp_path.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.005)
    run.send_signal(signal.SIGKILL)
    run.wait()
    left = [p.name for p in tmp_path.iterdir()]
    assert len(left) == 1 and left[0].startswith(".quantcli-") and left[0].endswith(".part")
    assert subprocess.run(command, stderr=subprocess.DEVNULL).returncode == 0
    assert [p.name for p in tmp_path.iterdir()] == ["mid-Q2_K.gguf"]
