"""From a source to finished GGUF files: sources of both kinds, splits, overrides, names, checksums."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
from gguf import GGUFReader

from helpers import synthetic
from quantcli import container
from quantcli.cli.parse import convert_request
from quantcli.commands import convert
from quantcli.errors import (
    ImportanceNeeded,
    MissingFile,
    NonFiniteWeight,
    OutputFailed,
    QuantcliError,
    QuantizedSource,
    UsageError,
)
from quantcli.loader import open_models
from quantcli.output import checksums


def request(source: Path, *types: str, **options) -> convert.ConvertRequest:
    return convert_request(source=source, types=types, **options)


def tensors(path: Path) -> dict[str, tuple[str, bytes]]:
    """Name -> (type, bytes), as the gguf package reads the file."""
    return {
        t.name: (t.tensor_type.name, numpy.ascontiguousarray(t.data).tobytes()) for t in GGUFReader(str(path)).tensors
    }


@pytest.fixture(scope="module")
def tiny(root: Path) -> Path:
    return root / "examples" / "tiny"


@pytest.fixture(scope="module")
def bf16(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled checkpoint as BF16 GGUF."""
    path = tmp_path_factory.mktemp("bf16") / "tiny.gguf"
    convert.run(request(tiny, "BF16", output=path))
    return path


def test_checkpoint_and_its_gguf_quantize_to_the_same_tensors(tiny: Path, bf16: Path, tmp_path: Path) -> None:
    direct, through = tmp_path / "a.gguf", tmp_path / "b.gguf"
    convert.run(request(tiny, "Q4_K_M", output=direct))
    convert.run(request(bf16, "Q4_K_M", output=through))
    assert tensors(direct) == tensors(through)


def test_bf16_is_lossless(tiny: Path, bf16: Path) -> None:
    from safetensors import safe_open

    stored = tensors(bf16)
    with safe_open(tiny / "model.safetensors", "np") as file:
        assert len(stored) == len(file.keys())
    assert stored["token_embd.weight"][0] == "BF16" and stored["blk.0.attn_norm.weight"][0] == "F32"
    from quantcli.sources.checkpoint import Checkpoint

    checkpoint = Checkpoint(tiny)
    raw = checkpoint.tensors["model.embed_tokens.weight"]
    assert bytes(raw.read_bytes(0, raw.nbytes)) == stored["token_embd.weight"][1]


def test_result_tells_what_is_on_the_disk(tiny: Path, tmp_path: Path) -> None:
    result = convert.run(request(tiny, "q4_k", "q8_0", "IQ4_NL", output=tmp_path))
    assert [o["type"] for o in result["outputs"]] == ["Q4_K_M", "Q8_0", "IQ4_NL"]
    for output in result["outputs"]:
        path = Path(output["path"])
        data = path.read_bytes()
        assert path.name == f"tiny-{output['type']}.gguf" and output["files"] == [str(path)]
        assert output["bytes"] == len(data) and output["sha256"] == hashlib.sha256(data).hexdigest()
        read = {t.name: (list(map(int, t.shape)), t.tensor_type.name, t.n_bytes) for t in GGUFReader(str(path)).tensors}
        assert read == {t["name"]: (t["shape"], t["type"], t["bytes"]) for t in output["tensors"]}


def test_split_and_back(tiny: Path, tmp_path: Path) -> None:
    result = convert.run(request(tiny, "Q8_0", output=tmp_path / "s.gguf", split_max_size="500K"))
    (output,) = result["outputs"]
    assert len(output["files"]) > 3 and output["files"][0].endswith(f"s-00001-of-{len(output['files']):05d}.gguf")
    assert output["bytes"] == sum(Path(f).stat().st_size for f in output["files"]) and output["sha256"] is None
    whole = tmp_path / "whole.gguf"
    convert.run(request(Path(output["files"][0]), "COPY", output=whole))
    convert.run(request(tiny, "Q8_0", output=tmp_path / "one.gguf"))
    assert tensors(whole) == tensors(tmp_path / "one.gguf")
    kept = convert.run(request(Path(output["files"][0]), "COPY", output=tmp_path / "k.gguf", keep_split=True))
    assert len(kept["outputs"][0]["files"]) == len(output["files"])
    for a, b in zip(output["files"], kept["outputs"][0]["files"], strict=True):
        assert tensors(Path(a)) == tensors(Path(b))


