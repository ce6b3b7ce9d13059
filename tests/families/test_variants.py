"""Every bundled checkpoint in every form in which people have such checkpoints: the same model comes out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from helpers import oracles, variants
from helpers.variants import LAYOUTS, LEFT_OVER, Content, digest, same, summary, without_head
from quantcli import architectures, families
from quantcli.errors import QuantcliError, ShapeMismatch, UnknownTensors
from quantcli.sources.checkpoint import Checkpoint

# A classifier, a masked head and a wrapper: their own oracles hold them, the variants below do not fit their shape.
OTHERS = ("bge-reranker-xlmr", "jina-bert-v2", "ministral3")
NAMES = [name for name in oracles.names() if name not in OTHERS]
EXPERTS = ("deepseek-v2", "granite-moe", "mixtral", "olmoe", "qwen2-moe", "qwen3-moe")
NORMED = ("bert", "falcon", "gpt-neox", "gpt2", "nemotron", "phi2", "stablelm", "starcoder2")


# ---- wrappers, classes, prefixes


@pytest.mark.parametrize("name", NAMES)
def test_wrappers(name: str, tmp_path: Path) -> None:
    """{flat, nested} x every prefix x {own class, wrapper class, base class}."""
    one = variants.content(name)
    plain = summary(one, tmp_path / "plain")
    for number, (label, headless, variant) in enumerate(variants.shapes(one)):
        wanted = without_head(plain) if headless else plain
        same(summary(variant, tmp_path / str(number)), wanted, label)


@pytest.mark.parametrize("part", ["text_config", "llm_config", "lm_config", "language_config"])
def test_the_part_of_the_language_model(part: str, tmp_path: Path) -> None:
    """As other wrappers call it; llama.cpp's converter takes ids of special tokens from ``text_config`` alone."""
    one = variants.nested(variants.content("qwen2"))
    config = {part if key == "text_config" else key: value for key, value in one.config.items()}
    config |= {"architectures": ["SomethingForConditionalGeneration"], "bos_token_id": 397}
    same(summary(replace(one, config=config), tmp_path / "a"), summary(variants.content("qwen2"), tmp_path / "b"))


@pytest.mark.parametrize("name", ["qwen2", "gemma3"])
def test_towers_beside_the_language_model(name: str, tmp_path: Path) -> None:
    one = variants.prefixed(variants.content(name), "model.language_model.")
    beside = (
        "model.vision_tower.layers.0.weight",
        "mlp1.0.bias",
        "model.connector.proj.weight",
        "visual.merger.weight",
    )
    extra: variants.Tensors = {key: ("F32", [2], bytes(8)) for key in (*beside, "audio_tower.conv1.weight")}
    found = summary(replace(variants.nested(one), tensors=one.tensors | extra), tmp_path / "a")
    same(found, summary(variants.content(name), tmp_path / "b"))
    assert "left out 5 tensors of vision" in found.notes


def test_a_class_that_nothing_knows_is_refused_without_a_wrapper(tmp_path: Path) -> None:
    one = variants.content("qwen2").configured(architectures=["Qwen2ForSomethingElse"])
    with pytest.raises(QuantcliError, match="Qwen2ForSomethingElse"):
        summary(one, tmp_path)


def test_both_directions_are_another_architecture(tmp_path: Path) -> None:
    """EmbeddingGemma has Gemma 3's tensors and class."""
    found = summary(variants.content("gemma3").configured(use_bidirectional_attention=True), tmp_path)
    assert found.metadata["general.architecture"].data == "gemma-embedding"


# ---- experts


RENAMED = ("granite-moe", "mixtral")  # whose block newer versions of transformers call otherwise
RESTACKED = [(name, layout) for name in EXPERTS for layout in LAYOUTS if "newer" not in layout or name in RENAMED]


@pytest.mark.parametrize(("name", "layout"), RESTACKED)
def test_layouts_of_experts(name: str, layout: str, tmp_path: Path) -> None:
    variant = variants.restacked(variants.content(name), **LAYOUTS[layout])
    assert variant is not None
    same(summary(variant, tmp_path / "a"), summary(variants.content(name), tmp_path / "b"))


def test_every_family_with_experts_is_here() -> None:
    found = {name for name in NAMES if variants.stacks(variants.content(name))[0]}
    assert found == set(EXPERTS)


def test_a_router_of_the_newer_transformers(tmp_path: Path) -> None:
    one = variants.content("mixtral")
    changed = one.renamed(lambda name: name.replace(".block_sparse_moe.", ".mlp."))
    same(summary(changed, tmp_path / "a"), summary(one, tmp_path / "b"))


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("width", [32, 64])
def test_shapes_that_fit_both_ways(width: int, transposed: bool, tmp_path: Path) -> None:
    """2 x 32 gate and up rows of 64 columns, or 64 x 64 down: the layer's other stacks tell the layout."""
    one = variants.content("qwen3-moe")
    tensors = dict(one.tensors)
    for name, (dtype, _, data) in one.tensors.items():
        if ".experts." in name and width == 64:
            tensors[name] = (dtype, [64, 64], data * 2)
    one = Content(one.name, one.config | {"moe_intermediate_size": width}, tensors, one.small)
    variant = variants.restacked(one, "fused", transposed)
    assert variant is not None
    same(summary(variant, tmp_path / "a"), summary(one, tmp_path / "b"))


