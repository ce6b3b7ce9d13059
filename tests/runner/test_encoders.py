"""Models that see both directions, and what is pooled from their states, against transformers' hidden states."""

from __future__ import annotations

import json
from pathlib import Path

import numpy
import pytest

from helpers import oracles
from quantcli.cli.parse import convert_request
from quantcli.commands import convert, embed
from quantcli.commands import imatrix as imatrix_command
from quantcli.errors import ContextTooLong, ShortText, UnsupportedGraph, UsageError
from quantcli.loader import open_model
from quantcli.runner import pooling
from quantcli.runner.network import Network
from quantcli.runner.operations import Operations
from quantcli.runner.session import RunOptions, make_operations, open_session
from quantcli.statistics import imatrix

WITH_STATES = [name for name in oracles.ENCODERS if name != "bge-reranker-xlmr"]
TOLERANCE = {"jina-bert-v2": 4e-3}  # of llama.cpp, whose GELU is a table in F16
LINES = "hello world\n\nthe quick brown fox\nhello again, and again\n"


def worst(path: Path, recorded: Path, operations: Operations) -> float:
    """The largest difference to the recorded states, in their standard deviations."""
    with open_model(path) as model, numpy.load(recorded) as oracle:
        network = Network(model, operations, kv_type="F32")
        return max(
            float(numpy.abs(network.states(oracle[f"ids_{part}"][None])[0] - wanted).max() / wanted.std())
            for part in "ab"
            if f"hidden_{part}" in oracle and (wanted := oracle[f"hidden_{part}"]).size
        )


@pytest.mark.parametrize("name", WITH_STATES)
def test_states_are_those_of_the_reference(name: str, tmp_path: Path) -> None:
    folder, bound = oracles.folder(name), TOLERANCE.get(name, 1e-4)
    converted = tmp_path / "model.gguf"
    convert.run(convert_request(source=folder, types=("F32",), output=converted))
    assert worst(folder, folder / "logits.npz", make_operations("float", 1)) < bound
    assert worst(converted, folder / "logits.npz", make_operations("float", 1)) < bound
    assert worst(folder, folder / "logits.npz", Operations()) < bound


@pytest.mark.parametrize("name", ["eurobert", "embeddinggemma", "jina-bert-v2"])
def test_the_end_changes_the_beginning(name: str) -> None:
    """As far as a window reaches: the last of 40 tokens is seen by the first one only where all layers see all."""
    ids = numpy.random.default_rng(1).integers(5, 300, (1, 40))
    other = ids.copy()
    other[0, -1] = 7
    with open_model(oracles.folder(name)) as model:
        network = Network(model, make_operations("float", 1), kv_type="F32")
        a, b = network.states(ids), network.states(other)
        assert numpy.abs(a[0, 0] - b[0, 0]).max() > 1e-4
        with pytest.raises(UsageError, match="at once"):
            cache = network.new_cache(1, 40)
            network.forward(ids[:, :20], cache)
            network.forward(ids[:, 20:], cache)


def lines(tmp_path: Path, text: str = LINES) -> Path:
    path = tmp_path / "lines.txt"
    path.write_text(text)
    return path


@pytest.mark.parametrize(("name", "kind"), [("eurobert", "mean"), ("bert", "cls"), ("qwen3", "mean")])
def test_lines_are_pooled_as_the_file_says(name: str, kind: str, tmp_path: Path) -> None:
    folder = oracles.folder(name)
    result = embed.run(embed.EmbedRequest(model=folder, text=lines(tmp_path)))
    assert result["pooling"] == kind and [one["line"] for one in result["lines"]] == [1, 3, 4]
    with open_session(folder, RunOptions(kv_type="F32"), predicts=False) as session:
        for one in result["lines"]:
            ids = session.tokenizer.encode(one["text"], parse_special=True)
            states = session.network.states(numpy.array([ids]))[0]
            wanted = states.mean(axis=0) if kind == "mean" else states[0]
            assert one["tokens"] == len(ids) and numpy.allclose(one["embedding"], wanted, atol=1e-5)
            assert one["norm"] == pytest.approx(float(numpy.linalg.norm(wanted)), rel=1e-5)