def test_quantized_source(bf16: Path, tmp_path: Path) -> None:
    q8 = tmp_path / "q8.gguf"
    convert.run(request(bf16, "Q8_0", output=q8))
    with pytest.raises(QuantizedSource) as caught:
        convert.run(request(q8, "Q4_0", output=tmp_path / "x.gguf"))
    assert "Q8_0" in str(caught.value) and "--allow-requantize" in caught.value.hint
    convert.run(request(q8, "Q4_0", output=tmp_path / "x.gguf", allow_requantize=True))
    convert.run(request(q8, "Q8_0", output=tmp_path / "same.gguf"))
    assert tensors(tmp_path / "same.gguf") == tensors(q8)


def test_overrides_and_metadata(tiny: Path, tmp_path: Path) -> None:
    template = tmp_path / "t.jinja"
    template.write_text("{{ messages }}")
    convert.run(
        request(
            tiny,
            "Q4_0",
            output=tmp_path / "x.gguf",
            tensor_types=("attn_v=q8_0", r"ffn_down\.weight=q6_k"),
            token_embedding_type="q5_0",
            metadata=("general.author=us", "llama.context_length=u32:128"),
            chat_template=template,
        )
    )
    found = tensors(tmp_path / "x.gguf")
    assert found["blk.0.attn_v.weight"][0] == "Q8_0" and found["blk.3.ffn_down.weight"][0] == "Q6_K"
    assert found["token_embd.weight"][0] == "Q5_0"
    entries = container.read_header(tmp_path / "x.gguf").metadata
    assert entries["general.author"].data == "us" and entries["llama.context_length"].data == 128
    assert entries["tokenizer.chat_template"].data == "{{ messages }}"


def test_metadata_never_tells_about_the_machine(tiny: Path, tmp_path: Path) -> None:
    convert.run(request(tiny, "Q4_0", output=tmp_path / "x.gguf"))
    header = (tmp_path / "x.gguf").read_bytes()[:200_000]
    assert str(tmp_path).encode() not in header and str(tiny.parent).encode() not in header