def test_stacks_of_another_size(tmp_path: Path) -> None:
    variant = variants.restacked(variants.content("qwen3-moe"), "fused")
    assert variant is not None
    with pytest.raises(ShapeMismatch, match=r"has the shape \[4, 64, .* or its transpose"):
        summary(variant.configured(moe_intermediate_size=48), tmp_path)


# ---- heads and copies


TIED = [
    name
    for name in NAMES
    if not variants.content(name).head and variants.content(name).config.get("tie_word_embeddings") is not False
]
# Tied always, or without a place for a head.
NEVER = ("gemma", "gemma2", "gemma3", "embeddinggemma", "hunyuan-dense", "mamba", "cohere")


@pytest.mark.parametrize("name", [name for name in TIED if name not in ("bert", "hunyuan-dense")])
def test_a_stored_head(name: str, tmp_path: Path) -> None:
    """A copy of the embeddings is what the peer writes: left out where there is no place, and where it is never more.

    Another head is kept where there is a place, and told where there is none.
    """
    one = variants.content(name)
    plain = summary(one, tmp_path / "plain")
    place = architectures.find(plain.metadata["general.architecture"].data).head != "none"
    dtype, shape, data = one.tensors[one.embeddings]
    head = "embed_out.weight" if name == "gpt-neox" else "lm_head.weight"
    copied = replace(one, tensors=one.tensors | {head: (dtype, shape, data)})
    other = replace(one, tensors=one.tensors | {head: (dtype, shape, data[4:] + data[:4])})
    found = summary(copied, tmp_path / "copied")
    assert ("output.weight" in found.tensors) == (name not in NEVER)
    same(without_head(found), plain)
    found = summary(other, tmp_path / "other")
    assert ("output.weight" in found.tensors) == place and ("no copy of the embeddings" in found.notes) != place


@pytest.mark.parametrize("kind", ["LlamaBidirectionalModel", "LlamaForCausalLM"])
def test_no_head_is_written_that_does_not_load(kind: str, tmp_path: Path) -> None:
    """llama.cpp's loader refuses a head of some architectures, whatever their families are derived from."""
    one = variants.content("llama-spm")
    assert one.head
    found = summary(replace(one, config=one.config | {"architectures": [kind]}), tmp_path)
    place = architectures.find(found.metadata["general.architecture"].data).head != "none"
    assert ("output.weight" in found.tensors) == place and ("no copy of the embeddings" in found.notes) != place


@pytest.mark.parametrize("names", [
    ("shared", "encoder.embed_tokens"), ("decoder.embed_tokens", "shared"), ("encoder.embed_tokens",),
    ("decoder.embed_tokens", "encoder.embed_tokens", "shared"), ("decoder.embed_tokens",),
])  # fmt: skip
def test_names_of_shared_embeddings(names: tuple[str, ...], tmp_path: Path) -> None:
    one = variants.content("t5")
    rest = {name: row for name, row in one.tensors.items() if "embed_tokens" not in name and name != "shared.weight"}
    shared = one.tensors[one.embeddings]
    copies = replace(one, tensors=rest | {f"{name}.weight": shared for name in names})
    same(summary(copies, tmp_path / "a"), summary(one, tmp_path / "b"))
    if len(names) > 1:
        other = {f"{max(names)}.weight": (*shared[:2], shared[2][4:] + shared[2][:4])}
        found = summary(replace(one, tensors=copies.tensors | other), tmp_path / "c")
        assert "is not the same as" in found.notes


# ---- names, buffers, settings


@pytest.mark.parametrize("name", NORMED)
def test_historic_names(name: str, tmp_path: Path) -> None:
    variant = variants.historic(variants.content(name))
    assert variant is not None and any(key.endswith(".gamma") for key in variant.tensors)
    same(summary(variant, tmp_path / "a"), summary(variants.content(name), tmp_path / "b"))


def test_every_family_with_layer_norm_is_here() -> None:
    assert {name for name in NAMES if variants.historic(variants.content(name))} == set(NORMED)


def test_tables_of_positions(tmp_path: Path) -> None:
    """UMT5 has one in every block; the first T5 checkpoints one more, which llama.cpp keeps."""
    one = variants.content("t5")
    table, first = one.tensors[TABLE.format("encoder", 0, "0.Self")], summary(one, tmp_path / "plain")
    cross = replace(one, tensors=one.tensors | {TABLE.format("decoder", 0, "1.EncDec"): table})
    found = summary(cross, tmp_path / "cross")
    shape, _, digest = first.tensors["enc.blk.0.attn_rel_b.weight"]
    assert found.tensors.pop("dec.blk.0.cross_attn_rel_b.weight")[::2] == (shape, digest)
    same(found, first)
    every = replace(one, tensors=one.tensors | {TABLE.format("encoder", 1, "0.Self"): table})
    with pytest.raises(UnknownTensors):
        summary(every, tmp_path / "every")
    every = every.configured(model_type="umt5", architectures=["UMT5ForConditionalGeneration"])
    found = summary(every, tmp_path / "umt5")
    assert found.tensors.keys() - first.tensors.keys() == {"enc.blk.1.attn_rel_b.weight"}


