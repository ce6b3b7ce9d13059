"""convert --skip-existing: what is there stays, the others are made: also of a part, of an engine, of a run that is
resumed."""

from __future__ import annotations

import itertools
import random
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from quantcli.cli.parse import convert_request
from quantcli.commands import convert, fleet
from quantcli.commands.job import ConvertRequest, Job
from quantcli.errors import ImportanceNeeded, OutputExists
from quantcli.output import writer

TINY = Path(__file__).resolve().parents[2] / "examples" / "tiny"
TYPES, SPLIT, PARTS = ("Q4_K_M", "Q8_0"), "1M", 4


class Stop(BaseException):
    """The end of a run, wherever it is."""


def request(output: Path, *types: str, **more) -> ConvertRequest:
    given = {"split_max_size": SPLIT, "skip_existing": True, "threads": 2, **more}
    return convert_request(source=TINY, types=types or TYPES, output=f"{output}/", **given)


def visible(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "out"
    convert.run(request(folder, skip_existing=False))
    return folder


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One source for all requests."""
    found = convert.open_sources(request(Path("."), part=f"1/{PARTS}"))
    close = found.close
    monkeypatch.setattr(convert.Opened, "close", lambda opened: None)
    monkeypatch.setattr(Job, "close", lambda job: None)
    monkeypatch.setattr(convert, "open_sources", lambda request: found)
    yield
    close()


def subsets(names: list[str]) -> Iterator[tuple[str, ...]]:
    return itertools.chain.from_iterable(itertools.combinations(names, count) for count in range(len(names) + 1))


def left(wanted: ConvertRequest) -> set[Path]:
    """The files that are made yet."""
    asked, nothing = convert.without_existing(wanted, convert.SILENT)
    if nothing is not None:
        assert nothing["outputs"] == []
        return set()
    return {path for files in convert.prepare(asked).files for path in files}


@pytest.mark.usefixtures("opened")
def test_a_part_makes_what_of_its_own_is_missing(whole: Path, tmp_path: Path) -> None:
    """Whatever lies in the folder."""
    folder = tmp_path / "out"
    folder.mkdir()
    names = sorted(path.name for path in whole.iterdir())
    assert len(names) == 6
    asked = [request(folder, part=f"{number}/{PARTS}", dry_run=True) for number in range(1, PARTS + 1)]
    own = [left(one) for one in asked]
    assert sorted(path.name for files in own for path in files) == names
    for there in subsets(names):
        for name in there:
            (folder / name).touch()
        present = {folder / name for name in there}
        assert [left(one) for one in asked] == [files - present for files in own], there
        for path in present:
            path.unlink()


@pytest.mark.parametrize("engine", [None, "local"])
def test_a_set_with_holes_gets_complete(whole: Path, tmp_path: Path, engine: str | None) -> None:
    for seed in range(2):
        folder = Path(shutil.copytree(whole, tmp_path / f"out-{seed}"))
        names = sorted(path.name for path in folder.iterdir())
        for name in random.Random(seed).sample(names, 3):
            (folder / name).unlink()
        kept = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
        if engine is None:
            for number in range(1, PARTS + 1):
                convert.run(request(folder, part=f"{number}/{PARTS}"))
        else:
            made = fleet.run(request(folder), engine)
            assert sum(len(output["shards"]) for output in made["outputs"]) == 3
        assert visible(folder) == visible(whole)
        assert all(path.stat().st_mtime_ns == changed for path, changed in kept.items())
        assert fleet.run(request(folder), engine)["outputs"] == []


def test_an_engine_begins_in_a_new_folder(whole: Path, tmp_path: Path) -> None:
    fleet.run(request(tmp_path / "out"), "local")
    assert visible(tmp_path / "out") == visible(whole)


def test_an_incomplete_set_is_not_kept_by_a_whole_run(whole: Path, tmp_path: Path) -> None:
    """Its shards may be of another plan; a part is looked at by `assemble`."""
    folder = Path(shutil.copytree(whole, tmp_path / "out"))
    next(folder.glob("tiny-Q8_0-00002*")).unlink()
    with pytest.raises(OutputExists):
        convert.run(request(folder))


def test_what_is_there_needs_no_importance(tmp_path: Path) -> None:
    """Nothing is asked of an output that is not made."""
    given = {"split_max_size": None}
    with pytest.raises(ImportanceNeeded):
        convert.run(request(tmp_path / "out", "IQ2_XXS", "Q8_0", **given))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "tiny-IQ2_XXS.gguf").touch()
    made = convert.run(request(tmp_path / "out", "IQ2_XXS", "Q8_0", **given))
    assert [Path(one["path"]).name for one in made["outputs"]] == ["tiny-Q8_0.gguf"]


# ---- resumed


@pytest.mark.parametrize(
    ("split", "part", "published"),
    [(None, None, 1), (None, None, 2), *((SPLIT, None, n) for n in range(1, 7)), (SPLIT, 1, 1), (SPLIT, 1, 2)],
)
def test_a_run_that_died_between_two_names_goes_on(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split: str | None, part: int | None, published: int
) -> None:
    folder, left = tmp_path / "out", [published]
    original = writer.OutputFile.publish

    def publish(file: writer.OutputFile) -> None:
        original(file)
        left[0] -= 1
        if not left[0]:
            raise Stop

    wanted = request(folder, resume=True, split_max_size=split, part=part and f"{part}/{PARTS}")
    if split is None or part:
        convert.run(replace(wanted, output=tmp_path / "whole", resume=False))
        whole = tmp_path / "whole"
    with monkeypatch.context() as patch:
        patch.setattr(writer.OutputFile, "publish", publish)
        with pytest.raises(Stop):
            convert.run(wanted)
    assert len([path for path in folder.iterdir() if not path.name.startswith(".")]) == published
    convert.run(wanted)
    assert visible(folder) == visible(whole)


def test_what_was_there_before_a_resumed_run_stays(tmp_path: Path) -> None:
    """It is none of that run's files."""
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "tiny-F16.gguf").write_bytes(b"kept")
    convert.run(request(folder, "F16", "Q8_0", resume=True, split_max_size=None))
    assert (folder / "tiny-F16.gguf").read_bytes() == b"kept" and len(visible(folder)) == 2


# ---- folders


def test_no_empty_folder_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever ends the work: an engine that is not there, a worker, an interrupt."""
    folder = tmp_path / "out"
    for engine in ("dask://127.0.0.1:99999", "spark://x:1"):
        with pytest.raises(Exception, match="engine|address"):
            fleet.run(request(folder), engine)
        assert not folder.exists()

    def stop(*given: object, **named: object) -> None:
        raise Stop

    monkeypatch.setattr(convert, "execute", stop)
    for engine in (None, "local"):
        with pytest.raises(Stop):
            fleet.run(request(folder, skip_existing=False), engine)
        assert not folder.exists()
    folder.mkdir()
    with pytest.raises(Stop):
        convert.run(request(folder))
    assert folder.exists()  # it was the user's
