"""`quantcli release`: everything from one file, from a hub to a hub; stopped anywhere and run again."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.program import quantcli
from helpers.schemas import require_valid
from quantcli.cli.parse import from_texts
from quantcli.commands import reproduce
from quantcli.errors import MalformedFile, MissingFile, QuantcliError, UsageError
from quantcli.publishing import manifest, settings, steps
from quantcli.publishing.state import ReleaseRequest
from quantcli.report.releases import ReleaseResult

TYPES = ("Q8_0", "Q4_K_M", "Q4_0", "IQ4_XS", "IQ3_M")
TEXT = "Once upon a time there was a captain, and the wind was in the west. The boy said nothing.\n"


@pytest.fixture
def place(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the checkpoint "tiny", a text and a release of five types."""
    return prepared(root, tmp_path, monkeypatch)


def prepared(root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (folder / "tiny").symlink_to(root / "examples" / "tiny")
    (folder / "text.txt").write_text(TEXT * 60)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    described(folder)
    return folder


def described(folder: Path, more: str = "", source: str = "tiny") -> Path:
    path = folder / "release.toml"
    path.write_text(
        f'source = "{source}"\ntypes = {json.dumps(TYPES)}\n'
        'imatrix = { text = "text.txt", chunks = 2 }\nmodelfile = true\nattest = true\n'
        f'[evaluate]\ntexts = ["text.txt"]\nchunks = 2\ncontext = 64\n{more}'
    )
    return path


def release(path: Path, **options: object) -> ReleaseResult:
    result = steps.run(ReleaseRequest(settings=settings.read(path), **options), from_texts)  # type: ignore[arg-type]
    require_valid("release", result)
    return result


def states(result: ReleaseResult, *names: str) -> Counter[str]:
    return Counter(one["state"] for one in result["steps"] if one["step"] in names)


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.is_file()}


WORK = ("calibrate", "convert", "verify", "measure")


def test_a_whole_release_and_again(place: Path) -> None:
    planned = release(place / "release.toml", dry_run=True)
    assert not (place / "out").exists() and len(planned["files"]) == 5 and planned["estimate"] > 0
    first = release(place / "release.toml")
    assert states(first, *WORK) == {"done": 1 + 5 + 5 + 3}  # measured in two runs, and written
    before = hashes(place / "out")
    assert set(before) == {
        "README.md", "Modelfile", "SHA256SUMS", "attestation.cdx.json", "attestation.json", "divergence.svg",
        "imatrix.gguf", "measurements.json", "model-signing.json", "release.json",
        *(f"tiny-{name}.gguf" for name in TYPES),
    }  # fmt: skip
    again = release(place / "release.toml")
    assert states(again, *WORK) == {"kept": 1 + 5 + 5 + 6}
    assert hashes(place / "out") == before
    only = release(place / "release.toml", only=("q4_0",))
    assert [Path(one["path"]).name for one in only["files"]] == ["tiny-Q4_0.gguf"]


def test_what_changed_is_made_anew_and_nothing_else(place: Path) -> None:
    release(place / "release.toml")
    out = place / "out"
    before = hashes(out)
    data = bytearray((out / "tiny-Q4_0.gguf").read_bytes())
    data[-100] ^= 1
    (out / "tiny-Q4_0.gguf").write_bytes(data)
    (out / "tiny-Q8_0.gguf").unlink()
    (out / "release.json").unlink()  # without it a file counts by what it says of itself, and is verified anew
    told = release(place / "release.toml")
    assert states(told, "convert") == {"done": 1, "kept": 4} and states(told, "verify") == {"done": 5}
    (out / "tiny-Q4_0.gguf").write_bytes(data[:-1] + b"x")
    told = release(place / "release.toml")
    assert states(told, "convert") == {"done": 1, "kept": 4} and states(told, "verify") == {"done": 1, "kept": 4}
    assert hashes(out)["tiny-Q4_0.gguf"] == before["tiny-Q4_0.gguf"]
    described(place, '[convert]\ntensor_types = ["attn_v=q8_0"]\n')
    told = release(place / "release.toml", only=("Q8_0", "Q4_0"))
    assert states(told, "calibrate") == {"kept": 1} and states(told, "convert") == {"done": 2}  # the options are others


