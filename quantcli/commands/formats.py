"""`quantcli formats`: every recipe and every tensor type as plain data."""

from __future__ import annotations

from quantcli.ggml import kernels, tensor_types
from quantcli.plan import plan, recipes
from quantcli.report import tables
from quantcli.report.results import FormatsResult
from quantcli.report.terminal import SILENT, Reporter


def run(reporter: Reporter = SILENT) -> FormatsResult:
    """Everything that `convert -t` and `--tensor-type` take."""
    result = overview()
    tables.show_formats(reporter, result)
    return result


def overview() -> FormatsResult:
    """Recipes in the order of their table, types by id. The bpw of a recipe is that of a model like Llama-3-8B."""
    return {
        "schema": 1,
        "ggml": {"version": kernels.GGML_VERSION, "commit": kernels.GGML_COMMIT},
        "recipes": [
            {
                "name": file_type.name,
                "number": file_type.number,
                "aliases": list(file_type.aliases),
                "bpw": plan.nominal_bpw(file_type),
                "importance": "required" if file_type.needs_imatrix else _importance(file_type),
                "purpose": file_type.purpose,
            }
            for file_type in recipes.FILE_TYPES.values()
            if file_type.selectable
        ],
        "types": [
            {
                "name": tensor_type.name,
                "id": tensor_type.id,
                "bpw": tensor_type.bpw,
                "block": tensor_type.block,
                "bytes": tensor_type.bytes,
                "importance": tensor_type.importance,
                "fallback": tensor_type.fallback,
                "purpose": tensor_type.purpose,
                "searches": [name for name in kernels.SEARCHES if kernels.can_encode(tensor_type.id, name)],
            }
            for tensor_type in tensor_types.BY_NAME.values()
            if tensor_type.kind not in ("integer", "activation")
        ],
    }


def _importance(file_type: recipes.FileType) -> str:
    return "ignored" if file_type.copies or file_type.is_float else tensor_types.by_name(file_type.default).importance
