"""How sentence-transformers pools a model's states into one vector: modules.json and the folder that it names.

The pooling module's config.json has one flag per way ("pooling_mode_mean_tokens": true) or names it ("pooling_mode":
"mean"). GGUF's pooling_type knows mean (1), the first token (2) and the last one (3).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from quantcli.families.declaration import Entry
from quantcli.families.facts import Facts, bad
from quantcli.families.fields import text

_TYPES = {"mean": 1, "cls": 2, "lasttoken": 3}
_FLAG = "pooling_mode_"
_ENDING = "_tokens"
_SPELLINGS = {"cls_token": "cls"}

# What stands before a classification head: config.json's own word.
CLASSIFIER = (Entry("classifier.pooling_type", "u32", "classifier_pooling"),)


def read(file: Callable[[str], object]) -> tuple[int | None, list[str]]:
    """The pooling type of a checkpoint (None where it names none that GGUF has), and remarks.

    ``file(name)`` gives a parsed JSON file of the checkpoint, None where it is missing.
    """
    modes, remarks = _modes(file), _further(file)
    if len(modes) == 1 and modes[0] in _TYPES:
        return _TYPES[modes[0]], remarks
    if not modes:
        return None, remarks
    remark = f"sentence-transformers pools by {' and '.join(modes)}, which has no counterpart in GGUF"
    return None, [*remarks, f"{remark}: no pooling_type is written, and whoever runs the model has to pool"]


def _further(file: Callable[[str], object]) -> list[str]:
    """A remark on what sentence-transformers computes behind the pooling and a GGUF file does not hold."""
    modules = file("modules.json")
    kinds = (
        [module.get("type") for module in modules if isinstance(module, Mapping)] if isinstance(modules, list) else []
    )
    count = sum(str(kind).endswith(".Dense") for kind in kinds)
    if not count:
        return []
    layers = "1 dense layer" if count == 1 else f"{count} dense layers"
    return [f"{layers} behind the pooling (modules.json) are left out: the vectors are those before them"]


def of_classifier(facts: Facts) -> int | None:
    """The pooling type that config.json names for a classification head. Raises BadConfig."""
    name = facts.read(text("classifier_pooling", default=None))
    if name not in (None, "cls", "mean"):
        raise bad("classifier_pooling", f"is {name!r}; cls and mean are known")
    return _TYPES.get(name)


def _modes(file: Callable[[str], object]) -> list[str]:
    """The ways of pooling that the files name, several where their results are joined."""
    modules = file("modules.json")
    for module in modules if isinstance(modules, list) else ():
        if isinstance(module, Mapping) and str(module.get("type")).endswith("Pooling"):
            settings = file(f"{module.get('path')}/config.json")
            return _stated(settings) if isinstance(settings, Mapping) else []
    return []


def _stated(settings: Mapping[str, object]) -> list[str]:
    flags = [name.removeprefix(_FLAG) for name, on in settings.items() if name.startswith(_FLAG) and on is True]
    named = settings.get("pooling_mode")
    names = flags or ([named] if isinstance(named, str) else named if isinstance(named, list) else [])
    return [_SPELLINGS.get(str(name), str(name).removesuffix(_ENDING)) for name in names]
