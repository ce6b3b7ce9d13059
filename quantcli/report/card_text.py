"""A model card as Markdown with front matter. Texts come from files that anyone may have made: they are escaped."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quantcli.report.releases import CardFile, Measurements
from quantcli.report.terminal import printable, size

MARK = "<!-- written by `quantcli card`: a new run replaces this page -->"
SOURCE = "quantcli.source.sha256."
_MARKUP = re.compile(r"([\\`*_{}\[\]<>|#~])")


@dataclass(frozen=True)
class Facts:
    """What the files say: texts and lists of the metadata, options by file; ``fields``: front matter of the user's."""

    version: str
    texts: Mapping[str, str]
    lists: Mapping[str, Sequence[str]]
    options: Mapping[str, str]
    fields: Mapping[str, Any]
    types: Sequence[str]

    @property
    def name(self) -> str:
        return self.texts.get("general.name") or "model"

    @property
    def source(self) -> str:
        """ "owner/name" where it is known, else the name."""
        return str(self.fields.get("base_model") or self.texts.get("quantcli.source.name") or self.name)


def render(facts: Facts, files: Sequence[CardFile], measured: Measurements | None, drawn: bool) -> str:
    """The page. ``drawn``: divergence.svg lies beside it."""
    parts = [
        _front_matter(facts),
        MARK,
        f"# {plain(facts.name)}, GGUF",
        f"Files for llama.cpp and what is built on it, made from {_linked(facts.source)} by quantcli {facts.version}.",
        "## Which file",
        _table(files, measured),
        _choice(files),
    ]
    if drawn:
        parts.append("![size of each file against its divergence from the source](divergence.svg)")
    parts += [_measured(measured), _made(facts, files), _verified(facts, files), _running(files)]
    return "\n\n".join(part for part in parts if part) + "\n"


def plain(text: str) -> str:
    """A text that Markdown shows as it is, on one line."""
    return _MARKUP.sub(r"\\\1", printable(text).replace("\n", " "))


def code(text: str) -> str:
    return "`" + printable(text).replace("`", "'").replace("\n", " ").replace("|", "\\|") + "`"


def _linked(source: str) -> str:
    known = re.fullmatch(r"[\w.-]+/[\w.-]+", source)
    return f"[{plain(source)}](https://huggingface.co/{source})" if known else plain(source)


def _front_matter(facts: Facts) -> str:
    fields: dict[str, Any] = {}
    if re.fullmatch(r"[\w.-]+/[\w.-]+", facts.source):
        fields |= {"base_model": facts.source, "base_model_relation": "quantized"}
    for field, key in (("license", "license"), ("license_name", "license.name"), ("license_link", "license.link")):
        if f"general.{key}" in facts.texts:
            fields[field] = facts.texts[f"general.{key}"]
    if facts.lists.get("general.languages"):
        fields["language"] = list(facts.lists["general.languages"])
    fields["tags"] = list(dict.fromkeys(("gguf", "quantized", *facts.lists.get("general.tags", ()))))
    fields["quantized_by"] = "quantcli"
    fields |= facts.fields
    lines = [f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in fields.items()]
    return "\n".join(("---", *lines, "---"))


def _table(files: Sequence[CardFile], measured: Measurements | None) -> str:
    texts = [one["name"] for one in measured["texts"]] if measured is not None else []
    figures = _figures(measured)
    heads = ["file", "type", "size", "bits per weight", *(f"KLD, {plain(text)}" for text in texts), "note"]
    lines = ["| " + " | ".join(heads) + " |", "|---|---|--:|--:|" + "--:|" * len(texts) + "---|"]
    for one in files:
        known = one["kld"] is not None
        klds = [_kld(figures.get((one["file"], text))) if known else "" for text in texts]
        name = code(one["file"]) + (f" and {one['files'] - 1} more" if one["files"] > 1 else "")
        cells = [name, one["type"], size(one["bytes"]), f"{one['bpw']:.2f}", *klds, one["note"]]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _figures(measured: Measurements | None) -> dict[tuple[str, str], Mapping[str, float]]:
    found: dict[tuple[str, str], Mapping[str, float]] = {}
    for result in measured["results"] if measured is not None else []:
        models: Any = result["models"]
        found |= {(f"{model['name']}.gguf", model["text"]): model["kld"] for model in models}
    return found


