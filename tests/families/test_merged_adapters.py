"""An adapter merged into its base: exact, with every variant of peft, and what cannot be merged is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest

from helpers import adapters, oracles
from helpers.checkpoints import write_tensors
from quantcli import loader
from quantcli.cli.parse import convert_request
from quantcli.commands import convert
from quantcli.errors import (
    BadConfig,
    MissingFile,
    MissingTensors,
    PickleCheckpoint,
    QuantcliError,
    ShapeMismatch,
    UnknownTensors,
    UnsupportedFile,
    UsageError,
)
from quantcli.sources.checkpoint import Checkpoint

GATE, QUERY, NORM = (
    f"model.layers.0.{name}" for name in ("mlp.gate_proj", "self_attn.q_proj", "post_attention_layernorm")
)
EMBEDDING, HEAD = "model.embed_tokens", "lm_head"
BASE = "llama-spm"


def shapes(name: str = BASE) -> dict[str, tuple[int, ...]]:
    with Checkpoint(oracles.folder(name)) as checkpoint:
        return {tensor.name: tensor.shape for tensor in checkpoint.logical_tensors}


def base_rows(name: str, checkpoint: str = BASE) -> numpy.ndarray:
    with Checkpoint(oracles.folder(checkpoint)) as source:
        tensor = source.tensors[name]
        return tensor.read_rows(0, tensor.rows).reshape(tensor.shape)


def merged(adapter: Path, base: Path | str = BASE, scale: float = 1.0) -> dict[str, numpy.ndarray]:
    """The changed checkpoint's tensors as families see them."""
    folder = oracles.folder(base) if isinstance(base, str) else base
    with loader._opened(folder, loader.Merge(adapter, scale)) as checkpoint:
        found = {
            tensor.name: tensor.read_rows(0, tensor.reader().rows).reshape(tensor.shape)
            for tensor in checkpoint.logical_tensors
        }
    for one in (checkpoint, *checkpoint.beside):
        one.close()
    return found


def reference(made: adapters.Made, module: str, factor: float) -> numpy.ndarray:
    """W + factor * B A in float64, rounded once."""
    return (base_rows(f"{module}.weight").astype(numpy.float64) + factor * made.product(module)).astype(numpy.float32)


# ---- exact


@pytest.mark.parametrize("scale", [1.0, 0.5, -2.0])
@pytest.mark.parametrize(
    ("settings", "factor"),
    [
        ({}, 12 / 4),
        ({"use_rslora": True}, 12 / 2),
        ({"lora_alpha": 8.5}, 8.5 / 4),
        ({"alpha_pattern": {"gate_proj": 20}}, {GATE: 20 / 4, QUERY: 12 / 4}),
        ({"alpha_pattern": {r"layers\.0\..*q_proj": 2.0, "q_proj": 7}}, {GATE: 12 / 4, QUERY: 2 / 4}),
    ],
)
def test_one_rounding(settings: dict[str, Any], factor: Any, scale: float, tmp_path: Path) -> None:
    size = shapes()
    made = adapters.Made(settings={"peft_type": "LORA", "r": 4, "lora_alpha": 12, **settings})
    for module in (GATE, QUERY):
        made.matrix(module, *size[f"{module}.weight"])
    found = merged(made.write(tmp_path), scale=scale)
    for module in (GATE, QUERY):
        own = factor[module] if isinstance(factor, dict) else factor
        assert numpy.array_equal(found[f"{module}.weight"], reference(made, module, own * scale)), module
    for name in size:
        if name not in (f"{GATE}.weight", f"{QUERY}.weight"):
            assert numpy.array_equal(found[name], base_rows(name)), name


def test_ranks_are_those_of_the_factors(tmp_path: Path) -> None:
    size, made = shapes(), adapters.Made()
    made.settings["rank_pattern"] = {"gate_proj": 7}
    made.matrix(GATE, *size[f"{GATE}.weight"], rank=7).matrix(QUERY, *size[f"{QUERY}.weight"])
    found = merged(made.write(tmp_path))
    assert numpy.array_equal(found[f"{GATE}.weight"], reference(made, GATE, 12 / 7))
    assert numpy.array_equal(found[f"{QUERY}.weight"], reference(made, QUERY, 12 / 4))


def test_embedding_and_head(tmp_path: Path) -> None:
    size = shapes()
    made = adapters.Made().embedding(EMBEDDING, *size[f"{EMBEDDING}.weight"]).matrix(HEAD, *size[f"{HEAD}.weight"])
    found = merged(made.write(tmp_path))
    for module in (EMBEDDING, HEAD):
        assert numpy.array_equal(found[f"{module}.weight"], reference(made, module, 3))


