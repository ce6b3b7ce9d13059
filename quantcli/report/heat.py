"""A map of a model: a row per layer, a column per kind of tensor, cells with text and a colour for what they cost.

A table, not a picture: its letters keep their size on a phone, where it scrolls.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from math import sqrt
from typing import NamedTuple

STYLE = (
    ".heat td,.heat th{padding:3px 7px;font-size:12px;text-align:center;line-height:1.25}"
    ".heat th{white-space:normal}.heat small{display:block;font-size:11px}"
    ".heat td[style]{background:color-mix(in srgb,var(--s1) var(--p),var(--paper))}"
)
STRONGEST = 62  # per cent of the colour; letters stay readable on it
ELSEWHERE = "model"  # the row of tensors that belong to no layer


class Cell(NamedTuple):
    """``text`` and beneath it ``small``; ``weight``: what the colour shows, from 0; ``title``: shown by a pointer."""

    text: str
    small: str
    weight: float | None
    title: str


def place_of(name: str) -> tuple[int | None, str]:
    """(layer, kind) of a tensor by its GGUF name."""
    match = re.match(r"(?:[a-z_]+\.)?blk\.(\d+)\.(.*?)(?:\.weight)?$", name)
    return (int(match[1]), match[2]) if match else (None, name.removesuffix(".weight"))


def table(cells: Mapping[str, Cell]) -> str:
    """The map of tensors by name. Tensors outside of layers come in rows of their own, before it."""
    places = {name: place_of(name) for name in cells}
    most = max((cell.weight or 0.0 for cell in cells.values()), default=0.0)
    outside = [name for name, (layer, _) in places.items() if layer is None]
    kinds = list(dict.fromkeys(kind for layer, kind in places.values() if layer is not None))
    layers = sorted({layer for layer, _ in places.values() if layer is not None})
    found = {place: name for name, place in places.items()}
    parts = []
    if outside:
        parts.append(_rows([places[name][1] for name in outside], [(ELSEWHERE, outside)], cells, most))
    if layers:
        lines = [(str(layer), [found.get((layer, kind)) for kind in kinds]) for layer in layers]
        parts.append(_rows(kinds, lines, cells, most))
    return "\n".join(parts)


def _rows(
    kinds: Sequence[str], lines: Sequence[tuple[str, Sequence[str | None]]], cells: Mapping[str, Cell], most: float
) -> str:
    head = "<tr><th>layer</th>" + "".join(f"<th>{escape(kind).replace('_', '_<wbr/>')}</th>" for kind in kinds)
    body = "".join(
        f"</tr><tr><td>{label}</td>"
        + "".join("<td>–</td>" if name is None else _cell(cells[name], most) for name in names)
        for label, names in lines
    )
    return f'<div class="scroll"><table class="heat">{head}{body}</tr></table></div>'


def _cell(cell: Cell, most: float) -> str:
    share = 0.0 if cell.weight is None or most <= 0 else sqrt(max(cell.weight, 0.0) / most)
    style = f' style="--p:{STRONGEST * share:.0f}%"' if cell.weight is not None else ""
    small = f"<small>{escape(cell.small)}</small>" if cell.small else ""
    return f'<td{style} title="{escape(cell.title, quote=True)}">{escape(cell.text)}{small}</td>'
