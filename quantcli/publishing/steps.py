"""The steps of a release: plan, calibrate, convert, verify, measure, card, attest, upload.

Every step asks first what is there already, by hashes, and says so; what it did is in the manifest before the next one
begins. So a run that was stopped anywhere is run again by the same command, and does the rest.
"""

from __future__ import annotations

import os
import shlex
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from quantcli import __version__, container
from quantcli.commands import convert, verify
from quantcli.commands.job import ConvertRequest, Job
from quantcli.errors import MissingFile, UsageError, VerificationFailed
from quantcli.output import checksums, writer
from quantcli.plan.plan import Plan
from quantcli.publishing import attest, card, hub, measure, modelfile, probe
from quantcli.publishing.manifest import Manifest
from quantcli.publishing.state import Maker, Release, ReleaseRequest
from quantcli.report import release_tables
from quantcli.report.releases import CardFile, ReleaseFile, ReleaseResult
from quantcli.report.terminal import SILENT, Part, Reporter, size
from quantcli.sources import digests

MODELFILE = "Modelfile"
#: entries of a file that only the work itself knows
_FOUND_OUT = ("quantcli.calibration.", "quantcli.statistics.")


def run(request: ReleaseRequest, make: Maker, reporter: Reporter = SILENT) -> ReleaseResult:
    """Do what is not done, and show it. Raises QuantcliError; what was complete by then stays, and is kept the next
    time. ``make`` turns options, as they are typed, into a conversion."""
    start, settings = time.monotonic(), request.settings
    types = _types(request)
    if not request.dry_run:
        _check_outputs(request)
    source = _source(request, reporter)
    if not request.dry_run:
        settings.output.mkdir(parents=True, exist_ok=True)
    release = Release(request, make, reporter, source, Manifest.read(settings.output))
    result = _planned(release, types)
    if not request.dry_run:
        _calibrate(release)
        _convert(release, types)
        _sort_sums(release)
        _verify(release)
        measure.run(release)
        result["card"] = _card(release)
        _attest(release)
        result["uploaded"] = _upload(release)
        result["files"] = release.files
    result["steps"], result["seconds"] = release.steps, time.monotonic() - start
    release_tables.show_release(reporter, result)
    return result


def _check_outputs(request: ReleaseRequest) -> None:
    """Before anything is fetched: whether what is made can be written. Raises OutputFailed."""
    folder = request.settings.output
    writer.check_folder(folder)
    if request.attest is not None and request.attest.parent.resolve() != folder.resolve():  # which may be made yet
        writer.check_targets(attest.places(folder, request.attest), [], force=True)


def _types(request: ReleaseRequest) -> list[str]:
    """Those that are asked for. Raises UsageError for one that the settings lack."""
    known = {name.upper(): name for name in request.settings.types}
    for name in request.only:
        if name.upper() not in known:
            raise UsageError(
                f"{name} is no type of this release",
                where="--only",
                hint=f"{request.settings.path} has {', '.join(request.settings.types)}",
            )
    return [known[name.upper()] for name in request.only] or list(request.settings.types)


def _source(request: ReleaseRequest, reporter: Reporter) -> Path:
    """The folder or file that everything is made from. Of the hub it is fetched once: several steps read it."""
    text = request.settings.source
    if not hub.is_address(text):
        if not os.path.exists(text):
            raise MissingFile("no such file or folder", where=text, hint=f"see source in {request.settings.path}")
        return Path(text)
    if request.dry_run:
        return Path(text)
    reporter.note(f"fetch {text}")
    return hub.fetch(text)


# ---- plan


def _conversion(release: Release, types: Sequence[str], **more: Any) -> ConvertRequest:
    """The conversion of these types, into the release's folder."""
    settings = release.settings
    options = dict(settings.convert)
    matrix = release.imatrix or (Path("auto") if settings.with_importance else None)
    sums = release.folder / card.SUMS if settings.checksums else None
    try:
        asked = release.make(
            source=release.source,
            types=tuple(types),
            sizes={},
            output=f"{release.folder}{os.sep}",
            imatrix=matrix,
            threads=release.request.threads,
            checksums=sums,
            **options,
        )
    except (TypeError, AttributeError) as error:
        raise UsageError(
            f"{error}", where=f"{settings.path}: [convert]", hint="`quantcli convert --help` has the options"
        ) from error
    recorded = dict(asked.options)
    usual = settings.imatrix_text is None and settings.imatrix_chunks is None
    if settings.imatrix == "auto" and usual:  # as `convert --imatrix auto` collects it: it can be collected again
        recorded["imatrix"] = "auto"
    return replace(asked, options=recorded, names=settings.names, **more)


