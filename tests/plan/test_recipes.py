"""The file types as tables: names, numbers, and that every word in a rule exists."""

from __future__ import annotations

import subprocess
import sys

import pytest

from helpers.synthetic import golden
from quantcli.architectures.roles import ROLE_NAMES, role_of
from quantcli.errors import UnknownType
from quantcli.ggml.tensor_types import BY_NAME
from quantcli.plan import plan, recipes


@pytest.mark.parametrize(("text", "name"), [
    ("Q4_K_M", "Q4_K_M"), ("q4_k_m", "Q4_K_M"), ("Q4_K", "Q4_K_M"), ("q3_k", "Q3_K_M"), ("Q5_K", "Q5_K_M"),
    ("15", "Q4_K_M"), ("0", "F32"), ("32", "BF16"), (" iq2_xxs ", "IQ2_XXS"), ("copy", "COPY"),
    ("mxfp4_moe", "MXFP4_MOE"), ("41", "Q2_0"),
])  # fmt: skip
def test_parse(text: str, name: str) -> None:
    assert recipes.parse(text).name == name


@pytest.mark.parametrize("text", ["", "4", "33", "-1", "Q4_K_X", "NVFP4", "39", "MXFP4", "9" * 5000, "٣", "Q8_K"])
def test_parse_refuses(text: str) -> None:
    with pytest.raises(UnknownType) as caught:
        recipes.parse(text)
    assert caught.value.hint and caught.value.exit_status == 2


def test_hints() -> None:
    with pytest.raises(UnknownType, match="Q4_K_X") as caught:
        recipes.parse("Q4_K_X")
    assert "Q4_K_M" in caught.value.hint
    with pytest.raises(UnknownType, match="tensor type") as caught:
        recipes.parse("mxfp4")
    assert "--tensor-type" in caught.value.hint


def test_numbers_and_aliases_are_llama_cpps() -> None:
    ours = {name: row.number for name, row in recipes.FILE_TYPES.items() if row.selectable and not row.copies}
    assert ours == golden()["file_types"]
    assert golden()["aliases"] == recipes.ALIASES
    blocks = golden()["block"]
    assert {name: [BY_NAME[name].block, BY_NAME[name].bytes] for name in blocks} == blocks


def test_every_word_of_every_rule_exists() -> None:
    for row in recipes.FILE_TYPES.values():
        assert row.default_type and row.purpose
        for rule in (*row.rules, *(recipes.Rule(r, when, to) for r, when, _, to in row.raises)):
            assert rule.roles == recipes.ANY or set(rule.roles.split()) <= set(ROLE_NAMES)
            assert rule.type == recipes.DEFAULT or rule.type in BY_NAME
            assert len(rule.tests) == len([w for w in rule.when.split(",") if w])  # KeyError for an unknown word
        for _, _, below, _ in row.raises:
            assert set(below) <= set(BY_NAME)


def test_no_rule_is_dead() -> None:
    """A rule behind an unconditional one of the same role could never hold."""
    allowed = {("Q8_0", "output", "Q6_K"), ("IQ3_XXS", "output", "Q6_K")}  # the general rule after an own one
    for row in recipes.FILE_TYPES.values():
        for role in ROLE_NAMES:
            rules = row._by_role[role]
            closed = [n for n, rule in enumerate(rules) if not rule.when]
            for rule in rules[closed[0] + 1 :] if closed else ():
                assert rule.roles == recipes.ANY or (row.name, role, rule.type) in allowed, (row.name, rule)


def test_which_need_an_imatrix() -> None:
    needing = {name for name, row in recipes.FILE_TYPES.items() if row.needs_imatrix}
    assert needing == {"IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "IQ3_XXS", "IQ3_XS", "Q2_K_S"}


@pytest.mark.parametrize(("name", "role"), [
    ("output.weight", "output"), ("blk.0.attn_output.weight", "o"), ("token_embd.weight", "embedding"),
    ("per_layer_token_embd.weight", "embedding"), ("blk.1.attn_qkv.weight", "v"), ("blk.1.attn_kv_b.weight", "v"),
    ("blk.1.attn_v.weight", "v"), ("blk.1.attn_v_b.weight", "other"), ("blk.1.attn_k_b.weight", "other"),
    ("blk.1.attn_q_a.weight", "other"), ("blk.1.ffn_gate_up_exps.weight", "gate"),
    ("blk.1.ffn_down_shexp.weight", "down"), ("blk.1.ffn_up.weight", "up"), ("blk.1.ssm_in.weight", "other"),
])  # fmt: skip
def test_roles(name: str, role: str) -> None:
    assert role_of(name) == role


def test_pinned_only_in_its_architecture() -> None:
    assert role_of("blk.1.attn_q_a.weight", "glm5-next") == "pinned"
    assert role_of("blk.1.attn_q_a.weight", "deepseek2") == "other"


@pytest.mark.parametrize(("row", "name"), [
    ("Q4_K", "Q4_K_M"), ("Q6_K", "Q6_K"), ("MXFP4", "MXFP4_MOE"), ("BF16", "BF16"), ("NVFP4", "NVFP4"), ("I32", "F32"),
])  # fmt: skip
def test_guess(row: str, name: str) -> None:
    assert recipes.guess(BY_NAME[row]).name == name


@pytest.mark.parametrize(("index", "count", "more"), [
    (0, 32, True), (3, 32, True), (4, 32, False), (6, 32, True), (26, 32, False), (28, 32, True), (2, 7, True),
    (0, 7, False), (5, 7, True), (6, 7, True), (0, 0, True),
])  # fmt: skip
def test_more(index: int, count: int, more: bool) -> None:
    """i < n/8, i >= 7n/8, or (i - n/8) mod 3 = 2."""
    assert recipes.CONDITIONS["more"](recipes.Place(None, index, count, False, False)) is more


@pytest.mark.parametrize(("name", "bpw"), [
    ("F16", 16.0), ("Q8_0", 8.5), ("Q6_K", 6.56), ("Q4_K_M", 4.89), ("Q3_K_M", 4.00), ("IQ1_S", 2.00),
])  # fmt: skip
def test_nominal_bits(name: str, bpw: float) -> None:
    """The figures that llama.cpp's own table states for Llama-3-8B (in bits per weight of tensor data)."""
    assert plan.nominal_bpw(recipes.parse(name)) == pytest.approx(bpw, abs=0.006)


def test_unmeasured_bits() -> None:
    assert plan.nominal_bpw(recipes.FILE_TYPES["COPY"]) is None


def test_imports_nothing_heavy() -> None:
    code = (
        "import sys, quantcli.plan.recipes; print([m for m in ('numpy', 'gguf', 'rich', 'cffi') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
