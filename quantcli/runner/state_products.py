"""Layers with a state in C: fields of the steps of runner.h, with all that their pointers need checked."""

from __future__ import annotations

import numpy

from quantcli.runner.arrays import Floats
from quantcli.runner.recurrence import Recurrence
from quantcli.runner.steps import Fields, Pool, room


def rows(x: Floats) -> Floats:
    """[S, T, n], or with more dimensions behind, as [S, T, n] whose positions lie a stride apart, no gaps inside."""
    if x.ndim > 3:
        x = x.reshape(*x.shape[:2], -1)
    fits = x.dtype == numpy.float32 and x.strides[2] == 4 and min(x.strides[:2]) >= 0 and x.strides[1] % 4 == 0
    return x if fits else numpy.ascontiguousarray(x, numpy.float32)


def _count(x: Floats) -> int:
    return room(x) // 4


def _whole(pool: Pool, x: Floats | None, shape: tuple[int, ...]) -> tuple[object, int]:
    """Pointer and count of an array without gaps that has to have this shape; NULL and 0 without one."""
    if x is None:
        return pool.ffi.NULL, 0
    if x.shape != shape:
        raise ValueError(f"{x.shape} where {shape} is needed")
    return pool.floats(x), x.size


def convolve(pool: Pool, x: Floats, window: Floats, kernel: Floats, bias: Floats | None, silu: bool) -> Floats:
    """See `recurrence.convolve`."""
    sequences, tokens, channels = x.shape
    x, out = rows(x), numpy.empty(x.shape, numpy.float32)
    fields: dict[str, object] = {
        "x": pool.address(x, "float *"),
        "x_sequence": x.strides[0] // 4,
        "x_token": x.strides[1] // 4,
        "sequences": sequences,
        "tokens": tokens,
        "channels": channels,
        "kernel": len(kernel),
        "silu": silu,
        "x_count": _count(x),
    }
    for name, array, shape in (
        ("window", window, (sequences, len(kernel) - 1, channels)),
        ("weight", kernel, (len(kernel), channels)),
        ("bias", bias, (channels,)),
        ("out", out, out.shape),
    ):
        fields[name], fields[f"{name}_count"] = _whole(pool, array, shape)
    pool.run("convolve", fields, inputs=[x], outputs=[out], held=[window, kernel, bias])
    return out


def recur(pool: Pool, r: Recurrence) -> Floats:
    """See `recurrence.recur`."""
    sequences, tokens, heads, width = r.value.shape
    groups, size = r.key.shape[2:]
    out: Floats = numpy.empty(r.value.shape, numpy.float32)
    arrays = {"key": rows(r.key), "query": rows(r.query), "value": rows(r.value)}
    shapes = {
        "decay": (tokens, heads, r.decay.shape[3]), "scale": (tokens, heads), "read": (tokens, heads, size),
        "write": (tokens, heads, size), "state": (heads, size, width), "out": (tokens, heads, width),
    }  # fmt: skip
    given = {"decay": r.decay, "scale": r.scale, "read": r.read, "write": r.write, "state": r.state, "out": out}
    sizes = {"tokens": tokens, "heads": heads, "groups": groups, "size": size, "width": width}
    flags = {"decays": r.decay.shape[3], "delta": r.delta, "tiled": r.tiled}
    entries: list[Fields] = []
    for number in range(sequences):
        fields: dict[str, object] = {**sizes, **flags}
        for name, array in arrays.items():
            fields[name] = pool.address(array[number], "float *")
            fields[f"{name}_token"], fields[f"{name}_count"] = array.strides[1] // 4, _count(array[number])
        for name, whole in given.items():
            one = None if whole is None else whole[number]
            fields[name], fields[f"{name}_count"] = _whole(pool, one, shapes[name])
        fields["skip"], fields["skip_count"] = _whole(pool, r.skip, (heads,))
        fields["bonus"], fields["bonus_count"] = _whole(pool, r.bonus, (heads, size))
        entries.append(fields)
    inputs = [*arrays.values(), *(x for name, x in given.items() if x is not None and name not in ("state", "out"))]
    pool.run("recur", entries, inputs=inputs, outputs=[out], held=[r])
    return out


def scan(
    pool: Pool, x: Floats, step: Floats, rate: Floats, key: Floats, query: Floats, skip: Floats, state: Floats
) -> Floats:
    """See `recurrence.scan`."""
    sequences, tokens, channels = x.shape
    out: Floats = numpy.empty(x.shape, numpy.float32)
    arrays = {"x": rows(x), "step": rows(step), "key": rows(key), "query": rows(query)}
    entries: list[Fields] = []
    for number in range(sequences):
        fields: dict[str, object] = {"tokens": tokens, "channels": channels, "size": len(rate)}
        for name, array in arrays.items():
            fields[name] = pool.address(array[number], "float *")
            fields[f"{name}_token"], fields[f"{name}_count"] = array.strides[1] // 4, _count(array[number])
        for name, whole, shape in (
            ("rate", rate, rate.shape),
            ("skip", skip, (channels,)),
            ("state", state[number], rate.shape),
            ("out", out[number], (tokens, channels)),
        ):
            fields[name], fields[f"{name}_count"] = _whole(pool, whole, shape)
        entries.append(fields)
    pool.run("scan", entries, inputs=list(arrays.values()), outputs=[out], held=[rate, skip, state])
    return out


def gates(pool: Pool, forget: Floats, write: Floats | None, bias: Floats, rate: Floats) -> tuple[Floats, Floats]:
    """See `recurrence.gates`."""
    tokens, outer, inner = forget.shape
    heads = outer * inner
    strides = (forget.strides[1] // 4, 4) if outer > 1 else (inner, 4)
    parts = [forget] if write is None else [forget, write]
    if any(x.dtype != numpy.float32 or x.strides[2] != strides[1] or x.shape != forget.shape for x in parts):
        raise ValueError(f"gates of {forget.shape}, strides {forget.strides}")
    fields: dict[str, object] = {
        "outer": strides[0], "inner": inner, "tokens": tokens, "heads": heads, "write": pool.ffi.NULL, "write_token": 0,
        "write_count": 0,
    }  # fmt: skip
    for name, x in zip(("forget", "write"), parts, strict=False):
        fields[name] = pool.address(x, "float *")
        fields[f"{name}_token"], fields[f"{name}_count"] = x.strides[0] // 4, _count(x)
    decay, scale = (numpy.empty((tokens, heads), numpy.float32) for _ in range(2))
    for name, whole, shape in (
        ("bias", bias, (heads,)),
        ("rate", rate, (heads,)),
        ("decay", decay, decay.shape),
        ("scale", scale, scale.shape),
    ):
        fields[name], fields[f"{name}_count"] = _whole(pool, whole, shape)
    pool.run("gate", fields, inputs=parts, outputs=[decay, scale], held=[bias, rate])
    return decay, scale