def test_options(tmp_path: Path) -> None:
    folder, text = oracles.folder("eurobert"), lines(tmp_path)
    unit = embed.run(embed.EmbedRequest(model=folder, text=text, normalize=True, pooling="last"))
    assert unit["pooling"] == "last" and unit["normalized"]
    assert all(numpy.linalg.norm(one["embedding"]) == pytest.approx(1, abs=1e-5) for one in unit["lines"])
    with pytest.raises(UsageError, match="no pooling 'max'"):
        embed.run(embed.EmbedRequest(model=folder, text=text, pooling="max"))
    with pytest.raises(UsageError, match="no classifier"):
        embed.run(embed.EmbedRequest(model=folder, text=text, pooling="rank"))
    with pytest.raises(ShortText):
        embed.run(embed.EmbedRequest(model=folder, text=lines(tmp_path, " \n\n x"[:3])))
    long = lines(tmp_path, "word " * 400)
    with pytest.raises(ContextTooLong, match="line 1"):
        embed.run(embed.EmbedRequest(model=folder, text=long))
    cut = embed.run(embed.EmbedRequest(model=folder, text=long, truncate=True))
    assert cut["lines"][0]["tokens"] == json.loads((folder / "config.json").read_text())["max_position_embeddings"]


def test_a_ranker_gives_scores(tmp_path: Path) -> None:
    """Dense layer, tanh, the labels' layer, on the first token: in numpy from the checkpoint's own tensors."""
    folder = oracles.folder("bge-reranker-xlmr")
    result = embed.run(embed.EmbedRequest(model=folder, text=lines(tmp_path, "what\tthis is it\nalone\n")))
    assert result["pooling"] == "rank" and result["labels"] == ["LABEL_0"]
    with open_model(folder) as model:
        network = Network(model, Operations(), kv_type="F32")
        ids = numpy.array([[0, 5, 6, 7, 2]])
        x = network.states(ids)[:, 0]
        take = {t.name: t.reader.read_rows(0, t.rows) for t in model.tensors if t.name.startswith("cls")}
        inner = numpy.tanh(x @ take["cls.weight"].T + take["cls.bias"])
        wanted = inner @ take["cls.output.weight"].T + take["cls.output.bias"]
        assert numpy.allclose(pooling.pooled(network, network.states(ids), "rank"), wanted, atol=1e-5)
    with open_session(folder, predicts=False) as session:
        ids = embed._ids(session, "what\tthis is it", "rank")
        first, second = (session.tokenizer.encode(part, add_special=False) for part in ("what", "this is it"))
        assert ids == [0, *first, 2, 2, *second, 2]


@pytest.mark.parametrize("name", ["eurobert", "bge-reranker-xlmr"])
def test_no_language_model_is_refused_where_one_is_needed(name: str) -> None:
    with pytest.raises(UnsupportedGraph, match="predicts no next tokens") as caught:
        open_session(oracles.folder(name))
    assert "quantcli embed" in caught.value.hint


@pytest.mark.parametrize("name", ["bert", "eurobert"])
def test_importance_of_an_encoder(name: str, tmp_path: Path) -> None:
    """Every matrix of every layer has been seen; the file quantizes the model."""
    text = tmp_path / "text.txt"
    text.write_text("The wind was in the west, and the captain said nothing to the boy. " * 60)
    output, folder = tmp_path / "imatrix.gguf", oracles.folder(name)
    imatrix_command.execute(imatrix_command.ImatrixRequest(model=folder, text=text, output=output, length=32, chunks=4))
    with open_model(folder) as model:
        matrices = {t.name for t in model.tensors if t.name.startswith("blk.") and len(t.shape) == 2}
    assert matrices == {*imatrix.read(output).entries}
