"""Edge patterns of float32 through every encoder: an overflow that is reported, or a finite, valid block."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from quantcli.errors import ScaleOverflow
from quantcli.ggml import kernels, tensor_types

COLUMNS = 512
ISAS = [name for name, supported in kernels.instruction_sets() if supported]
ENCODERS = [
    (row.name, search)
    for row in tensor_types.BY_ID.values()
    for search in kernels.SEARCHES
    if kernels.can_encode(row.id, search)
]
WEIGHTS = ["none", "ones", "zeros", "lognormal", "lognormal with gaps", "huge", "denormal"]


@cache
def patterns() -> dict[str, np.ndarray]:
    """Rows at the edges of float32; all finite."""
    i = np.arange(COLUMNS, dtype=np.float32)
    rng = np.random.default_rng(5)
    normal = rng.standard_normal(COLUMNS).astype(np.float32)
    alternating = np.where(i % 2 == 0, np.float32(1), np.float32(-1))
    one_hot = np.where(i == COLUMNS // 2, np.float32(3), np.float32(0))
    halves = np.where(i < 16, np.float32(0), normal)
    return {
        "zero": i * 0,
        "negative zero": -(i * 0),
        "mixed zeros": alternating * 0,
        "constant": i * 0 + np.float32(0.013),
        "negative constant": i * 0 - np.float32(0.013),
        "alternating": alternating,
        "ramp": i - 100,
        "falling": -i,
        "one hot": one_hot,
        "negative one hot": -one_hot,
        "all positive": np.abs(normal),
        "all negative": -np.abs(normal),
        "zero sub-block": halves,
        "denormal": i * np.float32(1e-45),
        "smallest normal": normal * np.float32(2e-38),
        "subnormal fp16 scale": normal * np.float32(1e-6),
        "below every threshold": normal * np.float32(1e-16),
        "near fp16's end": normal * np.float32(2e4),
        "beyond fp16": normal * np.float32(1e9),
        "squares overflow": normal * np.float32(1e25),
        "largest": alternating * np.float32(3.4028235e38),
        "largest, one sign": i * 0 + np.float32(3.4028235e38),
        "one huge": normal + one_hot * np.float32(1e30),
        "one outlier": normal * np.float32(0.02) + one_hot,
        "wide range": normal * np.float32(10) ** (i % 60 - 30),
        "powers of two": alternating * np.exp2(i % 40 - 25).astype(np.float32),
    }


def importance(kind: str) -> np.ndarray | None:
    random = np.random.default_rng(9).lognormal(size=COLUMNS).astype(np.float32)
    gaps = random.copy()
    gaps[::7] = gaps[:32] = gaps[48:64] = gaps[256:272] = 0
    return {
        "none": None,
        "ones": np.ones_like(random),
        "zeros": np.zeros_like(random),
        "lognormal": random,
        "lognormal with gaps": gaps,
        "huge": random * np.float32(1e36),
        "denormal": random * np.float32(1e-40),
    }[kind]


def encode(name: str, search: str, x: np.ndarray, weights: np.ndarray | None, isa: str):
    """The bytes, complete even if a scale overflows, and the place of the first overflow or None."""
    row = tensor_types.by_name(name)
    out = np.full((len(x), tensor_types.row_bytes(row, COLUMNS)), 0xAA, np.uint8)
    try:
        kernels.encode(row.id, x, weights, search=search, out=out, isa=isa)
    except ScaleOverflow as error:
        return out, (error.row, error.column)
    return out, None


def test_there_are_enough_patterns():
    assert len(patterns()) >= 20 and all(np.isfinite(row).all() for row in patterns().values())


@pytest.mark.parametrize("kind", WEIGHTS)
@pytest.mark.parametrize("name,search", ENCODERS)
def test_edges_give_finite_blocks_or_an_overflow_and_the_same_ones_everywhere(name, search, kind):
    row, weights = tensor_types.by_name(name), importance(kind)
    x = np.stack(list(patterns().values()))
    labels = np.array(list(patterns()))
    whole, overflow = encode(name, search, x, weights, "scalar")
    assert overflow == kernels.validate(row.id, whole, *x.shape), "what is reported is not the first bad block"
    bad = np.array([kernels.validate(row.id, block, 1, COLUMNS) is not None for block in whole])
    decoded = kernels.decode(row.id, whole[~bad], int((~bad).sum()), COLUMNS)
    infinite = ~np.isfinite(decoded).all(axis=1)
    assert not infinite.any(), f"decodes to infinity: {labels[~bad][infinite]}"
    for isa in ISAS:
        out, place = encode(name, search, x, weights, isa)
        assert place == overflow, isa
        different = (out != whole).any(axis=1) & ~bad  # the bytes of an overflow are never written to a file
        assert not different.any(), f"{isa}: {labels[different]}"
        good = np.ascontiguousarray(x[~bad])  # a row does not depend on those beside it
        alone, place = encode(name, search, good, weights, isa)
        assert place is None and np.array_equal(alone, whole[~bad]), isa


@pytest.mark.parametrize("name,search", ENCODERS)
def test_zero_rows_decode_to_zero(name, search):
    row = tensor_types.by_name(name)
    for weights in (None, importance("lognormal")):
        x = np.zeros((3, COLUMNS), np.float32)
        decoded = kernels.decode(row.id, kernels.encode(row.id, x, weights, search=search), 3, COLUMNS)
        assert not decoded.any()
