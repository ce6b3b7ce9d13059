"""Pictures of a comparison as SVG: size against divergence, and the spread over chunks.

Colours are CSS variables, so that one picture serves light and dark pages; labels are placed where they hide nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from math import ceil, floor, log10

from quantcli.report.measurements import ComparedModel, CompareResult

WIDTH, HEIGHT = 760, 440
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 18, 48
ROW = 26  # pixels of a model in the spread
LETTER = 7.3  # pixels that a bold letter of 12 px takes, on the safe side
SERIES = 6  # colours; further texts begin anew
SMALLEST = 1e-9  # divergences below are drawn there: a logarithm needs something
FAR_APART = 8.0  # sizes in that ratio and more are drawn on a logarithmic axis

LIGHT = (
    "--ink:#24292f;--faint:#6a737d;--grid:#e3e6ea;--paper:#ffffff;"
    "--s0:#1f6fb2;--s1:#c8551b;--s2:#2f8548;--s3:#8a4fb0;--s4:#b0323f;--s5:#5f6670;"
)
DARK = (
    "--ink:#e6e9ed;--faint:#9aa3ad;--grid:#30363d;--paper:#0d1117;"
    "--s0:#5aa9f0;--s1:#f0894a;--s2:#5fc27e;--s3:#c193ea;--s4:#f0737d;--s5:#a3abb5;"
)
STYLE = (
    "svg text{font:12px system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif;fill:var(--ink)}"
    "svg .quiet{fill:var(--faint)}svg .grid{stroke:var(--grid)}svg .leader{stroke:var(--faint);stroke-opacity:.6}"
    "svg .label{font-weight:600;paint-order:stroke;stroke:var(--paper);stroke-width:3px;stroke-linejoin:round}"
    + "".join(f"svg .s{i}{{fill:var(--s{i});stroke:var(--s{i})}}" for i in range(SERIES))
    + "svg .path{fill:none;stroke-width:1.5;stroke-opacity:.45}svg .dot{stroke:none;fill-opacity:.4}"
    "svg .bar{stroke-width:2.5}"
)


def themed(selector: str) -> str:
    """The colours of both themes as CSS variables of ``selector``."""
    return f"{selector}{{{LIGHT}}}@media(prefers-color-scheme:dark){{{selector}{{{DARK}}}}}"


def standalone(result: CompareResult) -> str:
    """`scatter` of a result of `compare.execute` as a file of its own, which follows the reader's theme."""
    entries = result["models"]
    inner = scatter(entries)
    start = inner.index(">") + 1
    head = inner[:start].replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    about = f"divergence from {result['reference']['name']}, size against mean KLD"
    return f"{head}<title>{escape(about)}</title><style>{themed('svg')}{STYLE}</style>{inner[start:]}\n"


class Axis:
    """A linear or logarithmic scale from data to pixels, with round tick marks."""

    def __init__(self, values: Sequence[float], start: float, stop: float, *, logarithmic: bool) -> None:
        self.start, self.stop, self.logarithmic = start, stop, logarithmic
        low, high = min(map(self._scaled, values)), max(map(self._scaled, values))
        margin = 0.08 * (high - low) or (0.5 if logarithmic else 0.1 * abs(high) or 1.0)
        self.low, self.high = low - margin, high + margin
        if not logarithmic:
            self.low = max(self.low, 0.0)

    def _scaled(self, value: float) -> float:
        return log10(max(value, SMALLEST)) if self.logarithmic else value

    def place(self, value: float) -> float:
        return self.start + (self._scaled(value) - self.low) / (self.high - self.low) * (self.stop - self.start)

    def ticks(self) -> list[float]:
        """A few round values within the axis."""
        if not self.logarithmic:
            return _round_values(self.low, self.high)
        exponents = range(floor(self.low), ceil(self.high) + 1)
        for mantissas in ((1,), (1, 3), (1, 2, 5)):
            marks = [m * 10.0**e for e in exponents for m in mantissas if self.low <= log10(m * 10.0**e) <= self.high]
            if len(marks) >= 5:
                return marks
        return marks if len(marks) > 2 else _round_values(10**self.low, 10**self.high)


