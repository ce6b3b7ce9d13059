"""Read importance matrices, GGUF or legacy, without trusting what a file claims.

Every size is checked against the file before anything is allocated for it: memory is at most three times the file.
Formats: llama.cpp, tools/imatrix.
"""

from __future__ import annotations

import hashlib
import os
import stat
import struct
from io import BufferedReader
from pathlib import Path
from typing import TypeAlias

import numpy
from numpy.typing import NDArray

from quantcli import container
from quantcli.container import Header, Strings, TensorInfo, foreign
from quantcli.errors import BadImportance, MalformedFile, MissingFile, UnsupportedFile
from quantcli.ggml.tensor_types import BY_ID
from quantcli.statistics.imatrix.importance import CHUNK, Doubles, Floats, Importance, Sums

MAGIC = b"GGUF"
SUMS, COUNTS = ".in_sum2", ".counts"
ORIGIN = "quantcli.imatrix."  # of what a matrix is: keys that llama.cpp passes over
KEYS = ("imatrix.datasets", "imatrix.chunk_count", "imatrix.chunk_size")
LONGEST_NAME = 1024  # bytes of an entry's name in a legacy file
SMALLEST_ENTRY = 4 + 1 + 4 + 4 + 4  # name length, name, calls, number of values, one value
PIECE = 1 << 20
DAMAGED = "the file is truncated or damaged: get it again"

Arrays: TypeAlias = dict[str, Sums]
Bytes: TypeAlias = NDArray[numpy.uint8]


def read(path: str | os.PathLike[str], *, checked: bool = True) -> Importance:
    """Read the matrix at ``path``: GGUF if it begins so, else legacy. ``checked``: see `Importance`.

    Raises MissingFile, UnsupportedFile (not a regular file), MalformedFile (neither format, or a broken GGUF header),
    BadImportance naming the entry or the byte.
    """
    path = Path(path)
    with _opened(path) as file:
        if file.read(4) == MAGIC:
            return _read_gguf(path, _whole(file), checked)
        sha256 = _sha256(file)
        found = foreign.recognise(foreign.beginning(path), path)
        if found is not None:
            says = f"{found[0]}: neither a GGUF file nor an importance matrix"
            raise MalformedFile(says, where=str(path), hint=found[1])
        return _Legacy(path, file).read(sha256, checked)


def _opened(path: Path) -> BufferedReader:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise UnsupportedFile("not a regular file", where=str(path), hint="give an importance matrix file")
        return open(path, "rb")
    except OSError as error:
        raise MissingFile(error.strerror or "cannot be opened", where=str(path)) from error


def _whole(file: BufferedReader) -> Bytes:
    """The file's bytes, in memory that numpy takes in large pages; fewer where it is cut meanwhile."""
    raw = numpy.empty(os.fstat(file.fileno()).st_size, numpy.uint8)
    file.seek(0)
    return raw[: file.readinto(raw.data)]


def _sha256(file: BufferedReader) -> str:
    file.seek(0)
    digest = hashlib.sha256()
    while piece := file.read(PIECE):
        digest.update(piece)
    return digest.hexdigest()


# ---- GGUF


def _read_gguf(path: Path, raw: Bytes, checked: bool) -> Importance:
    header = container.read_header(path)
    datasets, chunks, chunk_size = _collection(path, header)
    warnings: list[str] = []
    names = _names(path, header, warnings)
    sums: Arrays = {}
    counts: Arrays = {}
    for name in names:
        own = _tensor(path, raw, header, header.by_name[name + SUMS])
        tokens = _tensor(path, raw, header, header.by_name[name + COUNTS]).reshape(-1)
        sums[name], counts[name] = _cut(f"{path.name}: {name}", own, tokens)
    if not names:
        warnings.append(f"{path.name}: the importance matrix is empty")
    sha256 = hashlib.sha256(raw.data).hexdigest()
    return Importance(
        path.name, sums, counts, datasets, chunks, chunk_size, sha256, warnings, checked, origin=_origin(header)
    )


