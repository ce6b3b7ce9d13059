"""convert --part and assemble: workers that know nothing of each other make one model; whatever is wrong is found."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import random
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest

from quantcli import container, loader, vocab
from quantcli.chat import sandbox
from quantcli.cli.parse import SizeTexts, convert_request
from quantcli.commands import assemble, convert
from quantcli.commands.job import ConvertRequest, Job
from quantcli.errors import (
    BadImportance,
    BadStatistics,
    MalformedFile,
    MissingFile,
    OutputExists,
    UsageError,
    VerificationFailed,
)
from quantcli.plan import costs, division
from quantcli.statistics import imatrix

TINY = Path(__file__).resolve().parents[2] / "examples" / "tiny"
TYPES, SPLIT, WORKERS = ("Q4_K_M", "Q8_0"), "500K", 3
LIST = "SHA256SUMS"


def request(output: Path, *types: str, **more) -> ConvertRequest:
    given = {"split_max_size": SPLIT, **more}
    return convert_request(source=TINY, types=types or TYPES, output=f"{output}/", **given)


def shards(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.gguf"))}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "out"
    convert.run(request(folder))
    return folder


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What three workers make, the last one first, each with a list of its own."""
    folder = tmp_path_factory.mktemp("parts") / "out"
    for number in range(WORKERS, 0, -1):
        convert.run(request(folder, part=f"{number}/{WORKERS}", checksums=folder / f"part-{number}.sha256"))
    return folder


@pytest.fixture
def parts(together: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(together, tmp_path / "out"))


# ---- parts


def test_workers_make_what_one_run_makes(whole: Path, together: Path) -> None:
    assert shards(together) == shards(whole) and len(shards(whole)) > 2 * WORKERS


@pytest.mark.parametrize("given", ["out", "out/"])
def test_shards_go_into_a_folder_however_it_is_spelt(together: Path, tmp_path: Path, given: str) -> None:
    for number in range(1, WORKERS + 1):
        output = f"{tmp_path}/{given}"
        convert.run(
            convert_request(
                source=TINY, types=["Q8_0"], output=output, split_max_size=SPLIT, part=f"{number}/{WORKERS}"
            )
        )
    expected = {name: sha256 for name, sha256 in shards(together).items() if "Q8_0" in name}
    assert shards(tmp_path / "out") == expected


