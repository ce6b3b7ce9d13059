"""`quantcli verify`: is this GGUF file whole and sound?

Structure and offsets (by the header's parser), nothing behind the last tensor, shards that belong together, every
block's scale finite, and the sha256, optionally against a SHA256SUMS file; the checksums that files of `compare` hold
of themselves; remarks on heads for further tokens that are missing or dead. Reads each file once, front to back.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Callable, Sequence
from io import FileIO
from pathlib import Path
from typing import TypeAlias

from quantcli import container
from quantcli.commands import heads
from quantcli.container import sums
from quantcli.errors import MalformedFile, MissingFile, QuantcliError, VerificationFailed
from quantcli.ggml import kernels, tensor_types
from quantcli.ggml.tensor_types import TensorType
from quantcli.output.checksums import Checksums
from quantcli.report import tables
from quantcli.report.results import CheckedFile, VerifyResult
from quantcli.report.terminal import SILENT, Reporter
from quantcli.sources.files import SourceFile

SLAB_BYTES = 8 << 20

Progress: TypeAlias = Callable[[int], None]  # bytes of all files that are checked


class Digest:
    """The sha256 of all that is read, and the crc32 since `taken` where the file holds checksums of itself."""

    def __init__(self, *, summed: bool) -> None:
        self._hash, self._crc, self._summed = hashlib.sha256(), 0, summed

    def update(self, data: bytes | memoryview) -> None:
        self._hash.update(data)
        if self._summed:
            self._crc = zlib.crc32(data, self._crc)

    def taken(self) -> int:
        found, self._crc = self._crc, 0
        return found

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def run(files: Sequence[Path], reporter: Reporter = SILENT, *, checksums: Path | None = None) -> VerifyResult:
    """Check ``files``. A problem in one file does not stop the others; `require` makes it an error.

    With ``checksums`` every file must be listed there with its hash.
    """
    total = sum(os.path.getsize(path) for path in files if os.path.isfile(path))
    with reporter.progress("verify", total) as advance:
        result = check(files, checksums, advance)
    tables.show_checks(reporter, result)
    return result


def check(files: Sequence[Path], checksums: Path | None, advance: Progress, *, alone: bool = False) -> VerifyResult:
    """Check one file after the other, telling how far the whole is. ``alone``: a shard does not stand for its set."""
    listed = Checksums(checksums) if checksums else None
    results: list[CheckedFile] = []
    sets: dict[Path, QuantcliError | None] = {}
    done = 0
    for path in files:

        def report(count: int, base: int = done) -> None:
            advance(base + count)

        result = _verify_file(path, listed, None if alone else sets, report)
        results.append(result)
        done += result["bytes"] or 0
    return {"schema": 1, "ok": all(r["ok"] for r in results), "files": results}


def require(result: VerifyResult) -> None:
    """Raise VerificationFailed when a file is not ok."""
    bad = [r for r in result["files"] if not r["ok"]]
    if bad:
        hint = "download or convert it again" if len(bad) == 1 else "download or convert them again"
        raise VerificationFailed(f"{len(bad)} of {len(result['files'])} files failed", hint=hint)


def _verify_file(
    path: Path, listed: Checksums | None, sets: dict[Path, QuantcliError | None] | None, report: Progress
) -> CheckedFile:
    result: CheckedFile = {
        "path": str(path),
        "ok": False,
        "bytes": None,
        "sha256": None,
        "tensors": None,
        "problem": None,
        "remarks": [],
    }
    try:
        result["bytes"] = _size(path)
        header = container.read_header(path)
        result["tensors"] = len(header.tensors)
        if sets is not None:
            _check_shards(header, sets)
        _check_surplus(header)
        if sets is not None:
            result["remarks"] += heads.missing(header, _names(header))
        digest = _check_data(path, header, report, result["remarks"])
        result["sha256"] = digest
        if listed is not None:
            _check_digest(path, digest, listed)
        result["ok"] = True
    except QuantcliError as error:
        result["problem"] = str(error)
    return result


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except OSError as error:
        raise MissingFile(error.strerror or "cannot be opened", where=str(path)) from error


def _check_surplus(header: container.Header) -> None:
    """Nothing may follow the last tensor: two files written into one, or what an unfinished writer left."""
    if header.surplus:
        start = header.file_size - header.surplus
        raise MalformedFile(
            f"{header.surplus:,} bytes behind the last tensor, which no reader looks at",
            where=f"{header.path}: byte {start}",
        )


def _check_shards(header: container.Header, sets: dict[Path, QuantcliError | None]) -> None:
    """A shard stands for its set: all others must be there and fit. ``sets`` keeps what is known, by first shards."""
    first = container.first_of_set(header)
    if first is None:
        return
    if first not in sets:
        sets[first] = None
        try:
            container.check_set(header)
            for one in container.read_split_headers(first):
                _check_surplus(one)
        except QuantcliError as error:
            sets[first] = error
    problem = sets[first]
    if problem is not None:
        raise problem


def _names(header: container.Header) -> set[str]:
    """Of the tensors of the whole set that the file begins, or of the file."""
    first = container.first_of_set(header)
    every = [header] if first is None else container.read_split_headers(first)
    return {tensor.name for one in every for tensor in one.tensors}


def _check_data(path: Path, header: container.Header, report: Progress, remarks: list[str]) -> str:
    """Hash the whole file and check every block of every tensor on the way; returns the sha256 in hex."""
    stored = _stored(path, header)
    digest = Digest(summed=stored is not None)
    before: container.TensorInfo | None = None
    drafting = tuple(f"blk.{block}." for block in heads.blocks(header))
    with open(path, "rb", buffering=0) as file:
        position = _hash_until(file, digest, header.data_start)
        buffer = bytearray(SLAB_BYTES)
        for tensor in header.tensors:
            position += _hash_until(file, digest, header.data_start + tensor.offset - position)
            found = digest.taken()  # of the tensor before and its padding
            if stored is not None and before is not None:
                stored.compare(before, found)
            before = tensor
            watched = drafting and tensor.name.startswith(drafting) and len(tensor.shape) > 1
            constant = heads.Constant(tensor_types.BY_ID[tensor.type_id]) if watched else None
            position += _check_tensor(file, digest, tensor, buffer, str(path), constant)
            if constant is not None and constant.holds:
                remarks.append(heads.dead(tensor.name))
            report(position)
        while chunk := file.read(SLAB_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _stored(path: Path, header: container.Header) -> sums.Stored | None:
    """The checksums that the file holds of itself; None where its kind has none. Raises MalformedFile."""
    if not sums.are_due(header):
        return None
    with SourceFile(path) as file:
        return sums.Stored(header, file.read)


def _hash_until(file: FileIO, digest: Digest, count: int) -> int:
    left = count
    while left > 0:
        chunk = file.read(min(left, SLAB_BYTES))
        if not chunk:
            raise MalformedFile("the file ends early", where=file.name)
        digest.update(chunk)
        left -= len(chunk)
    return count


def _check_tensor(
    file: FileIO,
    digest: Digest,
    tensor: container.TensorInfo,
    buffer: bytearray,
    path: str,
    constant: heads.Constant | None,
) -> int:
    tensor_type = tensor_types.BY_ID[tensor.type_id]
    columns = tensor.shape[0] if tensor.shape else 1
    row_bytes = tensor_types.row_bytes(tensor_type, columns)
    # Rows longer than the buffer are checked in whole blocks: a block never straddles two slabs.
    unit, unit_columns = (row_bytes, columns) if row_bytes <= SLAB_BYTES else (tensor_type.bytes, tensor_type.block)
    slab = SLAB_BYTES // unit * unit
    done = 0
    while done < tensor.bytes:
        view = memoryview(buffer)[: min(slab, tensor.bytes - done)]
        _read_exactly(file, view)
        digest.update(view)
        if constant is not None:
            constant.see(view)
        if tensor_type.kind != "integer":
            where = f"{path}: tensor {tensor.name}"
            _check_blocks(tensor_type, view, len(view) // unit, unit_columns, done, columns, where)
        done += len(view)
    return tensor.bytes


def _read_exactly(file: FileIO, view: memoryview) -> None:
    done = 0
    while done < len(view):
        count = file.readinto(view[done:])
        if not count:
            raise MalformedFile("the file ends early", where=file.name)
        done += count


def _check_blocks(
    tensor_type: TensorType, view: memoryview, rows: int, unit_columns: int, start: int, columns: int, where: str
) -> None:
    """``rows`` units of ``unit_columns`` weights each, from byte ``start`` of a tensor of rows of ``columns``."""
    bad = kernels.validate(tensor_type.id, view, rows, unit_columns)
    if bad is not None:
        index = start // tensor_type.bytes * tensor_type.block + bad[0] * unit_columns + bad[1]
        what = "weight" if tensor_type.kind == "float" else "block scale"
        place = f"{tensor_type.name}, row {index // columns}, column {index % columns}"
        raise MalformedFile(f"{what} that is not a finite number ({place})", where=where)


def _check_digest(path: Path, digest: str, listed: Checksums) -> None:
    wanted = listed.find(path)
    if wanted is None:
        raise VerificationFailed("not listed among the checksums", where=str(path))
    if wanted != digest:
        raise VerificationFailed(f"sha256 is {digest}, the list says {wanted}", where=str(path))