def _origin(header: Header) -> dict[str, str | int]:
    """What the file says of where it comes from; what is neither text nor number says nothing."""
    return {
        key.removeprefix(ORIGIN): value.data
        for key, value in header.metadata.items()
        if key.startswith(ORIGIN) and isinstance(value.data, str | int) and not isinstance(value.data, bool)
    }


def _collection(path: Path, header: Header) -> tuple[list[str], int, int]:
    """(datasets, chunks, chunk size) from the metadata."""
    lacking = [key for key in KEYS if key not in header.metadata]
    kind = header.metadata.get("general.type")
    if lacking and (kind is None or kind.data != "imatrix"):
        architecture = header.metadata.get("general.architecture")
        what = f" but a model ({architecture.data})" if architecture is not None else ""
        raise BadImportance(
            f"a GGUF file that is no importance matrix{what}",
            where=str(path),
            hint="give the file that llama-imatrix or `quantcli imatrix` wrote",
        )
    if lacking:
        raise BadImportance(f"the metadata lacks {', '.join(lacking)}", where=str(path))
    datasets, *numbers = (header.metadata[key] for key in KEYS)
    if not isinstance(datasets.data, Strings):
        raise BadImportance(f"{KEYS[0]} is not a list of texts", where=str(path))
    for key, number in zip(KEYS[1:], numbers, strict=True):
        if not isinstance(number.data, int) or isinstance(number.data, bool) or not 0 <= number.data < 2**32:
            raise BadImportance(f"{key} is no count", where=str(path))
    texts = [datasets.data.bytes_at(i).decode(errors="replace") for i in range(len(datasets.data))]
    return texts, numbers[0].data, numbers[1].data


def _names(path: Path, header: Header, warnings: list[str]) -> list[str]:
    """The weights that have sums and counts, in file order; both must be there, in F32."""
    names: dict[str, None] = {}
    unknown = []
    for info in header.tensors:
        suffix = next((s for s in (SUMS, COUNTS) if info.name.endswith(s) and info.name != s), None)
        if suffix is None:
            unknown.append(info.name)
            continue
        name = info.name.removesuffix(suffix)
        other = COUNTS if suffix == SUMS else SUMS
        if name + other not in header.by_name:
            raise BadImportance(f"{suffix[1:]} without {other[1:]}", where=f"{path.name}: {name}", hint=DAMAGED)
        if BY_ID[info.type_id].name != "F32":
            raise BadImportance(
                f"{suffix[1:]} are {BY_ID[info.type_id].name}, they have to be F32", where=f"{path.name}: {name}"
            )
        names[name] = None
    if unknown:
        warnings.append(
            f"{path.name}: {len(unknown)} tensors are neither sums nor counts and are ignored (first: {unknown[0]})"
        )
    return list(names)


def _tensor(path: Path, raw: Bytes, header: Header, info: TensorInfo) -> Floats:
    """The floats of a tensor as [product of the other dimensions, columns]: a view of the file's bytes."""
    start = header.data_start + info.offset
    if start + info.bytes > len(raw):
        raise BadImportance("the file was cut while being read", where=f"{path.name}: {info.name}")
    return numpy.frombuffer(raw, numpy.dtype("<f4"), info.elements, start).reshape(-1, info.shape[0])


def _cut(where: str, sums: Floats, counts: Floats) -> tuple[Floats, Floats]:
    """Sums as one row per count; a single count holds for all rows."""
    matrices = sums.shape[0]
    if len(counts) == matrices:
        return sums, counts
    if len(counts) == 1:
        return sums, numpy.repeat(counts, matrices)
    if matrices == 1 and sums.size % len(counts) == 0:
        return sums.reshape(len(counts), -1), counts
    raise BadImportance(
        f"{len(counts)} counts do not divide {matrices} x {sums.shape[1]} sums", where=where, hint=DAMAGED
    )


def _floats(file: BufferedReader, position: int, count: int) -> Floats | None:
    """``count`` little-endian floats, or None if the file ends before. The caller has checked the file's size."""
    array = numpy.empty(count, numpy.dtype("<f4"))
    file.seek(position)
    got = file.readinto(array.data.cast("B"))
    return array if got == array.nbytes else None


# ---- legacy


