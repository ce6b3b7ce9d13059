"""release.json: what of a release is done, by the hashes of what it was done to. Read and written as a whole."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quantcli.errors import MalformedFile
from quantcli.output import writer

NAME = "release.json"
SCHEMA = 1


@dataclass
class Manifest:
    """``done``: step -> what it was done to (a digest or name) -> what came of it."""

    path: Path
    done: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """What the folder's manifest says; nothing is done where there is none. Raises MalformedFile."""
        path = folder / NAME
        if not path.exists():
            return cls(path)
        hint = "move it away: the release then looks at every file anew"
        try:
            found = json.loads(path.read_bytes())
        except (ValueError, OSError, RecursionError) as error:
            raise MalformedFile(f"no manifest of a release: {error}", where=str(path), hint=hint) from error
        steps = found.get("done") if isinstance(found, dict) and found.get("schema") == SCHEMA else None
        if not isinstance(steps, dict) or not all(isinstance(step, dict) for step in steps.values()):
            raise MalformedFile("no manifest of a release, or one of another version", where=str(path), hint=hint)
        return cls(path, steps)

    def get(self, step: str, key: str) -> Any:
        """What came of it; None where it is not done."""
        return self.done.get(step, {}).get(key)

    def put(self, step: str, key: str, value: Any) -> None:
        """It is done: on the disk before anything else happens."""
        self.done.setdefault(step, {})[key] = value
        text = json.dumps({"schema": SCHEMA, "done": self.done}, indent=1, ensure_ascii=False)
        writer.write_text(self.path, text + "\n")
