"""`quantcli calibrate`: a text through a model once, and what conversions need to know of it into a folder."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy
from numpy.typing import NDArray

from quantcli.calibration import float_stream
from quantcli.calibration.compensate import calibration_network
from quantcli.calibration.float_stream import LayerMoments
from quantcli.calibration.folder import CALIBRATION, MANIFEST, Folder, check_place, facts_of
from quantcli.calibration.quality import QUALITIES
from quantcli.calibration.tokens import Calibration
from quantcli.commands.calibrating import gathered
from quantcli.errors import OutputExists
from quantcli.loader import open_model
from quantcli.report import tables
from quantcli.report.measurements import CalibrateResult
from quantcli.report.terminal import SILENT, Reporter
from quantcli.runner.fingerprint import fingerprint
from quantcli.runner.network import Network
from quantcli.runner.weights import PackedMatrix
from quantcli.statistics import imatrix
from quantcli.statistics.imatrix import Importance

IMPORTANCE = "imatrix.gguf"


@dataclass(frozen=True, kw_only=True)
class CalibrateRequest:
    """``tokens`` of real text at most, of ``texts`` and the bundled one; ``sampled``: tokens that the model writes."""

    model: Path
    output: Path
    texts: tuple[Path, ...] = ()
    tokens: int = QUALITIES["best"].tokens
    sampled: int = QUALITIES["best"].sampled
    resume: bool = False
    threads: int | None = None


def run(request: CalibrateRequest, reporter: Reporter = SILENT) -> CalibrateResult:
    """`execute`, and show what is there."""
    result = execute(request, reporter)
    tables.show_calibration(reporter, result)
    return result


def execute(request: CalibrateRequest, reporter: Reporter = SILENT) -> CalibrateResult:
    """Fill the folder. Raises QuantcliError; what is complete by then stays, for --resume."""
    start = time.perf_counter()
    check_place(request.output)
    if (request.output / MANIFEST).exists() and not request.resume:
        raise OutputExists(
            "is there already", where=str(request.output), hint="continue it with --resume, or give another folder"
        )
    with open_model(request.model) as model:
        network = calibration_network(model, request.threads)
        calibration = gathered(
            network,
            model,
            reporter,
            wanted=request.tokens,
            texts=request.texts,
            sampled=request.sampled,
            folders=[request.output],
        )
        folder = Folder(request.output, facts_of(CALIBRATION, fingerprint(model), network.length, calibration))
        folder.keep_text(calibration.written)
        importance = _collect(folder, network, calibration, reporter)
        folder.put(IMPORTANCE, imatrix.to_gguf_bytes(importance))
    return {
        "schema": 1,
        "output": str(request.output),
        "tokens": calibration.used.real,
        "sampled_tokens": calibration.used.sampled,
        "layers": network.settings.layers,
        "entries": len(importance.entries),
        "seconds": time.perf_counter() - start,
    }


def _collect(folder: Folder, network: Network, calibration: Calibration, reporter: Reporter) -> Importance:
    """Every layer's moments into its file; the importance matrix that follows from them."""
    count = network.settings.layers
    sums: dict[str, NDArray[numpy.float64]] = {}
    counts: dict[str, NDArray[numpy.float64]] = {}
    with reporter.steps("layers", count) as step:
        for layer in _layers(folder, network, calibration):
            for stage in layer.stages:
                for weight in stage.weights:
                    sums[weight.name], counts[weight.name] = _squares(layer, weight)
            step(layer.index + 1)
    chunks = len(calibration.fit) + len(calibration.held_out)
    return Importance(folder.path.name, sums, counts, ["quantcli calibrate"], chunks, network.length)


def _layers(folder: Folder, network: Network, calibration: Calibration) -> Iterator[LayerMoments]:
    """Kept layers as they are; the stream goes through them again where others are missing."""
    probe = float_stream.probe_of(network, calibration.fit)
    kept = [float_stream.is_kept(folder, index) for index in range(network.settings.layers)]
    if all(kept):
        yield from filter(None, (float_stream.read(folder, network, index, probe) for index in range(len(kept))))
        return
    for layer in float_stream.layers(network, calibration.fit, calibration.held_out):
        if not kept[layer.index]:
            float_stream.write(folder, layer)
        yield layer


def _squares(layer: LayerMoments, weight: PackedMatrix) -> tuple[NDArray[numpy.float64], NDArray[numpy.float64]]:
    """Sums of squared inputs [matrices, columns] and tokens [matrices] of one tensor, over all of the text."""
    sums, counts = numpy.zeros((weight.matrices, weight.columns)), numpy.zeros(weight.matrices)
    for gathering in (layer.fit, layer.held_out):
        for number in range(weight.matrices):
            moments = gathering.of(weight, number)
            sums[number] += numpy.diagonal(moments.hessian)
            counts[number] += moments.tokens
    return sums, counts
