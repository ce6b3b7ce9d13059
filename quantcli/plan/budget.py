"""A size instead of a recipe: what it is in bytes, which tensors and types it leaves free, and the plan that fits it.

Pure like the rest of the room: what a type costs in quality comes from the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from quantcli.architectures.roles import role_of
from quantcli.container import padded
from quantcli.errors import TargetTooSmall, UnknownType
from quantcli.ggml import tensor_types
from quantcli.ggml.tensor_types import BY_NAME, TensorType
from quantcli.model import Model
from quantcli.plan import plan, solve
from quantcli.plan.choose import fit, layer_of
from quantcli.plan.options import Options
from quantcli.plan.overrides import Override
from quantcli.plan.plan import Plan
from quantcli.plan.recipes import FILE_TYPES, FileType

#: named sets of candidates; where a row has no blocks of 256, what stands in for them
SETS = {
    "k": ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q8_0"),
    "iq": ("IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_XS", "IQ4_NL"),
    "legacy": ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"),
    "default": ("IQ2_XS", "Q2_K", "IQ3_XXS", "Q3_K", "IQ4_XS", "Q4_K", "Q5_K", "Q6_K", "Q8_0"),
}
SETS["all"] = tuple(dict.fromkeys(("IQ1_S", "IQ1_M", *SETS["iq"], *SETS["k"], *SETS["legacy"])))
RAGGED = ("Q4_0", "IQ4_NL", "Q4_1", "Q5_0", "Q5_1", "Q8_0")  # beside the fallbacks, in the default set
DEFAULT = "default"
ROUNDS = 8  # of planning for a size that depends on the plan itself (shards)

Losses = Mapping[str, Mapping[str, float]]  # tensor name -> type name -> loss in the type; additive
Make = Callable[[Mapping[str, TensorType]], Plan]  # a plan with these types assigned


@dataclass(frozen=True)
class Target:
    """How large a file shall be: exactly one of ``bytes`` (of all files), ``bpw`` (of tensor data), ``like``, and
    ``max_kld``, a bound of the divergence."""

    bytes: int | None = None
    bpw: float | None = None
    like: FileType | None = None
    max_kld: float | None = None


@dataclass(frozen=True)
class Freedom:
    """What the plan may choose. ``at_least``: tensors that match get no type with fewer bits; ``keep``: stay floats.

    ``together``: tensors of one layer that match one of these get one type.
    """

    candidates: tuple[TensorType, ...]
    ragged: tuple[TensorType, ...] = ()
    at_least: tuple[Override, ...] = ()
    keep: tuple[Override, ...] = ()
    together: tuple[Override, ...] = field(default=())

    def types(self, name: str, columns: int) -> tuple[TensorType, ...]:
        """The types that a tensor may get, from the smallest to the largest."""
        found = {one.name: one for one in (_fitting(each, columns) for each in self.candidates)}
        if any(columns % one.block for one in self.candidates):
            found |= {one.name: one for one in self.ragged if columns % one.block == 0}
        types = sorted((one for one in found.values() if one.quantized), key=lambda one: (one.bpw, one.name))
        least = max((one.type.bpw for one in self.at_least if one.matches(name)), default=0.0)
        return tuple(one for one in types if one.bpw >= least) or tuple(
            one.type for one in self.at_least if one.matches(name) and one.type.bpw == least
        )


def parse_candidates(text: str | None) -> Freedom:
    """``k``, ``iq``, ``legacy``, ``all``, names of types, or several with commas between. Raises UnknownType."""
    names: list[str] = []
    for word in (text or DEFAULT).split(","):
        known = SETS.get(word.strip().lower())
        names += known or [word.strip().upper()]
    unknown = [name for name in names if name not in BY_NAME or not BY_NAME[name].quantized]
    if unknown:
        raise UnknownType(
            f"{unknown[0]!r} is no type to choose from",
            where="--candidates",
            hint=f"for example {', '.join(SETS)} or q4_k,q5_k,q6_k; `quantcli formats` lists the types",
        )
    candidates = tuple(BY_NAME[name] for name in dict.fromkeys(names))
    return Freedom(candidates, tuple(BY_NAME[name] for name in RAGGED) if text is None else ())


def _fitting(wanted: TensorType, columns: int) -> TensorType:
    """The type, or what takes its place for such rows; F16 where nothing with blocks does."""
    return fit(wanted, columns) if columns % wanted.block == 0 or wanted.fallback else BY_NAME["F16"]


# ---- sizes -----------------------------------------------------------------------------------------------------


def target_bytes(target: Target, model: Model, options: Options) -> int:
    """Bytes of all files together that the target allows a plan with these options."""
    if target.bytes is not None:
        return target.bytes
    if target.like is not None:  # the file that llama-quantize makes: nothing about us is in its header
        stock = replace(options, file_type=target.like, provenance={}, importance=None, imatrix=True)
        return plan.make(model, stock).file_bytes
    assert target.bpw is not None
    made = plan.make(model, options)
    return made.file_bytes - made.tensor_bytes + int(target.bpw * made.weights / 8)


def bits(size: int, model: Model, options: Options) -> float:
    """Bits of tensor data per weight that files of ``size`` bytes have room for."""
    made = plan.make(model, options)
    return 8 * (size - made.file_bytes + made.tensor_bytes) / made.weights if made.weights else 0.0


def nearest(model: Model, options: Options, size: int) -> FileType:
    """The recipe whose file is nearest to ``size`` bytes: what a planned file calls itself."""
    mixed = [one for one in FILE_TYPES.values() if one.selectable and not one.is_float and not one.copies]
    sizes = {one.name: plan.make(model, replace(options, file_type=one)).file_bytes for one in mixed}
    return min(mixed, key=lambda one: abs(sizes[one.name] - size))


# ---- the plan --------------------------------------------------------------------------------------------------


def free_tensors(made: Plan, probe: Make) -> dict[str, int]:
    """Names and columns of the tensors whose type an assignment decides: not those that the user or a rule pins."""
    first, second = BY_NAME["Q8_0"], BY_NAME["Q4_0"]
    names = [
        entry.tensor.name
        for entry in made.entries
        if entry.type.quantized and role_of(entry.tensor.name, made.model.architecture) != "pinned"
    ]
    one, other = (probe(dict.fromkeys(names, tensor_type)) for tensor_type in (first, second))
    return {
        entry.tensor.name: entry.tensor.columns
        for entry, again in zip(one.entries, other.entries, strict=True)
        if (entry.type, again.type) == (first, second)
    }


def kept_types(made: Plan, freedom: Freedom) -> dict[str, TensorType]:
    """The tensors that shall stay floats, in the type that the model has them in."""
    return {
        entry.tensor.name: entry.tensor.type
        for entry in made.entries
        if entry.type.quantized and any(one.matches(entry.tensor.name) for one in freedom.keep)
    }


@dataclass(frozen=True)
class Choosing:
    """One model's free tensors and what their types cost. ``fixed``: types that are not chosen."""

    make: Make
    groups: Sequence[tuple[str, ...]]  # names that get one type
    types: Mapping[str, tuple[TensorType, ...]]  # of the first name of every group
    losses: Losses
    fixed: Mapping[str, TensorType]

    @classmethod
    def of(cls, make: Make, freedom: Freedom, losses: Losses) -> Choosing:
        """Tensors without losses keep what the recipe gives them."""
        made = make({})
        fixed = kept_types(made, freedom)
        free = free_tensors(make(fixed), lambda assigned: make({**assigned, **fixed}))
        free = {name: columns for name, columns in free.items() if name in losses}
        groups = _groups(list(free), freedom.together)
        types = {}
        for group in groups:
            common = [freedom.types(name, free[name]) for name in group]
            types[group[0]] = tuple(
                one for one in common[0] if all(one in own for own in common) and _known(one, group, losses)
            )
        return cls(make, [group for group in groups if types[group[0]]], types, losses, fixed)

    def plan(self, size: int) -> Plan:
        """The plan of the least loss with at most ``size`` bytes of files. Raises TargetTooSmall."""
        shapes = {entry.tensor.name: entry.tensor.shape for entry in self.make({}).entries}
        items = [self._item(group, shapes) for group in self.groups]
        smallest = self._assigned([min(range(len(item.bytes)), key=item.bytes.__getitem__) for item in items])
        base = self.make(smallest)
        rest = base.file_bytes - sum(min(item.bytes) for item in items)
        budget = size - rest
        for _ in range(ROUNDS):
            made = self.make(self._assigned(solve.solve(items, budget)))
            if made.file_bytes <= size:
                return made
            budget -= made.file_bytes - size
        raise TargetTooSmall(f"no plan of {size:,} bytes was found", hint="take a larger target")

    def limits(self) -> tuple[int, int]:
        """Bytes of the smallest and of the largest plan."""
        shapes = {entry.tensor.name: entry.tensor.shape for entry in self.make({}).entries}
        items = [self._item(group, shapes) for group in self.groups]
        found = [
            self.make(self._assigned([item.bytes.index(pick(item.bytes)) for item in items])).file_bytes
            for pick in (min, max)
        ]
        return found[0], found[1]

    def loss(self, made: Plan) -> float:
        """The sum over the free tensors."""
        types = {entry.tensor.name: entry.type.name for entry in made.entries}
        return sum(self.losses[name][types[name]] for group in self.groups for name in group)

    def _item(self, group: Sequence[str], shapes: Mapping[str, Sequence[int]]) -> solve.Item:
        types = self.types[group[0]]
        return solve.Item(
            tuple(sum(padded(tensor_types.tensor_bytes(one, shapes[name])) for name in group) for one in types),
            tuple(sum(self.losses[name][one.name] for name in group) for one in types),
        )

    def _assigned(self, chosen: Sequence[int]) -> dict[str, TensorType]:
        found = dict(self.fixed)
        for group, option in zip(self.groups, chosen, strict=True):
            found |= dict.fromkeys(group, self.types[group[0]][option])
        return found


def _known(one: TensorType, group: Sequence[str], losses: Losses) -> bool:
    return all(one.name in losses[name] for name in group)


def _groups(names: Sequence[str], together: Sequence[Override]) -> list[tuple[str, ...]]:
    found: dict[object, list[str]] = {}
    for name in names:
        rule = next((number for number, one in enumerate(together) if one.matches(name)), None)
        key = name if rule is None else (rule, layer_of(name))
        found.setdefault(key, []).append(name)
    return [tuple(group) for group in found.values()]
