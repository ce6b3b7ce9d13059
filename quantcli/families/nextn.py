"""Blocks behind a model's own layers that predict further tokens (multi-token prediction, "nextn" in GGUF).

A family that keeps them takes `FACTS`, `METADATA` and `TENSORS`, and names them in ``may_lack``: config.json counts
them even where a checkpoint was published without. ``layers`` then counts all blocks, ``main_layers`` the model's own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from quantcli.families import decoder
from quantcli.families.declaration import Entry, TensorRule
from quantcli.families.facts import Facts, bad
from quantcli.families.fields import count

COUNT = count("num_nextn_predict_layers", default=0, least=0, most=decoder.MOST_LAYERS)
STATED = count("num_nextn_predict_layers", default=None, least=0, most=decoder.MOST_LAYERS)


def facts_of(number: object = COUNT, stated: object = STATED) -> dict[str, object]:
    """Facts of a family with such blocks: ``number`` of them, ``stated`` what the file says (None: nothing)."""

    def counted(facts: Facts) -> int:
        found: int = number if isinstance(number, int) else facts.read(number)  # type: ignore[arg-type]
        return found

    return {
        "layers": lambda facts: facts.read(decoder.LAYERS) + counted(facts),
        "nextn": counted,
        "main_layers": lambda facts: facts.layers - facts.nextn,
        "nextn_stated": stated,
        "predicts_further": predicts_further,
        "own": lambda facts: lambda layer: layer < facts.main_layers,
    }


def predicts_further(facts: Facts) -> Callable[[int], bool]:
    """The blocks that predict further tokens."""
    return lambda layer: layer >= facts.main_layers


def listed(facts: Facts, name: str, *kinds: type) -> list[Any]:
    """What config.json lists for every block, each of one of ``kinds``; None for further ones that it leaves out."""
    found = facts.find(name)
    if not isinstance(found, list) or len(found) < facts.main_layers or not all(type(one) in kinds for one in found):
        words = " or ".join(kind.__name__ for kind in kinds)
        raise bad(name, f"is no list of {words} for {facts.main_layers} layers")
    return [*found, *[None] * facts.layers][: facts.layers]


FACTS = facts_of()
METADATA = (Entry("nextn_predict_layers", "u32", "nextn_stated"),)


def _rule(source: str, target: str, shape: tuple[str, ...], optional: bool = False) -> TensorRule:
    source, target = f"layers.{{layer}}.{source}", f"blk.{{layer}}.nextn.{target}"
    return TensorRule(source, target, shape, optional=optional, bias="none", layers="predicts_further")


def behind(rules: tuple[TensorRule, ...]) -> tuple[TensorRule, ...]:
    """What checkpoints hold below "mtp.": layers of their own with these ``rules``, and what combines the streams."""
    combining = (
        TensorRule("fc", "blk.{layer}.nextn.eh_proj", ("hidden", "2*hidden")),
        TensorRule("pre_fc_norm_embedding", "blk.{layer}.nextn.enorm", decoder.VECTOR),
        TensorRule("pre_fc_norm_hidden", "blk.{layer}.nextn.hnorm", decoder.VECTOR),
        TensorRule("norm", "blk.{layer}.nextn.shared_head_norm", decoder.VECTOR),
    )
    return tuple(
        replace(rule, source=f"mtp.{rule.source}", layers=None, depth="nextn", first="main_layers", when="nextn")
        for rule in (*rules, *combining)
    )


# Beside what every block has. The last two repeat the model's own tables, and may be left out.
TENSORS = (
    _rule("eh_proj", "eh_proj", ("hidden", "2*hidden")),
    _rule("enorm", "enorm", decoder.VECTOR),
    _rule("hnorm", "hnorm", decoder.VECTOR),
    _rule("shared_head.norm", "shared_head_norm", decoder.VECTOR, optional=True),
    _rule("shared_head.head", "shared_head_head", ("vocab", "hidden"), optional=True),
    _rule("embed_tokens", "embed_tokens", ("vocab", "hidden"), optional=True),
)
