"""The Python interface: what it gives, what it refuses, and the tour of docs/python.md, line by line."""

from __future__ import annotations

import ast
import dataclasses
import doctest
import importlib
import inspect
import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import get_type_hints

import numpy
import pytest

import quantcli
from helpers.program import quantcli as program
from quantcli import container
from quantcli.api import calls, measuring
from quantcli.api.build import built
from quantcli.cli.parse import PassedOn, convert_request
from quantcli.ggml import kernels, tensor_types


@pytest.fixture
def folder(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tiny").symlink_to(root / "examples" / "tiny")
    (tmp_path / "text.txt").write_text("Once upon a time there was a captain. The boy said nothing. " * 60)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_tour(root: Path, folder: Path) -> None:
    done = doctest.testfile(str(root / "docs" / "python.md"), module_relative=False, optionflags=doctest.ELLIPSIS)
    assert done.attempted > 25 and not done.failed


def test_importing_loads_nothing_heavy() -> None:
    line = "import sys, quantcli; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=True).stdout.split()
    assert "quantcli" in loaded and not {"numpy", "cffi", "typer", "rich", "gguf"} & set(loaded)


def test_every_name_is_there_and_declared_for_type_checkers(root: Path) -> None:
    stub = ast.parse((root / "quantcli" / "__init__.pyi").read_text())
    declared = {alias.asname for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert declared == set(quantcli.__all__)
    assert all(getattr(quantcli, name) is getattr(sys.modules["quantcli.api"], name) for name in quantcli.__all__)
    assert set(quantcli.__all__) <= set(dir(quantcli))
    with pytest.raises(AttributeError, match="nonsense"):
        quantcli.nonsense  # noqa: B018


def test_the_written_classes_are_those_of_the_results(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(root / "scripts"))
    import api_results

    for name, text in api_results.files().items():
        written = (api_results.FOLDER / name).read_text()
        for one, other in ((text, written), (written, text)):
            nodes = {ast.dump(node) for node in ast.parse(other).body}
            assert all(ast.dump(node) in nodes for node in ast.parse(one).body), f"{name}: run scripts/api_results.py"


def test_convert_takes_what_the_command_line_takes() -> None:
    known = set(inspect.signature(convert_request).parameters) | set(get_type_hints(PassedOn))
    known -= {"source", "types", "output", "size", "passed_on", "every_tensor"}  # the last is what a table shows
    assert set(get_type_hints(calls.ConvertOptions)) == known | set(calls._SIZES)


#: options of commands that have another name here, or that a call has no use for
RENAMED = {
    "file": "text",
    "ctx": "length",
    "in_file": "merge",
    "top": "reference_top",
    "name": "names",
    "yes": "upload",
}
RENAMED |= {"bytes_only": "values"}
TERMINAL = {"as_json", "quiet", "debug", "exit_code", "low_memory"}


@pytest.mark.parametrize("name", ["imatrix", "perplexity", "compare", "diff", "reproduce", "card", "release"])
def test_functions_take_what_their_commands_take(name: str) -> None:
    declared = importlib.import_module(f"quantcli.cli.{name}_options").run
    wanted = set(inspect.signature(declared).parameters) - TERMINAL
    renamed = RENAMED | {"compare": {"file": "texts"}, "reproduce": {"file": "file"}, "release": {"file": "file"}}.get(
        name, {}
    )
    found = set(inspect.signature(getattr(quantcli, name)).parameters)
    if "options" in found:
        found |= set(get_type_hints(measuring.RunningOptions))
    extra = {"progress", "options"} | ({"fields"} if name == "card" else set())  # of release.toml, on a command line
    assert found - extra == {renamed.get(option, option) for option in wanted}


def test_the_same_object_as_the_command_prints(folder: Path) -> None:
    found = quantcli.convert(
        folder / "tiny", "Q4_0", output=folder / "a.gguf", metadata={"general.url": "x", "a.b": True}
    )
    line = "convert tiny -t Q4_0 -o b.gguf --metadata general.url=x --metadata a.b=bool:true --json".split()
    printed = json.loads(program(*line, cwd=folder).stdout)
    assert found.outputs[0].sha256 == printed["outputs"][0]["sha256"]
    assert found.json.keys() == printed.keys()
    assert found.outputs[0].tensors[0].shape == printed["outputs"][0]["tensors"][0]["shape"]
    assert dataclasses.is_dataclass(found) and found.outputs[0].method is None and "method" not in found.outputs[0].json


def test_options_arrive(folder: Path) -> None:
    done = quantcli.convert(
        "tiny", ["q4_0"], output=folder / "x", include_weights="blk.1", imatrix=matrix(folder), split_max_size=900_000
    )
    names = done.outputs[0].files
    assert len(names) > 1 and all(Path(name).exists() for name in names)
    assert container.read_header(Path(names[0])).metadata["quantize.imatrix.file"].data == "m.gguf"
    with pytest.raises(quantcli.QuantcliError, match="--candidates is for plans"):
        quantcli.convert("tiny", "Q4_0", candidates="legacy")


def matrix(folder: Path) -> Path:
    quantcli.imatrix("tiny", folder / "m.gguf", text=folder / "text.txt", length=32, chunks=2)
    return folder / "m.gguf"


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda: quantcli.convert("nowhere", "Q4_0"), "missing-file"),
        (lambda: quantcli.convert("tiny", "Q9_9"), "unknown-type"),
        (lambda: quantcli.convert("tiny"), "usage"),
        (lambda: quantcli.convert("tiny", "Q4_0", like="Q4_0"), "usage"),
        (lambda: quantcli.convert("tiny", "Q4_0", output="no/such/folder/x.gguf"), "output-failed"),
        (lambda: quantcli.convert("tiny", "Q4_0", metadata={"a": "u32:x"}), "usage"),
        (lambda: quantcli.inspect("nowhere"), "missing-file"),
        (lambda: quantcli.imatrix("tiny", "m.gguf", text="nowhere"), "missing-file"),
        (lambda: quantcli.perplexity("tiny", "nowhere"), "missing-file"),
        (lambda: quantcli.perplexity("tiny", "text.txt", activations="q9"), "usage"),
        (lambda: quantcli.compare("tiny", "tiny"), "usage"),
        (lambda: quantcli.perplexity("tiny", "text.txt", states="states"), "usage"),
        (lambda: quantcli.perplexity("tiny", "text.txt", resume=True), "usage"),
        (lambda: quantcli.imatrix("tiny", text="text.txt", layerwise=True, engine="local://2"), "usage"),
        (lambda: quantcli.imatrix("tiny", text="text.txt", engine="nothing://2"), "usage"),
        (lambda: quantcli.convert("tiny", "Q4_0", output="x.gguf", engine="nothing://2"), "usage"),
        (lambda: quantcli.diff("tiny", "nowhere"), "missing-file"),
        (lambda: quantcli.diff("tiny", "tiny", tensor="nothing"), "usage"),
        (lambda: quantcli.reproduce("nowhere"), "missing-file"),
        (lambda: quantcli.reproduce("text.txt"), "malformed-file"),
        (lambda: quantcli.card("nowhere"), "missing-file"),
        (lambda: quantcli.card("tiny"), "missing-file"),
        (lambda: quantcli.release("nowhere.toml"), "missing-file"),
        (lambda: quantcli.release("text.txt"), "usage"),
        (lambda: quantcli.release("text.txt", names="mine"), "usage"),
        (lambda: quantcli.tokenize("nowhere", "x"), "missing-file"),
        (lambda: quantcli.detokenize("tiny", [1, 99_999]), "usage"),
        (lambda: quantcli.encode_blocks([[1.0] * 31], "Q8_0"), "indivisible-row"),
        (lambda: quantcli.encode_blocks([[1.0] * 32], "Q8"), "unknown-type"),
        (lambda: quantcli.encode_blocks([["a"] * 32], "Q8_0"), "usage"),
        (lambda: quantcli.encode_blocks(1.0, "Q8_0"), "usage"),
        (lambda: quantcli.encode_blocks([[numpy.nan] * 32], "Q8_0"), "non-finite-weight"),
        (lambda: quantcli.encode_blocks([[1.0] * 256], "IQ2_XS"), "importance-needed"),
        (lambda: quantcli.encode_blocks([[1.0] * 32], "Q4_0", importance=[1.0]), "usage"),
        (lambda: quantcli.encode_blocks([[1.0] * 32], "Q4_0", search="x"), "usage"),
        (lambda: quantcli.decode_blocks(b"123", "Q8_0"), "usage"),
        (lambda: quantcli.decode_blocks(b"1" * 35, "Q8_0", columns=32), "usage"),
        (lambda: quantcli.decode_blocks(numpy.zeros(34), "Q8_0"), "usage"),
    ],
)
def test_mistakes_are_of_one_class(folder: Path, call, code: str) -> None:
    before = {path.name for path in folder.iterdir()}
    with pytest.raises(quantcli.QuantcliError) as caught:
        call()
    assert caught.value.code == code and caught.value.message
    assert {path.name for path in folder.iterdir()} == before


