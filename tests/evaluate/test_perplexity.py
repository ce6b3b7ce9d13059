"""Texts cut into chunks, perplexity and its error, against definitions and against llama.cpp's figures."""

from __future__ import annotations

from math import exp, sqrt
from pathlib import Path

import numpy
import pytest

from quantcli.cli.parse import convert_request
from quantcli.commands import convert
from quantcli.errors import MissingFile, ShortText, UsageError, VocabularyMismatch
from quantcli.evaluate import figures, likelihood
from quantcli.runner import text
from quantcli.runner.session import RunOptions, Session, open_session

EXACT = RunOptions(exact=True, length=64)


def test_chunks_follow_llama_cpp() -> None:
    ids = numpy.arange(100, 135, dtype=numpy.int32)
    chunks = text.cut("t", ids, 8, bos=1)
    assert len(chunks) == 4 and chunks.tokens[1].tolist() == list(range(108, 116))
    assert chunks.inputs(1, 2)[0].tolist() == [1, *range(109, 116)] and chunks.tokens[1, 0] == 108
    assert (chunks.first_scored, chunks.scored) == (4, 3)
    assert len(text.cut("t", ids, 8, None, chunks=2)) == 2
    assert text.cut("t", ids, 8, None, first=3).inputs(0, 1)[0].tolist() == list(range(124, 132))
    assert text.cut("t", numpy.arange(4096 * 5), 512, None).batches()[:2] == [(0, 4), (4, 8)]
    with pytest.raises(ShortText, match="35 tokens, at least 40"):
        text.cut("t", ids, 20, None)
    with pytest.raises(ShortText, match="4 chunks of 8 tokens, 4 are to be skipped"):
        text.cut("t", ids, 8, None, first=4)
    with pytest.raises(UsageError):
        text.cut("t", ids, 2, None)


def test_texts(tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_bytes(b"one\ntwo\n\n")
    assert text.read_text(path) == "one\ntwo\n"
    path.write_bytes(b"a\xffb")
    assert text.read_text(path) == "a\ufffdb"
    path.write_bytes(b" \n")
    with pytest.raises(ShortText, match="empty"):
        text.read_text(path)
    with pytest.raises(MissingFile):
        text.read_text(tmp_path / "none")


def test_perplexity_is_its_definition(root: Path, prose: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "BATCH", 128)  # two chunks at a time
    with open_session(root / "examples" / "tiny", EXACT) as session:
        chunks = text.chunks_of(session.tokenizer, prose, 64, chunks=5)
        told: list[int] = []
        result = likelihood.measure(session, chunks, lambda done, known: told.append(done))
        nll = naive(session, chunks)
    assert told == [2, 4, 5] and result["chunks"] == 5 and result["tokens"] == 320
    assert result["scored"] == len(nll) == 5 * 31
    mean = exp(nll.mean())
    error = mean * sqrt((numpy.square(nll).mean() - nll.mean() ** 2) / (len(nll) - 1))
    assert result["perplexity"]["mean"] == pytest.approx(mean, rel=1e-5)
    assert result["perplexity"]["se"] == pytest.approx(error, rel=1e-4)


def naive(session: Session, chunks: text.Chunks) -> numpy.ndarray:
    """One chunk at a time, in float64, from the logits."""
    found = []
    for chunk in range(len(chunks)):
        ids = [session.tokenizer.bos, *chunks.tokens[chunk, 1:].tolist()]
        cache = session.network.new_cache(1, len(ids))
        logits = session.network.forward(numpy.array([ids]), cache)[0].astype(numpy.float64)
        for position in range(len(ids) // 2, len(ids) - 1):
            row = logits[position]
            total = numpy.log(numpy.exp(row - row.max()).sum()) + row.max()
            found.append(total - row[chunks.tokens[chunk, position + 1]])
    return numpy.array(found)


def test_an_interrupt_keeps_the_complete_chunks(root: Path, prose: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "BATCH", 128)

    def stop(done: int, known: str) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with open_session(root / "examples" / "tiny", EXACT) as session:
        chunks = text.chunks_of(session.tokenizer, prose, 64, chunks=4)
        result = likelihood.measure(session, chunks, stop)
        assert result["interrupted"] and result["chunks"] == 2 and len(result["per_chunk"]) == 2
        whole = likelihood.measure(session, chunks)
        assert not whole["interrupted"] and whole["per_chunk"][:2] == result["per_chunk"]


def test_moments_and_percentiles() -> None:
    values = numpy.random.default_rng(0).standard_normal(1000).astype(numpy.float32)
    moments = figures.Moments()
    for part in numpy.split(values, 4):
        moments.add(part)
    assert moments.mean == pytest.approx(values.mean(), abs=1e-6)
    assert moments.error == pytest.approx(values.std(ddof=1) / sqrt(1000), rel=1e-4)
    few = figures.Moments()
    few.add(values[:10])
    assert few.error == 0
    ordered = numpy.sort(values)
    for share in (0, 0.5, 0.9, 0.999, 1):
        expected = float(numpy.quantile(values.astype(float), share))
        assert figures.percentile(ordered, share) == pytest.approx(expected, abs=1e-6)
    assert figures.covariance(values, 2 * values) == pytest.approx(2 * values.var() / 999, rel=1e-4)


def test_ids_beyond_the_vocabulary_are_an_error(root: Path) -> None:
    with open_session(root / "examples" / "tiny", EXACT) as session, pytest.raises(VocabularyMismatch):
        session.network.embed(numpy.array([[5, 1 << 20]]))


# ---- figures of llama.cpp


def measured(model: Path, text_file: Path, chunks: int, **options: object) -> float:
    with open_session(model, RunOptions(length=512, **options)) as session:
        cut = text.chunks_of(session.tokenizer, text_file, 512, chunks=chunks)
        return likelihood.measure(session, cut)["perplexity"]["mean"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "model, name, expected",
    [
        ("tiny", "wiki.test.raw", 28.0969),
        ("mid", "wiki.test.raw", 96.6465),
        ("mid", "books.txt", 24.4340),
        ("mid", "code.txt", 12.1143),
    ],
)
def test_perplexity_is_llama_cpps(shared: Path, tmp_path: Path, model: str, name: str, expected: float) -> None:
    path = tmp_path / "model.gguf"
    convert.run(convert_request(source=shared / "models" / model, types=("BF16",), output=path))
    assert measured(path, shared / "text" / name, 40) == pytest.approx(expected, rel=1e-3)
