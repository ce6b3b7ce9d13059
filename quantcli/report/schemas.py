"""JSON schemas (draft 2020-12) of what every command prints with --json, made from the result types.

A result has the number of its schema in ``schema``. Within one number fields are added, never taken away or changed in
their kind (tests/report/test_schemas.py holds that against the published ones).
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Mapping, Sequence
from typing import (
    Any,
    Literal,
    NotRequired,
    TypeAlias,
    TypedDict,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from quantcli.report import assembled, measurements, plans, releases, results, speed

VERSION = 1  # of all schemas: what `schema` says in every result
DIALECT = "https://json-schema.org/draft/2020-12/schema"

Json: TypeAlias = dict[str, Any]


class ErrorDetails(TypedDict):
    """``code`` is a word for scripts, ``where`` the place (file, tensor, byte), ``hint`` what to do."""

    code: str
    message: str
    where: str | None
    hint: str | None


class ErrorResult(TypedDict):
    """What any command prints in place of its result when it fails."""

    schema: int
    error: ErrorDetails


#: what the command of this name prints; several types where it depends on what it is given
RESULTS: dict[str, tuple[type, ...]] = {
    "convert": (results.ConvertResult,),
    "assemble": (assembled.AssembleResult,),
    "graft": (results.GraftResult,),
    "inspect": (results.GgufResult, results.CheckpointResult, results.MatrixResult),
    "check": (results.CheckResult,),
    "verify": (results.VerifyResult,),
    "formats": (results.FormatsResult,),
    "imatrix": (measurements.ImatrixResult,),
    "calibrate": (measurements.CalibrateResult,),
    "plan": (plans.PlanningResult,),
    "analyze": (plans.AnalyzeResult,),
    "perplexity": (measurements.PerplexityResult,),
    "compare": (measurements.CompareResult,),
    "generate": (measurements.GenerateResult,),
    "embed": (measurements.EmbedResult,),
    "bench": (speed.BenchResult,),
    "diff": (releases.DiffResult,),
    "reproduce": (releases.ReproduceResult,),
    "card": (releases.CardResult,),
    "release": (releases.ReleaseResult,),
    "error": (ErrorResult,),
}
_PLAIN: dict[object, Json] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    bool: {"type": "boolean"},
    float: {"type": ["number", "null"]},  # what cannot be a number is printed as null
    type(None): {"type": "null"},
    object: {},
}


def schema(command: str) -> Json:
    """The schema of what ``command`` prints with --json; "error": of any command that fails. Raises KeyError."""
    found = RESULTS[command]
    definitions: dict[str, Json] = {}
    references = [_schema(one, definitions) for one in found]
    return {
        "$schema": DIALECT,
        "$id": f"urn:quantcli:schema:{VERSION}:{command}",
        "title": f"quantcli {command} --json" if command != "error" else "quantcli --json, of a command that fails",
        **(references[0] if len(references) == 1 else {"oneOf": references}),
        "$defs": dict(sorted(definitions.items())),
    }


def fields(typed: type) -> dict[str, tuple[Any, bool]]:
    """Name -> (type, whether it is always there) of the fields of a TypedDict, inherited ones first."""
    hints = get_type_hints(typed, include_extras=True)
    return {
        name: (get_args(hint)[0], False) if get_origin(hint) is NotRequired else (hint, True)
        for name, hint in hints.items()
    }


def _schema(hint: Any, definitions: dict[str, Json]) -> Json:
    """The schema of one type; those of TypedDicts are put into ``definitions`` and named."""
    if is_typeddict(hint):
        name = hint.__name__
        if name not in definitions:
            definitions[name] = {}  # a type may hold itself
            definitions[name] = _object(hint, definitions)
        return {"$ref": f"#/$defs/{name}"}
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [_schema(one, definitions) for one in arguments]}
    if origin in (list, Sequence):
        return {"type": "array", "items": _schema(arguments[0], definitions)}
    if origin in (dict, Mapping):
        return {"type": "object", "additionalProperties": _schema(arguments[1], definitions)}
    return dict(_PLAIN[hint])


def _object(typed: type, definitions: dict[str, Json]) -> Json:
    found = fields(typed)
    properties = {
        name: {"const": VERSION} if name == "schema" else _schema(hint, definitions)
        for name, (hint, _) in found.items()
    }
    return {
        "type": "object",
        "description": " ".join((inspect.getdoc(typed) or "").split()),
        "properties": properties,
        "required": [name for name, (_, always) in found.items() if always],
        "additionalProperties": False,
    }
