"""Plans: every golden plan of llama-quantize, precedence, float types, importance, metadata, reports."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from types import SimpleNamespace

import numpy
import pytest

from helpers import synthetic
from helpers.synthetic import LLAMA, golden, golden_model, golden_options, options, types
from quantcli import container
from quantcli.errors import BadConfig, ImportanceNeeded, IndivisibleRow, QuantizedSource, UnknownTensors
from quantcli.ggml.tensor_types import by_name
from quantcli.plan import overrides, plan
from quantcli.plan.choose import fit
from quantcli.report.summary import summary


def importance(names: list[str], **more) -> SimpleNamespace:
    """What imatrix.read gives, as far as a plan looks at it."""
    entries = dict.fromkeys(names, 1)
    return SimpleNamespace(**{
        "name": "im.gguf", "datasets": ["wiki.txt"], "chunks": 60, "sha256": "ab" * 32, "entries": entries,
        "has": lambda name, shape: name in entries, **more})  # fmt: skip


# ---- the oracle ------------------------------------------------------------------------------------------------


def test_the_packed_copy_is_the_oracle(shared: Path) -> None:
    assert golden() == json.loads((shared / "golden" / "plans.json").read_text())
    assert len(golden()["plans"]) == 1263


@pytest.mark.parametrize("shape", list(golden()["shapes"]))
def test_golden_plans(shape: str) -> None:
    model = golden_model(shape)
    for row in (row for row in golden()["plans"] if row["shape"] == shape):
        made = plan.make(model, golden_options(row))
        chosen = types(made)
        label = (shape, row["ftype"], row["imatrix"], row["options"])
        if "types" in row:
            assert [chosen[tensor.name] for tensor in model.tensors] == row["types"], label
            assert len(made.fallbacks) == row["fallbacks"], label
        if "tensor_bytes" in row:
            assert made.tensor_bytes == row["tensor_bytes"], label
        needed = bool(made.needs_imatrix) and not row["imatrix"]
        assert needed == row.get("needs_imatrix", False), label


def test_golden_errors() -> None:
    """What llama-quantize aborts on is a typed error when it is to be written, and everything else is not."""
    refused = 0
    for row in golden()["plans"]:
        model = golden_model(row["shape"])
        collected = [t.name for t in model.tensors if t.name != "token_embd.weight"]
        given = importance(collected) if row["imatrix"] else None
        made = plan.make(model, golden_options(row, importance=given))
        if "error" in row:
            refused += 1
            with pytest.raises(ImportanceNeeded if "imatrix" in row["error"] else IndivisibleRow) as caught:
                made.check()
            assert caught.value.where and caught.value.hint
        elif not row.get("needs_imatrix"):
            made.check()
        if "imatrix" in row.get("error", "imatrix"):
            made.check(writing=False)  # a dry run never refuses for importance
            made.check(allow_no_imatrix=True)
    assert refused == 24


def test_golden_file_sizes() -> None:
    """The reference's files carry a few keys that plans.json does not list: always the same, so the rest is exact."""
    differences = {False: set(), True: set()}
    for row in golden()["plans"]:
        if "file_bytes" in row:
            made = plan.make(golden_model(row["shape"]), golden_options(row))
            differences[row["imatrix"]].add(row["file_bytes"] - made.file_bytes)
    assert differences == {False: {64}, True: {256}}


# ---- precedence ------------------------------------------------------------------------------------------------


def test_overridden_tensors_do_not_advance_the_numbers() -> None:
    names = [f"blk.{n}.attn_v.weight" for n in range(8)]
    model = synthetic.model([(name, (256, 256), "F32") for name in names], {**LLAMA, "llama.block_count": 8})
    given = options("Q4_K_S", overrides=(overrides.parse("blk\\.[01]\\.=f16"),))
    assert list(types(plan.make(model, given)).values()) == ["F16"] * 2 + ["Q5_K"] * 4 + ["Q4_K"] * 2


