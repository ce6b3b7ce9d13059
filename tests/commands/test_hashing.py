"""The sources' sha256 is made while they are read, and stands in the header of every first shard."""

from __future__ import annotations

import hashlib
import os
import threading
from concurrent.futures import Future, wait
from pathlib import Path

import pytest

from quantcli import container
from quantcli.cli.parse import convert_request
from quantcli.commands import convert, hashing
from quantcli.encode import pipeline
from quantcli.encode.slabs import Slab
from quantcli.errors import QuantcliError, SourceChanged
from quantcli.output.writer import OutputFile
from quantcli.sources import digests

KEY = "quantcli.source.sha256.model.safetensors"


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process hashes a file once: here every conversion is the first."""
    monkeypatch.setattr(digests, "_known", {})


def made(root: Path, output: Path, **options: object) -> list[dict]:
    given = {"types": ("Q4_K_M", "Q8_0"), "output": f"{output}/", **options}
    return convert.run(convert_request(source=root / "examples" / "tiny", **given))["outputs"]


def running() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("quantcli-hash")]


@pytest.mark.parametrize("ahead", [0, 4 << 30])
@pytest.mark.parametrize("split", [None, "500K"])
def test_headers_tell_what_was_read(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead: int, split: str | None
) -> None:
    """However near hashing stays to reading; what is said of the outputs is the sha256 of what lies there."""
    monkeypatch.setattr(hashing, "AHEAD", ahead)
    expected = hashlib.sha256((root / "examples" / "tiny" / "model.safetensors").read_bytes()).hexdigest()
    outputs = made(root, tmp_path / "out", split_max_size=split)
    assert len(outputs) == 2
    for output in outputs:
        assert container.read_header(Path(output["shards"][0]["path"])).metadata[KEY].data == expected
        for shard in output["shards"]:
            assert hashlib.sha256(Path(shard["path"]).read_bytes()).hexdigest() == shard["sha256"]
    assert not running()


def test_the_same_bytes_as_a_run_that_can_be_resumed(root: Path, tmp_path: Path) -> None:
    """That one hashes first, because its headers have to be complete."""
    late, early = made(root, tmp_path / "late"), made(root, tmp_path / "early", resume=True)
    assert [one["sha256"] for one in late] == [one["sha256"] for one in early]


def test_hashing_begins_with_reading(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    run, of = pipeline.run, digests._of
    monkeypatch.setattr(pipeline, "run", lambda *given, **more: order.append("read") or run(*given, **more))
    monkeypatch.setattr(
        digests, "_of", lambda path, tell: order.append(threading.current_thread().name) or of(path, tell)
    )
    made(root, tmp_path / "out")
    assert sorted(order)[-1] == "read" and len(order) == 2 and "MainThread" not in order


def test_outputs_are_hashed_while_they_are_written(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the moment on that the hashes of the source are known, not in the end."""
    written: list[bool] = []
    hashes: list[Future[dict[str, str]]] = []
    begun, read, head = hashing.Hashing.__enter__, pipeline.Encoder.read, OutputFile.replace_head

    def entered(self: hashing.Hashing) -> hashing.Hashing:
        hashes.append(begun(self)._found)
        return self

    def read_later(self: pipeline.Encoder, slab: Slab) -> object:
        wait(hashes, timeout=60)
        return read(self, slab)

    def noted(self: OutputFile, data: bytes) -> None:
        written.append(self.written < self.size)
        head(self, data)

    monkeypatch.setattr(hashing.Hashing, "__enter__", entered)
    monkeypatch.setattr(pipeline.Encoder, "read", read_later)
    monkeypatch.setattr(OutputFile, "replace_head", noted)
    outputs = made(root, tmp_path / "out")
    assert written == [True] * len(outputs)


def test_a_part_hashes_without_keeping_pace(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads little of the source: its hash would wait for the end of its work."""
    monkeypatch.setattr(hashing, "AHEAD", -1)
    complete: list[bool] = []
    finish = hashing.Hashing.finish

    def looked(self: hashing.Hashing, reporter: object) -> dict[str, str]:
        complete.append(not wait([self._found], timeout=2).not_done)
        return finish(self, reporter)

    monkeypatch.setattr(hashing.Hashing, "finish", looked)
    whole = made(root, tmp_path / "whole", split_max_size="500K")
    for number in (1, 2):
        made(root, tmp_path / "parts", split_max_size="500K", part=f"{number}/2")
    assert complete == [False, True]
    for shard in whole[0]["shards"]:
        assert Path(shard["path"]).read_bytes() == (tmp_path / "parts" / Path(shard["path"]).name).read_bytes()


def test_a_failure_leaves_nothing(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither files nor a thread that hashes on."""
    monkeypatch.setattr(hashing, "AHEAD", -1)  # it waits after its first piece

    def fails(*given: object, **more: object) -> None:
        raise QuantcliError("the disk is full")

    monkeypatch.setattr(pipeline, "run", fails)
    with pytest.raises(QuantcliError, match="the disk is full"):
        made(root, tmp_path / "out")
    assert not running() and not (tmp_path / "out").exists()


def test_a_source_that_changes_meanwhile(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "tiny"
    folder.mkdir()
    for path in (root / "examples" / "tiny").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    run = pipeline.run

    def changed(*given: object, **more: object) -> object:
        done = run(*given, **more)
        os.utime(folder / "model.safetensors", (1, 1))
        return done

    monkeypatch.setattr(pipeline, "run", changed)
    with pytest.raises(SourceChanged):
        convert.run(convert_request(source=folder, types=("Q8_0",), output=f"{tmp_path / 'out'}/"))
    assert not (tmp_path / "out").exists()
