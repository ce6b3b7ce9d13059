"""The result of a comparison as one self-contained page: pictures as inline SVG, no scripts, nothing loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape

from quantcli.report import picture
from quantcli.report.measurements import ComparedModel, CompareResult

STYLE = (
    picture.themed(":root")
    + picture.STYLE
    + """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; margin: 2em auto;
  max-width: 80em; padding: 0 1em; color: var(--ink); background: var(--paper); }
p { max-width: 62em; }
h1 { font-size: 1.5em; } h2 { font-size: 1.15em; margin: 2.2em 0 0.3em; } h3 { font-size: 1em; margin: 1.4em 0 0.3em; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px; }
th, td { padding: 4px 10px; text-align: right; border-bottom: 1px solid var(--grid); white-space: nowrap; }
th { color: var(--faint); font-weight: 600; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: var(--paper);
  font-weight: 600; }
.error, .note { color: var(--faint); } .note { font-size: 13px; margin: 0.2em 0 0.8em; }
.scroll, .picture { overflow-x: auto; background: linear-gradient(to right, var(--paper) 40%, transparent) 0 / 3em 100%
  no-repeat local, linear-gradient(to left, var(--paper) 40%, transparent) 100% / 3em 100% no-repeat local,
  linear-gradient(to right, var(--grid), transparent) 0 / 0.6em calc(100% - 2px) no-repeat scroll,
  linear-gradient(to left, var(--grid), transparent) 100% / 0.6em calc(100% - 2px) no-repeat scroll; }
svg { display: block; width: 100%; height: auto; min-width: 700px; } .picture { max-width: 62em; }
code { overflow-wrap: anywhere; }
@media (max-width: 640px) {
  body { margin: 1em auto; } th, td { padding: 4px 7px; } th { white-space: normal; vertical-align: bottom; }
  td .error { display: block; font-size: 11px; }
}
"""
)


def with_error(value: str, error: str) -> str:
    """A figure and its standard error."""
    return f'{value} <span class="error">± {error}</span>'


def _difference(entry: ComparedModel) -> str:
    if "difference" not in entry:
        return "–"
    found = entry["difference"]["kld"]
    return with_error(f"{found['mean']:+.6f}", f"{found['se']:.6f}")


COLUMNS: Sequence[tuple[str, Callable[[ComparedModel], str]]] = (
    ("model", lambda e: escape(e["name"])),
    ("MB", lambda e: f"{e['bytes'] / 1e6:.1f}"),
    ("bpw", lambda e: f"{e['bpw']:.2f}"),
    ("mean KLD", lambda e: with_error(f"{e['kld']['mean']:.6f}", f"{e['kld']['se']:.6f}")),
    ("same top %", lambda e: with_error(f"{e['same_top']:.2f}", f"{e['same_top_se']:.2f}")),
    ("RMS Δp %", lambda e: with_error(f"{e['rms_dp']:.3f}", f"{e['rms_dp_se']:.3f}")),
    ("PPL ratio", lambda e: with_error(f"{e['ppl']['ratio']:.5f}", f"{e['ppl']['ratio_se']:.5f}")),
    ("PPL", lambda e: with_error(f"{e['ppl']['mean']:.4f}", f"{e['ppl']['se']:.4f}")),
    ("activations", lambda e: e["activations"]),
    ("KV cache", lambda e: e["kv_type"]),
)
#: how the divergence of single predictions is spread: a table of its own, so that no column is cut
SPREAD: Sequence[tuple[str, Callable[[ComparedModel], str]]] = (
    ("model", lambda e: escape(e["name"])),
    ("median", lambda e: f"{e['kld']['median']:.4f}"),
    ("90 %", lambda e: f"{e['kld']['p90']:.4f}"),
    ("95 %", lambda e: f"{e['kld']['p95']:.4f}"),
    ("99 %", lambda e: f"{e['kld']['p99']:.4f}"),
    ("99.9 %", lambda e: f"{e['kld']['p999']:.4f}"),
    ("max", lambda e: f"{e['kld']['max']:.4f}"),
    ("mean, less the first's", _difference),
)


def render(result: CompareResult, version: str) -> str:
    """The page for a result of `compare.execute`."""
    entries = result["models"]
    texts = list(dict.fromkeys(entry["text"] for entry in entries))
    name = escape(str(result["reference"]["name"]))
    parts = [f"<h1>Divergence from {name}</h1>", _about(result, version)]
    if result["interrupted"]:
        parts.append("<p><strong>Interrupted: the figures are those of the chunks that were complete.</strong></p>")
    parts += ["<h2>Size against divergence</h2>", pictured(picture.scatter(entries))]
    for index, text in enumerate(texts):
        own = [entry for entry in entries if entry["text"] == text]
        about = (
            f"{own[0]['chunks']} chunks, {own[0]['scored']:,} predictions; perplexity of the reference "
            f"{own[0]['ppl']['reference']:.4f}"
        )
        parts += [
            f"<h2>{escape(text)}</h2>",
            f'<p class="note">{about}</p>',
            table(own),
            "<h3>KLD of single predictions</h3>",
            table(own, SPREAD),
            "<h3>Spread over chunks</h3>",
            pictured(picture.spread(own, index)),
        ]
    return page(f"Divergence from {result['reference']['name']}", parts)


def page(title: str, parts: Sequence[str], style: str = "") -> str:
    """A whole page of these parts; ``title`` is text, ``style`` more CSS. Nothing is loaded from anywhere."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
        f"<title>{escape(title)}</title><style>{STYLE}{style}</style></head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def pictured(svg: str) -> str:
    """A picture whose letters keep a readable size: on a narrow screen it scrolls."""
    return f'<div class="picture">{svg}</div>'


def rows(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table of cells that are HTML already."""
    first = "".join(f"<th>{name}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in line) + "</tr>" for line in lines)
    return f'<div class="scroll"><table><tr>{first}</tr>{body}</table></div>'


def _about(result: CompareResult, version: str) -> str:
    """How the figures came about, and what they mean."""
    reference: Mapping[str, object] = result["reference"]
    kept = [
        f"{label} {reference[key]}"
        for key, label in (("kind", ""), ("activations", "activations"), ("kv_type", "KV cache"))
        if reference.get(key)
    ]
    return (
        f'<p class="note">quantcli {escape(version)}; reference: {escape(", ".join(kept).strip())}; chunks of '
        f"{result['context']} tokens. KLD: Kullback-Leibler divergence of the next token's probabilities from the "
        "reference's, in nats, over the second half of every chunk (less is better); same top: how often both "
        "find the same token likeliest; RMS Δp: root mean square change of the right token's probability; PPL "
        "ratio: perplexity over the reference's. ± is one standard error.</p>"
    )


def table(
    entries: Sequence[ComparedModel], columns: Sequence[tuple[str, Callable[[ComparedModel], str]]] = COLUMNS
) -> str:
    """One row per model."""
    return rows([name for name, _ in columns], [[cell(entry) for _, cell in columns] for entry in entries])