TABLE = "{}.block.{}.layer.{}Attention.relative_attention_bias.weight"


def test_layers_that_predict_further_tokens(tmp_path: Path) -> None:
    """Whatever such a layer holds beyond the usual tensors."""
    one = variants.content("deepseek-v2")
    names = ("eh_proj.weight", "enorm.weight", "shared_head.head.weight", "self_attn.o_proj.weight")
    extra: variants.Tensors = {f"model.layers.3.{name}": ("BF16", [2], bytes(4)) for name in names}
    same(summary(replace(one, tensors=one.tensors | extra), tmp_path / "a"), summary(one, tmp_path / "b"))


def test_a_historic_name_beside_the_usual_one(tmp_path: Path) -> None:
    one = variants.content("bert")
    twice = {"embeddings.LayerNorm.gamma": one.tensors["embeddings.LayerNorm.weight"]}
    with pytest.raises(UnknownTensors, match="embeddings.LayerNorm"):
        summary(replace(one, tensors=one.tensors | twice), tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_buffers(name: str, tmp_path: Path) -> None:
    one = variants.content(name)
    same(summary(variants.with_buffers(one), tmp_path / "a"), summary(one, tmp_path / "b"))


@pytest.mark.parametrize("name", [name for name in NAMES if not name.endswith("mxfp4")])
def test_settings_of_packing_that_were_left_over(name: str, tmp_path: Path) -> None:
    one = variants.content(name)
    plain = summary(one, tmp_path / "plain")
    for number, settings in enumerate(LEFT_OVER):
        changed = one.configured(quantization_config=settings)
        found = summary(variants.nested(changed) if number % 2 else changed, tmp_path / str(number))
        same(found, plain, str(settings))
        assert "quantization_config" in found.notes and "ignored" in found.notes


@pytest.mark.parametrize("name", NAMES)
def test_saved_again_by_newer_transformers(name: str, tmp_path: Path) -> None:
    one = variants.content(name)
    plain, again = summary(one, tmp_path / "plain"), variants.resaved(one)
    same(summary(again, tmp_path / "flat"), plain)
    same(summary(variants.nested(again), tmp_path / "nested"), plain)


# ---- files


@pytest.mark.parametrize("names", [
    ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"),
    ("model.safetensors-00001-of-00002.safetensors", "model.safetensors-00002-of-00002.safetensors"),
    ("model_part_a.safetensors", "model_part_b.safetensors"),
])  # fmt: skip
def test_shards_without_an_index(names: tuple[str, str], tmp_path: Path) -> None:
    one = variants.content("llama3")
    rows = list(one.tensors.items())
    files = {names[0]: dict(rows[:9]), names[1]: dict(rows[9:])}
    same(summary(one, tmp_path / "a", files), summary(one, tmp_path / "b"))


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"\xff", b"null"])
def test_broken_files_that_only_help(raw: bytes, tmp_path: Path) -> None:
    for file in ("generation_config.json", "special_tokens_map.json"):
        one = variants.content("llama3")
        found = summary(one.file(file, raw), tmp_path / f"a{file}")
        same(found, summary(one.without(file), tmp_path / f"b{file}"))
        assert f"{file} is left out" in found.notes


# ---- the reports themselves, where they lie

REPORTED = (
    "gemma3-text-class-nested-config prefix-model.language_model fp8-config-over-bf16 quantization-config-empty "
    "qwen3-embedding-last-token bert-mean-new-key qwen3-reranker-by-readme qwen3-moe-fused-experts bert-gamma-beta "
    "model-level-inv-freq t5-shared-and-decoder base-class-qwen3model"
).split()


@pytest.mark.parametrize("name", REPORTED)
def test_reports(name: str, shared: Path) -> None:
    folder = shared / "reports" / "checkpoints" / name
    if not folder.is_dir():
        pytest.skip("the reports are not here")
    expected = json.loads((folder / "expected.json").read_text())
    wanted = {row["name"]: row for row in expected["tensors"]}
    with Checkpoint(folder) as checkpoint:
        model = families.load_checkpoint(checkpoint)
        for tensor in model.tensors:
            row = wanted.pop(tensor.name)
            kind = "F32" if tensor.type.name == "F32" else expected["outtype"]
            assert row["sha256"] == digest(tensor, kind), tensor.name
    assert not wanted
    values = {key: row["value"] for key, row in expected["metadata"].items() if "value" in row}
    for key, value in values.items():
        if not key.startswith(("general.", "tokenizer.")):
            assert model.metadata[key].data == value, key
