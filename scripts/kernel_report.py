"""How bench_kernels.py shows its figures: lines of text, the bars, Markdown and an SVG plot."""

from __future__ import annotations

import datetime
import math
import platform
from html import escape
from pathlib import Path

LEGACY, K = ("Q4_0", "Q4_1", "Q5_0", "Q5_1"), ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")
IQ = ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_NL", "IQ4_XS")
SEARCHED = (*LEGACY, *K, *IQ)  # the types with a scale search

# (search, what, types, bar): every type must reach the bar, or the geometric mean where `what` says so.
BARS = [
    ("ggml", "each", ("Q2_K", "Q4_K", "Q5_K", "Q4_1", "Q5_1"), 12.0),
    ("ggml", "each", ("Q3_K", "Q6_K", "Q4_0", "Q5_0"), 8.0),
    ("ggml", "each", ("IQ4_NL", "IQ4_XS"), 10.0),
    ("ggml", "geometric mean", SEARCHED, 10.0),
    ("best", "each", tuple(name for name in SEARCHED if name not in IQ), 10.0),
    ("best", "each", IQ, 20.0),
    ("best", "geometric mean", SEARCHED, 16.0),
]


def machine() -> dict[str, str]:
    """Date, CPU name and architecture of this run."""
    cpu, information = platform.processor() or platform.machine(), Path("/proc/cpuinfo")
    if information.exists():
        lines = information.read_text(encoding="utf-8", errors="replace").splitlines()
        fields = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)
        fields = {key.strip(): value.strip() for key, value in fields.items()}
        if "model name" in fields:
            cpu = f"{fields['model name']} (family {fields.get('cpu family')}, model {fields.get('model')})"
    return {"date": datetime.date.today().isoformat(), "cpu": cpu, "machine": platform.machine()}


def ratio(measured: dict, contender: str) -> float | None:
    """How many times faster than ggml, by medians."""
    ours = measured["ours"].get(contender)
    return measured["ggml"]["median"] / ours["median"] if measured["ggml"] and ours else None


# ---- text


def head(result: dict) -> list[str]:
    source = (
        "measured in turns in this run"
        if result["ggml_measured"]
        else "* recorded on another machine (llama-cpp-python is not installed)"
    )
    columns = "".join(f"{isa:>15}" for isa in result["isas"])
    return [
        f"{result['date']}, {result['cpu']}",
        f"ns per weight on one core, median of {result['rounds']}; ggml: {source}; min = fastest call",
        f"{'type':8}{'search':7}{'weights':9}{'ggml':>8} {'(min)':>8}{columns}  (min first)  bytes",
    ]


def encoder_lines(measured: dict, isas: list[str]) -> list[str]:
    lines = []
    searches = dict.fromkeys(key.split()[0] for key in measured["ours"])
    peer, star = measured["ggml"], "" if measured["measured"] else "*"
    for search in searches:
        figures = f"{peer['median']:8.2f}{star:1}{peer['min']:8.2f}" if peer else " " * 17
        for isa in isas:
            times = ratio(measured, f"{search} {isa}")
            figures += f"{measured['ours'][f'{search} {isa}']['median']:8.2f}" + (
                f" {times:5.1f}x" if times else " " * 7
            )
        fastest = measured["ours"][f"{search} {isas[0]}"]["min"]
        same = {True: "equal", False: "differ", None: ""}[measured["same_bytes"]] if search == "ggml" else ""
        lines.append(
            f"{measured['type']:8}{search:7}{'imatrix' if measured['importance'] else 'none':9}"
            f"{figures}  {fastest:8.2f}  {same}"
        )
    return lines


def decoder_head(isas: list[str]) -> list[str]:
    return ["", "decoding: ns per weight, and GB/s of float32", f"{'type':8}" + "".join(f"{isa:>16}" for isa in isas)]


def decoder_line(measured: dict, isas: list[str]) -> str:
    times = [measured["ours"][isa]["median"] for isa in isas]
    return f"{measured['type']:8}" + "".join(f"{ns:9.3f} {4 / ns:6.1f}" for ns in times)


# ---- bars


def bars(result: dict) -> list[dict]:
    """Each bar with the ratios it is about, with importance, on AVX2 (or NEON)."""
    isa = next((name for name in ("avx2", "neon") if name in result["isas"]), None)
    weighted = {measured["type"]: measured for measured in result["encode"] if measured["importance"]}
    lines = []
    for search, what, types, bar in BARS:
        found = {
            name: times for name in types if name in weighted and (times := ratio(weighted[name], f"{search} {isa}"))
        }
        if not found:
            continue
        mean = math.exp(sum(map(math.log, found.values())) / len(found))
        reached = mean if what == "geometric mean" else min(found.values())
        lines.append(
            {
                "search": search,
                "isa": isa,
                "what": what,
                "types": len(found),
                "of": len(types),
                "names": list(types),
                "bar": bar,
                "reached": reached,
                "met": reached >= bar and len(found) == len(types),
                "missed_by": {name: times for name, times in found.items() if what == "each" and times < bar},
            }
        )
    return lines


