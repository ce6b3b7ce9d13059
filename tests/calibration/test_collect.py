"""Importance: sums by definition, per expert, saved, resumed, merged, layer by layer; llama.cpp's own file."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest

from helpers import oracles
from quantcli.calibration import collect
from quantcli.commands import imatrix as verb
from quantcli.errors import BadImportance, OutputExists, ResumeRefused, UsageError
from quantcli.runner.session import RunOptions, open_session
from quantcli.runner.text import Chunks, chunks_of
from quantcli.statistics import imatrix

LENGTH = 64
OPTIONS = RunOptions(activations="float", length=LENGTH)


def request(root: Path, prose: Path, output: Path, **options: object) -> verb.ImatrixRequest:
    given = {
        "model": root / "examples" / "tiny",
        "text": prose,
        "length": LENGTH,
        "chunks": 6,
        "options": OPTIONS,
    } | options
    return verb.ImatrixRequest(output=output, **given)


def test_sums_are_squares_of_the_inputs(root: Path, prose: Path) -> None:
    """Layer 0: the norm of the embeddings goes into q, k and v."""
    with open_session(root / "examples" / "tiny", OPTIONS) as session:
        chunks = chunks_of(session.tokenizer, prose, LENGTH, chunks=3)
        found, interrupted = collect.collect(session, chunks)
        network = session.network
        x = network.embed(chunks.inputs(0, 3)).astype(numpy.float64)
        normed = x / numpy.sqrt(numpy.square(x).mean(axis=-1, keepdims=True) + network.settings.eps)
        expected = numpy.square(normed * network.weights.vector("blk.0.attn_norm.weight")).sum(axis=(0, 1))
    assert not interrupted and found.chunks == 3 and found.chunk_size == LENGTH and found.datasets == [prose.name]
    for role in ("attn_q", "attn_k", "attn_v"):
        assert numpy.allclose(found.sums[f"blk.0.{role}.weight"][0], expected, rtol=1e-5)
        assert found.counts[f"blk.0.{role}.weight"].tolist() == [3 * LENGTH]
    assert len(found.entries) == 4 * 7 and not any(name.startswith("token_embd") for name in found.entries)
    assert found.sums["blk.0.attn_q.weight"].dtype == numpy.float64


def test_experts_count_their_own_tokens() -> None:
    folder = oracles.folder("qwen3-moe")
    ids = numpy.random.default_rng(0).integers(3, 300, (2, 32)).astype(numpy.int32)
    with open_session(folder, RunOptions(activations="float", length=32)) as session:
        found, _ = collect.collect(session, Chunks("t", ids, None), output=True)
        used = session.network.settings.experts_used
    gate, down = (found.counts[f"blk.0.ffn_{role}_exps.weight"] for role in ("gate", "down"))
    assert gate.tolist() == down.tolist() and gate.sum() == 64 * used
    assert found.sums["blk.0.ffn_up_exps.weight"].shape[0] == len(gate)
    # what the router reads is what the experts read, each token `used` times
    router, experts = found.sums["blk.0.ffn_gate_inp.weight"][0], found.sums["blk.0.ffn_up_exps.weight"]
    assert numpy.allclose(experts.sum(axis=0), used * router, rtol=1e-6)
    assert ("output.weight" in found.sums) == ("output.weight" in {t.name for t in session.model.tensors})


def test_progress_moves_while_chunks_run_together(root: Path, prose: Path) -> None:
    told: list[int] = []
    with open_session(root / "examples" / "tiny", OPTIONS) as session:
        chunks = chunks_of(session.tokenizer, prose, LENGTH, chunks=8)
        assert len(chunks.batches()) == 1
        collect.collect(session, chunks, progress=lambda done, known: told.append(done))
    assert told == [2, 4, 6, 8]  # as far as four layers are


def test_interrupt_saves_and_resume_completes(root: Path, prose: Path, tmp_path: Path) -> None:
    path, reference = tmp_path / "part.gguf", tmp_path / "whole.gguf"
    long = {"length": 512, "chunks": 2, "options": RunOptions(activations="float", length=512)}
    verb.run(request(root, prose, reference, **long))
    result = verb.run(request(root, prose, path, **{**long, "chunks": 1}))
    assert result["chunks"] == 1 and not result["interrupted"]
    with pytest.raises(OutputExists):
        verb.run(request(root, prose, path, **long))
    result = verb.run(request(root, prose, path, resume=True, **long))
    assert result["chunks"] == 2 and result["datasets"] == [prose.name]
    whole, resumed = imatrix.read(reference), imatrix.read(path)
    for name in whole.sums:
        assert numpy.allclose(whole.sums[name], resumed.sums[name], rtol=1e-5)
        assert (whole.counts[name] == resumed.counts[name]).all()
    again = verb.run(request(root, prose, path, resume=True, **long))
    assert again["chunks"] == 2  # nothing is left to do
    with pytest.raises(ResumeRefused, match=r"was collected with chunks of another length \(512, now 64\)"):
        verb.run(request(root, prose, path, resume=True))


def test_saves_on_the_way_and_keeps_what_is_known_when_interrupted(root: Path, prose: Path, tmp_path: Path) -> None:
    saved: list[int] = []
    with open_session(root / "examples" / "tiny", OPTIONS) as session:
        chunks = chunks_of(session.tokenizer, prose, 4, chunks=None)
        batches = len(chunks.batches())

        def stop(done: int, known: str) -> None:
            if done > 512:
                raise KeyboardInterrupt

        chunks = chunks_of(session.tokenizer, prose, 4) if batches > 1 else chunks_of(session.tokenizer, prose, 8)
        found, interrupted = collect.collect(
            session,
            Chunks("t", numpy.concatenate([chunks.tokens] * 8)[:1200], 1),
            save=lambda part: saved.append(part.chunks),
            frequency=1,
            progress=stop,
        )
    assert interrupted and saved and found.chunks >= saved[-1] and saved == sorted(saved)
    assert found.counts["blk.3.ffn_down.weight"][0] == found.chunks * chunks.length


def test_formats_merging_and_usage(root: Path, prose: Path, tmp_path: Path) -> None:
    first, second, merged = tmp_path / "a.gguf", tmp_path / "b.dat", tmp_path / "m.gguf"
    verb.run(request(root, prose, first, chunks=3))
    verb.run(request(root, prose, second, first=3, chunks=3))
    result = verb.run(verb.ImatrixRequest(model=None, output=merged, earlier=(first, second)))
    assert result["chunks"] == 6 and result["model"] is None
    whole, joined = verb.run(request(root, prose, tmp_path / "w.gguf")), imatrix.read(merged)
    assert whole["entries"] == len(joined.entries)
    other = verb.run(request(root, prose, tmp_path / "c.gguf", first=3, chunks=3, earlier=(first,)))
    assert other["chunks"] == 6
    expected, added = imatrix.read(tmp_path / "w.gguf"), imatrix.read(tmp_path / "c.gguf")
    assert all(numpy.allclose(expected.sums[name], added.sums[name], rtol=1e-5) for name in expected.sums)
    with pytest.raises(UsageError, match="no model"):
        verb.run(verb.ImatrixRequest(model=None, output=merged))
    with pytest.raises(BadImportance, match="column 2 overflows"):
        collect.sum_of_squares(numpy.array([[1, 2, numpy.nan]], numpy.float32), "blk.0.x")


def test_calibrate_is_one_call(root: Path, prose: Path) -> None:
    told: list[tuple[int, int]] = []
    found = collect.calibrate(
        root / "examples" / "tiny",
        prose,
        length=LENGTH,
        chunks=4,
        progress=lambda done, total: told.append((done, total)),
    )
    assert found.chunks == 4 and told[-1] == (4, 4) and found.name == "tiny"
    assert found.for_tensor("blk.0.ffn_down.weight", (512, 256)).shape == (1, 512)


@pytest.mark.slow
def test_values_are_those_of_llama_cpps_file(shared: Path) -> None:
    expected = imatrix.read(shared / "golden" / "mid-imatrix.gguf")
    found = collect.calibrate(shared / "models" / "mid", shared / "text" / "calibration.txt", chunks=60)
    assert found.entries.keys() == expected.entries.keys() and found.chunks == expected.chunks == 60
    for name, values in expected.entries.items():
        assert (found.counts[name] == expected.counts[name]).all()
        assert numpy.median(numpy.abs(found.entries[name] / values - 1)) < 1e-3, name
