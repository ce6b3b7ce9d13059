"""Results of the commands as people read them on a terminal: one function per command."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantcli.report.summary import summary
from quantcli.report.terminal import Reporter, duration, size
from quantcli.report.texts import counted

if TYPE_CHECKING:
    from quantcli.report.measurements import (
        CalibrateResult,
        ComparedModel,
        CompareResult,
        EmbedResult,
        GenerateResult,
        ImatrixResult,
        PerplexityResult,
    )
    from quantcli.report.results import (
        CheckpointResult,
        CheckResult,
        ConvertResult,
        EstimateResult,
        FormatsResult,
        GgufResult,
        MatrixResult,
        MetadataResult,
        OutputResult,
        TensorResult,
        VerifyResult,
    )

SHOWN_TEXT = 100  # characters of a metadata string
SHOWN_ENTRIES = 20  # of an importance matrix

# ---- convert


def show_conversion(reporter: Reporter, result: ConvertResult, *, tensors: bool) -> None:
    """The files, with every tensor for a dry run. Never silent: a file that is not what its recipe says."""
    if reporter.as_json:
        return
    if tensors:
        for output in result["outputs"]:
            reporter.table(
                ("tensor", "shape", "type", "bytes"),
                [(t["name"], _shape(t["shape"]), t["type"], f"{t['bytes']:,}") for t in output["tensors"]],
                title=f"{output['path']} ({output['type']})",
                right=(3,),
            )
            reporter.line("")
    lines = []
    for output in result["outputs"]:
        mix = ", ".join(f"{t['tensors']} {t['type']}" for t in summary(output["tensors"])["types"])
        lines.append((output["path"], output["type"], f"{output['bytes']:,}", f"{output['bpw']:.3f}", mix))
    reporter.table(("file", "type", "bytes", "bpw", "tensors"), lines, right=(2, 3))
    for output in result["outputs"]:
        if note := carried_note(output):
            reporter.note(note)
        if warning := fallback_warning(output):
            reporter.warning(warning)
    if "estimate" in result:
        reporter.note(estimate_note(result["estimate"], result["threads"]))
    if result.get("weights_per_second"):
        speed = result["weights_per_second"] / 1e6
        reporter.note(
            f"done in {duration(result['seconds'])}: read {size(result['source']['bytes'])}, {speed:.1f} M weights/s"
        )


def estimate_note(found: EstimateResult, threads: int) -> str:
    """What is said of the time, the memory and the disk that a conversion needs."""
    moving, free = found["moving_seconds"], found["disk_free_bytes"]
    speed = found["reading_bytes_per_second"]
    parts = [f"encoding {duration(found['encoding_seconds'])} on {counted(threads, 'thread')}"]
    if moving is not None and speed is not None:
        parts.append(f"reading and writing {duration(moving)} at {size(speed)}/s")
    more = ", and what calibration takes" if found["calibration"] else ""
    room = "" if free is None else f" ({size(free)} are free{'' if free >= found['disk_bytes'] else ': too little'})"
    return (
        f"estimate: about {duration(found['seconds'])}{more} ({', '.join(parts)}); memory "
        f"{size(found['memory_bytes'])}; disk {size(found['disk_bytes'])}{room}"
    )


def carried_note(output: OutputResult) -> str | None:
    """What is said of weights that were carried over."""
    tensors = output.get("carried_over") or []
    if not tensors:
        return None
    carried, blocks, exact = (sum(t[key] for t in tensors) for key in ("carried", "blocks", "exact"))
    return (
        f"{output['type']}: {carried:,} of {blocks:,} blocks of {len(tensors)} tensors lie on the grid of their type "
        f"and are carried over, {exact:,} of them to the bit"
    )


def fallback_warning(output: OutputResult) -> str | None:
    """What is said of tensors that are not of the type that the recipe gives them."""
    groups: dict[tuple[str, str], int] = {}
    for entry in output["fallback_tensors"]:
        key = entry["wanted"], entry["type"]
        groups[key] = groups.get(key, 0) + 1
    if not groups:
        return None
    text = ", ".join(f"{count} {wanted} -> {got}" for (wanted, got), count in groups.items())
    return (
        f"{output['type']}: {sum(groups.values())} of {len(output['tensors'])} tensors have rows that their type's "
        f"block does not divide and fall back: {text}"
    )


def _shape(shape: list[int]) -> str:
    return " x ".join(map(str, shape))


# ---- inspect, verify, formats


def show_model(reporter: Reporter, result: GgufResult | CheckpointResult, *, tensors: bool) -> None:
    """Metadata and types, and with ``tensors`` every tensor."""
    if reporter.as_json:
        return
    what = f"GGUF version {result['version']}" if result["kind"] == "gguf" else "checkpoint"
    reporter.line(
        f"{result['path']}: {what}, architecture {result['architecture']}, name {result['name']!r}"
        + (f", file type {result['file_type']}" if result["file_type"] else "")
    )
    for note in result["notes"] if result["kind"] == "checkpoint" else ():
        reporter.note(f"note: {note}")
    reporter.line("")
    reporter.table(
        ("metadata", "type", "value"),
        [(key, entry["type"], one_line(entry)) for key, entry in result["metadata"].items()],
    )
    reporter.line("")
    lines = [
        (t["type"], t["tensors"], f"{t['weights']:,}", size(t["bytes"]), f"{t['bpw']:.3f}") for t in result["types"]
    ]
    total = (len(result["tensors"]), f"{result['weights']:,}", size(result["tensor_bytes"]), f"{result['bpw']:.3f}")
    reporter.table(("type", "tensors", "weights", "size", "bpw"), [*lines, ("all", *total)], right=(1, 2, 3, 4))
    if tensors:
        reporter.line("")
        shares = {t["name"]: _shares(t) for t in result["tensors"]} if result["kind"] == "checkpoint" else {}
        more = any(shares.values())
        reporter.table(
            ("tensor", "shape", "type", "bytes", *(("on the grid of",) if more else ())),
            [
                (
                    t["name"],
                    _shape(t["shape"]),
                    t["type"],
                    f"{t['bytes']:,}",
                    *((_grids(shares.get(t["name"], {})),) * more),
                )
                for t in result["tensors"]
            ],
            right=(3,),
        )
    if result["kind"] == "checkpoint":
        for note in grid_notes(result):
            reporter.note(f"note: {note}")


def _shares(tensor: TensorResult) -> dict[str, float]:
    """What `inspect` found of a tensor's grids."""
    found = tensor.get("grids")
    return found if isinstance(found, dict) else {}