def bar_lines(result: dict) -> list[str]:
    lines = ["", "bars: times faster than ggml, one core, with importance"]
    for bar in result["bars"]:
        short = ", ".join(f"{name} {times:.1f}x" for name, times in bar["missed_by"].items())
        incomplete = "" if bar["types"] == bar["of"] else f" ({bar['types']} of {bar['of']} types measured)"
        verdict = "met" if bar["met"] else "missed" if bar["reached"] < bar["bar"] else "incomplete"
        lines.append(
            f"{bar['search']:5} {bar['isa']}: {bar['what']:15} {bar['reached']:6.1f}x, bar {bar['bar']:g}x: "
            f"{verdict}{incomplete}{': ' + short if short else ''}"
        )
    return lines + mean_lines(result)


def mean_lines(result: dict) -> list[str]:
    """Geometric means over ggml of the types with a search, with importance, for every instruction set."""
    weighted = [found for found in result["encode"] if found["importance"] and found["type"] in SEARCHED]
    lines = []
    for search in dict.fromkeys(key.split()[0] for found in weighted for key in found["ours"]):
        for isa in result["isas"]:
            means = []
            for what in ("median", "min"):
                logs = [
                    math.log(found["ggml"][what] / found["ours"][f"{search} {isa}"][what])
                    for found in weighted
                    if found["ggml"] and f"{search} {isa}" in found["ours"]
                ]
                means += [math.exp(sum(logs) / len(logs))] if logs else []
            if means:
                lines.append(
                    f"{search:5} {isa}: geometric mean of {len(logs)} types: {means[0]:.1f}x; "
                    f"of their fastest calls {means[1]:.1f}x"
                )
    return lines


def markdown(result: dict) -> str:
    """The same as text, in a dated page."""
    lines = [f"# Kernel speed, {result['date']}", "", "Written by `scripts/bench_kernels.py --markdown`.", "", "```"]
    lines += head(result)
    lines += [line for measured in result["encode"] for line in encoder_lines(measured, result["isas"])]
    if result["decode"]:
        lines += decoder_head(result["isas"]) + [
            decoder_line(measured, result["isas"]) for measured in result["decode"]
        ]
    return "\n".join([*lines, *bar_lines(result), "```", ""])


# ---- plot

COLOURS = {"ggml": "#9aa4b1", "ours ggml": "#2f6fb0", "ours best": "#d9822b"}
LABELS = {"ggml": "ggml", "ours ggml": "quantcli --search ggml", "ours best": "quantcli --search best"}


def plotted(result: dict, isa: str) -> list[tuple[str, dict[str, float]]]:
    """Type -> ns per weight of the peer and of ours, where there is a peer and an importance."""
    groups = []
    for measured in result["encode"]:
        if measured["importance"] and measured["ggml"]:
            ours = {search: measured["ours"].get(f"{search} {isa}") for search in ("ggml", "best")}
            bars_here = {"ggml": measured["ggml"], "ours ggml": ours["ggml"], "ours best": ours["best"]}
            groups.append((measured["type"], {key: value["median"] for key, value in bars_here.items() if value}))
    return groups


def plot(result: dict) -> str:
    """An SVG: ns per weight with importance, logarithmic, one group of bars per type."""
    isa = next((name for name in ("avx2", "neon") if name in result["isas"]), result["isas"][0])
    groups = plotted(result, isa)
    left, width, thick, top = 76, 640, 7, 58
    height = top + 34 * len(groups) + 30

    def at(ns: float) -> float:
        return width * math.log10(max(ns, 0.1) / 0.1) / 4  # 0.1 ns to 1 µs

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 60} {height}" font-family="sans-serif" '
        f'font-size="11">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        f'<text x="{left}" y="18" font-size="13" font-weight="bold">ns per weight, one core, with importance '
        f"({isa}; {escape(result['cpu'].split(' (')[0])}, {result['date']})</text>",
    ]
    used = [key for key in COLOURS if any(key in bars_here for _, bars_here in groups)]
    for number, key in enumerate(used):
        parts.append(
            f'<rect x="{left + 225 * number}" y="28" width="10" height="10" fill="{COLOURS[key]}"/>'
            f'<text x="{left + 14 + 225 * number}" y="37">{LABELS[key]}</text>'
        )
    for ns in (0.1, 1, 10, 100, 1000):
        parts.append(
            f'<line x1="{left + at(ns):.1f}" y1="{top - 8}" x2="{left + at(ns):.1f}" y2="{height - 22}"'
            ' stroke="#d8dde3"/>'
            f'<text x="{left + at(ns):.1f}" y="{height - 8}" text-anchor="middle" fill="#555">{ns:g}</text>'
        )
    for number, (name, bars_here) in enumerate(groups):
        y = top + 34 * number
        parts.append(f'<text x="{left - 8}" y="{y + 16}" text-anchor="end">{name}</text>')
        for line, (key, ns) in enumerate(bars_here.items()):
            parts.append(
                f'<rect x="{left}" y="{y + 9 * line}" width="{at(ns):.1f}" height="{thick}" fill="{COLOURS[key]}"/>'
                f'<text x="{left + at(ns) + 4:.1f}" y="{y + 7 + 9 * line}" font-size="8" fill="#555">{ns:.3g}</text>'
            )
    return "\n".join([*parts, "</svg>", ""])
