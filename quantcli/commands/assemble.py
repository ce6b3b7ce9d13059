"""`quantcli assemble FOLDER`: are all parts of a conversion there, whole, and of one plan?

What several machines have written into one folder is checked as a whole: names and counts, the mark that every shard
has of its plan, every block and every byte (against all lists of checksums that are there), and nothing that does not
belong. Only then a list of checksums is written.
"""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from quantcli import container
from quantcli.commands import verify
from quantcli.container import Header
from quantcli.errors import MalformedFile, MissingFile, QuantcliError, UsageError, VerificationFailed
from quantcli.output import checksums, journal, writer
from quantcli.output.checksums import Checksums
from quantcli.report import assembled
from quantcli.report.assembled import AssembleResult, SetResult
from quantcli.report.results import CheckedFile
from quantcli.report.terminal import SILENT, Reporter

LISTS = ("SHA256SUMS", ".sha256", ".sha256sum")  # what lists of checksums are called, or end in
SHOWN = 10  # missing shards that are named
SHOWN_REMEDIES = 4  # in the error's hint
# What helps, by the kind of a problem.
AGAIN = (
    "make what is missing or wrong again with the same command and --part (and --force, where it is there): it needs "
    "nothing of the others"
)
AWAY = "move what does not belong here into another folder"
FINISH = "let the parts that are at work end, or run them again"
MEND = "mend the list, or remove it: --checksums writes a new one"
ARCHITECTURE, TYPE, VERSION = "general.architecture", "general.type", "quantcli.version"
COUNT, NUMBER, TENSORS = "split.count", "split.no", "split.tensors.count"
# Metadata that the outputs of one model do not share.
OWN = ("general.file_type", "general.quantization_version", "general.alignment")
OWN_GROUPS = ("quantcli.", "quantize.", "split.")


class Problem(str):
    """What is wrong, for people, and what helps."""

    remedies: tuple[str, ...]

    def __new__(cls, text: str, *remedies: str) -> Problem:
        made = super().__new__(cls, text)
        made.remedies = remedies
        return made


@dataclass
class Output:
    """A model in the folder: its shards by number (from 0), or one file. ``count``: of its shards."""

    name: str
    count: int
    headers: dict[int, Header] = field(default_factory=dict)

    @property
    def first(self) -> Header | None:
        return self.headers.get(0)


def run(folder: Path, reporter: Reporter = SILENT, *, listed: Path | None = None) -> AssembleResult:
    """Check everything in ``folder``; write the list ``listed`` where all is well. Raises MissingFile, UsageError."""
    if not folder.is_dir():
        raise MissingFile("is no folder", where=str(folder), hint="give the folder that the parts were written to")
    if listed is not None:
        writer.check_targets([listed], [], force=True)
    problems, outputs = _look(folder)
    if not outputs and not problems:
        raise UsageError("holds no model", where=str(folder), hint="convert into it first: --part 1/16 -o FOLDER/")
    paths = [header.path for one in outputs for _, header in sorted(one.headers.items())]
    with reporter.progress("assemble", sum(map(os.path.getsize, paths))) as advance:
        files = verify.check(paths, None, advance, alone=True)["files"]
    problems += [Problem(problem, AGAIN) for one in files if (problem := one["problem"])]
    problems += _against_lists(folder, listed, files)
    result: AssembleResult = {
        "schema": 1,
        "ok": not problems,
        "folder": str(folder),
        "sets": [_summary(one) for one in outputs],
        "files": files,
        "problems": list(dict.fromkeys(problems)),
        "checksums": None,
    }
    if listed is not None and not problems:
        checksums.add(listed, {Path(one["path"]): str(one["sha256"]) for one in files})
        result["checksums"] = str(listed)
    assembled.show(reporter, result)
    return result


def require(result: AssembleResult) -> None:
    """Raises VerificationFailed where something is wrong."""
    if not result["ok"]:
        problems = result["problems"]
        remedies = dict.fromkeys(text for one in problems if isinstance(one, Problem) for text in one.remedies)
        raise VerificationFailed(
            f"{len(problems)} problem{'s' * (len(problems) != 1)}",
            where=result["folder"],
            hint="; ".join(list(remedies)[:SHOWN_REMEDIES]),
        )


