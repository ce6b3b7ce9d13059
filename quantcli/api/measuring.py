"""The commands that run a model, as functions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack, cast

from quantcli.api import results
from quantcli.api.build import built
from quantcli.api.common import PathLike, check_names, expected, path, paths
from quantcli.api.progress import Callback, Listening
from quantcli.report import measurements

if TYPE_CHECKING:  # these bring numpy and more
    from quantcli.commands.layer_major import Layerwise
    from quantcli.runner.session import RunOptions


class RunningOptions(TypedDict, total=False):
    """How a model is run, as the command line has it.

    ``layerwise``: every weight is read once, and hidden states wait in the folder ``states`` (docs/layerwise.md);
    ``engine``: who does the chunks, "local://4" or "dask://host:8786" (docs/engines.md). Neither changes the result.
    """

    activations: str | None  # "q8", "int16" or "float"; None: "q8" for quantized models
    exact: bool
    threads: int | None
    parse_special: bool
    layerwise: bool
    states: PathLike | None
    engine: str | None


def imatrix(
    model: PathLike | None,
    output: PathLike = "imatrix.gguf",
    *,
    text: PathLike | None = None,
    length: int | None = None,
    chunks: int | None = None,
    from_chunk: int = 0,
    merge: PathLike | Sequence[PathLike] = (),
    output_frequency: int = 10,
    resume: bool = False,
    process_output: bool = False,
    force: bool = False,
    progress: Callback | None = None,
    **options: Unpack[RunningOptions],
) -> results.ImatrixResult:
    """Collect an importance matrix from ``text`` (None: the bundled one), in chunks of ``length`` tokens, together
    with the matrices of ``merge``; without a model these are merged alone.

    ``from_chunk`` chunks are passed over; the file is saved every ``output_frequency`` chunks (0: only at the end).
    """
    from quantcli.commands import imatrix as verb

    with expected(), Listening(progress) as reporter:
        target = Path(output)
        check_names("imatrix", options, RunningOptions)
        request = verb.ImatrixRequest(
            model=path(model),
            output=target,
            text=path(text),
            length=length,
            chunks=chunks,
            first=from_chunk,
            earlier=paths(merge),
            frequency=output_frequency,
            resume=resume,
            process_output=process_output,
            force=force,
            parse_special=options.get("parse_special", False),
            engine=options.get("engine"),
            layerwise=_by_layer(
                target.with_name(f"{target.name}.states"), options, resume and options.get("layerwise", False)
            ),
            options=_running({"activations": "float", **options}, length),
        )
        return cast(results.ImatrixResult, built(measurements.ImatrixResult, verb.run(request, reporter)))


def perplexity(
    model: PathLike,
    text: PathLike,
    *,
    length: int = 512,
    chunks: int | None = None,
    kv_type: str | None = None,
    resume: bool = False,
    progress: Callback | None = None,
    **options: Unpack[RunningOptions],
) -> results.PerplexityResult:
    """The perplexity of the text file ``text``, as llama.cpp defines it, over chunks of ``length`` tokens.

    ``resume``: with ``layerwise``, an interrupted run goes on behind its last layer.
    """
    from quantcli.commands import layer_major
    from quantcli.commands import perplexity as verb

    with expected(), Listening(progress) as reporter:
        check_names("perplexity", options, RunningOptions)
        request = verb.PerplexityRequest(
            model=Path(model),
            text=Path(text),
            length=length,
            chunks=chunks,
            parse_special=options.get("parse_special", False),
            engine=options.get("engine"),
            layerwise=_by_layer(layer_major.folder_beside(Path(model), "perplexity"), options, resume),
            options=_running(options, length, kv_type),
        )
        return cast(results.PerplexityResult, built(measurements.PerplexityResult, verb.run(request, reporter)))


def compare(
    reference: PathLike,
    models: PathLike | Sequence[PathLike],
    texts: PathLike | Sequence[PathLike] = (),
    *,
    length: int = 512,
    chunks: int | None = None,
    kv_type: str | None = None,
    reference_activations: str | None = None,
    reference_cache: PathLike | None = None,
    reference_top: int | None = None,
    reference_states: PathLike | None = None,
    html: PathLike | None = None,
    svg: PathLike | None = None,
    resume: bool = False,
    force: bool = False,
    progress: Callback | None = None,
    **options: Unpack[RunningOptions],
) -> results.CompareResult:
    """How far ``models`` are from ``reference`` on ``texts``: KL divergence, perplexity ratio, agreement.

    ``reference_cache`` records the reference's predictions (of ``reference_top`` tokens a position), or
    ``reference_states`` what leaves its last layer; a file that is there is used in the reference's place.
    """
    from quantcli.commands import compare as verb
    from quantcli.commands import layer_major

    with expected(), Listening(progress) as reporter:
        check_names("compare", options, RunningOptions)
        request = verb.CompareRequest(
            reference=Path(reference),
            models=paths(models),
            texts=paths(texts),
            length=length,
            chunks=chunks,
            parse_special=options.get("parse_special", False),
            reference_activations=reference_activations,
            record=path(reference_cache),
            top=reference_top,
            states=path(reference_states),
            engine=options.get("engine"),
            layerwise=_by_layer(layer_major.folder_beside(Path(reference), "compare"), options, resume),
            html=path(html),
            svg=path(svg),
            force=force,
            options=_running(options, length, kv_type),
        )
        return cast(results.CompareResult, built(measurements.CompareResult, verb.run(request, reporter)))


def _running(options: RunningOptions, length: int | None, kv_type: str | None = None) -> RunOptions:
    from quantcli.runner.session import RunOptions

    return RunOptions(
        activations=options.get("activations"),
        exact=options.get("exact", False),
        kv_type=kv_type,
        threads=options.get("threads"),
        length=length,
    )


def _by_layer(default: Path, options: RunningOptions, resume: bool) -> Layerwise | None:
    """Whether the model runs layer by layer, and where states wait then: in ``default``, unless a folder is named."""
    from quantcli.commands import layer_major

    return layer_major.wish(
        default,
        layerwise=options.get("layerwise", False),
        states=path(options.get("states")),
        resume=resume,
        engine=options.get("engine"),
    )
