"""What shows that weights are packed, without the formats themselves, which most checkpoints do without."""

from __future__ import annotations

from quantcli.sources.files import StoredTensor

# Dtypes of plain weights, and of what is beside them (positions, masks).
_PLAIN = ("F64", "F32", "F16", "BF16", "I64", "BOOL")
_BUFFERS = (".bias", ".masked_bias", "position_ids", "num_batches_tracked")
_SCALES = (
    ".weight_scale", ".weight_scale_inv", ".weight_scale_2", "_scales", ".scales", ".qzeros", ".weight_zero_point",
    ".absmax", ".SCB", "_proj_scale", "_proj_scale_inv", ".qscale_weight",
)  # fmt: skip


def is_packed(tensor: StoredTensor) -> bool:
    """Whether a tensor shows that weights are packed: codes by its dtype, scales by its name."""
    if tensor.name.endswith(_SCALES):
        return True
    return tensor.dtype not in _PLAIN and not tensor.name.endswith(_BUFFERS)
