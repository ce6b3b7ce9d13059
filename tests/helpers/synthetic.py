"""Models without files, for tests: the shapes of llama-quantize's golden plans, and small models with real numbers.

``golden/plans.json.gz`` is a packed copy of the oracle ``plans.json``; ``python tests/helpers/synthetic.py
PLANS_JSON`` packs it again."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy

from quantcli import container
from quantcli.ggml.tensor_types import by_name
from quantcli.model import Model, ModelTensor
from quantcli.plan import overrides, plan, recipes
from quantcli.plan.options import Options

GOLDEN = Path(__file__).parents[1] / "golden" / "plans.json.gz"


class NoReader:
    """A tensor that must not be read: planning looks at headers alone."""

    def read_rows(self, start: int, stop: int, out: numpy.ndarray | None = None) -> numpy.ndarray:
        raise AssertionError("the plan read weights")

    read_raw = read_rows


class ArrayReader:
    """Rows of a float32 array of shape (rows, columns); ``read_raw`` gives their bytes."""

    def __init__(self, rows: numpy.ndarray) -> None:
        self.rows = numpy.ascontiguousarray(rows, numpy.float32)

    def read_rows(self, start: int, stop: int, out: numpy.ndarray | None = None) -> numpy.ndarray:
        if out is None:
            return self.rows[start:stop].copy()
        out[...] = self.rows[start:stop]
        return out

    def read_raw(self, start: int, stop: int) -> bytes:
        return self.rows[start:stop].tobytes()


# ---- the golden plans ------------------------------------------------------------------------------------------


@cache
def golden() -> dict[str, Any]:
    """The content of plans.json."""
    return json.loads(gzip.decompress(GOLDEN.read_bytes()))


def pack(source: Path, target: Path) -> None:
    content = json.dumps(json.loads(source.read_text()), separators=(",", ":")).encode()
    target.write_bytes(gzip.compress(content, 9, mtime=0))


def value(plain: str | int | float) -> container.Value:
    """A metadata value of the type that the keys of a model have."""
    makers = {str: container.string, int: container.u32, float: container.f32}
    return makers[type(plain)](plain)


def model(tensors: Sequence[tuple[str, Sequence[int], str]], metadata: Mapping[str, str | int | float],
          kind: str = "gguf", name: str = "synthetic", default: str = "BF16") -> Model:  # fmt: skip
    """A model of (name, shape in GGUF order, type name) and plain metadata. Its weights cannot be read."""
    rows = [ModelTensor(text, tuple(shape), by_name(row), by_name(row), True, NoReader(), f"{name}: {text}")
            for text, shape, row in tensors]  # fmt: skip
    values = {key: value(plain) for key, plain in metadata.items()}
    checkpoint = kind == "checkpoint"
    return Model(name, str(metadata["general.architecture"]), values, rows, by_name(default), kind, checkpoint)


@cache
def golden_model(shape: str) -> Model:
    """The model called ``shape`` in plans.json (treat it as constant)."""
    row = golden()["shapes"][shape]
    return model(row["tensors"], row["metadata"], name=shape)


def options(file_type: str, **more: Any) -> Options:
    """Options for the file type of this name."""
    return Options(recipes.parse(file_type), **more)


def golden_options(plan: Mapping[str, Any], **more: Any) -> Options:
    """The options of one row of ``plans``."""
    words, found, patterns = list(plan["options"]), {}, []
    while words:
        word = words.pop(0)
        if word == "--tensor-type":
            patterns.append(overrides.parse(words.pop(0)))
        elif word in ("--output-tensor-type", "--token-embedding-type"):
            found[word[2:].replace("-", "_")] = overrides.parse_tensor_type(words.pop(0), word)
        else:
            found[word[2:].replace("-", "_")] = True
    return options(plan["ftype"], overrides=tuple(patterns), imatrix=plan["imatrix"], **found, **more)


LLAMA = {"general.architecture": "llama", "llama.block_count": 4, "llama.attention.head_count": 8}


def types(made: plan.Plan) -> dict[str, str]:
    return {entry.tensor.name: entry.type.name for entry in made.entries}


# ---- small models with weights ---------------------------------------------------------------------------------

SMALL = {
    "general.architecture": "llama", "general.name": "Small", "llama.block_count": 2, "llama.context_length": 64,
    "llama.embedding_length": 256, "llama.feed_forward_length": 512, "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2, "llama.attention.layer_norm_rms_epsilon": 1e-5,
}  # fmt: skip


def small_shapes(layers: int = 2, columns: int = 256) -> dict[str, tuple[int, ...]]:
    """Name -> shape (GGUF order) of a tiny llama with its own output matrix."""
    wide, vocabulary = 2 * columns, 96
    layer = {
        "attn_norm": (columns,), "attn_q": (columns, columns), "attn_k": (columns, columns // 2),
        "attn_v": (columns, columns // 2), "attn_output": (columns, columns), "ffn_norm": (columns,),
        "ffn_gate": (columns, wide), "ffn_up": (columns, wide), "ffn_down": (wide, columns),
    }  # fmt: skip
    shapes = {f"blk.{n}.{name}.weight": shape for n in range(layers) for name, shape in layer.items()}
    return {"token_embd.weight": (columns, vocabulary), **shapes, "output_norm.weight": (columns,),
            "output.weight": (columns, vocabulary)}  # fmt: skip


def readable_model(shapes: Mapping[str, Sequence[int]] | None = None, kind: str = "checkpoint",
                   metadata: Mapping[str, str | int | float] = SMALL, seed: int = 0) -> Model:  # fmt: skip
    """A model of random F32 weights (the same for the same seed) that can be read by rows."""
    generator = numpy.random.default_rng(seed)
    result = model([(n, s, "F32") for n, s in (shapes or small_shapes()).items()], metadata, kind, default="F32")
    for tensor in result.tensors:
        rows = generator.standard_normal((tensor.rows, tensor.columns), numpy.float32) * numpy.float32(0.02)
        tensor.reader = ArrayReader(rows)
    return result


if __name__ == "__main__":
    pack(Path(sys.argv[1]), GOLDEN)
