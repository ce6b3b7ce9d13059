"""Results of commands against their published schemas."""

from __future__ import annotations

import json
from collections.abc import Mapping

import jsonschema

from quantcli.report import schemas


def require_valid(command: str, result: Mapping[str, object]) -> None:
    """That ``result``, as --json prints it, is what `quantcli schema COMMAND` says."""
    validator = jsonschema.Draft202012Validator(schemas.schema(command))
    problems = [
        f"{error.json_path}: {error.message[:300]}" for error in validator.iter_errors(json.loads(json.dumps(result)))
    ]
    assert not problems, "\n".join(problems)
