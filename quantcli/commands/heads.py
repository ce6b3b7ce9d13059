"""What `quantcli verify` says about blocks that predict further tokens: whether they are there, and do anything.

They draft tokens for speculative decoding; without them a file decodes as before, so nothing else would tell.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy

from quantcli import container
from quantcli.ggml.tensor_types import TensorType

MOST_BLOCKS = 4096
MARK = "nextn.eh_proj.weight"  # the matrix that joins the embedding of one token and the state of the one before


def blocks(header: container.Header) -> range:
    """The numbers of the blocks that predict further tokens; none in files that do not speak of them."""
    architecture = header.metadata.get("general.architecture")
    prefix = "" if architecture is None else f"{architecture.data}."
    count, further = (_number(header, prefix + key) for key in ("block_count", "nextn_predict_layers"))
    return range(count - further, count) if 0 < further <= count <= MOST_BLOCKS else range(0)


def missing(header: container.Header, names: Collection[str]) -> list[str]:
    """Remarks on blocks without tensors, of the file or set whose tensors are ``names``."""
    found = []
    for block in blocks(header):
        if not any(name.startswith(f"blk.{block}.") for name in names):
            found.append(f"block {block} is to predict further tokens, and is missing: no drafts with this file")
        elif f"blk.{block}.{MARK}" not in names:
            found.append(f"block {block} is to predict further tokens, and lacks {MARK}: no drafts with this file")
    return found


class Constant:
    """Whether the numbers of one matrix, seen piece by piece, are all the same."""

    def __init__(self, tensor_type: TensorType) -> None:
        self.block, self.first, self.holds = tensor_type.bytes, b"", True

    def see(self, piece: memoryview) -> None:
        """A piece of whole blocks."""
        if not self.holds or not piece:
            return
        self.first = self.first or bytes(piece[: self.block])
        found = numpy.frombuffer(piece, numpy.uint8).reshape(-1, self.block)
        self.holds = bool((found == numpy.frombuffer(self.first, numpy.uint8)).all())


def dead(name: str) -> str:
    """The remark on a matrix of such a block that is one number throughout."""
    return f"{name} is the same number throughout: the block predicts nothing"


def _number(header: container.Header, key: str) -> int:
    value = header.metadata.get(key)
    return value.data if value is not None and isinstance(value.data, int) else 0