def test_per_layer_embedding_prefers_its_pattern() -> None:
    names = ["output.weight", "per_layer_token_embd.weight", "token_embd.weight"]
    model = synthetic.model([(name, (256, 8), "F32") for name in names], LLAMA)
    patterns = (overrides.parse("embd=q5_0"),)
    made = plan.make(model, options("Q4_0", token_embedding_type=by_name("q8_0"), overrides=patterns))
    assert list(types(made).values()) == ["Q6_K", "Q5_0", "Q8_0"] and not made.notes


def test_patterns_that_do_nothing_are_told() -> None:
    model = golden_model("llama-8l-gqa4")
    patterns = (overrides.parse("ffn_dwon=q8_0"), overrides.parse("attn_v=q8_0"))
    assert len(plan.make(model, options("Q4_0", overrides=patterns)).notes) == 1
    assert "ffn_dwon" in plan.make(model, options("Q4_0", overrides=patterns)).notes[0]
    assert "BF16 ignores it" in plan.make(model, options("BF16", overrides=patterns)).notes[1]


@pytest.mark.parametrize(("row", "columns", "expected"), [
    ("Q4_K", 256, "Q4_K"), ("Q4_K", 576, "Q5_0"), ("Q6_K", 32, "Q8_0"), ("Q6_K", 1000, "F16"), ("IQ2_XS", 96, "IQ4_NL"),
    ("MXFP4", 33, "F16"), ("Q2_0", 32, "Q4_0"), ("Q2_0", 64, "Q2_0"), ("TQ1_0", 288, "Q4_0"), ("BF16", 7, "BF16"),
])  # fmt: skip
def test_fallback(row: str, columns: int, expected: str) -> None:
    assert fit(by_name(row), columns).name == expected


@pytest.mark.parametrize(("row", "columns"), [("Q1_0", 64), ("NVFP4", 32)])
def test_no_fallback(row: str, columns: int) -> None:
    with pytest.raises(IndivisibleRow, match=str(columns)):
        fit(by_name(row), columns)


def test_architectures_with_rules_of_their_own() -> None:
    names = ["blk.0.attn_k_b.weight", "blk.0.attn_q_a.weight", "blk.0.ffn_up_exps.weight", "output.weight"]
    tensors = [(name, (256, 8, 4) if name[-10] in "bp" else (256, 8), "F32") for name in names]

    def chosen(architecture: str, recipe: str) -> list[str]:
        return list(
            types(
                plan.make(
                    synthetic.model(tensors, {"general.architecture": architecture, f"{architecture}.block_count": 4}),
                    options(recipe),
                )
            ).values()
        )

    tensors = [(names[0], (256, 8, 4), "F32"), (names[1], (256, 8), "F32"), (names[2], (256, 8, 4), "F32"),
               (names[3], (256, 8), "F32")]  # fmt: skip
    assert chosen("deepseek2", "MXFP4_MOE") == ["Q8_0", "MXFP4", "Q8_0", "MXFP4"]
    assert chosen("bailingmoe3", "MXFP4_MOE") == ["Q8_0", "Q8_0", "Q8_0", "MXFP4"]
    assert chosen("glm5-next", "Q4_K_M") == ["Q6_K", "F32", "Q8_0", "Q4_K"]  # attn_k_b stays, attn_q_a is pinned
    assert chosen("deepseek2", "Q4_K_M") == ["Q6_K", "Q4_K", "Q4_K", "Q4_K"]


def test_numbers_of_layer_zero_count() -> None:
    """Per-layer head counts: only the first layer's are looked at."""
    tensors = [("output.weight", (256, 8), "F32"), ("blk.0.attn_v.weight", (256, 8), "F32")]
    for first, expected in ((2, "Q4_K"), (4, "Q3_K"), (0, "Q3_K")):
        model = synthetic.model(tensors, LLAMA)
        counts = numpy.array([first, 2, 2, 2])
        model.metadata["llama.attention.head_count_kv"] = container.array(container.ValueType.INT32, counts)
        assert types(plan.make(model, options("Q2_K")))["blk.0.attn_v.weight"] == expected


