"""Statements about files: where they come from (in-toto, SLSA provenance), what they are (CycloneDX ML-BOM), and a
manifest of a folder in the layout of OpenSSF model-signing. Plain JSON, the same for the same files.

A signature is made by a command of the user's (`sign`): keys are no business of this program.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quantcli import __version__, container
from quantcli.errors import OutputFailed, UsageError
from quantcli.output import writer
from quantcli.sources import digests

STATEMENT, BOM, SIGNING = "attestation.json", "attestation.cdx.json", "model-signing.json"
SIGNATURE = "model.sig"  # what model-signing calls its own
_SOURCE = "quantcli.source.sha256."
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:quantcli:bom")


@dataclass(frozen=True)
class Subject:
    """A GGUF file: what it says of itself, and its hash. ``figures``: (text, mean KL divergence)."""

    name: str
    sha256: str
    metadata: Mapping[str, str]
    figures: Sequence[tuple[str, float]] = field(default=())


def subject(path: Path, figures: Sequence[tuple[str, float]] = ()) -> Subject:
    """Read the file's metadata (texts alone) and hash it. Raises what reading raises."""
    entries = container.read_header(path).metadata
    texts = {key: value.data for key, value in entries.items() if isinstance(value.data, str)}
    return Subject(path.name, digests.sha256([str(path)])[str(path)], texts, figures)


def places(folder: Path, statement: Path | None = None) -> tuple[Path, Path]:
    """Where the statement goes (see `write`), and the bill of materials."""
    target = statement or folder / STATEMENT
    return target, target.with_name(target.name.removesuffix(".json") + ".cdx.json")


def write(folder: Path, subjects: Sequence[Subject], statement: Path | None = None) -> list[Path]:
    """The statement at ``statement`` (attestation.json in ``folder``), the bill of materials beside it; their paths."""
    target, bom = places(folder, statement)
    writer.write_text(target, text(in_toto(subjects)))
    writer.write_text(bom, text(cyclonedx(subjects)))
    return [target, bom]


def text(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


# ---- in-toto


def in_toto(subjects: Sequence[Subject]) -> dict[str, Any]:
    """An in-toto statement (v1) with SLSA provenance (v1): files, options, hashes of what they were made from."""
    options = {one.name: json.loads(one.metadata.get("quantcli.options", "{}")) for one in subjects}
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": one.name, "digest": {"sha256": one.sha256}} for one in subjects],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "urn:quantcli:convert:1",
                "externalParameters": options,
                "resolvedDependencies": [
                    {"name": name, "digest": {"sha256": digest}} for name, digest in _materials(subjects).items()
                ],
            },
            "runDetails": {"builder": {"id": "urn:quantcli", "version": {"quantcli": __version__}}},
        },
    }  # fmt: skip


def _materials(subjects: Sequence[Subject]) -> dict[str, str]:
    """Name -> hash of everything that the files were made from."""
    found: dict[str, str] = {}
    for one in subjects:
        for key, text in one.metadata.items():
            if key.startswith((_SOURCE, "quantcli.lora.sha256.")):
                found[key.rpartition("sha256.")[2]] = text
        if "quantize.imatrix.sha256" in one.metadata:
            found[one.metadata.get("quantize.imatrix.file", "imatrix")] = one.metadata["quantize.imatrix.sha256"]
        if "quantcli.statistics.sha256" in one.metadata:
            found["statistics"] = one.metadata["quantcli.statistics.sha256"]
    return found


# ---- CycloneDX


def cyclonedx(subjects: Sequence[Subject]) -> dict[str, Any]:
    """A CycloneDX 1.6 bill of materials: every file as a machine-learning model with its card and its ancestor."""
    first = subjects[0].metadata
    name = first.get("general.name", subjects[0].name)
    source = {
        "type": "machine-learning-model",
        "bom-ref": "source",
        "name": first.get("quantcli.source.name", name),
        "hashes": [{"alg": "SHA-256", "content": digest} for digest in _weights(subjects)],
    }
    tool = {"type": "application", "name": "quantcli", "version": __version__}
    identity = uuid.uuid5(_NAMESPACE, "".join(one.sha256 for one in subjects))
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{identity}",
        "version": 1,
        "metadata": {
            "tools": {"components": [tool]},
            "component": {"type": "machine-learning-model", "bom-ref": "release", "name": name},
        },
        "components": [source, *(_component(one) for one in subjects)],
        "dependencies": [
            {"ref": "release", "dependsOn": [f"file:{one.name}" for one in subjects]},
            *({"ref": f"file:{one.name}", "dependsOn": ["source"]} for one in subjects),
        ],
    }


def _weights(subjects: Sequence[Subject]) -> list[str]:
    names = (".safetensors", ".gguf")
    return [digest for name, digest in _materials(subjects[:1]).items() if name.endswith(names)]


def _component(one: Subject) -> dict[str, Any]:
    architecture = one.metadata.get("general.architecture", "unknown")
    card: dict[str, Any] = {
        "modelParameters": {"architectureFamily": architecture, "modelArchitecture": architecture},
        "properties": [
            {"name": key, "value": one.metadata[key]}
            for key in ("quantcli.version", "quantcli.options", "quantize.imatrix.sha256")
            if key in one.metadata
        ],
    }
    if one.figures:
        metrics = [{"type": "KL divergence", "value": f"{value:.6g}", "slice": text} for text, value in one.figures]
        card["quantitativeAnalysis"] = {"performanceMetrics": metrics}
    component: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": f"file:{one.name}",
        "name": one.name,
        "hashes": [{"alg": "SHA-256", "content": one.sha256}],
        "modelCard": card,
    }
    if "general.license" in one.metadata:
        component["licenses"] = [{"license": {"name": one.metadata["general.license"]}}]
    return component


# ---- model-signing


def signing_statement(folder: Path, ignored: Sequence[str] = ()) -> dict[str, Any]:
    """What model-signing signs of a folder: every file's sha256, and one over all of them, in the order of the names.

    ``ignored``: names in the folder that are left out; signatures, the statement itself and hidden files always are.
    """
    left_out = sorted({SIGNATURE, SIGNING, f"{SIGNING}.sig", *ignored, *(p.name for p in folder.glob(".*"))})
    paths = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    names = sorted(path.relative_to(folder).as_posix() for path in paths)
    kept = [name for name in names if name.split("/")[0] not in left_out]
    found = digests.sha256([str(folder / name) for name in kept])
    resources = [{"name": name, "algorithm": "sha256", "digest": found[str(folder / name)]} for name in kept]
    root = hashlib.sha256(b"".join(bytes.fromhex(one["digest"]) for one in resources)).hexdigest()
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": folder.resolve().name, "digest": {"sha256": root}}],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": left_out,
            },
            "resources": resources,
        },
    }


def sign(command: str, path: Path) -> None:
    """Run the user's command for ``path``, which takes the place of {} or comes last. No shell is in between.

    Raises UsageError for a line that is none, OutputFailed where the command fails.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UsageError(f"no command line: {error}", where="--sign") from error
    if not words:
        raise UsageError("no command", where="--sign", hint="for example --sign 'minisign -S -m {}'")
    line = [word.replace("{}", str(path)) for word in words]
    line += [] if any("{}" in word for word in words) else [str(path)]
    try:
        done = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except OSError as error:
        raise OutputFailed(f"{words[0]}: {error.strerror}", where="--sign", hint="is the program installed?") from error
    if done.returncode:
        text = (done.stderr or done.stdout).strip().splitlines()
        raise OutputFailed(
            f"{words[0]} ended with {done.returncode}: {text[-1] if text else 'it said nothing'}", where=str(path)
        )