def _round_values(low: float, high: float) -> list[float]:
    """Up to nine multiples of 1, 2 or 5 times a power of ten."""
    step = 10.0 ** floor(log10(high - low))
    step = next(s for s in (step / 5, step / 2, step, 2 * step) if (high - low) / s <= 8 or s > step)
    return [i * step for i in range(ceil(low / step), floor(high / step) + 1)]


@dataclass(frozen=True)
class Box:
    """A rectangle that a label, point or legend covers."""

    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: Box) -> bool:
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )


def short_names(entries: Sequence[ComparedModel]) -> dict[str, str]:
    """Names without what all have in common: "mid-Q8_0", "mid-Q4_K_M" are Q8_0 and Q4_K_M."""
    names = list(dict.fromkeys(entry["name"] for entry in entries))
    common = os.path.commonprefix(names)  # noqa: RUF071 - of texts, and meant character by character
    cut = max(common.rfind(mark) for mark in "-_. ") + 1 if len(names) > 1 else 0
    if common[cut - 1 : cut] == "_":  # Q4_K_M and Q4_K_S share more than a model's name
        cut = max(common.rfind(mark) for mark in "-. ") + 1
    return {name: name[cut:] or name for name in names}


# ---- size against divergence


def scatter(entries: Sequence[ComparedModel]) -> str:
    """File size against mean KLD (logarithmic), a line per text, error bars of one standard error."""
    texts = list(dict.fromkeys(entry["text"] for entry in entries))
    sizes = [entry["bytes"] / 1e6 for entry in entries]
    x = Axis(sizes, LEFT, WIDTH - RIGHT, logarithmic=max(sizes) > FAR_APART * min(sizes))
    y = Axis([entry["kld"]["mean"] for entry in entries], HEIGHT - BOTTOM, TOP, logarithmic=True)
    parts = _frame(x, y, "file size, MB", "mean KL divergence, nats")
    for index, text in enumerate(texts):
        own = sorted((entry for entry in entries if entry["text"] == text), key=lambda entry: entry["bytes"])
        parts += _series(own, x, y, f"s{index % SERIES}")
    covered = [box for text in texts for box in _covered([e for e in entries if e["text"] == text], x, y)]
    if len(texts) > 1:
        drawn, box = _legend(texts, covered)
        parts += drawn
        covered.append(box)
    parts += _labels(entries, x, y, covered)
    return _svg(WIDTH, HEIGHT, parts, "size against divergence")


def _series(entries: Sequence[ComparedModel], x: Axis, y: Axis, colour: str) -> list[str]:
    """The points of one text, from small to large."""
    places = [(x.place(entry["bytes"] / 1e6), y.place(entry["kld"]["mean"])) for entry in entries]
    path = " ".join(f"{across:.1f},{up:.1f}" for across, up in places)
    parts = [f'<polyline class="{colour} path" points="{path}"/>'] if len(entries) > 1 else []
    for entry, (across, up) in zip(entries, places, strict=True):
        mean, error = entry["kld"]["mean"], entry["kld"]["se"]
        parts.append(
            f'<line class="{colour}" x1="{across:.1f}" x2="{across:.1f}" '
            f'y1="{y.place(max(mean - error, SMALLEST)):.1f}" y2="{y.place(mean + error):.1f}"/>'
            f'<circle class="{colour}" cx="{across:.1f}" cy="{up:.1f}" r="3.5">'
            f"<title>{escape(entry['name'])}, {escape(entry['text'])}: {mean:.6f} ± {error:.6f}</title>"
            "</circle>"
        )
    return parts