def _planned(release: Release, types: Sequence[str]) -> ReleaseResult:
    """Sizes, disk and time of everything, from headers alone."""
    job = convert.prepare(_conversion(release, types, dry_run=True))
    try:
        files: list[ReleaseFile] = [
            {"path": str(path), "type": one.file_type.name, "bytes": shard.file_bytes, "sha256": None}
            for one, paths in zip(job.plans, job.files, strict=True)
            for path, shard in zip(paths, one.shards, strict=True)
        ]
        there = release.folder if release.folder.exists() else _existing(release.folder)
        estimate = sum(probe.seconds(one, job.threads) for one in job.plans)
        disk, free = sum(one["bytes"] for one in files), shutil.disk_usage(there).free
        for one in files:
            state = "planned" if release.request.dry_run else "done"
            release.said("plan", os.path.basename(one["path"]), state, f"{one['bytes']:,} bytes")
        if disk > free + sum(os.path.getsize(one["path"]) for one in files if os.path.exists(one["path"])):
            release.reporter.warning(f"the files take {size(disk)}, {size(free)} are free")
        return {
            "schema": 1,
            "dry_run": release.request.dry_run,
            "output": str(release.folder),
            "source": release.settings.source,
            "steps": [],
            "files": files,
            "card": [],
            "disk": disk,
            "free": free,
            "estimate": estimate,
            "uploaded": None,
            "seconds": 0.0,
        }
    finally:
        job.close()


def _existing(path: Path) -> Path:
    return next(one for one in (path, *path.absolute().parents) if one.exists())


# ---- calibrate, convert, verify


def _calibrate(release: Release) -> None:
    """The importance matrix: a file that is given, or one that is collected into the folder."""
    settings = release.settings
    if settings.imatrix is None:
        return
    if isinstance(settings.imatrix, Path):
        if not settings.imatrix.is_file():
            raise MissingFile("is not there", where=str(settings.imatrix), hint=f"see imatrix in {settings.path}")
        release.imatrix = settings.imatrix
        release.said("calibrate", settings.imatrix.name, "kept", "it is given")
        return
    from quantcli.commands import imatrix as collecting  # brings the runner

    path = release.folder / "imatrix.gguf"
    text = settings.imatrix_text
    told = f"{__version__} {release.settings.source} {_digest(text) if text else 'bundled'} {settings.imatrix_chunks}"
    known = release.manifest.get("calibrate", told)
    if known is not None and path.exists() and _digest(path) == known:
        release.imatrix = path
        release.said("calibrate", path.name, "kept")
        return
    with release.timed("calibrate", path.name) as details:
        begun = release.manifest.get("calibrating", path.name) == told
        release.manifest.put("calibrating", path.name, told)
        result = collecting.execute(
            collecting.ImatrixRequest(
                model=release.source,
                output=path,
                text=text,
                chunks=settings.imatrix_chunks,
                resume=begun and path.exists(),
                force=True,
            ),
            release.reporter,
        )
        if result["interrupted"]:
            raise KeyboardInterrupt
        release.manifest.put("calibrate", told, _digest(path))
        details.append(f"{result['chunks']} chunks")
    release.imatrix = path


def _digest(path: Path) -> str:
    return digests.sha256([str(path)])[str(path)]


def _convert(release: Release, types: Sequence[str]) -> None:
    """All types that are not there, from one read."""
    missing = []
    # what can be resumed has complete headers from the start: they are compared with those that lie there
    job = convert.prepare(_conversion(release, types, force=True, resume=True), release.reporter)
    try:
        for number, one in enumerate(job.plans):
            if not _is_there(release, job, number, one):
                missing.append(one.file_type.name)
    finally:
        job.close()
    if not missing:
        return
    start = time.monotonic()
    result = convert.run(_conversion(release, missing, force=True, resume=True), Part(release.reporter))
    for output in result["outputs"]:
        for shard in output.get("shards", []):
            name = os.path.basename(shard["path"])
            release.manifest.put("convert", name, shard["sha256"])
            _note_file(release, Path(shard["path"]), output["type"], shard["sha256"])
            release.said("convert", name, "done", f"{shard['bytes']:,} bytes", time.monotonic() - start)


def _is_there(release: Release, job: Job, number: int, one: Plan) -> bool:
    """Whether all files of a plan lie there, made from the same source with the same options, and unchanged."""
    paths = job.files[number]
    for path, shard in zip(paths, one.shards, strict=True):
        if not path.exists() or path.stat().st_size != shard.file_bytes or not _says_the_same(path, shard.metadata):
            return False
        known = release.manifest.get("convert", path.name)
        if known is not None and known != _digest(path):
            release.reporter.warning(f"{path} is damaged: its sha256 is another one than that of its making")
            return False
    for path in paths:
        digest = _digest(path)
        release.manifest.put("convert", path.name, digest)
        if release.settings.checksums:
            checksums.add(release.folder / card.SUMS, {path: digest})
        _note_file(release, path, one.file_type.name, digest)
        release.said("convert", path.name, "kept", f"{path.stat().st_size:,} bytes")
    return True


