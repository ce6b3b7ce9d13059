#!/usr/bin/env python3
"""Write tests/golden/codebook_errors.json: ggml's weighted error and bytes on some rows of a trained model, by type.

    python scripts/make_codebook_golden.py [--ggml libggml-base.so]

The model is ../shared/models/mid with ../shared/golden/mid-imatrix.gguf; both weights of scripts/objectives.py.
tests/ggml/test_codebook.py holds `--search best` to the errors and `--search ggml` to the bytes (by their sha256).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path

import numpy

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]
import objectives
from bench_kernels import find_ggml, ggml_encoder
from bench_quality import SHARED, linear_tensors
from quantcli.ggml import kernels, tensor_types

TYPES = ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_NL", "IQ4_XS")
TENSORS = (
    "blk.0.attn_v.weight",
    "blk.0.ffn_down.weight",
    "blk.2.attn_q.weight",
    "blk.4.ffn_up.weight",
    "blk.4.attn_output.weight",
)
ROWS = 48


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ggml", type=Path, help="libggml-base.so (default: that of llama-cpp-python)")
    encode = ggml_encoder(find_ggml(parser.parse_args().ggml))
    errors: dict[str, dict[str, dict[str, float]]] = {of: {name: {} for name in TYPES} for of in objectives.WEIGHTS}
    digests: dict[str, dict[str, str]] = {name: {} for name in TYPES}
    for tensor, x, importance in linear_tensors(SHARED / "models" / "mid", SHARED / "golden" / "mid-imatrix.gguf", 1):
        if tensor not in TENSORS:
            continue
        x = numpy.ascontiguousarray(x[:ROWS])
        for name in TYPES:
            row = tensor_types.by_name(name)
            out = numpy.empty((ROWS, tensor_types.row_bytes(row, x.shape[1])), numpy.uint8)
            encode(row.id, x, importance, out)
            digests[name][tensor] = hashlib.sha256(out.tobytes()).hexdigest()
            decoded = kernels.decode(row.id, out, *x.shape)
            for of in objectives.WEIGHTS:
                errors[of][name][tensor] = objectives.error(name, x, importance, decoded, of)
    target = ROOT / "tests" / "golden" / "codebook_errors.json"
    target.write_text(
        json.dumps({"rows": ROWS, "errors": errors, "sha256": digests}, indent=1) + "\n", encoding="ascii"
    )


if __name__ == "__main__":
    main()