def _covered(entries: Sequence[ComparedModel], x: Axis, y: Axis) -> list[Box]:
    """What the points of one text and the line between them hide."""
    places = sorted((x.place(e["bytes"] / 1e6), y.place(e["kld"]["mean"])) for e in entries)
    boxes = [Box(across - 5, up - 5, across + 5, up + 5) for across, up in places]
    for (left, top), (right, bottom) in pairwise(places):
        steps = max(1, round(max(right - left, abs(bottom - top)) / 8))
        for i in range(1, steps):
            across, up = left + (right - left) * i / steps, top + (bottom - top) * i / steps
            boxes.append(Box(across - 1, up - 1, across + 1, up + 1))
    return boxes


def _legend(texts: Sequence[str], covered: Sequence[Box]) -> tuple[list[str], Box]:
    """The texts' names and colours, in the corner that hides least."""
    width, height = LETTER * max(len(text[:32]) for text in texts) + 26, 18 * len(texts) + 6
    corners = [
        Box(left, top, left + width, top + height)
        for top in (TOP + 8, HEIGHT - BOTTOM - height - 8)
        for left in (WIDTH - RIGHT - width - 8, LEFT + 8)
    ]
    box = min(corners, key=lambda corner: sum(map(corner.overlaps, covered)))
    parts = [
        f'<circle class="s{index % SERIES}" cx="{box.left + 9:.1f}" cy="{box.top + 12 + 18 * index:.1f}" r="4"/>'
        f'<text x="{box.left + 20:.1f}" y="{box.top + 16 + 18 * index:.1f}">{escape(text[:32])}</text>'
        for index, text in enumerate(texts)
    ]
    return parts, box


@dataclass(frozen=True)
class Label:
    """A place for a model's name: ``distance`` ranks the places around the point at (``across``, ``up``)."""

    distance: int
    across: float
    up: float
    box: Box

    def cost(self, covered: Sequence[Box], placed: Sequence[Box]) -> float:
        """How much it hides of points and lines, and (worse) of other names, or lies outside."""
        names = sum(map(self.box.overlaps, placed)) + _outside(self.box)
        return sum(map(self.box.overlaps, covered)) + 5 * names + self.distance / 8


def _labels(entries: Sequence[ComparedModel], x: Axis, y: Axis, covered: Sequence[Box]) -> list[str]:
    """One name per model, beside one of its points, where it covers neither points nor lines nor other names."""
    names: list[str] = []
    leaders: list[str] = []
    placed: list[Box] = []
    for name, short in short_names(entries).items():
        shown = short if len(short) <= 28 else short[:27] + "…"
        points = [(x.place(e["bytes"] / 1e6), y.place(e["kld"]["mean"])) for e in entries if e["name"] == name]
        places = [
            Label(distance, across, up, box)
            for across, up in points
            for distance, box in _beside(across, up, LETTER * len(shown))
        ]
        places.sort(key=lambda label: (label.distance, label.up))
        best = min(places, key=lambda label: label.cost(covered, placed))
        box, up = best.box, best.up
        placed.append(box)
        middle, baseline = (box.left + box.right) / 2, box.bottom - 3
        if not box.top - 8 <= up <= box.bottom + 8:
            end = box.bottom if box.bottom < up else box.top
            leaders.append(
                f'<line class="leader" x1="{best.across:.1f}" y1="{up:.1f}" x2="{middle:.1f}" y2="{end:.1f}"/>'
            )
        names.append(
            f'<text class="label" x="{middle:.1f}" y="{baseline:.1f}" text-anchor="middle">{escape(shown)}</text>'
        )
    return leaders + names


def _beside(across: float, up: float, width: float) -> Iterator[tuple[int, Box]]:
    """(how far, place) of a label at a point."""
    centre, right, left_of = across - width / 2, across + 7, across - width - 7
    near = (
        (right, up - 1),
        (centre, up - 7),
        (right + 2, up + 7),
        (left_of, up - 1),
        (left_of - 2, up + 7),
        (left_of, up + 16),
        (centre, up + 21),
        (right, up + 16),
    )
    far = (
        (left, up + way * (7 + 14 * step) + (7 if way > 0 else 0))
        for step in range(1, 7)
        for way in (-1, 1)
        for left in (centre, right, left_of)
    )
    for distance, (left, bottom) in enumerate((*near, *far)):
        yield distance, Box(left, bottom - 14, left + width, bottom)


