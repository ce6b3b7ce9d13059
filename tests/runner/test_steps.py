"""What the runner says to C is what runner.h declares: every step, every number, every field."""

from __future__ import annotations

from collections.abc import Callable

import numpy
import pytest

from quantcli.ggml import kernels, tensor_types
from quantcli.runner import operations
from quantcli.runner.products import Products
from quantcli.runner.recurrence import Recurrence
from quantcli.runner.steps import STEPS, Pool


def declared(prefix: str) -> set[str]:
    """Numbers of the headers whose names begin so."""
    _, lib = kernels.library()
    return {name for name in dir(lib) if name.startswith(prefix)}


def test_every_number_is_used() -> None:
    assert declared("QC_STEP_") == {f"QC_STEP_{name.upper()}" for name in STEPS}
    assert declared("QC_ACTIVATIONS_") == {f"QC_ACTIVATIONS_{name.upper()}" for name in operations.ACTIVATIONS}
    _, lib = kernels.library()
    kinds = {f"QC_{name.upper()}" for name in (*operations.ACTIVATION, "swiglu_oai", "xielu")}
    assert sorted(getattr(lib, kind) for kind in kinds) == list(range(lib.QC_ACTIVATION_KINDS))


X = numpy.ones((1, 1, 2, 32), numpy.float32)
ZEROS = numpy.zeros((1, 1, 32), numpy.float32)
ANGLES = (numpy.ones((1, 16), numpy.float32), numpy.zeros((1, 16), numpy.float32))
CALLS: dict[str, Callable[[Products], object]] = {
    "matmul": lambda p: p.product(0, numpy.zeros((3, 128), numpy.uint8), 3, X.reshape(2, 32)),
    "rms_norm": lambda p: p.rms_norm(X, X[0, 0, 0], 1e-5),
    "layer_norm": lambda p: p.layer_norm(X, X[0, 0, 0], None, 1e-5),
    "activate": lambda p: p.activate("silu", X.reshape(2, 32), None),
    "rotate": lambda p: p.rotate(X, ANGLES, "neox"),
    "add": lambda p: p.add(X, X),
    "store": lambda p: p.store(X, tensor_types.BY_NAME["F16"], numpy.zeros((1, 2, 1, 64), numpy.uint8)),
    "attend": lambda p: p.attend_all(X, *([X.transpose(0, 2, 1, 3)] * 2), scale=1.0, start=0),
    "convolve": lambda p: p.convolve(X[0], ZEROS, X[0, 0], None, silu=True),
    "recur": lambda p: p.recur(Recurrence(X, X, X, X[..., :1].copy(), numpy.zeros((1, 2, 32, 32), numpy.float32))),
    "gate": lambda p: p.gates(X[0], None, numpy.ones(64, numpy.float32), numpy.ones(64, numpy.float32)),
    "scan": lambda p: p.scan(X[0], X[0], X[0, 0], X[0, :, :, :2], X[0, :, :, :2], X[0, 0, 0], ZEROS.repeat(2, axis=1)),
}


@pytest.mark.parametrize("name", STEPS)
def test_every_field_is_filled(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A field that is left out would be zero without a word."""
    seen: dict[str, object] = {}
    told: list[object] = []  # to `repeated`, which builds the structs before
    run = Pool.run
    monkeypatch.setattr(
        Pool, "run", lambda self, step, fields, **more: (seen.update({step: fields}), run(self, step, fields, **more))
    )
    repeated = Pool.repeated
    monkeypatch.setattr(
        Pool,
        "repeated",
        lambda self, struct, first, *more: (told.append(first), repeated(self, struct, first, *more))[1],
    )
    CALLS[name](Products("float", 1))
    fields = seen[name] if isinstance(seen[name], dict) else [*told, *([] if told else seen[name])][0]
    ffi, _ = kernels.library()
    struct = ffi.typeof(STEPS[name].rstrip("[]* "))
    assert set(fields) == {field for field, _ in struct.fields}
