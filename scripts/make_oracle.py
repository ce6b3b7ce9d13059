#!/usr/bin/env python3
"""Make an oracle for a family: a tiny checkpoint, what llama.cpp's converter makes of it, and logits.

    python scripts/make_oracle.py NAME --config config.json --tokenizer qwen2 --pre qwen2 --converter DIR

The checkpoint holds the tensors that quantcli's declaration of the family asks for, random numbers, with the tokenizer
of another oracle (its name, or a folder). llama.cpp's converter in DIR, run by --python (which needs torch and
transformers), refuses what it does not know; --pre is the name that it cannot know, for it tells pre-tokenizers by what
released ones do. llama.cpp's library, where llama-cpp-python can be imported here, refuses wrong shapes and gives the
logits, in float32. The result goes into tests/oracles/derived (a few kB, for the weights come from seeds), where the
tests of families and of the runner find it. What is recorded is llama.cpp's word alone: nothing of it is ours.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator
from fnmatch import fnmatch
from math import prod, sqrt
from pathlib import Path
from typing import Any

import numpy

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "scripts")]
from helpers import oracles
from helpers.normals import GROUP
from make_checkpoint import Declared, header_of

TOKENIZER = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "*.model",
             "*.tiktoken", "tokens.json", "chat_template*")  # fmt: skip
TEXTS = {"a": (12, 12), "b": (40, 4)}  # length, and of how many of the last positions logits are kept
#: runs the converter with the pre-tokenizer's name given: argv[1] its folder, argv[2] the name, then its own arguments
RUN = """
import runpy, sys
where, name = sys.argv[1:3]
sys.path.insert(0, where)
from conversion.base import TextModel
if name:
    TextModel.get_vocab_base_pre = lambda self, tokenizer: name
sys.argv[:3] = [where + "/convert_hf_to_gguf.py"]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
LOUD = 8
ENDS = 4  # elements of an array that are shown in the record


def draw(name: str, shape: tuple[int, ...], offset: int, loud: str) -> oracles.Draw:
    """How a tensor is drawn: norms around 1, matrices so that the stream keeps its spread. A seed by its name."""
    vector = len(shape) == 1
    mean = 1.0 if vector and "norm" in name and not name.endswith("bias") else 0.0
    scale = (0.1 if vector else 1.2 / sqrt(shape[-1])) * (LOUD if fnmatch(name, loud) else 1)
    return oracles.Draw(offset, prod(shape), "BF16", zlib.crc32(name.encode()), GROUP, scale, mean)


def write_weights(path: Path, tensors: list[tuple[str, tuple[int, ...]]], loud: str) -> list[oracles.Draw]:
    """One safetensors file in BF16; returns where its numbers come from."""
    header = header_of(tensors)
    position, draws = len(header), []
    for name, shape in tensors:
        draws.append(draw(name, shape, position, loud))
        position += 2 * prod(shape)
    path.write_bytes(header + b"".join(one.stored() for one in draws))
    return draws


def converted(folder: Path, kind: str, given: argparse.Namespace) -> Path:
    """The file that llama.cpp's converter writes."""
    output = folder.parent / f"{folder.name}-{kind}.gguf"
    words = [given.converter, given.pre, folder, "--outtype", kind, "--outfile", output]
    done = subprocess.run([given.python, "-c", RUN, *map(str, words)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-4000:])
    return output


# ---- the record


def record(path: Path, config: dict[str, Any], name: str) -> dict[str, object]:
    """What a GGUF file holds, in the form of expected.json."""
    import gguf

    reader = gguf.GGUFReader(str(path))
    metadata = {field.name: entry(field) for field in reader.fields.values() if not field.name.startswith("GGUF.")}
    tensors = [
        {
            "name": tensor.name,
            "shape": [int(size) for size in tensor.shape],
            "type": tensor.tensor_type.name,
            "bytes": int(tensor.n_bytes),
            "sha256": hashlib.sha256(numpy.ascontiguousarray(tensor.data).tobytes()).hexdigest(),
        }
        for tensor in reader.tensors
    ]
    head = {"name": name, "group": "more", "architectures": config["architectures"], "outtype": "BF16"}
    return {**head, "checkpoint_dtype": "BF16", "metadata": metadata, "tensors": tensors}