def test_any_cut_of_rows_gives_the_same(tmp_path: Path) -> None:
    made = adapters.Made().matrix(GATE, *shapes()[f"{GATE}.weight"])
    whole = merged(made.write(tmp_path))[f"{GATE}.weight"]
    with loader._opened(oracles.folder(BASE), loader.Merge(tmp_path)) as checkpoint:
        tensor = next(one for one in checkpoint.logical_tensors if one.name == f"{GATE}.weight")
        cut = [tensor.read_rows(row, min(row + 7, len(whole))) for row in range(0, len(whole), 7)]
        picked = tensor.reader().gather(numpy.array([5, 0, 5, len(whole) - 1]))
        assert numpy.array_equal(numpy.concatenate(cut), whole)
        assert numpy.array_equal(picked.view(numpy.float32), whole[[5, 0, 5, len(whole) - 1]])


def test_weights_stored_as_inputs_by_outputs(tmp_path: Path) -> None:
    """GPT-2's Conv1D: peft says fan_in_fan_out."""
    size = {name: shape for name, shape in shapes("gpt2").items() if "attn.c_attn" in name}
    made = adapters.for_tensors(size, fan_in_fan_out=True)
    found = merged(made.write(tmp_path), "gpt2")
    for name in size:
        if len(size[name]) == 2:
            delta = made.product(name.removesuffix(".weight"), transposed=True)
            wanted = (base_rows(name, "gpt2").astype(numpy.float64) + 3 * delta).astype(numpy.float32)
            assert numpy.array_equal(found[name], wanted)


def test_magnitudes(tmp_path: Path) -> None:
    """DoRA: the rows of the sum get trained lengths."""
    made = adapters.Made(settings={"peft_type": "LORA", "r": 4, "lora_alpha": 12, "use_dora": True})
    rows, columns = shapes()[f"{GATE}.weight"]
    made.matrix(GATE, rows, columns)
    lengths = numpy.linspace(0.5, 2, rows, dtype=numpy.float32)
    made.tensors[f"{GATE}.lora_magnitude_vector.weight"] = lengths
    found = merged(made.write(tmp_path))[f"{GATE}.weight"]
    total = base_rows(f"{GATE}.weight").astype(numpy.float64) + 3 * made.product(GATE)
    wanted = lengths[:, None] / numpy.linalg.norm(total, axis=1, keepdims=True) * total
    assert numpy.allclose(found, wanted, rtol=1e-6, atol=0)
    assert numpy.allclose(numpy.linalg.norm(found, axis=1), lengths, rtol=1e-6)


def test_whole_tensors_replace(tmp_path: Path) -> None:
    size, made = shapes(), adapters.Made()
    made.matrix(GATE, *size[f"{GATE}.weight"])
    head = adapters.values("head", *size[f"{HEAD}.weight"])
    norm = adapters.values("norm", 1, size[f"{NORM}.weight"][0])[0]
    made.tensors[f"{HEAD}.modules_to_save.default.weight"] = head
    made.tensors[f"{NORM}.weight"] = norm
    found = merged(made.write(tmp_path))
    assert numpy.array_equal(found[f"{HEAD}.weight"], head) and numpy.array_equal(found[f"{NORM}.weight"], norm)


def test_single_tokens_replace_rows(tmp_path: Path) -> None:
    made = adapters.Made()
    made.settings["trainable_token_indices"] = {"embed_tokens": [3, 300, 17]}
    rows = adapters.values("rows", 3, shapes()[f"{EMBEDDING}.weight"][1])
    made.tensors[f"{EMBEDDING}.token_adapter.trainable_tokens_delta"] = rows
    found = merged(made.write(tmp_path))[f"{EMBEDDING}.weight"]
    wanted = base_rows(f"{EMBEDDING}.weight").copy()
    wanted[[3, 300, 17]] = rows
    assert numpy.array_equal(found, wanted)


def test_biases(tmp_path: Path) -> None:
    made, module = adapters.Made(), "model.layers.0.self_attn.q_proj"
    made.matrix(module, *shapes("qwen2")[f"{module}.weight"])
    bias = adapters.values("bias", 1, shapes("qwen2")[f"{module}.bias"][0])[0]
    made.tensors[f"{module}.lora_B.bias"] = bias
    found = merged(made.write(tmp_path), "qwen2")[f"{module}.bias"]
    before = base_rows(f"{module}.bias", "qwen2").astype(numpy.float64)
    assert numpy.array_equal(found, (before + 3.0 * bias.astype(numpy.float64)).astype(numpy.float32))


