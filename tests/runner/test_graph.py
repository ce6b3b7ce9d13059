"""The forward pass against transformers' logits, and its ways to compute the same against each other."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy
import pytest

from helpers import differences, oracles
from quantcli import architectures
from quantcli.cli.parse import convert_request
from quantcli.commands import convert
from quantcli.errors import ContextTooLong, MissingTensors, ShapeMismatch, UnknownArchitecture, UsageError
from quantcli.loader import open_model
from quantcli.runner.cache import Cache, LayerShape, hadamard
from quantcli.runner.network import Network
from quantcli.runner.operations import Operations
from quantcli.runner.session import RunOptions, make_operations, open_session

#: also as a GGUF file and with the reference operations
DEEPLY = ("gemma3", "llama-quirks", "llama-tied-bias", "llama3", "olmo3", "phi3", "qwen3-moe")
NOT_RUN = (*oracles.ENCODERS, "exaone4", "t5")
TOLERANCE = 1e-4  # of the reference's standard deviation, largest difference of any logit


def logits(path: Path, ids: numpy.ndarray, operations: Operations | None = None, kv_type: str = "F32") -> numpy.ndarray:
    """Of one sequence: [positions, vocabulary]."""
    with open_model(path) as model:
        network = Network(model, operations or make_operations("float", 1), kv_type=kv_type)
        return network.forward(ids[None], network.new_cache(1, len(ids)))[0]


def check(path: Path, recorded: Path, operations: Operations | None = None, tolerance: float = TOLERANCE) -> None:
    with numpy.load(recorded) as oracle:
        for part in "ab":
            found = logits(path, oracle[f"ids_{part}"], operations)[oracle[f"pos_{part}"]]
            expected = oracle[f"logits_{part}"]
            worst = numpy.abs(found - expected).max() / expected.std()
            assert worst < tolerance, f"{path}: text {part} is off by {worst:.1e} of the spread"


@pytest.mark.parametrize("name", DEEPLY)
def test_checkpoint_and_gguf_have_the_logits_of_transformers(name: str, tmp_path: Path) -> None:
    folder = oracles.folder(name)
    converted = tmp_path / "model.gguf"
    convert.run(convert_request(source=folder, types=("COPY",), output=converted))
    check(folder, folder / "logits.npz")
    check(converted, folder / "logits.npz")
    check(folder, folder / "logits.npz", Operations())  # the reference in numpy


def test_windows_without_rotation_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """EXAONE 4 as transformers has it; llama.cpp has its windows in models of 64 layers only."""
    declared = architectures.find("exaone4")
    assert declared.graph
    ours = dataclasses.replace(declared, graph=dataclasses.replace(declared.graph, window_depth=0))
    monkeypatch.setattr(architectures, "find", lambda name: ours)
    folder = oracles.folder("exaone4")
    check(folder, folder / "logits.npz")


@pytest.mark.parametrize("name", sorted({*oracles.names()} - {*DEEPLY, *NOT_RUN}))
def test_other_families_have_the_logits_of_transformers(name: str, tmp_path: Path) -> None:
    folder = oracles.folder(name)
    check(folder, folder / "logits.npz")
    if name in oracles.MUST:
        converted = tmp_path / "model.gguf"
        convert.run(convert_request(source=folder, types=("COPY",), output=converted))
        check(converted, folder / "logits.npz")


@pytest.mark.parametrize("name", oracles.names("derived"))
def test_derived_families_have_the_logits_of_llama_cpp(name: str) -> None:
    folder = oracles.folder(name)
    if not (folder / "logits.npz").exists():
        pytest.skip("recorded without logits")
    tolerance = differences.tolerance(name, TOLERANCE)
    assert tolerance is not None
    check(folder, folder / "logits.npz", tolerance=tolerance)


@pytest.mark.parametrize("name", ["gemma3", "qwen3-moe", "phi3"])
def test_a_batch_and_a_continuation_change_nothing(name: str) -> None:
    """Two sequences side by side, each in three pieces, are what each is alone at once (windows included)."""
    ids = numpy.random.default_rng(1).integers(3, 300, (2, 40))
    with open_model(oracles.folder(name)) as model:
        network = Network(model, make_operations("float", 2), kv_type="F32")
        alone = numpy.stack([network.forward(one[None], network.new_cache(1, 40))[0] for one in ids])
        cache = network.new_cache(2, 40)
        pieces = [network.forward(ids[:, a:b], cache) for a, b in ((0, 25), (25, 26), (26, 40))]
        last = network.forward(ids, network.new_cache(2, 40), first_output=39)
    assert numpy.abs(numpy.concatenate(pieces, axis=1) - alone).max() < 1e-5 * alone.std()
    assert numpy.abs(last[:, 0] - alone[:, -1]).max() < 1e-5 * alone.std()


def test_cache_types_round_as_much_as_they_should(root: Path) -> None:
    ids = numpy.random.default_rng(2).integers(3, 300, 48)
    folder = root / "examples" / "tiny"
    exact = logits(folder, ids)
    errors = {
        kind: numpy.abs(logits(folder, ids, kv_type=kind) - exact).max() / exact.std()
        for kind in ("F16", "Q8_0", "Q4_0")
    }
    assert 0 < errors["F16"] < 0.005 and errors["F16"] < errors["Q8_0"] < 0.1, errors
    assert errors["Q8_0"] < errors["Q4_0"] < 1.5, errors


def test_quantized_caches_rotate_heads_and_spread_outliers() -> None:
    """With one huge element per head, rotation leaves less error than plain blocks of 4 bits would."""
    random = numpy.random.default_rng(3)
    keys = random.standard_normal((1, 8, 2, 64)).astype(numpy.float32)
    keys[..., 5] = 40
    cache = Cache("Q4_0", [LayerShape(2, (64, 64))], 1, 8)
    stored, values = cache.extend(0, keys, keys, Operations())
    queries = random.standard_normal((1, 8, 2, 64)).astype(numpy.float32)
    expected = numpy.einsum("sqhd,skhd->hqk", queries, keys)
    found = numpy.einsum("sqhd,shkd->hqk", cache.rotate_queries(0, queries), stored)
    plain = Cache("Q4_0", [LayerShape(2, (64, 64))], 1, 8)
    plain.turns = [[None, None]]
    unrotated = numpy.einsum("sqhd,shkd->hqk", queries, plain.extend(0, keys, keys, Operations())[0])
    assert numpy.abs(found - expected).std() < 0.5 * numpy.abs(unrotated - expected).std()
    back = cache.rotate_back(0, values.transpose(0, 2, 1, 3))
    assert numpy.abs(back - keys).max() < 40 / 14
    assert numpy.allclose(hadamard(128) @ hadamard(128), numpy.eye(128), atol=1e-6)


def test_refuses_what_it_cannot_run(root: Path) -> None:
    with open_model(root / "examples" / "tiny") as model:
        with pytest.raises(ContextTooLong, match="513 positions, the model knows 512"):
            Network(model, length=513)
        with pytest.raises(UsageError, match="no cache type"):
            Network(model, kv_type="Q3").new_cache(1, 8)
        network = Network(model, length=16)
        with pytest.raises(ContextTooLong):
            network.forward(numpy.zeros((1, 17), int), network.new_cache(1, 17))
        model.architecture = "unheard-of"
        with pytest.raises(UnknownArchitecture, match="unheard-of"):
            Network(model)


def test_tensors_that_contradict_the_metadata_are_errors(root: Path) -> None:
    with open_model(root / "examples" / "tiny") as model:
        broken = next(t for t in model.tensors if t.name == "blk.1.attn_k.weight")
        model.tensors[model.tensors.index(broken)] = dataclasses.replace(broken, shape=(256, 64))
        with pytest.raises(ShapeMismatch, match="256 x 64, the metadata wants 256 x 128"):
            Network(model)  # before anything is read
        model.tensors.remove(next(t for t in model.tensors if t.name == "blk.1.attn_k.weight"))
        with pytest.raises(MissingTensors, match="blk.1.attn_k.weight"):
            Network(model)


def test_options_exclude_each_other() -> None:
    with pytest.raises(UsageError, match="--exact"):
        RunOptions(exact=True, activations="q8")
    with pytest.raises(UsageError, match="no activations 'bf4'"):
        RunOptions(activations="bf4")


def test_activations_follow_the_model(tiny_files: dict[str, Path]) -> None:
    for name, expected in (("BF16", "float"), ("Q4_K_M", "q8")):
        with open_session(tiny_files[name]) as session:
            assert session.activations == expected
    with open_session(tiny_files["Q4_K_M"], RunOptions(exact=True)) as session:
        assert (session.activations, session.network.kv_type) == ("float", "F32")
