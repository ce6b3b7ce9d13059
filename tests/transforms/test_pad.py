"""Wider feed-forward layers compute the same, and take types that narrow ones cannot."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest

from helpers import oracles
from quantcli.cli.parse import convert_request
from quantcli.commands import convert
from quantcli.loader import open_model
from quantcli.model import Model
from quantcli.runner.network import Network
from quantcli.runner.operations import Operations
from quantcli.transforms import pad

IDS = numpy.arange(3, 35, dtype=numpy.int32).reshape(2, 16)


def logits(model: Model) -> numpy.ndarray:
    network = Network(model, Operations("float"), length=IDS.shape[1], kv_type="F32")
    return network.forward(IDS % network.vocabulary, network.new_cache(*IDS.shape))


@pytest.mark.parametrize("name", oracles.decoders())
def test_a_padded_model_computes_the_same(name: str) -> None:
    with open_model(oracles.folder(name)) as model:
        wider = pad.apply(model)
        downs = [tensor for tensor in wider.tensors if ".ffn_down" in tensor.name and tensor.name.endswith(".weight")]
        assert downs and all(tensor.columns % 256 == 0 for tensor in downs)
        expected = logits(model)
        assert numpy.abs(logits(wider) - expected).max() < 1e-5 * expected.std()


@pytest.mark.parametrize("name", ["llama3", "phi3", "qwen3-moe"])
def test_slices_of_rows_are_the_rows(name: str) -> None:
    """Readers are asked for any slab."""
    with open_model(oracles.folder(name)) as model:
        for tensor in pad.apply(model).tensors:
            if ".ffn_" in tensor.name and len(tensor.shape) > 1:
                whole = tensor.reader.read_rows(0, tensor.rows)
                for start in range(0, tensor.rows, 37):
                    stop = min(start + 37, tensor.rows)
                    out = numpy.full((stop - start, tensor.columns), 7, numpy.float32)
                    assert numpy.array_equal(tensor.reader.read_rows(start, stop, out), whole[start:stop])


def test_convert_pads_and_nothing_falls_back(tmp_path: Path) -> None:
    source = oracles.folder("llama-k256")
    with open_model(source) as model:
        narrow = next(tensor.columns for tensor in model.tensors if "ffn_down" in tensor.name)
    path = tmp_path / "x.gguf"
    result = convert.run(convert_request(source=source, types=("Q4_K_S",), transforms=["pad"], output=path))
    with open_model(path) as made:
        down = next(tensor for tensor in made.tensors if "ffn_down" in tensor.name)
        assert down.columns == -(-narrow // 256) * 256
        assert made.metadata["llama.feed_forward_length"].data == down.columns
        assert numpy.isfinite(logits(made)).all()
    assert not [one for one in result["outputs"][0]["fallback_tensors"] if "ffn" in one["name"]]