def test_needs_importance(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(ImportanceNeeded) as caught:
        convert.run(request(tiny, "IQ2_XS", output=tmp_path / "x.gguf"))
    assert "--imatrix" in caught.value.hint
    planned = convert.run(request(tiny, "IQ2_XS", dry_run=True))
    assert planned["outputs"][0]["needs_imatrix"] is True and not list(tmp_path.iterdir())


def test_importance_changes_the_bytes_and_the_metadata(shared: Path, tmp_path: Path) -> None:
    mid, imatrix = shared / "models/mid", shared / "golden/mid-imatrix.gguf"
    convert.run(request(mid, "Q4_0", output=tmp_path / "plain.gguf"))
    convert.run(request(mid, "Q4_0", output=tmp_path / "with.gguf", imatrix=imatrix))
    convert.run(request(mid, "Q4_0", output=tmp_path / "some.gguf", imatrix=imatrix, include_weights=("attn_q",)))
    plain, given, some = (tensors(tmp_path / f"{n}.gguf") for n in ("plain", "with", "some"))
    assert given["blk.0.attn_q.weight"] != plain["blk.0.attn_q.weight"]
    assert some["blk.0.attn_q.weight"] == given["blk.0.attn_q.weight"]
    assert some["blk.0.attn_k.weight"] == plain["blk.0.attn_k.weight"]
    entries = container.read_header(tmp_path / "with.gguf").metadata
    assert entries["quantize.imatrix.file"].data == "mid-imatrix.gguf"
    assert entries["quantize.imatrix.entries_count"].data == 42


def test_bytes_of_llama_quantize(shared: Path, tmp_path: Path) -> None:
    """File sizes that llama-quantize wrote for models/mid (peer-mid.csv), give or take our own metadata."""
    import csv

    sizes = {row["type"]: int(row["bytes"]) for row in csv.DictReader((shared / "golden/peer-mid.csv").open())}
    names = [name for name in sizes if name not in ("COPY",)]
    result = convert.run(
        request(shared / "models/mid", *names, dry_run=True, imatrix=shared / "golden/mid-imatrix.gguf")
    )
    for output in result["outputs"]:
        assert abs(output["bytes"] - sizes[output["type"]]) < 2048, output["type"]


def damaged(tiny: Path, folder: Path, change) -> Path:
    """A copy of the checkpoint whose safetensors bytes went through ``change``."""
    copy = folder / "model"
    shutil.copytree(tiny, copy)
    data = bytearray((copy / "model.safetensors").read_bytes())
    (copy / "model.safetensors").write_bytes(change(data))
    return copy


def test_nan_in_a_checkpoint(tiny: Path, tmp_path: Path) -> None:
    def poison(data: bytearray) -> bytearray:
        data[-2:] = b"\xc0\x7f"  # the last BF16 weight becomes NaN
        return data

    source = damaged(tiny, tmp_path, poison)
    for kind in ("Q4_K_M", "BF16", "F32"):
        with pytest.raises(NonFiniteWeight) as caught:
            convert.run(request(source, kind, output=tmp_path / "x.gguf"))
        assert "row" in str(caught.value) and "model.safetensors" in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model"]


def test_source_that_shrinks(tiny: Path, tmp_path: Path) -> None:
    source = damaged(tiny, tmp_path, lambda data: data[:-1000])
    with pytest.raises(QuantcliError) as caught:
        convert.run(request(source, "Q4_0", output=tmp_path / "x.gguf"))
    assert "model.safetensors" in str(caught.value) and sorted(p.name for p in tmp_path.iterdir()) == ["model"]


def test_hub_cache_names_the_model_and_not_the_commit(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = tmp_path / "models--acme--nice-model" / "blobs"
    snapshot = tmp_path / "models--acme--nice-model" / "snapshots" / ("0123456789abcdef" * 2 + "01234567")
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for i, path in enumerate(sorted(tiny.iterdir())):
        shutil.copy(path, blobs / f"{i:040x}")
        (snapshot / path.name).symlink_to(Path("..") / ".." / "blobs" / f"{i:040x}")
    monkeypatch.chdir(tmp_path)
    result = convert.run(request(snapshot, "Q4_0"))
    assert result["outputs"][0]["path"] == "nice-model-Q4_0.gguf"


def test_checksums_are_added_and_replaced(tiny: Path, tmp_path: Path) -> None:
    sums = tmp_path / "SHA256SUMS"
    convert.run(request(tiny, "Q4_0", output=tmp_path / "a.gguf", checksums=sums))
    convert.run(request(tiny, "Q8_0", output=tmp_path / "b.gguf", checksums=sums))
    convert.run(request(tiny, "Q4_1", output=tmp_path / "a.gguf", checksums=sums, force=True))
    lines = dict(line.split("  ")[::-1] for line in sums.read_text().splitlines())
    assert lines == {n: hashlib.sha256((tmp_path / n).read_bytes()).hexdigest() for n in ("a.gguf", "b.gguf")}


def test_checksums_of_runs_that_end_together(tmp_path: Path) -> None:
    """No line is lost, and what another tool wrote stays as it is."""
    from concurrent.futures import ThreadPoolExecutor

    sums = tmp_path / "SHA256SUMS"
    foreign = b"0" * 64 + b" *caf\xe9.bin\n"
    sums.write_bytes(foreign)
    files = {tmp_path / f"{i}.gguf": f"{i:064x}" for i in range(40)}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda file: checksums.add(sums, {file: files[file]}), files))
    lines = sums.read_bytes().splitlines(keepends=True)
    assert lines[0] == foreign and sorted(lines[1:]) == sorted(
        f"{digest}  {f.name}\n".encode() for f, digest in files.items()
    )


