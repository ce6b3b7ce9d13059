"""The program as a user meets it: commands, exit codes, stdout against stderr, JSON, the example pipelines."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers.program import quantcli

TINY = "examples/tiny"


@pytest.fixture(scope="module")
def converted(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the bundled checkpoint as Q4_K_M and Q8_0, and the JSON of the run."""
    folder = tmp_path_factory.mktemp("converted")
    done = quantcli(
        "convert",
        root / TINY,
        "-t",
        "Q4_K_M",
        "-t",
        "q8_0",
        "-o",
        folder,
        "--json",
        "--checksums",
        folder / "SHA256SUMS",
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    (folder / "report.json").write_text(done.stdout)
    return folder


def test_default_name_in_the_current_folder(root: Path, tmp_path: Path) -> None:
    done = quantcli("convert", root / TINY, "-t", "Q4_0", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["tiny-Q4_0.gguf"]
    assert "tiny-Q4_0.gguf" in done.stdout and "\x1b" not in done.stdout + done.stderr


def test_json_is_one_object_with_the_promised_fields(converted: Path) -> None:
    result = json.loads((converted / "report.json").read_text())
    assert result["schema"] == 1 and result["seconds"] > 0 and len(result["outputs"]) == 2
    output = result["outputs"][0]
    assert {"path", "files", "type", "bytes", "bpw", "sha256", "tensors", "fallbacks", "needs_imatrix"} <= set(output)
    assert {"name", "shape", "type", "bytes"} <= set(output["tensors"][0])
    assert output["bytes"] == Path(output["path"]).stat().st_size
    embedding = next(t for t in output["tensors"] if t["name"] == "token_embd.weight")
    assert embedding["shape"] == [256, 2048] and embedding["type"] == "Q6_K"


def test_dry_run_is_exact_and_writes_nothing(root: Path, converted: Path, tmp_path: Path) -> None:
    done = quantcli("convert", root / TINY, "-t", "Q4_K_M", "--dry-run", "--json", cwd=tmp_path)
    planned = json.loads(done.stdout)["outputs"][0]
    written = json.loads((converted / "report.json").read_text())["outputs"][0]
    assert planned["bytes"] == written["bytes"] and planned["tensors"] == written["tensors"]
    assert not planned.get("sha256") and not list(tmp_path.iterdir())


def test_verify_and_checksums(converted: Path) -> None:
    files = sorted(converted.glob("*.gguf"))
    done = quantcli("verify", *files, "--checksums", converted / "SHA256SUMS", cwd=converted)
    assert done.returncode == 0 and done.stdout.count("ok ") == 2, done.stdout + done.stderr


def test_verify_finds_a_changed_byte_and_an_infinite_scale(converted: Path, tmp_path: Path) -> None:
    broken = tmp_path / "tiny-Q8_0.gguf"
    data = bytearray((converted / "tiny-Q8_0.gguf").read_bytes())
    data[-40] ^= 1
    broken.write_bytes(data)
    done = quantcli("verify", broken, "--checksums", converted / "SHA256SUMS", cwd=tmp_path)
    assert done.returncode == 1 and "sha256" in done.stdout and "error:" in done.stderr
    from quantcli.container import read_header

    header = read_header(broken)
    tensor = next(t for t in header.tensors if t.type_id == 8)
    start = header.data_start + tensor.offset
    data[start : start + 2] = b"\x00\x7c"  # the first scale becomes infinite
    broken.write_bytes(data)
    done = quantcli("verify", broken, cwd=tmp_path)
    assert done.returncode == 1 and tensor.name in done.stdout and "row 0" in done.stdout


def test_inspect_file_folder_and_json(root: Path, converted: Path) -> None:
    done = quantcli("inspect", converted / "tiny-Q4_K_M.gguf", "--tensors", cwd=converted)
    assert done.returncode == 0 and "blk.0.attn_q.weight" in done.stdout and "Q6_K" in done.stdout
    done = quantcli("inspect", root / TINY, "--json", cwd=converted)
    result = json.loads(done.stdout)
    assert result["kind"] == "checkpoint" and result["architecture"] == "llama" and result["tensors"]


def test_formats_lists_every_type(root: Path) -> None:
    done = quantcli("formats", "--json", cwd=root)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert {"Q4_K_M", "IQ2_XS", "BF16", "MXFP4_MOE"} <= {r["name"] for r in result["recipes"]}
    assert {"Q4_K", "NVFP4", "F32"} <= {t["name"] for t in result["types"]}


@pytest.mark.parametrize(
    "arguments, code, words",
    [
        (("convert",), 2, ("for example: quantcli convert DIR -t",)),
        (("convert", TINY), 2, ("--type",)),
        (("convert", TINY, "-t", "Q9_Z"), 2, ("Q9_Z", "quantcli formats")),
        (("convert", TINY, "-t", "Q4_0", "--threads", "0"), 2, ("threads",)),
        (("convert", TINY, "-t", "Q4_0", "--search", "psychic"), 2, ("psychic",)),
        (("convert", "no/such/folder", "-t", "Q4_0"), 1, ("no/such/folder",)),
        (("convert", TINY, "-t", "Q4_0", "-o", "/proc/nowhere/x.gguf"), 1, ("/proc/nowhere",)),
        (("convert", TINY, "-t", "Q4_0", "-t", "Q8_0", "-o", "one.gguf"), 2, ("folder",)),
        (("convert", TINY, "-t", "IQ2_XS", "-o", "build"), 1, ("imatrix",)),
        (("convert", TINY, "-t", "Q4_0", "--tensor-type", "([=q8_0"), 1, ("([",)),
        (("inspect", "Makefile"), 1, ("Makefile",)),
        (("verify", "Makefile"), 1, ("Makefile",)),
        (("nonsense",), 2, ("nonsense",)),
    ],
)
def test_errors_say_what_where_and_what_to_do(root: Path, arguments, code: int, words) -> None:
    done = quantcli(*arguments, cwd=root)
    text = done.stdout + done.stderr
    assert done.returncode == code, text
    assert "Traceback" not in text and "error:" in done.stderr
    for word in words:
        assert word in text


def test_debug_shows_the_traceback(root: Path) -> None:
    done = quantcli("convert", "no/such/folder", "-t", "Q4_0", "--debug", cwd=root)
    assert done.returncode == 1 and "Traceback" in done.stderr


def test_errors_are_json_too(root: Path) -> None:
    done = quantcli("convert", "no/such/folder", "-t", "Q4_0", "--json", cwd=root)
    assert done.returncode == 1 and json.loads(done.stdout)["error"]["code"] == "missing-file"


def test_existing_output_needs_force(root: Path, converted: Path, tmp_path: Path) -> None:
    target = tmp_path / "x.gguf"
    target.write_bytes(b"precious")
    done = quantcli("convert", root / TINY, "-t", "Q4_0", "-o", target, cwd=tmp_path)
    assert done.returncode == 1 and "--force" in done.stderr and target.read_bytes() == b"precious"
    done = quantcli("convert", root / TINY, "-t", "Q4_0", "-o", target, "--force", cwd=tmp_path)
    assert done.returncode == 0 and target.stat().st_size > 1000 and len(list(tmp_path.iterdir())) == 1


def test_output_equal_to_input_is_refused(converted: Path, tmp_path: Path) -> None:
    copy = tmp_path / "model.gguf"
    shutil.copy(converted / "tiny-Q8_0.gguf", copy)
    done = quantcli("convert", copy, "-t", "Q4_0", "--allow-requantize", "-o", copy, "--force", cwd=tmp_path)
    assert done.returncode == 1 and "input" in done.stderr
    assert copy.read_bytes() == (converted / "tiny-Q8_0.gguf").read_bytes()


def test_quantized_source_needs_permission(converted: Path, tmp_path: Path) -> None:
    source = converted / "tiny-Q8_0.gguf"
    done = quantcli("convert", source, "-t", "Q4_0", "-o", tmp_path / "a.gguf", cwd=tmp_path)
    assert done.returncode == 1 and "--allow-requantize" in done.stderr and "Q8_0" in done.stderr
    done = quantcli("convert", source, "-t", "Q4_0", "-o", tmp_path / "a.gguf", "--allow-requantize", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_threads_and_instruction_sets_do_not_change_a_byte(root: Path, converted: Path, tmp_path: Path) -> None:
    wanted = (converted / "tiny-Q4_K_M.gguf").read_bytes()
    for number, environment in ((1, {"QUANTCLI_SIMD": "scalar"}), (3, {"QUANTCLI_SIMD": "emu16"}), (7, {})):
        target = tmp_path / f"{number}.gguf"
        done = quantcli(
            "convert", root / TINY, "-t", "Q4_K_M", "-o", target, "--threads", number, cwd=tmp_path, **environment
        )
        assert done.returncode == 0, done.stderr
        assert target.read_bytes() == wanted, number


def test_unsupported_instruction_set_is_an_error(root: Path, tmp_path: Path) -> None:
    done = quantcli("convert", root / TINY, "-t", "Q4_0", cwd=tmp_path, QUANTCLI_SIMD="mmx")
    assert done.returncode == 1 and "mmx" in done.stderr and not list(tmp_path.iterdir())


def heed_interrupts() -> None:
    """For a child: background jobs of a shell, and so perhaps this test run, inherit SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_interrupt_leaves_nothing(shared: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "quantcli",
        "convert",
        str(shared / "models" / "mid"),
        "-t",
        "Q4_K_M",
        "-t",
        "Q5_K_M",
        "-t",
        "Q3_K_M",
        "-t",
        "Q2_K",
        "-o",
        str(tmp_path),
        "--threads",
        "1",
    ]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, env=os.environ | {"QUANTCLI_SIMD": "scalar"}, preexec_fn=heed_interrupts
    )
    while not list(tmp_path.iterdir()) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, talk = process.communicate(timeout=60)
    assert process.returncode == 130, talk
    assert b"interrupted" in talk and not list(tmp_path.iterdir())


def test_help_starts_fast(root: Path) -> None:
    """`--help` imports neither numpy nor gguf and takes at most 1.5x a bare Typer app (with room for noise)."""
    probe = (
        "import sys\nfrom quantcli.cli.app import run\n"
        "sys.argv = ['quantcli', '{option}']\ntry: run()\nexcept SystemExit: pass\n"
        "sys.exit(' '.join(sorted(set(sys.modules))))"
    )
    slow = {"numpy", "gguf", "cffi", "sentencepiece", "tokenizers", "rich", "json", "hashlib", "quantcli.places"}
    for option in ("--help", "--version"):
        done = subprocess.run(
            [sys.executable, "-c", probe.format(option=option)], cwd=root, capture_output=True, text=True
        )
        assert "quantcli" in done.stdout and not slow & set(done.stderr.split()), slow & set(done.stderr.split())
    assert "quantcli.cli.convert_options" not in done.stderr.split()  # of the last one
    bare = (
        "import typer\napp = typer.Typer()\n"
        "@app.command()\ndef run(a: int = 1): pass\n@app.command()\ndef go(): pass\napp()"
    )

    def fastest(command: list[str]) -> float:
        times = []
        for _ in range(7):
            start = time.perf_counter()
            subprocess.run(command, cwd=root, capture_output=True)
            times.append(time.perf_counter() - start)
        return min(times)

    reference = fastest([sys.executable, "-c", bare, "--help"])
    own = fastest([sys.executable, "-m", "quantcli", "--help"])
    assert own < 1.5 * reference + 0.05, (own, reference)


def test_a_conversion_does_without_the_runner(root: Path, tmp_path: Path) -> None:
    """Each of many parts starts; what they do without is loaded by none of them."""
    words = ["quantcli", "convert", "examples/tiny", "-t", "Q8_0", "-o", str(tmp_path / "out.gguf"), "--quiet"]
    probe = (
        f"import os, sys\nfrom quantcli.cli.app import run\nsys.argv = {words}\ntry: run()\nexcept SystemExit: pass\n"
        "assert os.environ['OPENBLAS_THREAD_TIMEOUT'] == '20'\nsys.exit(' '.join(sorted(set(sys.modules))))"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OPENBLAS_")}
    done = subprocess.run([sys.executable, "-c", probe], cwd=root, capture_output=True, text=True, env=environment)
    assert (tmp_path / "out.gguf").exists() and "quantcli.commands.convert" in done.stderr.split()
    slow = ("quantcli.runner.", "gguf", "jinja2", "rich", "sentencepiece", "tokenizers", "asyncio", "pydantic")
    assert not [name for name in done.stderr.split() if name.startswith(slow)]


@pytest.mark.parametrize(("part", "looks"), [("1/2", True), ("2/2", False)])
def test_a_part_that_writes_no_template_loads_nothing_to_look_at_it(
    root: Path, tmp_path: Path, part: str, looks: bool
) -> None:
    """Which of the parts has the first shard the division says; the other one does without chat templates."""
    out = f"{tmp_path}/"
    words = ["quantcli", "convert", "examples/tiny", "-t", "Q8_0", "-o", out, "--split-max-size", "1M", "--part", part]
    probe = (
        f"import sys\nfrom quantcli.cli.app import run\nsys.argv = {[*words, '--quiet']}\n"
        "try: run()\nexcept SystemExit: pass\nsys.exit(' '.join(sorted(set(sys.modules))))"
    )
    done = subprocess.run([sys.executable, "-c", probe], cwd=root, capture_output=True, text=True)
    names = done.stderr.split()
    first = any("-00001-of-" in path.name for path in tmp_path.iterdir())
    assert list(tmp_path.iterdir()) and "quantcli.commands.writing" in names
    assert first is looks is ("quantcli.chat.sandbox" in names)


def test_completion_script(root: Path) -> None:
    program = Path(sys.executable).with_name("quantcli")
    if not program.exists():
        pytest.skip("quantcli is not installed beside this Python")
    done = subprocess.run(
        [program], cwd=root, capture_output=True, text=True, env=os.environ | {"_QUANTCLI_COMPLETE": "source_bash"}
    )
    assert done.returncode == 0 and "complete" in done.stdout and "quantcli" in done.stdout, done.stderr


def make(target: str, root: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a target of examples/Makefile in a folder."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    variables = [f"MODELS={root / 'examples'}", f"QUANTCLI={sys.executable} -m quantcli"]
    command = ["make", "-s", "-f", str(root / "examples" / "Makefile"), target, *variables]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=180)


def test_example_makefile_rule(root: Path, tmp_path: Path) -> None:
    done = make("tiny-Q8_0.gguf", root, tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "tiny-Q8_0.gguf").is_file()
    again = make("tiny-Q8_0.gguf", root, tmp_path)
    assert again.returncode == 0 and again.stdout.strip() == ""


def test_release_target_writes_checksums(root: Path, tmp_path: Path) -> None:
    done = make("release-tiny", root, tmp_path)
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "release" / "SHA256SUMS").read_text().splitlines()) == 4
