"""A size in place of file types."""

from __future__ import annotations

from dataclasses import dataclass

from quantcli.calibration.quality import Wish
from quantcli.model import Model
from quantcli.plan import budget
from quantcli.plan.budget import Freedom, Target
from quantcli.plan.options import Options
from quantcli.plan.recipes import FileType, parse


@dataclass(frozen=True)
class Sizing:
    """What was asked for. ``wish``: what planning calibrates with; ``text``: the option, as it was given."""

    target: Target
    freedom: Freedom
    wish: Wish
    text: str

    def base(self, model: Model, options: Options) -> tuple[FileType, str]:
        """The recipe whose size is nearest, and the size as a part of a file's name."""
        if self.target.max_kld is not None:  # a stand-in until it is known
            return parse("Q4_K_M"), f"kld{self.target.max_kld:g}"
        size = budget.target_bytes(self.target, model, options)
        return budget.nearest(model, options, size), f"{budget.bits(size, model, options):.2f}bpw"