def test_one_worker_alone_hashes_the_source(together: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its hashes stand in the first shard; the mark that all shards have does without."""
    from quantcli.sources import digests

    asked: list[str] = []
    monkeypatch.setattr(digests, "_known", {})
    original = digests._of
    monkeypatch.setattr(digests, "_of", lambda path, tell: asked.append(path) or original(path, tell))
    for number in range(1, WORKERS + 1):
        asked.clear()
        result = convert.run(request(tmp_path / "out", part=f"{number}/{WORKERS}"))
        first = any("-00001-of-" in name for output in result["outputs"] for name in output["files"])
        assert bool(asked) is first
    assert shards(tmp_path / "out") == shards(together)


def test_one_worker_alone_looks_at_the_chat_template(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """That takes a process of its own; one that the user gives may be refused, by whoever comes first."""
    looked: list[int] = []
    monkeypatch.setattr(sandbox, "problems", lambda templates: looked.append(len(templates)) or {})
    file = tmp_path / "template.jinja"
    file.write_text("{{ messages }}")
    for given, times in (({"metadata": ["tokenizer.chat_template=x"]}, 1), ({"chat_template": file}, WORKERS)):
        looked.clear()
        for number in range(1, WORKERS + 1):
            convert.prepare(request(tmp_path / "out", part=f"{number}/{WORKERS}", **given)).close()
        assert len(looked) == times and all(looked)


def tokens(job: Job) -> bool:
    """Whether the first shard is the job's, and tells the vocabulary."""
    told = [shard.metadata for one in job.plans for shard in one.shards if "general.architecture" in shard.metadata]
    assert all("tokenizer.ggml.tokens" in metadata for metadata in told)
    return bool(told)


def test_one_worker_alone_reads_the_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that writes the first shard; all of them where the user says something that is held against it."""
    read: list[str] = []
    original = vocab.load
    monkeypatch.setattr(vocab, "load", lambda *given, **more: read.append("") or original(*given, **more))
    for given, least in (({}, 0), ({"metadata": ["tokenizer.ggml.add_bos_token=true"]}, 1)):
        first = []
        for number in range(1, WORKERS + 1):
            read.clear()
            job = convert.prepare(request(Path("."), part=f"{number}/{WORKERS}", dry_run=True, **given))
            job.close()
            first.append(tokens(job))
            assert len(read) == max(least, first[-1])
        assert first.count(True) == 1


def test_a_process_that_makes_several_parts_reads_the_vocabulary_when_it_is_needed(whole: Path, tmp_path: Path) -> None:
    wanted = request(tmp_path / "out", part=f"1/{WORKERS}")
    opened = convert.open_sources(wanted)
    assert not opened.models[0].complete
    notes = []
    for number in range(WORKERS, 0, -1):
        job = convert.prepare_opened(request(tmp_path / "out", part=f"{number}/{WORKERS}"), opened)
        notes.append((tokens(job), opened.models[0].complete))
        convert.execute(job)
    opened.close()
    assert shards(tmp_path / "out") == shards(whole)
    assert [complete for first, complete in notes] == [any(f for f, _ in notes[: n + 1]) for n in range(WORKERS)]


def test_a_vocabulary_that_comes_late_stands_where_it_would_have_stood() -> None:
    with loader.open_models(TINY, put_off=True) as late, loader.open_models(TINY) as early:
        assert "tokenizer.ggml.tokens" not in late.text.metadata
        late.text.read_vocabulary()
        assert list(late.text.metadata.items()) == list(early.text.metadata.items())
        assert late.text.notes == early.text.notes and late.text.complete


def test_a_broken_tokenizer_is_told_by_one_worker_and_the_set_is_refused(tmp_path: Path) -> None:
    source, out = Path(shutil.copytree(TINY, tmp_path / "source")), tmp_path / "out"
    (source / "tokenizer.model").write_bytes(b"\x0a\xff")
    given, failed = {"source": source, "types": ["Q8_0"], "split_max_size": SPLIT}, []
    for number in range(1, WORKERS + 1):
        try:
            convert.run(convert_request(output=f"{out}/", part=f"{number}/{WORKERS}", **given))
        except MalformedFile as error:
            failed.append(number)
            assert "tokenizer.model" in (error.where or "")
    assert len(failed) == 1
    assert any("shard 1 of" in problem for problem in assemble.run(out, listed=out / LIST)["problems"])
    with pytest.raises(MalformedFile):
        convert.run(convert_request(output=f"{tmp_path / 'whole'}/", **given))


def test_an_importance_matrix_is_looked_at_by_who_uses_it(tmp_path: Path) -> None:
    """One entry that is not finite: a whole run refuses the matrix, and so does the worker that needs the entry."""
    names = [f"blk.{layer}.attn_q.weight" for layer in range(4)]
    sums = {name: numpy.ones((1, 256), numpy.float32) for name in names}
    sums[names[2]][0, 3] = numpy.nan
    path = tmp_path / "matrix.gguf"
    counts = {name: numpy.ones(1, numpy.float32) for name in names}
    path.write_bytes(imatrix.to_gguf_bytes(imatrix.Importance(path.name, sums, counts, checked=False)))
    told = {"imatrix": path, "dry_run": True}
    with pytest.raises(BadImportance, match="value 3 is nan"):
        convert.prepare(request(tmp_path / "out", **told))
    failed, users = [], []
    for number in range(1, WORKERS + 1):
        part = {"part": f"{number}/{WORKERS}"}
        job = convert.prepare(request(tmp_path / "out", dry_run=True, **part))
        job.close()
        own = [(entry.tensor.name, entry.type.importance) for one in job.plans for entry in one.entries]
        users += [number] * any(name == names[2] and use != "ignored" for name, use in own)
        try:
            convert.prepare(request(tmp_path / "out", **told, **part)).close()
        except BadImportance as error:
            assert names[2] in (error.where or "")
            failed.append(number)
    assert failed == users and 0 < len(failed) < WORKERS


def mark(source: Path, **more) -> object:
    """Of the plan in all shards."""
    given = {"split_max_size": SPLIT, "dry_run": True, "part": "2/2", **more}
    job = convert.prepare(convert_request(source=source, types=["Q8_0"], **given))
    job.close()
    return job.plans[0].shards[0].metadata[container.SET_KEY].data


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("tokenizer.model", b"\x12\x00"),
        ("tokenizer_config.json", b"\n"),
        ("added_tokens.json", b"{}"),
        ("chat_template.jinja", b"{{ messages }}"),
        ("additional_chat_templates/rag.jinja", b"{{ messages }}"),
        ("own.tiktoken", b"YQ== 0\n"),
        ("config.json", b"\n"),
    ],
)
def test_shards_of_other_files_have_another_mark(tmp_path: Path, name: str, data: bytes) -> None:
    source = Path(shutil.copytree(TINY, tmp_path / "source"))
    before = mark(source)
    assert mark(source, part=None) == before  # whoever reads the vocabulary
    (source / name).parent.mkdir(exist_ok=True)
    with open(source / name, "ab") as file:
        file.write(data)
    assert mark(source) != before


def test_shards_of_other_options_have_another_mark(tmp_path: Path) -> None:
    template = tmp_path / "own.jinja"
    template.write_text("{{ messages }}")
    words = {"pre_tokenizer": "llama-bpe", "architecture": "llama", "chat_template": template}
    given = [{}, *({name: word} for name, word in words.items()), {"metadata": ["tokenizer.ggml.add_bos_token=false"]}]
    assert len({mark(TINY, **one) for one in given}) == len(given)


def test_the_mark_has_settings_of_the_vocabulary_where_the_options_are_not_told(tmp_path: Path) -> None:
    """As another verb makes files."""
    marks = set()
    for text in ("true", "false"):
        asked = request(tmp_path / "out", "Q8_0", dry_run=True, metadata=[f"tokenizer.ggml.add_bos_token={text}"])
        job = convert.prepare(dataclasses.replace(asked, made_by={"quantcli.release.name": container.string("x")}))
        job.close()
        marks.add(job.plans[0].shards[0].metadata[container.SET_KEY].data)
    assert len(marks) == 2


def test_parts_take_about_the_same_time_not_the_same_bytes() -> None:
    job = convert.prepare(request(Path("."), dry_run=True))
    try:
        known = division.shard_costs(job.plans)
        divided = division.divide(job.plans, WORKERS)
        assert sorted(one for part in divided for one in part) == sorted(known)
        loads = [sum(known[one] for one in part) for part in divided]
        assert max(loads) <= sum(loads) / WORKERS + max(known.values())
        sizes = [sum(job.plans[plan].shards[shard].file_bytes for plan, shard in part) for part in divided]
        assert max(sizes) > 1.2 * min(sizes)  # a byte of Q4_K takes 20 times as long as one of Q8_0
        assert division.divide(job.plans, WORKERS) == divided
    finally:
        job.close()


def test_costs_are_known_for_every_type_that_can_be_encoded() -> None:
    from quantcli.ggml import kernels, tensor_types

    for name, row in tensor_types.BY_NAME.items():
        if row.kind != "integer" and kernels.can_encode(row.id, "ggml"):
            assert name in costs.NANOSECONDS, name


def test_a_part_says_what_it_is_and_counts_its_own(tmp_path: Path) -> None:
    dry = [convert.run(request(tmp_path / "out", part=f"{n}/{WORKERS}", dry_run=True)) for n in (1, 2, 3)]
    assert [one["part"] for one in dry] == ["1/3", "2/3", "3/3"] and not (tmp_path / "out").exists()
    all_of_it = convert.run(request(tmp_path / "out", dry_run=True))
    assert sum(o["bytes"] for one in dry for o in one["outputs"]) == sum(o["bytes"] for o in all_of_it["outputs"])
    files = [name for one in dry for o in one["outputs"] for name in o["files"]]
    assert sorted(files) == sorted(name for o in all_of_it["outputs"] for name in o["files"])


def test_a_part_is_resumed(together: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from quantcli.encode import sinks

    original = sinks.Sink._write

    def write(self: sinks.Sink, slab, data) -> None:
        original(self, slab, data)
        if slab.index == 5:
            raise KeyboardInterrupt

    wanted = request(tmp_path / "out", part="2/3", resume=True)
    with monkeypatch.context() as patch:
        patch.setattr(sinks.Sink, "_write", write)
        with pytest.raises(KeyboardInterrupt):
            convert.run(wanted)
    other = convert.run(request(tmp_path / "out", part="1/3", resume=True))
    result = convert.run(wanted)
    assert result["resumed_bytes"] > 0 and not other["resumed_bytes"]
    made = shards(tmp_path / "out")
    assert made == {name: shards(together)[name] for name in made}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"part": "0/3"}, "there is no part 0 of 3"),
        ({"part": "4/3"}, "there is no part 4 of 3"),
        ({"part": "3"}, "'3' is no part"),
        ({"part": "a/b"}, "is no part"),
        ({"part": "-1/3"}, "is no part"),
        ({"part": "1/99999"}, "more than"),
        ({"part": "1/3", "split_max_size": None}, "whole shards"),
        ({"part": "1/3", "imatrix": Path("auto")}, "would collect an importance matrix"),
        ({"part": "1/3", "html": Path("page.html")}, "tells of a whole model"),
        ({"part": "1/3", "quality": "best"}, "needs a finished folder of statistics"),
        ({"part": "1/3", "quality": "good", "keep_statistics": Path("kept")}, "needs a finished folder of statistics"),
    ],
)
def test_parts_that_cannot_be(tmp_path: Path, options: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        request(tmp_path / "out", **options)
    assert caught.value.hint


@pytest.mark.parametrize("name", ["my model", "o'neill", "a;b", "$HOME"])
@pytest.mark.parametrize(
    "options", [{"imatrix": Path("auto")}, {"size": SizeTexts(like="Q4_K_M")}], ids=["imatrix", "like"]
)
def test_hints_can_be_pasted(tmp_path: Path, name: str, options: dict) -> None:
    types = () if "size" in options else ("Q8_0",)
    with pytest.raises(UsageError) as caught:
        convert_request(source=tmp_path / name, types=types, split_max_size=SPLIT, part="1/2", **options)
    assert str(tmp_path / name) in shlex.split(str(caught.value.hint).partition("; ")[0])


def test_more_parts_than_shards(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="too few for 50 parts"):
        convert.run(request(tmp_path / "out", part="1/50"))


def test_a_part_of_what_is_there(parts: Path) -> None:
    with pytest.raises(OutputExists):
        convert.run(request(parts, part="1/3"))


def calibrated(output: Path, file_type: str = "Q4_0", **more) -> ConvertRequest:
    """With the fewest tokens."""
    asked = request(output, file_type, quality="good", sampled_tokens=0, **more)
    assert asked.wish is not None
    return dataclasses.replace(asked, wish=dataclasses.replace(asked.wish, tokens=8192))


def test_calibrated_parts_come_from_a_finished_folder(tmp_path: Path) -> None:
    """The bytes of one whole run; without its folder, or before it is finished, a part is refused."""
    kept = tmp_path / "kept"
    convert.run(calibrated(tmp_path / "whole", keep_statistics=kept))
    for number in (1, 2):
        convert.run(calibrated(tmp_path / "out", statistics=kept, part=f"{number}/2"))
    assert shards(tmp_path / "out") == shards(tmp_path / "whole")
    with pytest.raises(BadStatistics):  # nothing is known of another type
        convert.run(calibrated(tmp_path / "other", "Q5_0", statistics=kept, part="1/2"))
    file = kept / "Q4_0" / "blk.2.ffn_gate.safetensors"
    data, values = file.read_bytes(), random.Random(7)
    for number, ways in enumerate(({"part": "1/2"}, {"part": "2/2", "resume": True}, {}, {"resume": True})):
        for place in (values.randrange(len(data)), len(data) - 1000):  # of the order of a metric, among others
            file.unlink()
            file.write_bytes(data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :])
            with pytest.raises(BadStatistics, match="is damaged") as found:
                convert.run(calibrated(tmp_path / f"no{number}", statistics=kept, **ways))
            assert found.value.where == str(file) and f"rm -r {kept / 'Q4_0'}" in found.value.hint
    with pytest.raises(BadStatistics, match="is damaged"):
        convert.run(calibrated(tmp_path / "no", keep_statistics=kept))
    file.write_bytes(data)
    (kept / "Q4_0" / "complete.safetensors").unlink()
    with pytest.raises(BadStatistics, match="is not finished"):
        convert.run(calibrated(tmp_path / "late", statistics=kept, part="1/2"))
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UsageError, match="no folder of --keep-statistics"):
        calibrated(tmp_path / "late", statistics=empty, part="1/2")


# ---- assemble


def test_all_of_it_is_listed(parts: Path) -> None:
    result = assemble.run(parts, listed=parts / LIST)
    assert result["ok"] and [one["shards"] for one in result["sets"]] == [one["present"] for one in result["sets"]]
    sums = dict(line.split("  ")[::-1] for line in (parts / LIST).read_text().splitlines())
    assert sums == shards(parts)
    assert assemble.run(parts)["ok"]  # also against that list


def one(folder: Path, number: int, name: str = "tiny-Q4_K_M") -> Path:
    return next(folder.glob(f"{name}-{number:05d}-of-*.gguf"))


def missing_first(folder: Path) -> None:
    one(folder, 1).unlink()


def missing_middle(folder: Path) -> None:
    one(folder, 3).unlink()


def another_plan(folder: Path) -> None:
    convert.run(request(folder.parent / "other", "Q4_K_M", metadata=["general.version=2"]))
    shutil.copy(one(folder.parent / "other", 2), one(folder, 2))


def another_size(folder: Path) -> None:
    convert.run(request(folder.parent / "other", "Q4_K_M", split_max_size="900K"))
    shutil.copy(one(folder.parent / "other", 1), folder)


def truncated(folder: Path) -> None:
    path = one(folder, 2)
    path.write_bytes(path.read_bytes()[:-1000])


def lengthened(folder: Path) -> None:
    with open(one(folder, 2), "ab") as file:
        file.write(bytes(64))


def flipped(folder: Path) -> None:
    path = one(folder, 2)
    raw = bytearray(path.read_bytes())
    raw[-101] ^= 1
    path.write_bytes(raw)


def flipped_header(folder: Path) -> None:
    path = one(folder, 2)
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"blk.")] ^= 1
    path.write_bytes(raw)


def duplicated(folder: Path) -> None:
    shutil.copy(one(folder, 2), one(folder, 3))


def wrong_count(folder: Path) -> None:
    path = one(folder, 2)
    path.rename(path.with_name(path.name.replace("-of-0000", "-of-0001")))


def unfinished(folder: Path) -> None:
    (folder / f".quantcli-{one(folder, 2).name}-1-00000000.part").write_bytes(b"")


def resumable(folder: Path) -> None:
    one(folder, 2).rename(folder / f".quantcli-{one(folder, 2).name}-00000000.resume")


def foreign_file(folder: Path) -> None:
    (folder / "other.gguf").write_bytes(container.encode_header({}, []))


def no_model(folder: Path) -> None:
    (folder / "notes.gguf").write_text("not a model")


def another_model(folder: Path) -> None:
    source = Path(shutil.copytree(TINY, folder.parent / "another"))
    convert.run(convert_request(source=source, types=("Q4_0",), output=f"{folder}/", metadata=["general.name=x"]))


def listed_elsewhere(folder: Path) -> None:
    with open(folder / "part-9.sha256", "w") as file:
        file.write(f"{'0' * 64}  tiny-Q4_K_M-00009-of-00009.gguf\n")


def broken_list(folder: Path) -> None:
    (folder / "part-1.sha256").write_text("no sums\n")


def broken_name(folder: Path) -> None:
    (folder / "part-1.sha256").write_bytes(b"%064d  a\0b.gguf\n" % 0)


def contradicted(folder: Path) -> None:
    with open(folder / "part-1.sha256", "a") as file:
        file.write(f"{'0' * 64}  {one(folder, 2).name}\n{shards(folder)[one(folder, 2).name]}  {one(folder, 2).name}\n")


def earlier_list(folder: Path) -> None:
    (folder / "SHA256SUMS.old").write_text("".join(f"{'0' * 64}  {name}\n" for name in shards(folder)))


def pipe_as_list(folder: Path) -> None:
    os.mkfifo(folder / "part-1.pipe.sha256")


def copied(folder: Path) -> None:
    shutil.copy(one(folder, 2), folder / f"{one(folder, 2).stem} (1).gguf")


def capitals(folder: Path) -> None:
    (folder / "NOTES.GGUF").write_text("not a model")


def odd_one_first(folder: Path) -> None:
    another_model(folder)
    (folder / "another-Q4_0.gguf").rename(folder / "aaa.gguf")


AGAIN, AWAY, FINISH, MEND, GONE = "same command and --part", "another folder", "at work end", "mend the list", "rm "


@pytest.mark.parametrize(
    ("plant", "words", "hints"),
    [
        (missing_first, "shard 1 of [0-9]+ is missing", [AGAIN]),
        (missing_middle, "shard 3 of [0-9]+ is missing", [AGAIN]),
        (another_plan, "is of another plan", [AGAIN]),
        (another_size, "most others as one of", [AWAY]),
        (truncated, "00002-of-", [AGAIN]),
        (lengthened, "behind the last tensor", [AGAIN]),
        (flipped, "sha256 is", [AGAIN]),
        (flipped_header, "00002-of-", [AGAIN]),
        (duplicated, "says that it is shard 2", [AGAIN]),
        (wrong_count, "is named as one of", [AWAY, AGAIN]),
        (unfinished, "a part is not finished", [FINISH]),
        (resumable, "a part is not finished", [FINISH, AGAIN]),
        (foreign_file, "was not made by quantcli", [AWAY]),
        (no_model, "notes.gguf", [AGAIN, AWAY]),
        (capitals, "NOTES.GGUF", [AGAIN, AWAY]),
        (copied, "its name does not say which", [AWAY]),
        (another_model, "is of another model than tiny-", [AWAY]),
        (odd_one_first, "aaa.gguf: is of another model than tiny-", [AWAY]),
        (listed_elsewhere, "which is not here", [AGAIN]),
        (broken_list, "not a line of sha256sum", [MEND]),
        (broken_name, "not a line of sha256sum", [MEND]),
        (contradicted, "contradict each other about tiny-Q4_K_M-00002", [MEND]),
        (pipe_as_list, "not a regular file", [MEND]),
        (earlier_list, "SHA256SUMS.old says 0000", [GONE]),
    ],
)
def test_every_planted_fault_is_found(parts: Path, plant: Callable[[Path], None], words: str, hints: list[str]) -> None:
    plant(parts)
    result = assemble.run(parts, listed=parts / LIST)
    found = [re.search(words, problem) for problem in result["problems"]]
    assert not result["ok"] and any(found), result["problems"]
    assert not (parts / LIST).exists() and result["checksums"] is None
    with pytest.raises(VerificationFailed) as caught:
        assemble.require(result)
    told = [text for text in (AGAIN, AWAY, FINISH, MEND, GONE) if text in str(caught.value.hint)]
    assert sorted(told) == sorted(hints)


def test_folders_without_parts(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="is no folder"):
        assemble.run(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="holds no model"):
        assemble.run(tmp_path)
