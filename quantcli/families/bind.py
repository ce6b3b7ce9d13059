"""Checkpoint tensors -> GGUF tensors: every name is matched with a rule of the family, and every rule with its names.

Nothing is left over and nothing is missing, or an error says so; shapes are held against config.json. Work is bounded
by the tensors that are there, never by the counts that config.json claims.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from quantcli import architectures
from quantcli.errors import MissingTensors, ShapeMismatch, UnknownTensors, UnsupportedFile
from quantcli.families import names, numbers
from quantcli.families.copies import is_copy
from quantcli.families.declaration import Family, TensorRule
from quantcli.families.experts import Stacks
from quantcli.families.facts import Facts
from quantcli.families.transforms import Node
from quantcli.sources.tensor import SourceTensor

_SHOWN = 10  # names in an error message
_FLOATS = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True, slots=True, eq=False)
class Spec:
    """One part of a rule: its weight, its bias, or the whole of an exact name."""

    rule: TensorRule
    part: str  # "weight", "bias"
    source: str  # full name with {layer} and {expert} or {part}
    target: str

    def numbered(self, numbers: Sequence[int]) -> tuple[int | None, int | None]:
        """(layer, expert) of a name whose ``numbers`` stand where the source has {}; None for what it lacks."""
        slots = [name for name in self.source.split(".") if name in ("{layer}", "{expert}")]
        found = dict(zip(slots, numbers, strict=True))
        return found.get("{layer}"), found.get("{expert}")

    @property
    def sources(self) -> list[str]:
        """The names that the words of {part} make."""
        return [self.source.replace("{part}", part) for part in self.rule.parts] or [self.source]

    @property
    def stacked(self) -> bool:
        """Whether several tensors become one."""
        return bool(self.rule.parts) or "{expert}" in self.source

    def count(self, facts: Facts) -> int:
        """How many tensors become one."""
        experts: int = facts["experts"] or 0 if "{expert}" in self.source else 1
        return len(self.rule.parts) or experts

    def name(self, layer: int, expert: int = 0) -> str:
        source = self.sources[expert] if self.rule.parts else self.source
        return source.replace("{layer}", str(layer)).replace("{expert}", str(expert))


@dataclass(slots=True)
class Bound:
    """One GGUF tensor with the source tensors that it is made of: one, or one per expert."""

    name: str
    spec: Spec
    layer: int
    parts: dict[int, SourceTensor] = field(default_factory=dict)
    first: int = 0  # positions of the first and the last source tensor that went into it
    order: int = 0


@dataclass(frozen=True, slots=True)
class Binding:
    """What the tensors of a checkpoint became: GGUF tensors in the order of their sources, and remarks.

    ``left_out`` counts those of towers and projectors beside the language model.
    """

    tensors: list[Bound]
    notes: list[str]
    left_out: int = 0

    def has(self, name: str) -> bool:
        """Whether there is a GGUF tensor of this name."""
        return any(one.name == name for one in self.tensors)


def bind(family: Family, facts: Facts, sources: Sequence[SourceTensor], where: str, whole: bool = True) -> Binding:
    """The GGUF tensors of a checkpoint.

    ``sources`` in the order in which llama.cpp's converter meets them (files in order, names sorted); without ``whole``
    they are some of the model's tensors, and none is missed.
    Raises UnknownTensors, MissingTensors, ShapeMismatch, UnsupportedFile.
    """
    matcher = _Matcher(family, facts)
    matcher.take_all(sources)
    if matcher.unknown:
        raise UnknownTensors(
            f"{len(matcher.unknown)} tensors are unknown to the family {family.name}: {_list(matcher.unknown)}",
            where=where,
            hint="the checkpoint is of another family or newer than quantcli; --architecture NAME reads it differently",
        )
    if whole:
        matcher.check_complete(where)
        matcher.leave_out_copies()
    if matcher.beyond:
        matcher.notes.append(
            f"left out {matcher.beyond} tensors of layers that predict further tokens: {family.gguf_arch} has no place "
            "for them in llama.cpp"
        )
    return Binding(matcher.in_order(), matcher.notes, matcher.left_out)


def expected(family: Family, facts: Facts, prefix: str = "") -> list[tuple[str, tuple[int, ...]]]:
    """(name, torch shape) of every tensor that a checkpoint has to hold, in the order of the rules; no name twice.

    Names are those of the declaration, with ``prefix`` ("model.") before all but the head's; what may be absent is
    left out.
    """
    return list(_Matcher(family, facts).expected(prefix).items())


class _Matcher:
    def __init__(self, family: Family, facts: Facts) -> None:
        self.family, self.facts = family, facts
        rules = [rule for rule in family.tensors if not rule.when or facts[rule.when]]
        self.copy_of = family.copies
        if architectures.find(family.gguf_arch).head == "none":  # a file with a head does not load
            rules = [rule for rule in rules if rule.target != "output"]
            table = next(f"{rule.source}.weight" for rule in rules if rule.target == "token_embd")
            self.copy_of = {"lm_head.weight": table, **family.copies}
        self.specs = [spec for rule in rules for spec in _specs(rule)]
        self.by_key: dict[str, list[tuple[Spec, int]]] = {}  # with the number of the {part}
        for spec in self.specs:
            for part, source in enumerate(spec.sources):
                self.by_key.setdefault(_key(source), []).append((spec, part))
        ignored = tuple(pattern for pattern, fact in family.ignored_if if facts[fact])
        self.ignored = names.one_of((*family.ignored, *ignored))
        self.further, self.zeros = names.one_of(tuple(family.further)), names.one_of(tuple(family.zeros))
        self.wanted: dict[tuple[Spec, int], tuple[str, tuple[int, ...]]] = {}  # name and shape, by the block
        self.numbers = [numbers.pattern(name) for name in family.numbers.values()]
        self.stacks = Stacks(rules, facts)
        self.bound: dict[str, Bound] = {}
        self.found: Counter[Spec] = Counter()
        self.prefixes: Counter[str] = Counter()
        self.copies: dict[str, SourceTensor] = {}  # what may repeat another tensor, by its plain name
        self.unknown: list[str] = []
        self.absent: set[int] = set()
        self.notes: list[str] = []
        self.left_out, self.beyond = 0, 0  # tensors of other modalities, and of layers that predict further tokens

    def take_all(self, sources: Sequence[SourceTensor]) -> None:
        """Give every source tensor its place. Layouts are looked at first: some shapes can be read in two ways."""
        plain = [names.plain(tensor.name, self.family.prefixes) for tensor in sources]
        plain = [(names.respelled(name, self.family.spellings), prefix) for name, prefix in plain]
        for (name, _), tensor in zip(plain, sources, strict=True):
            self.stacks.look_at(name, tensor)
        for position, ((name, prefix), tensor) in enumerate(zip(plain, sources, strict=True)):
            if names.is_buffer(name) or self._is_ignored(name) or self._is_zero(name, tensor):
                continue
            if not self._take(name, prefix, tensor, position):
                self._pass_over(tensor)

    def _is_ignored(self, name: str) -> bool:
        if self.ignored(name):
            return True
        if any(expression.fullmatch(name) for expression in self.numbers):
            return True  # of the metadata
        if self.further(name):
            self.beyond += 1
            return True
        layer = re.match(r"layers\.(\d{1,7})\.", name) if self.family.skip_layers_beyond else None
        beyond = layer is not None and int(layer[1]) >= self.facts.layers
        self.beyond += beyond
        return beyond

    def _is_zero(self, name: str, tensor: SourceTensor) -> bool:
        """Whether the tensor has no place in GGUF and needs none. Raises UnsupportedFile for numbers in it."""
        if not self.zeros(name):
            return False
        reader = tensor.reader()
        if reader.read_rows(0, reader.rows).any():
            raise UnsupportedFile(
                f"is not zero, and {self.family.gguf_arch} has no place for it",
                where=tensor.where,
                hint="llama.cpp cannot run this checkpoint; use one without these biases",
            )
        return True

    def _take(self, name: str, prefix: str, tensor: SourceTensor, position: int) -> bool:
        """Give one source tensor its place; False for one that has none."""
        stack = self.stacks.split(name, tensor)
        if stack is not None:
            return all(self._take_one(expert.name, prefix, expert, position) for expert in stack)
        return self._take_one(self.stacks.expert_name(name), prefix, tensor, position)

    def _take_one(self, name: str, prefix: str, tensor: SourceTensor, position: int) -> bool:
        alias = self.family.same.get(name, name)
        if alias in self.family.same.values() and (first := self._placed(alias)):
            if not is_copy(tensor, first):
                self.notes.append(f"{tensor.name} is left out: it is not the same as {first.name}")
            return True
        match = self._match(alias)
        if name in self.copy_of:
            self.copies[name] = tensor
            if match is None:
                return True  # it has no place of its own
        if match is None:
            return False
        self.prefixes[prefix] += 1
        specs, layer, expert = match
        return all(self._place(spec, layer, expert + part, tensor, position) for spec, part in specs)

    def _pass_over(self, tensor: SourceTensor) -> None:
        """A tensor without a place: of a tower beside the language model, or unknown."""
        if names.is_of_other_modality(tensor.name):
            self.left_out += 1
        else:
            self.unknown.append(tensor.name)

    def _placed(self, name: str) -> SourceTensor | None:
        """The tensor that is bound under the plain ``name`` (one without layers)."""
        specs = self.by_key.get(name, ())
        bound = next((self.bound[spec.target] for spec, _ in specs if spec.target in self.bound), None)
        return bound.parts[0] if bound else None

    def _place(self, spec: Spec, layer: int, expert: int, tensor: SourceTensor, position: int) -> bool:
        """False when the place is taken (two spellings of one name)."""
        block = self._block(spec, layer)
        if (spec, block) not in self.wanted:
            name = spec.target.replace("{layer}", str(block))
            self.wanted[spec, block] = name, _shape(spec, self.facts.at(block))
        name, expected = self.wanted[spec, block]
        _check(tensor, expected)
        bound = self.bound.get(name)
        if bound is None:
            bound = self.bound[name] = Bound(name, spec, block, first=position)
        if bound.spec is not spec or expert in bound.parts:
            return False
        self.found[spec] += 1
        bound.parts[expert] = tensor
        bound.order = position
        return True

    def _block(self, spec: Spec, layer: int) -> int:
        """The block of the file that a layer becomes."""
        rule = spec.rule
        block: int = self.facts[rule.places][layer] if rule.places else layer
        return block + (self.facts[rule.first] if rule.first else 0)

    def leave_out_copies(self) -> None:
        """A tensor that repeats another is one tensor; one that differs and has no place of its own is told."""
        for name, tensor in self.copies.items():
            original = self._placed(self.copy_of[name])
            own = self._match(name)
            if original and is_copy(tensor, original):
                for spec, _ in own[0] if own else ():
                    self.bound.pop(spec.target, None)
            elif own is None:
                place = f"{self.family.gguf_arch} has no place for it in llama.cpp, which uses the embeddings instead"
                self.notes.append(f"{tensor.name} is left out although it is no copy of the embeddings: {place}")

    def _match(self, name: str) -> tuple[list[tuple[Spec, int]], int, int] | None:
        """The specs of this name (and which part of each it is) with layer and expert."""
        for key, positions in _keys(name):
            specs = self.by_key.get(key)
            if not specs:
                continue
            layer, expert = specs[0][0].numbered(positions)
            if layer is not None and layer >= self.facts[specs[0][0].rule.depth]:
                return None
            if expert is not None and expert >= (self.facts["experts"] or 0):
                return None
            specs = [(spec, part) for spec, part in specs if self._has(spec.rule, layer or 0)]
            return (specs, layer or 0, expert or 0) if specs else None
        return None

    def _has(self, rule: TensorRule, layer: int) -> bool:
        block = layer + (self.facts[rule.first] if rule.first else 0)
        return block not in self.absent and (rule.layers is None or self.facts[rule.layers](layer))

    # ---- completeness

    def check_complete(self, where: str) -> None:
        """Raises MissingTensors. Only as many absent names are looked for as the message shows."""
        missing: list[str] = []
        count = 0
        self._leave_out_absent_layers()
        for spec in self.specs:
            expected = self._expected(spec)
            short = expected - self.found[spec]
            if short <= 0 or (self.found[spec] == 0 and self._may_lack(spec)):
                continue
            count += short
            missing += itertools.islice(self._absent(spec), max(0, _SHOWN - len(missing)))
        if count:
            raise MissingTensors(
                f"{count} tensors are missing: {_list(missing, count)}",
                where=where,
                hint="a shard may be missing, or config.json does not belong to these weights",
            )

    def expected(self, prefix: str) -> dict[str, tuple[int, ...]]:
        """The tensors that are missed where none is there, with their shapes."""
        return {
            prefix * (spec.rule.target != "output") + spec.name(layer, expert): _shape(
                spec, self.facts.at(self._block(spec, layer))
            )
            for spec in self.specs
            if not self._may_lack(spec)
            for layer in self._layers(spec)
            for expert in range(spec.count(self.facts))
        }

    def _leave_out_absent_layers(self) -> None:
        """Layers that a checkpoint may lack as a whole (`Family.may_lack`) and does."""
        if not self.family.may_lack:
            return
        may_lack, there = self.facts[self.family.may_lack], {one.layer for one in self.bound.values()}
        self.absent = {layer for layer in range(self.facts.layers) if may_lack(layer) and layer not in there}
        if self.absent:
            self.notes.append(
                f"config.json counts {len(self.absent)} layers that predict further tokens, the checkpoint has none: "
                "the file counts them too, and lacks their tensors"
            )

    def _may_lack(self, spec: Spec) -> bool:
        if spec.part == "bias":
            return spec.rule.bias == "optional"
        optional = spec.rule.optional
        return bool(self.facts[optional]) if isinstance(optional, str) else optional

    def _expected(self, spec: Spec) -> int:
        layers = sum(1 for _ in self._layers(spec))
        return layers * spec.count(self.facts)

    def _layers(self, spec: Spec) -> Iterator[int]:
        if "{layer}" not in spec.source:
            return iter((0,))
        return (layer for layer in range(self.facts[spec.rule.depth]) if self._has(spec.rule, layer))

    def _absent(self, spec: Spec) -> Iterator[str]:
        prefix = self.prefixes.most_common(1)[0][0] if self.prefixes and spec.rule.target != "output" else ""
        for layer in self._layers(spec):
            bound = self.bound.get(spec.target.replace("{layer}", str(self._block(spec, layer))))
            for expert in range(spec.count(self.facts)):
                if not (bound and expert in bound.parts):
                    yield prefix + spec.name(layer, expert)

    # ---- order

    def in_order(self) -> list[Bound]:
        """As llama.cpp's converter emits them: a layer's stacked experts together, when the last one has come."""
        rank = {spec: number for number, spec in enumerate(self.specs)}
        last: Counter[int] = Counter()
        spread = [one for one in self.bound.values() if one.first != one.order and one.spec.stacked]
        for one in spread:
            last[one.layer] = max(last[one.layer], one.order)
        for one in spread:
            one.order = last[one.layer]
        return sorted(self.bound.values(), key=lambda one: (one.order, rank[one.spec]))


def build(bound: Bound, facts: Facts, *, exact: bool = False) -> Node:
    """The lazy rows of one GGUF tensor; with ``exact`` the values of blocks that are copied otherwise."""
    from quantcli.views import Stacked

    transform = bound.spec.rule.transform
    facts["layer"] = bound.layer  # of what is built, for transforms that differ between layers
    if transform and bound.spec.part == "bias" and not transform.moves_rows:
        transform = None
    nodes = []
    for _, tensor in sorted(bound.parts.items()):
        node = Node(tensor.shape, (exact and tensor.exact) or tensor.reader())
        try:
            nodes.append(transform.apply(node, facts.at(bound.layer)) if transform else node)
        except ShapeMismatch as error:
            error.where = tensor.where
            raise
    if not bound.spec.stacked:
        return nodes[0]
    return Node((len(nodes), *nodes[0].shape), Stacked([node.reader for node in nodes]))


def _specs(rule: TensorRule) -> list[Spec]:
    if rule.exact:
        specs = [Spec(rule, "weight", rule.source, rule.target)]
    else:
        specs = [Spec(rule, "weight", rule.source + ".weight", rule.target + ".weight")]
        if rule.bias != "none":
            specs.append(Spec(rule, "bias", rule.source + ".bias", rule.target + ".bias"))
    return specs


def _key(source: str) -> str:
    return source.replace("{layer}", "{}").replace("{expert}", "{}")


def _keys(name: str) -> Iterator[tuple[str, list[int]]]:
    """A name with every choice of its numbers replaced by {}: most replacements first (t5 has fixed numbers too)."""
    parts = name.split(".")
    numeric = [i for i, part in enumerate(parts) if part.isascii() and part.isdigit() and len(part) < 8]
    if len(numeric) <= 3:  # all of them, as nearly every name has it
        held = [int(parts[i]) for i in numeric]
        for i in numeric:
            parts[i] = "{}"
        yield ".".join(parts), held
        parts = name.split(".")
    for size in range(min(len(numeric) - 1, 3), -1, -1):
        for chosen in itertools.combinations(numeric[:4], size):
            key = ".".join("{}" if i in chosen else part for i, part in enumerate(parts))
            yield key, [int(parts[i]) for i in chosen]


def _shape(spec: Spec, facts: Facts) -> tuple[int, ...]:
    """The shape that a source tensor of a layer has to have."""
    rule = spec.rule
    declared = rule.shape[rule.bias_axis : rule.bias_axis + 1 or None] if spec.part == "bias" else rule.shape
    return tuple(facts.size(size) for size in declared)


def _check(tensor: SourceTensor, expected: tuple[int, ...]) -> None:
    """Raises ShapeMismatch, UnsupportedFile."""
    if tensor.type is None or tensor.type.kind == "integer":
        raise UnsupportedFile(
            f"is of type {tensor.dtype}; {', '.join(_FLOATS)} can be read here",
            where=tensor.where,
            hint="quantized checkpoints of this kind cannot be converted; use the original weights",
        )
    if tensor.shape != expected:
        raise ShapeMismatch(
            f"has the shape {list(tensor.shape)}, config.json asks for {list(expected)}",
            where=tensor.where,
            hint="config.json does not belong to these weights, or the family differs from what it declares",
        )


def _list(labels: Sequence[str], total: int | None = None) -> str:
    total = total or len(labels)
    shown = ", ".join(labels[:_SHOWN])
    return f"{shown} and {total - _SHOWN} more" if total > _SHOWN else shown
