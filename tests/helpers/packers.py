"""Packed checkpoints for tests: random codes and scales in every format, and what they mean in the formats' words.

``FORMATS`` names them; each gives tensors by name (dtype, shape, bytes), the quantization_config, and the values of the
unpacked tensors, computed here with numpy alone, element by element as the format's authors do.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy

from helpers.oracles import as_stored

Tensors = dict[str, tuple[str, list[int], bytes]]
BASE = "model.layers.0.mlp.down_proj"
E2M1 = numpy.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], numpy.float32)
NUMPY = {"I8": numpy.int8, "U8": numpy.uint8, "I32": numpy.int32, "I64": numpy.int64, "F8_E4M3": numpy.uint8,
         "F8_E5M2": numpy.uint8, "F8_E8M0": numpy.uint8}  # fmt: skip


@dataclass
class Packed:
    """One packed matrix: its stored tensors, the settings, and the values of what it stands for."""

    tensors: Tensors
    settings: dict[str, Any]
    values: dict[str, numpy.ndarray] = field(default_factory=dict)


def entry(values: numpy.ndarray, dtype: str) -> tuple[str, list[int], bytes]:
    """An array as a tensor of a dtype: floats rounded, codes as they are."""
    if dtype in NUMPY:
        return dtype, list(values.shape), numpy.ascontiguousarray(values).astype(NUMPY[dtype], copy=False).tobytes()
    return dtype, list(values.shape), as_stored(numpy.asarray(values, numpy.float32), dtype).tobytes()


def rounded(values: numpy.ndarray, dtype: str) -> numpy.ndarray:
    """float32 values of what a float dtype keeps."""
    stored = as_stored(numpy.asarray(values, numpy.float32), dtype)
    if dtype == "BF16":
        return (stored.astype(numpy.uint32) << 16).view(numpy.float32)
    return stored.astype(numpy.float32)


def e4m3(codes: numpy.ndarray) -> numpy.ndarray:
    exponent, mantissa = (codes >> 3 & 15).astype(int), (codes & 7).astype(numpy.float64)
    value = numpy.where(exponent == 0, mantissa / 8 * 2.0**-6, (1 + mantissa / 8) * 2.0 ** (exponent - 7))
    return numpy.where(codes & 128, -value, value).astype(numpy.float32)


def e5m2(codes: numpy.ndarray) -> numpy.ndarray:
    return (codes.astype(numpy.uint16) << 8).view(numpy.float16).astype(numpy.float32)


def words(codes: numpy.ndarray, bits: int) -> numpy.ndarray:
    """Codes along the last axis as int32 words, the low bits first; the last word is filled with zeros."""
    per = 32 // bits
    padded = numpy.zeros((*codes.shape[:-1], -(-codes.shape[-1] // per) * per), numpy.uint64)
    padded[..., : codes.shape[-1]] = codes
    grouped = padded.reshape(*codes.shape[:-1], -1, per) << (numpy.arange(per, dtype=numpy.uint64) * numpy.uint64(bits))
    return grouped.sum(axis=-1).astype(numpy.uint32).view(numpy.int32)


def scale_values(rng: numpy.random.Generator, shape: tuple[int, ...], dtype: str) -> numpy.ndarray:
    return rounded(rng.uniform(0.001, 0.02, shape), dtype)


def spread(scales: numpy.ndarray, shape: tuple[int, int], tile: tuple[int, int]) -> numpy.ndarray:
    """Scales of tiles as one per weight."""
    return scales.repeat(tile[0], 0).repeat(tile[1], 1)[: shape[0], : shape[1]]


# ---- the formats


def fp8(
    rows: int, columns: int, tile: tuple[int, int], *, dtype: str = "F8_E4M3", scale: str = "F32",
    names: tuple[str, str] = (".weight", ".weight_scale_inv"), stated: bool = True, shape: list[int] | None = None,
    method: str = "fp8", seed: int = 0,
) -> Packed:  # fmt: skip
    rng = numpy.random.default_rng(seed)
    limit = 0x7F if dtype == "F8_E4M3" else 0x7C
    codes = (rng.integers(0, limit, (rows, columns)) | rng.integers(0, 2, (rows, columns)) << 7).astype(numpy.uint8)
    scales = scale_values(rng, (-(-rows // tile[0]), -(-columns // tile[1])), scale)
    values = {"F8_E4M3": e4m3, "F8_E5M2": e5m2}[dtype](codes) * spread(scales, (rows, columns), tile)
    kind, own, data = entry(scales, scale)
    tensors = {BASE + names[0]: entry(codes, dtype), BASE + names[1]: (kind, own if shape is None else shape, data)}
    settings: dict[str, Any] = {"quant_method": method, "weight_block_size": list(tile) if stated else None}
    return Packed(tensors, settings, {BASE + names[0]: values})


def fp8_stack(experts: int, rows: int, columns: int, tile: tuple[int, int], seed: int = 0) -> Packed:
    """Stacked experts, scales of tiles of each."""
    rng = numpy.random.default_rng(seed)
    codes = rng.integers(0, 0x7F, (experts, rows, columns), numpy.uint8)
    scales = scale_values(rng, (experts, -(-rows // tile[0]), -(-columns // tile[1])), "F32")
    values = numpy.stack([e4m3(c) * spread(s, (rows, columns), tile) for c, s in zip(codes, scales, strict=True)])
    name = "model.layers.0.mlp.experts.gate_up_proj"
    tensors = {name: entry(codes, "F8_E4M3"), f"{name}_scale_inv": entry(scales, "F32")}
    return Packed(tensors, {"quant_method": "fp8", "weight_block_size": list(tile)}, {name: values})


def compressed(weights: dict[str, Any], form: str, tensors: Tensors, values: numpy.ndarray) -> Packed:
    settings = {
        "quant_method": "compressed-tensors", "format": form, "ignore": ["lm_head"],
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
    }  # fmt: skip
    return Packed(tensors, settings, {f"{BASE}.weight": values})


def int8(rows: int, columns: int, group: int = 0, *, zero: bool = False, flat: bool = False, seed: int = 0) -> Packed:
    """W8A8: a scale per row or per group; ``flat``: of shape [rows]."""
    rng = numpy.random.default_rng(seed)
    width = group or columns
    codes = rng.integers(-128, 128, (rows, columns), numpy.int8)
    scales = scale_values(rng, (rows, -(-columns // width)), "BF16")
    zeros = rng.integers(-20, 20, scales.shape, numpy.int8) if zero else numpy.zeros(scales.shape, numpy.int8)
    shape, tile = (rows, columns), (1, width)
    values = (codes.astype(numpy.float32) - spread(zeros, shape, tile)) * spread(scales, shape, tile)
    stored = scales[:, 0] if flat else scales
    tensors = {f"{BASE}.weight": entry(codes, "I8"), f"{BASE}.weight_scale": entry(stored, "BF16")}
    if zero:
        tensors[f"{BASE}.weight_zero_point"] = entry(zeros, "I8")
    stated = {"num_bits": 8, "type": "int", "strategy": "group" if group else "channel", "group_size": group or None}
    return compressed(stated, "int-quantized", tensors, values)


def packed_integers(
    rows: int, columns: int, group: int, bits: int = 4, *, zero: bool = False, order: bool = False, seed: int = 0
) -> Packed:
    """W4A16 of compressed-tensors; ``order``: groups of columns in any order; group 0: one scale a row."""
    rng = numpy.random.default_rng(seed)
    width = group or columns
    groups = -(-columns // width)
    codes = rng.integers(0, 1 << bits, (rows, columns))
    scales = scale_values(rng, (rows, groups), "BF16")
    zeros = rng.integers(0, 1 << bits, (rows, groups)) if zero else numpy.full((rows, groups), 1 << (bits - 1))
    index = numpy.arange(columns) // width
    if order:
        index = rng.permutation(index)
    values = (codes - zeros[:, index]).astype(numpy.float32) * scales[:, index]
    tensors = {
        f"{BASE}.weight_packed": entry(words(codes, bits), "I32"),
        f"{BASE}.weight_scale": entry(scales, "BF16"),
        f"{BASE}.weight_shape": entry(numpy.array([rows, columns]), "I64"),
    }
    if zero:
        tensors[f"{BASE}.weight_zero_point"] = entry(words(zeros.T, bits).T, "I32")
    if order:
        tensors[f"{BASE}.weight_g_idx"] = entry(index, "I32")
    stated = {"num_bits": bits, "type": "int", "strategy": "group" if group else "channel", "group_size": group or None}
    return compressed(stated, "pack-quantized", tensors, values)


def gptq(
    outputs: int, inputs: int, group: int, bits: int = 4, *, form: str = "gptq", order: bool = False,
    symmetric: bool = False, indexed: bool = True, scale: str = "F16", method: str = "gptq", seed: int = 0,
) -> Packed:  # fmt: skip
    rng = numpy.random.default_rng(seed)
    groups = -(-inputs // group) if group > 0 else 1
    codes = rng.integers(0, 1 << bits, (inputs, outputs))
    stored = numpy.full((groups, outputs), (1 << (bits - 1)) - 1)
    if not symmetric:
        stored = rng.integers(0, 1 << bits, (groups, outputs))
    zeros = stored + (form == "gptq")
    scales = scale_values(rng, (groups, outputs), scale)
    index = numpy.arange(inputs) // (group if group > 0 else inputs)
    if order:
        index = rng.permutation(index)
    values = scales[index] * (codes - zeros[index]).astype(numpy.float32)
    tensors = {
        f"{BASE}.qweight": entry(words(codes.T, bits).T, "I32"),
        f"{BASE}.qzeros": entry(words(stored, bits), "I32"),
        f"{BASE}.scales": entry(scales, scale),
    }
    if indexed:
        tensors[f"{BASE}.g_idx"] = entry(index, "I32")
    settings = {
        "quant_method": method, "bits": bits, "group_size": group, "desc_act": order, "sym": symmetric,
        "checkpoint_format": form,
    }  # fmt: skip
    return Packed(tensors, settings, {f"{BASE}.weight": numpy.ascontiguousarray(values.T)})


def awq(outputs: int, inputs: int, group: int, seed: int = 0, keys: tuple[str, str] = ("bits", "group_size")) -> Packed:
    rng = numpy.random.default_rng(seed)
    groups = -(-inputs // group) if group > 0 else 1

    def interleaved(codes: numpy.ndarray) -> numpy.ndarray:
        eights = codes.reshape(len(codes), -1, 8)[:, :, [0, 2, 4, 6, 1, 3, 5, 7]]
        return words(eights.reshape(len(codes), -1), 4)

    codes, zeros = rng.integers(0, 16, (inputs, outputs)), rng.integers(0, 16, (groups, outputs))
    scales = scale_values(rng, (groups, outputs), "F16")
    index = numpy.arange(inputs) // (group if group > 0 else inputs)
    values = (codes - zeros[index]).astype(numpy.float32) * scales[index]
    tensors = {
        f"{BASE}.qweight": entry(interleaved(codes), "I32"),
        f"{BASE}.qzeros": entry(interleaved(zeros), "I32"),
        f"{BASE}.scales": entry(scales, "F16"),
    }
    settings = {"quant_method": "awq", keys[0]: 4, keys[1]: group, "version": "GEMM", "zero_point": True}
    return Packed(tensors, settings, {f"{BASE}.weight": numpy.ascontiguousarray(values.T)})


def bitnet(rows: int, columns: int, linear_class: str = "bitlinear", seed: int = 0) -> Packed:
    rng = numpy.random.default_rng(seed)
    codes = rng.integers(-1, 2, (rows, columns))
    quarters = (codes + 1).reshape(4, rows // 4, columns)
    stored = sum(quarters[k] << 2 * k for k in range(4)).astype(numpy.uint8)
    scale = rounded(numpy.array([37.3]), "BF16")
    factor = scale[0] if linear_class == "autobitlinear" else numpy.float32(1) / scale[0]
    tensors = {f"{BASE}.weight": entry(stored, "U8"), f"{BASE}.weight_scale": entry(scale, "BF16")}
    settings = {"quant_method": "bitnet", "linear_class": linear_class, "quantization_mode": "offline"}
    return Packed(tensors, settings, {f"{BASE}.weight": codes.astype(numpy.float32) * factor})


def bnb4(
    rows: int,
    columns: int,
    block: int = 64,
    *,
    nested: bool = True,
    storage: str = "U8",
    kind: str = "nf4",
    seed: int = 0,
) -> Packed:
    rng = numpy.random.default_rng(seed)
    count = rows * columns
    blocks = -(-count // block)
    codes = rng.integers(0, 16, count + count % 2)
    levels = numpy.sort(rng.uniform(-1, 1, 16)).astype(numpy.float32)
    data = (codes[::2] << 4 | codes[1::2]).astype(numpy.uint8).tobytes()
    size = {"U8": 1, "BF16": 2, "F32": 4}[storage]
    name = f"{BASE}.weight"
    tensors: Tensors = {name: (storage, [len(data) // size, 1], data), f"{name}.quant_map": entry(levels, "F32")}
    state: dict[str, Any] = {"quant_type": kind, "blocksize": block, "dtype": "bfloat16", "shape": [rows, columns]}
    if nested:
        inner = rng.integers(0, 256, blocks, numpy.uint8)
        outer = rng.uniform(0.05, 0.2, -(-blocks // 256)).astype(numpy.float32)
        table = numpy.sort(rng.uniform(-1, 1, 256)).astype(numpy.float32)
        state |= {"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.15971820056438446}
        absmax = table[inner] * outer[numpy.arange(blocks) // 256] + numpy.float32(state["nested_offset"])
        tensors |= {
            f"{name}.absmax": entry(inner, "U8"), f"{name}.nested_absmax": entry(outer, "F32"),
            f"{name}.nested_quant_map": entry(table, "F32"),
        }  # fmt: skip
    else:
        absmax = rng.uniform(0.1, 2, blocks).astype(numpy.float32)
        tensors[f"{name}.absmax"] = entry(absmax, "F32")
    raw = json.dumps(state).encode()
    tensors[f"{name}.quant_state.bitsandbytes__{kind}"] = ("U8", [len(raw)], raw)
    values = (levels[codes[:count]] * absmax[numpy.arange(count) // block]).reshape(rows, columns)
    return Packed(tensors, {"quant_method": "bitsandbytes", "load_in_4bit": True}, {name: values})


def bnb8(rows: int, columns: int, seed: int = 0) -> Packed:
    rng = numpy.random.default_rng(seed)
    codes = rng.integers(-127, 128, (rows, columns), numpy.int8)
    scb = rng.uniform(0.5, 2, rows).astype(numpy.float32)
    values = codes.astype(numpy.float32) * scb[:, None] * numpy.float32(7.874015718698502e-3)
    tensors = {
        f"{BASE}.weight": entry(codes, "I8"), f"{BASE}.SCB": entry(scb, "F32"),
        f"{BASE}.weight_format": entry(numpy.zeros((), numpy.uint8), "U8"),
    }  # fmt: skip
    return Packed(tensors, {"quant_method": "bitsandbytes", "load_in_8bit": True}, {f"{BASE}.weight": values})


def nvfp4(rows: int, columns: int, *, compressed_tensors: bool = False, seed: int = 0) -> Packed:
    rng = numpy.random.default_rng(seed)
    codes = rng.integers(0, 16, (rows, columns))
    scales = rng.integers(0, 0x7F, (rows, columns // 16), numpy.uint8)
    stored = (codes[:, ::2] | codes[:, 1::2] << 4).astype(numpy.uint8)
    number = numpy.float32(5917.0 if compressed_tensors else 0.00169)
    factor = numpy.float32(1) / number if compressed_tensors else number
    values = E2M1[codes] * e4m3(scales).repeat(16, 1) * factor
    endings = (".weight", ".weight_scale_2", ".input_scale")
    if compressed_tensors:
        endings = (".weight_packed", ".weight_global_scale", ".input_global_scale")
    one = numpy.array([number])
    tensors = {
        BASE + endings[0]: entry(stored, "U8"), f"{BASE}.weight_scale": entry(scales, "F8_E4M3"),
        BASE + endings[1]: entry(one, "F32"), BASE + endings[2]: entry(one * 0 + 0.25, "F32"),
    }  # fmt: skip
    method = "compressed-tensors" if compressed_tensors else "modelopt"
    return Packed(tensors, {"quant_method": method, "quant_algo": "NVFP4"}, {f"{BASE}.weight": values})


def mxfp4_rows(rows: int, columns: int, method: str, dtype: str = "U8", seed: int = 0) -> Packed:
    rng = numpy.random.default_rng(seed)
    codes = rng.integers(0, 16, (rows, columns))
    scales = rng.integers(100, 150, (rows, columns // 32), numpy.uint8)
    stored = (codes[:, ::2] | codes[:, 1::2] << 4).astype(numpy.uint8)
    values = numpy.ldexp(E2M1[codes] + numpy.float32(0), scales.astype(int).repeat(32, 1) - 127)  # no -0
    ending = ".weight_packed" if method == "compressed-tensors" else ".weight"
    tensors = {BASE + ending: entry(stored, "U8"), f"{BASE}.weight_scale": entry(scales, dtype)}
    return Packed(tensors, {"quant_method": method}, {f"{BASE}.weight": values})


def mixed() -> Packed:
    """ModelOpt's mixture: one matrix in NVFP4, one in FP8, and scales of the cache."""
    one, two = nvfp4(8, 128), fp8(8, 64, (8, 64), names=(".weight", ".weight_scale"), shape=[], method="modelopt")
    other = "model.layers.0.self_attn.o_proj"
    tensors = one.tensors | {name.replace(BASE, other): tensor for name, tensor in two.tensors.items()}
    tensors |= {f"model.layers.0.self_attn.{name}_scale": entry(numpy.ones(()), "F32") for name in ("k", "v")}
    values = one.values | {name.replace(BASE, other): value for name, value in two.values.items()}
    return Packed(tensors, {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION"}, values)


def of_their_own(place: str, method: str = "gptq") -> Packed:
    """Matrices of other bits and groups than config.json states for most: what GPTQModel and AutoRound add to it."""
    made = {
        BASE: gptq(64, 256, 128, bits=8, method=method),
        "model.layers.0.mlp.up_proj": gptq(64, 256, 64, method=method, seed=1),
        "model.layers.0.mlp.gate_proj": gptq(64, 256, 32, bits=2, method=method, seed=2),
    }
    tensors, values = {}, {}
    for module, one in made.items():
        tensors |= {name.replace(BASE, module): tensor for name, tensor in one.tensors.items()}
        values |= {name.replace(BASE, module): value for name, value in one.values.items()}
    own = {
        "dynamic": {
            "+:.*down_proj.*": {"bits": 8, "group_size": 128}, r".*\.gate_proj": {"bits": 2, "group_size": 32},
            "-:.*o_proj": {},
        },
        "extra_config": {
            BASE: {"bits": 8, "group_size": 128}, "model.layers.0.mlp.gate_proj": {"bits": 2, "group_size": 32},
            "model.layers.0.self_attn.o_proj": {"bits": 16},
        },
    }  # fmt: skip
    settings = {"quant_method": method, "bits": 4, "group_size": 64, "checkpoint_format": "gptq", place: own[place]}
    return Packed(tensors, settings, values)


_SCALE = (".weight", ".weight_scale")
FORMATS: dict[str, Callable[[], Packed]] = {
    "fp8-block": lambda: fp8(256, 384, (128, 128)),
    "fp8-block-ragged": lambda: fp8(200, 330, (128, 128)),
    "fp8-block-other-size": lambda: fp8(70, 100, (32, 64)),
    "fp8-block-bf16-scales": lambda: fp8(130, 64, (64, 32), scale="BF16"),
    "fp8-block-of-shape": lambda: fp8(128, 96, (64, 32), stated=False),
    "fp8-e5m2": lambda: fp8(96, 130, (128, 128), dtype="F8_E5M2"),
    "fp8-tensor": lambda: fp8(24, 96, (24, 96), stated=False, shape=[], scale="BF16"),
    "fp8-tensor-of-one": lambda: fp8(24, 96, (24, 96), stated=False, shape=[1], names=_SCALE),
    "fp8-rows": lambda: fp8(24, 96, (1, 96), stated=False, names=_SCALE),
    "fp8-rows-flat": lambda: fp8(24, 24, (1, 24), stated=False, names=_SCALE, shape=[24], method="fbgemm_fp8"),
    "fp8-mistral": lambda: fp8(24, 96, (24, 96), stated=False, shape=[], names=(".weight", ".qscale_weight")),
    "fp8-stack": lambda: fp8_stack(3, 70, 130, (64, 64)),
    "fp8-modelopt": lambda: fp8(24, 96, (24, 96), stated=False, shape=[], names=_SCALE, method="modelopt"),
    "w8a8": lambda: int8(24, 100),
    "w8a8-flat": lambda: int8(24, 96, flat=True),
    "w8a8-asymmetric": lambda: int8(24, 96, zero=True),
    "w8a8-groups": lambda: int8(24, 96, 32),
    "w4a16": lambda: packed_integers(48, 256, 128),
    "w4a16-asymmetric": lambda: packed_integers(40, 192, 32, zero=True),
    "w4a16-rows-not-in-eights": lambda: packed_integers(13, 64, 16, zero=True),
    "w4a16-channel": lambda: packed_integers(16, 100, 0),
    "w4a16-odd-columns": lambda: packed_integers(16, 101, 0),
    "w4a16-ragged-group": lambda: packed_integers(16, 72, 32),
    "w4a16-ordered": lambda: packed_integers(16, 128, 32, zero=True, order=True),
    "w8a16": lambda: packed_integers(16, 96, 32, 8),
    "w2a16": lambda: packed_integers(32, 96, 16, 2, zero=True),
    "gptq": lambda: gptq(64, 256, 128, symmetric=True),
    "gptq-asymmetric": lambda: gptq(72, 192, 64),
    "gptq-v2": lambda: gptq(64, 128, 32, form="gptq_v2"),
    "gptq-act-order": lambda: gptq(64, 256, 32, order=True),
    "gptq-8-bit": lambda: gptq(64, 96, 32, 8),
    "gptq-2-bit": lambda: gptq(64, 96, 32, 2),
    "gptq-one-group": lambda: gptq(64, 96, -1),
    "gptq-ragged-group": lambda: gptq(64, 96, 64),
    "gptq-no-index": lambda: gptq(64, 96, 32, indexed=False),
    "gptq-bf16-scales": lambda: gptq(64, 96, 32, scale="BF16"),
    "gptq-two-bands": lambda: gptq(264, 32, 32),
    "auto-round": lambda: gptq(64, 96, 32, symmetric=True, indexed=False, method="auto-round"),
    "gptq-of-their-own": lambda: of_their_own("dynamic"),
    "auto-round-of-their-own": lambda: of_their_own("extra_config", "auto-round"),
    "awq": lambda: awq(64, 256, 128),
    "awq-other-keys": lambda: awq(72, 96, 32, keys=("w_bit", "q_group_size")),
    "awq-one-group": lambda: awq(24, 40, -1),
    "bitnet": lambda: bitnet(24, 100),
    "bitnet-multiplied": lambda: bitnet(24, 64, "autobitlinear"),
    "nf4": lambda: bnb4(24, 128),
    "nf4-plain": lambda: bnb4(24, 128, nested=False),
    "nf4-blocks-across-rows": lambda: bnb4(25, 100, 64),
    "nf4-large-blocks": lambda: bnb4(24, 96, 256, storage="BF16"),
    "nf4-many-blocks": lambda: bnb4(300, 128, 64, storage="F32"),
    "fp4": lambda: bnb4(24, 128, nested=False, kind="fp4"),
    "int8-bitsandbytes": lambda: bnb8(24, 96),
    "nvfp4-modelopt": lambda: nvfp4(24, 192),
    "nvfp4-compressed": lambda: nvfp4(24, 128, compressed_tensors=True),
    "nvfp4-other-rows": lambda: nvfp4(24, 80),
    "mxfp4-compressed": lambda: mxfp4_rows(24, 96, "compressed-tensors"),
    "mxfp4-quark": lambda: mxfp4_rows(24, 96, "quark", "F8_E8M0"),
    "mixed": mixed,
}