def test_a_wrong_name_of_an_option_is_a_type_error(folder: Path) -> None:
    calls: list[Callable[..., object]] = [quantcli.convert, quantcli.imatrix, quantcli.perplexity, quantcli.compare]
    for call in (*calls, quantcli.diff, quantcli.release):
        with pytest.raises(TypeError, match="typo"):
            call("tiny", "text.txt", typo=1)


def test_a_release_tells_its_progress_and_uploads_nothing(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (folder / "release.toml").write_text(
        'source = "tiny"\ntypes = "Q8_0"\nimatrix = { text = "text.txt", chunks = 2 }\n[upload]\nrepository = "a/b"\n'
    )
    seen: list[quantcli.Progress] = []
    made = quantcli.release(folder / "release.toml", progress=seen.append)
    assert {one.task.split()[0] for one in seen} >= {"imatrix", "convert"} and made.uploaded is None
    assert [step.state for step in made.steps if step.step == "upload"] == ["skipped"]
    again = quantcli.reproduce(made.files[0].path, folder / "tiny", progress=seen.append)
    assert again.problem is not None and "importance matrix" in again.problem  # it is not given
    assert quantcli.reproduce(made.files[0].path, folder / "tiny", imatrix=folder / "out" / "imatrix.gguf").same
    assert capfd.readouterr() == ("", "")


def test_a_bad_file_is_a_result(folder: Path) -> None:
    found = quantcli.verify(["text.txt", "nowhere"])
    assert not found.ok and [file.problem is None for file in found.files] == [False, False]


def test_warnings_are_pythons(folder: Path) -> None:
    with pytest.warns(quantcli.QuantcliWarning, match="not in the importance matrix"):
        quantcli.convert("tiny", "Q4_0", output="x.gguf", imatrix=matrix(folder), include_weights="blk.1", dry_run=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quantcli.convert("tiny", "Q8_0", output="x.gguf", dry_run=True)


def test_a_callback_may_stop_the_work(folder: Path) -> None:
    def stop(progress: quantcli.Progress) -> None:
        raise RuntimeError(progress.task)

    with pytest.raises(RuntimeError, match="tiny|source"):
        quantcli.convert("tiny", "Q8_0", output="x.gguf", progress=stop)
    assert not (folder / "x.gguf").exists() and not list(folder.glob(".quantcli*"))


@pytest.mark.parametrize("name", ["Q4_0", "Q4_K", "IQ4_XS", "IQ2_XS", "BF16", "F32"])
@pytest.mark.parametrize("search", [None, "ggml"])
def test_blocks_are_those_of_the_kernels(name: str, search: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quantcli.api.blocks.PIECE", 2048)  # several pieces, the last one shorter
    values = numpy.random.default_rng(7).standard_normal((3, 7, 512), dtype=numpy.float32)
    weights = numpy.random.default_rng(8).random(512, dtype=numpy.float32) + 0.1
    tensor_type = tensor_types.by_name(name)
    used = search or ("best" if kernels.can_encode(tensor_type.id, "best") else "ggml")
    wanted = kernels.encode(tensor_type.id, values.reshape(-1, 512), weights, search=used)
    found = quantcli.encode_blocks(values, name, importance=weights, search=search, threads=3)
    assert found.shape == (3, 7, wanted.shape[1]) and (found.reshape(wanted.shape) == wanted).all()
    decoded = quantcli.decode_blocks(found, name)
    assert decoded.shape == values.shape and decoded.dtype == numpy.float32
    assert (decoded.reshape(-1, 512) == kernels.decode(tensor_type.id, wanted, 21, 512)).all()
    assert (quantcli.decode_blocks(found.tobytes(), name, columns=512) == decoded.reshape(-1, 512)).all()


def test_other_numbers_become_float32() -> None:
    values = numpy.arange(-64, 64).reshape(2, 64)
    for kind in (numpy.float16, numpy.float64, numpy.int32):
        blocks = quantcli.encode_blocks(values.astype(kind)[:, ::-1], "Q8_0")
        assert (quantcli.decode_blocks(blocks, "Q8_0").round() == values[:, ::-1]).all()
    assert quantcli.encode_blocks(numpy.zeros((0, 32)), "Q8_0").shape == (0, 34)


def test_objects_of_several_types_are_told_apart() -> None:
    from quantcli.api import results
    from quantcli.report.measurements import Reference

    recorded = built(Reference, {"name": "a", "kind": "b", "bytes": 1})
    assert isinstance(recorded, results.RecordedReference) and recorded.activations is None