@pytest.mark.parametrize("infix", ["", ".default", ".my_adapter"])
@pytest.mark.parametrize("root", ["base_model.model.", "", "base_model.model.language_model."])
def test_names(infix: str, root: str, tmp_path: Path) -> None:
    made = adapters.Made(root=root).matrix(GATE, *shapes()[f"{GATE}.weight"], infix=infix)
    made.tensors[f"{GATE}.base_layer.weight"] = adapters.values("base", 2, 2)  # some tools store it as well
    found = merged(made.write(tmp_path))
    plain = adapters.Made().matrix(GATE, *shapes()[f"{GATE}.weight"])
    assert numpy.array_equal(found[f"{GATE}.weight"], reference(plain, GATE, 3))


# ---- the command


def test_converts_as_the_merged_checkpoint(tmp_path: Path) -> None:
    """The same bytes as a checkpoint that holds the merged weights in float32."""
    made = adapters.for_tensors({name: shape for name, shape in shapes().items() if ".layers." in name})
    adapter = made.write(tmp_path / "adapter")
    tensors = merged(adapter, scale=0.5)
    folder = tmp_path / "merged"
    shutil.copytree(oracles.folder(BASE), folder)
    for shard in folder.glob("model*"):
        shard.unlink()
    write_tensors(folder, {name: ("F32", [*rows.shape], rows.tobytes()) for name, rows in tensors.items()})
    options: dict[str, Any] = {"types": ("F32", "Q8_0", "Q4_0")}
    convert.run(convert_request(source=folder, output=tmp_path / "a/", **options))
    request = convert_request(
        source=oracles.folder(BASE), output=tmp_path / "b/", merge_lora=adapter, lora_scale=0.5, **options
    )
    convert.run(request)
    for name in ("F32", "Q8_0", "Q4_0"):
        with (
            loader.open_model(next((tmp_path / "a").glob(f"*-{name}.gguf"))) as wanted,
            loader.open_model(next((tmp_path / "b").glob(f"*-{name}.gguf"))) as found,
        ):
            data = [
                {one.name: bytes(one.reader.read_raw(0, one.rows)) for one in model.tensors}
                for model in (wanted, found)
            ]
            assert data[0] == data[1]
            told = {key: value.data for key, value in found.metadata.items() if key.startswith("quantcli.lora.")}
    assert told["quantcli.lora.name"] == "adapter" and told["quantcli.lora.scale"] == 0.5
    assert {key for key in told if "sha256" in key} == {
        f"quantcli.lora.sha256.{name}" for name in ("adapter_config.json", "adapter_model.safetensors")
    }


# ---- what cannot be merged

Change = Callable[[adapters.Made], object]


def cut(ending: str) -> Change:
    def change(made: adapters.Made) -> None:
        made.tensors = {name: data for name, data in made.tensors.items() if not name.endswith(ending)}

    return change


def stored(name: str, *shape: int) -> Change:
    return lambda made: made.tensors.update({name: numpy.ones(shape, numpy.float32)})


def said(**settings: Any) -> Change:
    return lambda made: made.settings.update(settings)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (said(peft_type="IA3"), UnsupportedFile, "of kind 'IA3'"),
        (said(lora_alpha="x"), BadConfig, "lora_alpha"),
        (said(lora_alpha=float("nan")), BadConfig, "lora_alpha"),
        (said(use_rslora="yes"), BadConfig, "use_rslora"),
        (said(alpha_pattern={"(": 1}), BadConfig, "alpha_pattern"),
        (said(alpha_pattern={"q_proj": None}), BadConfig, "alpha_pattern"),
        (said(alpha_pattern=[1]), BadConfig, "alpha_pattern"),
        (said(layer_replication=[[0, 2], [1, 2]]), BadConfig, "layer_replication"),
        (cut("lora_B.weight"), MissingTensors, "lora_B is missing"),
        (cut("lora_A.weight"), MissingTensors, "lora_A is missing"),
        (stored(f"{GATE}.lora_A.weight", 5, 64), ShapeMismatch, "different ranks"),
        (stored(f"{GATE}.lora_A.weight", 4, 60), ShapeMismatch, "has the shape"),
        (stored(f"{GATE}.lora_A.weight", 4, 64, 3), UnsupportedFile, "is no matrix"),
        (stored(f"{HEAD}.weight", 500, 64), ShapeMismatch, "new tokens"),
        (stored("model.layers.77.mlp.up_proj.weight", 2, 2), UnknownTensors, "layers.77"),
        (stored(f"{EMBEDDING}.token_adapter.trainable_tokens_delta", 2, 64), BadConfig, "trainable_token_indices"),
        (stored(f"{GATE}.lora_magnitude_vector", 3), UnsupportedFile, "DoRA"),
    ],
)
def test_refusals(change: Change, error: type[QuantcliError], says: str, tmp_path: Path) -> None:
    made = adapters.Made().matrix(GATE, *shapes()[f"{GATE}.weight"])
    change(made)
    made.write(tmp_path)
    with pytest.raises(error, match=says) as caught:
        merged(tmp_path)
    assert caught.value.hint and str(tmp_path) in (caught.value.where or "")


