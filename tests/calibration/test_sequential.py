"""Encoding layer by layer: what the passes reach, what they never make worse, and that records give the same bytes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy
import pytest
from safetensors.numpy import load_file

from helpers import oracles
from quantcli.calibration import float_stream
from quantcli.calibration.capture import inputs_of, stages_of
from quantcli.calibration.compensate import Compensation, Progress
from quantcli.calibration.folder import Folder
from quantcli.calibration.moments import Moments, excess
from quantcli.calibration.quality import UNKNOWN
from quantcli.calibration.sequential import Result, Sequential
from quantcli.calibration.tokens import Calibration
from quantcli.errors import BadStatistics, NonFiniteResult
from quantcli.ggml import kernels
from quantcli.ggml.tensor_types import BY_NAME, TensorType
from quantcli.loader import open_model
from quantcli.methods import coupling
from quantcli.model import Model
from quantcli.runner.network import Network
from quantcli.runner.session import make_operations
from quantcli.runner.text import Chunks
from quantcli.runner.weights import Packed, holding

METHODS = ("gptq", "sequential")  # one stream, two streams
RUN = oracles.decoders()


def network_of(model: Model, threads: int = 1) -> Network:
    return Network(model, make_operations("float", threads), length=32, kv_type="F32")


def types_of(model: Model, name: str = "Q4_0") -> dict[str, TensorType]:
    """One type for every matrix of the layers that it fits, the routers left out."""
    return {
        tensor.name: BY_NAME[name]
        for tensor in model.tensors
        if tensor.name.startswith("blk.") and tensor.name.endswith(".weight") and len(tensor.shape) > 1
        if tensor.columns % BY_NAME[name].block == 0 and "norm" not in tensor.name and "ffn_gate_inp" not in tensor.name
    }


def text(network: Network, seed: int, count: int = 8) -> Chunks:
    ids = numpy.random.default_rng(seed).integers(3, min(300, network.vocabulary), (count, 32)).astype(numpy.int32)
    return Chunks("text", ids, None)


def encoded(
    network: Network,
    types: dict[str, TensorType],
    store: Folder | None = None,
    *,
    method: str = "sequential",
    transforms: tuple[str, ...] = (),
    threads: int = 1,
    progress: Progress | None = None,
) -> Result:
    calibration = Calibration(text(network, 1), text(network, 2, 2), UNKNOWN, numpy.empty((0, 32), numpy.int32))
    made = Compensation(
        network=network,
        types=types,
        calibration=calibration,
        method=method,
        transforms=transforms,
        threads=threads,
        store=store,
        progress=progress,
    )
    return made.run().result


def distance(network: Network, contents: dict[str, Packed], seed: int = 3) -> float:
    """Mean squared difference of the last residual stream on fresh tokens."""
    ids = text(network, seed, 4).tokens
    return float(numpy.square(network.replacing(contents).stream(ids) - network.stream(ids)).mean())


@pytest.mark.parametrize("name", RUN)
def test_every_family_is_encoded_and_every_matrix_of_its_products(name: str) -> None:
    with open_model(oracles.folder(name)) as model:
        network, types = network_of(model), types_of(model)
        for method in METHODS:
            result = encoded(network, types, method=method)
            assert set(result.contents) == set(types)
            assert {outcome["name"] for outcome in result.outcomes} == set(types)
            assert numpy.isfinite(distance(network, result.contents))


@pytest.mark.parametrize("name", ["llama3", "gemma2", "phi3"])
def test_compensation_is_nearer_than_the_search_and_two_streams_nearer_than_one(name: str) -> None:
    """On the tokens that it was fitted to: random weights have nothing that fresh tokens share."""
    with open_model(oracles.folder(name)) as model:
        network, types = network_of(model), types_of(model)
        plain = {
            tensor: Packed(kind, kernels.encode(kind.id, network.weights.tensors[tensor].reader.read_rows(0, rows)))
            for tensor, kind in types.items()
            for rows in [network.weights.tensors[tensor].rows]
        }
        found = [
            distance(network, contents, seed=1)
            for contents in (plain, *(encoded(network, types, method=method).contents for method in METHODS))
        ]
        assert found[1] < found[0] and found[2] < found[1]


@pytest.mark.parametrize("method", METHODS)
def test_threads_change_nothing(method: str) -> None:
    with open_model(oracles.folder("llama3")) as model:
        results = [encoded(network_of(model, n), types_of(model), threads=n, method=method).contents for n in (1, 3)]
        for name, one in results[0].items():
            assert numpy.array_equal(one.data, results[1][name].data), name


@pytest.mark.parametrize("transforms", [(), ("awq",), ("smoothquant", "equalize")])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["llama3", "qwen3-moe"])
def test_a_record_gives_the_same_bytes_without_a_pass(
    name: str, method: str, transforms: tuple[str, ...], tmp_path: Path, monkeypatch
) -> None:
    with open_model(oracles.folder(name)) as model:
        network, types = network_of(model), types_of(model)
        asked = {"method": method, "transforms": transforms}
        first = encoded(network, types, Folder(tmp_path / "stats", {"run": "one"}), **asked)

        def never(*unused: object) -> None:
            raise AssertionError("no streams are needed")

        monkeypatch.setattr(Sequential, "_batches", never)
        monkeypatch.setattr(float_stream, "layers", never)
        monkeypatch.setattr(numpy.linalg, "cholesky", never)
        again = encoded(network, types, Folder(tmp_path / "stats", {"run": "one"}), **asked)
        assert again.outcomes == first.outcomes
        assert all(numpy.array_equal(again.contents[key].data, one.data) for key, one in first.contents.items())

        (tmp_path / "stats" / "blk.1.attn_output.safetensors").unlink()
        with pytest.raises(BadStatistics, match=r"lacks blk\.1\.attn_output"):  # never from sums of nothing
            encoded(network, types, Folder(tmp_path / "stats", {"run": "one"}), **asked)


def test_an_interrupted_record_is_continued(tmp_path: Path) -> None:
    with open_model(oracles.folder("llama3")) as model:
        network, types = network_of(model), types_of(model)
        whole = encoded(network, types)
        store = Folder(tmp_path / "stats", {"run": "one"})

        def stop(what: str, done: int, total: int) -> None:
            if what == "sequential" and done == 1:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            encoded(network, types, store, progress=stop)
        kept = {path.name for path in store.path.glob("*.safetensors")}
        assert kept and "complete.safetensors" not in kept
        resumed = encoded(network, types, store)
        assert all(numpy.array_equal(resumed.contents[key].data, one.data) for key, one in whole.contents.items())


@pytest.mark.parametrize("method", METHODS)
def test_rows_are_coupled_where_gradients_say_so(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Matrices that are not keep the target of their own; experts are never coupled, gates make up for nothing."""
    monkeypatch.setattr(coupling, "pulled", lambda halves: numpy.full(halves.shape[1], 0.1, numpy.float32))
    with open_model(oracles.folder("llama3")) as model:
        store = Folder(tmp_path / "stats", {"run": "one"})
        made = encoded(network_of(model), types_of(model), store, method=method)
    stored = {key for path in store.path.glob("*.safetensors") for key in load_file(path)}
    goals = {key.split("/")[1] for key in stored if key.startswith("goal/")}
    assert len(goals) > 3 and goals <= set(made.contents)
    assert any("ffn_up" in name for name in goals) and not any("ffn_gate" in name for name in goals)
    assert not goals & {key.split("/")[1] for key in stored if key.startswith("shift/")}


