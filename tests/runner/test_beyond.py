"""More positions than a model was trained with: computed with a warning, but for positions that are learned."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest

from helpers import oracles
from helpers.stopping import Heard
from quantcli.calibration.collect import usual_length
from quantcli.commands import generate, imatrix, perplexity
from quantcli.errors import ContextTooLong, QuantcliError
from quantcli.loader import open_model
from quantcli.runner.network import MOST_POSITIONS, Network
from quantcli.runner.positions import frequencies
from quantcli.runner.session import RunOptions, open_session

ROTARY = ("llama-quirks", "phi3", "gemma3", "qwen3", "mixtral")
LEARNED = ("gpt2",)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("It was the best of times, it was the worst of times. " * 200)
    return path


@pytest.mark.parametrize("name", ROTARY)
def test_perplexity_warns_and_computes(name: str, text: Path) -> None:
    with open_session(oracles.folder(name)) as session:
        context = session.network.settings.context
    found, reporter = [], Heard(quiet=True)
    for length in (context, context + 44):
        options = RunOptions(activations="float", threads=1, length=length)
        request = perplexity.PerplexityRequest(
            model=oracles.folder(name), text=text, length=length, chunks=1, options=options
        )
        found.append(perplexity.run(request, reporter)["perplexity"]["mean"])
    assert numpy.isfinite(found).all()
    assert len(reporter.warned) == 1 and f"{context + 44} positions" in reporter.warned[0]
    assert f"trained with {context}" in reporter.warned[0]


@pytest.mark.parametrize("name", LEARNED)
def test_learned_positions_end(name: str) -> None:
    with open_session(oracles.folder(name)) as session:
        context = session.network.settings.context
    with pytest.raises(ContextTooLong) as caught:
        open_session(oracles.folder(name), RunOptions(length=context + 1))
    assert caught.value.hint == f"at most -c {context}"


def test_generation_goes_on() -> None:
    name, reporter = oracles.folder("llama-quirks"), Heard(quiet=True)
    options = RunOptions(exact=True, threads=1, length=300)
    request = generate.GenerateRequest(model=name, prompt="a " * 250, count=8, ignore_end=True, options=options)
    result = generate.run(request, reporter)
    assert len(result["tokens"]) == 8 and len(reporter.warned) == 1


def test_positions_are_those_of_a_model_that_was_trained_longer() -> None:
    """What is declared as rope scaling is computed, wherever the trained context ends."""
    ids = numpy.arange(300)[None] % 200 + 20
    found = []
    for context in (256, 512):
        with open_model(oracles.folder("llama-quirks")) as model:
            network = Network(model, length=256, beyond=True)
            assert network.settings.context == 256
            network.settings = type(network.settings)(
                **{field: getattr(network.settings, field) for field in network.settings.__dataclass_fields__}
                | {"context": context}
            )
            network.require(300)
            assert bool(network.warnings) == (context == 256)
            found.append(network.forward(ids, network.new_cache(1, 300), first_output=290))
    assert numpy.array_equal(*found)
    rope, _ = frequencies(network.settings.rope, network.settings.rope_dims, None)
    assert len(rope) == network.settings.rope_dims // 2


def test_there_is_an_end_to_everything() -> None:
    with pytest.raises(ContextTooLong) as caught:
        open_session(oracles.folder("llama-quirks"), RunOptions(length=MOST_POSITIONS + 1))
    assert caught.value.hint == f"at most -c {MOST_POSITIONS}"


# ---- chunks of an importance matrix


@pytest.mark.parametrize("name", oracles.names())
def test_every_model_that_runs_can_be_calibrated(name: str) -> None:
    """The usual length of a chunk fits every model: 28 of 36 have a context below 512."""
    try:
        session = open_session(oracles.folder(name), RunOptions(activations="float", threads=1))
    except QuantcliError as error:
        pytest.skip(f"is not run: {error.message}")
    with session:
        length = usual_length(session)
        assert length == min(512, session.network.settings.context)
        session.network.require(length)
        assert session.network.warnings == []


@pytest.mark.parametrize("name", ["phi3", "gpt2", "llama3"])
def test_calibration_without_a_length(tmp_path: Path, text: Path, name: str) -> None:
    output = tmp_path / "imatrix.gguf"
    request = imatrix.ImatrixRequest(model=oracles.folder(name), output=output, text=text, chunks=1)
    result = imatrix.execute(request)
    with open_session(oracles.folder(name)) as session:
        assert result["chunk_size"] == min(512, session.network.settings.context)
    assert result["chunks"] == 1 and output.exists()


def test_convert_collects_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: Path) -> None:
    from quantcli.cli.parse import convert_request
    from quantcli.commands import convert

    monkeypatch.setattr("quantcli.calibration.collect.bundled_text", lambda: str(text))
    request = convert_request(
        source=oracles.folder("llama-quirks"), types=["Q4_0"], output=tmp_path / "m.gguf", imatrix=Path("auto")
    )
    assert convert.run(request)["outputs"] and (tmp_path / "imatrix.gguf").exists()
