"""The result of a comparison as one self-contained page: pictures as inline SVG, no scripts, nothing loaded."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import ceil, floor, log10
from typing import Any

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 760, 420, 70, 48, 16, 120
COLOURS = ("#1f6fb2", "#d1662b", "#3a8f4d", "#8a4fb0", "#b23a48", "#6b6b6b")
SMALLEST = 1e-9  # divergences below are drawn there: a logarithm needs something

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 62em; padding: 0 1em;
  color: #222; background: #fff; }
h1 { font-size: 1.5em; } h2 { font-size: 1.15em; margin-top: 2em; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px; }
th, td { padding: 3px 9px; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } .scroll { overflow-x: auto; }
svg { max-width: 100%; height: auto; }
svg text { font: 12px system-ui, sans-serif; fill: #333; } .grid { stroke: #e4e4e4; }
.note { color: #666; font-size: 13px; }
"""

COLUMNS = (
    ("model", lambda e: e["name"]), ("activations", lambda e: e["activations"]),
    ("MB", lambda e: f"{e['bytes'] / 1e6:.1f}"),
    ("bpw", lambda e: f"{e['bpw']:.2f}"), ("KLD mean", lambda e: f"{e['kld']['mean']:.6f} &#177; {e['kld']['se']:.6f}"),
    ("median", lambda e: f"{e['kld']['median']:.5f}"), ("90 %", lambda e: f"{e['kld']['p90']:.4f}"),
    ("95 %", lambda e: f"{e['kld']['p95']:.4f}"), ("99 %", lambda e: f"{e['kld']['p99']:.4f}"),
    ("99.9 %", lambda e: f"{e['kld']['p999']:.3f}"), ("max", lambda e: f"{e['kld']['max']:.3f}"),
    ("same top %", lambda e: f"{e['same_top']:.2f}"), ("RMS &#916;p %", lambda e: f"{e['rms_dp']:.3f}"),
    ("PPL", lambda e: f"{e['ppl']['mean']:.4f}"),
    ("PPL ratio", lambda e: f"{e['ppl']['ratio']:.5f} &#177; {e['ppl']['ratio_se']:.5f}"),
    ("KLD less the first's", lambda e: _difference(e)),
)


def _difference(entry: dict[str, Any]) -> str:
    found = entry.get("difference")
    return f"{found['kld']['mean']:+.6f} &#177; {found['kld']['se']:.6f}" if found else "&#8211;"


def render(result: dict[str, Any], version: str) -> str:
    """The page for a result of `compare.execute`."""
    entries = result["models"]
    texts = list(dict.fromkeys(entry["text"] for entry in entries))
    reference = result["reference"]
    about = ", ".join(f"{key.replace('_', ' ')} {reference[key]}" for key in ("kind", "activations", "kv_type")
                      if reference.get(key))
    parts = [f"<h1>Divergence from {escape(str(reference['name']))}</h1>",
             f'<p class="note">quantcli {escape(version)}; reference: {escape(about)}; context {result["context"]}. '
             "KLD: Kullback-Leibler divergence of the next token's probabilities from the reference's, in nats, over "
             "the second half of every chunk; &#177; is one standard error.</p>"]
    if result.get("interrupted"):
        parts.append("<p><strong>Interrupted: the figures are those of the chunks that were complete.</strong></p>")
    parts += ["<h2>Size against divergence</h2>", scatter(entries, texts)]
    for text in texts:
        own = [entry for entry in entries if entry["text"] == text]
        about = (f"{own[0]['chunks']} chunks, {own[0]['scored']} predictions, PPL of the reference "
                 f"{own[0]['ppl']['reference']:.4f}")
        parts += [f"<h2>{escape(text)}</h2>", f'<p class="note">{about}</p>', table(own),
                  "<h3>Spread over chunks</h3>", spread(own)]
    title = escape(str(reference["name"]))
    return (f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
            f"<style>{STYLE}</style></head>\n<body>\n" + "\n".join(parts) + "\n</body></html>\n")


def table(entries: Sequence[dict[str, Any]]) -> str:
    """One row per model."""
    head = "".join(f"<th>{name}</th>" for name, _ in COLUMNS)
    rows = ("".join(f"<td>{escape(cell(e)) if name == 'model' else cell(e)}</td>" for name, cell in COLUMNS)
            for e in entries)
    return f'<div class="scroll"><table><tr>{head}</tr>' + "".join(f"<tr>{row}</tr>" for row in rows) + "</table></div>"


# ---- pictures


class Axis:
    """A linear or logarithmic scale from data to pixels, with round tick marks."""

    def __init__(self, values: Sequence[float], start: float, stop: float, *, logarithmic: bool) -> None:
        self.start, self.stop, self.logarithmic = start, stop, logarithmic
        low, high = min(map(self._scaled, values)), max(map(self._scaled, values))
        if logarithmic:
            low, high = floor(low * 2) / 2 - 0.1, ceil(high * 2) / 2 + 0.1
        else:
            low, high = 0.0, high * 1.08 or 1.0
        self.low, self.high = low, high

    def _scaled(self, value: float) -> float:
        return log10(max(value, SMALLEST)) if self.logarithmic else value

    def place(self, value: float) -> float:
        return self.start + (self._scaled(value) - self.low) / (self.high - self.low) * (self.stop - self.start)

    def ticks(self) -> list[float]:
        if self.logarithmic:
            marks = [m * 10.0**e for e in range(floor(self.low), ceil(self.high) + 1) for m in (1, 2, 5)]
            return [mark for mark in marks if self.low <= log10(mark) <= self.high]
        step = 10.0 ** floor(log10(self.high))
        step = next(s for s in (step / 5, step / 2, step, 2 * step) if self.high / s <= 9 or s == 2 * step)
        return [i * step for i in range(int(self.high / step) + 1)]


