"""Folders of statistics: every byte of every file counts, and what is wrong is told with what makes it again."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy
import pytest

from quantcli.calibration import folder
from quantcli.calibration.evidence import Recorded
from quantcli.calibration.folder import CALIBRATION, COMPLETE, MANIFEST, PASSES, Folder
from quantcli.errors import BadStatistics

TOP, OUTPUT = {"kind": PASSES, "tokens": 3}, {"kind": PASSES, "tokens": 3, "method": "gptq"}


def filled(path: Path, *, complete: bool = True) -> Path:
    """A folder of two outputs, as `--keep-statistics` makes it."""
    Folder(path, TOP).keep_text(numpy.arange(4, dtype=numpy.int32))
    for name in ("Q4_0", "Q8_0"):
        own = Folder(path / name, OUTPUT)
        own.write("blk.0", {"a": numpy.arange(6.0).reshape(2, 3), "b": numpy.array([True])})
        if complete:
            own.write(COMPLETE, {"layers": numpy.array([1])})
    return path


def used(path: Path) -> None:
    """As a conversion uses it."""
    folder.written_text(path)
    Folder(path, TOP)
    Folder(path / "Q4_0", OUTPUT).read("blk.0")


def test_what_was_kept_is_read_again(tmp_path: Path) -> None:
    path = filled(tmp_path / "st")
    used(path)
    text = folder.written_text(path)
    assert text is not None and text.tolist() == [0, 1, 2, 3]
    own = Folder(path / "Q4_0", OUTPUT)
    found = own.read("blk.0")
    assert found is not None and found["a"].tolist() == [[0, 1, 2], [3, 4, 5]] and own.has(COMPLETE)
    assert own.read("blk.1") is None and not own.has("blk.1")


def test_every_byte_counts(tmp_path: Path) -> None:
    """Also of the manifests, and of an output that is not the one that is made."""
    path, values = filled(tmp_path / "st"), numpy.random.default_rng(6)
    for file in sorted(one for one in path.rglob("*") if one.is_file()):
        data = file.read_bytes()
        places = values.permutation(len(data))[:60]
        changes = [data[:at] + bytes([data[at] ^ int(values.integers(1, 256))]) + data[at + 1 :] for at in places]
        for changed in (*changes, b"", data[:-1], data + b"\n", data * 2, bytes(len(data))):
            file.unlink()  # another file: what is known of a file's hash goes by its number and times
            file.write_bytes(changed)
            with pytest.raises(BadStatistics) as found:
                used(path)
            assert str(file.parent) in found.value.where and found.value.hint
        file.write_bytes(data)
    used(path)


def test_what_makes_it_again(tmp_path: Path) -> None:
    """A file alone where the folder is unfinished, else the folder: both do what they say."""
    cases = {
        "o b/Q4_0/blk.0.safetensors": (False, "rm '{}/Q4_0/blk.0.safetensors'; then one whole run"),
        "d/Q4_0/blk.0.safetensors": (True, "rm -r {}/Q4_0; then one whole run"),
        "e/written.safetensors": (True, "rm {}/written.safetensors; then one whole run"),
        f"f/Q4_0/{MANIFEST}": (True, "rm -r {}/Q4_0; then one whole run"),
        f"g/{MANIFEST}": (True, "rm -r {}; then what made it"),
    }
    for name, (complete, words) in cases.items():
        top = filled(tmp_path / Path(name).parts[0], complete=complete)
        file = tmp_path / name
        data = file.read_bytes()
        file.write_bytes(data[:-3])
        with pytest.raises(BadStatistics) as found:
            used(top)
        assert words.format(top) in found.value.hint
        if words.startswith("rm -r"):
            shutil.rmtree(file.parent)
        else:
            file.unlink()
        filled(top, complete=complete)
        used(top)


def test_calibrations_are_finished_by_calibrate(tmp_path: Path) -> None:
    own = Folder(tmp_path / "st", {"kind": CALIBRATION})
    own.write("layer-0000", {"x": numpy.zeros(3)})
    own.put("imatrix.gguf", b"values")
    for name in ("imatrix.gguf", "layer-0000.safetensors"):
        data = (own.path / name).read_bytes()
        (own.path / name).write_bytes(data[:-1] + b"?")
        with pytest.raises(BadStatistics) as found:
            Folder(own.path, {"kind": CALIBRATION})
        assert f"rm {own.path / name}; then quantcli calibrate MODEL -o {own.path} --resume" in found.value.hint
        (own.path / name).unlink()


def test_a_file_that_was_never_listed_is_made_again(tmp_path: Path) -> None:
    """A kill between the file and the manifest."""
    own = Folder(tmp_path / "st", TOP)
    shutil.copy(filled(tmp_path / "other") / "Q4_0" / "blk.0.safetensors", own.path)
    assert not own.has("blk.0") and own.read("blk.0") is None
    own.write("blk.0", {"a": numpy.zeros(1)})
    assert own.has("blk.0")


def test_several_runs_at_once_fill_a_folder(tmp_path: Path) -> None:
    """Each reads what others have just put there, whole, and everything is listed in the end."""
    path = filled(tmp_path / "st") / "Q4_0"

    def run(number: int) -> None:
        own = Folder(path, OUTPUT)
        for turn in range(6):
            own.write("shared", {"a": numpy.full(500, number * 10 + turn)})
            own.write(f"own-{number}-{turn}", {"a": numpy.arange(turn)})
            found = own.read("shared")
            assert found is not None and len(set(found["a"].tolist())) == 1

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(run, range(4)))
    own = Folder(path, OUTPUT)
    assert all(own.has(f"own-{number}-{turn}") for number in range(4) for turn in range(6)) and own.has(COMPLETE)


@pytest.mark.parametrize(
    ("content", "words", "own"),
    [
        (json.dumps({"schema": 1, **TOP}, indent=1), "is of an earlier version, without checksums", True),
        (json.dumps({"schema": 9, **TOP}, indent=1), "is damaged", True),
        ("{}", "is damaged", False),
        ('{"name": "a web application"}', "is damaged", False),
        ("[", "is damaged", False),
        ("[" * 1000, "is damaged", False),
        ("", "is damaged", False),
    ],
)
def test_other_manifests_are_refused_and_nothing_of_others_is_to_be_removed(
    content: str, words: str, own: bool, tmp_path: Path
) -> None:
    (tmp_path / MANIFEST).write_text(content)
    for use in (lambda: Folder(tmp_path, TOP), lambda: folder.written_text(tmp_path)):
        with pytest.raises(BadStatistics, match=words) as found:
            use()
        assert ("rm -r" in found.value.hint) is own


def arrays(columns: int = 4) -> dict[str, numpy.ndarray]:
    return {
        "metric/0/1/hessian": numpy.eye(columns, dtype=numpy.float32),
        "metric/0/1/order": numpy.arange(columns, dtype=numpy.int32),
        "metric/0/1/factor": numpy.zeros((columns, columns), numpy.float32),
        "metric/0/1/damping": numpy.array([0.01]),
    }


@pytest.mark.parametrize(
    "change",
    [
        {"metric/0/1/order": numpy.zeros(4, numpy.int32)},
        {"metric/0/1/order": numpy.arange(4, dtype=numpy.int32) + 90},
        {"metric/0/1/order": numpy.arange(5, dtype=numpy.int32)},
        {"metric/0/1/hessian": numpy.eye(3, dtype=numpy.float32)},
        {"metric/0/1/hessian": numpy.zeros(4, numpy.float32)},
        {"metric/0/1/factor": numpy.zeros((4, 3), numpy.float32)},
        {"metric/0/1/damping": numpy.zeros(0)},
    ],
)
def test_records_that_are_of_no_matrix_are_no_crash(change: dict[str, numpy.ndarray], tmp_path: Path) -> None:
    own = Folder(tmp_path / "st", TOP)
    own.write("blk.0", {})
    assert Recorded.of(own, "blk.0", arrays()).metric(0, 1).native.together == 1
    with pytest.raises(BadStatistics) as found:
        Recorded.of(own, "blk.0", arrays() | change).metric(0, 1)
    assert found.value.where.endswith("blk.0.safetensors") and "make it again" in found.value.hint
