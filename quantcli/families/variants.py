"""Variants that only names tell: a reranker whose config.json is that of the model that it was trained from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from quantcli.families.catalogue import named
from quantcli.families.declaration import Family, Variant

if TYPE_CHECKING:
    from quantcli.sources.checkpoint import Checkpoint

_HEADING = re.compile(r"#+[ \t]+(.*)")
_RANKS = "rerank"  # in a name: perhaps a reranker
_RANKING_TASK = "text-ranking"  # pipeline_tag of a model card


def choose(family: Family, checkpoint: Checkpoint) -> tuple[Family, list[str]]:
    """What a checkpoint of ``family`` is read as, and remarks: a name that only hints at a variant is told."""
    names, headings = _names(checkpoint), _headings(checkpoint.readme)
    for variant in family.variants:
        if _is(variant, names, headings):
            return named(variant.family), [f"converted as {variant.family}: its name says so, config.json does not"]
    if _says_so(checkpoint.config):
        return family, []
    texts = (*names, *headings[:1], *_base_models(checkpoint.card))
    hint = next((text for text in texts if _RANKS in text.lower()), None)
    if hint is None and checkpoint.card.get("pipeline_tag") == _RANKING_TASK:
        hint = _RANKING_TASK
    if hint is None:
        return family, []
    relatives = " or ".join(f"--architecture {variant.family}" for variant in family.variants)
    way = f"{relatives} converts it as one" if relatives else f"quantcli knows no reranker of the family {family.name}"
    return family, [f"{hint!r} speaks of a reranker, nothing else does: converted as an ordinary model; {way}"]


def _says_so(config: Mapping[str, object]) -> bool:
    """Whether its class is that of a classifier, which a reranker is."""
    classes = config.get("architectures")
    return isinstance(classes, list) and any(str(name).endswith("ForSequenceClassification") for name in classes)


def _is(variant: Variant, folder: Iterable[str], headings: Iterable[str]) -> bool:
    """A folder's name may hold the mark anywhere, a heading begins with it."""
    return any(mark in name.lower() for mark in variant.marks for name in folder) or any(
        heading.lower().startswith(variant.marks) for heading in headings
    )


def _names(checkpoint: Checkpoint) -> list[str]:
    """What the model is called by the folder and by config.json."""
    stated = [checkpoint.config.get(field) for field in ("_name_or_path", "model_type")]
    return [checkpoint.name, checkpoint.folder.name, *(name for name in stated if isinstance(name, str))]


def _headings(readme: str) -> list[str]:
    return [match[1].strip() for line in readme.splitlines() if (match := _HEADING.match(line))]


def _base_models(card: Mapping[str, object]) -> list[str]:
    bases = card.get("base_model")
    found = bases if isinstance(bases, list) else [bases]
    return [base for base in found if isinstance(base, str)]
