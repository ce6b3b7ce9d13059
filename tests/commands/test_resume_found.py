"""convert --resume: what lies in the folder. Hostile journals, links, several unfinished runs, living ones; and how it
is told what differs."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helpers.stopping import Heard, Stop, stop_writes
from quantcli import system
from quantcli.cli.parse import convert_request
from quantcli.commands import convert
from quantcli.commands.job import ConvertRequest
from quantcli.errors import OutputExists, OutputFailed, ResumeRefused
from quantcli.output import journal, journals
from quantcli.output.journal import Journal

TINY = Path(__file__).resolve().parents[2] / "examples" / "tiny"
NAME = "tiny-Q8_0.gguf"
SPLIT = {"split_max_size": "600K"}


def request(source: Path, output: Path, *types: str, **more) -> ConvertRequest:
    output.mkdir(exist_ok=True)
    return convert_request(source=source, types=types or ("Q8_0",), output=f"{output}/", **{"threads": 2, **more})


def hidden(folder: Path) -> list[str]:
    return sorted(name for name in os.listdir(folder) if name.startswith("."))


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Begins a resumable run and ends it behind some slabs."""
    stop = stop_writes(monkeypatch)

    def run(*given, count: int = 9, **more) -> None:
        stop(count)
        with pytest.raises(Stop):
            convert.run(request(*given, resume=True, **more))
        stop(0)

    return run


# ---- journals that nobody of us wrote

DIGEST = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#: what may stand where a number, a text, a list or an object belongs
VALUES = (
    "null", "true", "-1", "1.5", "1e999", "NaN", "Infinity", "9" * 5000, str(1 << 70), '""', '"\\ud800"', '"a\\u0000b"',
    '"../x"', '".."', "[]", "[[]]", "[[1]]", "[[[],1]]", "{}", '{"a": []}', "[" * 100_000, '{"a":' * 100_000,
)  # fmt: skip
PLACES = (
    "{value}", '{{"journal": {value}, "facts": {{}}, "files": [["{name}", 5]]}}',
    '{{"journal": 1, "facts": {value}, "files": [["{name}", 5]]}}', '{{"journal": 1, "facts": {{}}, "files": {value}}}',
    '{{"journal": 1, "facts": {{"a": {value}}}, "files": [["{name}", 5]]}}',
    '{{"journal": 1, "facts": {{}}, "files": [[{value}, 5]]}}',
    '{{"journal": 1, "facts": {{}}, "files": [["{name}", {value}]]}}',
    '{{"journal": 1, "facts": {{}}, "files": [["{name}", 5], {value}]}}',
    '{{"journal": 1, "facts": {{}}, "files": [["{name}", 5], ["{name}", {value}]]}}',
)  # fmt: skip
GOOD = '{"journal": 1, "facts": {}, "files": [["NAME", 5]]}'
LINES = (
    f"0 -5 {DIGEST}", f"-1 5 {DIGEST}", f"1 5 {DIGEST}", f"0 6 {DIGEST}", f"0 {'9' * 5000} {DIGEST}", f"0 1_0 {DIGEST}",
    f"0 +5 {DIGEST}", f"0 5 {DIGEST[:-1]}\u00e9", f"0  5 {DIGEST}", "complete", "\0" * 100_000, "0", "",
)  # fmt: skip


def hostile(name: str) -> Iterator[bytes]:
    """Contents of files that are no journals of ``name``, or hardly one."""
    yield from (b"", b"\n", b"\xff\xfe[\0]\0", b"\xff" * 4096, b"\0" * (17 << 20))
    yield from (place.format(value=value, name=name).encode() + b"\n" for place in PLACES for value in VALUES)
    yield from (f"{GOOD.replace('NAME', name)}\n{line}\n".encode() for line in LINES)


#: what may have the name of a file, but is none
KINDS: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "folder": lambda path: (path.mkdir(), (path / "a").touch()),
    "link": lambda path: path.symlink_to("precious"),
    "link to nothing": lambda path: path.symlink_to("nothing"),
    "link to itself": lambda path: path.symlink_to(path.name),
}


def test_no_journal_of_another_name_disturbs_a_conversion(tmp_path: Path) -> None:
    """Whatever it holds and is: no traceback, no waiting, and nothing of it is followed."""
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "precious").write_bytes(b"precious")
    for number, content in enumerate(hostile(NAME[:-1])):
        (folder / f".quantcli-{number:03}.journal").write_bytes(content)
    for number, make in enumerate(KINDS.values()):
        make(folder / f".quantcli-kind{number}.journal")
        make(folder / f".quantcli-kind{number}.resume")
    before = hidden(folder)
    assert len(before) > len(PLACES) * len(VALUES)
    for name, options in (("Q8_0", {"resume": True}), ("Q4_0", {"resume": False})):
        convert.run(request(TINY, folder, name, **options))
    assert (folder / "precious").read_bytes() == b"precious" and hidden(folder) == before


