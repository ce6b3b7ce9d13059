"""Projectors against what llama.cpp's converter wrote, and odd, broken or unknown ones."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest

from helpers import adapters, conversions, oracles, outlines
from helpers.checkpoints import read_tensors, write_tensors
from quantcli import families, loader
from quantcli.cli.parse import convert_request
from quantcli.commands import convert, verify
from quantcli.errors import BadConfig, MissingTensors, QuantcliError, ShapeMismatch, UnknownArchitecture, UsageError
from quantcli.families.facts import settle
from quantcli.families.projectors.catalogue import registry
from quantcli.families.written import FILE_TYPES
from quantcli.model import Model

PACK = outlines.packed("mmproj")
Edit = Callable[[dict[str, Any]], None]


def opened(name: str, folder: Path, edit: Edit | None = None) -> Model:
    """The projector of an outline, changed by ``edit`` before."""
    one = copy.deepcopy(dict(PACK[name]))
    if edit:
        edit(one)
    return loader.open_projector(outlines.write(one, folder / name, "model.safetensors"))


# ---- against llama.cpp


@pytest.mark.parametrize("name", PACK)
def test_outlines(name: str, tmp_path: Path) -> None:
    with opened(name, tmp_path) as model:
        assert model.role == "projector" and model.architecture == "clip" and not model.notes
        for file_type, wanted in PACK[name]["expected"].items():
            found = outlines.digests(model, file_type)
            if wanted["tensors"]:
                assert {tensor: row[:2] for tensor, row in found.items()} == wanted["tensors"]
            assert outlines.summary(found) == wanted["sha256"], file_type
        assert not [*conversions.metadata_differences(model, PACK[name])]
        assert model.metadata["general.type"].data == "mmproj"


def test_every_projector_of_the_oracle_folder(shared: Path) -> None:
    folders = sorted(path.parent for path in (shared / "mmproj").glob("*/expected.json"))
    assert len(folders) >= 9
    for folder in folders:
        record = conversions.expected(folder)
        with loader.open_projector(folder) as model:
            found = outlines.digests(model, record["outtype"])
            wanted = {row["name"]: [row["shape"], row["type"], row["sha256"]] for row in record["tensors"]}
            assert found == wanted, folder.name
            assert not [*conversions.metadata_differences(model, record)], folder.name


def test_registry_is_consistent() -> None:
    classes = [name for one in registry().values() for name in one.hf_architectures]
    assert len(classes) == len(set(classes))
    for one in registry().values():
        assert {entry.fact for entry in one.metadata} <= set(one.facts), one.name
        assert one.gguf_arch == "clip" and one.parts


# ---- other sizes, other names


def block_of(name: str) -> list[str]:
    return [part for part in name.split(".") if part.isdigit()]


def deeper(one: dict[str, Any]) -> None:
    """Five more layers than the oracle's tower has."""
    settings = one["files"]["config.json"][settings_of(one)]
    key = next(key for key in ("num_hidden_layers", "depth", "encoder_layers") if key in settings)
    count = settings[key]
    for name, row in [*one["tensors"].items()]:
        for part in ("layers.0.", "blocks.0."):
            if part in name:
                for number in range(count, count + 5):
                    one["tensors"][name.replace(part, part.replace("0", str(number)))] = row
    settings[key] = count + 5


def settings_of(one: dict[str, Any]) -> str:
    config = one["files"]["config.json"]
    return "vision_config" if "vision_config" in config else "audio_config"


@pytest.mark.parametrize("name", PACK)
def test_other_numbers_of_layers(name: str, tmp_path: Path) -> None:
    with opened(name, tmp_path) as model:
        before = model.metadata[next(key for key in model.metadata if key.endswith(".block_count"))].data
        per_layer = sum(".blk.0." in tensor.name for tensor in model.tensors)
        count = len(model.tensors)
    with opened(name, tmp_path / "deep", deeper) as model:
        key = next(key for key in model.metadata if key.endswith(".block_count"))
        assert model.metadata[key].data == before + 5
        assert len(model.tensors) == count + 5 * per_layer


