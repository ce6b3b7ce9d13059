"""Layer by layer: every weight is read once, one layer is in memory, and the folder of states is nobody else's."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy
import pytest

from helpers import oracles
from quantcli import system
from quantcli.calibration import collect
from quantcli.errors import BadStates, OutputFailed, UnsupportedGraph
from quantcli.runner import layerwise, text, waiting
from quantcli.runner.session import RunOptions, Session, open_session
from quantcli.runner.text import Chunks

LENGTH = 16


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "BATCH", 2 * LENGTH)


def chunks_for(seed: int = 0, count: int = 5) -> Chunks:
    ids = numpy.random.default_rng(seed).integers(3, 300, (count, LENGTH)).astype(numpy.int32)
    return Chunks("t", ids, 1)


@contextmanager
def opened(name: str = "qwen3-moe", **options: object) -> Iterator[Session]:
    with open_session(oracles.folder(name), RunOptions(length=LENGTH, **options)) as session:
        yield session


class Counting:
    """A reader of rows that notes which were read."""

    def __init__(self, reader: object) -> None:
        self.reader, self.rows = reader, 0

    def read_rows(self, start: int, stop: int, out: object = None) -> numpy.ndarray:
        self.rows += stop - start
        return self.reader.read_rows(start, stop, out)

    def read_raw(self, start: int, stop: int) -> memoryview:
        self.rows += stop - start
        return self.reader.read_raw(start, stop)


def test_every_weight_is_read_once_and_one_layer_is_held(tmp_path: Path) -> None:
    """Experts too, though three batches need each of them."""
    with opened() as session:
        network, chunks = session.network, chunks_for()
        tensors = network.weights.tensors
        with layerwise.waiting(session, chunks, tmp_path / "s", "t") as states:
            counting = {name: Counting(one.reader) for name, one in tensors.items() if name.startswith("blk.")}
            tensors.update({name: replace(tensors[name], reader=one) for name, one in counting.items()})
            held, told = [], []

            def note(done: int, known: str) -> None:
                held.append(network.weights.held_bytes)
                told.append((done, known))

            collect.collect_by_layer(session, chunks, states, progress=note)
        assert len(chunks.batches()) == 3 and any("_exps" in name for name in counting)
        assert {name: one.rows for name, one in counting.items()} == {name: tensors[name].rows for name in counting}
        layer = sum(4 * one.rows * one.columns for name, one in tensors.items() if name.startswith("blk.0."))
        assert 0 < max(held) <= layer and network.weights.held_bytes == 0
        layers = network.settings.layers
        assert told[-1] == (layers * len(chunks), f"layer {layers} of {layers}") and told == sorted(told)


def test_encoder_decoders_are_refused_by_name() -> None:
    with pytest.raises(UnsupportedGraph, match="t5 has an encoder beside the decoder"), opened("t5"):
        pass


def begun(folder: Path, layers: int = 1, **options: object) -> None:
    """A run that ended behind so many layers."""

    def stop(done: int, known: str) -> None:
        if done > layers * len(chunks_for()):
            raise KeyboardInterrupt

    with opened(**options) as session, layerwise.waiting(session, chunks_for(), folder, "t") as states:
        with pytest.raises(KeyboardInterrupt):
            layerwise.pass_through(session.network, chunks_for(), states, progress=stop)
        assert states.done == layers


def test_an_unfinished_run_is_gone_on_with_only_when_asked(tmp_path: Path) -> None:
    begun(tmp_path / "s")
    with opened() as session:
        with pytest.raises(BadStates, match="unfinished run") as found:
            layerwise.waiting(session, chunks_for(), tmp_path / "s", "t")
        assert "--resume" in found.value.hint and f"rm -r {tmp_path / 's'}" in found.value.hint
        with layerwise.waiting(session, chunks_for(), tmp_path / "s", "t", resume=True) as states:
            assert states.done == 1
            with pytest.raises(BadStates, match="another run works in this folder"):
                layerwise.waiting(session, chunks_for(), tmp_path / "s", "t", resume=True)
            states.remove()
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"chunks": chunks_for(1)}, "another text"),
        ({"chunks": chunks_for(count=4)}, "another text"),
        ({"name": "olmoe"}, "another model"),
        ({"kv_type": "F32"}, "another type of the KV cache"),
        ({"activations": "q8"}, "other activations"),
        ({"purpose": "else"}, "another purpose"),
        ({"version": "0"}, "another version of quantcli"),
    ],
)
def test_a_run_of_something_else_is_not_gone_on_with(
    tmp_path: Path, other: dict, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun(tmp_path / "s")
    before = {path.name: path.read_bytes() for path in (tmp_path / "s").iterdir()}
    chunks, purpose, name = (other.pop(key, usual) for key, usual in
                             (("chunks", chunks_for()), ("purpose", "t"), ("name", "qwen3-moe")))  # fmt: skip
    monkeypatch.setattr(layerwise, "__version__", other.pop("version", layerwise.__version__))
    with opened(name, **other) as session, pytest.raises(BadStates, match=f"was begun with {words}"):
        layerwise.waiting(session, chunks, tmp_path / "s", purpose, resume=True)
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "s").iterdir()}


def test_folders_of_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "one").write_text("dear")
    (tmp_path / "file").write_text("dear")
    with opened() as session:
        for name in ("letters", "file"):
            with pytest.raises(BadStates, match="holds something else"):
                layerwise.waiting(session, chunks_for(), tmp_path / name, "t")
        (tmp_path / "empty").mkdir()
        with layerwise.waiting(session, chunks_for(), tmp_path / "empty", "t") as states:
            (tmp_path / "empty" / "mine").write_text("kept")
            states.remove()
    assert sorted(os.listdir(tmp_path)) == ["empty", "file", "letters"]
    assert os.listdir(tmp_path / "empty") == ["mine"]


def test_a_full_disk_is_told_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, size: int) -> None:
        raise OSError(errno.ENOSPC, f"No space left on device: {size:,} bytes are needed")

    monkeypatch.setattr(system, "reserve", full)
    with opened() as session, pytest.raises(OutputFailed, match="bytes are needed") as found:
        layerwise.waiting(session, chunks_for(), tmp_path / "s", "t")
    assert "--states" in found.value.hint


def cut_run(folder: Path, layers: int, *, into_the_next: bool) -> numpy.ndarray:
    """A run of gemma3 that ended just behind so many layers, or in the one that follows; what its end would be."""
    with opened("gemma3") as session, layerwise.waiting(session, chunks_for(), folder, "t") as states:
        finish = states.finish

        def finish_and_stop(layer: int, arrays: waiting.Arrays) -> None:
            finish(layer, arrays)
            if layer + 1 == layers and not into_the_next:
                raise KeyboardInterrupt

        def stop(done: int, known: str) -> None:
            if done > layers * len(chunks_for()):
                raise KeyboardInterrupt

        states.finish = finish_and_stop
        with pytest.raises(KeyboardInterrupt):
            layerwise.pass_through(session.network, chunks_for(), states, progress=stop)
        batches = [session.network.stream(chunks_for().inputs(*one)) for one in chunks_for().batches()]
    return numpy.concatenate(batches)


def spoil(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["states-0.f32", "layer-0001.arrays"])
def test_what_a_power_cut_spoils_is_done_again(tmp_path: Path, name: str) -> None:
    wanted = cut_run(tmp_path / "s", 2, into_the_next=False)
    spoil(tmp_path / "s" / name)
    resumed = {"path": tmp_path / "s", "purpose": "t", "resume": True}
    with opened("gemma3") as session, layerwise.waiting(session, chunks_for(), **resumed) as states:
        assert states.done == 1
        layerwise.pass_through(session.network, chunks_for(), states)
        assert numpy.array_equal(layerwise.final(session.network, states, 0, 5), wanted)


def test_states_that_are_spoiled_for_good_are_refused(tmp_path: Path) -> None:
    """The layer that was worked on has written over what the one before it had read."""
    wanted = cut_run(tmp_path / "s", 2, into_the_next=True)
    with opened("gemma3") as session:
        with layerwise.waiting(session, chunks_for(), tmp_path / "s", "t", resume=True) as states:
            assert states.done == 2
        spoil(tmp_path / "s" / "states-0.f32")
        with pytest.raises(BadStates, match="are not what they were") as found:
            layerwise.waiting(session, chunks_for(), tmp_path / "s", "t", resume=True)
        assert f"rm -r {tmp_path / 's'}" in found.value.hint
        with layerwise.waiting(session, chunks_for(), tmp_path / "anew", "t") as states:
            layerwise.pass_through(session.network, chunks_for(), states)
            assert numpy.array_equal(layerwise.final(session.network, states, 0, 5), wanted)


def test_files_are_brought_to_the_disk_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (synced.append(descriptor), fsync(descriptor)))
    for seconds, expected in ((1e9, 0), (0.0, 7 * 2)):  # of each layer its states and its file
        synced.clear()
        monkeypatch.setattr(waiting, "SYNC_SECONDS", seconds)
        folder = tmp_path / f"{seconds}"
        with opened("gemma3") as session, layerwise.waiting(session, chunks_for(), folder, "t") as states:
            layerwise.pass_through(session.network, chunks_for(), states)
            sizes = [(folder / f"states-{n}.f32").stat().st_size for n in (0, 1)]
            states.remove()
        assert len(synced) == expected and bool(sizes[0]) == (not expected) and sizes[1]


@contextmanager
def sharing(last: bool) -> Iterator[Session]:
    """gemma3; where ``last``, its last layer reads keys and values of the first, as those of Gemma 3n do."""
    with opened("gemma3") as session:
        settings = session.network.settings
        if last:
            session.network.settings = replace(settings, sources=(*settings.sources[:-1], 0))
        yield session


def finished(folder: Path, last: bool) -> None:
    """A run that was stopped just before the last layer."""
    with sharing(last) as session, layerwise.waiting(session, chunks_for(), folder, "t") as states:
        finish = states.finish

        def finish_and_stop(layer: int, arrays: waiting.Arrays) -> None:
            finish(layer, arrays)
            if layer + 2 == states.layers:
                raise KeyboardInterrupt

        states.finish = finish_and_stop
        with pytest.raises(KeyboardInterrupt):
            layerwise.pass_through(session.network, chunks_for(), states)


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("harm", ["spoiled", "missing"])
def test_every_file_is_looked_at_before_the_work(tmp_path: Path, last: bool, harm: str) -> None:
    """Whatever is damaged: the layer before is taken, or the run is refused, every time and with nothing changed."""
    folder, taken = tmp_path / "s", []
    with sharing(last) as session:
        layers = session.network.settings.layers
        wanted = numpy.concatenate([session.network.stream(chunks_for().inputs(*b)) for b in chunks_for().batches()])
    finished(folder, last)
    kept = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert any(file.startswith("carried") for file in kept) == last
    for file in sorted(set(kept) - {"manifest.json"}):
        spoil(folder / file) if harm == "spoiled" else (folder / file).unlink()
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        with sharing(last) as session:
            try:
                with layerwise.waiting(session, chunks_for(), folder, "t", resume=True) as states:
                    taken.append(file)
                    layerwise.pass_through(session.network, chunks_for(), states)
                    assert numpy.array_equal(layerwise.final(session.network, states, 0, 5), wanted), file
            except BadStates as error:
                assert f"rm -r {folder}" in error.hint
                found = {path.name: path.read_bytes() for path in folder.iterdir()}
                assert {key: found[key] for key in before} == before, file  # what was away may be there, empty
                with pytest.raises(BadStates):
                    layerwise.waiting(session, chunks_for(), folder, "t", resume=True)
        for path in folder.iterdir():
            path.unlink()
        for key, data in kept.items():
            (folder / key).write_bytes(data)
    assert sorted(taken) == [f"layer-{layers - 2:04}.arrays", "states-0.f32", "states-1.f32"]


def test_a_run_that_has_done_no_layer_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*unused: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def interrupted(*unused: object) -> None:
        raise KeyboardInterrupt

    for owner, attribute, how in (
        (system, "reserve", full), (system, "write_at", full), (waiting.locks, "taken", full),
        (waiting.Waiting, "put", interrupted),
    ):  # fmt: skip
        with opened("gemma3") as session, monkeypatch.context() as patched:
            patched.setattr(owner, attribute, how)
            with pytest.raises((OutputFailed, KeyboardInterrupt)):
                states = layerwise.waiting(session, chunks_for(), tmp_path / "s", "t")
                try:
                    layerwise.pass_through(session.network, chunks_for(), states)
                finally:
                    states.end()
        assert not list(tmp_path.iterdir()), attribute
