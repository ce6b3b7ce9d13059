"""An encoder beside the decoder: T5 against transformers and llama.cpp, and its ways to compute the same."""

from __future__ import annotations

from math import sqrt
from pathlib import Path

import numpy
import pytest

from helpers import differences, oracles
from quantcli.cli.parse import convert_request
from quantcli.commands import convert, generate
from quantcli.commands.generate import GenerateRequest
from quantcli.errors import UnsupportedGraph
from quantcli.loader import open_model
from quantcli.runner.buckets import biases, bucket_of
from quantcli.runner.encoder_decoder import EncoderDecoder
from quantcli.runner.network import Network
from quantcli.runner.operations import Operations
from quantcli.runner.sampling import Sampling
from quantcli.runner.session import RunOptions, make_operations, open_session

TOLERANCE = 1e-4  # of the reference's standard deviation
#: of larger folders: what transformers multiplies the logits by and llama.cpp does not
SHARED = {"arch-more/umt5": 1.0, "arch-more/t5-v1.0-relu-tied": 1 / sqrt(64), "arch-new/t5-encoder": 1.0}


def compare(path: Path, recorded: Path, tolerance: float, factor: float, operations: Operations | None = None) -> None:
    with numpy.load(recorded) as oracle, open_model(path) as model:
        network = EncoderDecoder(model, operations or make_operations("float", 1), kv_type="F32", length=64)
        for part in "ab":
            for kind in ("encoder_hidden", "hidden"):
                if f"{kind}_{part}" in oracle:
                    wanted = oracle[f"{kind}_{part}"]
                    found = network.states(oracle[f"ids_{part}"][None])[0]
                    assert numpy.abs(found - wanted).max() < TOLERANCE * wanted.std()
            if f"logits_{part}" in oracle:
                ids, wanted = oracle[f"decoder_ids_{part}"], oracle[f"logits_{part}"]
                found = network.forward(ids[None], network.read(oracle[f"ids_{part}"][None], len(ids)))[0]
                assert numpy.abs(found * numpy.float32(factor) - wanted).max() < tolerance * wanted.std()


def test_checkpoint_and_gguf_have_the_logits_of_transformers(tmp_path: Path) -> None:
    folder, converted = oracles.folder("t5"), tmp_path / "model.gguf"
    convert.run(convert_request(source=folder, types=("F32",), output=converted))
    compare(folder, folder / "logits.npz", TOLERANCE, 1.0)
    compare(converted, folder / "logits.npz", TOLERANCE, 1.0)
    compare(folder, folder / "logits.npz", TOLERANCE, 1.0, Operations())


@pytest.mark.parametrize("name", SHARED)
def test_relatives(name: str, shared: Path) -> None:
    """The first T5 (ReLU, tied head), one with biases in every layer, an encoder alone."""
    tolerance = differences.tolerance(name, TOLERANCE)
    assert tolerance is not None
    compare(shared / name, shared / name / "logits.npz", tolerance, SHARED[name])


def test_pieces_and_batches_change_nothing() -> None:
    """Also where the text that is written is longer than the one that was read."""
    random = numpy.random.default_rng(1)
    read, written = random.integers(3, 200, (2, 7)), random.integers(3, 200, (2, 40))
    with open_model(oracles.folder("t5")) as model:
        network = EncoderDecoder(model, make_operations("float", 2), kv_type="F32")
        whole = network.forward(written, network.read(read, 40))
        alone = network.forward(written[1:], network.read(read[1:], 40))
        cache = network.read(read, 40)
        pieces = [network.forward(written[:, a:b], cache) for a, b in ((0, 1), (1, 12), (12, 40))]
    assert numpy.abs(alone[0] - whole[1]).max() < 1e-5 * whole.std()
    assert numpy.abs(numpy.concatenate(pieces, axis=1) - whole).max() < 1e-5 * whole.std()


def test_distances_share_buckets() -> None:
    distances = numpy.array([-300, -128, -17, -16, -8, -7, -1, 0, 1, 7, 8, 16, 300])
    assert bucket_of(distances, 32, both=False).tolist() == [31, 31, 16, 16, 8, 7, 1, 0, 0, 0, 0, 0, 0]
    assert bucket_of(distances, 32, both=True).tolist() == [15, 15, 10, 10, 8, 7, 1, 0, 17, 23, 24, 26, 31]
    table = numpy.arange(64, dtype=numpy.float32).reshape(32, 2)
    found = biases(table, 5, both=True).between(0, 5, 0, 5)
    assert found.shape == (2, 5, 5) and found[1, 0, 3] == table[19, 1] and found[0, 3, 0] == table[3, 0]


def test_generates_a_text_of_its_own() -> None:
    folder = oracles.folder("t5")
    request = GenerateRequest(
        model=folder, prompt="a b", count=6, sampling=Sampling(temperature=0), ignore_end=True,
        options=RunOptions(exact=True),
    )  # fmt: skip
    found = generate.run(request)["tokens"]
    with open_session(folder, RunOptions(exact=True), both_sides=True) as session:
        network, tokens = session.network, []
        prompt = session.tokenizer.encode("a b", add_special=True)
        for _ in range(6):
            ids = numpy.array([[network.start, *tokens]])
            tokens.append(int(network.forward(ids, network.read(numpy.array([prompt]), 8))[0, -1].argmax()))
    assert found == tokens


def test_what_reads_one_text_refuses_it() -> None:
    with open_model(oracles.folder("t5")) as model, pytest.raises(UnsupportedGraph, match="encoder") as caught:
        Network(model)
    assert "generate" in caught.value.hint