def entry(field: Any) -> dict[str, object]:
    """One metadata entry: type and value, or the hash of an array with its ends."""
    types, value = [kind.name for kind in field.types], field.contents()
    if types[0] != "ARRAY":
        return {"type": types[0], "value": value}
    items, kind = list(value or ()), types[-1] if len(types) > 1 else "EMPTY"
    found: dict[str, object] = {"type": f"ARRAY:{kind}", "len": len(items)}
    if kind.startswith("FLOAT"):
        found["sha256_f32le"] = hashlib.sha256(numpy.asarray(items, "<f4").tobytes()).hexdigest()
    else:
        text = json.dumps(items, ensure_ascii=True, separators=(",", ":"), sort_keys=True)
        found["sha256_json"] = hashlib.sha256(text.encode()).hexdigest()
    return found | {"head": items[:ENDS], "tail": items[-ENDS:]}


# ---- logits


def logits(path: Path, tokens: int) -> dict[str, numpy.ndarray]:
    """``ids``, positions and logits of two texts, by llama.cpp's library on one thread, keys and values in float32."""
    import llama_cpp

    generator, found = numpy.random.default_rng(zlib.crc32(path.name.encode())), {}
    for part, (length, kept) in TEXTS.items():
        ids = generator.integers(3, tokens, length).astype(numpy.int32)
        found |= {f"ids_{part}": ids, f"pos_{part}": numpy.arange(length - kept, length, dtype=numpy.int32)}
        found[f"logits_{part}"] = numpy.stack([*evaluated(llama_cpp, path, ids)])[-kept:]
    return found


def evaluated(library: Any, path: Path, ids: numpy.ndarray) -> Iterator[numpy.ndarray]:
    """The logits of every position, in one batch."""
    model = library.Llama(
        str(path), n_ctx=256, n_batch=256, n_threads=1, n_threads_batch=1, type_k=0, type_v=0, flash_attn=False,
        logits_all=True, verbose=False,
    )  # fmt: skip
    model.eval(ids.tolist())
    size = model.n_vocab()
    for position in range(len(ids)):
        pointer = library.llama_get_logits_ith(model.ctx, position)
        yield numpy.ctypeslib.as_array(ctypes.cast(pointer, ctypes.POINTER(ctypes.c_float)), (size,)).copy()
    model.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="of the oracle")
    parser.add_argument("--config", type=Path, required=True, help="a small config.json of the family")
    parser.add_argument("--tokenizer", required=True, help="an oracle whose tokenizer is taken, or a folder")
    parser.add_argument("--converter", type=Path, required=True, help="the folder of convert_hf_to_gguf.py")
    parser.add_argument("--pre", default="", help="name of the pre-tokenizer (byte-level BPE)")
    parser.add_argument("--python", default=sys.executable, help="an interpreter with torch and transformers")
    parser.add_argument(
        "--prefix", default="model.", help='before the names of tensors, but for the head\'s ("model.")'
    )
    parser.add_argument(
        "--loud", default="", help=f"pattern of tensors that are {LOUD} times as large, to reach bounds"
    )
    given = parser.parse_args()
    config = json.loads(given.config.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / given.name
        folder.mkdir()
        tokenizer = Path(given.tokenizer) if Path(given.tokenizer).is_dir() else oracles.folder(given.tokenizer)
        for path in [path for pattern in TOKENIZER for path in tokenizer.glob(pattern)]:
            shutil.copy(path, folder)
        (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
        draws = write_weights(folder / "model.safetensors", Declared(config, given.prefix).tensors(), given.loud)
        expected = record(converted(folder, "bf16", given), config, given.name)
        exact = converted(folder, "f32", given)
        try:
            numpy.savez(folder / "logits.npz", **logits(exact, config["vocab_size"]))
            expected["logits_source"] = "llama.cpp"
        except (ImportError, ValueError) as error:
            print(f"no logits: {error}", file=sys.stderr)
            expected["logits_source"] = "none"
        (folder / "expected.json").write_text(json.dumps(expected, indent=0, ensure_ascii=False), encoding="utf-8")
        target = oracles.PACKS / "derived" / f"{given.name}{oracles.SUFFIX}"
        oracles.pack(folder, target, {"model.safetensors": draws})
    print(f"{target}: {len(draws)} tensors, {target.stat().st_size:,} bytes, logits by {expected['logits_source']}")


if __name__ == "__main__":
    main()