@pytest.mark.parametrize("resume", [False, True])
def test_what_lies_where_the_journal_belongs(tmp_path: Path, resume: bool) -> None:
    """Contents of every kind: read as nothing, as little as is true, or refused; never a traceback."""
    refused = 0
    for content in hostile(NAME):
        target = tmp_path / NAME
        place = journals.place([target])
        place.write_bytes(content)
        temporary = journals.temporary(target)
        temporary.write_bytes(b"abcde")
        if not resume:
            found = journals.read(place)
            journals.forget([target])
            assert temporary.exists() == place.exists() == (found is not None and not found.names)  # another version's
            continue
        try:
            made = Journal([target], [5], {})
        except ResumeRefused as error:
            refused += 1
            subprocess.run(["sh", "-c", str(error.hint).partition("anew: ")[2]], check=True, cwd=tmp_path)
            assert not place.exists()
        else:
            assert made.replaced == (made.earlier is None and bool(content))
            assert len(made.marks) == 1 and all(0 <= count <= 5 for count, _ in made.marks[0])
            made.close()
    assert not resume or refused


@pytest.mark.parametrize("ending", [journals.SUFFIX, journals.KEPT])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_is_refused_and_the_hint_helps(tmp_path: Path, kind: str, ending: str) -> None:
    folder = tmp_path / "o'b"
    folder.mkdir()
    (folder / "precious").write_bytes(b"precious")
    KINDS[kind](journals.place([folder / NAME]).with_suffix(ending))
    with pytest.raises(OutputFailed, match="is no regular file") as caught:
        convert.run(request(TINY, folder, resume=True))
    assert (folder / "precious").read_bytes() == b"precious" and not (folder / "nothing").exists()
    subprocess.run(["sh", "-c", str(caught.value.hint).partition(": ")[2]], check=True)
    convert.run(request(TINY, folder, resume=True))
    assert (folder / NAME).exists() and (folder / "precious").read_bytes() == b"precious"


@pytest.mark.parametrize("ending", [journals.SUFFIX, journals.KEPT])
def test_a_second_name_of_somebodys_file_is_let_go(tmp_path: Path, ending: str) -> None:
    """Hard links are no links that could be refused: the name is taken away, the file stays as it is."""
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    folder = tmp_path / "out"
    folder.mkdir()
    os.link(precious, journals.place([folder / NAME]).with_suffix(ending))
    convert.run(request(TINY, folder, resume=True))
    assert precious.read_bytes() == b"precious" and os.listdir(folder) == [NAME]


def test_a_socket_and_a_device_are_no_journals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(".quantcli-a.journal")
        assert journals.read(Path(".quantcli-a.journal")) is None
    with pytest.raises(OSError, match="not a regular file"):
        system.open_regular(os.devnull)


def test_what_cannot_be_read_is_said(tmp_path: Path, stopped: Callable[..., None]) -> None:
    for resume, words in ((True, "everything is made anew"), (False, "is no journal that can be read")):
        folder = tmp_path / f"out{resume}"
        stopped(TINY, folder)
        (notes,) = folder.glob("*.journal")
        notes.write_bytes(b"[" * 5000)
        heard = Heard()
        convert.run(request(TINY, folder, resume=resume, force=True), heard)
        assert any(words in text and str(notes) in text for text in heard.warned)
        assert os.listdir(folder) == [NAME]


def test_a_journal_of_another_version_is_refused_and_its_files_stay(
    tmp_path: Path, stopped: Callable[..., None]
) -> None:
    folder = tmp_path / "out"
    stopped(TINY, folder)
    (notes,) = folder.glob("*.journal")
    notes.write_bytes(notes.read_bytes().replace(b'"journal": 1', b'"journal": 2'))
    before = hidden(folder)
    with pytest.raises(ResumeRefused, match="the version of its journal was 2, is 1"):
        convert.run(request(TINY, folder, resume=True))
    convert.run(request(TINY, folder, "Q4_0"))
    assert hidden(folder) == before


# ---- several runs, living ones


def parts(folder: Path, stopped: Callable[..., None]) -> None:
    for number in (1, 2):
        stopped(TINY, folder, "Q4_K_M", part=f"{number}/2", count=3, **SPLIT)


def types(folder: Path, stopped: Callable[..., None]) -> None:
    for one in ("Q8_0", "Q4_K_M"):
        stopped(TINY, folder, one, **SPLIT)


@pytest.mark.parametrize("begin", [parts, types])
@pytest.mark.parametrize("resume", [False, True])
def test_all_unfinished_runs_are_told_and_removed(
    tmp_path: Path, stopped: Callable[..., None], begin: Callable, resume: bool
) -> None:
    folder, heard = tmp_path / "o'b", Heard()
    begin(folder, stopped)
    found = [path.name for path in folder.glob("*.journal")]
    assert len(found) == 2
    wanted = request(TINY, folder, *(("Q8_0", "Q4_K_M") if begin is types else ("Q4_K_M",)), resume=resume, **SPLIT)
    if resume:
        with pytest.raises(ResumeRefused, match="unfinished conversions of .*, of .* lie here") as caught:
            convert.run(wanted)
        assert all(name in str(caught.value.hint) for name in found)
        subprocess.run(["sh", "-c", str(caught.value.hint).partition("anew: ")[2]], check=True)
    convert.run(wanted, heard)
    told = [text for text in heard.warned if "--resume would not continue it (the type of" in text]
    assert len(told) == (0 if resume else 2) and not hidden(folder)


