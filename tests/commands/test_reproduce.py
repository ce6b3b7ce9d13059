"""`quantcli reproduce`: a file made again from what it says; `quantcli diff`; what conversions say of their source."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from helpers.program import quantcli
from helpers.schemas import require_valid
from quantcli import container
from quantcli.cli.parse import convert_request, from_texts
from quantcli.commands import convert, diff, options_record, reproduce
from quantcli.errors import MissingFile, UnsupportedFile, UsageError, VerificationFailed
from quantcli.report.releases import ReproduceResult


@pytest.fixture
def source(root: Path, tmp_path: Path) -> Path:
    """A copy of the bundled checkpoint in a folder called "mine"."""
    return Path(shutil.copytree(root / "examples" / "tiny", tmp_path / "mine"))


def made(source: Path, output: Path, *types: str, **options: object) -> list[Path]:
    asked = convert_request(source=source, types=types, output=str(output), **options)
    return [Path(one["files"][0]) for one in convert.run(asked)["outputs"]]


def again(file: Path, source: Path, **options: object) -> ReproduceResult:
    result = reproduce.run(reproduce.ReproduceRequest(file=file, source=source, **options), from_texts)
    require_valid("reproduce", result)
    return result


def change(path: Path, output: Path, tensor: str, place: int, bits: int) -> None:
    """Turn bits of one byte of a tensor."""
    header, content = container.read_header(path), bytearray(path.read_bytes())
    start = next(info.offset for info in header.tensors if info.name == tensor) + header.data_start
    content[start + place] ^= bits
    output.write_bytes(content)


def told(path: Path) -> dict[str, object]:
    return {key: value.data for key, value in container.read_header(path).metadata.items() if "quantcli." in key}


def test_a_file_says_what_it_was_made_from(source: Path, tmp_path: Path) -> None:
    dry = convert.run(convert_request(source=source, types=("Q4_0",), output=str(tmp_path / "a.gguf"), dry_run=True))
    (path,) = made(source, tmp_path / "a.gguf", "Q4_0", tensor_types=("attn_v=q8_0",), threads=1)
    said = told(path)
    weights = hashlib.sha256((source / "model.safetensors").read_bytes()).hexdigest()
    assert said["quantcli.source.sha256.model.safetensors"] == weights
    assert list(said["quantcli.source.weights"]) == ["model.safetensors"] and said["quantcli.source.name"] == "mine"
    assert json.loads(str(said["quantcli.options"])) == {"tensor_types": ["attn_v=Q8_0"], "type": "Q4_0"}
    assert str(tmp_path) not in str(said)
    assert dry["outputs"][0]["bytes"] < path.stat().st_size  # without the tensor type


@pytest.mark.parametrize(
    "options",
    [
        {"types": ("Q4_K_M",), "metadata": ("general.url=x", "general.tags=a,b"), "pure": True},
        {"types": ("Q8_0",), "split_max_size": "900k"},
        {"types": ("Q4_0",), "search": "ggml", "tensor_types": ("attn_v=q8_0", "ffn=q5_0"), "transforms": ("pad",)},
        {"types": ("BF16",), "output_tensor_type": "q8_0"},
    ],
    ids=["metadata", "shards", "ggml", "float"],
)  # fmt: skip
def test_the_same_bytes_from_a_folder_of_another_name(source: Path, tmp_path: Path, options: dict) -> None:
    (path,) = made(source, tmp_path / "out/", *options.pop("types"), **options)
    moved = source.rename(tmp_path / "elsewhere")
    result = again(path, moved, threads=2)
    assert result["same"] and result["exact"] and result["problem"] is None
    assert all(one["same"] for one in result["ingredients"])
    assert len(result["files"]) == (4 if "split_max_size" in options else 1)
    reproduce.require(result)


def test_of_several_types_each(source: Path, tmp_path: Path) -> None:
    for path in made(source, tmp_path / "out/", "Q4_0", "IQ4_NL", "Q2_K", allow_no_imatrix=True):
        assert again(path, source)["same"]


def test_a_gguf_source_and_a_template(source: Path, tmp_path: Path) -> None:
    (tmp_path / "t.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    (middle,) = made(source, tmp_path / "m.gguf", "BF16")
    (path,) = made(middle, tmp_path / "x.gguf", "Q5_0", chat_template=tmp_path / "t.jinja")
    (tmp_path / "t.jinja").unlink()
    moved = middle.rename(tmp_path / "other.gguf")
    result = again(path, moved)
    assert result["same"], result["problem"]
    assert [one["name"] for one in result["ingredients"]] == ["quantcli", "m.gguf"]


def test_an_importance_matrix_by_its_hash(source: Path, tmp_path: Path, prose: Path) -> None:
    matrix, other = tmp_path / "m.gguf", tmp_path / "other.gguf"
    for name, chunks in ((matrix, "2"), (other, "3")):
        done = quantcli("imatrix", source, "-f", prose, "-o", name, "-c", "64", "--chunks", chunks)
        assert done.returncode == 0, done.stderr
    (path,) = made(source, tmp_path / "x.gguf", "IQ3_S", imatrix=matrix)
    result = again(path, source)
    assert not result["same"] and result["problem"] == "importance matrix: not what the file was made from"
    assert not again(path, source, imatrix=other)["same"]
    with pytest.raises(VerificationFailed, match="importance matrix") as caught:
        reproduce.require(result)
    assert "--imatrix" in str(caught.value.hint)
    moved = matrix.rename(tmp_path / "moved.gguf")
    assert again(path, source, imatrix=moved)["same"]


def test_a_collected_matrix_is_collected_again(source: Path, tmp_path: Path, monkeypatch, prose: Path) -> None:
    monkeypatch.setattr("quantcli.calibration.collect.bundled_text", lambda: str(prose))
    (tmp_path / "out").mkdir()
    (path,) = made(source, tmp_path / "out", "IQ3_S", imatrix=Path("auto"))
    result = again(path, source)
    assert result["same"] and not result["exact"], result["problem"]
    matrix = next(p for p in (tmp_path / "out").iterdir() if "imatrix" in p.name)
    result = again(path, source, imatrix=matrix)
    assert result["same"] and result["exact"]


def test_what_is_not_the_same_is_named(source: Path, tmp_path: Path) -> None:
    (path,) = made(source, tmp_path / "x.gguf", "Q4_0")
    data = bytearray((source / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (source / "model.safetensors").write_bytes(data)
    result = again(path, source)
    assert not result["same"] and result["problem"] == "model.safetensors: not what the file was made from"
    assert result["files"][0]["reproduced"] is None
    data[-1] ^= 1
    (source / "model.safetensors").write_bytes(data)
    change(path, path, "output_norm.weight", 40, 1)
    result = again(path, source, output=tmp_path / "kept")
    assert not result["same"] and "1 tensors differ, first output_norm.weight" in str(result["problem"])
    assert Path(result["output"]).exists()


def test_files_that_cannot_be_made_again(source: Path, tmp_path: Path, root: Path) -> None:
    (path,) = made(source, tmp_path / "x.gguf", "Q8_0")
    with pytest.raises(UsageError, match="made from mine") as caught:
        reproduce.run(reproduce.ReproduceRequest(file=path), from_texts)
    assert "--source mine" in str(caught.value.hint)
    with pytest.raises(MissingFile):
        reproduce.run(reproduce.ReproduceRequest(file=path, source=tmp_path / "no"), from_texts)
    for text in ("not JSON", "[1]", '{"checksums":"/etc/passwd"}', '{"type":{"a":1}}', '{"output":"x"}', "[" * 9999):
        (changed,) = made(source, tmp_path / "c.gguf", "Q8_0", metadata=(f"quantcli.options=str:{text}",), force=True)
        with pytest.raises(UnsupportedFile, match="quantcli.options"):
            reproduce.run(reproduce.ReproduceRequest(file=changed, source=source), from_texts)
    grafted = tmp_path / "g.gguf"
    assert quantcli("graft", path, path, "--tensors", "output", "-o", grafted).returncode == 0
    with pytest.raises(UnsupportedFile, match="graft"):
        reproduce.run(reproduce.ReproduceRequest(file=grafted, source=source), from_texts)


def test_another_version_is_named(source: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("quantcli.commands.provenance.__version__", "0.0.9")
    (path,) = made(source, tmp_path / "x.gguf", "Q8_0")
    result = again(path, source)
    assert result["problem"] == "quantcli: not what the file was made from" and result["made_by"] == "0.0.9"


def test_only_what_decides_bytes_is_told(tmp_path: Path, source: Path) -> None:
    one, other = (
        convert_request(source=source, types=("Q4_0",), output=str(tmp_path / name), threads=n, force=True, strict=True)
        for name, n in (("a", 1), ("b", 7))
    )
    assert one.options == other.options == {}
    assert options_record.text({"b": "ü", "a": [1]}) == '{"a":[1],"b":"ü"}'


# ---- diff


def test_differences(source: Path, tmp_path: Path) -> None:
    a, b = made(source, tmp_path / "out/", "Q4_0", "Q8_0")
    same = diff.run(diff.DiffRequest(a=a, b=a))
    assert same["same"] and not same["metadata"] and all(one["blocks"] == 0 for one in same["tensors"])
    found = diff.run(diff.DiffRequest(a=a, b=b))
    for result in (same, found):
        require_valid("diff", result)
    assert {one["key"] for one in found["metadata"]} == {"general.file_type", "quantcli.options"}
    down = next(one for one in found["tensors"] if one["name"] == "blk.0.ffn_down.weight")
    assert (down["type_a"], down["type_b"], down["same"], down["blocks"]) == ("Q4_0", "Q8_0", False, None)
    assert 0.03 < down["error"] < 0.15 and down["largest"] > 0
    assert all(one["same"] for one in found["tensors"] if one["type_a"] == "F32")
    bytes_only = diff.run(diff.DiffRequest(a=a, b=b, values=False))
    assert all(one["error"] is None for one in bytes_only["tensors"])


def test_one_tensor_and_where_it_differs(source: Path, tmp_path: Path) -> None:
    (a,) = made(source, tmp_path / "a.gguf", "F32")
    change(a, tmp_path / "b.gguf", "output_norm.weight", 7, 0x40)  # number 1 becomes infinite or none
    done = quantcli("diff", a, tmp_path / "b.gguf", "--tensor", "output_norm.weight", "--json", "--exit-code")
    found = json.loads(done.stdout)
    (one,) = found["tensors"]
    assert done.returncode == 1 and (one["blocks"], one["row"], one["column"]) == (1, 0, 1) and one["error"] is None
    done = quantcli("diff", a, tmp_path / "b.gguf", "--tensor", "no")
    assert done.returncode == 2 and "inspect" in done.stderr
    assert quantcli("diff", a, a, "--exit-code").returncode == 0
    assert quantcli("diff", a, tmp_path / "b.gguf").returncode == 0
