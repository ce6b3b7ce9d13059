"""The program that compares instruction sets, and the cutting of hot loops out of assembly."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

ASSEMBLY = """
other:
.L1:
	add	w0, w0, 1
	bne	.L1
	.size	other, .-other
hot:
	movi	v0.4s, 0
.L2:
	ldr	q1, [x0], 16
.L3:
	ldr	q2, [x1], 16
	sdot	v0.4s, v1.16b, v2.16b
	fmla	v3.4s, v2.4s, v1.s[0]
	cmp	x1, x2
	b.ne	.L3
	cbnz	x3, .L2
	ret
	.size	hot, .-hot
"""


@pytest.fixture(scope="module")
def scripts(root):
    sys.path.insert(0, str(root / "scripts"))
    try:
        import build_kernels
        import predict_arm64
    finally:
        sys.path.pop(0)
    return build_kernels, predict_arm64


def test_the_innermost_loop_with_products_is_cut_out(scripts):
    predict = scripts[1]
    found = predict.functions(ASSEMBLY)
    assert set(found) == {"other", "hot"}
    assert predict.hot_loop("other", found["other"]) is None
    loop = predict.hot_loop("hot", found["hot"])
    assert loop.products == 16 + 4 and len(loop.instructions) == 4 and loop.instructions[0].startswith("ldr")


def test_instruction_sets_are_compared(root, scripts, tmp_path):
    program = scripts[0].build_program(root / "csrc" / "tests" / "bench_sets.c", tmp_path / "bench_sets")
    done = subprocess.run([program, "--json", "--only", "decode Q8_0"], capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert [row["row"] for row in found["rows"]] == ["decode Q8_0"]
    assert len(found["rows"][0]["ns"]) == found["sets"] and all(ns > 0 for ns in found["rows"][0]["ns"].values())
    assert done.returncode == (1 if found["lost"] else 0)
    assert subprocess.run([program, "--nope"], capture_output=True).returncode == 2
