"""The published schemas: every command's JSON against its own, and against what was published before."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import jsonschema
import pytest

from helpers.schemas import require_valid
from quantcli.cli.app import COMMANDS, application
from quantcli.cli.frame import frame
from quantcli.report import schemas

PUBLISHED = Path(__file__).resolve().parents[1] / "golden" / "schemas.json"
# plan, analyze and calibrate run the model many times: test_plan_verbs.py and test_quality.py look at theirs.
LINES = (
    "convert tiny -t Q4_K_M -t q8_0 -o out/",
    "convert tiny -t Q4_0 --method hqq --dry-run",
    "graft tiny-Q8_0.gguf tiny-Q4_K_M.gguf --tensors ^output -o grafted.gguf",
    "inspect tiny",
    "inspect tiny-Q4_K_M.gguf",
    "inspect matrix.gguf",
    "check tiny",
    "verify tiny-Q4_K_M.gguf",
    "verify text.txt",
    "formats",
    "imatrix tiny -f text.txt -o matrix.gguf --force",
    "imatrix --in-file matrix.gguf -o merged.dat",
    "perplexity tiny-Q8_0.gguf -f text.txt -c 64 --chunks 2",
    "compare tiny tiny-Q8_0.gguf tiny-Q4_K_M.gguf -f text.txt -c 64 --chunks 2",
    "generate tiny-Q8_0.gguf -p Once -n 2",
    "embed tiny-Q8_0.gguf -f text.txt --truncate",
)
MISTAKES = ("convert nowhere -t Q4_K_M", "convert tiny -t Q9_9", "inspect", "compare tiny tiny-Q8_0.gguf")


@pytest.fixture(scope="module")
def folder(root: Path, tiny_files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("schemas")
    (made / "tiny").symlink_to(root / "examples" / "tiny")
    (made / "text.txt").write_text("Once upon a time there was a captain. The boy said nothing. " * 60)
    for path in tiny_files.values():
        (made / path.name).symlink_to(path)
    application(["imatrix"])(
        f"imatrix {made}/tiny -f {made}/text.txt -o {made}/matrix.gguf -q".split(), standalone_mode=False
    )
    return made


def printed(line: str, capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    """What the command line prints with --json."""
    words = [*line.split(), "--json"]
    capsys.readouterr()
    try:
        frame.start(as_json=True)
        application(words[:1])(words, standalone_mode=False)
    except BaseException as error:
        assert frame.fail(error) in (0, 1, 2)
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize("line", LINES)
def test_every_result_is_what_its_schema_says(line: str, folder: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(folder)
    result = printed(line, capsys)
    assert "error" not in result, result
    require_valid(line.split()[0], result)


@pytest.mark.parametrize("line", MISTAKES)
def test_every_error_is_what_the_schema_says(line: str, folder: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(folder)
    require_valid("error", printed(line, capsys))


def test_every_command_has_a_schema() -> None:
    assert set(COMMANDS) - {"schema"} == set(schemas.RESULTS) - {"error"}
    for command in schemas.RESULTS:
        jsonschema.Draft202012Validator.check_schema(schemas.schema(command))


def test_a_wrong_result_is_refused() -> None:
    good = {"schema": 1, "ok": True, "files": []}
    require_valid("verify", good)
    for wrong in ({**good, "schema": 2}, {**good, "more": 1}, {"schema": 1, "ok": True}, {**good, "ok": "yes"}):
        with pytest.raises(AssertionError):
            require_valid("verify", wrong)


def test_the_command_prints_them(capsys) -> None:
    every = printed("schema", capsys)
    assert every == {name: schemas.schema(name) for name in schemas.RESULTS}
    capsys.readouterr()
    application(["schema"])(["schema", "convert"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out) == every["convert"]
    assert printed("schema nonsense", capsys)["error"]["code"] == "usage"  # type: ignore[index]


# ---- what was published stays


def broken(before: object, after: object, place: str = "") -> list[str]:
    """Where a schema takes away or changes what an earlier one promised. Fields and alternatives may be added."""
    if isinstance(before, dict) and isinstance(after, dict):
        missing = [f"{place}/{key} is gone" for key in before if key not in after and key != "description"]
        return missing + [
            text
            for key in before
            if key in after and key not in ("description", "title")
            for text in broken(before[key], after[key], f"{place}/{key}")
        ]
    if isinstance(before, list) and isinstance(after, list):
        return [f"{place}: {one} is gone" for one in before if one not in after]
    return [] if before == after else [f"{place}: {after} instead of {before}"]


def test_nothing_published_is_taken_away() -> None:
    """A new command or field is entered with `python scripts/api_results.py`; a broken promise needs a new VERSION."""
    published = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    assert set(published) <= set(schemas.RESULTS)
    problems = [text for name, before in published.items() for text in broken(before, schemas.schema(name), name)]
    assert not problems, "\n".join(problems)


def test_what_breaks_a_promise_is_found() -> None:
    before = schemas.schema("verify")
    assert not broken(before, before)
    added = copy.deepcopy(before)
    added["$defs"]["CheckedFile"]["properties"]["more"] = {"type": "string"}
    assert not broken(before, added)
    gone, changed, loose = (copy.deepcopy(before) for _ in range(3))
    del gone["$defs"]["CheckedFile"]["properties"]["sha256"]
    changed["$defs"]["CheckedFile"]["properties"]["ok"] = {"type": "string"}
    loose["$defs"]["CheckedFile"]["required"].remove("ok")
    assert all(broken(before, one) for one in (gone, changed, loose))
