"""Odd places and options of a conversion: pipes, links, endless files, lists of checksums, trailing ones of shapes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from gguf import GGUFReader

from helpers import oracles
from quantcli.cli.parse import convert_request
from quantcli.commands import convert
from quantcli.errors import BadConfig, MalformedFile, OutputExists, OutputFailed, UsageError


def request(source: Path, *types: str, **options) -> convert.ConvertRequest:
    return convert_request(source=source, types=types, **options)


@pytest.fixture
def tiny(root: Path) -> Path:
    return root / "examples" / "tiny"


@pytest.mark.parametrize("force", [False, True])
def test_pipes_and_devices_are_not_replaced(tiny: Path, tmp_path: Path, force: bool) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputFailed, match="not a regular file"):
        convert.run(request(tiny, "Q8_0", output=tmp_path / "pipe", force=force))
    assert (tmp_path / "pipe").is_fifo()


def test_a_link_to_nowhere_is_found_before_the_work(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "a.gguf").symlink_to("nowhere")
    with pytest.raises(OutputExists):
        convert.prepare(request(tiny, "Q8_0", output=tmp_path / "a.gguf"))


def test_many_threads_are_few(tiny: Path) -> None:
    assert convert.run(request(tiny, "Q8_0", threads=10**9, dry_run=True))["threads"] == convert.MOST_THREADS


def test_an_endless_template(tiny: Path) -> None:
    with pytest.raises(UsageError, match="too large"):
        convert.run(request(tiny, "Q8_0", chat_template=Path("/dev/zero"), dry_run=True))


def test_a_config_that_names_nothing(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(BadConfig, match="names neither"):
        convert.run(request(tmp_path, "Q8_0", dry_run=True))


def test_the_list_is_no_output_and_nothing_else(tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.gguf"
    with pytest.raises(UsageError, match="same name"):
        convert.run(request(tiny, "Q8_0", output=out, checksums=tmp_path / "." / "a.gguf"))
    precious = tmp_path / "thesis.txt"
    precious.write_text("words\n")
    with pytest.raises(MalformedFile, match="line 1"):
        convert.run(request(tiny, "Q8_0", output=out, checksums=precious))
    assert precious.read_text() == "words\n" and not out.exists()


@pytest.mark.parametrize("kind, written", [("BF16", (64, 1)), ("Q8_0", (64,))])
def test_trailing_ones_as_the_tools_write_them(tmp_path: Path, kind: str, written: tuple[int, ...]) -> None:
    """llama.cpp's converter keeps them, its quantizer drops them; the size is planned either way."""
    out = tmp_path / "a.gguf"
    made = convert.run(request(oracles.folder("qwen2-moe"), kind, output=out))["outputs"][0]
    name = "blk.0.ffn_gate_inp_shexp.weight"
    found = {t.name: tuple(map(int, t.shape)) for t in GGUFReader(out).tensors}
    assert found[name] == written == tuple({t["name"]: t["shape"] for t in made["tensors"]}[name])
    assert made["bytes"] == out.stat().st_size
