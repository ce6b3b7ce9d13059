"""`verify`: bytes that no reader looks at, behind the last tensor of a file or of any shard."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from helpers import broken_files as b
from helpers.program import quantcli
from quantcli.cli.parse import convert_request
from quantcli.commands import convert, verify


@pytest.fixture(scope="module")
def shards(root: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("shards")
    request = convert_request(
        source=root / "examples" / "tiny", types=["Q8_0"], output=folder / "m.gguf", split_max_size="1M"
    )
    convert.run(request)
    return sorted(folder.iterdir())


@pytest.mark.parametrize("surplus", [1, 31, 32, 4096, 5_000_000])
@pytest.mark.parametrize("kind", ["Q8_0", "BF16", "Q2_K"])
def test_bytes_behind_the_last_tensor(tiny_files: dict[str, Path], tmp_path: Path, kind: str, surplus: int) -> None:
    path = tmp_path / "m.gguf"
    shutil.copy(tiny_files[kind], path)
    assert verify.run([path])["ok"]
    size = path.stat().st_size
    with open(path, "ab") as file:
        file.write(b"x" * surplus)
    (found,) = verify.run([path])["files"]
    assert not found["ok"] and f"{surplus:,} bytes behind the last tensor" in (found["problem"] or "")
    assert f"byte {size}" in (found["problem"] or "")


def test_padding_is_no_surplus(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    for data in (bytes(32), bytes(64)):
        path.write_bytes(b.gguf(rows=[b.row(shape=(8,)), b.row("b", shape=(9,), offset=32)], data=data + bytes(36)))
        problem = verify.run([path])["files"][0]["problem"]
        assert (problem is None) == (len(data) == 32)
    path.write_bytes(b.gguf(rows=[b.row(shape=(9,))], data=bytes(64)))
    assert verify.run([path])["ok"]


def test_a_file_without_tensors(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b.gguf())
    assert verify.run([path])["ok"]
    path.write_bytes(b.gguf() + bytes(64))
    assert "behind the last tensor" in (verify.run([path])["files"][0]["problem"] or "")


def test_shards(shards: list[Path], tmp_path: Path) -> None:
    assert len(shards) > 2 and verify.run([shards[0]])["ok"]
    for number in range(len(shards)):
        folder = tmp_path / str(number)
        folder.mkdir()
        copies = [Path(shutil.copy(path, folder)) for path in shards]
        with open(copies[number], "ab") as file:
            file.write(bytes(100))
        for found in (*verify.run(copies)["files"], *verify.run([copies[-1]])["files"]):  # each stands for the set
            assert not found["ok"] and copies[number].name in (found["problem"] or "")


def test_exit_status(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(tiny_files["Q8_0"].read_bytes() + b"more")
    done = quantcli("verify", path)
    assert done.returncode == 1 and "4 bytes behind the last tensor" in done.stdout + done.stderr