@pytest.fixture(scope="module")
def wanted(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Name -> hash of what a release leaves that nobody stops."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patched:
        release(prepared(root, folder, patched) / "release.toml")
    return hashes(folder / "out")


STOPS = ("calibrate", "convert", "verify", "measure", "card")


@pytest.mark.parametrize("stop", STOPS)
def test_stopped_in_any_step_and_run_again(
    place: Path, stop: str, wanted: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second run does what the first did not, and nothing twice; what is there in the end is the same."""
    stopped: list[str] = []

    def limited(self: manifest.Manifest, step: str, key: str, value: object) -> None:
        put(self, step, key, value)
        if step == stop:
            stopped.append(key)
            raise KeyboardInterrupt

    def interrupted(*given: object, **named: object) -> None:
        stopped.append("card")
        raise KeyboardInterrupt

    put = manifest.Manifest.put
    target: Callable[..., None] = limited
    with monkeypatch.context() as patched:
        patched.setattr(manifest.Manifest, "put", target)
        if stop == "card":
            patched.setattr("quantcli.publishing.card.run", interrupted)
        with pytest.raises((KeyboardInterrupt, QuantcliError)):
            release(place / "release.toml")
    assert len(stopped) == 1
    rest = release(place / "release.toml")
    found = hashes(place / "out")
    assert {name: found[name] for name in wanted if name != "release.json"} == {
        name: digest for name, digest in wanted.items() if name != "release.json"
    }
    for step in STOPS[: STOPS.index(stop)]:
        mine = [one for one in rest["steps"] if one["step"] == step and one["subject"] != "measurements.json"]
        assert mine and {one["state"] for one in mine} == {"kept"}, step


def test_every_file_can_be_reproduced(place: Path) -> None:
    release(place / "release.toml")
    for name in TYPES:
        asked = reproduce.ReproduceRequest(
            file=place / "out" / f"tiny-{name}.gguf", source=place / "tiny", imatrix=place / "out" / "imatrix.gguf"
        )
        result = reproduce.run(asked, from_texts)
        assert result["same"], (name, result["problem"])


# ---- the hub


def test_from_a_hub_to_a_hub(root: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("huggingface_hub")
    from helpers.loopback_hub import LoopbackHub

    with LoopbackHub() as hub:
        hub.store.create("org/tiny", root / "examples" / "tiny")
        hub.use(monkeypatch, place / "home", "hf_test_token")
        path = described(place, '[upload]\nrepository = "org/tiny-GGUF"\n', "hf://org/tiny")
        questions: list[str] = []
        skipped = release(path, confirm=lambda question: bool(questions.append(question)))
        assert skipped["uploaded"] is None and states(skipped, "upload") == {"skipped": 1}
        assert "org/tiny-GGUF" in questions[0] and "org/tiny-GGUF" not in hub.store.repositories
        done = release(path, confirm=lambda question: True)
        assert done["uploaded"] == "org/tiny-GGUF" and states(done, "convert") == {"kept": 5}
        there = hub.store.repositories["org/tiny-GGUF"]
        commit = there.find("main")
        assert commit is not None
        mine = {name: digest for name, digest in hashes(place / "out").items() if name != "release.json"}
        assert {name: blob.sha256 for name, blob in commit.files.items() if name != ".gitattributes"} == mine
        assert 'base_model: "org/tiny"' in (place / "out" / "README.md").read_text()
        count = len(there.commits)
        again = release(path, confirm=lambda question: True)
        assert states(again, "upload") == {"kept": len(mine)} and len(there.commits) == count
        (place / "out" / "tiny-Q4_0.gguf").unlink()
        commit = there.find("main")
        assert states(release(path, confirm=lambda question: True), "upload") == {"kept": len(mine)}
        file, matrix = place / "out" / "tiny-Q8_0.gguf", place / "out" / "imatrix.gguf"
        for source in (None, Path("hf://org/tiny"), root / "examples" / "tiny"):  # the file names the hub's commit
            made = reproduce.run(reproduce.ReproduceRequest(file=file, source=source, imatrix=matrix), from_texts)
            assert made["same"], made["problem"]
        text = json.dumps(again) + "".join(p.read_text("utf-8", "replace") for p in (place / "out").glob("*.*"))
        assert "hf_test_token" not in text and hub.url not in text


def test_the_command_line_uploads_only_with_yes(root: Path, place: Path) -> None:
    pytest.importorskip("huggingface_hub")
    from helpers.loopback_hub import LoopbackHub

    with LoopbackHub() as hub:
        (place / "release.toml").write_text(
            'source = "tiny"\ntypes = ["Q4_0"]\n[upload]\nrepository = "org/tiny-GGUF"\n'
        )
        given = hub.environment(place / "home", "hf_test_token")
        done = quantcli("release", "release.toml", cwd=place, **given)
        assert done.returncode == 0 and "--yes" in done.stderr and not hub.store.repositories
        done = quantcli("release", "release.toml", "--yes", "--json", cwd=place, **given)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["uploaded"] == "org/tiny-GGUF" and "hf_test_token" not in done.stderr
        assert "tiny-Q4_0.gguf" in hub.store.repositories["org/tiny-GGUF"].find("main").files


# ---- mistakes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "source is missing"),
        ('source = "tiny"', "types is missing"),
        ('source = "tiny"\ntypes = []', "types is missing"),
        ('source = "tiny"\ntypes = ["Q9_9"]', "Q9_9"),
        ('source = "tiny"\ntype = ["Q4_0"]', "no key 'type'"),
        ('source = 1\ntypes = ["Q4_0"]', "source is a text"),
        ('source = "tiny"\ntypes = [1]', "list of texts"),
        ('source = "tiny"\ntypes = ["Q4_0"]\ncard = 1', "card is true or false or a table"),
        ('source = "tiny"\ntypes = ["Q4_0"]\n[evaluate]\nchunk = 1', "no key 'evaluate.chunk'"),
        ('source = "tiny"\ntypes = ["Q4_0"]\n[evaluate]\nchunks = true', "evaluate.chunks is a number"),
        ('source = "tiny"\ntypes = ["Q4_0"]\n[upload]\nrepository = "x"', "OWNER/NAME"),
        ('source = "tiny"\ntypes = ["Q4_0"]\n[upload]\nprivate = true', "OWNER/NAME"),
        ('source = "tiny"\ntypes = ["Q4_0"]\nnames = "pretty"', "no names 'pretty'"),
        ('source = "tiny"\ntypes = ["Q4_0"]\n[convert]\nforce = true', "the release decides itself"),
        ('source = "tiny"\ntypes = ["Q4_0"]\n[convert]\npuree = true', "puree"),
        ('source = "tiny"\ntypes = ["Q4_0"]\n[convert]\ntensor_types = 1', "convert"),
        ("source = ", "no TOML"),
        ('source = "nowhere"\ntypes = ["Q4_0"]', "no such file"),
        ('source = "tiny"\ntypes = ["Q4_0"]\nimatrix = "nowhere.gguf"', "not there"),
        ('source = "tiny"\ntypes = ["Q4_0"]\n[evaluate]\ntexts = ["nowhere.txt"]', "not there"),
        ('source = "tiny"\ntypes = ["IQ2_XS"]', "importance matrix"),
    ],
)
def test_mistakes_are_named(place: Path, text: str, message: str) -> None:
    (place / "release.toml").write_text(text)
    with pytest.raises(QuantcliError) as caught:
        release(place / "release.toml")
    assert message in str(caught.value)


def test_more_mistakes(place: Path) -> None:
    with pytest.raises(MissingFile, match="no.toml"):
        settings.read(place / "no.toml")
    with pytest.raises(UsageError, match="no type of this release"):
        release(place / "release.toml", only=("Q5_0",))
    (place / "out").mkdir()
    for text in ("no JSON", "[]", '{"schema": 2, "done": {}}', '{"schema": 1, "done": {"convert": 1}}'):
        (place / "out" / "release.json").write_text(text)
        with pytest.raises(MalformedFile, match="manifest"):
            release(place / "release.toml")


def test_automatic_types_and_the_example(root: Path, place: Path) -> None:
    (place / "a.toml").write_text('source = "tiny"\ntypes = "auto"\n')
    assert settings.read(place / "a.toml").types == settings.AUTOMATIC
    (place / "a.toml").write_text('source = "tiny"\ntypes = "auto"\nimatrix = "auto"\n')
    assert settings.read(place / "a.toml").types == settings.AUTOMATIC_WITH_IMPORTANCE
    example = settings.read(root / "examples" / "release.toml")
    assert example.upload is not None and example.evaluation.texts and example.attest
    assert os.path.exists(example.source)
