"""How sentence-transformers pools a model's states into one vector: modules.json and the folder that it names.

The pooling module's config.json has one flag per way ("pooling_mode_mean_tokens": true) or names it ("pooling_mode":
"mean"). GGUF's pooling_type knows mean (1), the first token (2) and the last one (3).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

_TYPES = {"mean": 1, "cls": 2, "lasttoken": 3}
_FLAG = "pooling_mode_"
_ENDING = "_tokens"
_SPELLINGS = {"cls_token": "cls"}


def read(file: Callable[[str], object]) -> tuple[int | None, list[str]]:
    """The pooling type of a checkpoint (None where it names none that GGUF has), and remarks.

    ``file(name)`` gives a parsed JSON file of the checkpoint, None where it is missing.
    """
    modes = _modes(file)
    if len(modes) == 1 and modes[0] in _TYPES:
        return _TYPES[modes[0]], []
    if not modes:
        return None, []
    remark = f"sentence-transformers pools by {' and '.join(modes)}, which has no counterpart in GGUF"
    return None, [f"{remark}: no pooling_type is written, and whoever runs the model has to pool"]


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