@pytest.mark.parametrize("name", PACK)
@pytest.mark.parametrize("prefix", ["model.", "module.", "_orig_mod.model."])
def test_other_wrappers(name: str, prefix: str, tmp_path: Path) -> None:
    def edit(one: dict[str, Any]) -> None:
        one["tensors"] = {prefix + tensor: row for tensor, row in one["tensors"].items()}

    with opened(name, tmp_path, edit) as model:
        rows = PACK[name]["expected"][PACK[name]["type"]]["tensors"]
        assert {tensor.name for tensor in model.tensors} == set(rows)


def test_text_tensors_are_passed_over(tmp_path: Path) -> None:
    def edit(one: dict[str, Any]) -> None:
        for name in ("model.layers.0.mlp.up_proj.weight", "language_model.model.norm.weight", "lm_head.weight"):
            one["tensors"][name] = ["BF16", [2, 2]]

    with opened("qwen2-vl", tmp_path, edit) as model:
        assert len(model.tensors) == 56


def test_frames_of_a_patch(tmp_path: Path) -> None:
    with opened("qwen3-vl", tmp_path) as model:
        width, channels, frames, patch, _ = shape = [32, 3, 2, 4, 4]
        raw = outlines.weights("model.visual.patch_embed.proj.weight", "BF16", shape)
        whole = (numpy.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4").reshape(shape)
        for frame, name in enumerate(("v.patch_embd.weight", "v.patch_embd.weight.1")):
            tensor = next(one for one in model.tensors if one.name == name)
            found = tensor.reader.read_rows(0, tensor.rows).reshape(width, channels, patch, patch)
            assert frames == 2 and numpy.array_equal(found, whole[:, :, frame])


def test_deepstack_blocks_are_the_layers_that_feed_them(tmp_path: Path) -> None:
    def edit(one: dict[str, Any]) -> None:
        deeper(one)
        one["files"]["config.json"]["vision_config"]["deepstack_visual_indexes"] = [1, 4]
        for name, row in [*one["tensors"].items()]:
            if "deepstack_merger_list.0." in name:
                one["tensors"][name.replace("list.0.", "list.1.")] = row

    with opened("qwen3-vl", tmp_path, edit) as model:
        blocks = {tensor.name.split(".")[2] for tensor in model.tensors if ".deepstack." in tensor.name}
        flags = [bool(flag) for flag in model.metadata["clip.vision.is_deepstack_layers"].data]
    assert blocks == {"1", "4"} and flags == [False, True, False, False, True, False]


def test_activations(tmp_path: Path) -> None:
    def silu(one: dict[str, Any]) -> None:
        one["files"]["config.json"]["vision_config"]["hidden_act"] = "silu"

    with opened("mistral3-pixtral", tmp_path, silu) as model:
        assert model.metadata["clip.use_silu"].data is True and "clip.use_gelu" not in model.metadata
    with pytest.raises(BadConfig, match="hidden_act 'silu'"):
        opened("llama4", tmp_path, silu)


def test_processor_settings_lie_in_either_file(tmp_path: Path) -> None:
    def nested(one: dict[str, Any]) -> None:
        given = one["files"].pop("preprocessor_config.json")
        one["files"]["processor_config.json"] = {"image_processor": given}

    with opened("qwen2-vl", tmp_path / "a") as plain, opened("qwen2-vl", tmp_path / "b", nested) as other:
        assert [*plain.metadata["clip.vision.image_mean"].data] == [*other.metadata["clip.vision.image_mean"].data]


# ---- what is wrong


def without(part: str) -> Edit:
    def edit(one: dict[str, Any]) -> None:
        one["tensors"] = {name: row for name, row in one["tensors"].items() if part not in name}

    return edit


def setting(**fields: Any) -> Edit:
    return lambda one: one["files"]["config.json"][settings_of(one)].update(fields)


def classed(name: str) -> Edit:
    return lambda one: one["files"]["config.json"].update(architectures=[name], model_type="other")


@pytest.mark.parametrize(
    ("name", "edit", "error", "says"),
    [
        ("gemma3", without("mm_soft_emb_norm"), MissingTensors, "multi_modal_projector.mm_soft_emb_norm.weight"),
        ("qwen3-vl", without("blocks.0.attn.proj"), MissingTensors, "blocks.0.attn.proj.weight"),
        ("gemma3", lambda one: one["files"].pop("preprocessor_config.json"), BadConfig, "image_mean"),
        ("voxtral", setting(hidden_size=64), ShapeMismatch, "config.json asks for"),
        ("qwen2-vl", setting(temporal_patch_size=3), BadConfig, "temporal_patch_size is 3"),
        ("qwen2.5-vl", setting(fullatt_block_indexes=[1, 2]), BadConfig, "every n-th layer"),
        ("qwen3-vl", setting(deepstack_visual_indexes=[7]), BadConfig, "deepstack_visual_indexes"),
        ("mistral3-pixtral", setting(model_type="clip_vision_model"), BadConfig, "clip_vision_model"),
        ("gemma3", setting(patch_size=0), BadConfig, "patch_size"),
        ("gemma3", classed("NeverSeenForConditionalGeneration"), UnknownArchitecture, "NeverSeen"),
        ("gemma3", lambda one: one["files"]["config.json"].pop("vision_config"), BadConfig, "vision_config is missing"),
    ],
)
def test_refusals(name: str, edit: Edit, error: type[QuantcliError], says: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=says) as caught:
        opened(name, tmp_path, edit)
    assert caught.value.hint


# ---- the command


def wrapper(folder: Path) -> Path:
    """Gemma 3 with its tower: the text part of one oracle, the tower of another's outline."""
    one = copy.deepcopy(dict(PACK["gemma3"]))
    text = oracles.folder("gemma3")
    config = json.loads((text / "config.json").read_text())
    one["files"]["config.json"]["text_config"] = config
    one["tensors"]["multi_modal_projector.mm_input_projection_weight"] = ["BF16", [32, config["hidden_size"]]]
    outlines.write(one, folder, "model.safetensors")
    tensors = {f"language_model.{name}": row for name, row in read_tensors(text).items()}
    write_tensors(folder, read_tensors(folder) | tensors)
    for path in text.iterdir():
        if path.name.startswith(("tokenizer", "special")):
            (folder / path.name).write_bytes(path.read_bytes())
    return folder


def test_two_files_of_one_job(tmp_path: Path) -> None:
    source, output = wrapper(tmp_path / "wrapped"), tmp_path / "out"
    output.mkdir()
    result = convert.run(convert_request(source=source, types=("F16", "Q8_0"), output=output, mmproj="BF16"))
    names = ["wrapped-F16.gguf", "wrapped-Q8_0.gguf", "mmproj-wrapped-BF16.gguf"]
    assert [Path(one["path"]).name for one in result["outputs"]] == names
    assert verify.run([output / name for name in names])["ok"]
    assert not [note for note in result["notes"] if "left out" in note]
    alone = convert.run(convert_request(source=source, types=("F16",), output=tmp_path / "alone.gguf"))
    assert alone["outputs"][0]["sha256"] == result["outputs"][0]["sha256"]
    assert any(
        f"left out {len(PACK['gemma3']['tensors'])} tensors of vision" in note and "--mmproj F16" in note
        for note in alone["notes"]
    )
    single = tmp_path / "single.gguf"
    convert.run(convert_request(source=source, types=("BF16",), output=single, mmproj_only=True))
    assert single.read_bytes() == (output / names[2]).read_bytes()


@pytest.mark.parametrize("part", [None, "1/3", "2/3", "3/3"])
def test_a_projector_that_is_missing_is_made(tmp_path: Path, part: str | None) -> None:
    """And a text beside a projector that is there; in parts, each its own."""
    source, given = wrapper(tmp_path / "wrapped"), {"split_max_size": "60K"} if part else {}

    def made(folder: str, **more: object) -> dict[str, bytes]:
        given_too = {**given, **more}
        convert.run(
            convert_request(
                source=source, types=("F16", "Q8_0"), output=f"{tmp_path / folder}/", mmproj="BF16", **given_too
            )
        )
        return {path.name: path.read_bytes() for path in (tmp_path / folder).iterdir()}

    whole = made("whole")
    own = set(made("own", part=part, skip_existing=True)) if part else set(whole)
    assert own and own <= set(whole)
    for name in sorted(whole):
        out = tmp_path / f"without-{name}"
        shutil.copytree(tmp_path / "whole", out)
        (out / name).unlink()
        assert made(out.name, part=part, skip_existing=True) == {
            other: data for other, data in whole.items() if other != name or name in own
        }


def test_an_adapter_of_the_tower_is_merged(tmp_path: Path) -> None:
    source = wrapper(tmp_path / "wrapped")
    module = "vision_tower.vision_model.encoder.layers.1.self_attn.q_proj"
    adapter = adapters.Made().matrix(module, 32, 32).write(tmp_path / "adapter")
    with (
        loader.open_models(source, projector=True) as before,
        loader.open_models(source, projector=True, merge=loader.Merge(adapter)) as after,
    ):
        changed = []
        for old, new in zip(before.every, after.every, strict=True):
            for a, b in zip(old.tensors, new.tensors, strict=True):
                if not numpy.array_equal(a.reader.read_rows(0, a.rows), b.reader.read_rows(0, b.rows)):
                    changed.append(a.name)
    assert changed == ["v.blk.1.attn_q.weight"]


def test_a_named_file_has_its_projector_beside_it(tmp_path: Path) -> None:
    source = wrapper(tmp_path / "wrapped")
    convert.run(convert_request(source=source, types=("F16",), output=tmp_path / "text.gguf", mmproj="F16"))
    assert {path.name for path in tmp_path.glob("*.gguf")} == {"text.gguf", "mmproj-wrapped-F16.gguf"}


def test_a_class_without_a_projector_says_so(tmp_path: Path) -> None:
    source = wrapper(tmp_path / "wrapped")
    config = json.loads((source / "config.json").read_text()) | {"architectures": [], "model_type": "gemma3_text"}
    (source / "config.json").write_text(json.dumps(config))
    with loader.open_models(source) as models:
        assert "no projector is declared" in " ".join(models.text.notes)
    with pytest.raises(UnknownArchitecture, match="no projector"):
        loader.open_models(source, projector=True)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"types": ("Q4_K_M",), "mmproj_only": True}, "cannot be written as Q4_K_M"),
        ({"types": ("F16",), "mmproj": "Q4_0"}, "cannot be written as Q4_0"),
        ({"types": ("F16",), "mmproj": "F16", "mmproj_only": True}, "beside the text"),
        ({"types": ("F16",), "mmproj_only": True, "tensor_types": ("a=F16",)}, "--tensor-type"),
        ({"types": ("F16",), "mmproj_only": True, "imatrix": Path("x.gguf")}, "--imatrix"),
        ({"types": ("F16",), "mmproj_only": True, "quality": "good"}, "--quality"),
    ],
)
def test_contradictions(options: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        convert_request(source=tmp_path, **options)
    assert caught.value.hint


def test_only_checkpoints_have_projectors(tiny_files: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match="--mmproj"):
        loader.open_projector(tiny_files["BF16"])
    with pytest.raises(UsageError, match="--mmproj"):
        loader.open_models(tiny_files["BF16"], projector=True)


@pytest.mark.parametrize("file_type", FILE_TYPES)
def test_every_type(file_type: str, tmp_path: Path) -> None:
    with opened("smolvlm", tmp_path) as model:
        kinds = {row[1] for row in outlines.digests(model, file_type).values()}
    fallen = {"F16"} if file_type == "Q8_0" else set()  # rows of 48
    assert families.registry()
    assert kinds == {"F32", file_type} | fallen


# ---- without an oracle: checkpoints that are made from the declaration

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 2, "patch_size": 4}
PIXELS = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
MADE: dict[str, dict[str, Any]] = {
    "internvl-vision": {
        "architectures": ["InternVLChatModel"],
        "vision_config": SIZES | {"architectures": ["InternVisionModel"], "image_size": [16, 16]},
        "llm_config": {"hidden_size": 64},
        "max_dynamic_patch": 12,
    },
    "glm4v-vision": {
        "architectures": ["Glm4vForConditionalGeneration"],
        "vision_config": SIZES | {"depth": 3, "num_heads": 2, "image_size": 16, "out_hidden_size": 64},
        "text_config": {"hidden_size": 64},
    },
    "kimi-vl-vision": {
        "architectures": ["KimiVLForConditionalGeneration"],
        "vision_config": SIZES | {"init_pos_emb_height": 5, "init_pos_emb_width": 6},
        "text_config": {"hidden_size": 64},
    },
    "audio-flamingo3-encoder": {
        "architectures": ["AudioFlamingo3ForConditionalGeneration"],
        "audio_config": SIZES | {"num_mel_bins": 16, "max_source_positions": 30},
        "text_config": {"hidden_size": 64},
    },
    "lfm2-vl-vision": {
        "architectures": ["Lfm2VlForConditionalGeneration"],
        "vision_config": SIZES | {"num_patches": 25},
        "text_config": {"hidden_size": 64},
        "projector_hidden_size": 40,
        "vision_feature_layer": -2,
    },
}