def _outside(box: Box) -> bool:
    return box.left < LEFT or box.right > WIDTH - RIGHT or box.top < TOP or box.bottom > HEIGHT - BOTTOM


# ---- spread over chunks


def spread(entries: Sequence[ComparedModel], series: int = 0) -> str:
    """Every chunk's mean KLD as a dot on its model's line (logarithmic), the mean of all as a bar."""
    names = short_names(entries)
    left = min(max(70.0, 14 + LETTER * max(map(len, names.values()))), 230.0)
    height = TOP + ROW * len(entries) + BOTTOM
    values = [value for entry in entries for value in entry["per_chunk"]]
    x = Axis(values, left, WIDTH - RIGHT, logarithmic=True)
    parts = [_upright(x, tick, TOP, height - BOTTOM) for tick in x.ticks()]
    for index, entry in enumerate(entries):
        middle = TOP + ROW * index + ROW / 2
        short = names[entry["name"]]
        shown = short if len(short) <= 32 else short[:31] + "…"
        parts.append(
            f'<text class="label" x="{left - 10:.1f}" y="{middle + 4:.1f}" text-anchor="end">{escape(shown)}</text>'
        )
        parts += [
            f'<circle class="s{series % SERIES} dot" cx="{x.place(value):.1f}" '
            f'cy="{middle + 6 * _scatter(chunk):.1f}" r="3"><title>chunk {chunk + 1}: {value:.6f}</title></circle>'
            for chunk, value in enumerate(entry["per_chunk"])
        ]
        mean = x.place(entry["kld"]["mean"])
        parts.append(
            f'<line class="s{series % SERIES} bar" x1="{mean:.1f}" x2="{mean:.1f}" y1="{middle - 10:.1f}" '
            f'y2="{middle + 10:.1f}"><title>mean {entry["kld"]["mean"]:.6f}</title></line>'
        )
    parts.append(
        f'<text class="quiet" x="{(left + WIDTH - RIGHT) / 2:.0f}" y="{height - 8}" text-anchor="middle">'
        "mean KL divergence of a chunk, nats; the bar is the mean of all</text>"
    )
    return _svg(WIDTH, height, parts, "divergence of every chunk")


def _scatter(index: int) -> float:
    """-1 to 1, the same for every run: moves dots apart that would cover each other."""
    return 2 * (index * 0.6180339887 % 1) - 1


# ---- frames


def _upright(x: Axis, tick: float, top: float, bottom: float) -> str:
    at = x.place(tick)
    return (
        f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{top}" y2="{bottom}"/>'
        f'<text class="quiet" x="{at:.1f}" y="{bottom + 16}" text-anchor="middle">{tick:g}</text>'
    )


def _frame(x: Axis, y: Axis, across: str, up: str) -> list[str]:
    """Grid lines, tick labels and axis titles."""
    parts = [_upright(x, tick, y.stop, y.start) for tick in x.ticks()]
    for tick in y.ticks():
        at = y.place(tick)
        parts.append(
            f'<line class="grid" x1="{x.start}" x2="{x.stop}" y1="{at:.1f}" y2="{at:.1f}"/>'
            f'<text class="quiet" x="{x.start - 7}" y="{at + 4:.1f}" text-anchor="end">{tick:g}</text>'
        )
    middle = (y.start + y.stop) / 2
    parts.append(
        f'<text x="{(x.start + x.stop) / 2:.0f}" y="{y.start + 38}" text-anchor="middle">{across}</text>'
        f'<text x="16" y="{middle:.0f}" text-anchor="middle" transform="rotate(-90 16 {middle:.0f})">{up}'
        "</text>"
    )
    return parts


def _svg(width: int, height: float, parts: Sequence[str], title: str) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height:g}" width="{width}" role="img" '
        f'aria-label="{title}">' + "".join(parts) + "</svg>"
    )
