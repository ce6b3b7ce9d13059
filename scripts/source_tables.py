#!/usr/bin/env python3
"""Write the generated part of docs/sources.md: what can be read, as what, and where it goes without loss.

    python scripts/source_tables.py            # rewrite docs/sources.md
    python scripts/source_tables.py --check    # exit status 1 if it is not up to date

A row per packed format; `tests/scripts/test_sources.py` holds it against the table of formats and the kernels.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import NamedTuple

PAGE = Path(__file__).resolve().parent.parent / "docs" / "sources.md"


class Row(NamedTuple):
    """A packed format: the quant_methods that it has, what is stored, the values, the types that carry it over."""

    name: str
    methods: tuple[str, ...]
    stored: str
    read: str
    carried: tuple[str, ...]
    remark: str = ""


# fmt: off
ROWS = (
    Row("FP8 (DeepSeek, Qwen, Mistral, FBGEMM)", ("fp8", "fbgemm_fp8"),
        "E4M3 or E5M2; scale of a tensor, of rows or of tiles", "code * scale", (), "stacked experts, too"),
    Row("FP8 of ModelOpt", ("modelopt",), "E4M3, one scale", "code * scale", ()),
    Row("compressed-tensors float-quantized", ("compressed-tensors",),
        "E4M3; scale of a tensor, of rows, groups or tiles", "code * scale", ()),
    Row("compressed-tensors int-quantized (W8A8)", ("compressed-tensors",),
        "8-bit integers; zero points if asymmetric", "(code - zero) * scale", ("Q8_0",), "symmetric"),
    Row("compressed-tensors pack-quantized (W4A16, Kimi's INT4)", ("compressed-tensors",),
        "2, 4 or 8 bits along the inputs", "(code - zero) * scale", ("Q4_0", "Q4_1", "Q8_0"),
        "groups of 32 and multiples"),
    Row("GPTQ, AutoRound", ("gptq", "auto-round"),
        "2, 4 or 8 bits along the inputs, also of single modules (`dynamic`, `extra_config`), v1 and v2 zeros",
        "(code - zero) * scale", ("Q4_0", "Q4_1", "Q8_0"), "groups of 32 and multiples; not after act-order"),
    Row("AWQ (gemm), AutoRound", ("awq", "auto-round"), "4 bits along the outputs, interleaved",
        "(code - zero) * scale", ("Q4_1", "Q8_0"), "and Q4_0 where the zero allows"),
    Row("bitsandbytes nf4, fp4", ("bitsandbytes",), "levels in blocks, factors in float32 or 8 bits",
        "level * factor", ()),
    Row("bitsandbytes int8", ("bitsandbytes",), "8-bit integers, a factor a row", "code * factor / 127", ("Q8_0",)),
    Row("BitNet b1.58", ("bitnet",), "ternary, four a byte", "code / scale (autobitlinear: * scale)",
        ("TQ1_0", "TQ2_0", "Q2_0")),
    Row("NVFP4 of ModelOpt and compressed-tensors", ("modelopt", "compressed-tensors"),
        "4-bit floats, E4M3 a group of 16, one factor", "level * scale * factor", ("NVFP4",),
        "copied as NVFP4 into F32, F16 and BF16 files, with `.scale` and `.input_scale`"),
    Row("MXFP4 of gpt-oss, compressed-tensors, Quark", ("mxfp4", "compressed-tensors", "quark"),
        "4-bit floats, a power of two a group of 32", "level * scale", ("MXFP4",),
        "copied as MXFP4 into F32, F16 and BF16 files"),
)
# fmt: on


def render(text: str) -> str:
    """The text of the page with its generated part made anew."""
    lines = ["| packed as | `quant_method` | stored | value, in float32 | carried over into |", "|---|---|---|---|---|"]
    for row in ROWS:
        carried = ", ".join(row.carried) or "-"
        remark = f" ({row.remark})" if row.remark else ""
        methods = ", ".join(row.methods)
        lines.append(f"| {row.name} | {methods} | {row.stored} | {row.read} | {carried}{remark} |")
    part = "<!-- sources -->\n" + "\n".join(lines) + "\n<!-- /sources -->"
    return re.sub(r"<!-- sources -->.*?<!-- /sources -->", lambda _: part, text, flags=re.DOTALL)


def main() -> int:
    current = PAGE.read_text(encoding="utf-8")
    wanted = render(current)
    if "--check" in sys.argv[1:]:
        return int(current != wanted)
    PAGE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
