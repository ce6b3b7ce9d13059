"""One importance matrix in memory: raw sums and counts per weight matrix, and the values that encoders use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeAlias

import numpy
from numpy.typing import NDArray

from quantcli.errors import BadImportance, UsageError
from quantcli.ggml.tensor_types import TensorType
from quantcli.model import ModelTensor

Floats: TypeAlias = NDArray[numpy.float32]
Doubles: TypeAlias = NDArray[numpy.float64]
Sums: TypeAlias = Floats | Doubles

CHUNK = 512  # tokens of a chunk where nothing states it: the default context of llama.cpp's collector
MOST_TOKENS = 2.0**53  # a larger count is no count

# Nothing is collected for look-ups in an embedding table, nor (by default) for the output: lacking them is no surprise.
SPARED = ("token_embd.weight", "per_layer_token_embd.weight", "output.weight")
_EMBEDDING = "token_embd.weight"


class Means(Mapping[str, Floats]):
    """Name -> `values`, made and checked when they are asked for, once."""

    def __init__(self, sums: Mapping[str, Sums], counts: Mapping[str, Sums], where: str) -> None:
        self._sums, self._counts, self._where = sums, counts, where
        self._made: dict[str, Floats] = {}

    def __getitem__(self, name: str) -> Floats:
        if name not in self._made:
            self._made[name] = values(name, self._sums[name], self._counts[name], self._where)
        return self._made[name]

    def __contains__(self, name: object) -> bool:
        return name in self._sums

    def __iter__(self) -> Iterator[str]:
        return iter(self._sums)

    def __len__(self) -> int:
        return len(self._sums)


@dataclass(frozen=True)
class Importance:
    """Sums of squared activations per weight, with what is known about their collection.

    ``sums``: name -> float32 or float64 [matrices, columns], raw; ``counts``: name -> the same [matrices], tokens seen
    by each matrix (expert). ``entries``: name -> float32 [matrices, columns], sums / counts, ones for a matrix that saw
    nothing: what an encoder multiplies squared errors with. A legacy file or a dense three-dimensional weight gives
    one matrix of all columns in a row; `for_tensor` cuts it. ``sha256`` is that of the file, empty without one.
    ``checked``: every entry is looked at now (BadImportance); else each one when it is asked for. ``origin``: of what
    model, text and settings it is (calibration/origin.py), empty where nothing says so.
    """

    name: str
    sums: Mapping[str, Sums]
    counts: Mapping[str, Sums]
    datasets: Sequence[str] = ()
    chunks: int = 0
    chunk_size: int = CHUNK
    sha256: str = ""
    warnings: list[str] = field(default_factory=list)
    checked: bool = True
    entries: Mapping[str, Floats] = field(default_factory=dict)
    origin: Mapping[str, str | int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.entries:  # a selection of another one's
            return
        object.__setattr__(self, "entries", Means(self.sums, self.counts, self.name))
        if self.checked:
            dict(self.entries)
        if not self.counts or numpy.concatenate([*self.counts.values()]).all():
            return
        empty = {name: n for name, counts in self.counts.items() if (n := int((counts == 0).sum()))}
        if empty:
            self._warn(
                f"{self.name}: {sum(empty.values())} matrices (experts) in {len(empty)} entries saw no token; "
                f"all their columns count alike (first: {next(iter(empty))})"
            )

    def _warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)

    def for_tensor(self, name: str, shape: Sequence[int]) -> Floats | None:
        """Floats for a tensor of GGUF ``shape`` (columns first): float32 [matrices, columns], C-contiguous.

        None without an entry. An entry of another size is a BadImportance, except the token embeddings': that one is
        ignored, with a warning, as llama-quantize does.
        """
        if not self.has(name, shape):
            return None
        return self.entries[name].reshape(shape[2] if len(shape) > 2 else 1, shape[0])

    def has(self, name: str, shape: Sequence[int]) -> bool:
        """Whether there is an entry for a tensor of this shape, see `for_tensor`; its values are not looked at."""
        sums = self.sums.get(name)
        if sums is None:
            return False
        columns, matrices = shape[0], shape[2] if len(shape) > 2 else 1
        if len(shape) <= 3 and sums.size == columns * matrices and sums.shape[0] in (1, matrices):
            return True
        found = " x ".join(map(str, sums.shape if sums.shape[0] > 1 else sums.shape[1:]))
        if name == _EMBEDDING:
            self._warn(f"{self.name}: the entry of {name} has {found} values instead of {columns} and is not used")
            return False
        expected = f"{matrices} x {columns}" if matrices > 1 else str(columns)
        raise BadImportance(
            f"the entry has {found} values, the tensor {' x '.join(map(str, shape))} needs {expected}",
            where=f"{self.name}: {name}",
            hint="the matrix was collected from another model",
        )

    def filtered(self, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> Importance:
        """Only the entries whose names contain one of ``include``, or none of ``exclude``. Raises UsageError."""
        if include and exclude:
            raise UsageError("--include-weights and --exclude-weights exclude each other")
        if not include and not exclude:
            return self
        words = include or exclude
        kept = [name for name in self.entries if any(word in name for word in words) == bool(include)]
        warnings = [
            *self.warnings,
            *(
                f"{self.name}: no entry's name contains {word!r}"
                for word in words
                if not any(word in name for name in self.entries)
            ),
        ]
        if not kept:
            warnings.append(f"{self.name}: no entry is left; quantizing without importance")
        sums, counts = {n: self.sums[n] for n in kept}, {n: self.counts[n] for n in kept}
        return replace(self, sums=sums, counts=counts, entries=Means(sums, counts, self.name), warnings=warnings)


def values(name: str, sums: Sums, counts: Sums, where: str) -> Floats:
    """Mean squares: float32 [matrices, columns] from ``sums`` of that shape and ``counts`` [matrices].

    Both are rounded to float32 before they are divided, as a file holds them: so a matrix in memory and its file give
    the same bytes. Raises BadImportance naming the entry for what is no sum of squares or no number of tokens.
    """
    place = f"{where}: {name}"
    _check(counts, "count", place)
    if counts.size and counts.max() > MOST_TOKENS:
        raise BadImportance(f"{counts.max():g} is no number of tokens", where=place)
    _check(sums, "value", place)
    with numpy.errstate(all="ignore"):
        result = numpy.divide(sums.astype(numpy.float32, copy=False), counts.astype(numpy.float32)[:, None])
    result[counts == 0] = 1.0
    if not numpy.isfinite(result).all():
        raise BadImportance("a value is too large for a 32-bit float", where=place)
    return numpy.ascontiguousarray(result)


def _check(array: Sums, what: str, where: str) -> None:
    # One pass each, no mask unless something is wrong: minimum and maximum pass a NaN on.
    low, high = (array.min(), array.max()) if array.size else (0.0, 0.0)
    if low >= 0 and high < numpy.inf:
        return
    flat = array.reshape(-1)
    index = int(numpy.flatnonzero(~(numpy.isfinite(flat) & (flat >= 0)))[0])
    raise BadImportance(
        f"{what} {index} is {flat[index]:g}",
        where=where,
        hint="the matrix is damaged or its collection overflowed: collect it again",
    )


class Planned(Protocol):
    """A tensor, and the type that it will have."""

    @property
    def tensor(self) -> ModelTensor: ...

    @property
    def type(self) -> TensorType: ...


def missing(importance: Importance, entries: Iterable[Planned], spared: Sequence[str] = SPARED) -> list[str]:
    """Names of planned tensors that would use importance and have no entry.

    Tensors that are copied need none, and ``spared`` are not listed. Checks the size of every entry that will be used,
    so that a matrix of another model is an error (BadImportance) before any work.
    """
    names = []
    for entry in entries:
        tensor = entry.tensor
        if entry.type.importance == "ignored" or (tensor.raw and entry.type is tensor.stored):
            continue
        if importance.for_tensor(tensor.name, tensor.shape) is None and tensor.name not in spared:
            names.append(tensor.name)
    return names


def merge(parts: Sequence[Importance], name: str = "merged") -> Importance:
    """Add sums and counts, in float64. A single count is taken for all experts where another part counts per expert.

    Raises BadImportance where the same entry has different sizes, UsageError without parts.
    """
    if not parts:
        raise UsageError("nothing to merge")
    sums: dict[str, Doubles] = {}
    counts: dict[str, Doubles] = {}
    for part in parts:
        for key in part.sums:
            added, tokens = part.sums[key].astype(numpy.float64), part.counts[key].astype(numpy.float64)
            if key in sums:
                added, tokens = _added(f"{part.name}: {key}", sums[key], counts[key], added, tokens)
            sums[key], counts[key] = added, tokens
    datasets = list(dict.fromkeys(text for part in parts for text in part.datasets))
    return Importance(
        name,
        {key: sums[key] for key in sorted(sums)},
        counts,
        datasets,
        sum(part.chunks for part in parts),
        parts[0].chunk_size,
    )


def _added(
    where: str, left: Doubles, left_counts: Doubles, right: Doubles, right_counts: Doubles
) -> tuple[Doubles, Doubles]:
    matrices = max(len(left_counts), len(right_counts))
    if left.size != right.size or {len(left_counts), len(right_counts)} - {1, matrices}:
        raise BadImportance(
            f"{' x '.join(map(str, right.shape))} values, another part has {' x '.join(map(str, left.shape))}",
            where=where,
            hint="only matrices of one model can be merged",
        )
    columns = left.size // matrices
    return left.reshape(matrices, columns) + right.reshape(matrices, columns), left_counts + right_counts
