"""Layers with a state: the kernels against the reference, and the same results however the positions are cut."""

from __future__ import annotations

from dataclasses import replace

import numpy
import pytest

from quantcli.ggml import kernels
from quantcli.runner.operations import Operations
from quantcli.runner.products import Products
from quantcli.runner.recurrence import Recurrence, recur

SETS = [name for name, supported in kernels.instruction_sets() if supported and name != "emu16"]
#: sequences, positions, heads, groups, keys, values
SHAPES = [(1, 7, 4, 2, 16, 16), (2, 5, 6, 3, 5, 40), (1, 3, 2, 1, 128, 70), (3, 1, 2, 2, 8, 3)]
KINDS = ["plain", "skip", "delta", "tiled delta", "delta of every key", "decay of every key", "bonus", "write"]


def made(kind: str, shape: tuple[int, ...], seed: int = 3) -> Recurrence:
    """A recurrence of random numbers."""
    draw = numpy.random.default_rng(seed)
    sequences, positions, heads, groups, keys, values = shape

    def floats(*sizes: int) -> numpy.ndarray:
        return draw.standard_normal(sizes).astype(numpy.float32) / 4

    every = "every" in kind or kind in ("bonus", "write")
    return Recurrence(
        key=floats(sequences, positions, groups, keys),
        query=floats(sequences, positions, groups, keys),
        value=floats(sequences, positions, heads, values),
        decay=numpy.exp(-numpy.abs(floats(sequences, positions, heads, keys if every else 1))),
        state=floats(sequences, heads, keys, values),
        scale=floats(sequences, positions, heads) if "delta" in kind or kind == "skip" else None,
        skip=floats(heads) if kind == "skip" else None,
        bonus=floats(heads, keys) if kind == "bonus" else None,
        read=floats(sequences, positions, heads, keys) if kind == "write" else None,
        write=floats(sequences, positions, heads, keys) if kind == "write" else None,
        delta="delta" in kind,
        tiled="tiled" in kind,
    )


def cut(r: Recurrence, part: slice, state: numpy.ndarray) -> Recurrence:
    names = ("key", "query", "value", "decay", "scale", "read", "write")
    parts = {name: getattr(r, name) for name in names}
    whole = {name: None if x is None else numpy.ascontiguousarray(x[:, part]) for name, x in parts.items()}
    return replace(r, state=state, **whole)


@pytest.mark.parametrize("isa", SETS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_recurrence(kind: str, shape: tuple[int, ...], isa: str) -> None:
    r = made(kind, shape)
    begin = r.state.copy()
    wanted = recur(r)
    for threads in (1, 3):
        state = begin.copy()
        found = Products("float", threads, isa).recur(replace(r, state=state))
        assert numpy.allclose(found, wanted, rtol=1e-4, atol=1e-5), kind
        assert numpy.allclose(state, r.state, rtol=1e-4, atol=1e-5), kind
    state, products = begin.copy(), Products("float", 1, isa)
    positions = shape[1]
    pieces = [products.recur(cut(r, slice(a, a + 2), state)) for a in range(0, positions, 2)]
    assert numpy.array_equal(numpy.concatenate(pieces, axis=1), found), "a cut changes nothing"


def test_a_recurrence_written_out() -> None:
    """Two positions by hand: forget, correct what the key finds, read."""
    one = numpy.ones((1, 2, 1, 1), numpy.float32)
    r = Recurrence(one, one, 4 * one, one / 2, numpy.zeros((1, 1, 1, 1), numpy.float32), one[..., 0] / 2, delta=True)
    assert recur(r).ravel().tolist() == [2.0, 2.5]  # 0 + (4 - 0)/2, then 1 + (4 - 1)/2
    assert recur(replace(r, delta=False, state=0 * r.state)).ravel().tolist() == [2.0, 3.0]


@pytest.mark.parametrize("isa", SETS)
@pytest.mark.parametrize(("sequences", "positions", "channels", "kernel"), [(1, 9, 20, 4), (2, 2, 67, 4), (1, 1, 8, 3)])
def test_convolution(isa: str, sequences: int, positions: int, channels: int, kernel: int) -> None:
    draw = numpy.random.default_rng(5)
    wide = draw.standard_normal((sequences, positions, channels + 6)).astype(numpy.float32)
    x = wide[..., 3 : 3 + channels]  # rows with gaps
    weight, bias = (draw.standard_normal(size).astype(numpy.float32) for size in ((kernel, channels), channels))
    for silu, offset in ((True, bias), (False, None)):
        reference, products = Operations(), Products("float", 2, isa)
        windows = [numpy.ones((sequences, kernel - 1, channels), numpy.float32) for _ in range(3)]
        wanted = reference.convolve(x, windows[0], weight, offset, silu=silu)
        found = products.convolve(x, windows[1], weight, offset, silu=silu)
        pieces = [products.convolve(x[:, t : t + 1], windows[2], weight, offset, silu=silu) for t in range(positions)]
        assert numpy.allclose(found, wanted, atol=2e-6) and numpy.array_equal(numpy.concatenate(pieces, axis=1), found)
        assert all(numpy.array_equal(window, windows[0]) for window in windows)


@pytest.mark.parametrize("isa", SETS)
@pytest.mark.parametrize(("sequences", "positions", "channels", "size"), [(1, 9, 20, 16), (2, 3, 67, 5)])
def test_scan(isa: str, sequences: int, positions: int, channels: int, size: int) -> None:
    draw = numpy.random.default_rng(7)
    shapes = {"x": channels, "step": channels, "key": size, "query": size}
    parts = {name: draw.standard_normal((sequences, positions, n)).astype(numpy.float32) for name, n in shapes.items()}
    parts["step"] = numpy.abs(parts["step"])
    rate = -numpy.abs(draw.standard_normal((size, channels))).astype(numpy.float32)
    skip = draw.standard_normal(channels).astype(numpy.float32)
    states = [numpy.zeros((sequences, size, channels), numpy.float32) for _ in range(3)]
    products = Products("float", 2, isa)
    wanted = Operations().scan(**parts, rate=rate, skip=skip, state=states[0])
    found = products.scan(**parts, rate=rate, skip=skip, state=states[1])
    pieces = [
        products.scan(**{name: x[:, t : t + 1] for name, x in parts.items()}, rate=rate, skip=skip, state=states[2])
        for t in range(positions)
    ]
    assert numpy.allclose(found, wanted, atol=1e-5) and numpy.allclose(states[1], states[0], atol=1e-5)
    assert numpy.array_equal(numpy.concatenate(pieces, axis=1), found) and numpy.array_equal(states[2], states[1])


@pytest.mark.parametrize("written", [False, True])
def test_gates(written: bool) -> None:
    draw = numpy.random.default_rng(9)
    both = 9 * draw.standard_normal((7, 3, 2, 4)).astype(numpy.float32)  # of groups of heads, side by side
    bias, rate = (draw.standard_normal(12).astype(numpy.float32) for _ in range(2))
    parts = both[:, :, 1], both[:, :, 0] if written else None
    for found, wanted in zip(
        Products("float", 1).gates(*parts, bias, rate), Operations().gates(*parts, bias, rate), strict=True
    ):
        assert numpy.allclose(found, wanted, rtol=1e-5, atol=1e-7)
