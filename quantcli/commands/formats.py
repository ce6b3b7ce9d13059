"""`quantcli formats`: every recipe and every tensor type as plain data."""

from __future__ import annotations

from typing import Any

from quantcli.ggml import kernels, tensor_types
from quantcli.plan import plan, recipes


def formats_overview() -> dict[str, Any]:
    """{"schema", "recipes": [...], "types": [...]}. The bpw of a recipe is that of a model shaped like Llama-3-8B."""
    return {
        "schema": 1,
        "recipes": [
            {
                "name": row.name,
                "number": row.number,
                "aliases": list(row.aliases),
                "bpw": plan.nominal_bpw(row),
                "importance": "required" if row.needs_imatrix else _importance(row),
                "purpose": row.purpose,
            }
            for row in recipes.FILE_TYPES.values()
            if row.selectable
        ],
        "types": [
            {
                "name": row.name,
                "id": row.id,
                "bpw": row.bpw,
                "block": row.block,
                "bytes": row.bytes,
                "importance": row.importance,
                "fallback": row.fallback,
                "purpose": row.purpose,
                "searches": [name for name in kernels.SEARCHES if kernels.can_encode(row.id, name)],
            }
            for row in tensor_types.BY_NAME.values()
            if row.kind not in ("integer", "activation")
        ],
    }


def _importance(row: recipes.FileType) -> str:
    return "ignored" if row.copies or row.is_float else tensor_types.by_name(row.default).importance
