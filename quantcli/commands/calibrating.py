"""What every command that calibrates begins with: the tokens that go through the model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from quantcli.calibration import folder, tokens
from quantcli.calibration.tokens import Calibration
from quantcli.model import Model
from quantcli.report.terminal import Reporter
from quantcli.runner.network import Network
from quantcli.vocab.tokenizer import Tokenizer


def gathered(
    network: Network,
    model: Model,
    reporter: Reporter,
    *,
    wanted: int,
    texts: Sequence[Path],
    sampled: int,
    folders: Sequence[Path],
) -> Calibration:
    """The tokens, see `tokens.gather`; what the model wrote is taken from the first of ``folders`` that has it."""
    written = filter(lambda found: found is not None, map(folder.written_text, folders))
    with reporter.steps("sampling tokens", sampled // network.length * network.length) as step:
        return tokens.gather(
            network,
            Tokenizer.from_metadata(model.metadata),
            length=network.length,
            wanted=wanted,
            texts=texts,
            sampled=sampled,
            written=next(written, None),
            progress=step,
        )