def _sort_sums(release: Release) -> None:
    """The list of checksums by name: the order in which files were made anew is no reason to publish it again."""
    path = release.folder / card.SUMS
    if not path.exists():
        return
    text = path.read_text("utf-8", "surrogateescape")
    ordered = "".join(f"{line}\n" for line in sorted(text.splitlines(), key=lambda line: line.partition("  ")[2]))
    if ordered != text:
        writer.write_text(path, ordered)


def _note_file(release: Release, path: Path, file_type: str, digest: str) -> None:
    release.files.append({"path": str(path), "type": file_type, "bytes": path.stat().st_size, "sha256": digest})


def _says_the_same(path: Path, metadata: dict[str, container.Value]) -> bool:
    """Whether the file's metadata are those that the conversion would write, as far as they are known before it."""
    found = container.read_header(path).metadata
    wanted = {key: value for key, value in metadata.items() if not key.startswith(_FOUND_OUT)}
    return all(key in found and found[key] == value for key, value in wanted.items())


def _verify(release: Release) -> None:
    """Every file's structure and scales, once for each content. Raises VerificationFailed."""
    todo = []
    for one in release.files:
        if release.manifest.get("verify", one["sha256"] or "") is None:
            todo.append(Path(one["path"]))
        else:
            release.said("verify", os.path.basename(one["path"]), "kept")
    if not todo:
        return
    result = verify.run(todo, Part(release.reporter))
    for path, checked in zip(todo, result["files"], strict=True):
        if not checked["ok"]:
            raise VerificationFailed(
                checked["problem"] or "is not sound", where=str(path), hint=f"remove it: rm {shlex.quote(str(path))}"
            )
        release.manifest.put("verify", str(checked["sha256"]), path.name)
        release.said("verify", path.name, "done")


# ---- card, attestation, upload


def _card(release: Release) -> list[CardFile]:
    settings = release.settings
    if not settings.card:
        return []
    with release.timed("card", card.NAME):
        fields = dict(settings.card_fields)
        if hub.is_address(settings.source):
            fields = {"base_model": hub.repository_of(settings.source), "base_model_relation": "quantized"} | fields
        result = card.run(release.folder, SILENT, force=True, fields=fields)
    if settings.modelfile:
        best = next((one for one in result["files"] if one["recommended"]), result["files"][0])
        header = container.read_header(release.folder / best["file"])
        writer.write_text(release.folder / MODELFILE, modelfile.text(best["file"], header.metadata))
        release.said("card", MODELFILE, "done", best["file"])
    return result["files"]


def _attest(release: Release) -> None:
    settings, target = release.settings, release.request.attest
    if not settings.attest and target is None and settings.sign is None:
        return
    figures = measure.figures(release.folder)
    paths = sorted(Path(one["path"]) for one in release.files)
    subjects = [attest.subject(path, figures.get(path.name, ())) for path in paths]
    with release.timed("attest", (target or release.folder / attest.STATEMENT).name):
        written = attest.write(release.folder, subjects, target)
        manifest = release.folder / attest.SIGNING
        statement = attest.signing_statement(release.folder, [release.manifest.path.name])
        writer.write_text(manifest, attest.text(statement))
        for path in (*written, manifest):
            if settings.sign is not None:
                attest.sign(settings.sign, path)


def _upload(release: Release) -> str | None:
    """Files that the repository lacks or has otherwise: each model in a commit of its own, then the rest in one."""
    target = release.settings.upload
    if target is None:
        return None
    names = [one.name for one in sorted(release.folder.iterdir()) if one.is_file() and _is_published(one)]
    question = f"upload {len(names)} files to hf://{target.repository}?"
    if not release.request.confirm(question):
        release.said("upload", target.repository, "skipped", "answer yes, or run it again with --yes")
        return None
    repository = hub.Repository(target.repository, private=target.private)
    paths = [release.folder / name for name in names]
    models = [path for path in paths if path.suffix == ".gguf"]
    rest = [path for path in paths if path.suffix != ".gguf"]
    for group in [[path] for path in models] + [rest]:
        missing = [path for path in group if not repository.has(path)]
        for path in group:
            if path not in missing:
                release.said("upload", path.name, "kept")
        if missing:
            with release.timed("upload", ", ".join(path.name for path in missing)):
                repository.put(missing, f"quantcli {__version__}: {', '.join(path.name for path in missing)[:200]}")
    return target.repository


def _is_published(path: Path) -> bool:
    return not path.name.startswith(".") and path.name != "release.json"
