"""The commands that run models, as a user meets them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers.program import quantcli
from quantcli.statistics import imatrix


def test_perplexity(tiny_files: dict[str, Path], prose: Path) -> None:
    done = quantcli("perplexity", tiny_files["Q4_K_M"], "-f", prose, "-c", 64, "--chunks", 4, "--threads", 1, "--json")
    assert done.returncode == 0 and done.stderr == "", done.stderr
    result = json.loads(done.stdout)
    assert {"schema", "perplexity", "tokens", "tokens_per_second", "model", "chunks"} <= result.keys()
    assert 5 < result["perplexity"]["mean"] < 500 and result["perplexity"]["se"] > 0 and result["tokens"] == 256
    assert result["model"]["activations"] == "q8" and result["text"] == "prose.txt"
    done = quantcli("perplexity", tiny_files["Q4_K_M"], "-f", prose, "-c", 64, "--chunks", 4, "--exact", "-q")
    assert done.stdout.startswith("PPL ") and "float activations" in done.stdout


def test_compare_prints_a_table_and_writes_a_page(tiny_files: dict[str, Path], prose: Path, tmp_path: Path) -> None:
    page, svg, models = tmp_path / "r.html", tmp_path / "r.svg", [tiny_files["Q8_0"], tiny_files["Q2_K"]]
    done = quantcli(
        "compare",
        tiny_files["BF16"],
        *models,
        "-f",
        prose,
        "-c",
        64,
        "--chunks",
        2,
        "--html",
        page,
        "--svg",
        svg,
        "--threads",
        1,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split()[:6] == ["model", "text", "MB", "bpw", "act", "KLD"]
    assert lines[2].startswith("tiny-Q2_K") and len(lines) == 3
    assert svg.read_text().startswith("<svg xmlns=") and page.read_text().startswith("<!DOCTYPE html>")
    assert "reference: float" in done.stderr
    assert lines[1].split()[4] == "q8"
    done = quantcli(
        "compare", tiny_files["BF16"], *models, "-f", prose, "-c", 64, "--chunks", 2, "--json", "--threads", 1
    )
    result = json.loads(done.stdout)
    entry = result["models"][1]
    assert {"name", "bytes", "bpw", "text", "kld", "ppl", "same_top", "rms_dp"} <= entry.keys()
    assert {"mean", "se", "median", "p90", "p95", "p99", "p999", "max"} <= entry["kld"].keys()
    assert {"mean", "se", "ratio"} <= entry["ppl"].keys()
    assert result["schema"] == 1 and result["reference"]["name"] == "tiny-BF16"
    assert entry["bytes"] == tiny_files["Q2_K"].stat().st_size


def test_imatrix_feeds_convert(root: Path, prose: Path, tmp_path: Path) -> None:
    path, model = tmp_path / "imatrix.gguf", root / "examples" / "tiny"
    done = quantcli("imatrix", model, "-f", prose, "-c", 64, "--chunks", 4, "-o", path, "--threads", 1, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["entries"] == 28 and imatrix.read(path).chunks == 4
    assert quantcli("imatrix", model, "-f", prose, "-c", 64, "--chunks", 4, "-o", path).returncode == 1  # it is there
    output = tmp_path / "out.gguf"
    assert quantcli("convert", model, "-t", "IQ2_XS", "--imatrix", path, "-o", output, "-q").returncode == 0
    warned = quantcli("compare", model, output, "-f", prose, "-c", 64, "--chunks", 2, "--threads", 1)
    assert "warning: out was calibrated on prose.txt" in warned.stderr


def test_generate(tiny_files: dict[str, Path]) -> None:
    done = quantcli("generate", tiny_files["BF16"], "-p", "Once upon a time", "-n", 12, "--threads", 1)
    assert done.stdout == "Once upon a time, I was surprised to see the s\n" and "tokens/s" in done.stderr
    result = json.loads(
        quantcli(
            "generate", tiny_files["BF16"], "-p", "Once", "-n", 5, "--temperature", 1, "--seed", 5, "--json"
        ).stdout
    )
    assert len(result["tokens"]) == 5 and result["stopped"] == "length" and isinstance(result["text"], str)
    assert quantcli("generate", tiny_files["BF16"], "-p", "Hi", "--chat").returncode == 2


@pytest.mark.parametrize(
    "arguments, code",
    [
        (("-c", 1 << 21), "context-too-long"),
        (("-c", 512, "--chunks", 1), "short-text"),
        (("--activations", "x"), "usage"),
        (("--kv-type", "Q9"), "usage"),
    ],
)
def test_errors_are_classes(tiny_files: dict[str, Path], tmp_path: Path, arguments: tuple, code: str) -> None:
    text = tmp_path / "short.txt"
    text.write_text("Too short. " * 40)
    given = arguments if "-c" in arguments else ("-c", 16, *arguments)
    done = quantcli("perplexity", tiny_files["Q8_0"], "-f", text, *given, "--json")
    assert done.returncode in (1, 2) and json.loads(done.stdout)["error"]["code"] == code, done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_prints_what_is_known(tiny_files: dict[str, Path], prose: Path, tmp_path: Path) -> None:
    text = tmp_path / "long.txt"
    text.write_text(prose.read_text() * 400)
    command = [
        sys.executable,
        "-m",
        "quantcli",
        "perplexity",
        tiny_files["BF16"],
        "-f",
        text,
        "-c",
        "128",
        "--json",
        "--threads",
        "1",
    ]
    process = subprocess.Popen(
        list(map(str, command)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    time.sleep(6)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    result = json.loads(out)
    if "error" not in result:  # a machine too slow for one batch in this time has nothing to tell
        assert result["interrupted"] and result["chunks"] > 0 and result["perplexity"]["mean"] > 1
