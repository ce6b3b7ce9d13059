"""A model card's front matter -> ``general.*``: licence, author, tags, languages, base models and data sets.

Keys as llama.cpp's converter writes them. Places on somebody's disk are nobody's business and are left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from quantcli import container
from quantcli.container import Value
from quantcli.families.naming import HUB, name_parts, title
from quantcli.sources.card import texts

# key -> fields that it is taken from: the first that holds something
_TEXTS: Mapping[str, tuple[str, ...]] = {
    "general.author": ("author", "model_author", "model_creator"),
    "general.organization": ("organization", "model_organization"),
    "general.description": ("description", "model_description"),
    "general.version": ("version", "model_version"),
    "general.license": ("license",),
    "general.license.name": ("license_name",),
    "general.license.link": ("license_link",),
    "general.source.url": ("url", "model_url"),
    "general.source.doi": ("doi", "model_doi"),
    "general.source.uuid": ("uuid", "model_uuid"),
    "general.source.repo_url": ("repo_url", "model_repo_url"),
}
# key -> fields whose texts follow each other
_LISTS: Mapping[str, tuple[str, ...]] = {
    "general.tags": ("tags", "pipeline_tag"),
    "general.languages": ("languages", "language"),
}
# key -> fields (the first that is there), and where such things live on the hub
_ORIGINS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "general.base_model": (("base_model", "base_models", "base_model_sources"), ""),
    "general.dataset": (("datasets", "dataset", "dataset_sources"), "datasets/"),
}
_DETAILS = ("name", "author", "version", "organization", "description", "url", "doi", "uuid", "repo_url")
_URL = re.compile(r"(?:https?|ssh|git)://\S+", re.IGNORECASE)
_ON_THE_HUB = re.compile(
    r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/(?:datasets/)?(?P<owner>[\w.-]+)/(?P<name>[\w.-]+)(?:[/?#].*)?",
    re.I,
)
_IDENTIFIER = re.compile(r"(?:(?P<owner>[\w-][\w.-]*)/)?(?P<name>[\w-][^/\\~]*)")
_DRIVE = re.compile(r"[A-Za-z]:")


def card(fields: Mapping[str, object]) -> dict[str, Value]:
    """The metadata of a model card with these fields."""
    found: dict[str, Value] = {}
    for key, names in _TEXTS.items():
        text = next((joined for name in names if (joined := ",".join(texts(fields.get(name))))), None)
        if text is not None:
            found[key] = container.string(text)
    for key, (names, place) in _ORIGINS.items():
        origins = _origins(next((fields[name] for name in names if fields.get(name)), None), place)
        if origins:
            found[f"{key}.count"] = container.u32(len(origins))
        for number, origin in enumerate(origins):
            found |= {f"{key}.{number}.{detail}": container.string(text) for detail, text in origin.items()}
    for key, names in _LISTS.items():
        every = list(dict.fromkeys(text for name in names for text in texts(fields.get(name))))
        if every:
            found[key] = container.strings(every)
    return found


def _origins(value: object, place: str) -> list[dict[str, str]]:
    """What is known of each base model or data set in a field: one, or a list of them."""
    entries = value if isinstance(value, list) else [value]
    described = (_described(entry) if isinstance(entry, Mapping) else _origin(entry, place) for entry in entries)
    return [origin for origin in described if origin]


def _described(entry: Mapping[str, object]) -> dict[str, str]:
    """An entry that spells out its details; an address that is none is left out."""
    found = {detail: text for detail in _DETAILS for text in texts(entry.get(detail))}
    return {detail: text for detail, text in found.items() if "url" not in detail or _URL.fullmatch(text)}


def _origin(entry: object, place: str) -> dict[str, str]:
    """Details of `owner/name`, of a name, or of an URL; {} for a local path and for what is no text."""
    text = next(texts(entry), "")
    if _URL.fullmatch(text):
        known = _ON_THE_HUB.fullmatch(text)
        return _parts(known["owner"], known["name"], text) if known else {"repo_url": text}
    known = _IDENTIFIER.fullmatch(text)
    if known is None or _DRIVE.match(text):
        return {}
    owner, name = known["owner"], known["name"]
    return _parts(owner, name, f"{HUB}{place}{owner}/{name}" if owner and " " not in name else "")


def _parts(owner: str | None, name: str, url: str) -> dict[str, str]:
    words = {
        "name": title(name),
        "version": name_parts(name).get("general.version", ""),
        "organization": title(owner or ""),
        "repo_url": url,
    }
    return {detail: text for detail, text in words.items() if text}
