"""Blocks that predict further tokens: `verify` says when they are missing or dead, plans spare them."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy

from helpers import broken_files as b
from helpers import synthetic
from helpers.synthetic import options, types
from quantcli.commands import verify
from quantcli.plan import plan

ENTRIES = (
    b.entry("general.architecture", b.STRING, b.text("glm4moe")),
    b.entry("glm4moe.block_count", value=struct.pack("<I", 3)),
    b.entry("glm4moe.nextn_predict_layers", value=struct.pack("<I", 1)),
)


def remarks(path: Path, names: list[str], values: numpy.ndarray) -> list[str]:
    """Of a file whose matrices all have these values, float32 [8, 8]."""
    rows = [b.row(name, (8, 8), offset=256 * number) for number, name in enumerate(names)]
    path.write_bytes(b.gguf(ENTRIES, rows, data=values.astype(numpy.float32).tobytes() * len(names)))
    (found,) = verify.run([path])["files"]
    assert found["ok"], found["problem"]
    return found["remarks"]


def test_missing_and_dead_heads(tmp_path: Path) -> None:
    path, alive = tmp_path / "m.gguf", numpy.arange(64)
    own, head = "blk.0.attn_q.weight", "blk.2.nextn.eh_proj.weight"
    assert remarks(path, [own, head, "blk.2.attn_q.weight"], alive) == []
    assert "block 2" in remarks(path, [own], alive)[0] and "missing" in remarks(path, [own], alive)[0]
    assert "lacks nextn.eh_proj.weight" in remarks(path, [own, "blk.2.attn_q.weight"], alive)[0]
    for dead in (numpy.zeros(64), numpy.ones(64)):
        (said,) = remarks(path, [own, head], dead)
        assert said.startswith(head) and "predicts nothing" in said


def test_plans_spare_them() -> None:
    """At least the type of attention's last values, by rule and by assignment; unless the user says otherwise."""
    metadata = {"general.architecture": "glm4moe", "glm4moe.block_count": 9, "glm4moe.nextn_predict_layers": 1,
                "glm4moe.attention.head_count": 8}  # fmt: skip
    roles = ("attn_q", "attn_v", "ffn_up", "ffn_down")
    rows = [(f"blk.{layer}.{role}.weight", (256, 8), "F32") for layer in range(9) for role in roles]
    rows += [("blk.8.nextn.eh_proj.weight", (512, 256), "F32"), ("output.weight", (256, 8), "F32")]
    model = synthetic.model(rows, metadata)
    for recipe in ("Q4_K_M", "Q3_K_M", "Q2_K"):
        made = types(plan.make(model, options(recipe)))
        values = made["blk.8.attn_v.weight"]
        assert {made[f"blk.8.{role}.weight"] for role in roles} <= {values, made["blk.8.ffn_down.weight"]}
        assert made["blk.8.nextn.eh_proj.weight"] == values and made["blk.8.ffn_up.weight"] == values
    assert made["blk.7.ffn_up.weight"] != values
    pure = types(plan.make(model, options("Q2_K", pure=True)))
    assert pure["blk.8.ffn_up.weight"] == "Q2_K"