# ---- what lies in the folder


def _look(folder: Path) -> tuple[list[Problem], list[Output]]:
    """(problems, models) of a folder, from names and headers."""
    names = sorted(os.listdir(folder))
    problems = list(_unfinished(folder, names))
    headers: list[Header] = []
    models = [folder / name for name in names if name.lower().endswith(".gguf") and not name.startswith(".")]
    for path in models:
        try:
            headers.append(container.read_header(path))
        except QuantcliError as error:
            problems.append(Problem(str(error), AGAIN, *(() if container.split_name(path.name) else (AWAY,))))
    headers = [one for one in headers if _text(one, TYPE) != "imatrix"]
    broken = set(models) - {one.path for one in headers}
    outputs = []
    for one in _grouped(headers, problems):
        there = {container.split_name(path.name) for path in broken}
        numbers = {found[1] for found in there if found is not None and found[0] == one.name}
        problems += _of_set(one, numbers)
        outputs.append(one)
    problems += _strangers(outputs)
    return problems, outputs


def _unfinished(folder: Path, names: Sequence[str]) -> Iterator[Problem]:
    """What a part that is at work, or was killed, has in the folder."""
    for name in names:
        if name.startswith(writer.PREFIX) and name.endswith((writer.SUFFIX, journal.KEPT, journal.SUFFIX)):
            text = f"{folder / name}: a part is not finished: run it again (--resume goes on), or remove this file"
            yield Problem(text, FINISH)


def _grouped(headers: Sequence[Header], problems: list[Problem]) -> list[Output]:
    """The models that the files say they are of: by the beginning of their names."""
    found: dict[str, Output] = {}
    counts: dict[str, Counter[int]] = {}

    def away(header: Header, text: str) -> None:
        problems.append(Problem(f"{header.path}: {text}", AWAY))

    for header in headers:
        name = container.split_name(header.path.name)
        if name is not None:
            counts.setdefault(name[0], Counter())[name[2]] += 1
    for header in headers:
        name = container.split_name(header.path.name)
        if name is None:
            if _number(header, COUNT, 1) > 1:
                away(header, "is a shard, and its name does not say which")
            else:
                found[header.path.name] = Output(header.path.name, 1, {0: header})
            continue
        prefix, index, count = name
        usual = counts[prefix].most_common(1)[0][0]
        if count != usual:
            away(header, f"is named as one of {count} shards, most others as one of {usual}")
        elif 0 <= index < count:
            found.setdefault(prefix, Output(prefix, count)).headers[index] = header
        else:
            away(header, f"there is no shard {index + 1} of {count}")
    return list(found.values())


def _of_set(one: Output, broken: set[int]) -> Iterator[Problem]:
    """What is wrong with the shards of one model. ``broken``: numbers of those that cannot be read."""
    yield from (Problem(text, AGAIN) for text in _contradictions(one, broken))


def _contradictions(one: Output, broken: set[int]) -> Iterator[str]:
    if one.count == 1:
        return
    missing = [number + 1 for number in range(one.count) if number not in one.headers and number not in broken]
    if missing:
        more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        shards, are = ("shard", "is") if len(missing) == 1 else ("shards", "are")
        yield f"{one.name}: {shards} {', '.join(map(str, missing[:SHOWN]))}{more} of {one.count} {are} missing"
    marks = Counter(_text(header, container.SET_KEY) for header in one.headers.values())
    usual = marks.most_common(1)[0][0]
    owners: dict[str, Header] = {}
    for number, header in sorted(one.headers.items()):
        stated = _number(header, NUMBER, -1), _number(header, COUNT, 1)
        if stated != (number, one.count):
            yield f"{header.path}: says that it is shard {stated[0] + 1} of {stated[1]}"
        if _text(header, container.SET_KEY) != usual:
            yield f"{header.path}: is of another plan (types, split size, source, options or version) than most others"
        for tensor in header.tensors:
            other = owners.setdefault(tensor.name, header)
            if other is not header:
                yield f"{header.path}: tensor {tensor.name} is also in {other.path.name}"
                break
    total = max((_number(header, TENSORS, 0) for header in one.headers.values()), default=0)
    if not missing and not broken and total != len(owners):
        yield f"{one.name}: the shards hold {len(owners)} tensors, their plan has {total}"


