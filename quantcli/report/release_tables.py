"""What diff, reproduce, card and release found, as people read it."""

from __future__ import annotations

from quantcli.report.releases import DiffResult, ReleaseResult, ReproduceResult, TensorDifference
from quantcli.report.terminal import Reporter, duration, size

SHOWN = 20  # lines of a table that may have hundreds


def show_difference(reporter: Reporter, result: DiffResult, *, every: bool) -> None:
    """Metadata, then the tensors that are not the same: those that are farthest apart first."""
    if reporter.as_json:
        return
    a, b = result["a"], result["b"]
    if result["metadata"]:
        lines = [(one["key"], _or_none(one["a"]), _or_none(one["b"])) for one in result["metadata"]]
        reporter.table(("metadata", "A", "B"), lines)
        reporter.line("")
    other = sorted((one for one in result["tensors"] if not one["same"]), key=_distance, reverse=True)
    shown = result["tensors"] if every else other[:SHOWN]
    if shown:
        columns = ("tensor", "A", "B", "other blocks", "error", "largest", "at row", "column")
        reporter.table(columns, [_tensor(one) for one in shown], right=(3, 4, 5, 6, 7))
    if len(other) > len(shown):
        reporter.line(f"... and {len(other) - len(shown)} more (--json has all)")
    same = sum(one["same"] for one in result["tensors"])
    sizes = "" if a["bytes"] == b["bytes"] else f"; {a['bytes']:,} and {b['bytes']:,} bytes"
    entries = f"{len(result['metadata'])} entries of the metadata differ" if result["metadata"] else "metadata equal"
    reporter.line(f"{same} of {len(result['tensors'])} tensors have equal bytes; {entries}{sizes}")


def _distance(one: TensorDifference) -> float:
    """Tensors that one side lacks come first."""
    return float("inf") if one["error"] is None else one["error"]


def _tensor(one: TensorDifference) -> tuple[str, ...]:
    blocks = "" if one["blocks"] is None else f"{one['blocks']:,}"
    where = ("", "") if one["row"] is None else (f"{one['row']:,}", f"{one['column']:,}")
    error, largest = ("" if value is None else f"{value:.3g}" for value in (one["error"], one["largest"]))
    return (one["name"], _or_none(one["type_a"]), _or_none(one["type_b"]), blocks, error, largest, *where)


def _or_none(text: str | None) -> str:
    return "-" if text is None else text


def show_reproduction(reporter: Reporter, result: ReproduceResult) -> None:
    """What the file was made from, and whether it came out again."""
    lines = [
        (one["name"], "same" if one["same"] else "OTHER", _short(one["recorded"]), _short(one["found"]))
        for one in result["ingredients"]
    ]
    reporter.table(("made from", "", "recorded", "here"), lines)
    reporter.line("")
    files = [
        (one["path"], "same" if one["same"] else "OTHER", one["sha256"][:16], _short(one["reproduced"]))
        for one in result["files"]
    ]
    reporter.table(("file", "", "sha256", "made again"), files)
    if result["same"]:
        reporter.line(f"reproduced: every byte is the same ({duration(result['seconds'])})")


def _short(digest: str | None) -> str:
    return "-" if digest is None else digest[:16]


def show_release(reporter: Reporter, result: ReleaseResult) -> None:
    """The plan of a dry run; else what was done and what kept, and which file to take."""
    if result["dry_run"]:
        lines = [(one["path"], one["type"], f"{one['bytes']:,}") for one in result["files"]]
        reporter.table(("file", "type", "bytes"), lines, right=(2,))
        disk, free = size(result["disk"]), size(result["free"])
        reporter.line(f"{disk} in all, {free} free; about {duration(result['estimate'])} of encoding")
        return
    counts: dict[tuple[str, str], int] = {}
    for step in result["steps"]:
        counts[step["step"], step["state"]] = counts.get((step["step"], step["state"]), 0) + 1
    steps = list(dict.fromkeys(step["step"] for step in result["steps"]))
    states = ("done", "kept", "skipped")
    reporter.table(
        ("step", *states),
        [(step, *(str(counts.get((step, state), "")) for state in states)) for step in steps],
        right=(1, 2, 3),
    )
    if result["card"]:
        reporter.line("")
        files = [
            (one["file"], f"{one['bytes']:,}", "" if one["kld"] is None else f"{one['kld']:.4f}", _plain(one["note"]))
            for one in result["card"]
        ]
        reporter.table(("file", "bytes", "KLD", ""), files, right=(1, 2))
    where = f", at hf://{result['uploaded']}" if result["uploaded"] else ""
    reporter.line(f"{result['output']}: complete{where} ({duration(result['seconds'])})")


def _plain(text: str) -> str:
    return text.replace("**", "")