def test_a_run_that_lives_is_said_to(tmp_path: Path, stopped: Callable[..., None]) -> None:
    """Its journal stays; and when it comes to its end, the file that took the name is as good as its own."""
    folder, heard = tmp_path / "out", Heard()
    stopped(TINY, folder, count=30)
    (notes,) = folder.glob("*.journal")
    before = hidden(folder)
    descriptor = os.open(notes, os.O_RDWR)
    try:
        system.lock(descriptor)
        convert.run(request(TINY, folder), heard)
    finally:
        os.close(descriptor)
    assert any("another run, with --resume, is at work on tiny-Q8_0.gguf" in text for text in heard.warned)
    assert not any("removed" in text or "would continue" in text for text in heard.warned)
    assert hidden(folder) == before


@pytest.mark.parametrize("same", [True, False])
def test_a_file_that_got_the_name_before_the_last_step(tmp_path: Path, same: bool) -> None:
    """Another run was quicker: its bytes decide whether there is anything left to do."""
    folder = tmp_path / "out"
    convert.run(request(TINY, tmp_path / "whole"))
    whole = (tmp_path / "whole" / NAME).read_bytes()
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        from quantcli.output.resumable import ResumableFile

        def publish(self: ResumableFile) -> None:
            self.path.write_bytes(whole if same else whole[:-1] + b"x")
            raise Stop

        patch.setattr(ResumableFile, "publish", publish)
        with pytest.raises(Stop):
            convert.run(request(TINY, folder, resume=True))
    if same:
        convert.run(request(TINY, folder, resume=True))
        assert os.listdir(folder) == [NAME]
    else:
        with pytest.raises(OutputExists, match="not the file that the earlier run gave this name"):
            convert.run(request(TINY, folder, resume=True))
    convert.run(request(TINY, folder, resume=True, force=True))
    assert (folder / NAME).read_bytes() == whole and os.listdir(folder) == [NAME]


# ---- what differs, in words


def changed_tokenizer(source: Path) -> None:
    path = source / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "x": 1}))


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        (changed_tokenizer, {}, "the sha256 of tokenizer_config.json was"),
        (None, {"metadata": ["general.version=2"]}, "general.version was nothing, is 2"),
        (None, {"pure": True}, "--pure was nothing, is True"),
        (lambda source: source.rename(source.with_name("other")), {}, "the name of the source was tiny, is other"),
    ],
)
def test_what_differs_is_said_in_words(
    tmp_path: Path, stopped: Callable[..., None], change: Callable | None, options: dict, words: str
) -> None:
    source, heard, folder = Path(shutil.copytree(TINY, tmp_path / "tiny")), Heard(), tmp_path / "out"
    stopped(source, folder)
    notes, *_ = folder.glob("*.journal")
    if change is not None:
        change(source)
    source = next(path for path in (source, tmp_path / "other") if path.exists())
    given = {"types": ("Q8_0",), "output": str(folder / NAME), "threads": 2, **options}
    with pytest.raises(ResumeRefused) as caught:
        convert.run(convert_request(source=source, resume=True, **given))
    assert words in caught.value.message and notes.exists()
    convert.run(convert_request(source=source, **given), heard)
    assert any("--resume would not continue it (" in text and words in text for text in heard.warned), heard.warned
    assert os.listdir(folder) == [NAME]


def test_another_commit_of_the_hub_is_named_with_what_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped: Callable[..., None]
) -> None:
    """The weights are the same, a word of the README is not."""
    pytest.importorskip("huggingface_hub")
    from helpers.loopback_hub import LoopbackHub
    from quantcli.sources.hub import tree

    source, folder = Path("hf://org/tiny"), tmp_path / "out"
    with LoopbackHub() as hub:
        hub.use(monkeypatch, tmp_path / "home")
        repository = hub.store.create("org/tiny", TINY)
        tree.forget()
        stopped(source, folder)
        repository.commit({path.name: path.read_bytes() for path in TINY.iterdir()} | {"README.md": b"a word"})
        tree.forget()
        with pytest.raises(ResumeRefused, match="the commit of the source was [0-9a-f]{40}, is [0-9a-f]{40}") as caught:
            convert.run(request(source, folder, resume=True))
        (address,) = [word for word in str(caught.value.hint).split() if word.startswith("hf://")]
        result = convert.run(request(Path(address), folder, resume=True))
        assert result["resumed_bytes"] > 0
        whole = convert.run(request(Path(address), tmp_path / "whole"))
    assert [one["sha256"] for one in result["outputs"]] == [one["sha256"] for one in whole["outputs"]]


def test_long_texts_are_cut_where_they_differ() -> None:
    (text,) = journal.compare({"a": "x" * 500 + "1" + "y" * 500}, {"a": "x" * 500 + "2" + "y" * 500})
    assert "x1y" in text and "x2y" in text and len(text) < 3 * journal.LONGEST