def test_metadata_overrides_change_the_rules() -> None:
    model = synthetic.model([("output.weight", (256, 8), "F32"), ("blk.0.attn_v.weight", (256, 8), "F32")], LLAMA)
    setting = overrides.parse_setting("llama.attention.head_count_kv=2")
    assert types(plan.make(model, options("Q2_K")))["blk.0.attn_v.weight"] == "Q3_K"
    assert types(plan.make(model, options("Q2_K", metadata=(setting,))))["blk.0.attn_v.weight"] == "Q4_K"


def test_absurd_models_are_errors() -> None:
    expert = synthetic.model([("ffn_down_exps.weight", (256, 8, 4), "F32")], {**LLAMA, "llama.expert_count": 4})
    with pytest.raises(UnknownTensors, match="ffn_down_exps"):
        plan.make(expert, options("Q4_K_M"))
    plan.make(expert, options("Q4_K_M", pure=True))
    words = synthetic.model([], LLAMA)
    words.metadata["llama.block_count"] = container.string("many")
    with pytest.raises(BadConfig, match="block_count"):
        plan.make(words, options("Q4_K_M"))


# ---- float types, COPY -----------------------------------------------------------------------------------------


def mixed_checkpoint(default: str) -> synthetic.Model:
    rows = [("token_embd.weight", (64, 8), default), ("blk.0.attn_norm.weight", (64,), "F32"),
            ("blk.0.ffn_gate_inp.weight", (64, 4), "F32"), ("blk.0.attn_rel_b.weight", (64, 4), default),
            ("blk.0.ssm_a", (64, 4), "F32"), ("blk.0.time_mix_w1.weight", (64, 4), "F32"),
            ("blk.0.ffn_down.weight", (64, 4), default), ("blk.0.attn_q.bias", (64,), "F32")]  # fmt: skip
    return synthetic.model(rows, LLAMA, "checkpoint", default=default)


