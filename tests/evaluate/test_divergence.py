"""Divergence against its definition; recorded references; the report."""

from __future__ import annotations

import struct
import subprocess
import sys
from math import exp, log
from pathlib import Path
from xml.dom import minidom

import numpy
import pytest

from helpers import oracles
from quantcli.commands import compare
from quantcli.errors import BadReference, MalformedFile, UsageError, VocabularyMismatch
from quantcli.evaluate import divergence
from quantcli.evaluate.base_file import BaseFile
from quantcli.evaluate.reference import Full
from quantcli.evaluate.reference_cache import Record, Top, summarise
from quantcli.evaluate.scoring import Block
from quantcli.report import html, picture
from quantcli.runner.operations import Operations
from quantcli.runner.session import RunOptions, open_session
from quantcli.runner.text import chunks_of

LENGTH = 64
OPTIONS = RunOptions(length=LENGTH)


def run(reference: Path, models: list[Path], texts: list[Path], **options: object) -> dict:
    request = {"length": LENGTH, "chunks": 4, "options": OPTIONS} | options
    job = compare.prepare(compare.CompareRequest(reference=reference, models=models, texts=texts, **request))
    try:
        return compare.execute(job)
    finally:
        job.close()


@pytest.fixture(scope="module")
def result(tiny_files: dict[str, Path], prose: Path) -> dict:
    """Three models against BF16."""
    return run(tiny_files["BF16"], [tiny_files[name] for name in ("Q8_0", "Q4_K_M", "Q2_K")], [prose])


