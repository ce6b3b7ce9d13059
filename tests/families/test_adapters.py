"""GGUF adapters against what llama.cpp's converter wrote, against merging, and what such a file cannot hold."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest

from helpers import adapters, conversions, oracles, outlines
from quantcli import families, loader
from quantcli.cli.parse import convert_request
from quantcli.commands import convert, verify
from quantcli.errors import QuantcliError, UnknownTensors, UnsupportedFile, UnsupportedTransform, UsageError
from quantcli.model import Model
from quantcli.sources.checkpoint import Checkpoint

PACK = outlines.packed("lora")


def opened(name: str, folder: Path, edit: Callable[[dict[str, Any]], None] | None = None) -> Model:
    """The adapter of an outline, changed by ``edit`` before."""
    one = copy.deepcopy(dict(PACK[name]))
    if edit:
        edit(one)
    place = outlines.write(one, folder / name, "adapter_model.safetensors")
    return loader.open_adapter(place, place / "base")


# ---- against llama.cpp


@pytest.mark.parametrize("name", PACK)
def test_outlines(name: str, tmp_path: Path) -> None:
    with opened(name, tmp_path) as model:
        assert model.role == "adapter"
        for file_type, wanted in PACK[name]["expected"].items():
            found = outlines.digests(model, file_type)
            if wanted["tensors"]:
                assert {tensor: row[:2] for tensor, row in found.items()} == wanted["tensors"]
            assert outlines.summary(found) == wanted["sha256"], file_type
        assert not [*conversions.metadata_differences(model, PACK[name])]
        assert model.metadata["general.type"].data == "adapter"
        assert ("rslora" in " ".join(model.notes)) == (name == "qwen3")


def test_every_adapter_of_the_oracle_folder(shared: Path) -> None:
    folders = sorted(path.parent for path in (shared / "lora").glob("*/expected.json"))
    assert len(folders) >= 6
    for folder in folders:
        record = conversions.expected(folder)
        with loader.open_adapter(folder, folder / "base") as model:
            found = outlines.digests(model, record["outtype"])
            wanted = {row["name"]: [row["shape"], row["type"], row["sha256"]] for row in record["tensors"]}
            assert found == wanted, folder.name
            assert not [*conversions.metadata_differences(model, record)], folder.name


# ---- against merging: W' = W + alpha / rank * B A for every GGUF tensor, whatever the family does to rows and columns

#: matrices that no factors follow, or that peft has no adapters of
SKIPPED = (
    "kv_b_proj",
    ".conv1d.",
    "position_embeddings",
    "token_type_embeddings",
    "pooler",
    "relative_attention_bias",
    "wpe",
)


def matrices(name: str) -> dict[str, tuple[int, ...]]:
    with Checkpoint(oracles.folder(name)) as checkpoint:
        return {tensor.name: tensor.shape for tensor in checkpoint.logical_tensors}


def rows(model: Model) -> dict[str, numpy.ndarray]:
    return {
        one.name: one.reader.read_rows(0, one.rows).reshape([*reversed(one.shape)]).astype(numpy.float64)
        for one in model.tensors
    }


@pytest.mark.parametrize("name", oracles.names())
def test_an_adapter_does_what_merging_does(name: str, tmp_path: Path) -> None:
    folder, turned = oracles.folder(name), name == "gpt2"
    size = {one: shape for one, shape in matrices(name).items() if not any(part in one for part in SKIPPED)}
    made = adapters.for_tensors(size, fan_in_fan_out=turned).write(tmp_path)
    base = rows(families.load_checkpoint(Checkpoint(folder)))
    with loader.open_models(folder, merge=loader.Merge(made)) as models:
        changed = rows(models.text)
    try:
        adapter = rows(loader.open_adapter(made, folder))
    except UnknownTensors as error:
        assert "lm_head" in str(error)  # a stored copy of the embeddings
        pytest.skip(str(error))
    seen = set()
    for tensor in sorted(adapter):
        if not tensor.endswith(".lora_a"):
            continue
        target = tensor.removesuffix(".lora_a")
        a, b = adapter[tensor], adapter[f"{target}.lora_b"]
        product = a @ b.T if target == "token_embd.weight" else b @ a
        difference = changed[target] - base[target]
        assert numpy.allclose(3 * product, difference, rtol=0, atol=2e-6 * numpy.abs(changed[target]).max()), target
        seen.add(target)
    for target, values in base.items():
        assert target in seen or numpy.array_equal(values, changed[target]), target
    assert seen


def test_what_no_factors_follow_is_named(tmp_path: Path) -> None:
    size = {name: shape for name, shape in matrices("deepseek-v2").items() if "kv_b_proj" in name}
    made = adapters.for_tensors(size).write(tmp_path)
    with pytest.raises(UnsupportedTransform) as caught:
        loader.open_adapter(made, oracles.folder("deepseek-v2"))
    assert "kv_b_proj" in str(caught.value) and "--merge-lora" in str(caught.value.hint)


# ---- experts


def some_experts(one: dict[str, Any]) -> None:
    one["tensors"] = {name: row for name, row in one["tensors"].items() if "experts.2." not in name}


def test_experts_without_adapters_have_zeros(tmp_path: Path) -> None:
    with opened("qwen3-moe-experts", tmp_path / "a") as model:
        whole = rows(model)
    with opened("qwen3-moe-experts", tmp_path / "b", some_experts) as model:
        found = rows(model)
        assert {one.name: one.shape for one in model.tensors} == {n: tuple(reversed(v.shape)) for n, v in whole.items()}
    for name, values in whole.items():
        wanted = values.copy()
        if "_exps" in name:
            wanted[2] = 0
        assert numpy.array_equal(found[name], wanted), name


def test_experts_of_several_ranks_are_named(tmp_path: Path) -> None:
    def edit(one: dict[str, Any]) -> None:
        for name, (_, shape) in one["tensors"].items():
            if "experts.1.up_proj" in name:
                shape[0 if "lora_A" in name else 1] = 2

    with pytest.raises(UnsupportedFile, match="expert 1 has the rank 2"):
        opened("qwen3-moe-experts", tmp_path, edit)


# ---- settings and names


def test_settings_that_llama_cpp_does_not_know_are_told(tmp_path: Path) -> None:
    def edit(one: dict[str, Any]) -> None:
        settings = one["files"]["adapter_config.json"]
        settings |= {"alpha_pattern": {"q_proj": 2}, "alora_invocation_tokens": [7, 8]}

    with opened("llama-attn", tmp_path, edit) as model:
        assert "alpha_pattern" in " ".join(model.notes)
        assert [*model.metadata["adapter.alora.invocation_tokens"].data] == [7, 8]


def test_adapters_of_other_towers_are_left_out_and_told(tmp_path: Path) -> None:
    def edit(one: dict[str, Any]) -> None:
        for letter, shape in (("A", [4, 8]), ("B", [8, 4])):
            one["tensors"][f"base_model.model.model.vision_tower.x.q_proj.lora_{letter}.weight"] = ["BF16", shape]

    with opened("gemma3", tmp_path, edit) as model:
        assert "the adapters of 1 matrices outside" in " ".join(model.notes) and len(model.tensors) == 28


def test_a_tied_head_is_told(tmp_path: Path) -> None:
    def edit(one: dict[str, Any]) -> None:
        one["files"]["base/config.json"]["tie_word_embeddings"] = True

    with opened("llama-all-f16", tmp_path, edit) as model:
        assert "tied to the embeddings" in " ".join(model.notes) and "head as well" in " ".join(model.notes)


# ---- what such a file cannot hold


def added(name: str, *shape: int) -> Callable[[dict[str, Any]], None]:
    return lambda one: one["tensors"].update({f"base_model.model.{name}": ["BF16", [*shape]]})


QUERY = "model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("edit", "error", "says"),
    [
        (added("lm_head.weight", 416, 64), UnsupportedFile, "lm_head.weight is stored as a whole"),
        (added("model.embed_tokens.modules_to_save.weight", 420, 64), UnsupportedFile, "embed_tokens.weight is stored"),
        (added("model.embed_tokens.token_adapter.trainable_tokens_delta", 2, 64), UnsupportedFile, "single tokens"),
        (added(f"{QUERY}.lora_magnitude_vector", 64), UnsupportedFile, "DoRA"),
        (added(f"{QUERY}.lora_B.bias", 64), UnsupportedFile, "has a bias"),
        (added(f"{QUERY}.base_layer.bias", 64), UnsupportedFile, "base_layer.bias"),
        (lambda one: one["tensors"].clear(), UnsupportedFile, "no LoRA tensors"),
        (lambda one: one["files"]["base/config.json"].update(num_hidden_layers=1), UnknownTensors, "unknown"),
    ],
)
def test_refusals(edit: Any, error: type[QuantcliError], says: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=says) as caught:
        opened("llama-attn", tmp_path, edit)
    assert caught.value.hint and caught.value.where


# ---- the command


def test_the_command(tmp_path: Path) -> None:
    place = outlines.write(PACK["phi3-fused"], tmp_path / "adapter", "adapter_model.safetensors")
    result = convert.run(convert_request(source=place, types=(), lora_base=place / "base", output=f"{tmp_path}/out/"))
    path = tmp_path / "out" / "adapter-F32-LoRA.gguf"
    assert result["outputs"][0]["path"] == str(path) and verify.run([path])["ok"]
    with loader.open_model(path) as model:
        assert {one.type.name for one in model.tensors} == {"F32"}
    small = tmp_path / "small.gguf"
    convert.run(convert_request(source=place, types=("Q8_0",), lora_base=place / "base", output=small))
    with loader.open_model(small) as model:
        assert {one.type.name for one in model.tensors} == {"F16", "Q8_0"}  # rows of 8 weights are F16


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"types": ("Q4_K_M",), "lora_base": Path("x")}, "cannot be written as Q4_K_M"),
        ({"types": ("F16",), "lora_base": Path("x"), "merge_lora": Path("y")}, "--merge-lora and --lora-base"),
        ({"types": ("F16",), "lora_base": Path("x"), "mmproj": "F16"}, "--mmproj and --lora-base"),
        ({"types": ("F16",), "lora_base": Path("x"), "quality": "good"}, "--quality"),
        ({"types": ("F16",), "lora_scale": 2.0}, "--lora-scale is for --merge-lora"),
        ({"types": ("F16",), "merge_lora": Path("x"), "lora_scale": float("inf")}, "finite"),
        ({"types": ()}, "no type given"),
    ],
)
def test_contradictions(options: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        convert_request(source=tmp_path, **options)
    assert caught.value.hint