def _kld(figure: Mapping[str, float] | None) -> str:
    return "" if figure is None else f"{figure['mean']:.4f} ± {figure['se']:.4f}"


def _choice(files: Sequence[CardFile]) -> str:
    """For a memory budget, the lowest measured divergence."""
    worth = sorted((one for one in files if one["publish"]), key=lambda one: one["bytes"])
    if not any(one["kld"] is not None for one in files) or not worth:
        return "Take the largest file that fits into memory beside the context (some hundred megabytes)."
    lines = ["For a memory budget take the file with the lowest divergence that fits beside the context:", ""]
    for one, larger in zip(worth, (*worth[1:], None), strict=True):
        below = f" and less than {size(larger['bytes'])}" if larger is not None else ""
        lines.append(f"- at least {size(one['bytes'])}{below}: {code(one['file'])}")
    worse = [one for one in files if not one["publish"]]
    if worse:
        names = ", ".join(code(one["file"]) for one in worse)
        lines += ["", f"Not worth their size, a smaller file is closer to the source: {names}."]
    return "\n".join(lines)


def _measured(measured: Measurements | None) -> str:
    if measured is None:
        return ""
    hashes = "\n".join(f"- {plain(one['name'])}: sha256 {code(one['sha256'])}" for one in measured["texts"])
    return (
        "## How they were measured\n\n"
        "KLD is the mean Kullback-Leibler divergence of the next token's distribution from that of the source, in "
        f"nats, with its standard error; {measured['date']}, quantcli {measured['quantcli']}:\n\n"
        f"```\n{printable(measured['command'])}\n```\n\n{hashes}\n\n"
        "[measurements.json](measurements.json) has the raw results, with the hashes of the files that they are of."
    )


def _made(facts: Facts, files: Sequence[CardFile]) -> str:
    lines = ["## How they were made", ""]
    hashes = {key.removeprefix(SOURCE): text for key, text in facts.texts.items() if key.startswith(SOURCE)}
    lines += [f"From these files of {plain(facts.source)}:", ""]
    lines += [f"- {code(name)}: sha256 {code(digest)}" for name, digest in hashes.items()]
    matrix = facts.texts.get("quantize.imatrix.sha256")
    if matrix is not None:
        dataset = facts.texts.get("quantize.imatrix.dataset", "")
        lines += [
            "",
            f"with an importance matrix (sha256 {code(matrix)}; text: {plain(dataset)}) and these options:",
            "",
        ]
    else:
        lines += ["", "with these options:", ""]
    lines += [f"- {code(one['file'])}: {code(facts.options.get(one['file'], ''))}" for one in files]
    return "\n".join(lines)


def _verified(facts: Facts, files: Sequence[CardFile]) -> str:
    matrix = " --imatrix imatrix.gguf" if '"imatrix":true' in facts.options.get(files[0]["file"], "") else ""
    return (
        "## How to check them\n\n```\nsha256sum -c SHA256SUMS\n"
        f"quantcli verify *.gguf --checksums SHA256SUMS\n"
        f"quantcli reproduce {files[0]['file']} --source FOLDER_OF_THE_SOURCE{matrix}\n```\n\n"
        "The last line makes the file again from its source (with `--imatrix` from its importance matrix, too) and "
        "compares every byte: they are the same on every machine."
    )


def _running(files: Sequence[CardFile]) -> str:
    best = next((one for one in files if one["recommended"]), files[0])
    return f"## How to run them\n\n```\nllama-cli -m {best['file']}\n```"