def _grids(shares: dict[str, float]) -> str:
    """The types on whose grid blocks of a tensor lie."""
    return ", ".join(f"{name} {share:.0%}" for name, share in shares.items())


def grid_notes(result: CheckpointResult) -> list[str]:
    """The types that some tensors are carried over into, as a sample has it."""
    count: dict[str, int] = {}
    for tensor in result["tensors"]:
        for name, share in _shares(tensor).items():
            count[name] = count.get(name, 0) + (share == 1)
    return [
        f"{tensors} tensors lie on the grid of {name}: as {name} they are carried over"
        for name, tensors in count.items()
        if tensors
    ]


def one_line(entry: MetadataResult) -> str:
    """A metadata entry as one short line of text."""
    if "first" in entry:
        more = ", ..." if entry["length"] > len(entry["first"]) else ""
        return f"{entry['length']} x [{', '.join(map(repr, entry['first']))}{more}]"
    text = str(entry["value"]).replace("\n", "\\n")
    return text if len(text) <= SHOWN_TEXT else f"{text[:SHOWN_TEXT]}... ({len(text)} characters)"


def show_matrix(reporter: Reporter, result: MatrixResult, *, tensors: bool) -> None:
    """The entries of an importance matrix, with ``tensors`` all of them."""
    if reporter.as_json:
        return
    entries = result["entries"]
    reporter.line(
        f"{result['path']}: importance matrix, {len(entries)} entries, {result['chunks']} chunks, "
        f"from {', '.join(result['datasets']) or 'an unnamed text'}"
    )
    for warning in result["warnings"]:
        reporter.warning(warning)
    reporter.line("")
    shown = entries if tensors else entries[:SHOWN_ENTRIES]
    columns = list(entries[0]) if entries else []
    lines = [[_cell(value) for value in entry.values()] for entry in shown]
    reporter.table(columns, lines, right=range(1, len(columns)))
    if len(shown) < len(entries):
        reporter.line(f"... and {len(entries) - len(shown)} more (--tensors shows all)")


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "-" if value is None else str(value)