def scatter(entries: Sequence[dict[str, Any]], texts: Sequence[str]) -> str:
    """File size (linear) against mean KLD (logarithmic), one colour per text, error bars of one standard error."""
    x = Axis([e["bytes"] / 1e6 for e in entries], LEFT, WIDTH - RIGHT, logarithmic=False)
    y = Axis([e["kld"]["mean"] for e in entries], HEIGHT - BOTTOM, TOP, logarithmic=True)
    parts = _frame(x, y, "file size, MB", "mean KLD, nats")
    for index, text in enumerate(texts):
        colour = COLOURS[index % len(COLOURS)]
        parts.append(f'<rect x="{WIDTH - RIGHT + 12}" y="{TOP + 18 * index}" width="10" height="10" fill="{colour}"/>'
                     f'<text x="{WIDTH - RIGHT + 27}" y="{TOP + 18 * index + 10}">{escape(text)[:16]}</text>')
        for entry in (e for e in entries if e["text"] == text):
            mean, error = entry["kld"]["mean"], entry["kld"]["se"]
            across, up = x.place(entry["bytes"] / 1e6), y.place(mean)
            parts.append(f'<line x1="{across:.1f}" x2="{across:.1f}" y1="{y.place(max(mean - error, SMALLEST)):.1f}" '
                         f'y2="{y.place(mean + error):.1f}" stroke="{colour}"/>'
                         f'<circle cx="{across:.1f}" cy="{up:.1f}" r="4" fill="{colour}">'
                         f'<title>{escape(entry["name"])}: {mean:.6f}</title></circle>')
            if index == 0:
                parts.append(f'<text x="{across + 7:.1f}" y="{up - 6:.1f}">{escape(entry["name"])[:24]}</text>')
    return _svg(WIDTH, HEIGHT, parts, "size against divergence")


def spread(entries: Sequence[dict[str, Any]]) -> str:
    """Every chunk's mean KLD as a mark on its model's line (logarithmic), the mean as a bar."""
    height = BOTTOM + TOP + 24 * len(entries)
    values = [value for entry in entries for value in entry["per_chunk"]]
    x = Axis([max(value, SMALLEST) for value in values], 170, WIDTH - 20, logarithmic=True)
    parts = []
    for tick in x.ticks():
        at = x.place(tick)
        parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{height - BOTTOM}"/>'
                     f'<text x="{at:.1f}" y="{height - BOTTOM + 16}" text-anchor="middle">{tick:g}</text>')
    for index, entry in enumerate(entries):
        middle = TOP + 24 * index + 12
        parts.append(f'<text x="160" y="{middle + 4}" text-anchor="end">{escape(entry["name"])[:24]}</text>')
        parts += [f'<circle cx="{x.place(value):.1f}" cy="{middle}" r="3" fill="{COLOURS[0]}" fill-opacity="0.35"/>'
                  for value in entry["per_chunk"]]
        mean = x.place(entry["kld"]["mean"])
        parts.append(f'<line x1="{mean:.1f}" x2="{mean:.1f}" y1="{middle - 8}" y2="{middle + 8}" '
                     f'stroke="{COLOURS[1]}" stroke-width="2"/>')
    parts.append(f'<text x="{(170 + WIDTH) / 2:.0f}" y="{height - 10}" text-anchor="middle">'
                 "mean KLD of a chunk, nats</text>")
    return _svg(WIDTH, height, parts, "divergence of every chunk")


def _frame(x: Axis, y: Axis, across: str, up: str) -> list[str]:
    """Grid lines, tick labels and axis titles."""
    parts = []
    for tick in x.ticks():
        at = x.place(tick)
        parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{y.start}" y2="{y.stop}"/>'
                     f'<text x="{at:.1f}" y="{y.start + 16}" text-anchor="middle">{tick:g}</text>')
    for tick in y.ticks():
        at = y.place(tick)
        parts.append(f'<line class="grid" x1="{x.start}" x2="{x.stop}" y1="{at:.1f}" y2="{at:.1f}"/>'
                     f'<text x="{x.start - 6}" y="{at + 4:.1f}" text-anchor="end">{tick:g}</text>')
    parts.append(f'<text x="{(x.start + x.stop) / 2:.0f}" y="{y.start + 38}" text-anchor="middle">{across}</text>'
                 f'<text x="16" y="{(y.start + y.stop) / 2:.0f}" text-anchor="middle" '
                 f'transform="rotate(-90 16 {(y.start + y.stop) / 2:.0f})">{up}</text>')
    return parts


def _svg(width: int, height: int, parts: Sequence[str], title: str) -> str:
    return (f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" aria-label="{title}">'
            + "".join(parts) + "</svg>")
