"""`quantcli verify`: is this GGUF file whole and sound?

Structure and offsets (by the header's parser), shards that belong together, every block's scale finite, and the
sha256, optionally against a SHA256SUMS file. Reads each file once, front to back.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from quantcli import container
from quantcli.errors import MalformedFile, MissingFile, QuantcliError, VerificationFailed
from quantcli.ggml import kernels, tensor_types
from quantcli.output.checksums import Checksums

SLAB_BYTES = 8 << 20

Progress = Callable[[int], None]


def verify(files: Sequence[Path], *, checksums: Path | None = None, progress: Progress | None = None) -> dict[str, Any]:
    """Check ``files``; returns {"schema", "ok", "files": [{"path", "ok", "bytes", "sha256", "tensors", "problem"}]}.

    A problem in one file does not stop the others. With ``checksums`` every file must be listed there with its hash.
    """
    listed = Checksums(checksums) if checksums else None
    results = []
    done = 0
    for path in files:
        base = done

        def report(count: int, base: int = base) -> None:
            if progress:
                progress(base + count)

        result = _verify_file(Path(path), listed, report)
        results.append(result)
        done += result["bytes"] or 0
    return {"schema": 1, "ok": all(r["ok"] for r in results), "files": results}


def require(result: dict[str, Any]) -> None:
    """Raise VerificationFailed when ``result`` of `verify` is not ok."""
    bad = [r for r in result["files"] if not r["ok"]]
    if bad:
        hint = "download or convert it again" if len(bad) == 1 else "download or convert them again"
        raise VerificationFailed(f"{len(bad)} of {len(result['files'])} files failed", hint=hint)


def _verify_file(path: Path, listed: Checksums | None, report: Progress) -> dict[str, Any]:
    result: dict[str, Any] = {
        "path": str(path),
        "ok": False,
        "bytes": None,
        "sha256": None,
        "tensors": None,
        "problem": None,
    }
    try:
        result["bytes"] = _size(path)
        header = container.read_header(path)
        result["tensors"] = len(header.tensors)
        _check_shards(path, header)
        digest = _check_data(path, header, report)
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


def _check_shards(path: Path, header: container.Header) -> None:
    """The first shard stands for the set: all others must be there and fit."""
    if container.is_first_of_several(header):
        container.read_split_headers(path)


def _check_data(path: Path, header: container.Header, report: Progress) -> str:
    """Hash the whole file and check every block of every tensor on the way; returns the sha256 in hex."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        position = _hash_until(file, digest, header.data_start)
        buffer = bytearray(SLAB_BYTES)
        for tensor in header.tensors:
            position += _hash_until(file, digest, header.data_start + tensor.offset - position)
            position += _check_tensor(file, digest, tensor, buffer, str(path))
            report(position)
        while chunk := file.read(SLAB_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _hash_until(file, digest, count: int) -> int:
    left = count
    while left > 0:
        chunk = file.read(min(left, SLAB_BYTES))
        if not chunk:
            raise MalformedFile("the file ends early", where=file.name)
        digest.update(chunk)
        left -= len(chunk)
    return count


def _check_tensor(file, digest, tensor: container.TensorInfo, buffer: bytearray, path: str) -> int:
    kind = tensor_types.BY_ID[tensor.type_id]
    columns = tensor.shape[0] if tensor.shape else 1
    row_bytes = tensor_types.row_bytes(kind, columns)
    # Rows longer than the buffer are checked in whole blocks: a block never straddles two slabs.
    unit, unit_columns = (row_bytes, columns) if row_bytes <= SLAB_BYTES else (kind.bytes, kind.block)
    slab = SLAB_BYTES // unit * unit
    done = 0
    while done < tensor.bytes:
        view = memoryview(buffer)[: min(slab, tensor.bytes - done)]
        _read_exactly(file, view)
        digest.update(view)
        if kind.kind != "integer":
            _check_blocks(kind, view, len(view) // unit, unit_columns, done, columns, f"{path}: tensor {tensor.name}")
        done += len(view)
    return tensor.bytes


def _read_exactly(file, view: memoryview) -> None:
    done = 0
    while done < len(view):
        count = file.readinto(view[done:])
        if not count:
            raise MalformedFile("the file ends early", where=file.name)
        done += count


def _check_blocks(
    kind: tensor_types.TensorType, view, rows: int, unit_columns: int, start: int, columns: int, where: str
) -> None:
    bad = kernels.validate(kind.id, view, rows, unit_columns)
    if bad is not None:
        index = start // kind.bytes * kind.block + bad[0] * unit_columns + bad[1]
        what = "weight" if kind.kind == "float" else "block scale"
        raise MalformedFile(
            f"{what} that is not a finite number ({kind.name}, row {index // columns}, column {index % columns})",
            where=where,
        )


def _check_digest(path: Path, digest: str, listed: Checksums) -> None:
    wanted = listed.find(path)
    if wanted is None:
        raise VerificationFailed("not listed among the checksums", where=str(path))
    if wanted != digest:
        raise VerificationFailed(f"sha256 is {digest}, the list says {wanted}", where=str(path))