@pytest.mark.parametrize("default", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("asked", ["F32", "F16", "BF16"])
def test_float_types_of_a_checkpoint_are_the_converters(default: str, asked: str) -> None:
    made = plan.make(mixed_checkpoint(default), options(asked))
    changed = {"token_embd.weight", "blk.0.attn_rel_b.weight", "blk.0.ffn_down.weight"}
    assert types(made) == {e.tensor.name: asked if e.tensor.name in changed else "F32" for e in made.entries}


def test_float_types_of_a_gguf_are_the_quantizers() -> None:
    model = mixed_checkpoint("BF16")
    model.follows_converter = False
    chosen = types(plan.make(model, options("F16")))
    assert chosen["blk.0.attn_rel_b.weight"] == "BF16" and chosen["blk.0.ffn_down.weight"] == "F16"


def test_what_stays_keeps_the_type_of_outtype_auto() -> None:
    chosen = types(plan.make(mixed_checkpoint("BF16"), options("Q8_0")))
    assert chosen["blk.0.attn_rel_b.weight"] == "BF16" and chosen["blk.0.ssm_a"] == "F32"


def test_leaving_the_output_and_its_embedding_type() -> None:
    model = synthetic.model([("output.weight", (64, 8), "BF16"), ("token_embd.weight", (64, 8), "BF16")], LLAMA,
                            "checkpoint")  # fmt: skip
    assert list(types(plan.make(model, options("F16", leave_output_tensor=True))).values()) == ["BF16", "F16"]
    embedding = options("F16", token_embedding_type=by_name("q8_0"))
    assert list(types(plan.make(model, embedding)).values()) == ["F16", "Q8_0"]


def file_type(model: synthetic.Model, recipe: str) -> int:
    return plan.make(model, options(recipe)).metadata["general.file_type"].data


def test_copy_keeps_types_and_file_type() -> None:
    rows = [("a.weight", (256, 2), "Q4_K"), ("b.weight", (256, 2), "Q6_K"), ("c.weight", (256, 2), "Q4_K"),
            ("d.weight", (256, 2), "Q6_K")]  # fmt: skip
    model = synthetic.model(rows, LLAMA)
    made = plan.make(model, options("COPY"))
    assert types(made) == {name: row for name, _, row in rows} and not made.requantized
    assert file_type(model, "COPY") == 1024 + 15  # guessed: the first type to reach the highest count
    model.metadata["general.file_type"] = container.u32(18)
    assert file_type(model, "COPY") == 18
    assert file_type(mixed_checkpoint("BF16"), "COPY") == 32
    assert file_type(model, "Q5_K") == 17
    assert file_type(synthetic.model([], LLAMA), "COPY") == 1024


def test_requantized_tensors_are_listed() -> None:
    rows = [("a.weight", (256, 2), "Q4_K"), ("b.weight", (256, 2), "Q6_K"), ("c.weight", (256, 2), "F16")]
    made = plan.make(synthetic.model(rows, LLAMA), options("Q4_K", pure=True))
    assert [e.tensor.name for e in made.requantized] == ["b.weight"]
    with pytest.raises(QuantizedSource, match="1 of 3 tensors .*1 Q6_K to Q4_K") as caught:
        made.check(writing=False)
    assert "--allow-requantize" in caught.value.hint
    made.check(allow_requantize=True)
    plan.make(synthetic.model(rows, LLAMA), options("COPY")).check()


# ---- importance ------------------------------------------------------------------------------------------------


def test_an_empty_importance_is_none() -> None:
    model = golden_model("llama-8l-gqa4")
    without = plan.make(model, options("Q4_0", importance=importance([])))
    assert types(without) == types(plan.make(model, options("Q4_0")))
    with_entries = plan.make(model, options("Q4_0", importance=importance(["x"])))
    assert types(with_entries) == types(plan.make(model, options("Q4_0", imatrix=True)))


def test_missing_importance_names_the_tensor() -> None:
    model = golden_model("llama-8l-gqa4")
    names = [t.name for t in model.tensors if "blk.3.attn_q" not in t.name]
    made = plan.make(model, options("IQ2_XXS", importance=importance(names)))
    assert made.lacking_importance == ["blk.3.attn_q.weight"]
    with pytest.raises(ImportanceNeeded, match="blk.3.attn_q.weight.*no entry"):
        made.check()
    plan.make(model, options("Q4_K_M", importance=importance(names))).check()


def test_a_copied_tensor_needs_no_importance() -> None:
    rows = [("blk.0.a.weight", (256, 2), "IQ2_XXS")]
    assert not plan.make(synthetic.model(rows, LLAMA), options("IQ2_XXS")).needs_imatrix


# ---- metadata --------------------------------------------------------------------------------------------------


def test_metadata_of_the_output() -> None:
    model = golden_model("llama-8l-gqa4")
    source = {
        **model.metadata, "split.no": container.u16(0), "split.count": container.u16(2),
        "general.alignment": container.u32(64), "general.file_type": container.u32(32),
        "quantize.imatrix.file": container.string("old"),
    }  # fmt: skip
    altered = synthetic.Model("m", "llama", source, model.tensors, model.default_float, "gguf")
    made = plan.make(altered, options(
        "Q4_K_M", importance=importance(["a", "b"], name="/home/me/im.gguf", datasets=["C:\\texts\\wiki.txt", "x"]),
        metadata=(overrides.parse_setting("general.author=me"),),
        provenance={"general.author": container.string("other"), "quantize.note": container.string("n")}))  # fmt: skip
    added = {key: value.data for key, value in made.metadata.items() if key not in model.metadata}
    assert added == {
        "general.alignment": 32, "general.quantization_version": 2, "general.file_type": 15,
        "quantize.imatrix.file": "im.gguf", "quantize.imatrix.dataset": "wiki.txt",
        "quantize.imatrix.entries_count": 2, "quantize.imatrix.chunks_count": 60,
        "quantize.imatrix.sha256": "ab" * 32, "general.author": "me", "quantize.note": "n",
    }  # fmt: skip
    assert list(made.metadata)[: len(model.metadata)] == list(model.metadata)
    assert "split.count" in source and source["general.file_type"].data == 32  # the model is left as it was
    kept = plan.make(altered, options("Q4_K_M"))
    assert kept.metadata["quantize.imatrix.file"].data == "old"


def test_long_names_are_cut_at_a_character() -> None:
    long = importance(["a"], name="é" * 100, datasets=[], chunks=0, sha256=None)
    made = plan.make(golden_model("llama-8l-gqa4"), options("Q8_0", importance=long))
    assert made.metadata["quantize.imatrix.file"].data == "é" * 63
    assert "quantize.imatrix.dataset" not in made.metadata and "quantize.imatrix.chunks_count" not in made.metadata


# ---- reports and speed -----------------------------------------------------------------------------------------


def test_json() -> None:
    made = plan.make(golden_model("smollm2-135m"), options("Q4_K_M"))
    result = json.loads(json.dumps(plan.to_json(made)))
    assert set(result) == {"type", "bytes", "bpw", "tensors", "fallbacks", "fallback_tensors", "needs_imatrix"}
    assert result["type"] == "Q4_K_M" and result["bytes"] == made.file_bytes and result["needs_imatrix"] is False
    first = {"name": "output_norm.weight", "shape": [576], "type": "F32", "bytes": 2304}
    assert result["tensors"][0] == first and sum(t["bytes"] for t in result["tensors"]) == made.tensor_bytes
    assert result["fallbacks"] == len(result["fallback_tensors"]) == len(made.fallbacks) > 100
    assert {"name": "blk.0.attn_k.weight", "wanted": "Q4_K", "type": "Q5_0"} in result["fallback_tensors"]
    weights = sum(prod(t["shape"]) for t in result["tensors"])
    assert result["bpw"] == pytest.approx(8 * made.tensor_bytes / weights)


def test_summary() -> None:
    made = plan.make(golden_model("smollm2-135m"), options("Q4_K_M"))
    total = summary(plan.to_json(made)["tensors"])
    assert sum(row["tensors"] for row in total["types"]) == len(made.entries) == 272
    assert sum(row["bytes"] for row in total["types"]) == total["tensor_bytes"] == made.tensor_bytes
    assert total["types"][0]["bytes"] == max(row["bytes"] for row in total["types"])
    assert total["bpw"] == pytest.approx(made.bpw) and total["weights"] == made.weights


def test_a_hundred_thousand_tensors() -> None:
    """Far from quadratic: about a second, with patterns and shards."""
    roles = ("attn_q", "attn_k", "attn_v", "attn_output", "attn_norm", "ffn_up", "ffn_gate", "ffn_down", "ffn_x", "y")
    rows = [(f"blk.{n}.{role}.weight", (4096, 4096), "BF16") for n in range(10_000) for role in roles]
    model = synthetic.model(rows, {**LLAMA, "llama.block_count": 10_000})
    patterns = tuple(overrides.parse(text) for text in ("blk\\.(0|7)\\.=q8_0", "ffn_x=iq4_xs", "none.*=q6_k"))
    made = plan.make(model, options("Q4_K_M", overrides=patterns, split_max_size=2 * 10**9))
    assert len(made.entries) == 100_000 and len(made.shards) > 400
    assert types(made)["blk.9999.ffn_down.weight"] == "Q6_K"


def test_small_model_can_be_read() -> None:
    model = synthetic.readable_model()
    tensor = next(t for t in model.tensors if t.name == "blk.1.ffn_down.weight")
    rows = tensor.reader.read_rows(3, 7)
    assert rows.shape == (4, 512) and rows.dtype == numpy.float32 and tensor.reader.read_raw(3, 7) == rows.tobytes()
    again = {t.name: t for t in synthetic.readable_model().tensors}[tensor.name]
    assert numpy.array_equal(again.reader.read_rows(3, 7, numpy.empty((4, 512), numpy.float32)), rows)
    plan.make(model, options("Q4_K_M")).check()