def test_a_folder_of_another_run_is_refused(tmp_path: Path) -> None:
    Folder(tmp_path / "stats", {"model": "a", "tokens": 3})
    with pytest.raises(BadStatistics, match="made with tokens 3"):
        Folder(tmp_path / "stats", {"model": "a", "tokens": 4})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("mine")
    with pytest.raises(BadStatistics, match="something else"):
        Folder(tmp_path / "other", {})
    damaged = Folder(tmp_path / "damaged", {})
    damaged.write("x", {"y": numpy.zeros(3)})
    (damaged.path / "x.safetensors").write_bytes(b"\xff" * 40)
    with pytest.raises(BadStatistics, match=r"x\.safetensors"):
        damaged.read("x")


def test_activations_that_are_nan_name_their_layer() -> None:
    with open_model(oracles.folder("llama3")) as model:
        values = numpy.full((1, network_of(model).settings.hidden), numpy.nan, numpy.float32)
        tensors = [holding(t, Packed.of(values)) if t.name == "blk.1.ffn_norm.weight" else t for t in model.tensors]
        broken = network_of(dataclasses.replace(model, tensors=tensors))
        with pytest.raises(NonFiniteResult, match="layer 1"):
            encoded(broken, {name: kind for name, kind in types_of(model).items() if name.startswith("blk.0")})


def test_stages_are_the_products_in_order_and_their_inputs_can_be_fetched() -> None:
    with open_model(oracles.folder("llama3")) as model:
        network = network_of(model)
        x = network.embed(text(network, 1, 2).tokens)
        seen = []
        for part in network.layer_parts(0):
            for stage in stages_of(network, part, x, network.new_cache(*x.shape[:2])):
                ((expert, inputs),) = inputs_of(network, part, stage, x, network.new_cache(*x.shape[:2]))
                assert expert == 0 and inputs.shape == (x.shape[0] * x.shape[1], stage.weights[0].columns)
                seen.append([name.split(".")[2] for name in stage.names])
            x = part(x, network.new_cache(*x.shape[:2]))
        assert seen == [["attn_q", "attn_k", "attn_v"], ["attn_output"], ["ffn_gate", "ffn_up"], ["ffn_down"]]


def test_excess_is_what_the_outputs_miss() -> None:
    random = numpy.random.default_rng(1)
    a, b, r, s = (random.standard_normal((500, n)).astype(numpy.float32) for n in (12, 12, 5, 5))
    w, q = random.standard_normal((5, 12)).astype(numpy.float32), random.standard_normal((5, 12)).astype(numpy.float32)
    moments = Moments.zero(12, cross=True, residual_rows=5)
    for part in range(0, 500, 100):
        rows = slice(part, part + 100)
        moments.add(b[rows], a[rows], (r - s)[rows])

    def missed(matrix: numpy.ndarray) -> float:
        return float(numpy.square((a @ w.T + r) - (b @ matrix.T + s)).sum(axis=1).mean())

    found = excess(q - w, moments.mean_hessian(), moments.pull(w))
    assert found == pytest.approx(missed(q) - missed(w), rel=1e-4)
