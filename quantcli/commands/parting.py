"""`convert --part k/n`: what contradicts it, and the plans of one part."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence

from quantcli.commands.job import ConvertRequest, Part
from quantcli.errors import UsageError
from quantcli.model import Model
from quantcli.plan import division
from quantcli.sources import ways

WHERE = "--part"


def check(request: ConvertRequest) -> None:
    """Raises UsageError for what every worker would do anew, or could not do alike."""
    if request.part is None:
        return
    source = shlex.quote(ways.spelled(request.source))
    if request.split_max_size is None and not request.keep_split:
        raise UsageError("a part is made of whole shards", where=WHERE, hint="add --split-max-size 5G, or --keep-split")
    if request.collect:
        raise UsageError(
            "every part would collect an importance matrix of its own",
            where=WHERE,
            hint=f"collect it once: quantcli imatrix {source} -o imatrix.gguf; then --imatrix imatrix.gguf",
        )
    if request.sizing is not None:
        raise UsageError(
            "every part would have to find the types for a size anew",
            where=WHERE,
            hint=f"find them once: quantcli plan {source} {request.sizing.text} -o types.txt; "
            "then -t TYPE --tensor-type-file types.txt",
        )
    if request.html is not None:
        raise UsageError(
            "--html tells of a whole model", where=WHERE, hint="convert without it; `quantcli compare` measures files"
        )
    _check_calibration(request)


def _check_calibration(request: ConvertRequest) -> None:
    """A part encodes from a finished folder of statistics: what it would calibrate itself would be another thing."""
    wish = request.wish
    if wish is None or not wish.encodes:
        return
    finish = "a whole run with --keep-statistics DIR makes one; then give every part --statistics DIR"
    if wish.keep is not None or wish.statistics is None:
        raise UsageError(
            f"--quality {wish.quality} in parts needs a finished folder of statistics", where=WHERE, hint=finish
        )
    from quantcli.calibration import folder  # brings the runner, which most conversions do without

    manifest = wish.statistics / folder.MANIFEST
    if not manifest.is_file() or folder.read_manifest(manifest).get("kind") != folder.PASSES:
        raise UsageError(
            f"{wish.statistics} is no folder of --keep-statistics: every part would calibrate anew",
            where=WHERE,
            hint=finish,
        )


class Whole:
    """The plans of whole models, which the parts of one run share that a process makes one after the other."""

    def __init__(self) -> None:
        self.made: Sequence[Part] = ()  # what `parts` gave last
        self._known: list[tuple[dict[str, str], bool]] | None = None

    def parts(self, models: Sequence[Model], make: Callable[[], Sequence[Part]]) -> Sequence[Part]:
        """Those of ``make``; it is asked again where the hashes of the ``models``' files or their vocabularies, which
        headers tell, are known meanwhile."""
        known = [(dict(model.digests), model.complete) for model in models]
        if known != self._known:
            self.made, self._known = make(), known
        return self.made


def may_put_off(request: ConvertRequest) -> bool:
    """Whether the vocabulary can wait until it is known who writes it: a part alone, that neither runs the model nor is
    told something about the vocabulary that has to be looked at."""
    runs = request.collect or request.wish is not None or request.sizing is not None
    told = any(one.key.startswith("tokenizer.") for one in request.metadata)
    return request.part is not None and not (runs or told or request.chat_template is not None)


def take(request: ConvertRequest, parts: Sequence[Part]) -> list[Part]:
    """What of every model belongs to the part. Raises UsageError where a part would be empty."""
    if request.part is None:
        return list(parts)
    plans = [one for part in parts for one in part.plans]
    left = iter(division.taken(plans, request.part))
    found = []
    for part in parts:
        own = [(one, target) for target in part.targets if (one := next(left)) is not None]
        found.append(Part(part.model, [one for one, _ in own], [target for _, target in own]))
    return found