def test_parameters_of_experts_are_named(tmp_path: Path) -> None:
    made = adapters.Made().matrix("model.layers.0.mlp.experts", 8, 8)
    with pytest.raises(UnsupportedFile, match="target_parameters"):
        merged(made.write(tmp_path))


def test_folders(tmp_path: Path, tiny_files: dict[str, Path]) -> None:
    with pytest.raises(MissingFile, match="adapter_config"):
        merged(oracles.folder(BASE))
    made = adapters.Made().matrix(GATE, *shapes()[f"{GATE}.weight"]).write(tmp_path / "a")
    with pytest.raises(UsageError, match="--merge-lora"):
        loader.open_models(tiny_files["BF16"], merge=loader.Merge(made))
    (made / "adapter_model.safetensors").rename(made / "adapter_model.bin")
    with pytest.raises(PickleCheckpoint):
        merged(made)


def test_initialisation_that_changes_the_base_is_told(tmp_path: Path) -> None:
    made = adapters.Made().matrix(GATE, *shapes()[f"{GATE}.weight"])
    made.settings["init_lora_weights"] = "pissa_niter_4"
    with loader.open_models(oracles.folder(BASE), merge=loader.Merge(made.write(tmp_path))) as models:
        assert any("pissa_niter_4" in note for note in models.text.notes)


def test_packed_bases(tmp_path: Path) -> None:
    """Rows of a packed base are decoded before the product is added."""
    size = shapes("gpt-oss-mxfp4")
    name = next(name for name in size if name.endswith("o_proj.weight"))
    made = adapters.Made().matrix(name.removesuffix(".weight"), *size[name])
    assert json.loads((oracles.folder("gpt-oss-mxfp4") / "config.json").read_text())["quantization_config"]
    with loader.open_models(oracles.folder("gpt-oss-mxfp4"), merge=loader.Merge(made.write(tmp_path))) as models:
        assert models.text.tensors


def test_a_head_that_is_tied_becomes_its_own(tmp_path: Path) -> None:
    """peft leaves the embeddings as they are where the head alone is adapted."""
    size = shapes("llama-tied-bias")
    assert f"{HEAD}.weight" not in size
    made = adapters.Made().matrix(HEAD, *size[f"{EMBEDDING}.weight"])
    embeddings = base_rows(f"{EMBEDDING}.weight", "llama-tied-bias")
    with loader.open_models(oracles.folder("llama-tied-bias"), merge=loader.Merge(made.write(tmp_path))) as models:
        found = {one.name: one.reader.read_rows(0, one.rows) for one in models.text.tensors}
    assert numpy.array_equal(found["token_embd.weight"], embeddings)
    wanted = (embeddings.astype(numpy.float64) + 3 * made.product(HEAD)).astype(numpy.float32)
    assert numpy.array_equal(found["output.weight"], wanted)


@pytest.mark.parametrize("infix", ["", ".modules_to_save.default"])
def test_a_head_that_is_tied_and_saved_whole_becomes_its_own(infix: str, tmp_path: Path) -> None:
    """modules_to_save with a head that the base does not store."""
    size = shapes("llama-tied-bias")[f"{EMBEDDING}.weight"]
    made = adapters.Made()
    made.tensors[f"{HEAD}{infix}.weight"] = adapters.values("head", *size)
    with loader.open_models(oracles.folder("llama-tied-bias"), merge=loader.Merge(made.write(tmp_path))) as models:
        found = {one.name: one.reader.read_rows(0, one.rows) for one in models.text.tensors}
    assert numpy.array_equal(found["token_embd.weight"], base_rows(f"{EMBEDDING}.weight", "llama-tied-bias"))
    assert numpy.array_equal(found["output.weight"], made.tensors[f"{HEAD}{infix}.weight"])
    made.tensors[f"{HEAD}{infix}.weight"] = adapters.values("head", size[0] + 2, size[1])
    with pytest.raises(ShapeMismatch, match="2 new tokens"):
        loader.open_models(oracles.folder("llama-tied-bias"), merge=loader.Merge(made.write(tmp_path)))