def log_probs(path: Path, text: Path, chunks: int) -> tuple[numpy.ndarray, numpy.ndarray]:
    """(log-probabilities float64 [chunks, scored, vocabulary], targets) from whole logits."""
    with open_session(path, OPTIONS) as session:
        cut = chunks_of(session.tokenizer, text, LENGTH, chunks=chunks)
        logits = session.network.forward(cut.inputs(0, chunks), session.network.new_cache(chunks, LENGTH))
        logits = logits[:, LENGTH // 2 : -1].astype(numpy.float64)
        targets = cut.tokens[:, LENGTH // 2 + 1 :]
    logits -= logits.max(axis=-1, keepdims=True)
    return logits - numpy.log(numpy.exp(logits).sum(axis=-1, keepdims=True)), targets


def test_statistics_are_their_definitions(result: dict, tiny_files: dict[str, Path], prose: Path) -> None:
    with open_session(tiny_files["BF16"]) as session:
        assert session.activations == "float"
    base, targets = log_probs(tiny_files["BF16"], prose, 4)
    other, _ = log_probs(tiny_files["Q2_K"], prose, 4)
    kld = (numpy.exp(base) * (base - other)).sum(axis=-1)
    entry = result["models"][2]
    assert entry["name"] == "tiny-Q2_K" and entry["activations"] == "q8" and entry["chunks"] == 4
    assert entry["kld"]["mean"] == pytest.approx(kld.mean(), rel=1e-4)
    assert entry["kld"]["se"] == pytest.approx(kld.std() / (kld.size - 1) ** 0.5, rel=1e-3)
    assert entry["kld"]["median"] == pytest.approx(numpy.median(kld), rel=1e-3)
    assert entry["kld"]["p99"] == pytest.approx(numpy.quantile(kld, 0.99), rel=1e-3)
    assert entry["kld"]["max"] == pytest.approx(kld.max(), rel=1e-4)
    assert entry["per_chunk"] == pytest.approx(kld.mean(axis=1).tolist(), rel=1e-4)
    own, reference = (numpy.take_along_axis(lp, targets[..., None], axis=-1)[..., 0] for lp in (other, base))
    assert entry["ppl"]["mean"] == pytest.approx(exp(-own.mean()), rel=1e-4)
    assert entry["ppl"]["ratio"] == pytest.approx(exp(reference.mean() - own.mean()), rel=1e-4)
    assert log(entry["ppl"]["ratio"]) == pytest.approx(entry["ppl"]["ln_ratio"])
    assert entry["ppl"]["ln_ratio_se"] == pytest.approx((reference - own).std() / (own.size - 1) ** 0.5, rel=1e-3)
    assert entry["rms_dp"] == pytest.approx(
        100 * numpy.square(numpy.exp(own) - numpy.exp(reference)).mean() ** 0.5, rel=1e-3
    )
    assert entry["same_top"] == pytest.approx(100 * (base.argmax(-1) == other.argmax(-1)).mean(), abs=1)
    first = numpy.array(result["models"][0]["per_chunk"])
    difference = numpy.array(entry["per_chunk"]) - first
    assert entry["difference"]["kld"]["mean"] == pytest.approx(difference.mean())
    assert entry["difference"]["kld"]["se"] == pytest.approx(difference.std(ddof=1) / 2)


def test_fewer_bits_diverge_more(result: dict) -> None:
    means = [entry["kld"]["mean"] for entry in result["models"]]
    assert 0 < means[0] < 0.01 < means[1] < 0.2 < means[2] < 2
    assert [entry["bpw"] for entry in result["models"]] == sorted((e["bpw"] for e in result["models"]), reverse=True)
    assert "difference" not in result["models"][0] and result["reference"]["activations"] == "float"


def test_a_model_does_not_diverge_from_itself(tiny_files: dict[str, Path], prose: Path) -> None:
    (entry,) = run(tiny_files["BF16"], [tiny_files["BF16"]], [prose], chunks=2)["models"]
    assert entry["kld"]["max"] == 0 and entry["same_top"] == 100 and entry["ppl"]["ratio"] == 1 and entry["rms_dp"] == 0


def test_exact_activations_halve_the_divergence_of_q8_0(tiny_files: dict[str, Path], prose: Path) -> None:
    found = [
        run(tiny_files["BF16"], [tiny_files["Q8_0"]], [prose], options=RunOptions(length=LENGTH, activations=kind))[
            "models"
        ][0]["kld"]["mean"]
        for kind in ("q8", "int16", "float")
    ]
    assert found[1] == pytest.approx(found[2], rel=0.05) and found[2] < 0.75 * found[0]


def test_other_vocabularies_are_refused(tiny_files: dict[str, Path], prose: Path) -> None:
    with pytest.raises(VocabularyMismatch, match="440 tokens, the reference has 2048"):
        run(tiny_files["BF16"], [oracles.folder("gemma3")], [prose])
    with open_session(tiny_files["BF16"]) as reference, open_session(tiny_files["Q8_0"]) as session:
        divergence.check_vocabulary(reference, session)
        tokens = session.model.metadata["tokenizer.ggml.tokens"].data
        from quantcli import container

        texts = [*tokens]
        texts[700], texts[701] = texts[701], texts[700]
        session.model.metadata["tokenizer.ggml.tokens"] = container.strings(texts)
        with pytest.raises(VocabularyMismatch, match="other texts"):
            divergence.check_vocabulary(reference, session)


def test_needs_a_text(tiny_files: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match="no text"):
        run(tiny_files["BF16"], [tiny_files["Q8_0"]], [])


# ---- recorded references


def write_base(path: Path, tokens: numpy.ndarray, log_probs: numpy.ndarray) -> None:
    """llama.cpp's file from log-probabilities [chunks, scored, vocabulary], by its description."""
    count, length = tokens.shape
    vocabulary = log_probs.shape[-1]
    with open(path, "wb") as file:
        file.write(b"_logits_" + struct.pack("<3i", length, vocabulary, count) + tokens.astype("<i4").tobytes())
        for row in log_probs.reshape(-1, vocabulary):
            high = row.max()
            low = max(row.min(), high - 16)
            scale = (high - low) / 65535
            codes = numpy.where(row > low, numpy.rint((row - low) / scale), 0).astype("<u2")
            file.write(struct.pack("<2f", scale, low) + codes.tobytes() + bytes(2 * (vocabulary % 2)))


def test_llama_cpps_base_file(result: dict, tiny_files: dict[str, Path], prose: Path, tmp_path: Path) -> None:
    base, _ = log_probs(tiny_files["BF16"], prose, 4)
    with open_session(tiny_files["BF16"]) as session:
        tokens = chunks_of(session.tokenizer, prose, LENGTH, chunks=4).tokens
    path = tmp_path / "base.kld"
    write_base(path, tokens, base)
    found = run(path, [tiny_files["Q4_K_M"]], [])
    expected = result["models"][1]
    assert found["models"][0]["kld"]["mean"] == pytest.approx(expected["kld"]["mean"], rel=0.01)
    assert found["models"][0]["ppl"]["reference"] == pytest.approx(expected["ppl"]["reference"], rel=1e-3)
    assert found["context"] == LENGTH and found["reference"]["name"] == "base.kld"
    assert run(path, [tiny_files["Q4_K_M"]], [], chunks=2)["models"][0]["chunks"] == 2
    with pytest.raises(UsageError, match="holds its text"):
        run(path, [tiny_files["Q4_K_M"]], [prose])
    # an odd vocabulary has a pad slot
    write_base(path, tokens[:1, :8] % 5, numpy.log(numpy.full((1, 3, 5), 0.2)) + numpy.arange(5) / 10)
    block = BaseFile(path, None).block(Block(0, 5, 7))
    assert block.log_probs.shape == (2, 5) and numpy.allclose(
        block.log_probs, log(0.2) + numpy.arange(5) / 10, atol=1e-5
    )


def test_broken_base_files(tmp_path: Path) -> None:
    path = tmp_path / "base"
    for data, message in (
        (b"_logits_" + struct.pack("<3i", 512, 1 << 30, 4), "chunks of"),
        (b"_logits_" + struct.pack("<3i", 512, 8192, 100) + bytes(400), "its header says"),
        (b"_logits_", "not a file of base logits"),
    ):
        path.write_bytes(data)
        with pytest.raises(BadReference, match=message):
            BaseFile(path, None)
    write_base(path, numpy.array([[1, 2, 3, 99, 1, 2]]), numpy.zeros((1, 2, 5)) - 1 + numpy.arange(5))
    with pytest.raises(BadReference, match="token 99 of 5"):
        BaseFile(path, None)


def test_a_recorded_reference_gives_nearly_the_same(
    result: dict, tiny_files: dict[str, Path], prose: Path, tmp_path: Path
) -> None:
    path, models = tmp_path / "ref.gguf", [tiny_files[name] for name in ("Q8_0", "Q4_K_M", "Q2_K")]
    first = run(tiny_files["BF16"], models, [prose], record=path, top=256)
    again = run(tiny_files["BF16"], models, [prose], record=path)
    alone = run(path, models, [])
    for whole, made, used, direct in zip(*(r["models"] for r in (result, first, again, alone)), strict=True):
        assert made["kld"] == whole["kld"] and used["kld"] == direct["kld"]
        assert used["kld"]["mean"] <= whole["kld"]["mean"] * 1.0001  # what is thrown together can only lose
        assert used["kld"]["mean"] == pytest.approx(whole["kld"]["mean"], rel=0.1)
        assert used["ppl"]["ratio"] == pytest.approx(whole["ppl"]["ratio"], rel=1e-6)
        assert used["same_top"] == whole["same_top"]
        missing = 1 - used["kld"]["mean"] / whole["kld"]["mean"]
        assert abs(used["record_error"]["relative"] - missing) < 0.02 and used["record_error"]["positions"] == 4 * 7
    assert path.stat().st_size < 4 * (31 * (256 * 8 + 8) + 7 * 4 * 2048 + 4 * LENGTH) + 8000


def test_a_record_of_something_else_is_refused(tiny_files: dict[str, Path], prose: Path, tmp_path: Path) -> None:
    path = tmp_path / "ref.gguf"
    run(tiny_files["BF16"], [tiny_files["Q8_0"]], [prose], record=path, chunks=2, top=16)
    with pytest.raises(BadReference, match="another text, other chunks or fewer"):
        run(tiny_files["BF16"], [tiny_files["Q8_0"]], [prose], record=path, chunks=3)
    with pytest.raises(BadReference, match="was recorded from tiny-BF16"):
        run(tiny_files["Q8_0"], [tiny_files["Q8_0"]], [prose], record=path, chunks=2)
    with pytest.raises(VocabularyMismatch):
        run(path, [oracles.folder("llama3")], [])
    data = bytearray(path.read_bytes())
    (tmp_path / "cut.gguf").write_bytes(data[: len(data) // 2])
    with pytest.raises((BadReference, MalformedFile)):
        Record(tmp_path / "cut.gguf")


def test_throwing_the_rest_together() -> None:
    random = numpy.random.default_rng(1)
    base, other = (numpy.log(random.dirichlet(numpy.ones(50), 6)).astype(numpy.float32) for _ in range(2))
    targets = numpy.arange(6)
    full, _ = Full(base).compare(other, Operations())
    assert numpy.allclose(full, (numpy.exp(base) * (base - other)).sum(axis=1), atol=1e-6)
    kept = summarise(Full(base), targets, 50).compare(other, Operations())[0]
    assert numpy.allclose(kept, full, atol=1e-4)
    coarse, same = summarise(Full(base), targets, 5).compare(other, Operations())
    assert (coarse < full).all() and (coarse > 0).all()
    assert (same == (base.argmax(axis=1) == other.argmax(axis=1))).all()
    ids = summarise(Full(base), targets, 5).ids
    assert (ids == numpy.argsort(-base, axis=1, kind="stable")[:, :5]).all()
    assert isinstance(summarise(Full(base), targets, 5), Top)


# ---- the page


def test_the_page_is_one_well_formed_file(tiny_files: dict[str, Path], result: dict, prose: Path) -> None:
    page = html.render(result, "1.2.3")
    minidom.parseString(page.removeprefix("<!DOCTYPE html>").replace('<meta charset="utf-8">', "").strip())
    assert page.count("<svg") == 2 and "tiny-Q4_K_M" in page and "1.2.3" in page
    assert not any(word in page for word in ("<script", "http:", "https:", "src=", "url("))
    nasty = {**result, "models": [{**result["models"][0], "name": "<b>&", "text": "<i>"}]}
    assert "<b>" not in html.render(nasty, "1") and "&lt;b&gt;&amp;" in html.render(nasty, "1")


def model(name: str, bytes: int, kld: float, text: str = "a.txt") -> dict:
    return {
        "name": name,
        "text": text,
        "bytes": bytes,
        "kld": {"mean": kld, "se": kld / 50},
        "per_chunk": [0.8 * kld, 1.2 * kld],
    }


def test_labels_hide_neither_each_other_nor_points() -> None:
    models = [model(f"m-Q{n}", 10**7 + 4 * 10**5 * n, 2.0 ** -(n / 3), text) for text in "ab" for n in range(24)]
    page = minidom.parseString(picture.standalone({"models": models, "reference": {"name": "<&"}}))
    labels = [node for node in page.getElementsByTagName("text") if node.getAttribute("class") == "label"]
    assert sorted(node.firstChild.data for node in labels) == sorted(f"Q{n}" for n in range(24))
    boxes = []
    for node in labels:
        x, y, half = (
            float(node.getAttribute("x")),
            float(node.getAttribute("y")),
            picture.LETTER * len(node.firstChild.data) / 2,
        )
        boxes.append(picture.Box(x - half, y - 10, x + half, y + 2))
    points = [
        picture.Box(x - 3, y - 3, x + 3, y + 3)
        for node in page.getElementsByTagName("circle")
        for x, y in [(float(node.getAttribute("cx")), float(node.getAttribute("cy")))]
    ]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in (*boxes[:i], *points))


@pytest.mark.parametrize(
    "names, short",
    [
        (["mid-Q8_0", "mid-Q4_K_M"], ["Q8_0", "Q4_K_M"]),
        (["m-Q4_K_M", "m-Q4_K_S"], ["Q4_K_M", "Q4_K_S"]),
        (["a", "b"], ["a", "b"]),
        (["mid-Q8_0"], ["mid-Q8_0"]),
        (["Q4_K_M", "Q4_K_S"], ["Q4_K_M", "Q4_K_S"]),
    ],
)
def test_names_without_what_they_share(names: list[str], short: list[str]) -> None:
    assert list(picture.short_names([{"name": name} for name in names]).values()) == short


@pytest.mark.parametrize(
    "values, logarithmic",
    [([0.1, 0.101], True), ([1e-9, 10], True), ([5, 5], False), ([0, 0], True), ([1, 1000], False), ([0.9, 3], True)],
)
def test_axes_have_a_few_ticks_inside(values: list[float], logarithmic: bool) -> None:
    axis = picture.Axis(values, 0, 100, logarithmic=logarithmic)
    ticks = [axis.place(tick) for tick in axis.ticks()]
    assert 2 <= len(ticks) <= 14 and all(-1e-6 <= at <= 100 + 1e-6 for at in ticks) and ticks == sorted(ticks)


# ---- figures of llama.cpp


@pytest.mark.slow
def test_divergences_are_llama_cpps(root: Path, shared: Path) -> None:
    """A file of each kind of activation blocks on one text; scripts/check_divergence.py does all."""
    command = [
        sys.executable,
        root / "scripts" / "check_divergence.py",
        shared,
        "--texts",
        "code",
        "--types",
        "Q8_0",
        "Q4_1",
        "Q4_K_M",
        "IQ4_NL",
        "IQ3_M",
    ]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0 and "5 of 5 hold" in done.stdout, done.stdout + done.stderr
