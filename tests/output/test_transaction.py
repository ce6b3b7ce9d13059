"""Several files that appear together: no mixture of two conversions, whatever happens in between."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from quantcli import container
from quantcli.cli.parse import convert_request
from quantcli.commands import convert, writing
from quantcli.errors import MalformedFile, OutputExists, OutputIsInput, QuantcliError, SourceChanged, UsageError
from quantcli.output import transaction, writer

TINY = Path(__file__).resolve().parents[2] / "examples" / "tiny"


def finished(folder: Path, names: list[str], text: str, *, force: bool = True) -> list[writer.OutputFile]:
    files = []
    for name in names:
        files.append(writer.OutputFile(folder / name, len(text), force=force))
        files[-1].append(text.encode())
        files[-1].finish()
    return files


NAMES = ["m-1", "m-2", "m-3"]


@pytest.mark.parametrize("moment", range(4))
def test_whatever_step_fails_the_first_shard_is_never_of_another_set(
    tmp_path: Path, moment: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first shard is what a reader opens: while the others are replaced it is not there."""
    transaction.publish([finished(tmp_path, NAMES, "old")])
    files, original, count = finished(tmp_path, NAMES, "new"), writer.OutputFile.publish, 0

    def failing(self: writer.OutputFile) -> None:
        nonlocal count
        if count == moment:
            raise OSError("killed here")
        count += 1
        original(self)

    monkeypatch.setattr(writer.OutputFile, "publish", failing)
    try:
        transaction.publish([files])
    except OSError:
        assert not (tmp_path / "m-1").exists() and moment < 3
    else:
        assert moment == 3 and {(tmp_path / name).read_text() for name in NAMES} == {"new"}
    for file in files:
        file.discard()
    assert not list(tmp_path.glob(".quantcli-*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_while_publishing_finds_all_files(
    tmp_path: Path, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, arrived = writer.OutputFile.publish, []

    def interrupted(self: writer.OutputFile) -> None:
        os.kill(os.getpid(), number)
        original(self)

    monkeypatch.setattr(writer.OutputFile, "publish", interrupted)
    before = signal.signal(number, lambda *_: arrived.append(len(list(tmp_path.glob("m-*")))))
    try:
        transaction.publish([finished(tmp_path, NAMES, "new")])
    finally:
        signal.signal(number, before)
    assert arrived == [3]
    assert {tmp_path / name for name in NAMES} <= set(transaction.published())


def test_shards_of_two_conversions_are_refused(tmp_path: Path) -> None:
    """Every mixture of two sets with the same names, shard by shard."""
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    first = [Path(n) for n in convert.run(convert_request(
        source=TINY, types=("Q8_0",), output=one / "m.gguf", split_max_size="1M"))["outputs"][0]["files"]]  # fmt: skip
    second = [Path(n) for n in convert.run(convert_request(
        source=TINY, types=("Q8_0",), output=other / "m.gguf", split_max_size="1M", search="ggml"
    ))["outputs"][0]["files"]]  # fmt: skip
    assert [path.name for path in first] == [path.name for path in second] and len(first) > 2
    container.read_split_headers(first[0])
    for index in range(len(first)):
        mixed = tmp_path / f"mixed-{index}"
        shutil.copytree(one, mixed)
        shutil.copy(second[index], mixed / second[index].name)
        with pytest.raises(MalformedFile, match="two conversions"):
            container.read_split_headers(mixed / first[0].name)
        done = subprocess.run(
            [sys.executable, "-m", "quantcli", "verify", str(mixed / first[0].name)], capture_output=True, text=True
        )
        assert done.returncode == 1 and "two conversions" in done.stdout + done.stderr


def test_a_replaced_file_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for mode in (0o600, 0o640, 0o444):
        path.unlink(missing_ok=True)
        path.write_text("x")
        path.chmod(mode)
        writer.write_bytes(path, b"new")
        assert path.read_bytes() == b"new" and path.stat().st_mode & 0o777 == mode


@pytest.mark.parametrize("what", ["size", "time", "inode", "beginning", "gone"])
def test_a_source_that_changes_is_an_error(tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    shutil.copytree(TINY, source)
    weights = source / "model.safetensors"
    original = writing._fill

    def changing(*arguments: object, **named: object) -> object:
        result = original(*arguments, **named)  # type: ignore[arg-type]  # handed on as it came
        status = weights.stat()
        if what == "gone":
            weights.unlink()
        elif what == "inode":
            shutil.copy2(weights, tmp_path / "copy")
            os.replace(tmp_path / "copy", weights)
        elif what == "size":
            with weights.open("ab") as file:
                file.write(b"x")
        elif what == "beginning":
            with weights.open("r+b") as file:
                file.seek(100)
                file.write(b"~")
            os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns))
        else:
            os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))
        return result

    monkeypatch.setattr(writing, "_fill", changing)
    with pytest.raises(SourceChanged, match="changed while it was read") as caught:
        convert.run(convert_request(source=source, types=("Q8_0",), output=tmp_path / "out.gguf"))
    assert "model.safetensors" in str(caught.value) and not list(tmp_path.glob("*.gguf"))


OUTPUTS = {
    "model itself": ("{model}", OutputIsInput),
    "text": ("{text}", OutputIsInput),
    "existing": ("{exists}", OutputExists),
    "no folder": ("{folder}/missing/a", QuantcliError),
    "folder": ("{folder}", QuantcliError),
}


@pytest.mark.parametrize("option", ["--html", "--svg", "--reference-cache"])
@pytest.mark.parametrize("case", OUTPUTS)
def test_compare_refuses_outputs_before_the_work(
    tmp_path: Path, tiny_files: dict[str, Path], prose: Path, option: str, case: str
) -> None:
    if option == "--reference-cache" and case == "existing":
        pytest.skip("an existing record is used, not replaced")
    exists = tmp_path / "exists"
    exists.write_text("precious")
    path, _ = OUTPUTS[case]
    model = tmp_path / "model.gguf"
    shutil.copy(tiny_files["Q8_0"], model)
    place = path.format(model=model, text=prose, exists=exists, folder=tmp_path)
    command = ["compare", str(tiny_files["BF16"]), str(model), "-f", str(prose), option, place, "--chunks", "1"]
    done = subprocess.run([sys.executable, "-m", "quantcli", *command], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode in (1, 2) and "error" in done.stderr and "KLD" not in done.stdout, done
    assert exists.read_text() == "precious" and model.stat().st_size == tiny_files["Q8_0"].stat().st_size


def test_compare_refuses_two_outputs_of_one_name(tmp_path: Path, tiny_files: dict[str, Path], prose: Path) -> None:
    from quantcli.commands import compare

    request = compare.CompareRequest(
        reference=tiny_files["BF16"],
        models=[tiny_files["Q8_0"]],
        texts=[prose],
        html=tmp_path / "a",
        svg=tmp_path / "a",
    )
    with pytest.raises(UsageError, match="two outputs"):
        compare.prepare(request)
