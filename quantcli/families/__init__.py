"""Model families: declarations that turn a checkpoint's tensors and config.json into those of a GGUF file.

One small file per family, mostly data (``declaration.py`` is their vocabulary); ``load.py`` applies them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quantcli.families.declaration import Family
    from quantcli.model import Model
    from quantcli.sources.checkpoint import Checkpoint

__all__ = ["left_out", "load_checkpoint", "load_projector", "registry"]


def registry() -> dict[str, Family]:
    """All families by name."""
    from quantcli.families import catalogue

    return catalogue.registry()


def load_checkpoint(
    checkpoint: Checkpoint,
    *,
    architecture: str | None = None,
    pre_tokenizer: str | None = None,
    chat_template: str | None = None,
    alone: bool = True,
    put_off: bool = False,
) -> Model:
    """The language model of a checkpoint folder, see ``load.load_checkpoint``."""
    from quantcli.families import load

    return load.load_checkpoint(
        checkpoint,
        architecture=architecture,
        pre_tokenizer=pre_tokenizer,
        chat_template=chat_template,
        alone=alone,
        put_off=put_off,
    )


def left_out(checkpoint: Checkpoint, architecture: str | None = None) -> list[str]:
    """Names of the checkpoint's tensors that no tensor of a GGUF file is made of, see ``load.left_out``."""
    from quantcli.families import load

    return load.left_out(checkpoint, architecture)


def load_projector(checkpoint: Checkpoint, image_break: bool = False) -> Model:
    """The projector of a checkpoint folder, see ``projectors.load.load_projector``."""
    from quantcli.families.projectors import load

    return load.load_projector(checkpoint, image_break)
