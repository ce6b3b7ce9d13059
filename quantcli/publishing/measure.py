"""What the files of a release lose, on texts: results of `compare`, kept by the hashes of what they are of."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from quantcli import __version__
from quantcli.errors import MissingFile
from quantcli.output import writer
from quantcli.publishing import card, hub
from quantcli.publishing.state import Release, today
from quantcli.report.releases import Measurements
from quantcli.sources import digests

TOGETHER = 4  # models that are measured in one run: the reference runs once for each


def run(release: Release) -> None:
    """Measure what is not measured, then write measurements.json. Raises QuantcliError."""
    evaluation = release.settings.evaluation
    for text in evaluation.texts:
        if not text.is_file():
            raise MissingFile("is not there", where=str(text), hint=f"see evaluate.texts in {release.settings.path}")
    firsts = _firsts(release)
    for text in evaluation.texts:
        missing = []
        for path, digest in firsts.items():
            if release.manifest.get("measure", _key(release, digest, text)) is None:
                missing.append(path)
            else:
                release.said("measure", f"{path.name} on {text.name}", "kept")
        for start in range(0, len(missing), TOGETHER):
            _compare(release, missing[start : start + TOGETHER], text, firsts)
    if evaluation.texts:
        _write(release, firsts)


def _firsts(release: Release) -> dict[Path, str]:
    """The file that each model begins with, and the hash of all its files together."""
    found: dict[Path, str] = {}
    for listed in card.models(release.folder):
        paths = [str(header.path) for header in listed.headers]
        names = {os.path.realpath(one["path"]) for one in release.files}
        if os.path.realpath(paths[0]) in names:
            found[listed.path] = " ".join(digests.sha256(paths).values())
    return found


def _key(release: Release, digest: str, text: Path) -> str:
    """What a figure depends on: the model, the text, the reference, the settings."""
    evaluation = release.settings.evaluation
    told = digests.sha256([str(text)])[str(text)]
    return f"{__version__} {digest} {told} {_reference(release)} {evaluation.context} {evaluation.chunks}"


def _reference(release: Release) -> str:
    return " ".join(reference(release).values())


def reference(release: Release) -> dict[str, str]:
    """Name -> sha256 of the files that hold the source's weights."""
    source = release.source
    paths = sorted(source.glob("*.safetensors")) if source.is_dir() else [source]
    return {path.name: digest for path, digest in _hashed(paths)}


def _hashed(paths: Sequence[Path]) -> list[tuple[Path, str]]:
    found = digests.sha256([str(path) for path in paths])
    return [(path, found[str(path)]) for path in paths]


def _compare(release: Release, models: Sequence[Path], text: Path, firsts: dict[Path, str]) -> None:
    from quantcli.commands import compare  # brings the runner
    from quantcli.runner.session import RunOptions

    evaluation, threads = release.settings.evaluation, release.request.threads
    request = compare.CompareRequest(
        reference=release.source,
        models=models,
        texts=(text,),
        length=evaluation.context,
        chunks=evaluation.chunks,
        options=RunOptions(threads=threads, length=evaluation.context),
    )
    names = ", ".join(path.name for path in models)
    with release.timed("measure", f"{names} on {text.name}") as details:
        job = compare.prepare(request)
        try:
            result = compare.execute(job, release.reporter)
        finally:
            job.close()
        if result["interrupted"]:
            raise KeyboardInterrupt
        for path, model in zip(models, result["models"], strict=True):
            alone = {key: value for key, value in model.items() if key != "difference"}  # from one that is not there
            one = {**result, "models": [alone]}
            release.manifest.put("measure", _key(release, firsts[path], text), one)
            details.append(f"{model['kld']['mean']:.4f}")


def command(release: Release, models: Sequence[Path]) -> str:
    """The command line that measures the same."""
    evaluation = release.settings.evaluation
    source = release.settings.source if hub.is_address(release.settings.source) else release.source.absolute().name
    words = ["quantcli", "compare", source, *(path.name for path in models)]
    words += [word for text in evaluation.texts for word in ("-f", text.name)]
    words += ["--ctx", str(evaluation.context)]
    words += ["--chunks", str(evaluation.chunks)] if evaluation.chunks is not None else []
    return shlex.join([*words, "--json"])


def _write(release: Release, firsts: dict[Path, str]) -> None:
    """measurements.json: written anew only when a figure is; its date is that of the last one."""
    texts = release.settings.evaluation.texts
    found: Measurements = {
        "schema": 1,
        "command": command(release, list(firsts)),
        "date": today(),
        "quantcli": __version__,
        "texts": [{"name": path.name, "sha256": digest} for path, digest in _hashed(texts)],
        "reference": reference(release),
        "files": {path.name: digest for path, digest in firsts.items()},
        "results": [
            release.manifest.get("measure", _key(release, digest, text)) for text in texts for digest in firsts.values()
        ],
    }
    earlier = card.measurements(release.folder)
    if earlier is not None and {**earlier, "date": ""} == {**found, "date": ""}:
        release.said("measure", card.RAW, "kept")
        return
    writer.write_text(release.folder / card.RAW, json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    release.said("measure", card.RAW, "done")


def figures(folder: Path) -> dict[str, list[tuple[str, float]]]:
    """File -> (text, mean divergence) of every text, as measurements.json has them."""
    measured = card.measurements(folder)
    found: dict[str, list[tuple[str, float]]] = {}
    for result in measured["results"] if measured is not None else []:
        models: Any = result["models"]
        for model in models:
            found.setdefault(f"{model['name']}.gguf", []).append((model["text"], model["kld"]["mean"]))
    return found
