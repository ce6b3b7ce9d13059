"""Steps of the C library (runner.h): the pool of threads that does them, and recordings that do them again.

A step is a kernel's name and the fields of its struct, by the names that runner.h gives them. What is measured in
positions (places in the cache, angles, the start of attention) a recording moves on. Between the steps of C there may
be some of Python: functions of arrays that steps have made.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

import numpy
from numpy.typing import NDArray

from quantcli.errors import NoKernel, QuantcliError
from quantcli.ggml import failures, kernels, tensor_types
from quantcli.runner.arrays import Floats
from quantcli.system import usable_cores

MOST_THREADS = 256

#: steps of qc_run (QC_STEP_...) -> what their arguments are in runner.h
STEPS = {
    "matmul": "qc_product[]",
    "rms_norm": "qc_norm *",
    "layer_norm": "qc_norm *",
    "activate": "qc_activation *",
    "rotate": "qc_rotation *",
    "add": "qc_addition *",
    "store": "qc_storage *",
    "attend": "qc_attention[]",
    "convolve": "qc_convolution *",
    "recur": "qc_recurrence[]",
    "scan": "qc_scan[]",
    "gate": "qc_gates *",
}

Arrays: TypeAlias = "AnyArray | tuple[AnyArray, ...]"
Fields: TypeAlias = Mapping[str, object]  # of a struct: numbers and pointers
AnyArray: TypeAlias = NDArray[numpy.generic]


@dataclass(frozen=True)
class Entries:
    """Structs of one step that are built already: a C array, and how many."""

    array: Sequence[object]
    count: int

    def __len__(self) -> int:
        return self.count


class _Mode(threading.local):
    """Every thread's own: the recording that notes its steps."""

    recording: Recording | None = None


def _free(lib: kernels.Native, pool: object, owner: int) -> None:
    """Stop a pool's threads; a forked child has none of them."""
    if os.getpid() == owner:
        lib.qc_pool_free(pool)


class Pool:
    """Threads of the C library, the instruction set they use and how they round activations.

    Calls from several Python threads take turns. Not for use after fork().
    """

    def __init__(self, activations: str, threads: int | None, isa: str | None) -> None:
        """``threads``: None for all processors. Raises QuantcliError, UnsupportedInstructionSet."""
        self.ffi, self.lib = kernels.library()
        self.threads = max(1, min(threads or usable_cores(), MOST_THREADS))
        pool = self.lib.qc_pool_new(self.threads)
        if pool == self.ffi.NULL:
            raise QuantcliError(f"{self.threads} threads cannot be started", hint="use fewer --threads")
        self.handle = pool
        # Not ffi.gc: at the end of the process the library may be gone before its threads are.
        weakref.finalize(self, _free, self.lib, pool, os.getpid())
        self.isa = kernels.isa_index(isa)
        self.activations = getattr(self.lib, f"QC_ACTIVATIONS_{activations.upper()}")
        self._mode = _Mode()

    def run(
        self,
        name: str,
        fields: Fields | Sequence[Fields] | Entries,
        *,
        inputs: Sequence[AnyArray],
        outputs: Sequence[AnyArray],
        held: Sequence[object] = (),
        type_id: int = 0,
    ) -> None:
        """Do one step now; ``name`` of `STEPS`, several ``fields`` or `repeated` ones where its arguments are an array.

        ``inputs`` are what other steps have made, ``outputs`` what this one makes; with ``held`` (weights) they are
        all that the pointers in ``fields`` need alive. ``type_id`` is for the message of a type that has no kernel.
        """
        arguments = fields.array if isinstance(fields, Entries) else self.ffi.new(STEPS[name], fields)
        count = 1 if isinstance(fields, Mapping) else len(fields)
        step = self.ffi.new("qc_step *", (getattr(self.lib, f"QC_STEP_{name.upper()}"), count, arguments))
        check(self.lib.qc_run(self.handle, self.isa, self.activations, step, 1, 0), type_id)
        recording = self._mode.recording
        if recording is not None:
            recording.note(step, inputs, outputs, (arguments, fields, held))

    def note(self, function: Callable[..., Arrays | None], inputs: Sequence[AnyArray], made: Arrays | None) -> None:
        """Python has ``made`` something of ``inputs`` by ``function`` (None: it changes what a later step is told)."""
        if self._mode.recording is not None:
            self._mode.recording.note_python(function, inputs, made)

    @contextmanager
    def noting(self, recording: Recording) -> Iterator[None]:
        """The steps of this thread go into ``recording``, inside the ``with``."""
        before, self._mode.recording = self._mode.recording, recording
        try:
            yield
        finally:
            self._mode.recording = before

    def entries(self, struct: str, fields: Sequence[Fields]) -> Entries:
        """Structs of one step, built now."""
        return Entries(self.ffi.new(f"{struct}[]", fields), len(fields))

    def pointers(self, entries: Entries, struct: str, name: str) -> NDArray[numpy.intp]:
        """The pointers called ``name`` of every struct, to be changed in place."""
        size, array = self.ffi.sizeof(struct), numpy.frombuffer(self.ffi.buffer(entries.array), numpy.uint8)
        found: NDArray[numpy.intp] = numpy.ndarray(
            (len(entries),), numpy.intp, array, self.ffi.offsetof(struct, name), (size,)
        )
        return found

    def repeated(self, struct: str, first: Fields, count: int, distances: Mapping[str, int]) -> Entries:
        """``count`` structs like ``first``, the pointers of ``distances`` each so many bytes behind the one before.

        Built in numpy: a dictionary for every sequence of a large batch would take longer than its attention.
        """
        array = self.ffi.new(f"{struct}[]", [first])
        if count > 1:
            known, array = array, self.ffi.new(f"{struct}[]", count)
            size = self.ffi.sizeof(struct)
            entries = numpy.frombuffer(self.ffi.buffer(array), numpy.uint8).reshape(count, size)
            entries[:] = numpy.frombuffer(self.ffi.buffer(known), numpy.uint8)
            for name, distance in distances.items():
                offset = self.ffi.offsetof(struct, name)
                pointers = numpy.ndarray((count,), numpy.intp, entries, offset, (size,))
                pointers += distance * numpy.arange(count, dtype=numpy.intp)
        return Entries(array, count)

    # ---- pointers: the C side trusts them, so mistakes of callers must end here

    def floats(self, array: Floats, count: int | None = None) -> object:
        """A pointer to a C-contiguous float32 array (of at least ``count`` elements)."""
        if array.dtype != numpy.float32 or not array.flags.c_contiguous or (count is not None and array.size < count):
            raise ValueError(
                f"need a C-contiguous float32 array of {count or array.size} elements, got {array.dtype} {array.shape}"
            )
        pointer: object = self.ffi.from_buffer("float[]", array)
        return pointer

    def optional(self, array: Floats | None, count: int) -> object:
        """The same, NULL without an array."""
        return self.ffi.NULL if array is None else self.floats(array, count)

    def address(self, array: AnyArray, kind: str = "void *") -> object:
        """A pointer to an array of any layout; the caller keeps it alive and inside its bounds."""
        pointer: object = self.ffi.cast(kind, array.__array_interface__["data"][0])
        return pointer