def show_checks(reporter: Reporter, result: VerifyResult) -> None:
    """One line per file, and one below for every remark."""
    for entry in result["files"]:
        if entry["bytes"] is not None and entry["ok"]:
            what = f"{entry['tensors']} tensors, {size(entry['bytes'])}, sha256 {entry['sha256']}"
            reporter.line(f"ok    {entry['path']}  {what}")
        else:
            reporter.line(f"FAIL  {entry['path']}  {entry['problem']}")
        for remark in entry["remarks"]:
            reporter.line(f"      {remark}")


def show_check(reporter: Reporter, result: CheckResult) -> None:
    """One line per step, its details below."""
    for step in result["steps"]:
        mark = {"ok": "ok", "differs": "FAIL"}.get(step["verdict"], step["verdict"])
        reporter.line(f"{mark:7} {step['name']}: {step['summary']}")
        for detail in step["details"]:
            reporter.line(f"          {detail}")


def show_formats(reporter: Reporter, result: FormatsResult) -> None:
    """The recipes and the tensor types."""
    reporter.table(
        ("recipe", "number", "bpw", "imatrix", "for"),
        [
            (r["name"], r["number"], "-" if r["bpw"] is None else f"{r['bpw']:.2f}", r["importance"], r["purpose"])
            for r in result["recipes"]
        ],
        title="Recipes (quantcli convert -t NAME)",
        right=(1, 2),
    )
    reporter.line("")
    lines = [
        (
            t["name"],
            f"{t['bpw']:.4g}",
            t["block"],
            t["bytes"],
            t["importance"],
            ", ".join(t["searches"]) or "-",
            t["purpose"],
        )
        for t in result["types"]
    ]
    reporter.table(
        ("type", "bpw", "block", "bytes", "imatrix", "encode", "for"),
        lines,
        title="Tensor types (--tensor-type REGEX=NAME)",
        right=(1, 2, 3),
    )
    ggml = result["ggml"]
    reporter.line("")
    reporter.line(f"--search ggml writes the bytes of ggml {ggml['version']} (llama.cpp {ggml['commit']})")


# ---- commands that run a model


def show_collection(reporter: Reporter, result: ImatrixResult) -> None:
    """What was collected into which file."""
    for text in result["warnings"]:
        reporter.warning(text)
    reporter.line(
        f"{result['output']}: {result['entries']} entries, {result['chunks']} chunks of "
        f"{result['chunk_size']} tokens, from {', '.join(result['datasets'])}"
    )


def show_calibration(reporter: Reporter, result: CalibrateResult) -> None:
    """What was collected, and the command that uses it."""
    reporter.line(
        f"{result['output']}: moments of {result['layers']} layers, importance of {result['entries']} tensors, from "
        f"{result['tokens']} tokens of text and {result['sampled_tokens']} that the model wrote"
    )
    reporter.note(f"use it with `quantcli convert MODEL -t TYPE --quality best --statistics {result['output']}`")


