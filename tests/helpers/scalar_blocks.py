"""The blocks of the scalar types in numpy: parameters in and out of the bytes, and codes for given parameters.

An independent writing of what the kernels' `parameters`, `set_parameters` and `assign` do: weight = scale * code +
minimum with codes from `lowest` to `highest` of its type, one scale and minimum per sub-block of `size` weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy

from quantcli.ggml import tensor_types


@dataclass(frozen=True)
class Grid:
    """``size`` weights share a scale; codes run from ``lowest`` to ``highest``; ``affine``: with a minimum."""

    size: int
    lowest: int
    highest: int
    affine: bool


GRIDS = {
    "Q4_0": Grid(32, -8, 7, False),
    "Q4_1": Grid(32, 0, 15, True),
    "Q5_0": Grid(32, -16, 15, False),
    "Q5_1": Grid(32, 0, 31, True),
    "Q8_0": Grid(32, -128, 127, False),
    "Q2_K": Grid(16, 0, 3, True),
    "Q3_K": Grid(16, -4, 3, False),
    "Q4_K": Grid(32, 0, 15, True),
    "Q5_K": Grid(32, 0, 31, True),
    "Q6_K": Grid(16, -32, 31, False),
}
HALVES = {  # (first byte of d, first byte of the minimum)
    "Q4_0": (0, None), "Q4_1": (0, 2), "Q5_0": (0, None), "Q5_1": (0, 2), "Q8_0": (0, None),
    "Q2_K": (80, 82), "Q3_K": (108, None), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208, None),
}  # fmt: skip


def blocks(name: str, raw: numpy.ndarray) -> numpy.ndarray:
    return raw.reshape(-1, tensor_types.by_name(name).bytes)


def half(data: numpy.ndarray, at: int) -> numpy.ndarray:
    return data[:, at : at + 2].copy().view(numpy.float16).astype(numpy.float32)[:, 0]


def put_half(data: numpy.ndarray, at: int, values: numpy.ndarray) -> None:
    data[:, at : at + 2] = values.astype(numpy.float16).reshape(-1, 1).view(numpy.uint8)


def integers(name: str, data: numpy.ndarray) -> tuple[numpy.ndarray, numpy.ndarray | None]:
    """Stored integers of sub-blocks: (scales, minimums) [blocks, sub-blocks]."""
    if name == "Q2_K":
        return data[:, :16] & 15, data[:, :16] >> 4
    if name == "Q6_K":
        return data[:, 192:208].view(numpy.int8), None
    if name == "Q3_K":
        packed = data[:, 96:108].astype(int)
        low = numpy.concatenate([packed[:, :8] & 15, packed[:, :8] >> 4], axis=1)
        high = numpy.concatenate([(packed[:, 8:] >> shift) & 3 for shift in (0, 2, 4, 6)], axis=1)
        return (low | high << 4) - 32, None
    packed = data[:, 4:16].astype(int)
    scales = numpy.concatenate([packed[:, :4] & 63, (packed[:, 8:] & 15) | (packed[:, :4] >> 6) << 4], axis=1)
    minimums = numpy.concatenate([packed[:, 4:8] & 63, packed[:, 8:] >> 4 | (packed[:, 4:8] >> 6) << 4], axis=1)
    return scales, minimums


def put_integers(name: str, data: numpy.ndarray, scales: numpy.ndarray, minimums: numpy.ndarray | None) -> None:
    if name == "Q2_K":
        data[:, :16] = scales | minimums << 4
    elif name == "Q6_K":
        data[:, 192:208] = scales.astype(numpy.int8).view(numpy.uint8)
    elif name == "Q3_K":
        stored = scales + 32
        data[:, 96:104] = (stored[:, :8] & 15) | (stored[:, 8:] & 15) << 4
        high = stored >> 4
        data[:, 104:108] = high[:, :4] | high[:, 4:8] << 2 | high[:, 8:12] << 4 | high[:, 12:] << 6
    else:
        data[:, 4:8] = scales[:, :4] | (scales[:, 4:] >> 4) << 6
        data[:, 8:12] = minimums[:, :4] | (minimums[:, 4:] >> 4) << 6
        data[:, 12:16] = (scales[:, 4:] & 15) | (minimums[:, 4:] & 15) << 4


def parameters(name: str, raw: numpy.ndarray) -> tuple[numpy.ndarray, numpy.ndarray]:
    """(scale, minimum) float32 [rows, sub-blocks] of encoded rows."""
    data, (at, minimum_at) = blocks(name, raw), HALVES[name]
    scale = half(data, at)[:, None]
    minimum = numpy.zeros_like(scale) if minimum_at is None else half(data, minimum_at)[:, None]
    if name.endswith("_K"):
        steps, minimums = integers(name, data)
        scale = scale * steps.astype(numpy.float32)
        minimum = minimum * (0 if minimums is None else minimums.astype(numpy.float32))
        minimum = numpy.broadcast_to(minimum, scale.shape)
        minimum = 0.0 - minimum
    return scale.reshape(len(raw), -1).astype(numpy.float32), minimum.reshape(len(raw), -1).astype(numpy.float32)


def set_parameters(name: str, scale: numpy.ndarray, minimum: numpy.ndarray, columns: int) -> numpy.ndarray:
    """Blocks with the nearest parameters that the type can store and no codes yet: uint8 [rows, bytes]."""
    row = tensor_types.by_name(name)
    raw = numpy.zeros((len(scale), tensor_types.row_bytes(row, columns)), numpy.uint8)
    data, (at, minimum_at) = blocks(name, raw), HALVES[name]
    scale, minimum = scale.reshape(len(data), -1), minimum.reshape(len(data), -1)
    if not name.endswith("_K"):
        put_half(data, at, scale)
        if minimum_at is not None:
            put_half(data, minimum_at, minimum)
        return raw
    low, high = {"Q2_K": (0, 15), "Q3_K": (-32, 31), "Q6_K": (-128, 127)}.get(name, (0, 63))
    peak = numpy.take_along_axis(scale, numpy.abs(scale).argmax(axis=1)[:, None], 1)
    put_half(data, at, peak / (low if low < 0 else high))
    steps = whole(scale, half(data, at), low, high)
    minimums = None
    if minimum_at is not None:
        put_half(data, minimum_at, -minimum.min(axis=1) / high)
        minimums = whole(-minimum, half(data, minimum_at), 0, high)
    put_integers(name, data, steps, minimums)
    return raw


def whole(values: numpy.ndarray, unit: numpy.ndarray, low: int, high: int) -> numpy.ndarray:
    unit = unit[:, None]
    return numpy.clip(numpy.rint(numpy.divide(values, unit, where=unit != 0, out=0 * values)), low, high).astype(int)


def assign(name: str, rows: numpy.ndarray, raw: numpy.ndarray) -> numpy.ndarray:
    """The same blocks with the nearest code of every weight."""
    grid = GRIDS[name]
    scale, minimum = (values[..., None] for values in parameters(name, raw))
    x = rows.reshape(len(rows), -1, grid.size)
    levels = numpy.divide(x - minimum, scale, where=scale != 0, out=numpy.zeros_like(x))
    codes = numpy.clip(numpy.rint(levels), grid.lowest, grid.highest).astype(int)
    out = raw.copy()
    put_codes(name, blocks(name, out), codes.reshape(-1, tensor_types.by_name(name).block))
    return out


def put_codes(name: str, data: numpy.ndarray, codes: numpy.ndarray) -> None:
    """Codes [blocks, weights] into the bits of the blocks."""
    codes = codes - min(GRIDS[name].lowest, 0) if name != "Q8_0" else codes
    if name == "Q8_0":
        data[:, 2:] = codes.astype(numpy.int8).view(numpy.uint8)
    elif name in ("Q4_0", "Q4_1", "Q5_0", "Q5_1"):
        data[:, -16:] = (codes[:, :16] & 15) | (codes[:, 16:] & 15) << 4
        if name.startswith("Q5"):
            data[:, -20:-16] = numpy.packbits(codes >> 4, axis=1, bitorder="little")
    elif name in ("Q2_K", "Q3_K"):
        parts = codes.reshape(-1, 2, 4, 32)
        low = sum((parts[:, :, shift] & 3) << 2 * shift for shift in range(4)).reshape(-1, 64)
        data[:, (slice(16, 80) if name == "Q2_K" else slice(32, 96))] = low
        if name == "Q3_K":
            high = (codes >> 2).reshape(-1, 8, 32)
            data[:, :32] = sum(high[:, bit] << bit for bit in range(8))
    elif name in ("Q4_K", "Q5_K"):
        parts = codes.reshape(-1, 4, 2, 32)
        data[:, -128:] = ((parts[:, :, 0] & 15) | (parts[:, :, 1] & 15) << 4).reshape(-1, 128)
        if name == "Q5_K":
            high = (codes >> 4).reshape(-1, 8, 32)
            data[:, 16:48] = sum(high[:, bit] << bit for bit in range(8))
    else:
        parts = codes.reshape(-1, 2, 4, 32)
        low = numpy.stack([(parts[:, :, i] & 15) | (parts[:, :, i + 2] & 15) << 4 for i in range(2)], axis=2)
        data[:, :128] = low.reshape(-1, 128)
        data[:, 128:192] = sum((parts[:, :, i] >> 4) << 2 * i for i in range(4)).reshape(-1, 64)
