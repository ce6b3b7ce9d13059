"""What one output shall be: the file type, and what the user says against its rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from quantcli.container import Value
from quantcli.errors import UsageError
from quantcli.ggml.tensor_types import TensorType
from quantcli.plan.overrides import Override, Setting
from quantcli.plan.recipes import FileType
from quantcli.statistics.imatrix import Importance


@dataclass(frozen=True, eq=False, repr=False)
class Options:
    """What one output shall be. Raises UsageError where two options contradict each other.

    ``importance`` is the matrix that will be used; ``imatrix`` plans as if there were one. ``provenance`` is what this
    run says of itself; ``metadata`` settings win over everything.
    """

    file_type: FileType
    pure: bool = False
    overrides: tuple[Override, ...] = ()
    output_tensor_type: TensorType | None = None
    token_embedding_type: TensorType | None = None
    leave_output_tensor: bool = False
    imatrix: bool = False
    importance: Importance | None = None
    keep_split: bool = False
    split_max_size: int | None = None  # bytes of tensor data in one shard
    metadata: tuple[Setting, ...] = ()
    provenance: Mapping[str, Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.keep_split and self.split_max_size is not None:
            raise UsageError("--keep-split and --split-max-size exclude each other")

    @property
    def has_imatrix(self) -> bool:
        """Whether the recipes see a matrix: one was given and it holds something."""
        return self.imatrix or (self.importance is not None and len(self.importance.entries) > 0)
