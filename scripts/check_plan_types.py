#!/usr/bin/env python3
"""Whether llama.cpp's quantizer, driven by `quantcli plan -o`, gives every tensor the planned type.

    python scripts/check_plan_types.py MODEL plan.txt --llama libllama.so [--type Q4_K_M]

The file of types is read as llama-quantize reads it and handed to llama_model_quantize; the types of what it writes are
compared with the plan's. Importance is all ones: it is about types alone.
"""

from __future__ import annotations

import argparse
import ctypes
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]
from quantcli import container
from quantcli.ggml.tensor_types import BY_ID, by_name
from quantcli.plan import recipes


class Override(ctypes.Structure):
    _fields_ = [("pattern", ctypes.c_char_p), ("type", ctypes.c_int)]


class Importance(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("data", ctypes.POINTER(ctypes.c_float)), ("size", ctypes.c_size_t)]


class Parameters(ctypes.Structure):
    """llama_model_quantize_params of llama.h."""

    _fields_ = [
        ("threads", ctypes.c_int32),
        *((name, ctypes.c_int) for name in ("file_type", "output", "embedding")),
        *((name, ctypes.c_bool) for name in ("requantize", "quantize_output", "copy", "pure", "keep_split", "dry_run")),
        ("importance", ctypes.POINTER(Importance)),
        ("metadata", ctypes.c_void_p),
        ("overrides", ctypes.POINTER(Override)),
        ("prune", ctypes.c_void_p),
        ("buffer", ctypes.c_size_t),
    ]


def types_of(path: Path) -> dict[str, str]:
    return {tensor.name: BY_ID[tensor.type_id].name for tensor in container.read_header(path).tensors}


def by_llama(library: Path, source: Path, target: Path, words: list[str], file_type: str) -> None:
    """What llama-quantize --tensor-type-file does."""
    llama = ctypes.CDLL(str(library))
    llama.llama_model_quantize_default_params.restype = Parameters
    parameters = llama.llama_model_quantize_default_params()
    pairs = [word.split("=", 1) for word in words]
    rules = [Override(pattern.lower().encode(), by_name(name).id) for pattern, name in pairs]
    ones = numpy.ones(max(max(tensor.shape) for tensor in container.read_header(source).tensors), numpy.float32)
    data = ones.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    sizes = {tensor.name: tensor.shape[0] for tensor in container.read_header(source).tensors}
    known = [Importance(name.encode(), data, size) for name, size in sizes.items()]
    parameters.importance = (Importance * (len(known) + 1))(*known, Importance(None, None, 0))
    parameters.overrides = (Override * (len(rules) + 1))(*rules, Override(None, 0))
    parameters.file_type, parameters.threads = recipes.parse(file_type).number, 2
    if llama.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(parameters)):
        sys.exit("llama_model_quantize failed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("plan", type=Path)
    parser.add_argument("--llama", type=Path, required=True)
    parser.add_argument("--type", default="Q4_K_M")
    given = parser.parse_args()
    words = given.plan.read_text().split()
    with tempfile.TemporaryDirectory() as scratch:
        source, theirs = Path(scratch) / "source.gguf", Path(scratch) / "theirs.gguf"
        command = [sys.executable, "-m", "quantcli", "convert", given.model, "-t", "BF16", "-o", source]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        by_llama(given.llama, source, theirs, words, given.type)
        found = types_of(theirs)
        planned = {name: kind for name, kind in found.items() if kind in ("F32", "BF16", "F16")}
        for word in words:
            pattern, _, name = word.rpartition("=")
            planned[pattern[1:-1].replace("\\", "")] = by_name(name).name
    wrong = [
        f"{name}: planned {kind}, found {found.get(name)}" for name, kind in planned.items() if found.get(name) != kind
    ]
    print("\n".join(wrong) or f"{len(words)} planned types, all as llama.cpp writes them")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