class _Legacy:
    """i32 entries; each: i32 length, name, i32 calls, i32 values, f32 values; then last chunk and the text's path."""

    def __init__(self, path: Path, file: BufferedReader) -> None:
        self.path, self.file = path, file
        self.size = os.fstat(file.fileno()).st_size
        self.position = 0

    def fail(self, message: str, at: int) -> BadImportance:
        return BadImportance(message, where=f"{self.path}: byte {at}", hint=DAMAGED)

    def read(self, sha256: str, checked: bool) -> Importance:
        entries = self.number("the number of entries") if self.size >= 4 else -1
        if not 0 < entries <= (self.size - 4) // SMALLEST_ENTRY or not self.plausible():
            raise MalformedFile(
                "neither a GGUF file nor a legacy importance matrix",
                where=str(self.path),
                hint="give the file that llama-imatrix or `quantcli imatrix` wrote",
            )
        sums: Arrays = {}
        counts: Arrays = {}
        for index in range(entries):
            at = self.position
            name = self.text(f"the name of entry {index}", 1, LONGEST_NAME)
            if name in sums:
                raise self.fail(f"two entries are called {name!r}", at)
            sums[name], counts[name] = self.entry(name)
        chunks, datasets = self.tail()
        warnings = []
        if self.position < self.size:
            warnings.append(f"{self.path.name}: {self.size - self.position} bytes behind its end are ignored")
        return Importance(self.path.name, sums, counts, datasets, chunks, CHUNK, sha256, warnings, checked)

    def plausible(self) -> bool:
        """Whether the first entry begins like one: what doesn't is another kind of file rather than a damaged one."""
        self.file.seek(4)
        start = self.file.read(4 + LONGEST_NAME)
        length = struct.unpack_from("<i", start)[0] if len(start) >= 4 else 0
        try:
            return 0 < length <= LONGEST_NAME and start[4 : 4 + length].decode().isprintable()
        except UnicodeDecodeError:
            return False

    def entry(self, name: str) -> tuple[Doubles, Doubles]:
        """Sums [1, values] and counts [1] of one entry, in tokens: the file's values are means times calls (chunks).

        Doubling nine times is exact, so dividing gives back what llama.cpp computes from the file.
        """
        at = self.position
        calls = self.number(f"the calls of {name}")
        if calls < 0:
            raise BadImportance(f"it was called {calls} times", where=f"{self.path.name}: {name}", hint=DAMAGED)
        number = self.number(f"the number of values of {name}")
        if not 0 < number <= (self.size - self.position) // 4:
            raise self.fail(f"entry {name!r} claims {number} values, {self.size - self.position} bytes are left", at)
        array = _floats(self.file, self.position, number)
        if array is None:
            raise self.fail(f"the file was cut while {name!r} was read", self.position)
        self.position += array.nbytes
        # Without calls llama.cpp takes the values as they are: as if there had been one.
        return array.astype(numpy.float64)[None] * CHUNK, numpy.array([max(calls, 1) * CHUNK], numpy.float64)

    def tail(self) -> tuple[int, list[str]]:
        """(last chunk, texts); older files end without."""
        if self.position == self.size:
            return 0, []
        chunks = self.number("the number of chunks")
        dataset = self.text("the name of the text", 0, PIECE)
        if chunks < 0:
            raise self.fail(f"{chunks} chunks", self.position)
        return chunks, [dataset] if dataset else []

    def take(self, count: int, what: str) -> bytes:
        if count > self.size - self.position:
            raise self.fail(f"the file ends within {what}", self.position)
        self.file.seek(self.position)
        raw = self.file.read(count)
        if len(raw) != count:
            raise self.fail(f"the file was cut while {what} was read", self.position)
        self.position += count
        return raw

    def number(self, what: str) -> int:
        return int.from_bytes(self.take(4, what), "little", signed=True)

    def text(self, what: str, least: int, most: int) -> str:
        at = self.position
        length = self.number(what)
        if not least <= length <= most:
            raise self.fail(f"{what} has {length} bytes", at)
        raw = self.take(length, what)
        if least and not (text := raw.decode(errors="replace")).isprintable():
            raise self.fail(f"{what} has unprintable characters: {text[:60]!a}", at)
        return raw.decode(errors="replace")
