"""A network in which single tensors have other contents."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest

from helpers import oracles
from quantcli.cli.parse import convert_request
from quantcli.commands import convert
from quantcli.errors import MissingTensors, ShapeMismatch
from quantcli.ggml import kernels, tensor_types
from quantcli.loader import open_model
from quantcli.runner.network import Network
from quantcli.runner.session import make_operations, open_session
from quantcli.runner.weights import Packed

IDS = numpy.random.default_rng(4).integers(3, 2000, (1, 24))
NAME = "blk.1.ffn_gate.weight"


def logits(network: Network) -> numpy.ndarray:
    return network.forward(IDS, network.new_cache(1, IDS.shape[1]))


@pytest.fixture(scope="module")
def files(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The bundled checkpoint in Q8_0, and the same with one tensor in Q4_K."""
    folder = tmp_path_factory.mktemp("replaced")
    plain, quantized = folder / "plain.gguf", folder / "quantized.gguf"
    source = root / "examples" / "tiny"
    convert.run(convert_request(source=source, types=("Q8_0",), output=plain))
    convert.run(
        convert_request(source=source, types=("Q8_0",), output=quantized, tensor_types=("blk.1.ffn_gate=Q4_K",))
    )
    return plain, quantized


@pytest.mark.parametrize("activations", ["float", "q8"])
def test_a_replaced_tensor_is_that_of_the_file_with_it(files: tuple[Path, Path], activations: str) -> None:
    plain, quantized = files
    with open_model(plain) as model, open_model(quantized) as other:
        tensor = next(t for t in other.tensors if t.name == NAME)
        assert tensor.stored.name == "Q4_K"
        network = Network(model, make_operations(activations, 1))
        before, expected = logits(network), logits(Network(other, make_operations(activations, 1)))
        blocks = numpy.frombuffer(tensor.reader.read_raw(0, tensor.rows), numpy.uint8).reshape(tensor.rows, -1)
        found = network.replacing({NAME: Packed(tensor.stored, blocks)})
        assert numpy.array_equal(logits(found), expected) and not numpy.array_equal(before, expected)
        assert numpy.array_equal(logits(network), before)  # the network itself is as it was
        if activations == "float":  # decoded numbers are the same weights
            decoded = kernels.decode(tensor.stored.id, blocks, tensor.rows, tensor.columns)
            again = logits(network.replacing({NAME: Packed.of(decoded)}))
            assert numpy.abs(again - expected).max() < 1e-5 * expected.std()


def test_what_is_not_replaced_is_shared(root: Path) -> None:
    with open_session(root / "examples" / "tiny") as session:
        network = session.network
        network.load()
        held = network.weights.held_bytes
        norm = network.weights.vector("blk.0.attn_norm.weight")
        half = network.replacing({"blk.0.attn_norm.weight": Packed.of(norm[None] / 2)})
        logits(half)
        assert network.weights.matrix("blk.2.attn_q", 256) is half.weights.matrix("blk.2.attn_q", 256)
        assert numpy.array_equal(half.weights.vector("blk.0.attn_norm.weight"), norm / 2)
        assert abs(half.weights.held_bytes - held) <= 10 * norm.nbytes
        # queries, keys and values of half the size: not the same text any more
        assert not numpy.array_equal(logits(half), logits(network))


def test_replaced_embeddings_are_those_of_the_head_too() -> None:
    with open_model(oracles.folder("gemma3")) as model:
        network = Network(model, make_operations("float", 1))
        assert "output.weight" not in network.weights
        values = network.embeddings.decode()
        values[7] = 0
        other = network.replacing({"token_embd.weight": Packed.of(values)})
        found = other.forward(IDS % 300, other.new_cache(1, IDS.shape[1]))
        assert (found[..., 7] == 0).all() and found.std() > 0


def test_contents_have_to_fit(root: Path) -> None:
    with open_model(root / "examples" / "tiny") as model:
        network = Network(model, make_operations("float", 1))
        with pytest.raises(MissingTensors, match=r"blk\.9\.x"):
            network.replacing({"blk.9.x.weight": Packed.of(numpy.zeros((1, 1), numpy.float32))})
        for contents in (
            Packed.of(numpy.zeros((4, 256), numpy.float32)),
            Packed(tensor_types.BY_NAME["Q4_K"], numpy.zeros((512, 10), numpy.uint8)),
        ):
            with pytest.raises(ShapeMismatch, match="contents of"):
                network.replacing({NAME: contents})