def test_an_embedding_entry_of_another_size_is_told(tiny: Path, tmp_path: Path) -> None:
    from quantcli.statistics.imatrix import Importance, to_gguf_bytes

    matrix = tmp_path / "im.gguf"
    sums = {
        "token_embd.weight": numpy.ones((1, 8), numpy.float32),
        "blk.0.attn_q.weight": numpy.ones((1, 256), numpy.float32),
    }
    given = Importance("im.gguf", sums, {name: numpy.ones(1, numpy.float32) for name in sums}, ["text"], 1)
    matrix.write_bytes(to_gguf_bytes(given))
    told = convert.run(request(tiny, "Q4_0", imatrix=matrix, dry_run=True))["warnings"]
    assert any("token_embd.weight" in text and "not used" in text for text in told)
    assert any("Q4_0" in text and "not in the importance matrix" in text for text in told)


@pytest.mark.parametrize(
    "options, error",
    [
        ({"types": ()}, UsageError),
        ({"search": "nope"}, UsageError),
        ({"include_weights": ("a",)}, UsageError),
        ({"keep_split": True, "split_max_size": "1G"}, UsageError),
        ({"output": Path("no/where/x.gguf")}, OutputFailed),
        ({"chat_template": Path("no-such.jinja")}, MissingFile),
        ({"imatrix": Path("no-such.gguf")}, MissingFile),
        ({"source": Path("no-such-model")}, MissingFile),
    ],
)
def test_wrong_requests(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options, error) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error):
        convert.run(convert_request(**({"source": tiny, "types": ("Q4_0",)} | options)))
    assert not list(tmp_path.iterdir())


def test_more_shards_than_the_usual_limit_of_open_files(tiny: Path, tmp_path: Path) -> None:
    """38 files below a limit of 24, which the run raises as far as the system lets it."""
    command = (
        f"ulimit -S -n 24; exec {sys.executable} -m quantcli convert {tiny} -t Q8_0 --split-max-size 1K -o {tmp_path}/"
    )
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.iterdir())) == 38


# ---- several models in one job


def test_two_models_in_one_job(tiny: Path, bf16: Path, tmp_path: Path) -> None:
    """Of different shapes, tensor orders and kinds: every file is what a job of its own model writes."""
    small = synthetic.readable_model()
    wanted = request(tiny, "Q4_K_M", "Q8_0", output=tmp_path)
    with open_models(tiny) as models, open_models(bf16) as copies:
        copies.text.name = "copy"
        copies.text.tensors.reverse()
        job = convert.prepare_models(wanted, [models.text, small, copies.text])
        read: list[int] = []
        result = convert.execute(job, lambda done_bytes, weights=0: read.append(done_bytes))
    names = [Path(output["path"]).name for output in result["outputs"]]
    assert names == [f"{model}-{name}.gguf" for model in ("tiny", "synthetic", "copy") for name in ("Q4_K_M", "Q8_0")]
    assert read == sorted(read) and read[-1] == job.total_bytes == result["source"]["bytes"]
    for output in result["outputs"]:
        assert hashlib.sha256(Path(output["path"]).read_bytes()).hexdigest() == output["sha256"]
    (tmp_path / "alone").mkdir()
    convert.run(request(tiny, "Q4_K_M", "Q8_0", output=tmp_path / "alone"))
    alone = convert.prepare_models(request(tiny, "Q8_0", output=tmp_path / "alone"), [small])
    convert.execute(alone)
    for name in ("tiny-Q4_K_M.gguf", "tiny-Q8_0.gguf", "synthetic-Q8_0.gguf"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
    assert tensors(tmp_path / "copy-Q4_K_M.gguf") == tensors(tmp_path / "tiny-Q4_K_M.gguf")


def test_a_job_of_several_models_ends_with_all_files_or_none(tiny: Path, tmp_path: Path) -> None:
    broken = synthetic.readable_model()
    broken.tensors[-1].reader.rows[0, 0] = numpy.nan
    with open_models(tiny) as models:
        job = convert.prepare_models(request(tiny, "Q8_0", output=tmp_path), [models.text, broken])
        with pytest.raises(NonFiniteWeight):
            convert.execute(job)
        assert not list(tmp_path.iterdir())
        with pytest.raises(UsageError, match="folder"):
            convert.prepare_models(request(tiny, "Q8_0", output=tmp_path / "one.gguf"), [models.text, broken])
