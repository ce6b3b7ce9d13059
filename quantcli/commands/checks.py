"""What is told or refused before a conversion begins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from quantcli import places
from quantcli.errors import MissingPackage, NoKernel, UsageError, WarningsRefused
from quantcli.ggml import kernels
from quantcli.methods import plain
from quantcli.methods.seam import Statistics
from quantcli.methods.table import Choice
from quantcli.model import Model
from quantcli.plan.plan import Plan
from quantcli.report.texts import counted
from quantcli.statistics import imatrix


def importance_warnings(plans: Sequence[Plan]) -> list[str]:
    """What an importance matrix lacks, and what it says of itself. Raises BadImportance for one of another model."""
    found: list[str] = []
    for one in plans:
        importance = one.options.importance
        if importance is None:
            continue
        missing = imatrix.missing(importance, one.entries)
        found += importance.warnings  # looking entries up may have added one
        if missing:
            found.append(
                f"{one.file_type.name}: {len(missing)} tensors are not in the importance matrix and are quantized "
                f"without ({', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''})"
            )
    return list(dict.fromkeys(found))


def method_warnings(plans: Sequence[Plan], choice: Choice) -> list[str]:
    """Never silent: what the named method does not take."""
    found = []
    for one in plans:
        for (type_name, used), count in method_fallbacks(one, choice).items():
            tensors = f"{count} tensors" if count > 1 else "1 tensor"
            found.append(
                f"{one.file_type.name}: method {choice.name} does not take {tensors} of {type_name}: {used} does"
            )
    return found


def template_warnings(plans: Sequence[Plan], given: str | None) -> list[str]:
    """Chat templates of the outputs that do not compile; the user's own, ``given``, is refused.

    Raises UsageError.
    """
    if not plans:
        return []
    from quantcli.chat import sandbox  # brings what starts processes: of many parts one does

    templates = {
        key: value.data
        for one in plans
        for key, value in one.metadata.items()
        if (key == sandbox.KEY or key.startswith(f"{sandbox.KEY}.")) and isinstance(value.data, str)
    }
    try:
        found = sandbox.problems(templates) if templates else {}
    except MissingPackage as error:
        return [f"the chat template was not checked: {error.message}"]
    if given is not None and sandbox.KEY in found:
        raise UsageError(
            f"the chat template {found[sandbox.KEY]}",
            where="--chat-template",
            hint="mend the file, or leave the option out: the model's own template is stored then",
        )
    return [f"{key[:100]}: the chat template {problem}" for key, problem in found.items()]


def refuse_warnings(warnings: Sequence[str]) -> None:
    """What --strict means. Raises WarningsRefused naming them all."""
    if warnings:
        raise WarningsRefused("; ".join(warnings), where="--strict", hint="leave out --strict to convert all the same")


def method_fallbacks(one: Plan, choice: Choice) -> Counter[tuple[str, str]]:
    """(type, method that takes over) -> number of tensors that the named method does not take."""
    planned = ((entry.tensor, entry.type) for entry in one.entries)
    return choice.fallbacks(planned, Statistics(one.options.importance))


def hash_notes(models: Iterable[Model], *, in_part: bool = False) -> list[str]:
    """Of how many files that came from afar all of the content was held against the hash that was announced.
    ``in_part``: some of the content was not asked for, another part or an earlier run has it."""
    found = [places.elsewhere(name) for name in dict.fromkeys(n for model in models for n in model.weight_files)]
    checked = [file.checked for file in found if file is not None]
    if not checked:
        return []
    told = f"sha256 of {sum(checked)} of {counted(len(checked), 'file')} held against the hub's"
    why = "were read in part" if in_part else "are read in another order than they lie in"
    rest = f"; the others {why}: their lengths and headers were checked"
    return [told if all(checked) else told + rest]


def check_kernels(plans: Sequence[Plan], choice: Choice) -> None:
    """Whether this build can decode and encode what is planned. Raises NoKernel, UnsupportedInstructionSet."""
    kernels.isa()  # a QUANTCLI_SIMD that names nothing usable is an error before any work
    for one in plans:
        for entry in one.entries:
            copied = entry.tensor.raw and entry.type is entry.tensor.stored
            if copied:
                continue
            if not kernels.can_encode(entry.type.id, plain.search_for(entry.type, choice.settings.search)):
                raise NoKernel(
                    f"this build cannot encode {entry.type.name} ({one.file_type.name} needs it)",
                    where=f"tensor {entry.tensor.name}",
                    hint="`quantcli formats` shows which types can be written; a dry run plans all of them",
                )
            if not kernels.can_decode(entry.tensor.stored.id):
                raise NoKernel(f"this build cannot decode {entry.tensor.stored.name}", where=entry.tensor.origin)