def made(name: str, folder: Path) -> Path:
    """A checkpoint with every tensor that the declaration has."""
    one = registry()[name]
    config = MADE[name]
    files = {"config.json": config, "preprocessor_config.json": PIXELS}
    whole = config | {"tower": config[one.settings], "processor": PIXELS}
    facts = settle(one.facts, whole | {"text": config.get("text_config", config.get("llm_config"))}, lambda name: None)
    tensors: dict[str, Any] = {}
    for rule in one.tensors:
        for layer in range(facts[rule.depth]) if "{layer}" in rule.source else (0,):
            stem = one.prefixes[0] if not rule.source.startswith(one.parts) else ""
            source = stem + rule.source.replace("{layer}", str(layer))
            shape = [facts.size(size) for size in rule.shape]
            tensors[source + ("" if rule.exact else ".weight")] = ["BF16", shape]
            if not rule.exact and rule.bias != "none":
                tensors[source + ".bias"] = ["BF16", shape[:1]]
    return outlines.write({"files": files, "tensors": tensors}, folder / name, "model.safetensors")


@pytest.mark.parametrize("name", MADE)
def test_made_checkpoints(name: str, tmp_path: Path) -> None:
    with loader.open_projector(made(name, tmp_path)) as model:
        names = [tensor.name for tensor in model.tensors]
        assert len(set(names)) == len(names) and {"v.patch_embd.weight", "a.conv1d.1.weight"} & set(names)
        for file_type in FILE_TYPES:
            assert all(shape and kind for shape, kind, _ in outlines.digests(model, file_type).values())
        sizes = {value.data for key, value in model.metadata.items() if key.endswith(".projection_dim")}
        assert sizes == {64}
        if name == "lfm2-vl-vision":
            assert model.metadata["clip.vision.block_count"].data == 2
            tensor = next(one for one in model.tensors if one.name == "v.patch_embd.weight")
            raw = outlines.weights("vision_tower.embeddings.patch_embedding.weight", "BF16", [32, 48])
            values = (numpy.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4").reshape(32, 4, 4, 3)
            found = tensor.reader.read_rows(0, tensor.rows).reshape(32, 3, 4, 4)
            assert numpy.array_equal(found, values.transpose(0, 3, 1, 2))
