"""The part of `quantcli convert` that runs the model: calibrate, transform, encode layer by layer."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from quantcli.calibration import folder
from quantcli.calibration.compensate import Compensation, calibration_network
from quantcli.calibration.folder import CALIBRATION, PASSES, Facts, Folder
from quantcli.calibration.gradients import Gradients
from quantcli.calibration.quality import Used, Wish, gradient_tokens
from quantcli.calibration.tokens import Calibration
from quantcli.commands.calibrating import gathered
from quantcli.errors import BadStatistics, UnknownArchitecture, UnsupportedGraph
from quantcli.ggml.tensor_types import TensorType
from quantcli.model import Model, ModelTensor
from quantcli.plan.plan import Plan
from quantcli.report.results import CompensatedTensor
from quantcli.report.terminal import Reporter
from quantcli.runner.fingerprint import fingerprint
from quantcli.runner.network import Network
from quantcli.runner.weights import holding

FEW = 131_072  # tokens: below, two streams gain less than they could

Made = tuple[Used, dict[str, ModelTensor], list[CompensatedTensor]]


@dataclass(frozen=True)
class Ready:
    """A model that can be run, with the tokens that it is calibrated with and the folders that know of it."""

    network: Network
    calibration: Calibration
    kept: Kept
    wish: Wish
    threads: int

    @cached_property
    def gradients(self) -> Gradients:
        """For all plans."""
        return Gradients(self.network, self.calibration.fit, gradient_tokens(self.wish.method))


def ready(model: Model, wish: Wish, threads: int, reporter: Reporter) -> Ready:
    """Raises UnsupportedGraph, ShortText, NonFiniteResult, BadStatistics, ..."""
    if wish.keep is not None:
        folder.check_place(wish.keep)
    try:
        network = calibration_network(model, threads)
    except (UnsupportedGraph, UnknownArchitecture) as error:
        hint = "-t TYPE with --quality fast converts it without running it"
        raise type(error)(error.message, where=error.where, hint=hint) from None
    calibration = _gathered(wish, network, model, reporter)
    _tell(wish, calibration, reporter)
    return Ready(network, calibration, Kept.of(wish, model, network.length, calibration), wish, threads)


def run(prepared: Ready, plans: Sequence[Plan], reporter: Reporter) -> Iterator[Made]:
    """Per plan: what it was calibrated with, the model's tensors (encoded or changed), and what was done to them.

    Raises NonFiniteResult, BadStatistics, ...
    """
    for one in plans:
        tensors, outcomes = _compensated(one, prepared, reporter)
        yield prepared.calibration.used, tensors, outcomes


def _gathered(wish: Wish, network: Network, model: Model, reporter: Reporter) -> Calibration:
    wanted, sampled = wish.tokens, wish.sampled
    if wish.statistics is not None:  # as many as it was made with
        manifest = folder.read_manifest(wish.statistics / folder.MANIFEST)
        wanted, sampled = int(manifest.get("tokens", wanted)), int(manifest.get("sampled_tokens", sampled))
    folders = [path for path in (wish.statistics, wish.keep) if path is not None]
    return gathered(network, model, reporter, wanted=wanted, texts=wish.texts, sampled=sampled, folders=folders)


def _tell(wish: Wish, calibration: Calibration, reporter: Reporter) -> None:
    used = calibration.used
    reporter.note(f"note: calibrates with {used.real} tokens of text and {used.sampled} that the model wrote")
    if wish.method == "sequential" and used.real + used.sampled < FEW:
        reporter.warning(
            f"{used.real + used.sampled} tokens to calibrate with are few: {2 * FEW} and more give a better result"
        )


@dataclass(frozen=True)
class Kept:
    """What is known of the model already, and where passes over its encodings are kept."""

    facts: Facts
    known: Folder | None
    passes: Path | None
    folder: Folder | None = None  # that keeps what is found out about the model itself

    @classmethod
    def of(cls, wish: Wish, model: Model, length: int, calibration: Calibration) -> Kept:
        """Open the folders of the wish. Raises BadStatistics for those of another model or text."""
        if wish.statistics is None and wish.keep is None:
            return cls({}, None, None)
        print_of_model, known, passes = fingerprint(model), None, wish.keep
        if wish.statistics is not None:
            kind = folder.read_manifest(wish.statistics / folder.MANIFEST).get("kind")
            if kind == PASSES:
                passes = wish.statistics
            else:
                known = Folder(
                    wish.statistics, folder.facts_of(CALIBRATION, print_of_model, length, calibration), must_exist=True
                )
        facts = folder.facts_of(PASSES, print_of_model, length, calibration)
        own = Folder(passes, facts) if passes is not None else known
        if own is not None and passes is not None:
            own.keep_text(calibration.written)
        return cls(facts, known, passes, own)

    def store(self, wish: Wish, one: Plan) -> Folder | None:
        """The folder of one output. Raises BadStatistics where it is another one's, or a part finds it unfinished."""
        if self.passes is None:
            return None
        types = _types(one.whole or one)
        listed = "\n".join(f"{name} {types[name].name}" for name in sorted(types))
        listed = hashlib.sha256(listed.encode()).hexdigest()
        facts: Facts = {
            **self.facts,
            "method": wish.method or "none",
            "transforms": ",".join(wish.transforms),
            "types": listed,
        }
        name = f"{one.file_type.name}-{listed[:8]}" if one.assignment else one.file_type.name
        path = self.passes / name
        whole = one.whole is None or (path / folder.MANIFEST).is_file()
        found = Folder(path, facts) if whole else None
        if found is None or (one.whole is not None and not found.has(folder.COMPLETE)):
            raise BadStatistics(
                "is not finished",
                where=str(path),
                hint="finish it with the same command without --part, and --keep-statistics "
                f"{shlex.quote(str(self.passes))}",
            )
        return found


def _compensated(
    one: Plan, prepared: Ready, reporter: Reporter
) -> tuple[dict[str, ModelTensor], list[CompensatedTensor]]:
    network, wish = prepared.network, prepared.wish
    types = _types(one)
    with reporter.steps(f"{one.file_type.name}: layers", network.settings.layers) as step:

        def told(what: str, done: int, total: int) -> None:
            step(min(done, total), what)

        made = Compensation(
            network=network,
            types=types,
            calibration=prepared.calibration,
            method=wish.method,
            transforms=wish.transforms,
            required=wish.named,
            threads=prepared.threads,
            known=prepared.kept.known,
            store=prepared.kept.store(wish, one),
            progress=told,
            gradients=prepared.gradients,
        ).run()
    tensors = {tensor.name: tensor for tensor in made.model.tensors}
    tensors |= {name: holding(tensors[name], contents) for name, contents in made.result.contents.items()}
    return tensors, made.result.outcomes


def _types(one: Plan) -> dict[str, TensorType]:
    """Of the tensors that are quantized and not merely copied."""
    return {
        entry.tensor.name: entry.type
        for entry in one.entries
        if entry.type.quantized and not (entry.tensor.raw and entry.type is entry.tensor.stored)
    }
