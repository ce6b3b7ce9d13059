"""Plans for the bundled model on little text."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from quantcli.cli.parse import SizeTexts, convert_request
from quantcli.commands.job import ConvertRequest

TOKENS = 8192  # the fewest


@pytest.fixture(scope="module")
def little_text() -> Iterator[None]:
    """The same work on few tokens."""
    with pytest.MonkeyPatch.context() as patched:
        for place, tokens in (
            ("sensitivity.MOMENT_TOKENS", 4096),
            ("sensitivity.MOST_TOKENS", 512),
            ("sensitivity.FEWEST_TOKENS", 512),
            ("sensitivity.TOGETHER", 512),
            ("tables.JUDGING_TOKENS", 512),
            ("tables.NOISE_TOKENS", 512),
            ("tables.TOKENS", 512),
            ("quality.PLANNING_TOKENS", TOKENS),
        ):
            patched.setattr(f"quantcli.calibration.{place}", tokens)
        yield


def request(root: Path, output: Path | None, size: SizeTexts, **options: object) -> ConvertRequest:
    """A conversion of the bundled model."""
    asked = convert_request(source=root / "examples" / "tiny", size=size, output=output, threads=2, **options)
    assert asked.sizing is not None
    small = dataclasses.replace(asked.sizing.wish, tokens=TOKENS, sampled=0)
    sizing = dataclasses.replace(asked.sizing, wish=small)
    return dataclasses.replace(asked, sizing=sizing, wish=small if asked.wish else None)
