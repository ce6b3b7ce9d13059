"""`quantcli embed`: one vector for every line of a file, or the scores of a model that ranks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy

from quantcli.errors import ContextTooLong, ShortText
from quantcli.report import tables
from quantcli.report.measurements import EmbeddedLine, EmbedResult
from quantcli.report.terminal import SILENT, Reporter
from quantcli.runner import pooling
from quantcli.runner.arrays import Floats
from quantcli.runner.session import RunOptions, Session, open_session
from quantcli.runner.text import BATCH, read_text

PAIR = "\t"  # between a query and a document, for models that rank


@dataclass(frozen=True, kw_only=True)
class EmbedRequest:
    """The lines of ``text``. ``pooling`` None: as the file says. ``normalize``: vectors of length 1."""

    model: Path
    text: Path
    pooling: str | None = None
    normalize: bool = False
    truncate: bool = False
    options: RunOptions = field(default_factory=lambda: RunOptions(kv_type="F32"))


@dataclass(frozen=True)
class _Line:
    number: int
    text: str
    ids: list[int]


def run(request: EmbedRequest, reporter: Reporter = SILENT) -> EmbedResult:
    """Embed and show. Raises QuantcliError."""
    with open_session(request.model, request.options, both_sides=True, predicts=False) as session:
        kind, remark = pooling.kind_of(session.network, request.pooling)
        reporter.warnings([*session.network.warnings, *([remark] if remark else [])])
        lines = _lines(session, request, kind)
        session.network.require(max(len(line.ids) for line in lines))
        with reporter.steps(f"embed {session.name}", len(lines)) as advance:
            vectors: dict[int, Floats] = {}
            for batch in _batches(lines):
                states = session.network.states(numpy.array([line.ids for line in batch], numpy.int32))
                found = pooling.pooled(session.network, states, kind)
                vectors |= {line.number: one for line, one in zip(batch, found, strict=True)}
                advance(len(vectors))
        normalized = request.normalize and kind != "rank"
        labels = session.model.metadata.get(f"{session.model.architecture}.classifier.output_labels")
        result: EmbedResult = {
            "schema": 1,
            "model": session.describe(),
            "pooling": kind,
            "normalized": normalized,
            "labels": list(labels.data) if labels is not None and kind == "rank" else None,
            "lines": [_embedded(line, vectors[line.number], normalized) for line in lines],
        }
    tables.show_embeddings(reporter, result)
    return result


def _lines(session: Session, request: EmbedRequest, kind: str) -> list[_Line]:
    """The lines that are not blank, as ids. Raises ShortText, ContextTooLong."""
    most, found = session.network.settings.context, []
    for number, text in enumerate(read_text(request.text).splitlines(), start=1):
        if not text.strip():
            continue
        ids = _ids(session, text, kind)
        if len(ids) > most and not request.truncate:
            raise ContextTooLong(
                f"{len(ids)} tokens, the model knows {most}",
                where=f"{request.text}, line {number}",
                hint="--truncate leaves out what is too much",
            )
        if ids:
            found.append(_Line(number, text, ids[:most]))
    if not found:
        raise ShortText("no line has a token", where=str(request.text), hint="give a text per line with -f")
    return found


def _ids(session: Session, text: str, kind: str) -> list[int]:
    """A line as the model reads it; a pair (query, tab, document) of a model that ranks in its template or, without
    one, as two texts one behind the other with a separator."""
    tokenizer = session.tokenizer
    if kind != "rank" or PAIR not in text:
        return tokenizer.encode(text, parse_special=True)
    query, _, document = text.partition(PAIR)
    template = session.model.metadata.get("tokenizer.chat_template.rerank")
    if template is not None:
        filled = str(template.data).replace("{query}", query).replace("{document}", document)
        return tokenizer.encode(filled, parse_special=True)
    first, second = (tokenizer.encode(part, add_special=False) for part in (query, document))
    start, end, separator = ([] if token is None else [token] for token in _around(session))
    return [*start, *first, *end, *separator, *second, *end]


def _around(session: Session) -> tuple[int | None, int | None, int | None]:
    """What stands around the two texts of a pair, where the vocabulary says that it does: bos, eos, separator."""
    tokenizer, metadata = session.tokenizer, session.model.metadata
    separates = metadata.get("tokenizer.ggml.add_sep_token")
    separator = metadata.get("tokenizer.ggml.seperator_token_id")
    return (
        tokenizer.bos if tokenizer.add_bos else None,
        tokenizer.eos if tokenizer.add_eos else None,
        int(separator.data) if separates is not None and separates.data and separator is not None else None,
    )


def _batches(lines: Sequence[_Line]) -> Iterator[list[_Line]]:
    """Lines of equal length side by side, as many as run together."""
    by_length: dict[int, list[_Line]] = {}
    for line in lines:
        by_length.setdefault(len(line.ids), []).append(line)
    for length, same in by_length.items():
        step = max(1, BATCH // length)
        yield from (same[start : start + step] for start in range(0, len(same), step))


def _embedded(line: _Line, vector: Floats, normalized: bool) -> EmbeddedLine:
    norm = float(numpy.linalg.norm(vector.astype(numpy.float64)))
    vector = vector / numpy.float32(norm) if normalized and norm else vector
    return {
        "line": line.number,
        "text": line.text,
        "tokens": len(line.ids),
        "norm": norm,
        "embedding": vector.tolist(),
    }