def _strangers(outputs: Sequence[Output]) -> Iterator[Problem]:
    """Files of other programs, and of another model than the rest."""
    made = []
    for one in outputs:
        first = one.first
        if first is None:
            continue
        if _text(first, VERSION) is None:
            yield Problem(f"{first.path}: was not made by quantcli: it does not belong here", AWAY)
        elif _text(first, TYPE) in (None, "model"):
            made.append((one, _model(first)))
    usual = max(Counter(model for _, model in made).items(), key=lambda item: item[1], default=((), 0))[0]
    usually = next((one.name for one, model in made if model == usual), "")
    for one, model in made:
        if model != usual and one.first is not None:
            yield Problem(f"{one.first.path}: is of another model than {usually}: it does not belong here", AWAY)


def _model(header: Header) -> tuple[tuple[str, str], ...]:
    """What the metadata of a file say of the model itself: the same in all of its types."""
    return tuple(
        (key, repr(value.data))
        for key, value in header.metadata.items()
        if key not in OWN and not key.startswith(OWN_GROUPS) and not isinstance(value.data, container.Strings)
    )


def _number(header: Header, key: str, default: int) -> int:
    value = header.metadata.get(key)
    return value.data if value is not None and isinstance(value.data, int) else default


def _text(header: Header, key: str) -> str | None:
    value = header.metadata.get(key)
    return value.data if value is not None and isinstance(value.data, str) else None


def _summary(one: Output) -> SetResult:
    headers = list(one.headers.values())
    mark = _text(headers[0], container.SET_KEY) if headers else None
    return {
        "name": one.name,
        "shards": one.count,
        "present": len(headers),
        "bytes": sum(header.file_size for header in headers),
        "tensors": sum(len(header.tensors) for header in headers),
        "plan": mark,
    }


# ---- lists of checksums


def _against_lists(folder: Path, listed: Path | None, files: Sequence[CheckedFile]) -> Iterator[Problem]:
    """Every sum of every list that is about a file of the folder."""
    lists = [folder / name for name in sorted(os.listdir(folder)) if name.startswith(LISTS[0]) or name.endswith(LISTS)]
    if listed is not None and listed.exists() and all(os.path.realpath(listed) != os.path.realpath(p) for p in lists):
        lists.append(listed)
    for path in lists:
        try:
            if path.exists() and not path.is_file():  # a pipe would be waited for
                raise MalformedFile("is no list of checksums: not a regular file", where=str(path))
            yield from _against(Checksums(path), folder, files)
        except QuantcliError as error:
            yield Problem(str(error), MEND)


def _against(known: Checksums, folder: Path, files: Sequence[CheckedFile]) -> Iterator[Problem]:
    """What one list says. Where no sum of it is right it is another conversion's."""
    wrong, right = [], 0
    for one in files:
        try:
            wanted = known.find(Path(one["path"]))
        except QuantcliError as error:
            yield Problem(str(error), MEND)
            continue
        if one["sha256"] is not None and wanted is not None:
            right += wanted == one["sha256"]
            if wanted != one["sha256"]:
                wrong.append(f"{one['path']}: sha256 is {one['sha256']}, {known.path.name} says {wanted}")
    gone = f"rm {shlex.quote(str(known.path))} where that list is of an earlier conversion"
    remedy = AGAIN if right or not wrong else gone
    real = os.path.realpath(folder)
    for name in known.sums:
        place = os.path.realpath(known.folder / name)
        if os.path.dirname(place) == real and not os.path.exists(place):
            wrong.append(f"{known.path}: lists {name}, which is not here")
    yield from (Problem(text, remedy) for text in wrong)
