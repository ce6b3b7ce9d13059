"""A type per tensor from a caller: it replaces the rules, and what the user says wins."""

from __future__ import annotations

import pytest

from helpers import synthetic
from helpers.synthetic import LLAMA, golden_model, options, types
from quantcli.errors import IndivisibleRow, UnknownTensors
from quantcli.ggml.tensor_types import by_name
from quantcli.plan import overrides, plan


def test_assigned_types_replace_the_rules() -> None:
    """Of these tensors only: all others keep what they have without an assignment."""
    model = golden_model("llama-8l-gqa4")
    before = types(plan.make(model, options("Q4_K_M")))
    assignment = {"blk.0.attn_v.weight": by_name("q8_0"), "blk.3.ffn_down.weight": by_name("q2_k"),
                  "output.weight": by_name("q5_k")}  # fmt: skip
    made = plan.make(model, options("Q4_K_M"), assignment)
    assert types(made) == before | {name: found.name for name, found in assignment.items()}
    assert before["blk.0.attn_v.weight"] == "Q6_K" and not made.notes
    assert types(plan.make(model, options("Q4_K_M", pure=True), assignment))["blk.3.ffn_down.weight"] == "Q2_K"
    assert types(plan.make(model, options("Q4_K_M"), {})) == before


def test_what_the_user_says_wins_over_an_assignment() -> None:
    names = ["blk.0.ffn_down.weight", "blk.0.ffn_up.weight", "token_embd.weight", "output.weight"]
    model = synthetic.model([(name, (256, 8), "F32") for name in names], LLAMA)
    given = options("Q4_K_M", overrides=(overrides.parse("ffn_up=q5_0"),), output_tensor_type=by_name("q8_0"),
                    token_embedding_type=by_name("q5_1"))  # fmt: skip
    chosen = types(plan.make(model, given, {name: by_name("q2_k") for name in names}))
    assert chosen == dict(zip(names, ("Q2_K", "Q5_0", "Q5_1", "Q8_0"), strict=True))
    tied = synthetic.model([("token_embd.weight", (256, 8), "F32")], LLAMA)
    given = options("Q4_K_M", output_tensor_type=by_name("q8_0"))
    assert types(plan.make(tied, given, {"token_embd.weight": by_name("q2_k")})) == {"token_embd.weight": "Q8_0"}


def test_assigned_types_fall_back_and_need_importance() -> None:
    rows = [("blk.0.ffn_down.weight", (96, 8), "F32"), ("blk.0.ffn_up.weight", (256, 8), "F32"),
            ("blk.1.ffn_up.weight", (64, 8), "F32")]  # fmt: skip
    made = plan.make(synthetic.model(rows, LLAMA), options("Q8_0"), {
        "blk.0.ffn_down.weight": by_name("iq2_xs"), "blk.0.ffn_up.weight": by_name("iq2_xxs"),
        "blk.1.ffn_up.weight": by_name("q1_0")})  # fmt: skip
    fallen = [(e.tensor.name, e.wanted and e.wanted.name, e.type.name) for e in made.fallbacks]
    assert fallen == [("blk.0.ffn_down.weight", "IQ2_XS", "IQ4_NL")]
    assert made.needs_imatrix == ["blk.0.ffn_up.weight"]
    with pytest.raises(IndivisibleRow, match=r"blk\.1\.ffn_up.*64 columns"):
        made.check()


def test_assignments_that_do_nothing_are_told() -> None:
    model = golden_model("llama-8l-gqa4")
    kept = {"blk.0.attn_norm.weight": by_name("q8_0"), "blk.0.attn_q.weight": by_name("q8_0")}
    made = plan.make(model, options("Q4_K_M"), kept)
    assert types(made)["blk.0.attn_norm.weight"] == "F32" and len(made.notes) == 1
    assert "1 assigned" in made.notes[0] and "blk.0.attn_norm.weight" in made.notes[0]
    assert "2 assigned" in plan.make(model, options("BF16"), kept).notes[0]
    assert "2 assigned" in plan.make(model, options("COPY"), kept).notes[0]
    with pytest.raises(UnknownTensors, match=r"2 tensors.*blk\.0\.nix, blk\.99\.attn_q\.weight"):
        plan.make(model, options("Q4_K_M"), dict.fromkeys(("blk.99.attn_q.weight", "blk.0.nix"), by_name("q8_0")))