def show_perplexity(reporter: Reporter, result: PerplexityResult) -> None:
    """The figure and what it is of."""
    value = result["perplexity"]
    reporter.line(
        f"PPL {value['mean']:.4f} +- {value['se']:.4f}  {result['model']['name']}, {result['text']}, "
        f"{result['chunks']} x {result['context']} tokens, {result['model']['activations']} activations, "
        f"{result['tokens_per_second']:.0f} tokens/s"
    )


def show_generation(reporter: Reporter, result: GenerateResult) -> None:
    """Counts and speeds; the text itself was shown while it came."""
    reporter.note(
        f"prompt {result['prompt_tokens']} tokens, {result['prompt_tokens_per_second']:.1f} tokens/s; "
        f"generated {len(result['tokens'])}, {result['tokens_per_second']:.1f} tokens/s; "
        f"ended by {result['stopped']}"
    )


SHOWN_NUMBERS = 4  # of a vector


def show_embeddings(reporter: Reporter, result: EmbedResult) -> None:
    """The beginning of every vector; all of it is in the JSON."""
    rows = []
    for line in result["lines"]:
        numbers = ", ".join(f"{number:.5f}" for number in line["embedding"][:SHOWN_NUMBERS])
        more = ", ..." if len(line["embedding"]) > SHOWN_NUMBERS else ""
        rows.append((str(line["line"]), str(line["tokens"]), f"{line['norm']:.4f}", numbers + more))
    kind = "scores" if result["pooling"] == "rank" else f"{len(result['lines'][0]['embedding'])} numbers"
    reporter.table(("line", "tokens", "norm", f"{kind}, pooled by {result['pooling']}"), rows, right=(0, 1, 2))


COMPARED = ("model", "text", "MB", "bpw", "act", "KLD", "same top %", "RMS dp %", "PPL ratio", "median", "90 %", "95 %",
            "99 %", "99.9 %", "max", "KLD - first")  # fmt: skip
# What a narrow terminal does without, the first of them first: 80 columns show name, text, MB, KLD, same top, PPL.
SPARE = tuple(map(COMPARED.index, ("max", "95 %", "90 %", "median", "KLD - first", "RMS dp %", "99 %", "act", "99.9 %",
                                   "bpw", "PPL ratio", "text")))  # fmt: skip


def show_comparison(reporter: Reporter, result: CompareResult) -> None:
    """One line per model and text, the largest model first."""
    models = sorted(result["models"], key=lambda entry: -entry["bytes"])
    reporter.table(COMPARED, map(_compared, models), right=range(2, len(COMPARED)), spare=SPARE)
    reporter.note(
        f"act: rounding of activations; that of the reference: {result['reference'].get('activations', 'as recorded')}"
    )
    for entry in result["models"]:
        if "record_error" in entry:
            found = entry["record_error"]
            missed = f"{100 * found['relative']:.2g} %"
            reporter.note(
                f"{entry['name']}, {entry['text']}: the record misses {missed} of the divergence "
                f"(measured at {found['positions']} positions)"
            )


def _compared(entry: ComparedModel) -> tuple[str, ...]:
    kld, ppl = entry["kld"], entry["ppl"]
    paired = entry["difference"]["kld"] if "difference" in entry else None
    shares = (kld["median"], kld["p90"], kld["p95"], kld["p99"], kld["p999"], kld["max"])
    return (
        entry["name"],
        entry["text"],
        f"{entry['bytes'] / 1e6:.1f}",
        f"{entry['bpw']:.2f}",
        entry["activations"],
        f"{kld['mean']:.6f} +- {kld['se']:.6f}",
        f"{entry['same_top']:.2f}",
        f"{entry['rms_dp']:.3f}",
        f"{ppl['ratio']:.5f} +- {ppl['ratio_se']:.5f}",
        *(f"{share:.4f}" for share in shares),
        f"{paired['mean']:+.6f} +- {paired['se']:.6f}" if paired else "-",
    )