class Recording:
    """The steps of one token's pass, with all that their pointers need alive, to be done again for other positions."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.made: dict[int, AnyArray] = {}  # arrays that steps have made, by id
        self.steps: list[Sequence[object]] = []  # each a qc_step *, since the last step of Python
        self.parts: list[Callable[[int], None]] = []  # what is done again, given how many positions later
        self.held: list[object] = []
        self.count = 0  # steps of C in all
        self.complete, self.ready = True, False

    @contextmanager
    def of(self, x: Floats, position: int) -> Iterator[Floats]:
        """Record the steps inside the ``with``, done with its value: ``x``, embeddings of the token at ``position``."""
        self.position, self.start = position, x.copy()
        self._keep([self.start])
        with self.pool.noting(self):
            yield self.start

    def finish(self, logits: Floats) -> bool:
        """End with the pass's result. False: something between the steps was computed elsewhere."""
        self.result = logits
        self.complete &= _owner(logits) in self.made
        self.ready = self.complete
        self._close()
        return self.complete

    def _close(self) -> None:
        """The steps of C so far are one call."""
        pool, steps = self.pool, self.pool.ffi.new("qc_step[]", [step[0] for step in self.steps])
        self.held.append(self.steps)

        def run(shift: int) -> None:
            check(pool.lib.qc_run(pool.handle, pool.isa, pool.activations, steps, len(steps), shift))

        self.parts.append(run)
        self.count, self.steps = self.count + len(steps), []

    def repeat(self, x: Floats, position: int) -> Floats:
        """The recorded steps for the embeddings ``x`` of another position."""
        self.start[...] = x
        for part in self.parts:
            part(position - self.position)
        return self.result

    def note(
        self, step: Sequence[object], inputs: Sequence[AnyArray], outputs: Sequence[AnyArray], held: object
    ) -> None:
        """A step has been done."""
        # An input that no step has made comes out of Python: repeating the steps would not make it anew.
        self.complete &= all(_owner(x) in self.made for x in inputs)
        self._keep(outputs)
        self.steps.append(step)
        self.held += [inputs, outputs, held]

    def note_python(
        self, function: Callable[..., Arrays | None], inputs: Sequence[AnyArray], made: Arrays | None
    ) -> None:
        """A step of Python has been done."""
        self.complete &= all(_owner(x) in self.made for x in inputs)
        outputs = _several(made)

        def run(shift: int) -> None:
            for place, one in zip(outputs, _several(function(*inputs)), strict=True):
                place[...] = one

        self._close()
        self.parts.append(run)
        self._keep(outputs)
        self.held += [inputs, outputs]

    def _keep(self, arrays: Sequence[AnyArray]) -> None:
        for array in arrays:
            owner = _root(array)
            self.made[id(owner)] = owner


def _several(made: Arrays | None) -> tuple[AnyArray, ...]:
    return () if made is None else made if isinstance(made, tuple) else (made,)


def _root(array: AnyArray) -> AnyArray:
    """The array that owns the memory."""
    while isinstance(array.base, numpy.ndarray):
        array = array.base
    return array


def room(array: AnyArray) -> int:
    """Bytes from the array's first element to the end of the memory that it is a part of: steps of a recording move on
    there."""
    root = _root(array)
    first, start = (one.__array_interface__["data"][0] for one in (array, root))
    return int(start + root.nbytes - first)


def _owner(array: AnyArray) -> int:
    return id(_root(array))


def check(status: int, type_id: int = 0) -> None:
    """Raises QuantcliError or NoKernel for a status that is not OK."""
    if status in (failures.OVERFLOW, failures.NON_FINITE):
        raise QuantcliError("keys or values of attention exceed the cache's type", hint="try --kv-type F32")
    if status == failures.BAD_SIZE:
        raise failures.failure(status, type_id, None)
    if status == failures.NO_MEMORY:
        raise QuantcliError("out of memory in a kernel of the runner", hint="use a smaller context or batch")
    if status != failures.OK:
        raise NoKernel(
            f"this build cannot multiply {tensor_types.BY_ID[type_id].name}",
            hint="`quantcli formats` shows what it can",
        )
