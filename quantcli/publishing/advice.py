"""Which file to take, and which not to publish: pure, from sizes and measured divergences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

GOOD = 0.06  # nats: what Q4_K_M loses on models of a few hundred million weights


@dataclass(frozen=True)
class Measured:
    """A file: bytes, and its mean KL divergence from the source over all texts (None: not measured)."""

    name: str
    type: str
    bytes: int
    kld: float | None


def better(one: Measured, files: Sequence[Measured]) -> Measured | None:
    """A file that is smaller (or as small) and closer to the source: nobody should take ``one`` then."""
    if one.kld is None:
        return None
    found = [
        other
        for other in files
        if other.kld is not None
        and other is not one
        and other.bytes <= one.bytes
        and other.kld <= one.kld
        and (other.bytes, other.kld) != (one.bytes, one.kld)
    ]
    return min(found, key=lambda other: (other.kld or 0.0, other.bytes), default=None)


def worth_it(files: Sequence[Measured]) -> list[Measured]:
    """The files of which none is smaller and closer at once, from the largest to the smallest."""
    return sorted((one for one in files if better(one, files) is None), key=lambda one: -one.bytes)


def for_memory(files: Sequence[Measured], budget: int) -> Measured | None:
    """The file of at most ``budget`` bytes with the lowest measured divergence; the largest where none is measured."""
    fitting = [one for one in files if one.bytes <= budget]
    measured = [one for one in fitting if one.kld is not None]
    if measured:
        return min(measured, key=lambda one: (one.kld or 0.0, one.bytes))
    return max(fitting, key=lambda one: one.bytes, default=None)


def recommended(files: Sequence[Measured]) -> Measured | None:
    """The one that most people want: the smallest with a divergence below GOOD, else the closest. Where nothing is
    measured: Q4_K_M, or the file in the middle."""
    measured = [one for one in worth_it(files) if one.kld is not None]
    if measured:
        good = [one for one in measured if (one.kld or 0.0) < GOOD]
        return good[-1] if good else min(measured, key=lambda one: one.kld or 0.0)
    usual = [one for one in files if one.type == "Q4_K_M"]
    return usual[0] if usual else (sorted(files, key=lambda one: one.bytes)[len(files) // 2] if files else None)


def note(one: Measured, files: Sequence[Measured]) -> str:
    """What the table says beside a file."""
    instead = better(one, files)
    if instead is not None:
        return f"**not recommended**: {instead.type} is smaller and closer"
    return "**the usual choice**" if recommended(files) is one else ""
